"""Timing in turn, ratios with their range, and measurements in processes of their own.

Whatever is compared runs in turn, again and again, so that what else the machine does falls on all alike, and
a ratio is taken within each turn. Here belongs how things are measured; what is measured belongs elsewhere.
"""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

STATUS = Path("/proc/self/status")
MIB = 2**20


class Spread(NamedTuple):
    """Median and range of repeated measurements."""

    median: float
    lowest: float
    highest: float


class TooSlowError(Exception):
    """A measurement did not end within its time."""


class KilledError(Exception):
    """A measurement's process was killed, as is one that takes more memory than there is."""


def spread(values: Sequence[float]) -> Spread:
    """Summarise repeated measurements.

    Examples
    --------
    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, lowest=1.0, highest=3.0)
    """
    return Spread(statistics.median(values), min(values), max(values))


def shown(values: Sequence[float]) -> str:
    """Write repeated measurements as median (lowest to highest), or the one value that there is.

    Examples
    --------
    >>> shown([3.0, 1.0, 2.0]), shown([0.0123456]), shown([1234.5])
    ('2.00 (1.00 to 3.00)', '0.0123', '1,234')
    """
    median, lowest, highest = map(_three_digits, spread(values))
    return median if len(values) == 1 else f"{median} ({lowest} to {highest})"


def _three_digits(value: float) -> str:
    """Write a number with three digits, or all that it has before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def in_turn(runs: Mapping[str, Callable[[], object]], n_turns: int) -> dict[str, list[float]]:
    """Return the seconds that each run took, turn by turn; a first turn, which compiles, is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(n_turns + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return taken


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return above / below, turn by turn.

    Examples
    --------
    >>> ratios([2.0, 3.0], [1.0, 2.0])
    [2.0, 1.5]
    """
    return [a / b for a, b in zip(above, below, strict=True)]


def peak_memory() -> int:
    """Return the largest memory that this process has had, bytes.

    The kernel's count for the program that runs now where it keeps one: that of `getrusage` begins with the
    memory of the process which started this one.
    """
    if STATUS.exists():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_apart(
    module: str, request: Mapping[str, Any], limit_s: float, environment: Mapping[str, str] | None = None
) -> Any:
    """Return what a module measures in a process of its own.

    Parameters
    ----------
    module : str
        Run as a program, with the request as its argument, in JSON; it calls `answer`.
    request : mapping
    limit_s : float
        The process is ended after so many seconds.
    environment : mapping, optional
        Variables to set.

    Raises
    ------
    TooSlowError
        If it does not end in time.
    KilledError
        If it is killed.
    RuntimeError
        If it fails, with what it said.
    """
    command = [sys.executable, "-m", module, json.dumps(request)]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TooSlowError(f"over {limit_s:.0f} s") from error
    if done.returncode < 0:
        raise KilledError(f"killed by signal {-done.returncode}")
    if done.returncode:
        raise RuntimeError(f"{module} {json.dumps(request)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(measure: Callable[..., Any]) -> None:
    """Measure what the command line asks for, and print it: the other side of `measure_apart`."""
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
