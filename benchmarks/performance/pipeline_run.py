"""One run of the whole pipeline, timed: started by `pipeline`, answers in JSON.

The simulated calendar begins in 2018, and settings allow no season to come. So that there may be forty, the
run and its processes are told a later date; nothing but the choice of seasons depends on it.
"""

import os
import threading
import time
from pathlib import Path

from assets.cli import main
from assets.runner.run import worker
from benchmarks.performance.timing import answer

LATER = "BENCHMARK_YEARS_LATER"
"""By how many years the date that a run is told is later than the true one, for seasons to come."""
INTERVAL_S = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(process: str = "self") -> int:
    """Memory of a process and of all that it started, bytes; pages that they share are counted in each."""
    folder = Path("/proc", process)
    try:
        own = PAGE * int((folder / "statm").read_text().split()[1])
        children = [one for task in folder.glob("task/*/children") for one in task.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    return own + sum(resident(child) for child in children)


class MemoryLog:
    """Memory of this process and its children, looked at again and again: (time, bytes)."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self.seen.append((time.time(), resident()))

    def __enter__(self) -> "MemoryLog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def peak(self, start: float, end: float) -> int:
        """Return the largest memory seen between two times; 0 if nobody looked."""
        return max((size for at, size in self.seen if start <= at <= end), default=0)


def measure(seasons: int, scenarios: int, first_season: int, folder: str) -> dict:
    """Run the pipeline in a folder: time, memory and store; time and memory by asset, checks included."""
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
    made: dict[str, dict[str, float]] = {}
    for step, start, end in steps:
        name = step.removesuffix("_checks").rpartition("__")[2]  # checks are named with source and series
        known = made.setdefault(name, {"seconds": 0.0, "peak": 0, "partitions": 0})
        known["seconds"] += end - start
        known["peak"] = max(known["peak"], memory.peak(start, end))
        known["partitions"] += 1
    stored = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    peak = memory.peak(0.0, float("inf"))
    return {"wall": wall, "peak": peak, "stored": stored, "assets": made}


def step_times(later: float) -> list[tuple[str, float, float]]:
    """Name, start and end of every step that Dagster recorded."""
    import dagster as dg  # which the run's time has paid for

    with dg.DagsterInstance.get() as instance:
        runs = [record.dagster_run.run_id for record in instance.get_run_records()]
        stats = [one for run in runs for one in instance.get_run_step_stats(run)]
    wall = [(one.step_key, one.start_time, one.end_time) for one in stats]
    shift = later if any(end > time.time() + later / 2 for _, _, end in wall) and later else 0.0
    return [(step, start - shift, end - shift) for step, start, end in wall]


if __name__ == "__main__":
    answer(measure)
