"""Forecasts of simulated races scored under many results, and the tables from which a verdict is judged.

Scores are summed by race beforehand, so that a thousand histories take minutes. The library computes
intervals, joint tests and p-values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from benchmarks.simulated_races import EVENTS, Field, Law, Scenarios, draw_fields, draw_races
from calibration_pipeline.events.counts import Counts
from calibration_pipeline.events.independence import (
    N_SHUFFLES,
    about_dependence,
    dependent_cars,
    independent_cars,
    judge_independence,
)
from calibration_pipeline.metrics import DEFAULT_LEVELS
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.stats.intervals import clustered_ratio, jackknife_interval
from calibration_pipeline.stats.ranking import rank
from calibration_pipeline.verification.joint_events import p_values
from calibration_pipeline.verification.scores import LOGIT_CLIP, coverage_probability, discrete_crps

N_RESULTS, N_SCENARIOS = 200, 1000
N_JOINT = 300
"""Number of scenarios of a race for joint events; results come from other scenarios."""
SLOPES = np.geomspace(0.05, 10, 400)


@dataclass(frozen=True)
class Forecast:
    """A forecast of every template, scored under every result.

    Attributes
    ----------
    inside : mapping of str to (template, result), expected number of cars inside the interval of that level
    crps : (template, result), sum over cars
    won : (template, result), sum of logit p over pairs in which the first car beat the second
    expected, information : (template, slope), expected value of `won` at a slope, and its derivative
    predicted : (template, scenario, event), cases of joint events
    independent : as `predicted`, for independent cars
    """

    inside: dict[str, NDArray[np.float64]]
    crps: NDArray[np.float64]
    won: NDArray[np.float64]
    expected: NDArray[np.float64]
    information: NDArray[np.float64]
    predicted: NDArray[np.int64]
    independent: NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Races and their results; arrays are (template, ...).

    Attributes
    ----------
    law, fields, truth : law and fields of the races, and scenarios of every template
    size : (template,), number of cars
    uniform : (template, result), CRPS of climatology, sum over cars
    observed, cases : (template, result, event) and (template, event), cases of joint events
    """

    law: Law
    fields: list[Field]
    truth: list[Scenarios]
    size: NDArray[np.int64]
    uniform: NDArray[np.float64]
    observed: NDArray[np.int64]
    cases: NDArray[np.int64]


def make_world(rng: np.random.Generator, law: Law, n_templates: int) -> World:
    """Draw fields and results."""
    fields = draw_fields(rng, law, n_templates)
    truth = draw_races(rng, law, fields, N_SCENARIOS)
    size = np.array([field.utility.size for field in fields])
    uniform = [
        _crps(np.full((n, n), 1 / n), scenarios.finish[:N_RESULTS])
        for n, scenarios in zip(size, truth, strict=True)
    ]
    happened = [
        _evaluate(field, scenarios.head(N_RESULTS)) for field, scenarios in zip(fields, truth, strict=True)
    ]
    return World(
        law=law,
        fields=fields,
        truth=truth,
        size=size,
        uniform=np.stack(uniform),
        observed=np.stack([_numbers(cases) for cases in happened]),
        cases=np.array([[case.shape[1] for case in cases] for cases in happened]),
    )


def make_forecast(rng: np.random.Generator, world: World, scenarios: Sequence[Scenarios]) -> Forecast:
    """Score the forecast with these scenarios under the world's results."""
    parts = [
        _score(rng, field, drawn, truth.finish[:N_RESULTS])
        for field, drawn, truth in zip(world.fields, scenarios, world.truth, strict=True)
    ]
    inside = {level: np.stack([part.inside[level] for part in parts]) for level in parts[0].inside}
    rest = {
        name: np.stack([getattr(part, name) for part in parts])
        for name in ("crps", "won", "expected", "information", "predicted", "independent")
    }
    return Forecast(inside=inside, **rest)


def _score(rng: np.random.Generator, field: Field, drawn: Scenarios, position: NDArray) -> Forecast:
    """Score the forecast of one template."""
    n_cars = np.array([field.utility.size])
    probability = finish_probabilities(drawn.finish[None], n_cars)[0]
    rows, places = _every_place(probability)
    first, second = np.triu_indices(n_cars[0], k=1)
    ahead = head_to_head(drawn.finish[None], n_cars)[0, first, second]
    x = logit(np.clip(ahead, LOGIT_CLIP, 1 - LOGIT_CLIP))
    chance = expit(SLOPES[:, None] * x)
    outcomes = drawn.tail(N_JOINT).outcomes(field, rank(-field.utility))
    shuffled = [independent_cars(outcomes, rng) for _ in range(N_SHUFFLES)]
    return Forecast(
        inside={
            f"{100 * level:.0f} %": _looked_up(coverage_probability(rows, places, level), position)
            for level in DEFAULT_LEVELS
        },
        crps=_crps(probability, position),
        won=(position[:, first] < position[:, second]) @ x,
        expected=chance @ x,
        information=(chance * (1 - chance)) @ x**2,
        predicted=_numbers([event.evaluate(outcomes) for event in EVENTS]),
        independent=np.concatenate(
            [_numbers([event.evaluate(cars) for event in EVENTS]) for cars in shuffled]
        ),
    )


def _every_place(probability: NDArray) -> tuple[NDArray, NDArray]:
    shape = (len(probability), *probability.shape)
    places = np.arange(1, len(probability) + 1)
    return np.broadcast_to(probability[:, None], shape), np.broadcast_to(places, probability.shape)


def _looked_up(score: NDArray, position: NDArray) -> NDArray[np.float64]:
    """Return the sum of ``score[car, position - 1]`` over cars, (result,)."""
    return score[np.arange(len(score)), position - 1].sum(axis=1)


def _crps(probability: NDArray, position: NDArray) -> NDArray[np.float64]:
    return _looked_up(discrete_crps(*_every_place(probability)), position)


def _evaluate(field: Field, scenarios: Scenarios) -> list[NDArray[np.bool_]]:
    outcomes = scenarios.outcomes(field, rank(-field.utility))
    return [event.evaluate(outcomes) for event in EVENTS]


def _numbers(cases: Sequence[NDArray[np.bool_]]) -> NDArray[np.int64]:
    return np.stack([case.sum(axis=-1) for case in cases], axis=-1)


def slope(forecast: Forecast, chosen: NDArray, result: NDArray) -> tuple[float, float | None, float | None]:
    """Return the value of `scores.head_to_head_slope` for all pairs of cars, with its interval."""
    won = forecast.won[chosen, result]
    estimate = float(np.interp(won.sum(), forecast.expected[chosen].sum(axis=0), SLOPES))
    at = np.interp(estimate, SLOPES, np.arange(SLOPES.size))
    below = min(int(at), SLOPES.size - 2)
    share = at - below

    def read(table: NDArray) -> NDArray[np.float64]:
        return (1 - share) * table[chosen, below] + share * table[chosen, below + 1]

    return estimate, *jackknife_interval(estimate, won - read(forecast.expected), read(forecast.information))


def metric_rows(
    world: World, forecast: Forecast, chosen: NDArray, result: NDArray
) -> Iterator[dict[str, object]]:
    """Yield the rows of the metric table that a verdict reads."""
    race = np.arange(chosen.size)
    size, uniform = world.size[chosen].astype(float), world.uniform[chosen, result]

    def row(quantity: str, level: str, reference: str, *bounds: float | None) -> dict[str, object]:
        keys = {"quantity": quantity, "level": level, "reference": reference, "n_races": race.size}
        return keys | dict(zip(("estimate", "lower", "upper"), bounds, strict=True))

    for level, inside in forecast.inside.items():
        e = clustered_ratio(inside[chosen, result], size, race)
        yield row("coverage", level, "", e.estimate, e.lower, e.upper)
    e = clustered_ratio(uniform - forecast.crps[chosen, result], uniform, race)
    yield row("crps_skill", "", "climatology", e.estimate, e.lower, e.upper)
    yield row("head_to_head_slope", "", "", *slope(forecast, chosen, result))


def event_rows(
    world: World, forecast: Forecast, about: NDArray, chosen: NDArray, result: NDArray, uniforms: NDArray
) -> Iterator[dict[str, object]]:
    """Yield the rows of the table of joint events that a verdict reads."""
    counts = Counts(forecast.predicted[chosen], world.observed[chosen, result], world.cases[chosen], EVENTS)
    alone, together = p_values(counts, uniforms)
    independence = judge_independence(counts, forecast.independent[chosen], uniforms)
    for e, (event, z) in enumerate(zip(EVENTS, counts.z, strict=True)):
        yield {
            "event": str(event),
            "z": None if np.isnan(z) else float(z),
            "p_value": float(alone[e]),
            "p_together": together,
            "about_dependence": bool(about[e]),
            "p_independent": float(independence.p_value[e]),
            "power_independent": float(independence.power[e]),
            "n_races": chosen.size,
        }


def select_dependence_events(rng: np.random.Generator, world: World) -> NDArray[np.bool_]:
    """Return whether each event depends on the dependence between cars, (event,)."""
    counts = {independent_cars: [], dependent_cars: []}
    for field, scenarios in zip(world.fields, world.truth, strict=True):
        outcomes = scenarios.tail(N_JOINT).outcomes(field, rank(-field.utility))
        for recouple, numbers in counts.items():
            numbers.append(_numbers([event.evaluate(recouple(outcomes, rng)) for event in EVENTS]))
    independent, dependent = (np.stack(numbers) for numbers in counts.values())
    return about_dependence(
        Counts(independent, world.observed[:, 0], world.cases, EVENTS), independent, dependent
    )


def true_values(world: World, forecast: Forecast) -> dict[str, float]:
    """Return the forecast's slope, coverage and CRPS skill over all races and results."""
    every = np.interp(forecast.won.mean(axis=1).sum(), forecast.expected.sum(axis=0), SLOPES)
    coverage = {
        level: float(inside.mean(axis=1).sum() / world.size.sum())
        for level, inside in forecast.inside.items()
    }
    return {"slope": float(every), **coverage, "skill": 1 - float(forecast.crps.sum() / world.uniform.sum())}
