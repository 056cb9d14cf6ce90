"""A tenth of a hub, on a pool and on two local Dask workers: python -m benchmarks.hub.

The hub has 50 forecasters, three series and 13 seasons (`benchmarks.scaling`) or 1,950 seasons. A
tenth has 22 forecasters of scenarios and the nine seasons that can be simulated without a later date. The
forecasters are copies of one simulator. Both runs start with an empty store. The files of both stores are
compared: tables to the bit, arrays to 1e-6. Dask's nanny gives a worker one thread of BLAS, as a process of
the pool has; with more threads long sums round differently.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.command import run_pipeline
from benchmarks.performance.timing import measured_on
from benchmarks.result_files import Row, markdown_table, output_parser, write_results
from benchmarks.worktree import ROOT

FIRST_SEASON = 2018
PORT = 18786
TOLERANCE = 1e-6


@contextmanager
def dask_workers(folder: Path) -> Iterator[str]:
    """Run a scheduler and two workers on loopback; yield the scheduler's address."""
    address = f"tcp://127.0.0.1:{PORT}"
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(PORT), "--no-show"]
    worker = ["distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1"]
    with (folder / "dask.log").open("wb") as log:
        started = [
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", *words, "--no-dashboard"], cwd=ROOT, stdout=log, stderr=log
            )
            for words in (scheduler, worker, worker)
        ]
        try:
            yield address
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def differing(mine: Path, other: Path) -> list[str]:
    """Return the names of the stored files that differ, or are in one folder alone."""
    names = {str(path.relative_to(folder)) for folder in (mine, other) for path in folder.rglob("*.*")}
    return sorted(name for name in names if not _same(mine / name, other / name))


def _same(mine: Path, other: Path) -> bool:
    if not (mine.exists() and other.exists()):
        return False
    if mine.suffix == ".duckdb":
        return True  # its views name the store
    if mine.suffix != ".nc":
        return mine.read_bytes() == other.read_bytes()
    with xr.open_datatree(mine) as one, xr.open_datatree(other) as two:
        pairs = [(node.dataset, two[node.path].dataset) for node in one.subtree]
        return all(_close(left, right) for left, right in pairs)


def _close(left: xr.Dataset, right: xr.Dataset) -> bool:
    if set(left.variables) != set(right.variables):
        return False
    return all(
        np.allclose(left[name], right[name], atol=TOLERANCE, rtol=TOLERANCE, equal_nan=True)
        if left[name].dtype.kind == "f"
        else left[name].equals(right[name])
        for name in left.variables
    )


def measure(n_forecasters: int, n_seasons: int, n_scenarios: int, n_own: int) -> list[Row]:
    """Run both; raise a RuntimeError where their values differ."""
    last = FIRST_SEASON + n_seasons - 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "examples/forecasters.py", str(folder / "examples")]
        command += ["--first", str(FIRST_SEASON), "--last", str(last), "--scenarios", str(n_own)]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
        forecasters = folder / "forecasters"
        forecasters.mkdir()
        for k in range(n_forecasters):
            shutil.copy(folder / "examples" / "right.nc", forecasters / f"simulator{k + 1:02}.nc")
        options = ["--seasons", f"{FIRST_SEASON}-{last}", "--scenarios", str(n_scenarios)]
        options += ["--forecasters", str(forecasters), "--forecaster", "network"]
        pool, _ = run_pipeline(folder / "pool", *options)
        with dask_workers(folder) as address:
            dask, _ = run_pipeline(folder / "dask", *options, "--executor", "dask", "--dask-address", address)
        n_files = sum(path.is_file() for path in (folder / "pool" / "store").rglob("*"))
        if names := differing(folder / "pool" / "store", folder / "dask" / "store"):
            raise RuntimeError(f"{len(names)} of {n_files} files differ: {', '.join(names[:5])}.")
    sizes = {"forecasters": n_forecasters, "seasons": n_seasons, "scenarios": n_scenarios}
    machine = measured_on(["dagster", "distributed", "jax"])
    return [
        {**sizes, "executor": executor, "s": f"{s:.0f}", "same_files": n_files, "measured_on": machine}
        for executor, s in (("process_pool", pool), ("dask", dask))
    ]


def main() -> None:
    """Run the trial."""
    parser: argparse.ArgumentParser = output_parser(__doc__)
    parser.add_argument("--forecasters", type=int, default=22)
    parser.add_argument("--seasons", type=int, default=9)
    parser.add_argument("--scenarios", type=int, default=200, help="scenarios of a race of the network")
    parser.add_argument("--own", type=int, default=100, help="scenarios of a race of a forecaster")
    options = parser.parse_args()
    rows = measure(options.forecasters, options.seasons, options.scenarios, options.own)
    write_results("hub_trial", rows, options.output)
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
