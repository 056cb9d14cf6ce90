"""Memory of a process and its descendants over time."""

import threading
import time
from pathlib import Path

INTERVAL_S = 1.0


def proportional(process: str = "self") -> int:
    """Return the memory of a process and its descendants, bytes; a shared page is divided by its sharers."""
    folder = Path("/proc", process)
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
        children = [child for task in folder.glob("task/*/children") for child in task.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return 0
    own = next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return own + sum(proportional(child) for child in children)


class MemoryLog:
    """Samples of the memory of a process and its descendants: (time, bytes).

    Parameters
    ----------
    process : str
        Its number, or `self`.
    """

    def __init__(self, process: str = "self") -> None:
        self.seen: list[tuple[float, int]] = []
        self._process = process
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self.seen.append((time.time(), proportional(self._process)))

    def __enter__(self) -> "MemoryLog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def peak(self, start: float = 0.0, end: float = float("inf")) -> int:
        """Return the largest sample between two times; 0 without a sample."""
        return max((size for at, size in self.seen if start <= at <= end), default=0)
