"""Files of a user's ensemble, NetCDF or Parquet: their content, read one race at a time.

Only one race is in memory at a time. `ensembles` checks the values of a race.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from polars.exceptions import PanicException
from upath import UPath

from calibration_pipeline.io.addresses import safe_cause, without_credentials
from calibration_pipeline.io.netcdf_probe import MAX_RACES, refuse_unreadable
from calibration_pipeline.sources.names import DriverMatches, Nicknames, match_drivers

CAR_OUTCOMES = ("finish_position", "running", "laps_completed", "laps_led", "fastest_laps")
RACE_OUTCOMES = ("race_laps", "green_laps", "n_cautions")
CAR_LABELS = {"driver_id": "driver_id", "name": "driver", "driver": "driver", "car_number": "car_number"}
"""Car label in a file -> the column of the entries with the same values."""
MAX_ROWS = 2_000_000_000
LOCAL = ("", "file", "local")
COPIED_BYTES = 2**24
INTEGERS = {pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64}
CAR_DIMS = ("race", "scenario", "driver")
SHOWN = 5
MOST_NAMED = 50


class EnsembleError(ValueError):
    """Error of a user's ensemble that cannot be used; one line names file, race and reason."""


class RaceScenarios(NamedTuple):
    """One race's scenarios, the cars in the requested order.

    Attributes
    ----------
    scenario : (scenario), labels as the file has them
    outcomes : name -> (scenario, car), or (scenario) for `RACE_OUTCOMES`
    """

    scenario: NDArray
    outcomes: dict[str, NDArray]


class EnsembleFile(Protocol):
    """One file of an ensemble.

    Attributes
    ----------
    path : str
        Its name in messages, without credentials.
    car_label : str
        A key of `CAR_LABELS`.
    outcomes : tuple of str
        Outcomes in the file.
    races : polars.DataFrame
        A row a race: race_id, or season and round; season where it is known; n_values.
    """

    path: str
    car_label: str
    outcomes: tuple[str, ...]
    races: pl.DataFrame

    def read(
        self, race: Mapping[str, Any], cars: Sequence[str], where: str, nicknames: Nicknames | None = None
    ) -> RaceScenarios:
        """Return the scenarios of one race.

        Parameters
        ----------
        race : mapping
            A row of `races`.
        cars : sequence of str
            Labels of the cars entered.
        where : str
            Names file and race in messages.
        nicknames : Nicknames, optional
            Table of other spellings of drivers' names; that of the package if None.

        Raises
        ------
        ValueError
            If the race has other cars than those entered.
        """
        ...


@contextmanager
def open_ensemble(path: str | os.PathLike[str]) -> Iterator[list[EnsembleFile]]:
    """Open an ensemble: a file (`.nc` or `.parquet`), or a folder of files of one of these forms.

    Raises
    ------
    ValueError
        If there is no such file, it has another form, or a variable or column is missing.
    """
    address = str(path)
    shown = without_credentials(address)
    with ExitStack() as stack:
        with name_errors(address, f"Ensemble {shown} cannot be read"):
            paths = _files(UPath(path), shown)
            opened = [(str(file), stack.enter_context(open_file(file))) for file in paths]
        if paths[0].suffix == ".parquet":
            yield [_ParquetFile(name, file) for name, file in opened]
        else:
            names = [f"Ensemble {without_credentials(name)}" for name, _ in opened]
            refuse_unreadable([file for _, file in opened], names)
            yield [_NetCDFFile(name, stack.enter_context(_dataset(name, file))) for name, file in opened]


def open_file(path: UPath) -> IO[bytes]:
    """Open a file on a local disk; a remote file is copied to an unnamed temporary file."""
    if path.protocol in LOCAL:
        return Path(str(path)).open("rb")
    copy = TemporaryFile()  # noqa: SIM115, who opens it closes it
    with path.open("rb") as file:
        shutil.copyfileobj(file, copy, COPIED_BYTES)
    copy.seek(0)
    return copy


@contextmanager
def name_errors(address: str, trouble: str) -> Iterator[None]:
    """Turn any error of a decoder or a file system into an `EnsembleError` that names the file."""
    try:
        yield
    except EnsembleError:
        raise
    except (Exception, PanicException) as error:
        reason = without_credentials(" ".join(f"{type(error).__name__} {error}".split()))[:300].rstrip(". ")
        raise EnsembleError(f"{trouble}: {reason}.") from safe_cause(error, address)


def _files(path: UPath, shown: str) -> list[UPath]:
    found = sorted([*path.glob("*.nc"), *path.glob("*.parquet")]) if path.is_dir() else [path]
    forms = {file.suffix for file in found}
    if not all(file.is_file() for file in found) or len(forms) != 1 or not forms <= {".nc", ".parquet"}:
        raise EnsembleError(
            "An ensemble must be a file .nc or .parquet, or a folder of files of one of these forms; got "
            f"{shown}, {'which holds ' + str(sorted(forms)) if path.exists() else 'which does not exist'}."
        )
    return found


def _dataset(address: str, file: IO[bytes]) -> xr.Dataset:
    with name_errors(address, f"Ensemble {without_credentials(address)} cannot be read as NetCDF 4"):
        return xr.open_dataset(file, engine="h5netcdf")


def _car_label(names: Sequence[str], path: str) -> str:
    found = [label for label in CAR_LABELS if label in names]
    if not found:
        raise EnsembleError(
            f"Ensemble {path} must name its cars by one of {', '.join(CAR_LABELS)}; it has "
            + ", ".join(names[:MOST_NAMED])
        )
    return found[0]


def _check_integers(name: str, is_integer: bool, dtype: object, path: str) -> None:
    if not is_integer:
        raise EnsembleError(
            f"Ensemble {path}: {name} must hold integers, 0 for padding and no fill value; got {dtype}."
        )


def match_cars(
    found: Sequence[str],
    cars: Sequence[str],
    label: str,
    where: str,
    nicknames: Nicknames | None = None,
) -> dict[str, str]:
    """Match the cars of a race to those entered: names as `sources.names` does, car numbers exactly.

    Parameters
    ----------
    found : sequence of str
        Labels in the file.
    cars : sequence of str
        Labels of the cars entered.
    label : str
        A key of `CAR_LABELS`.
    where : str
        Names file and race in messages.
    nicknames : Nicknames, optional
        Table of other spellings of drivers' names; that of the package if None.

    Returns
    -------
    dict of str to str
        Label in the file → label of the car entered.

    Raises
    ------
    EnsembleError
        If cars are missing, unknown or repeated; the message names them, with the nearest car entered.
    """
    if label == "car_number":
        exact = {car: car for car in found if car in set(cars)}
        matched = DriverMatches(exact, dict.fromkeys(car for car in found if car not in exact))
    else:
        matched = match_drivers(found, cars, nicknames)
    lost = sorted(set(cars) - set(matched.matches.values()))
    twice = sorted(car for car, n in Counter(found).items() if n > 1)
    unknown = [
        f"{name!r}{f' (nearest: {near!r})' if near else ''}"
        for name, near in sorted(matched.unmatched.items())
    ]
    complaints = {
        "without": [repr(car) for car in lost],
        "with unknown": unknown,
        "with twice": [repr(car) for car in twice],
    }
    faults = "; ".join(
        f"{fault} {', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
        for fault, names in complaints.items()
        if names
    )
    if faults:
        raise EnsembleError(
            f"{where}: the cars, by {label}, must be the {len(cars)} entered, each once; it is {faults}."
        )
    return matched.matches


class _NetCDFFile:
    def __init__(self, address: str, dataset: xr.Dataset) -> None:
        self.path = without_credentials(address)
        self.address = address
        self.dataset = dataset
        names = [str(name) for name in dataset.variables]
        if "finish_position" not in names or set(dataset["finish_position"].dims) != set(CAR_DIMS):
            raise EnsembleError(
                f"Ensemble {self.path} must hold finish_position (race, scenario, driver); it holds "
                + ", ".join(f"{name} {dataset[name].dims}" for name in names[:MOST_NAMED])
            )
        if dataset.sizes["race"] > MAX_RACES:
            n = dataset.sizes["race"]
            raise EnsembleError(f"Ensemble {self.path} must have at most {MAX_RACES:,} races; it has {n:,}.")
        self.car_label = _car_label(names, self.path)
        self._check_dims(self.car_label, ("race", "driver"), ("driver",))
        self.outcomes = tuple(name for name in (*CAR_OUTCOMES, *RACE_OUTCOMES) if name in names)
        for name in self.outcomes:
            self._check_dims(name, CAR_DIMS if name in CAR_OUTCOMES else CAR_DIMS[:2])
            dtype = dataset[name].dtype
            _check_integers(name, dtype.kind in ("biu" if name == "running" else "iu"), dtype, self.path)
        with name_errors(address, f"Ensemble {self.path} cannot be read as NetCDF 4"):
            self.races = self._races(names)

    def _check_dims(self, name: str, *allowed: tuple[str, ...]) -> None:
        dims = self.dataset[name].dims
        if not any(set(dims) == set(form) for form in allowed):
            forms = " or ".join(f"({', '.join(form)})" for form in allowed)
            raise EnsembleError(f"Ensemble {self.path}: {name} must have the dims {forms}; it has {dims}.")

    def _races(self, names: list[str]) -> pl.DataFrame:
        keys = {"race": "race_id", "race_id": "race_id", "season": "season", "round": "round"}
        columns = {}
        for name in keys.keys() & set(names):
            self._check_dims(name, ("race",))
            values = self.dataset[name].values
            whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and (values % 1 == 0).all())
            _check_integers(name, whole, values.dtype, self.path)
            columns[keys[name]] = values.astype(np.int64)
        if "race_id" not in columns and not {"season", "round"} <= set(columns):
            raise EnsembleError(
                f"Ensemble {self.path} must name its races by race (race_id), or by season and round; it has "
                + ", ".join(names[:MOST_NAMED])
            )
        sizes = self.dataset.sizes
        return pl.DataFrame(columns).with_columns(
            n_values=pl.lit(sizes["scenario"] * sizes["driver"]), index=pl.int_range(pl.len())
        )

    def read(
        self, race: Mapping[str, Any], cars: Sequence[str], where: str, nicknames: Nicknames | None = None
    ) -> RaceScenarios:
        with name_errors(self.address, f"{where}: it cannot be read as NetCDF 4"):
            scenarios = self.dataset[[*self.outcomes, self.car_label]].isel(race=race["index"]).load()
            labels = label_texts(scenarios[self.car_label].values)
        finish = scenarios["finish_position"].transpose("scenario", "driver").values
        taken = finish.any(axis=0)
        if nameless := [slot for slot in np.flatnonzero(taken).tolist() if labels[slot] == ""]:
            raise EnsembleError(
                f"{where}: padding must hold 0; slot {nameless[0]} of driver has finishes but no car."
            )
        slots_taken = np.flatnonzero(taken).tolist()
        found = [labels[slot] for slot in slots_taken]
        matches = match_cars(found, cars, self.car_label, where, nicknames)
        slot_of = {matches[label]: slot for label, slot in zip(found, slots_taken, strict=True)}
        slots = [slot_of[car] for car in cars]
        outcomes = {
            name: scenarios[name].transpose("scenario", "driver").values[:, slots]
            if "driver" in scenarios[name].dims
            else scenarios[name].values
            for name in self.outcomes
        }
        return RaceScenarios(scenarios["scenario"].values, outcomes)


def label_texts(values: NDArray) -> list[str]:
    """Return labels as a list of text; an array would be as wide as the longest label throughout."""
    return [label.decode() if isinstance(label, bytes) else str(label) for label in values.tolist()]


class _ParquetFile:
    def __init__(self, address: str, file: IO[bytes]) -> None:
        self.path = without_credentials(address)
        self.address = address
        with name_errors(address, f"Ensemble {self.path} cannot be read as Parquet"):
            self.rows = pl.scan_parquet(file if "://" in address else address)
            schema = self.rows.collect_schema()
            n_rows = self.rows.select(pl.len()).collect().item()
        if n_rows > MAX_ROWS:
            raise EnsembleError(
                f"Ensemble {self.path} must have at most {MAX_ROWS:,} rows; it has {n_rows:,}."
            )
        names = list(schema)
        self.key = ["race_id"] if "race_id" in names else ["season", "round"]
        if missing := [name for name in ("finish_position", "scenario", *self.key) if name not in names]:
            raise EnsembleError(
                f"Ensemble {self.path} must have the columns season and round (or race_id), scenario and "
                f"finish_position; {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing from "
                f"{', '.join(names[:MOST_NAMED])}."
            )
        self.car_label = _car_label(names, self.path)
        self.outcomes = tuple(name for name in CAR_OUTCOMES if name in names)
        for name in (*self.outcomes, "scenario", *self.key):
            fits = schema[name] in INTEGERS or (name == "running" and schema[name] == pl.Boolean)
            _check_integers(name, fits, schema[name], self.path)
        known = [name for name in ("season", "round") if name in names and name not in self.key]
        with name_errors(address, f"Ensemble {self.path} cannot be read as Parquet"):
            self.races = (
                self.rows.group_by(self.key)
                .agg(pl.len().cast(pl.Int64).alias("n_values"), pl.col(known).first())
                .collect(engine="streaming")
                .sort(self.key)
                .cast(dict.fromkeys((*self.key, *known), pl.Int64))
            )
        if unknown := [name for name in self.key if self.races[name].null_count()]:
            raise EnsembleError(f"Ensemble {self.path}: {', '.join(unknown)} must be known; there are nulls.")
        if self.races.height > MAX_RACES:
            raise EnsembleError(
                f"Ensemble {self.path} must have at most {MAX_RACES:,} races; it has {self.races.height:,}."
            )

    def read(
        self, race: Mapping[str, Any], cars: Sequence[str], where: str, nicknames: Nicknames | None = None
    ) -> RaceScenarios:
        wanted = [pl.col(name) == race[name] for name in self.key]
        with name_errors(self.address, f"{where}: it cannot be read as Parquet"):
            frame = (
                self.rows.filter(*wanted)
                .select(
                    "scenario",
                    pl.col(self.car_label).cast(pl.String).fill_null("").alias("car"),
                    *self.outcomes,
                )
                .collect()
            )
        if nulls := [name for name in frame.columns if frame[name].null_count()]:
            raise EnsembleError(f"{where}: {', '.join(nulls)} must be known; there are nulls.")
        matches = match_cars(frame["car"].unique().to_list(), cars, self.car_label, where, nicknames)
        frame = frame.with_columns(pl.col("car").replace(matches))
        per_scenario = frame.group_by("scenario").agg(rows=pl.len(), cars=pl.col("car").n_unique())
        broken = per_scenario.filter((pl.col("rows") != len(cars)) | (pl.col("cars") != len(cars)))
        if not broken.is_empty():
            first = broken.sort("scenario").row(0, named=True)
            raise EnsembleError(
                f"{where}: every scenario must have each of the {len(cars)} cars once; scenario "
                f"{first['scenario']} has {first['rows']} rows and {first['cars']} cars."
            )
        slot = pl.col("car").replace_strict(list(cars), range(len(cars)), return_dtype=pl.Int32)
        ordered = frame.sort("scenario", slot)
        outcomes = {name: ordered[name].to_numpy().reshape(-1, len(cars)) for name in self.outcomes}
        return RaceScenarios(ordered["scenario"].to_numpy()[:: len(cars)], outcomes)
