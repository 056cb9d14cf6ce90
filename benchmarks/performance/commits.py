"""The default run of this commit beside those of earlier commits: time, memory, installation, records.

Each commit is checked out and installed as by `make install`. In each turn, every commit runs once with
nothing compiled and an empty store, and once more with an empty store. Each memory page counts once: shared
pages are divided by the number of processes that share them. Events are those in Dagster's records; commits
are the transactions that the processes committed to SQLite.
"""

import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.performance.memory import MemoryLog
from benchmarks.performance.timing import MIB, SkippedError, measured_on
from benchmarks.result_files import Row, repeated
from benchmarks.worktree import ROOT, check_out

BEFORE = {"before one engine": "e9e4e3e", "before this was made faster": "263d7a8"}
"""Earlier commits that are compared with."""
NOW = "now"
UNSET = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE", "VENV", "MAKEFLAGS")
"""Environment variables that a user does not have."""


class Sizes(NamedTuple):
    """Number of turns, and options of the run."""

    n_turns: int
    options: Sequence[str] = ()


FULL, SMALL = Sizes(2), Sizes(1, ("--seasons", "2025", "--scenarios", "100"))


class Measured(NamedTuple):
    """Measurements of one run.

    Attributes
    ----------
    seconds : float
    peak : int
        Largest memory of all processes at one time, bytes.
    events, commits : int
        Records of the run in Dagster's databases, and transactions committed to them.
    """

    seconds: float
    peak: int
    events: int
    commits: int


def run(tree: Path, folder: Path, options: Sequence[str]) -> Measured:
    """Run the pipeline of an installed commit with store and DAGSTER_HOME below `folder`."""
    home, counts = folder / "home", folder / "commits"
    counts.write_bytes(b"")
    environment = {name: value for name, value in os.environ.items() if name not in UNSET} | {
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parent / "counting"),
        "COUNTED_COMMITS": str(counts),
    }
    words = [str(tree / ".venv/bin/calibration-pipeline"), "run", "--store", str(folder / "store"), *options]
    started = time.perf_counter()
    with (
        subprocess.Popen(words, cwd=tree, env=environment, stdout=subprocess.DEVNULL) as process,  # noqa: S603
        MemoryLog(str(process.pid)) as memory,
    ):
        code = process.wait()
        taken = time.perf_counter() - started
    if code:
        raise RuntimeError(f"{' '.join(words)} ended with {code}.")
    return Measured(taken, memory.peak(), sum(count_events(home)), counts.stat().st_size)


def count_events(home: Path) -> Iterator[int]:
    """Yield the number of events in each of Dagster's databases of runs."""
    for file in (home / "history" / "runs").glob("*-*.db"):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as records:
            yield records.execute("SELECT count(*) FROM event_logs").fetchone()[0]


def install(tree: Path) -> tuple[int, float]:
    """Install a commit; return the number of its packages, and the size of the environment in MiB."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    subprocess.run(["make", "install"], cwd=tree, env=environment, check=True, capture_output=True)  # noqa: S607
    site = next((tree / ".venv" / "lib").glob("python*/site-packages"))
    files = [path for path in (tree / ".venv").rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files) / MIB
    compile_all = [tree / ".venv/bin/python", "-m", "compileall", "-q", str(site)]
    subprocess.run(compile_all, capture_output=True, check=False)  # noqa: S603  # some packages have templates
    return len(list(site.glob("*.dist-info"))), size


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Measure every commit in turn; a row a commit."""
    known = {NOW: "HEAD", **BEFORE}
    for name, commit in known.items():
        found = subprocess.run(  # noqa: S603
            ["git", "-C", str(ROOT), "cat-file", "-e", f"{commit}^{{commit}}"],  # noqa: S607
            capture_output=True,
            check=False,
        )
        if found.returncode:
            raise SkippedError(f"the commit {commit} ({name}) is not in this clone")
    if not sys.platform.startswith("linux"):
        raise SkippedError("memory is measured on Linux alone")
    machine = measured_on(["dagster", "jax", "polars"])
    with ExitStack() as stack:
        trees = {name: stack.enter_context(check_out(commit)) for name, commit in known.items()}
        installed = {name: install(tree) for name, tree in trees.items()}
        first: dict[str, list[Measured]] = {name: [] for name in trees}
        again: dict[str, list[Measured]] = {name: [] for name in trees}
        for turn in range(sizes.n_turns):
            # Every second turn backwards: a machine that gets slower or faster favours no commit.
            for name, tree in list(trees.items())[:: -1 if turn % 2 else 1]:
                with tempfile.TemporaryDirectory() as folder:
                    first[name].append(run(tree, Path(folder), sizes.options))
                    print(name, first[name][-1], flush=True)
                    for kept in ("store", "home/history", "home/storage", "home/schedules"):
                        shutil.rmtree(Path(folder, kept), ignore_errors=True)
                    again[name].append(run(tree, Path(folder), sizes.options))
                    print(name, again[name][-1], flush=True)
    rows: list[Row] = []
    for name in trees:
        seconds, compiled = ([part.seconds for part in runs[name]] for runs in (first, again))
        below = [part.seconds for part in first[NOW]]
        rows.append(
            {
                "commit": name,
                **repeated("s", seconds),
                **repeated("compiled_s", compiled),
                **repeated("ratio", [now / other for now, other in zip(below, seconds, strict=True)]),
                "peak_mib": f"{statistics.median(part.peak for part in first[name]) / MIB:.0f}",
                "events": f"{again[name][-1].events}",
                "commits": f"{again[name][-1].commits}",
                "packages": installed[name][0],
                "installed_mib": f"{installed[name][1]:.0f}",
                "measured_on": machine,
            }
        )
    return {"commits": rows}
