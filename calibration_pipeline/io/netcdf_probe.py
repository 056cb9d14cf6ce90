"""Probe that reads NetCDF files to the end in a worker process with limits.

On a damaged file, HDF5's library may crash, take all memory or never return. In a worker process nothing
else is lost, and the message names the file. Run as a program, this module is the worker process: its
arguments are file descriptors of open files, and it prints a line for each file that it has read. It reads
by h5netcdf, by which xarray reads too, because importing xarray takes longer than reading most files.
"""

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import h5netcdf

MAX_RACES = 10_000
MAX_RACE_VALUES = 5_000_000
"""Scenarios times cars of one race: 125,000 scenarios of 40 cars."""
MEMORY_BYTES = 4 * 2**30
CPU_S = 600
WALL_S = 1800.0
READ = "read"


def refuse_unreadable(files: Sequence[IO[bytes]], names: Sequence[str], wall_s: float = WALL_S) -> None:
    """Raise for NetCDF files that a worker process cannot read.

    Parameters
    ----------
    files : sequence of binary files
        Open files on a local disk.
    names : sequence of str
        Names of the files in messages.
    wall_s : float
        Seconds for all files together.

    Raises
    ------
    ValueError
        If a file cannot be read; the message names the first such file and the reason.
    """
    numbers = [file.fileno() for file in files]
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "calibration_pipeline.io.netcdf_probe", *map(str, numbers)],
            cwd=Path(__file__).parents[2],
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=wall_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        n_read = (late.stdout or b"").count(READ.encode())
        raise _unreadable(names[min(n_read, len(files) - 1)], f"that takes more than {wall_s:g} s") from None
    lines = done.stdout.splitlines()
    n_read = lines.count(READ)
    if done.returncode == 0 and n_read == len(files):
        return
    reason = lines[-1] if len(lines) > n_read else f"its reader ended with exit code {done.returncode}"
    raise _unreadable(names[min(n_read, len(files) - 1)], reason)


def _unreadable(name: str, reason: str) -> ValueError:
    return ValueError(f"{name} cannot be read as NetCDF 4: {reason}.")


def read_through(file: IO[bytes]) -> None:
    """Read all that xarray reads of a file: its attributes and variables, a race at a time.

    Coordinates of a dimension are read whole, because xarray makes an index of each when it opens a file.
    Variables over the limits are skipped: they are refused later.
    """
    with h5netcdf.File(file, "r", phony_dims="access", decode_vlen_strings=True) as opened:
        for group_or_variable in (opened, *opened.variables.values()):
            _ = dict(group_or_variable.attrs)
        for name, variable in opened.variables.items():
            if variable.dimensions == (name,):
                _ = variable[...]
        n_races = opened.dimensions["race"].size if "race" in opened.dimensions else 1
        if n_races > MAX_RACES:
            return
        for variable in opened.variables.values():
            by_race = "race" in variable.dimensions
            races = range(n_races if by_race else 1)
            if math.prod(variable.shape) > MAX_RACE_VALUES * max(len(races), 1):
                continue
            for race in races:
                _ = variable[tuple(race if dim == "race" else slice(None) for dim in variable.dimensions)]


def _main(numbers: Sequence[str]) -> int:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    if sys.platform == "linux":  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for number in numbers:
        try:
            with open(int(number), "rb") as file:
                file.seek(0)
                read_through(file)
        except Exception as error:  # decoders raise any type on a broken file
            print(" ".join(f"{type(error).__name__} {error}".split())[:300].rstrip(". "))  # noqa: T201
            return 1
        print(READ, flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
