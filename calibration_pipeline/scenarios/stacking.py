"""Races of scenarios from elsewhere than the network, stacked to a `ScenarioEnsemble`.

The parameters that the calibration needs are recovered from the scenarios by `log_strengths`, so that all
downstream code uses the ensemble like the network's.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.scenarios.log_strengths import (
    NO_INCIDENT_LOGIT,
    recover_incidents,
    recover_log_strengths,
    running_order,
)
from calibration_pipeline.scenarios.races import race_coordinates

CAR_DIMS = ("race", "scenario", "driver")
CAR_OUTCOMES = ("finish_position", "running", "laps_completed", "laps_led", "fastest_laps")
RACE_OUTCOMES = ("race_laps", "green_laps", "n_cautions")
MIN_SCENARIOS = 100
DIMS = {
    **dict.fromkeys(CAR_OUTCOMES, CAR_DIMS),
    **dict.fromkeys(RACE_OUTCOMES, ("race", "scenario")),
    **dict.fromkeys(("utility", "incident_logit"), ("race", "driver")),
    "chaos_scale": ("race",),
}


def common_outcomes(races: Mapping[int, Mapping[str, NDArray]]) -> list[str]:
    """Return the outcomes that all races have; finish_position where there is no race."""
    names = [name for name in (*CAR_OUTCOMES, *RACE_OUTCOMES) if all(name in race for race in races.values())]
    return names if races else [CAR_OUTCOMES[0]]


def stack_races(
    races: Mapping[int, Mapping[str, NDArray]], slots: pl.DataFrame, fold_races: int | None
) -> xr.Dataset:
    """Stack races to one ensemble.

    Parameters
    ----------
    races : mapping of int to mapping of str to array
        race_id → outcome → (scenario, car), cars by slot, or (scenario) for `RACE_OUTCOMES`.
    slots : polars.DataFrame
        Entries of these races, numbered by `covariates.race_slots`.
    fold_races : int or None
        Races in a fold, None for a season.

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble` of the outcomes that all races have, with the coordinate `n_scenarios` (race). A
        race with fewer scenarios than the largest has its scenarios repeated, some of them once more than the
        others.
        network_as_of is 0: the data that the forecaster saw are not known.
    """
    width = int(slots["field_size"].max() or 1)  # type: ignore[arg-type]
    names = common_outcomes(races)
    order = slots["race_id"].unique(maintain_order=True).to_list()
    counts = [len(races[race_id][CAR_OUTCOMES[0]]) for race_id in order]
    largest = max(counts, default=MIN_SCENARIOS)
    arrays = _allocate_races(names, len(order), largest, width)
    for r, race_id in enumerate(order):
        _store_race(arrays, r, {name: races[race_id][name] for name in names})
    return xr.Dataset(
        {name: (DIMS[name], values) for name, values in arrays.items()},
        {
            **race_coordinates(slots, width, fold_races),
            "network_as_of": ("race", np.zeros(len(order), np.int32)),
            "scenario": np.arange(largest),
            "n_scenarios": ("race", np.array(counts, np.int32)),
        },
    )


def _allocate_races(
    outcomes: Sequence[str], n_races: int, n_scenarios: int, width: int
) -> dict[str, NDArray]:
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


def _store_race(arrays: dict[str, NDArray], r: int, outcomes: Mapping[str, NDArray]) -> None:
    """Write a race, its scenarios repeated, and the parameters recovered from it, at index `r`."""
    n_scenarios, n_cars = outcomes["finish_position"].shape
    for name, values in outcomes.items():
        repeated = np.arange(arrays[name].shape[1]) % n_scenarios
        arrays[name][(r, slice(None), slice(n_cars))[: arrays[name].ndim]] = values[repeated]
    recover_race(arrays, r, outcomes["finish_position"], outcomes.get("running"))


def recover_race(
    arrays: Mapping[str, NDArray], r: int, finish_position: NDArray, running: NDArray | None
) -> None:
    """Write log strengths and incidents recovered from the scenarios of a race at index `r` of the arrays.

    Parameters
    ----------
    arrays : mapping of str to array
        utility and incident_logit (race, driver), chaos_scale (race).
    r : int
    finish_position : array of int, shape (scenario, car)
    running : array, shape (scenario, car), or None
        None where all classified cars count as running.
    """
    running = None if running is None else running.astype(bool)
    n_cars = finish_position.shape[1]
    arrays["utility"][r, :n_cars] = recover_log_strengths(running_order(finish_position, running))
    logit, scale = (NO_INCIDENT_LOGIT, 0.0) if running is None else recover_incidents(running)
    arrays["incident_logit"][r, :n_cars] = logit
    arrays["chaos_scale"][r] = scale
