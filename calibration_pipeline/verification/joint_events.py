"""Validation of joint events: predicted and observed shares, joint test, gain from dependence.

The expressions are in `events.language`, their counts in `events.counts`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from calibration_pipeline.events.counts import (
    Counts,
    Race,
    count_cases,
    read_races,
)
from calibration_pipeline.events.files import DEFAULT_EVENTS
from calibration_pipeline.events.independence import (
    about_dependence,
    count_recoupled,
    dependent_cars,
    independent_cars,
    judge_independence,
    log_scores,
    n_shuffles,
)
from calibration_pipeline.events.language import Event
from calibration_pipeline.schemas.frames import JointEventTable
from calibration_pipeline.seasons import split_eras
from calibration_pipeline.stats.intervals import Estimate, clustered_mean, clustered_share
from calibration_pipeline.verification.cases import JUDGED, check_forecasts, table

N_REPLICATES = 4000


def validate_events(
    ensembles: Mapping[str, xr.Dataset],
    results: pl.DataFrame,
    events: Sequence[Event] = DEFAULT_EVENTS,
    seed: int = 0,
    era_starts: Sequence[int] = (),
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Compare predicted probabilities of joint events with observed shares.

    The race-level z is the sum over races of (observed - expected number of cases) over its standard
    deviation under the ensemble. That deviation is the predictive one of the number of cases in a race, so it
    contains the ensemble's dependence between cars. Its squares add over races, which are independent.

    Parameters
    ----------
    ensembles : mapping of str to xarray.Dataset
        `raw` and `recalibrated`, `ScenarioEnsemble` datasets of the same races of one archetype. The
        favourites are those of `raw`, for both.
    results : polars.DataFrame
        `RaceResults` of at least these races and cars.
    events : sequence of Event
        Events to judge.
    seed : int
        Seed of replicate histories and of independent cars.
    era_starts : sequence of int
        First seasons of eras; each era has rows of its own beside those of all races.

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
    check_forecasts(ensembles)
    raw = ensembles["raw"]
    if not all(np.array_equal(raw["race"].values, other["race"].values) for other in ensembles.values()):
        raise ValueError("Argument ensembles must hold the same races in the same order.")
    if raw.sizes["race"] == 0:
        return table([], JointEventTable), {str(event): "there are no races" for event in events}
    races: dict[str, list[Race]] = {}
    skipped: dict[str, str] = {}
    for forecast in JUDGED:
        races[forecast], missing = read_races(ensembles[forecast], results, events, reference=raw)
        skipped = missing | skipped
    judged = [event for event in dict.fromkeys(events) if str(event) not in skipped]
    if not judged:
        return table([], JointEventTable), skipped
    counts = {forecast: count_cases(races[forecast], judged) for forecast in JUDGED}
    archetype = str(raw["archetype"].values[0])
    eras = split_eras(era_starts, raw["season"].values.tolist())
    return table(list(_rows(archetype, races, counts, eras, seed)), JointEventTable), skipped


def _uniforms(counts: Counts, seed: int) -> NDArray[np.float64]:
    """Return uniform numbers that choose a scenario of each race and replicate history, (replicate, race)."""
    return np.random.default_rng(seed).random((N_REPLICATES, len(counts.observed)))


def p_values(counts: Counts, uniforms: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the p-value of each event, (event,), and that of the joint test of all events.

    A replicate history takes one scenario of each race for the result. Events share cars and races, and the
    replicates share them in the same way. Each event's absolute z becomes its p-value among the replicates,
    and the smallest p-value is compared with the replicates' own smallest. A nearly certain event, whose z
    has long tails, therefore does not hide the others. Replicates also draw from the result, which is one
    more scenario under the hypothesis: an outcome that no scenario has is not impossible.

    Parameters
    ----------
    counts : Counts
        Of the ensemble and of the results.
    uniforms : ndarray
        Uniform numbers in [0, 1) that choose a scenario of each race in each replicate history,
        (replicate, race).

    References
    ----------
    Westfall & Young (1993), Resampling-Based Multiple Testing, section 2.3: the minimum p-value.
    """
    drawn = np.concatenate([counts.observed[:, None], counts.predicted], axis=1)
    deviation = drawn - drawn.mean(axis=1, keepdims=True)
    chosen = (uniforms * drawn.shape[1]).astype(np.intp)
    # Rounding must not turn a tie between replicates, or with the observation, into a difference.
    replicates = np.abs(deviation[np.arange(len(drawn)), chosen].sum(axis=1)).round(6)
    observed = np.abs(deviation[:, 0].sum(axis=0)).round(6)
    alone = (1 + np.count_nonzero(replicates >= observed, axis=0)) / (len(uniforms) + 1)
    smallest = (rankdata(-replicates, method="max", axis=0) / len(uniforms)).min(axis=1)
    return alone, float((1 + np.count_nonzero(smallest <= alone.min())) / (len(uniforms) + 1))


def _rows(
    archetype: str,
    races: Mapping[str, Sequence[Race]],
    counts: Mapping[str, Counts],
    eras: Mapping[str, Sequence[bool]],
    seed: int,
) -> Iterable[dict[str, object]]:
    """Yield the rows of `JointEventTable`."""
    raw = counts["raw"]
    rng = np.random.default_rng([seed, 1])
    independent = {
        forecast: count_recoupled(
            races[forecast], raw.events, independent_cars, n_shuffles(of.predicted.shape[1]), rng
        )
        for forecast, of in counts.items()
    }
    dependent = count_recoupled(races["raw"], raw.events, dependent_cars, 1, rng)
    raw_scores = log_scores(raw)
    for era, of_era in eras.items():
        own = np.array(of_era)
        about = about_dependence(_of_races(raw, own), independent["raw"][own], dependent[own])
        for forecast in JUDGED:
            keys = {"archetype": archetype, "era": era, "forecast": forecast}
            of_forecast = _of_races(counts[forecast], own)
            over_raw = None if forecast == "raw" else log_scores(of_forecast) - raw_scores[own]
            for row in _forecast_rows(of_forecast, independent[forecast][own], about, over_raw, seed):
                yield keys | row


def _of_races(counts: Counts, races: NDArray[np.bool_]) -> Counts:
    return Counts(counts.predicted[races], counts.observed[races], counts.cases[races], counts.events)


def _forecast_rows(
    counts: Counts, independent: NDArray, about: NDArray, over_raw: NDArray | None, seed: int
) -> Iterable[dict[str, object]]:
    """Yield the columns of one forecast's rows, an event each; `over_raw` is (race, event), nats."""
    uniforms = _uniforms(counts, seed)
    alone, together = p_values(counts, uniforms)
    independence = judge_independence(counts, independent, uniforms)
    judged = counts.cases > 0  # the others have no case of the event, or an unknown outcome
    gain_together, own = {}, judged.any(axis=1)
    if over_raw is not None and own.any():
        mean = over_raw[own].mean(axis=1, where=judged[own])
        gain_together = _bounds("gain_together", _over_races(mean))
    for e, event in enumerate(counts.events):
        if not judged[:, e].any():
            continue
        yield {
            "event": str(event),
            **_frequency(counts, e),
            "p_value": alone[e],
            "p_together": together,
            **_bounds("gain", _over_races(independence.gain[judged[:, e], e])),
            "about_dependence": bool(about[e]),
            "p_independent": independence.p_value[e],
            "power_independent": independence.power[e],
            **({} if over_raw is None else _bounds("gain_over_raw", _over_races(over_raw[judged[:, e], e]))),
            **gain_together,
        }


def _frequency(counts: Counts, e: int) -> dict[str, object]:
    observed = clustered_share(counts.observed[:, e], counts.cases[:, e])
    predicted = counts.predicted[:, :, e].mean(axis=1).sum() / counts.cases[:, e].sum()
    z = counts.z[e]
    return {
        "predicted": float(predicted),
        "observed": observed.estimate,
        "lower": observed.lower,
        "upper": observed.upper,
        "calibration_error": abs(float(predicted) - observed.estimate),
        "z": None if np.isnan(z) else float(z),
        "n_races": observed.n_races,
        "n_cases": observed.n_cases,
    }


def _over_races(values: NDArray) -> Estimate:
    return clustered_mean(values, np.arange(values.size))


def _bounds(name: str, estimate: Estimate) -> dict[str, object]:
    return {name: estimate.estimate, f"{name}_lower": estimate.lower, f"{name}_upper": estimate.upper}
