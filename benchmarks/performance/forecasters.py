"""Time of runs with the example forecasters: a forecaster more, and forecasters added to a finished run.

Each command runs in a separate process. A fresh run has an empty store, an empty DAGSTER_HOME and no compiled
program; the other runs continue it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.command import run_pipeline
from benchmarks.performance.timing import measured_on
from benchmarks.result_files import Row
from benchmarks.worktree import ROOT

SINGLE = "right.nc"
"""The file of the forecaster that is added alone: whole-field scenarios."""


class Sizes(NamedTuple):
    """First and last season, scenarios a race of the network, and scenarios a race of the forecasters."""

    first: int
    last: int
    n_scenarios: int
    n_own: int


FULL, SMALL = Sizes(2022, 2025, 2000, 800), Sizes(2024, 2025, 100, 100)


def run(folder: Path, sizes: Sizes, *options: str) -> float:
    """Run the pipeline below a folder; return the seconds."""
    seasons = f"{sizes.first}-{sizes.last}"
    seconds, _ = run_pipeline(folder, "--seasons", seasons, "--scenarios", str(sizes.n_scenarios), *options)
    return seconds


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Run with the network alone, with one forecaster more, and add one and then all to the finished run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        examples, single = folder / "examples", folder / "single"
        command = [sys.executable, "examples/forecasters.py", str(examples)]
        command += ["--first", str(sizes.first), "--last", str(sizes.last), "--scenarios", str(sizes.n_own)]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
        single.mkdir()
        shutil.copy(examples / SINGLE, single)
        first, other = folder / "first", folder / "other"
        alone = run(first, sizes)
        taken = {
            "run": alone,
            "run, one forecaster more": run(other, sizes, "--forecasters", str(single)),
            "run --update, one added": run(first, sizes, "--update", "--forecasters", str(single)),
            "run --update, three more added": run(first, sizes, "--update", "--forecasters", str(examples)),
        }
    machine = measured_on(["dagster", "jax", "polars"])
    rows: list[Row] = [
        {"command": command, "s": f"{s:.0f}", "ratio": f"{s / alone:.2f}", "measured_on": machine}
        for command, s in taken.items()
    ]
    return {"forecasters": rows}
