"""`calibration-pipeline ui` as a process: which code it loads, and what a signal leaves of it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from assets.cli import main
from helpers.clusters import free_port
from helpers.paths import ROOT

COMMAND = str(Path(sys.executable).with_name("calibration-pipeline"))
START_S, STOP_S = 300.0, 200.0
FOREIGN = """
import dagster as dg

@dg.asset
def foreign_asset(): ...

@dg.definitions
def defs():
    return dg.Definitions(assets=[foreign_asset])
"""
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    name
    locationOrLoadError {
        ... on PythonError { message }
        ... on RepositoryLocation { repositories { assetNodes { assetKey { path } } } }
    }
} } } }"""
RUNS = "{ runsOrError { ... on Runs { results { status } } } }"
LAUNCH = """mutation($location: String!) { launchRun(executionParams: {
    mode: "default"
    selector: {
        repositoryLocationName: $location, repositoryName: "__repository__", jobName: "__ASSET_JOB"
        assetSelection: [{path: ["simulated", "cup", "track_constraints"]}]
    }
}) { __typename ... on PythonError { message } } }"""


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a command whose store and instance are in `folder`."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(folder / "home"),
        "CALIBRATION_STORE": str(folder / "store"),
        "CALIBRATION_SEASONS": "2024,2025",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        **variables,
    }


@contextmanager
def serve(env: Mapping[str, str], cwd: Path, log: Path, before: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Start the UI; yield its process and its address once it answers."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*before, COMMAND, "ui", "--port", str(port)],
            cwd=cwd,
            env=dict(env),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(f"{address}/server_info"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield server, address
    finally:
        processes = tree(server.pid)
        server.terminate()
        try:
            server.wait(STOP_S)
        finally:
            for pid, started in processes.items():
                if is_alive(pid, started):
                    os.kill(pid, signal.SIGKILL)
            server.wait()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=10).close()  # noqa: S310
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


def query(address: str, text: str, **variables: str) -> dict:
    """Return the data of a GraphQL query."""
    body = json.dumps({"query": text, "variables": variables}).encode()
    request = urllib.request.Request(  # noqa: S310
        f"{address}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        return json.load(answer)["data"]


def locations(address: str) -> dict[str, set[str]]:
    """Return the assets of every code location by its name."""
    found = {}
    for entry in query(address, LOCATIONS)["workspaceOrError"]["locationEntries"]:
        location = entry["locationOrLoadError"]
        assert "repositories" in location, location
        nodes = [node for repository in location["repositories"] for node in repository["assetNodes"]]
        found[entry["name"]] = {"/".join(node["assetKey"]["path"]) for node in nodes}
    return found


def launch(address: str) -> None:
    """Put a run of `track_constraints` into the queue."""
    (location,) = locations(address)
    launched = query(address, LAUNCH, location=location)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched


def statuses_of_runs(address: str) -> list[str]:
    return [run["status"] for run in query(address, RUNS)["runsOrError"]["results"]]


def tree(pid: int) -> dict[int, str]:
    """Return start time by process of a process and all its descendants, read from /proc."""
    parents: dict[int, int] = {}
    started: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        number = int(stat.parent.name)
        parents[number], started[number] = int(fields[1]), fields[19]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {number: started[number] for number in found if number in started}


def is_alive(pid: int, started: str) -> bool:
    """Whether the process is there, and is no zombie that nobody has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[19] == started and fields[0] != "Z"


def test_the_processes_get_paths_as_the_command_read_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their current folder is another; tables that no source reads would be refused."""
    (project / "mine").mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("CALIBRATION_FORECASTERS", "mine")
    monkeypatch.setenv("CALIBRATION_RESULTS", "mine.csv")
    found: dict[str, str] = {}
    monkeypatch.setattr(
        "assets.webserver.run_group", lambda _command, _folder, variables: found.update(variables) or 0
    )
    assert main(["ui", "--source", "simulated", "--seed", "7"]) == 0
    assert found["CALIBRATION_FORECASTERS"] == str(project / "mine")
    assert (found["CALIBRATION_SEED"], found["CALIBRATION_RESULTS"]) == ("7", "")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a folder with packages that have our packages' names, and a workspace of its own."""
    folder = tmp_path / "foreign"
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "__init__.py").write_text("")
    (folder / "assets" / "definitions.py").write_text(FOREIGN)
    (folder / "calibration_pipeline.py").write_text("raise ImportError('the foreign calibration_pipeline')\n")
    (folder / "workspace.yaml").write_text("load_from:\n  - python_module: assets.definitions\n")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the project as pip installs its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    installed = folder / "site-packages"
    with zipfile.ZipFile(built) as archive:
        for name in archive.namelist():
            archive.extract(name, installed)
    return installed


@pytest.fixture(params=[pytest.param("clone", marks=pytest.mark.soak), "wheel"])
def path(request: pytest.FixtureRequest) -> str:
    """Return the module path that comes before this environment's, which holds the editable install."""
    return str(ROOT if request.param == "clone" else request.getfixturevalue("wheel"))


def test_without_its_packages_the_ui_names_the_extra(
    project: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "dagster_webserver", None)
    assert main(["ui"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert 'pip install "calibration-pipeline[ui]"' in line


@pytest.mark.server
@pytest.mark.parametrize(
    "from_script",
    [False, pytest.param(True, marks=pytest.mark.soak)],
    ids=["in a terminal", "as a script's background job"],
)
def test_sigterm_ends_every_process_that_the_ui_has_started(tmp_path: Path, *, from_script: bool) -> None:
    """A run that has just been launched included. A script's background jobs ignore SIGINT."""
    before = ("env", "--ignore-signal=INT") if from_script else ()
    log = tmp_path / "log"
    with serve(environment(tmp_path), tmp_path, log, before) as (server, address):
        launch(address)
        deadline = time.monotonic() + START_S
        processes = tree(server.pid)
        idle = len(processes)
        while len(processes) <= idle:  # until the run's process has started
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
            processes = tree(server.pid)
        server.send_signal(signal.SIGTERM)
        assert server.wait(STOP_S) == 0, log.read_text()
        left = {pid for pid, started in processes.items() if is_alive(pid, started)}
        assert not left, log.read_text()
        assert not answers(f"{address}/server_info")
    assert "superseded" not in log.read_text()


@pytest.mark.server
def test_ui_shows_and_runs_our_assets_in_a_folder_with_another_package_assets(
    tmp_path: Path, foreign: Path, path: str
) -> None:
    log = tmp_path / "log"
    env = environment(tmp_path, PYTHONPATH=path)
    with serve(env, foreign, log) as (_, address):
        ((_, assets),) = locations(address).items()
        ours = ("track_constraints", "race_results", "calibration_report")
        assert {f"simulated/cup/{name}" for name in ours} <= assets
        assert "foreign_asset" not in assets
        launch(address)
        deadline = time.monotonic() + START_S
        while (statuses := statuses_of_runs(address)) not in (["SUCCESS"], ["FAILURE"]):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        assert statuses == ["SUCCESS"], log.read_text()
    assert (tmp_path / "store" / "simulated" / "cup" / "track_constraints.parquet").exists()
    assert "foreign calibration_pipeline" not in log.read_text()


@pytest.mark.soak
def test_run_makes_our_assets_in_a_folder_with_another_package_assets(
    tmp_path: Path, foreign: Path, path: str
) -> None:
    env = environment(tmp_path, PYTHONPATH=path)
    where = "import assets; print(assets.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where], env=env, cwd=foreign, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()) == Path(path) / "assets" / "__init__.py"
    done = subprocess.run(
        [COMMAND, "run", "--select", "track_constraints"],
        cwd=foreign,
        env=env,
        capture_output=True,
        text=True,
        timeout=STOP_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stored = pl.read_parquet(tmp_path / "store" / "simulated" / "cup" / "track_constraints.parquet")
    assert "archetype" in stored.columns
    assert sorted(path.name for path in foreign.iterdir() if path.name != "__pycache__") == [
        "assets",
        "calibration_pipeline.py",
        "workspace.yaml",
    ]
