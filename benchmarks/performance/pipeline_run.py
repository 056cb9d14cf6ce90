"""One timed run of the whole pipeline: the process that `pipeline` starts.

The simulated calendar begins in 2018, and settings refuse future seasons. For forty seasons, the run and its
worker processes therefore get a later date; only the choice of seasons depends on the date.
"""

import os
import time
from pathlib import Path

from assets.cli import main
from assets.runner import worker
from benchmarks.performance.memory import MemoryLog
from benchmarks.performance.timing import answer

LATER = "BENCHMARK_YEARS_LATER"
"""Environment variable: years to add to the current date, for future seasons."""


def measure(seasons: int, scenarios: int, first_season: int, folder: str) -> dict:
    """Run the pipeline in a folder; return time, memory and store size, and time and memory by asset."""
    home = Path(folder, "home")
    home.mkdir()
    os.environ["DAGSTER_HOME"] = str(home)
    store = Path(folder, "store")
    chosen = ["--seasons", f"{first_season}-{first_season + seasons - 1}", "--scenarios", str(scenarios)]
    with MemoryLog() as memory:
        started = time.perf_counter()
        later = 0.0
        if LATER in os.environ:
            from benchmarks.performance.later import seconds_later

            worker.PRELOADED.append(seconds_later.__module__)
            later = seconds_later()
        code = main(["run", "--store", str(store), *chosen])
        wall = time.perf_counter() - started
        if code:
            raise RuntimeError(f"The pipeline ended with {code}.")
        steps = step_times(later)
    by_asset: dict[str, dict[str, float]] = {}
    for step, start, end in steps:
        name = step.removesuffix("_checks").rpartition("__")[2]  # checks are named with source and series
        known = by_asset.setdefault(name, {"seconds": 0.0, "peak": 0, "partitions": 0})
        known["seconds"] += end - start
        known["peak"] = max(known["peak"], memory.peak(start, end))
        known["partitions"] += 1
    stored = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    peak = memory.peak()
    return {"wall": wall, "peak": peak, "stored": stored, "assets": by_asset}


def step_times(later: float) -> list[tuple[str, float, float]]:
    """Return name, start and end of every step in Dagster's records."""
    import dagster as dg  # here, because the measured time includes the import by the run

    with dg.DagsterInstance.get() as instance:
        runs = [record.dagster_run.run_id for record in instance.get_run_records()]
        stats = [step for run in runs for step in instance.get_run_step_stats(run)]
    wall = [(step.step_key, step.start_time, step.end_time) for step in stats]
    shift = later if any(end > time.time() + later / 2 for _, _, end in wall) and later else 0.0
    return [(step, start - shift, end - shift) for step, start, end in wall]


if __name__ == "__main__":
    answer(measure)
