"""A user's ensemble as files: what is in them, and one race at a time out of them, as NetCDF or Parquet.

Only one race is ever in memory. What a race must fulfil once it is read is checked in `foreign`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from upath import UPath

CAR_OUTCOMES = ("finish_position", "running", "laps_completed", "laps_led", "fastest_laps")
RACE_OUTCOMES = ("race_laps", "green_laps", "n_cautions")
CAR_LABELS = {"driver_id": "driver_id", "name": "driver", "driver": "driver", "car_number": "car_number"}
"""What may name the cars in a file -> the column of the entries that it means."""
MAX_RACE_VALUES = 5_000_000
"""Scenarios times cars of one race: 125,000 scenarios of 40 cars."""
SHOWN = 5
LOCAL = ("", "file", "local")


class RaceScenarios(NamedTuple):
    """One race's scenarios, the cars in the order that was asked for.

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
    path : UPath
    car_label : str
        A key of `CAR_LABELS`.
    outcomes : tuple of str
        Outcomes that the file has.
    races : polars.DataFrame
        A row a race: race_id, or season and round; season where it is known; n_values.
    """

    path: UPath
    car_label: str
    outcomes: tuple[str, ...]
    races: pl.DataFrame

    def read(self, race: Mapping[str, Any], cars: Sequence[str], where: str) -> RaceScenarios:
        """Return the scenarios of one race.

        Parameters
        ----------
        race : mapping
            A row of `races`.
        cars : sequence of str
            Labels of the cars entered.
        where : str
            Names file and race in messages.

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
    paths = _files(UPath(path))
    with ExitStack() as stack:
        opened = [(one, stack.enter_context(one.open("rb"))) for one in paths]
        if paths[0].suffix == ".parquet":
            yield [_ParquetFile(one, file) for one, file in opened]
        else:
            yield [_NetCDFFile(one, stack.enter_context(_dataset(one, file))) for one, file in opened]


def _files(path: UPath) -> list[UPath]:
    found = sorted([*path.glob("*.nc"), *path.glob("*.parquet")]) if path.is_dir() else [path]
    forms = {one.suffix for one in found}
    if not all(one.is_file() for one in found) or len(forms) != 1 or not forms <= {".nc", ".parquet"}:
        raise ValueError(
            "An ensemble must be a file .nc or .parquet, or a folder of files of one of these forms; got "
            f"{path}, {'which holds ' + str(sorted(forms)) if path.exists() else 'which does not exist'}."
        )
    return found


def _dataset(path: UPath, file: IO[bytes]) -> xr.Dataset:
    try:
        return xr.open_dataset(file, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise ValueError(f"Ensemble {path} cannot be read as NetCDF 4: {error}.") from error


def _car_label(names: Sequence[str], path: UPath) -> str:
    found = [label for label in CAR_LABELS if label in names]
    if not found:
        raise ValueError(
            f"Ensemble {path} must name its cars by one of {', '.join(CAR_LABELS)}; it has "
            + ", ".join(names)
        )
    return found[0]


def _check_integers(name: str, is_integer: bool, dtype: object, path: UPath) -> None:
    if not is_integer:
        raise ValueError(
            f"Ensemble {path}: {name} must hold integers, 0 for padding and no fill value; got {dtype}."
        )


def check_cars(found: Sequence[str], cars: Sequence[str], label: str, where: str) -> None:
    """Refuse a race whose cars are not those entered, each once.

    Raises
    ------
    ValueError
        Naming the cars that are missing, and those that are too many.
    """
    unknown, lost = sorted(set(found) - set(cars)), sorted(set(cars) - set(found))
    twice = sorted({car for car in found if found.count(car) > 1}) if len(set(found)) < len(found) else []
    complaints = {"without": lost, "with unknown": unknown, "with twice": twice}
    told = "; ".join(
        f"{what} {', '.join(map(repr, names[:SHOWN]))}{' ...' if len(names) > SHOWN else ''}"
        for what, names in complaints.items()
        if names
    )
    if told:
        raise ValueError(
            f"{where}: the cars, by {label}, must be the {len(cars)} entered, each once; it is {told}."
        )


class _NetCDFFile:
    def __init__(self, path: UPath, dataset: xr.Dataset) -> None:
        self.path = path
        self.dataset = dataset
        names = [str(name) for name in dataset.variables]
        dims = ("race", "scenario", "driver")
        if "finish_position" not in names or set(dataset["finish_position"].dims) != set(dims):
            raise ValueError(
                f"Ensemble {path} must hold finish_position (race, scenario, driver); it holds "
                + ", ".join(f"{name} {dataset[name].dims}" for name in names)
            )
        self.car_label = _car_label(names, path)
        self.outcomes = tuple(name for name in (*CAR_OUTCOMES, *RACE_OUTCOMES) if name in names)
        for name in self.outcomes:
            dtype = dataset[name].dtype
            _check_integers(name, dtype.kind in ("biu" if name == "running" else "iu"), dtype, path)
        self.races = self._races(names)

    def _races(self, names: list[str]) -> pl.DataFrame:
        keys = {"race": "race_id", "race_id": "race_id", "season": "season", "round": "round"}
        columns = {keys[name]: self.dataset[name].values.astype(np.int64) for name in keys if name in names}
        if "race_id" not in columns and not {"season", "round"} <= set(columns):
            raise ValueError(
                f"Ensemble {self.path} must name its races by race (race_id), or by season and round; it has "
                + ", ".join(names)
            )
        sizes = self.dataset.sizes
        return pl.DataFrame(columns).with_columns(
            n_values=pl.lit(sizes["scenario"] * sizes["driver"]), index=pl.int_range(pl.len())
        )

    def read(self, race: Mapping[str, Any], cars: Sequence[str], where: str) -> RaceScenarios:
        one = self.dataset[[*self.outcomes, self.car_label]].isel(race=race["index"])
        finish = one["finish_position"].transpose("scenario", "driver").values
        labels = _text(one[self.car_label].values)
        taken = finish.any(axis=0)
        if (nameless := taken & (labels == "")).any():
            slot = int(nameless.argmax())
            raise ValueError(f"{where}: padding must hold 0; slot {slot} of driver has finishes but no car.")
        found = labels[taken].tolist()
        check_cars(found, cars, self.car_label, where)
        slot_of = dict(zip(found, np.flatnonzero(taken).tolist(), strict=True))
        slots = [slot_of[car] for car in cars]
        outcomes = {
            name: one[name].transpose("scenario", "driver").values[:, slots]
            if "driver" in one[name].dims
            else one[name].values
            for name in self.outcomes
        }
        return RaceScenarios(one["scenario"].values, outcomes)


def _text(values: NDArray) -> NDArray[np.str_]:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(np.str_)


class _ParquetFile:
    def __init__(self, path: UPath, file: IO[bytes]) -> None:
        self.path = path
        self.rows = pl.scan_parquet(str(path) if path.protocol in LOCAL else file)
        try:
            schema = self.rows.collect_schema()
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"Ensemble {path} cannot be read as Parquet: {error}.") from error
        names = list(schema)
        self.key = ["race_id"] if "race_id" in names else ["season", "round"]
        if missing := [name for name in ("finish_position", "scenario", *self.key) if name not in names]:
            raise ValueError(
                f"Ensemble {path} must have the columns season and round (or race_id), scenario and "
                f"finish_position; {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing from "
                f"{', '.join(names)}."
            )
        self.car_label = _car_label(names, path)
        self.outcomes = tuple(name for name in CAR_OUTCOMES if name in names)
        for name in (*self.outcomes, "scenario", *self.key):
            fits = schema[name].is_integer() or (name == "running" and schema[name] == pl.Boolean)
            _check_integers(name, fits, schema[name], path)
        known = [name for name in ("season", "round") if name in names and name not in self.key]
        self.races = (
            self.rows.group_by(self.key)
            .agg(pl.len().cast(pl.Int64).alias("n_values"), pl.col(known).first())
            .collect(engine="streaming")
            .sort(self.key)
            .cast(dict.fromkeys((*self.key, *known), pl.Int64))
        )

    def read(self, race: Mapping[str, Any], cars: Sequence[str], where: str) -> RaceScenarios:
        wanted = [pl.col(name) == race[name] for name in self.key]
        rows = self.rows.filter(*wanted).select(
            "scenario", pl.col(self.car_label).cast(pl.String).fill_null("").alias("car"), *self.outcomes
        )
        frame = rows.collect()
        if nulls := [name for name in frame.columns if frame[name].null_count()]:
            raise ValueError(f"{where}: {', '.join(nulls)} must be known; there are nulls.")
        check_cars(frame["car"].unique().to_list(), cars, self.car_label, where)
        per_scenario = frame.group_by("scenario").agg(rows=pl.len(), cars=pl.col("car").n_unique())
        broken = per_scenario.filter((pl.col("rows") != len(cars)) | (pl.col("cars") != len(cars)))
        if not broken.is_empty():
            first = broken.sort("scenario").row(0, named=True)
            raise ValueError(
                f"{where}: every scenario must have each of the {len(cars)} cars once; scenario "
                f"{first['scenario']} has {first['rows']} rows and {first['cars']} cars."
            )
        slot = pl.col("car").replace_strict(list(cars), range(len(cars)), return_dtype=pl.Int32)
        ordered = frame.sort("scenario", slot)
        outcomes = {name: ordered[name].to_numpy().reshape(-1, len(cars)) for name in self.outcomes}
        return RaceScenarios(ordered["scenario"].to_numpy()[:: len(cars)], outcomes)
