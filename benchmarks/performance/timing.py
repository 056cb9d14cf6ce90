"""Timing in turns, ratios by turn, and measurements in separate processes.

The compared programs run in turns, so that the machine's other load falls on all of them alike. A ratio is
taken within each turn. This module holds the methods of measurement; the other modules hold the measurements.
"""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
STATUS = Path("/proc/self/status")
MIB = 2**20


class SkippedError(Exception):
    """A part cannot be measured here: a package or a device is missing."""


class TooSlowError(Exception):
    """A measurement did not end within its time limit."""


class KilledError(Exception):
    """The process of a measurement was killed, for example because memory ran out."""


def measured_on(packages: Sequence[str]) -> str:
    """Describe this machine and the versions of packages."""
    processor = platform.processor() or platform.machine()
    if CPU_INFO.exists():
        processor = next(iter(re.findall(r"model name\s*: (.*)", CPU_INFO.read_text())), processor)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def in_turn(runs: Mapping[str, Callable[[], object]], n_turns: int) -> dict[str, list[float]]:
    """Return the seconds of each run by turn; an extra first turn, which compiles, is not counted."""
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
    """Return the peak resident memory of this process, bytes.

    The value comes from `/proc/self/status` where that exists, because `getrusage` also counts the memory of
    the parent process before the exec.
    """
    if STATUS.exists():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_apart(
    module: str, request: Mapping[str, Any], limit_s: float, environment: Mapping[str, str] | None = None
) -> Any:
    """Run a measurement in a separate process and return its answer.

    Parameters
    ----------
    module : str
        Module to run, with the request as its argument in JSON; the module calls `answer`.
    request : mapping
        Keyword arguments of the measurement.
    limit_s : float
        Time limit, seconds.
    environment : mapping, optional
        Environment variables to set.

    Raises
    ------
    TooSlowError
        If the process exceeds its time limit.
    KilledError
        If the process is killed.
    RuntimeError
        If the process fails, with its standard error.
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
    """Run the measurement that `measure_apart` requests, and print its result as JSON."""
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
