"""A user's ensemble, read, checked and labelled, with the log-strengths recovered from its scenarios.

`ensemble_files` reads the files, and `scenarios.log_strengths` recovers the log-strengths. The result is a
`ScenarioEnsemble` like the network's, so that all downstream code uses it unchanged.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.forecasters.ensemble_files import (
    CAR_LABELS,
    CAR_OUTCOMES,
    RACE_OUTCOMES,
    SHOWN,
    EnsembleError,
    EnsembleFile,
    RaceScenarios,
    open_ensemble,
)
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.io.netcdf_probe import MAX_RACE_VALUES
from calibration_pipeline.scenarios.covariates import race_slots
from calibration_pipeline.scenarios.log_strengths import (
    NO_INCIDENT_LOGIT,
    recover_incidents,
    recover_log_strengths,
    running_order,
)
from calibration_pipeline.scenarios.races import race_coordinates
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.stats.ranking import is_permutation, missing_positions

MIN_SCENARIOS = 100
DIMS = {
    **dict.fromkeys(CAR_OUTCOMES, ("race", "scenario", "driver")),
    **dict.fromkeys(RACE_OUTCOMES, ("race", "scenario")),
    **dict.fromkeys(("utility", "incident_logit"), ("race", "driver")),
    "chaos_scale": ("race",),
}


class UserEnsemble(NamedTuple):
    """A user's ensemble of some races.

    Attributes
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, `running` and the laps only if the files have them; network_as_of is 0, because
        no network was fitted, and the data that the user's forecaster saw are not known.
    left_out : list of str
        One line for every race without scenarios, and for scenarios without a race.
    """

    ensemble: xr.Dataset
    left_out: list[str]


def read_ensemble(
    path: str | os.PathLike[str],
    entries: pl.DataFrame,
    fold_races: int | None,
    nicknames: Nicknames | None = None,
) -> UserEnsemble:
    """Read a user's scenarios of the races of an entry list.

    Parameters
    ----------
    path : str or path-like
        A file `.nc` or `.parquet`, or a folder of them, local or by address; see
        `docs/ensembles.md`.
    entries : polars.DataFrame
        `DriverFeatures` (or `EntryList` with a grid) of the requested races; may be empty.
    fold_races : int or None
        Races in a fold, None for a season.
    nicknames : Nicknames, optional
        Table of other spellings of drivers' names; that of the package if None.

    Returns
    -------
    UserEnsemble
        Races of `entries` without scenarios are left out and named.

    Raises
    ------
    ValueError
        If a file has another form, a race has other cars than those entered, a scenario is not a permutation
        of 1..n, or a race has too few, too many or another number of scenarios; the message names the first.
    """
    with open_ensemble(path) as files:
        outcomes = _common(files, path)
        column = CAR_LABELS[files[0].car_label]
        found, left_out = _match(files, entries)
        slots = race_slots(entries.filter(pl.col("race_id").is_in(list(found))))
        cars_by_race = slots.group_by("race_id", maintain_order=True).agg(
            pl.col(column).cast(pl.String).fill_null(""), pl.col("season", "round").first()
        )
        width = int(slots["field_size"].max() or 1)  # type: ignore[arg-type]
        arrays: dict[str, NDArray] = {}
        for r, (race_id, cars, season, round_) in enumerate(cars_by_race.iter_rows()):
            file, row = found[race_id]
            where = f"Ensemble {file.path}, race_id {race_id} ({season} round {round_})"
            if row["n_values"] > MAX_RACE_VALUES:
                raise EnsembleError(
                    f"{where}: scenarios times cars must be at most {MAX_RACE_VALUES:,}; got "
                    f"{row['n_values']:,}."
                )
            race = file.read(row, cars, where, nicknames)
            check_race(race, where)
            if r == 0:
                arrays = allocate_races(outcomes, len(found), len(race.scenario), width)
            store_race(arrays, r, race, where)
    return UserEnsemble(
        label_ensemble(arrays or allocate_races(outcomes, 0, MIN_SCENARIOS, 1), slots, width, fold_races),
        left_out,
    )


def _common(files: Sequence[EnsembleFile], path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the outcomes in the files; refuse files with different outcomes or car labels."""
    forms = {(file.car_label, file.outcomes) for file in files}
    if len(forms) > 1:
        described = "; ".join(f"{label} and {', '.join(outcomes)}" for label, outcomes in sorted(forms))
        name = without_credentials(str(path))
        raise EnsembleError(
            f"The files of ensemble {name} must all hold the same variables; they hold {described}."
        )
    return files[0].outcomes


def _match(
    files: Sequence[EnsembleFile], entries: pl.DataFrame
) -> tuple[dict[int, tuple[EnsembleFile, dict[str, Any]]], list[str]]:
    """Find the races of the entries in the files: race_id -> file and row, and lines on unmatched races."""
    wanted = entries.select("race_id", "season", "round").unique().sort("season", "round")
    found: dict[int, tuple[EnsembleFile, dict[str, Any]]] = {}
    surplus: list[str] = []
    n_elsewhere = 0
    for file in files:
        by_id = "race_id" in file.races.columns
        key = ["race_id"] if by_id else ["season", "round"]
        matched = file.races.join(wanted.select("race_id", *key) if not by_id else wanted.select(key), on=key)
        for row in matched.iter_rows(named=True):
            if row["race_id"] in found:
                raise EnsembleError(f"Ensemble {file.path}: race_id {row['race_id']} occurs twice.")
            found[row["race_id"]] = file, row
        rest = file.races.join(matched, on=key, how="anti")
        if "season" in rest.columns:
            rest = rest.filter(pl.col("season").is_in(wanted["season"].unique().to_list()))
            names = [", ".join(f"{name} {row[name]}" for name in key) for row in rest.iter_rows(named=True)]
            surplus += [f"{name}: scenarios, but no such race in the source" for name in names]
        else:
            n_elsewhere += rest.height
    missing = [
        f"race_id {race_id} ({season} round {round_}): no scenarios"
        for race_id, season, round_ in wanted.iter_rows()
        if race_id not in found
    ]
    others = f"{n_elsewhere} races of the ensemble are of other seasons, or not in the source"
    return found, [*missing, *surplus, *([others] if n_elsewhere else [])]


def check_race(race: RaceScenarios, where: str) -> None:
    """Refuse a race with invalid scenarios.

    Raises
    ------
    ValueError
        If an outcome is invalid; the message names the race, and the first wrong scenario with its values.
    """
    finish = race.outcomes["finish_position"]
    n_scenarios, n_cars = finish.shape
    if n_scenarios < MIN_SCENARIOS:
        raise EnsembleError(f"{where}: there must be at least {MIN_SCENARIOS} scenarios; got {n_scenarios}.")
    wrong = ~is_permutation(finish)
    if wrong.any():
        first = int(wrong.argmax())
        positions, count = np.unique(finish[first], return_counts=True)
        faults = {
            "without": missing_positions(finish[first]),
            "with more than one": positions[count > 1].tolist(),
            "with": np.setdiff1d(positions, np.arange(1, n_cars + 1)).tolist(),
        }
        found = ", ".join(f"{fault} {at[:SHOWN]}" for fault, at in faults.items() if at)
        raise EnsembleError(
            f"{where}: finish_position must be a permutation of 1..{n_cars} in every scenario; it is not in "
            f"{int(wrong.sum())}, the first is scenario {race.scenario[first]}, {found}."
        )
    if "running" in race.outcomes:
        running = race.outcomes["running"]
        if (running.astype(np.int64) != running.astype(bool)).any():
            raise EnsembleError(
                f"{where}: running must be true or false; got {running.min()} to {running.max()}."
            )
        none = ~running.any(axis=1)
        if none.any():
            scenario = race.scenario[int(none.argmax())]
            raise EnsembleError(
                f"{where}: some car must be running at the finish; in scenario {scenario} none is."
            )
    largest = np.iinfo(np.int16).max
    for name, values in race.outcomes.items():
        if values.min() < 0 or values.max() > largest:
            raise EnsembleError(
                f"{where}: {name} must be from 0 to {largest}; got {values.min()} to {values.max()}."
            )


def allocate_races(outcomes: Sequence[str], n_races: int, n_scenarios: int, width: int) -> dict[str, NDArray]:
    """Return arrays of zeros for the outcomes of races, and for the parameters recovered from them."""
    sizes = {"race": n_races, "scenario": n_scenarios, "driver": width}
    arrays: dict[str, NDArray] = {
        name: np.zeros([sizes[dim] for dim in DIMS[name]], bool if name == "running" else np.int16)
        for name in outcomes
    }
    car = (n_races, width)
    return arrays | {
        "utility": np.zeros(car, np.float32),
        "incident_logit": np.zeros(car, np.float32),
        "chaos_scale": np.zeros(n_races, np.float32),
    }


def store_race(arrays: dict[str, NDArray], r: int, race: RaceScenarios, where: str) -> None:
    """Write a race, and the parameters recovered from it, at index `r` of the arrays."""
    n_scenarios, n_cars = race.outcomes["finish_position"].shape
    if n_scenarios != arrays["finish_position"].shape[1]:
        raise EnsembleError(
            f"{where}: every race must have equally many scenarios; it has {n_scenarios}, and those before "
            f"it {arrays['finish_position'].shape[1]}."
        )
    for name, values in race.outcomes.items():
        arrays[name][(r, slice(None), slice(n_cars))[: arrays[name].ndim]] = values
    running = race.outcomes.get("running")
    running = None if running is None else running.astype(bool)
    order = running_order(race.outcomes["finish_position"], running)
    arrays["utility"][r, :n_cars] = recover_log_strengths(order)
    logit, scale = (NO_INCIDENT_LOGIT, 0.0) if running is None else recover_incidents(running)
    arrays["incident_logit"][r, :n_cars] = logit
    arrays["chaos_scale"][r] = scale


def label_ensemble(
    arrays: dict[str, NDArray], slots: pl.DataFrame, width: int, fold_races: int | None
) -> xr.Dataset:
    """Return the arrays of races as `ScenarioEnsemble`, with the coordinates of the entries."""
    n_races, n_scenarios = arrays["finish_position"].shape[:2]
    return xr.Dataset(
        {name: (DIMS[name], values) for name, values in arrays.items()},
        {
            **race_coordinates(slots, width, fold_races),
            "network_as_of": ("race", np.zeros(n_races, np.int32)),
            "scenario": np.arange(n_scenarios),
        },
    )
