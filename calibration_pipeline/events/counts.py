"""Counts of joint events in the scenarios and in the result of each race; `joint_events` tests them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.events.language import Event, Outcomes
from calibration_pipeline.schemas.datasets import list_cars
from calibration_pipeline.schemas.results import finish_is_permuted, join_results
from calibration_pipeline.stats.ranking import rank

OUTCOME_VARIABLES = ("finish_position", "running", "laps_led")
CAR_VARIABLES = ("team", "make")


@dataclass(frozen=True)
class Race:
    """Outcomes of one race: its scenarios, (scenario, car), and its result, (car,)."""

    scenarios: Outcomes
    result: Outcomes


@dataclass(frozen=True)
class Counts:
    """Numbers of cases of each event.

    Attributes
    ----------
    predicted : (race, scenario, event), in each scenario
    observed : (race, event), in the result
    cases : (race, event), the largest possible number
    events : the events
    """

    predicted: NDArray[np.int64]
    observed: NDArray[np.int64]
    cases: NDArray[np.int64]
    events: tuple[Event, ...]

    @property
    def z(self) -> NDArray[np.float64]:
        """Race-level z of each event, (event,); NaN where the count is the same in all scenarios."""
        spread = self.spread
        surprise = (self.observed - self.predicted.mean(axis=1)).sum(axis=0)
        return np.divide(surprise, spread, out=np.full(spread.shape, np.nan), where=spread > 0)

    @property
    def spread(self) -> NDArray[np.float64]:
        """Predictive standard deviation of the summed count, (event,), with Monte-Carlo error of the mean."""
        variance = self.predicted.var(axis=1, ddof=1) * (1 + 1 / self.predicted.shape[1])
        return np.sqrt(variance.sum(axis=0))


def read_races(
    ensemble: xr.Dataset,
    results: pl.DataFrame,
    events: Sequence[Event],
    reference: xr.Dataset | None = None,
) -> tuple[list[Race], dict[str, str]]:
    """Return the races of an ensemble with their results, and the events that cannot be judged.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, of at least one race and two scenarios.
    results : polars.DataFrame
        `RaceResults` of at least these races and cars.
    events : sequence of Event
        Events to judge.
    reference : xarray.Dataset, optional
        The ensemble that defines the favourites, the raw one; by default `ensemble` itself.

    Returns
    -------
    races : list of Race
        Without the outcomes of a race that are unknown for one of its cars, and without teams or makes of a
        race that are unknown for all.
    skipped : dict
        Expression of an event to the reason why it cannot be judged.

    Raises
    ------
    ValueError
        If there are fewer than two scenarios, a car lacks a result, or the finishes of a race are no
        permutation.
    """
    if ensemble.sizes["scenario"] < 2:
        raise ValueError(f"An ensemble must hold at least 2 scenarios, got {ensemble.sizes['scenario']}.")
    observed = _aligned(ensemble, results)
    missing = _missing(ensemble, observed)
    favourite_rank = _favourite_ranks(ensemble if reference is None else reference)
    variables = [name for name in OUTCOME_VARIABLES if name not in missing]
    scenarios = {name: ensemble[name].transpose("race", "scenario", "driver").values for name in variables}
    sizes = ensemble["field_size"].values.astype(np.int64)
    races = []
    for r, (size, end) in enumerate(zip(sizes, np.cumsum(sizes), strict=True)):
        cars = _known_cars(ensemble, r, size) | {"favourite_rank": favourite_rank[r, :size]}
        result = {name: observed[name][end - size : end] for name in variables}
        known = [name for name, values in result.items() if not values.has_nulls()]
        races.append(
            Race(
                Outcomes(**{name: scenarios[name][r, :, :size] for name in known}, **cars),
                Outcomes(**{name: result[name].to_numpy() for name in known}, **cars),
            )
        )
    return races, _skipped(events, missing, races)


def count_cases(races: Sequence[Race], events: Sequence[Event]) -> Counts:
    """Count the cases of events that can be judged, in the scenarios and results of races."""
    shape = (len(races), races[0].scenarios.finish_position.shape[0], len(events))
    predicted, observed, cases = (np.empty(s, np.int64) for s in (shape, shape[::2], shape[::2]))
    for r, race in enumerate(races):
        for e, event in enumerate(events):
            predicted[r, :, e] = event.of_cases(race.scenarios).sum(axis=-1)
            outcome = event.of_cases(race.result)
            observed[r, e], cases[r, e] = outcome.sum(), outcome.size
    return Counts(predicted, observed, cases, tuple(events))


def scenario_outcomes(ensemble: xr.Dataset, race: int) -> Outcomes:
    """Return the scenarios of one race of an ensemble; favourites have the best mean finish.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.
    race : int
        Index of the race.
    """
    single = ensemble.isel(race=[race])
    size = int(single["field_size"].values[0])
    per_scenario = {
        name: single[name].transpose("race", "scenario", "driver")
        for name in OUTCOME_VARIABLES
        if name in single
    }
    return Outcomes(
        **{name: values.values[0, :, :size] for name, values in per_scenario.items()},
        **_known_cars(single, 0, size),
        favourite_rank=_favourite_ranks(single)[0, :size],
    )


def _known_cars(ensemble: xr.Dataset, race: int, size: int) -> dict[str, NDArray]:
    """Return the variables of a race's cars, (car,), without those that are unknown for all."""
    cars = {name: ensemble[name].values[race, :size] for name in CAR_VARIABLES if name in ensemble.coords}
    return {name: values for name, values in cars.items() if (values != "").any()}


def _aligned(ensemble: xr.Dataset, results: pl.DataFrame) -> pl.DataFrame:
    """Return the results in the ensemble's order: one row a car, with columns `slot` and `race_index`."""
    columns = [name for name in OUTCOME_VARIABLES if name in results.columns]
    found = results.select("race_id", "driver_id", *columns)
    joined = join_results(list_cars(ensemble), found, "ensemble")
    twice = joined.filter(pl.struct("race_id", "driver_id").is_duplicated())
    if twice.height:
        first = twice.row(0, named=True)
        raise ValueError(
            f"results must have every car once; driver {first['driver_id']!r} is in race {first['race_id']} "
            "more than once."
        )
    wrong = joined.filter(~finish_is_permuted("race_id"))
    if wrong.height:
        raise ValueError(
            "finish_position of the results must be 1..n over the ensemble's cars; "
            f"it is not in race {wrong['race_id'][0]}."
        )
    return joined


def _missing(ensemble: xr.Dataset, observed: pl.DataFrame) -> dict[str, str]:
    """Return the variables that are unknown in every race, each with the reason."""
    reasons: dict[str, str] = {}
    for name in OUTCOME_VARIABLES:
        if name not in ensemble.data_vars:
            reasons[name] = f"{name} is absent from the ensemble"
        elif name not in observed.columns:
            reasons[name] = f"{name} is absent from the results"
        elif observed.group_by("race_id").agg(pl.col(name).has_nulls())[name].all():
            reasons[name] = f"{name} is unknown for some car of every race"
    for name in CAR_VARIABLES:
        if name not in ensemble.coords or not (ensemble[name].values != "").any():
            reasons[name] = f"{name} is not known"
    return reasons


def _skipped(events: Sequence[Event], missing: dict[str, str], races: Sequence[Race]) -> dict[str, str]:
    skipped = {
        str(event): "; ".join(missing[name] for name in sorted(event.needs) if name in missing)
        for event in events
        if event.needs & set(missing)
    }
    if "team" not in missing and not any(_has_teammates(race.scenarios.team) for race in races):
        unpaired = {str(event): "no two cars share a team" for event in events if event.cases == "pair"}
        skipped = unpaired | skipped
    return skipped


def _has_teammates(team: NDArray | None) -> bool:
    known = team[team != ""] if team is not None else np.empty(0)
    return np.unique(known).size < known.size


def _favourite_ranks(ensemble: xr.Dataset) -> NDArray[np.int64]:
    """Return the rank of each car by mean finish over scenarios, 1 is the favourite: (race, driver)."""
    mean = ensemble["finish_position"].mean("scenario").transpose("race", "driver").values
    inside = np.arange(mean.shape[1]) < ensemble["field_size"].values[:, None]
    return rank(np.where(inside, mean, np.inf))
