"""Scenarios in NetCDF: arrays over race, scenario and driver, in NetCDF 3 or NetCDF 4."""

import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from upath import UPath

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.scenarios import RaceScores
from calibration_pipeline.forecasters.tables import FALSE, HIGHER_IS_BETTER, TRUE
from calibration_pipeline.io.addresses import is_local, safe_cause, without_credentials
from calibration_pipeline.io.netcdf_probe import MAX_RACE_VALUES, MAX_RACES, refuse_unreadable
from calibration_pipeline.scenarios.stacking import CAR_DIMS, CAR_OUTCOMES, RACE_OUTCOMES
from calibration_pipeline.sources.quarantine import Row

POSITION_NAMES = ("finish_position", "position", "finish", "rank")
SCORE_NAMES = ("score", "scores", "value", "rating")
LABEL_NAMES = {"driver_id": "driver_id", "name": "driver", "driver": "driver", "car_number": "car_number"}
NETCDF_3 = (b"CDF\x01", b"CDF\x02")
MAX_COPIED_BYTES = 2**33
"""Size of a file that is copied from another file system to this machine's disk."""
CHUNK_BYTES = 2**24
MOST_NAMED = 50


class ArrayScenarios:
    """Scenarios of an open NetCDF file; padding of cars and scenarios is 0 for positions, NaN for scores.

    Parameters
    ----------
    dataset : xarray.Dataset
        Decoded: missing values of any fill value are NaN.
    path : str
        Its name in messages, without credentials.
    races : RacesInForce

    Raises
    ------
    ForecasterError
        If a variable is missing or has other dims, or races or cars are not named.
    """

    def __init__(self, dataset: xr.Dataset, path: str, races: RacesInForce) -> None:
        self.path = path
        self._dataset = dataset
        names = [str(name) for name in dataset.variables]
        self._value = next((name for name in (*POSITION_NAMES, *SCORE_NAMES) if name in names), "")
        if not self._value or set(dataset[self._value].dims) != set(CAR_DIMS):
            held = ", ".join(f"{name} {dataset[name].dims}" for name in names[:MOST_NAMED])
            raise ForecasterError(
                f"{path} must hold finish_position or score (race, scenario, driver); it holds {held}."
            )
        if dataset.sizes["race"] > MAX_RACES:
            raise ForecasterError(f"{path} must have at most {MAX_RACES:,} races.")
        self.are_positions: bool | None = True if self._value in POSITION_NAMES else None
        self.higher_is_better = self._direction()
        self.keys = self._find_keys(names)
        self._label, self.by = self._find_labels(names, races)
        self._outcomes = [
            name
            for name, dims in [*((n, 3) for n in CAR_OUTCOMES[1:]), *((n, 2) for n in RACE_OUTCOMES)]
            if name in names and set(dataset[name].dims) == set(CAR_DIMS[:dims])
        ]

    def read(self, key: Row) -> RaceScores:
        """Return the scenarios of a race; the shape alone if there are too many."""
        wanted = tuple(key[name] for name in self.keys.columns)
        indices = [k for k, row in enumerate(self.keys.iter_rows()) if row == wanted]
        shape = self._dataset.sizes["scenario"], self._dataset.sizes["driver"]
        if math.prod(shape) > MAX_RACE_VALUES:
            return RaceScores([], np.broadcast_to(np.nan, shape), {}, [])
        race = self._dataset.isel(race=indices[0])
        with _name_errors(self.path, f"{self.path} cannot be read"):
            race = race[[self._value, self._label, *self._outcomes]].load()
        scores = race[self._value].transpose("scenario", "driver").values.astype(np.float64)
        labels = [text.strip().strip("\0") for text in _texts(race[self._label].values)]
        unnamed = np.array([label in ("", "nan") for label in labels], bool)
        missing = np.isnan(scores) | ((scores == 0) & bool(self.are_positions))
        slots = np.flatnonzero(~(unnamed | missing.all(axis=0)))
        scenarios = ~missing[:, slots].all(axis=1)  # a race may have fewer than others
        outcomes: dict[str, NDArray] = {}
        for name in self._outcomes:
            values = race[name]
            own = values.transpose("scenario", ...).values
            chosen_values = own[np.ix_(scenarios, slots)] if own.ndim == 2 else own[scenarios]
            outcomes[name] = chosen_values.astype(np.float64)
        chosen = [labels[slot] for slot in slots]
        twice = len(indices) > 1
        repeated = sorted(label for label, n in Counter(chosen).items() if twice or n > 1)
        return RaceScores(chosen, scores[np.ix_(scenarios, slots)], outcomes, repeated)

    def _direction(self) -> bool | None:
        stated = {
            str(attributes[HIGHER_IS_BETTER]).lower()
            for attributes in (self._dataset.attrs, self._dataset[self._value].attrs)
            if HIGHER_IS_BETTER in attributes
        }
        if not stated:
            return None
        if not (stated <= set(TRUE) or stated <= set(FALSE)):
            raise ForecasterError(
                f"{self.path}: {HIGHER_IS_BETTER} must be true or false; got {sorted(stated)}."
            )
        return stated <= set(TRUE)

    def _find_keys(self, names: list[str]) -> pl.DataFrame:
        """Return the races by season and round, else by race_id; beside those, `race` is an index."""
        by_season = {"season", "round"} <= set(names)
        wanted = {"season": "season", "round": "round"} if by_season else {"race_id": "race_id"}
        if not by_season and "race_id" not in names:
            wanted = {"race": "race_id"}
        columns: dict[str, Any] = {}
        for theirs, ours in wanted.items():
            if theirs not in names or self._dataset[theirs].dims != ("race",):
                raise ForecasterError(
                    f"{self.path} must name its races by season and round, or by race_id (race); it has "
                    + ", ".join(names[:MOST_NAMED])
                )
            values = self._dataset[theirs].values
            numbers = pl.Series(values.astype(str) if values.dtype.kind in "SU" else values)
            columns[ours] = numbers.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
        return pl.DataFrame(columns)

    def _find_labels(self, names: list[str], races: RacesInForce) -> tuple[str, str]:
        dims = {("driver",), ("race", "driver"), ("driver", "race")}
        best = (-1, "", "")
        for name, ours in LABEL_NAMES.items():
            if name in names and self._dataset[name].dims in dims:
                labels = {text.strip().strip("\0") for text in _texts(self._dataset[name].values.ravel())}
                n_known, by = races.best_reading(labels, ours)
                best = max(best, (n_known, name, by), key=lambda found: found[0])
        if best[0] < 0:
            raise ForecasterError(
                f"{self.path} must name its cars by {', '.join(LABEL_NAMES)} (driver, or race, driver); it "
                f"has {', '.join(names[:MOST_NAMED])}."
            )
        return best[1], best[2]


@contextmanager
def open_arrays(address: str, races: RacesInForce) -> Iterator[ArrayScenarios]:
    """Open a NetCDF file of scenarios; NetCDF 4 is first read to its end in a process with limits.

    Parameters
    ----------
    address : str
        Path or address.
    races : RacesInForce

    Raises
    ------
    ValueError
        If the file cannot be read, or `ArrayScenarios` refuses it.
    """
    path = without_credentials(address)
    with _name_errors(address, f"{path} cannot be read"):
        file = _open_file(UPath(address))
    with file:
        dataset = _decode(file, path, address)
        yield ArrayScenarios(dataset, path, races)


def _decode(file: IO[bytes], path: str, address: str) -> xr.Dataset:
    is_old = file.read(4) in NETCDF_3
    file.seek(0)
    if not is_old:
        _refuse_unreadable(file, path)
        file.seek(0)
    engine = "scipy" if is_old else "h5netcdf"
    with _name_errors(address, f"{path} cannot be read as NetCDF"):
        return xr.open_dataset(file, engine=engine, decode_times=False)


def _refuse_unreadable(file: IO[bytes], path: str) -> None:
    """Refuse a file that its reader cannot read; a file that was read to its end is not read again."""
    stat = os.fstat(file.fileno())
    version = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    if version not in _readable:
        refuse_unreadable([file], [path])
        _readable.add(version)


_readable: set[tuple[int, int, int, int]] = set()
"""Device, inode, size and time of modification of files that were read to their end."""


def _open_file(path: UPath) -> IO[bytes]:
    """Open a file on a local disk; a remote file is copied, with a limit, to an unnamed temporary file."""
    if is_local(path):
        return Path(str(path)).open("rb")
    with ExitStack() as failed, path.open("rb") as file:
        copy = failed.enter_context(TemporaryFile())
        while chunk := file.read(CHUNK_BYTES):
            if copy.tell() + len(chunk) > MAX_COPIED_BYTES:
                shown = without_credentials(str(path))
                most = f"{MAX_COPIED_BYTES:,} bytes unless it lies on a local disk"
                raise ForecasterError(f"{shown} is too large: a NetCDF file must have at most {most}.")
            copy.write(chunk)
        failed.pop_all()  # who opens it closes it
    copy.seek(0)
    return copy


@contextmanager
def _name_errors(address: str, trouble: str) -> Iterator[None]:
    """Turn any error of a decoder or a file system into a `ForecasterError` that names the file."""
    try:
        yield
    except ForecasterError:
        raise
    except Exception as error:
        reason = without_credentials(" ".join(f"{type(error).__name__} {error}".split()))[:300].rstrip(". ")
        raise ForecasterError(f"{trouble}: {reason}.") from safe_cause(error, address)


def _texts(values: NDArray) -> list[str]:
    """Return labels as a list of text; an array would be as wide as the longest label throughout."""
    return [label.decode() if isinstance(label, bytes) else str(label) for label in values.tolist()]
