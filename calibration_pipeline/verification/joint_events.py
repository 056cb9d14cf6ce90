"""How often joint events happen in scenarios and in results, and whether the difference is chance.

The expressions themselves are in `events` and can be imported from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from calibration_pipeline.ranking import rank
from calibration_pipeline.schemas.frames import JointEventTable
from calibration_pipeline.verification.cases import JUDGED, table
from calibration_pipeline.verification.events import (
    Event,
    Outcomes,
    at_least,
    both_teammates,
    count,
    dnf,
    favourites,
    led,
    running,
    same_make,
    top,
)
from calibration_pipeline.verification.intervals import clustered_share

__all__ = [
    "DEFAULT_EVENTS",
    "Counts",
    "Event",
    "JointTest",
    "Outcomes",
    "at_least",
    "both_teammates",
    "count",
    "count_events",
    "dnf",
    "favourites",
    "joint_test",
    "led",
    "running",
    "same_make",
    "top",
    "validate_events",
]

DEFAULT_EVENTS: tuple[Event, ...] = (
    top(5) & running,
    led(1) & top(10),
    both_teammates(top(10)),
    at_least(2, favourites(3), top(10)),
    count(dnf) >= 8,
    same_make(top(3)),
)
N_REPLICATES = 4000
OUTCOME_VARIABLES = ("finish_position", "running", "laps_led")
CAR_VARIABLES = ("team", "make")


@dataclass(frozen=True)
class JointTest:
    """All events of an archetype judged together.

    Attributes
    ----------
    largest_z : float
        Absolute race-level z of the event that is hardest to explain by chance.
    p_value : float
        Share of histories drawn from the ensemble itself with an event at least as hard to explain.
    worst_event : str
        The event it belongs to.
    """

    largest_z: float
    p_value: float
    worst_event: str


@dataclass(frozen=True)
class Counts:
    """How many cases of each event there are.

    Attributes
    ----------
    predicted : (race, scenario, event), in each scenario
    observed : (race, event), in the result
    cases : (race, event), that there could be
    events : the events
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    cases: NDArray[np.float64]
    events: tuple[Event, ...]

    @property
    def z(self) -> NDArray[np.float64]:
        """Race-level z of each event, (event,); NaN where the ensemble leaves nothing to chance."""
        spread = self.spread
        surprise = (self.observed - self.predicted.mean(axis=1)).sum(axis=0)
        return np.divide(surprise, spread, out=np.full(spread.shape, np.nan), where=spread > 0)

    @property
    def spread(self) -> NDArray[np.float64]:
        """Predictive standard deviation of the summed count, (event,), with Monte-Carlo error of the mean."""
        variance = self.predicted.var(axis=1, ddof=1) * (1 + 1 / self.predicted.shape[1])
        return np.sqrt(variance.sum(axis=0))


def validate_events(
    ensembles: Mapping[str, xr.Dataset],
    results: pl.DataFrame,
    events: Sequence[Event] = DEFAULT_EVENTS,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Hold predicted probabilities of joint events against how often they happened.

    The race-level z is the sum over races of (observed - expected number of cases) over its standard
    deviation under the ensemble. That is the predictive one, of the number a race, so it knows how dependent
    the ensemble thinks cars are, and adds over races, which are independent.

    Parameters
    ----------
    ensembles : mapping of str to xarray.Dataset
        `raw` and `recalibrated`, `ScenarioEnsemble` datasets of the same races of one archetype. The
        favourites are those of `raw`, for both.
    results : polars.DataFrame
        `RaceResults` of at least these races and cars.
    events : sequence of Event
        What to look at.

    Returns
    -------
    table : polars.DataFrame
        `JointEventTable`.
    skipped : dict
        Events that could not be judged, each with the reason.

    Raises
    ------
    ValueError
        If the ensembles differ in their races, a car lacks a result, or the finishes of a race are no
        permutation.
    """
    if set(ensembles) != set(JUDGED):
        raise ValueError(
            f"Argument ensembles must have keys {', '.join(JUDGED)}, got {', '.join(ensembles)}."
        )
    raw = ensembles["raw"]
    if not all(np.array_equal(raw["race"].values, other["race"].values) for other in ensembles.values()):
        raise ValueError("Argument ensembles must hold the same races in the same order.")
    if raw.sizes["race"] == 0:
        return table([], JointEventTable), {str(event): "there are no races" for event in events}
    observed = _aligned(raw, results)
    skipped: dict[str, str] = {}
    for ensemble in ensembles.values():
        skipped = _unjudged(events, ensemble, observed) | skipped
    judged = [event for event in events if str(event) not in skipped]
    rows: list[dict[str, object]] = []
    for forecast in JUDGED:
        counts = _count(ensembles[forecast], observed, judged, _favourite_ranks(raw))
        rows += _rows(str(raw["archetype"].values[0]), forecast, judged, counts)
    return table(rows, JointEventTable), skipped


def count_events(
    ensemble: xr.Dataset,
    results: pl.DataFrame,
    events: Sequence[Event] = DEFAULT_EVENTS,
    reference: xr.Dataset | None = None,
) -> Counts:
    """Count the cases of events that can be judged, in scenarios and in results.

    Parameters
    ----------
    ensemble, results, events, reference
        As in `joint_test`.

    Returns
    -------
    Counts

    Raises
    ------
    ValueError
        If no event can be judged, a car lacks a result, or the finishes of a race are no permutation.
    """
    observed = _aligned(ensemble, results)
    skipped = _unjudged(events, ensemble, observed)
    judged = [event for event in events if str(event) not in skipped]
    if not judged:
        raise ValueError(f"No event can be judged: {skipped}.")
    favourites_of = ensemble if reference is None else reference
    return _count(ensemble, observed, judged, _favourite_ranks(favourites_of))


def joint_test(
    ensemble: xr.Dataset,
    results: pl.DataFrame,
    events: Sequence[Event] = DEFAULT_EVENTS,
    seed: int = 0,
    *,
    reference: xr.Dataset | None = None,
) -> JointTest:
    """Test all events at once: the least probable z against its distribution under the ensemble.

    A replicate history takes one scenario of each race for the result. Events share cars and races, and the
    replicates know how. Each event's absolute z is read as its p-value among the replicates, and the smallest
    p-value is compared with the replicates' own smallest: an event that is nearly certain, whose z has long
    tails, does not hide the others.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble` of one archetype.
    results : polars.DataFrame
        `RaceResults` of at least these races and cars.
    events : sequence of Event
        What to look at; events that cannot be judged are left out.
    seed : int
        Seed of the replicates.
    reference : xarray.Dataset, optional
        The ensemble whose favourites are meant, the raw one; by default `ensemble` itself.

    Returns
    -------
    JointTest

    References
    ----------
    Westfall & Young (1993), Resampling-Based Multiple Testing, section 2.3: the minimum p-value.

    Raises
    ------
    ValueError
        If no event can be judged, a car lacks a result, or the finishes of a race are no permutation.
    """
    counts = count_events(ensemble, results, events, reference)
    uncertain = np.flatnonzero(counts.spread > 0)
    if not uncertain.size:
        raise ValueError("No event can be judged: the ensemble leaves nothing to chance.")
    z = np.abs(counts.z[uncertain])
    deviation = (counts.predicted - counts.predicted.mean(axis=1, keepdims=True))[..., uncertain]
    n_races, n_scenarios, _ = deviation.shape
    chosen = np.random.default_rng(seed).integers(n_scenarios, size=(N_REPLICATES, n_races))
    replicates = np.abs(deviation[np.arange(n_races), chosen].sum(axis=1) / counts.spread[uncertain])
    # Rounding must not turn a tie between replicates, or with the observation, into a difference.
    replicates, observed = np.round(replicates, 9), np.round(z, 9)
    at_least = (1 + np.count_nonzero(replicates >= observed, axis=0)) / (N_REPLICATES + 1)
    smallest = (rankdata(-replicates, method="max", axis=0) / N_REPLICATES).min(axis=1)
    worst = int(np.lexsort((-z, at_least))[0])
    p_value = (1 + np.count_nonzero(smallest <= at_least[worst])) / (N_REPLICATES + 1)
    return JointTest(float(z[worst]), float(p_value), str(counts.events[uncertain[worst]]))


def _aligned(ensemble: xr.Dataset, results: pl.DataFrame) -> pl.DataFrame:
    """Return the results in the ensemble's order: one row a car, with columns `slot` and `race_index`."""
    sizes = ensemble["field_size"].values
    race, slot = np.nonzero(np.arange(ensemble.sizes["driver"]) < sizes[:, None])
    cars = pl.DataFrame(
        {
            "race_index": race,
            "slot": slot,
            "race_id": ensemble["race"].values[race],
            "driver_id": ensemble["driver_id"].values[race, slot].astype(str),
        }
    )
    columns = [name for name in OUTCOME_VARIABLES if name in results.columns]
    found = results.select("race_id", "driver_id", *columns)
    joined = cars.join(found, on=["race_id", "driver_id"], how="left", maintain_order="left")
    missing = joined.filter(pl.col("finish_position").is_null())
    if missing.height:
        first = missing.row(0, named=True)
        raise ValueError(
            f"results must have every car of the ensemble; {missing.height} are missing, the first is "
            f"driver {first['driver_id']!r} in race {first['race_id']}."
        )
    twice = joined.filter(pl.struct("race_id", "driver_id").is_duplicated())
    if twice.height:
        first = twice.row(0, named=True)
        raise ValueError(
            f"results must have every car once; driver {first['driver_id']!r} is in race {first['race_id']} "
            "more than once."
        )
    place = pl.col("finish_position")
    wrong = joined.filter(place.rank("ordinal").over("race_id") != place)
    if wrong.height:
        raise ValueError(
            "finish_position of the results must be 1..n over the ensemble's cars; "
            f"it is not in race {wrong['race_id'][0]}."
        )
    return joined


def _unjudged(events: Sequence[Event], ensemble: xr.Dataset, observed: pl.DataFrame) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for name in OUTCOME_VARIABLES:
        if name not in ensemble.data_vars:
            reasons[name] = f"{name} is absent from the ensemble"
        elif name not in observed.columns:
            reasons[name] = f"{name} is absent from the results"
        elif observed[name].null_count():
            reasons[name] = f"{name} is unknown for {observed[name].null_count()} of {observed.height} cars"
    for name in CAR_VARIABLES:
        if name not in ensemble.coords or not (ensemble[name].values != "").any():
            reasons[name] = f"{name} is not known"
    skipped = {
        str(event): "; ".join(reasons[name] for name in sorted(event.needs) if name in reasons)
        for event in events
        if event.needs & set(reasons)
    }
    if "team" not in reasons and not _has_teammates(ensemble):
        lonely = {str(event): "no two cars share a team" for event in events if event.cases == "pair"}
        skipped = lonely | skipped
    return skipped


def _has_teammates(ensemble: xr.Dataset) -> bool:
    sizes, teams = ensemble["field_size"].values, ensemble["team"].values
    known = [team[:size][team[:size] != ""] for team, size in zip(teams, sizes, strict=True)]
    return any(np.unique(team).size < team.size for team in known)


def _favourite_ranks(ensemble: xr.Dataset) -> NDArray[np.int64]:
    """Return the rank of each car by mean finish over scenarios, 1 is the favourite: (race, driver)."""
    mean = ensemble["finish_position"].mean("scenario").transpose("race", "driver").values
    inside = np.arange(mean.shape[1]) < ensemble["field_size"].values[:, None]
    return rank(np.where(inside, mean, np.inf))


def _count(
    ensemble: xr.Dataset, observed: pl.DataFrame, events: Sequence[Event], favourite_rank: NDArray
) -> Counts:
    if ensemble.sizes["scenario"] < 2:
        raise ValueError(f"An ensemble must hold at least 2 scenarios, got {ensemble.sizes['scenario']}.")
    names = set().union(*(event.needs for event in events)) | {"finish_position"}
    variables = [name for name in OUTCOME_VARIABLES if name in names]
    scenarios = {name: ensemble[name].transpose("race", "scenario", "driver").values for name in variables}
    happened = {name: observed[name].to_numpy() for name in variables}
    sizes = ensemble["field_size"].values
    ends = np.cumsum(sizes.astype(np.int64))
    shape = (sizes.size, ensemble.sizes["scenario"], len(events))
    predicted, actual, cases = np.empty(shape), np.empty(shape[::2]), np.empty(shape[::2])
    for r, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        cars = {name: ensemble[name].values[r, :size] for name in CAR_VARIABLES if name in names}
        cars["favourite_rank"] = favourite_rank[r, :size]
        simulated = Outcomes(**{name: scenarios[name][r, :, :size] for name in variables}, **cars)
        result = Outcomes(**{name: happened[name][end - size : end] for name in variables}, **cars)
        for e, event in enumerate(events):
            predicted[r, :, e] = event.evaluate(simulated).sum(axis=-1)
            outcome = event.evaluate(result)
            actual[r, e], cases[r, e] = outcome.sum(), outcome.size
    return Counts(predicted, actual, cases, tuple(events))


def _rows(archetype: str, forecast: str, events: Sequence[Event], counts: Counts) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for e, (event, z) in enumerate(zip(events, counts.z, strict=True)):
        observed = clustered_share(counts.observed[:, e], counts.cases[:, e])
        expected = counts.predicted[:, :, e].mean(axis=1).sum() / counts.cases[:, e].sum()
        rows.append(
            {
                "archetype": archetype,
                "forecast": forecast,
                "event": str(event),
                "predicted": float(expected),
                "observed": observed.estimate,
                "lower": observed.lower,
                "upper": observed.upper,
                "calibration_error": abs(float(expected) - observed.estimate),
                "z": None if np.isnan(z) else float(z),
                "n_races": observed.n_races,
                "n_cases": observed.n_cases,
            }
        )
    return rows
