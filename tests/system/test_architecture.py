"""Tests of the architecture: imports, forbidden calls, and the documented graph."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assets.definitions import build_defs
from assets.settings import Settings
from assets.storage.io_manager import StoredManager
from helpers.paths import ROOT

LIBRARY = sorted((ROOT / "calibration_pipeline").rglob("*.py"))
MODULES = LIBRARY + sorted((ROOT / "assets").rglob("*.py"))
LARGEST_PACKAGE = 12
LIBRARY_LAYERS = tuple(
    f"calibration_pipeline.{name}"
    for name in (
        "archetypes",
        "markets",
        "seasons",
        "stats",
        "schemas",
        "io",
        "tracks",
        "sources",
        "telemetry",
        "scenarios",
        "forecasters",
        "mcmc",
        "calibration",
        "marginal",
        "event_map",
        "models",
        "walk_forward",
        "events",
        "analysis",
        "forecast",
        "metrics",
        "verification",
        "comparison",
        "checks",
        "plots",
        "report",
        "terminal",
        "diagnostics",
    )
)
"""Packages of the library along the data flow: each imports only those before it."""
ASSETS_LAYERS = tuple(
    f"assets.{name}"
    for name in (
        "settings",
        "instance",
        "jax_environment",
        "partitions",
        "storage",
        "resources",
        "orchestration",
        "flow",
        "asset_checks",
        "definitions",
        "runner",
        "integrity",
        "webserver",
        "cli",
    )
)
"""Packages and modules of `assets`: each imports only those before it."""
PICKLES = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve"}
DANGEROUS_FUNCTIONS = {
    "os.system",
    "os.popen",
    "os.execv",
    "os.execve",
    "os.execvp",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
}
DANGEROUS_METHODS = {"extractall", "unpack_archive", "read_pickle", "to_pickle", "write_pickle"}
DANGEROUS_ARGUMENTS = {"shell", "allow_pickle"}
CLOCK_AND_ENVIRONMENT = {
    "datetime.now",
    "datetime.utcnow",
    "date.today",
    "datetime.today",
    "os.environ",
    "os.getenv",
    "time.localtime",
    "time.monotonic",
    "time.perf_counter",
    "time.time",
    "time.time_ns",
}


PUBLIC_IN_SPITE_OF_ITS_NAME = {"os._exit", "task._replace"}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def offenders(paths: list[Path], find: Callable[[ast.Module], set[str]]) -> dict[str, set[str]]:
    """Results of `find` by module; empty where the rule is kept."""
    found = {str(path.relative_to(ROOT)): find(parse(path)) for path in paths}
    return {name: names for name, names in found.items() if names}


def imported(tree: ast.Module) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def dotted(tree: ast.Module) -> set[str]:
    """Every `a.b` of a module, and what is imported as `from a import b`, the last two parts."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = (
                node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            )
            names.add(f"{owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def called(tree: ast.Module) -> set[str]:
    """Names of the plain functions that a module calls."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def keywords(tree: ast.Module) -> set[str]:
    """Dangerous arguments of calls, unless they are given as False or None."""
    return {
        f"{keyword.arg}="
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in DANGEROUS_ARGUMENTS
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value in (False, None))
    }


def dangers(tree: ast.Module) -> set[str]:
    """Uses of code execution, pickles, shells, and unpacking to paths that an archive names."""
    methods = {name.partition(".")[2] for name in dotted(tree)} & DANGEROUS_METHODS
    return (
        imported(tree) & PICKLES
        | called(tree) & {"eval", "exec", "compile", "__import__"}
        | dotted(tree) & DANGEROUS_FUNCTIONS
        | methods
        | keywords(tree)
    )


def public(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Public classes, functions and methods, by qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if any(getattr(decorator, "id", "") == "overload" for decorator in node.decorator_list):
                continue
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{node.name}.")


@pytest.mark.slow
def test_library_loads_without_dagster_and_starts_nothing() -> None:
    """Test that importing every module loads neither Dagster nor the code location, and starts no backend."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in LIBRARY]
    modules = [name.removesuffix(".__init__") for name in names]
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(*sorted(name for name in loaded if name.startswith('dagster') or name == 'assets'))\n"
        "import jax; from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized(); assert jax.config.jax_num_cpu_devices == -1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_library_never_names_dagster() -> None:
    """Test that no import inside a function slips past the test above."""

    def find(tree: ast.Module) -> set[str]:
        return {name for name in imported(tree) if name == "assets" or name.startswith("dagster")}

    assert offenders(LIBRARY, find) == {}


def test_library_reads_no_clock_and_no_environment() -> None:
    """Test that the same arguments give the same values."""
    assert offenders(LIBRARY, lambda tree: dotted(tree) & CLOCK_AND_ENVIRONMENT) == {}


def test_nothing_is_pickled_or_evaluated() -> None:
    """Test that stored files cannot run code, and text never becomes code or a shell's command."""
    assert offenders(MODULES, dangers) == {}


def private_api(tree: ast.Module) -> set[str]:
    """Private modules of Dagster that are imported or named, and underscore attributes of other objects."""
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    modules |= {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    private = {name for name in modules if re.match(r"dagster(\.\w+)*\._|dagster_shared", name)}
    attributes = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id not in ("self", "cls")
        and re.match(r"_[a-z]", node.attr)
    }
    return private | (attributes - PUBLIC_IN_SPITE_OF_ITS_NAME)


def test_nothing_private_of_dagster_is_used() -> None:
    """Test that an update of Dagster moves nothing that is used here."""
    assert offenders(sorted((ROOT / "assets").rglob("*.py")), private_api) == {}


def test_every_asset_is_stored_by_a_manager_of_ours(tmp_path: Path) -> None:
    """Test that no value falls to Dagster's default manager, which pickles."""
    settings = Settings(source="simulated", store=str(tmp_path))
    defs = build_defs(settings)
    graph = defs.resolve_asset_graph()
    keys = {
        node.assets_def.get_io_manager_key_for_asset_key(node.key)
        for node in (graph.get(key) for key in graph.get_all_asset_keys())
    }
    assert keys == {"io_manager"}
    assert isinstance(defs.resources["io_manager"], StoredManager)


def test_everything_public_has_a_docstring() -> None:
    """Test that every module, public class, function and method has a docstring."""

    def find(tree: ast.Module) -> set[str]:
        return {name for name, node in [("module", tree), *public(tree)] if not ast.get_docstring(node)}

    assert offenders(MODULES, find) == {}


def layer_of(module: str, layers: tuple[str, ...]) -> int | None:
    """Index of the layer that a dotted module belongs to; None for other packages."""
    return next((i for i, name in enumerate(layers) if f"{module}.".startswith(f"{name}.")), None)


def imported_modules(path: Path) -> set[str]:
    """Dotted modules that a module imports, anywhere in it, relative imports resolved."""
    package = path.relative_to(ROOT).parts[:-1]
    modules: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            modules |= {f"{base}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("layers", [LIBRARY_LAYERS, ASSETS_LAYERS], ids=["library", "assets"])
def test_imports_point_down(layers: tuple[str, ...]) -> None:
    """Test that no module imports a layer above its own, so that packages form no circle."""
    upward = []
    for path in MODULES:
        own = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts), layers)
        for module in imported_modules(path) if own is not None else ():
            other = layer_of(module, layers)
            if other is not None and other > own:
                upward.append(f"{path.relative_to(ROOT)} imports {module}")
    assert upward == []


def test_every_package_has_a_layer() -> None:
    """Test that the layers above name every module and package of both trees."""
    layers = LIBRARY_LAYERS + ASSETS_LAYERS
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES]
    without = [name for name in names if layer_of(name.removesuffix(".__init__"), layers) is None]
    assert without == ["calibration_pipeline.__init__", "assets.__init__"]


def test_packages_can_be_seen_at_a_glance() -> None:
    """Test that no package has more than a dozen modules."""
    sizes = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert {str(folder): n for folder, n in sizes.items() if n > LARGEST_PACKAGE} == {}


@pytest.mark.parametrize("tree", ["calibration_pipeline", "assets"])
def test_tests_mirror_the_tree(tree: str) -> None:
    """Test that every folder of tests is named like a package that exists."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests" / tree).rglob("*.py")}
    assert len(folders) > 1
    without = [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").exists()]
    assert without == []


def test_rules_find_violations() -> None:
    """Test that the scans above are not blind."""
    tree = ast.parse(
        "import pickle, os\nfrom datetime import date, datetime\n"
        "def f():\n    from dagster_x.y import z\n    return eval('1'), os.environ['A'], datetime.now()\n"
    )
    assert imported(tree) == {"pickle", "os", "datetime", "dagster_x"}
    assert {"os.environ", "datetime.now"} <= dotted(tree)
    assert called(tree) == {"eval"}
    assert dangers(tree) == {"pickle", "eval"}
    hidden = ast.parse(
        "import os, subprocess, yaml, zipfile\nimport numpy as np\nos.system('ls')\n"
        "subprocess.run('ls', shell=True)\nyaml.load(text)\nnp.load(path, allow_pickle=True)\n"
        "zipfile.ZipFile(path).extractall()\nnp.load(path, allow_pickle=False)\n"
    )
    assert dangers(hidden) == {"os.system", "shell=", "yaml.load", "allow_pickle=", "extractall"}
    assert [name for name, _ in public(tree)] == ["f"]
    inside = ast.parse(
        "from dagster._core.x import y\nname = 'dagster._core.z'\npool._processes\nself._own\n"
    )
    assert private_api(inside) == {"dagster._core.x", "dagster._core.z", "pool._processes"}


def documented_graph() -> tuple[dict[str, str], set[tuple[str, str]]]:
    """Assets by group, and edges, of the diagram in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", text, flags=re.DOTALL)
    groups: dict[str, str] = {}
    edges: set[tuple[str, str]] = set()
    group = ""
    for line in map(str.strip, diagram.splitlines()[1:]):
        if match := re.fullmatch(r"subgraph (\w+)", line):
            group = match[1]
        elif line == "end":
            group = ""
        elif match := re.fullmatch(r"([\w &]+) --> (\w+)", line):
            edges |= {(parent, match[2]) for parent in match[1].split(" & ")}
        elif line:
            assert group, f"The asset {line} stands in no group."
            groups[line] = group
    return groups, edges


def test_asset_graph_is_the_documented_one(tmp_path: Path) -> None:
    """Test that assets, groups and dependencies are those that docs/architecture.md draws."""
    settings = Settings(source="simulated", store=str(tmp_path))
    graph = build_defs(settings).resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    groups = {node.key.path[-1]: node.group_name for node in nodes}
    edges = {(parent.path[-1], node.key.path[-1]) for node in nodes for parent in node.parent_keys}
    documented_groups, documented_edges = documented_graph()
    assert groups == documented_groups
    assert edges == documented_edges


def test_real_seasons_have_no_known_truth(tmp_path: Path) -> None:
    """Test that only the simulated source has the asset `simulated_truth`."""

    def names(source: str) -> set[str]:
        graph = build_defs(Settings(source=source, store=str(tmp_path))).resolve_asset_graph()
        return {key.path[-1] for key in graph.get_all_asset_keys()}

    assert names("simulated") - names("nascar_feed") == {"simulated_truth"}
    assert names("nascar_feed") <= names("simulated")
