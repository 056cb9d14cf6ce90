"""A user's ensembles as targets: Parquet in this process, NetCDF in a child of its own for each input."""

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.forecasters import ForecasterError, scenario_arrays
from calibration_pipeline.forecasters.folder import ForecasterFiles
from calibration_pipeline.forecasters.season_scenarios import read_season_scenarios
from calibration_pipeline.io import netcdf_probe
from calibration_pipeline.scenarios.stacking import MIN_SCENARIOS
from fuzz.choices import Choices, columns_of
from helpers.example_forecasts import entries

CARS = ["A", "B", "Ç"]
LIMIT_S = 20.0
PRINT_EVERY = 100
MEMORY_BYTES = 6 * 2**30
ends: Counter[str] = Counter()
"""How the children of `ensembles_netcdf` ended."""


def scenarios() -> pl.DataFrame:
    """Two races of three cars, as rows."""
    rows = [
        {
            "season": 2021,
            "round": race,
            "scenario": s,
            "driver": car,
            "finish_position": 1 + (i + s) % 3,
            "running": i != s % 4,
        }
        for race in (1, 2)
        for s in range(MIN_SCENARIOS)
        for i, car in enumerate(CARS)
    ]
    return pl.DataFrame(rows)


def dataset() -> xr.Dataset:
    """The same as arrays."""
    finish = np.array([[1 + (i + s) % 3 for i in range(3)] for s in range(MIN_SCENARIOS)])
    dims = ("race", "scenario", "driver")
    return xr.Dataset(
        {
            "finish_position": (dims, np.stack([finish, finish])),
            "n_cautions": (dims[:2], np.ones((2, MIN_SCENARIOS), int)),
        },
        {
            "season": ("race", [2021, 2021]),
            "round": ("race", [1, 2]),
            "name": (("race", "driver"), [CARS, CARS]),
        },
    )


def _parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, **options)
    return buffer.getvalue()


def _netcdf(**encoding: Any) -> bytes:
    return bytes(
        dataset().to_netcdf(engine="h5netcdf", encoding={"finish_position": encoding, "n_cautions": encoding})
    )


PARQUET = [_parquet(scenarios(), compression=kind) for kind in ("uncompressed", "zstd")]
NETCDF = [_netcdf(), _netcdf(zlib=True, shuffle=True, fletcher32=True)]
ENTRIES = entries((202101, 202102), tuple(CARS))
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-ensembles-"))


def read_all(path: Path) -> None:
    """Read a file as the pipeline does."""
    with contextlib.suppress(ForecasterError):
        read_season_scenarios(
            ForecasterFiles(path.name, (str(path),)), ENTRIES, None, fold_races=None, seed=1
        )


def ensembles_parquet(data: bytes) -> None:
    """Bytes as an ensemble in Parquet."""
    path = FOLDER / f"{os.getpid()}.parquet"
    path.write_bytes(data)
    read_all(path)


def ensembles_columns(data: bytes) -> None:
    """Valid rows whose columns hold other types and values."""
    choices = Choices(data)
    try:
        content = _parquet(columns_of(choices, scenarios()))
    except (pl.exceptions.PolarsError, UnicodeError):
        return
    ensembles_parquet(content)


def ensembles_netcdf(data: bytes) -> None:
    """Bytes as an ensemble in NetCDF: a child probes the file, and a file that passes is read."""
    path = FOLDER / f"{os.getpid()}.nc"
    path.write_bytes(data)
    end = _probed(path)
    ends[end] += 1
    total = sum(ends.values())
    if total % PRINT_EVERY == 0:
        print(f"After {total} NetCDF files the probes ended: {dict(ends)}", file=sys.stderr)
    if end == "read":
        with mock.patch.object(scenario_arrays, "refuse_unreadable"):
            read_all(path)


def _probed(path: Path) -> str:
    """Read a file as the probe does, in a child with limits; return read, refused, or what ended it."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = 0
        try:
            with path.open("rb") as file:
                netcdf_probe.read_through(file)
        except Exception:
            code = 3
        os._exit(code)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"signal {os.WTERMSIG(status)}"
            return "read" if os.WEXITSTATUS(status) == 0 else "refused"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"no end within {LIMIT_S:g} s"
