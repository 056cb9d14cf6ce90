"""The races of one kind of track in what is stored by season: all that an archetype's assets read of it.

A new race changes a season's file, and so what is recorded as read by the assets of every kind of track. Each
kind's part has a version of its own, so that `run --update` leaves the other three alone. So has all that was
run up to each race: up to a kind's last one, what a baseline of its races may know; up to the last fold, what
networks are fitted to.
"""

import io
from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES

OWN_ARCHETYPE = "own_archetype"
"""Metadata key of an input that is to hold only the races of the consuming partition's archetype."""
VERSIONS = "versions_by_archetype"
"""Metadata key of a materialization: the version of each archetype's races."""
RUN_SO_FAR = "run_so_far"
"""Metadata key of an input of which only races up to the consuming partition's last one are used."""
VERSIONS_BY_RACE = "versions_by_race"
"""Metadata key of a materialization: race_order → archetype, and version of all races up to this one."""
BEFORE_LAST_FOLD = "before_last_fold"
"""Metadata key of an input of which only races before the consuming season's last fold are used."""


def own_races[T: (pl.DataFrame, xr.Dataset)](value: T, archetype: str) -> T:
    """Return the races of an archetype.

    Parameters
    ----------
    value : polars.DataFrame or xarray.Dataset
        With a column, or a coordinate along `race`, called archetype.
    archetype : str
    """
    if isinstance(value, pl.DataFrame):
        return value.filter(archetype=archetype)
    return value.isel(race=value["archetype"].values == archetype)


def run_so_far(results: pl.DataFrame, archetype: str) -> pl.DataFrame:
    """Return the races of every archetype up to the last race of one; none if it has none.

    Parameters
    ----------
    results : polars.DataFrame
        With columns archetype and race_order.
    archetype : str
    """
    last = own_races(results, archetype)["race_order"].max()
    return results.clear() if last is None else results.filter(pl.col("race_order") <= last)


def versions_by_race(value: object) -> Mapping[str, tuple[str, str]]:
    """Return of each race its archetype and the SHA-256 of all races up to it, by race_order, in order.

    Nothing if the value is no table of races.

    Parameters
    ----------
    value : object
    """
    if not isinstance(value, pl.DataFrame) or not {"archetype", "race_order"} <= set(value.columns):
        return {}
    versions = {}
    version = ""
    for race in value.sort("race_order", maintain_order=True).partition_by("race_order", maintain_order=True):
        version = sha256(f"{version} {_rows_version(race)}".encode()).hexdigest()
        versions[str(race["race_order"][0])] = (str(race["archetype"][0]), version)
    return versions


def versions_by_archetype(value: object) -> Mapping[str, str]:
    """Return the SHA-256 of each archetype's races; nothing if the value does not tell races apart by it.

    Parameters
    ----------
    value : object
    """
    if isinstance(value, pl.DataFrame):
        told = "archetype" in value.columns
    elif isinstance(value, xr.Dataset):
        told = "archetype" in value.coords and value["archetype"].dims == ("race",)
    else:
        return {}
    return {str(one): _version(value, str(one)) for one in ARCHETYPES} if told else {}


def _version(value: pl.DataFrame | xr.Dataset, archetype: str) -> str:
    if isinstance(value, pl.DataFrame):
        return _rows_version(own_races(value, archetype))
    digest = sha256()
    own = own_races(value, archetype)
    for name in sorted(map(str, own.variables)):
        variable = own.variables[name]
        values = variable.values.astype(str) if variable.dtype.kind == "O" else variable.values
        digest.update(f"{name} {variable.dims} {values.dtype} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).data)
    digest.update(str(sorted(own.attrs.items())).encode())
    return digest.hexdigest()


def _rows_version(rows: pl.DataFrame) -> str:
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    return sha256(buffer.getbuffer()).hexdigest()
