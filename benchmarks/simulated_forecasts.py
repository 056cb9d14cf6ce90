"""Forecasts of simulated races scored under many results, and the tables from which verdicts are judged.

Scores are summed by race beforehand, so that a thousand histories take minutes. The library computes
intervals, slopes of retirements, joint tests and p-values.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

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
from calibration_pipeline.markets import FINISH, HEAD_TO_HEAD, HOW_MANY_RETIRE, TOP_EVENTS, WHO_RETIRES
from calibration_pipeline.metrics import DEFAULT_LEVELS
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.stats.intervals import Estimate, clustered_ratio, jackknife_interval
from calibration_pipeline.stats.ranking import rank
from calibration_pipeline.verification.joint_events import p_values
from calibration_pipeline.verification.scores import (
    coverage_probability,
    discrete_crps,
)
from calibration_pipeline.verification.verdicts.estimates import MarketEstimate, spread_ratio
from calibration_pipeline.verification.verdicts.slopes import LOGIT_CLIP, retirement_slope

N_RESULTS, N_SCENARIOS = 200, 1000
N_JOINT = 300
"""Number of scenarios of a race for joint events; results come from other scenarios."""
SLOPES = np.geomspace(0.05, 10, 200)
N_SLOPE_RESULTS = 20
"""Number of results of each race for the true slope of retirements."""


@dataclass(frozen=True)
class SlopeSums:
    """Sums over the cases of a race, from which a slope and its interval follow.

    Attributes
    ----------
    won : (template, result), sum of the covariate over the cases that happened
    expected, information : (template, slope), expected value of `won` at a slope, and its derivative
    """

    won: NDArray[np.float64]
    expected: NDArray[np.float64]
    information: NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """A forecast of every template, scored under every result.

    Attributes
    ----------
    slopes : mapping of win, top 5, top 10 and head to head to `SlopeSums`
    inside : mapping of str to (template, result), expected number of cars inside the interval of that level
    loss : mapping of market to (template, result), Brier score or CRPS, sum over cases
    out : (template, car), logit of the probability of retirement, padded
    numbers : (template, scenario), number of retired cars
    predicted : (template, scenario, event), cases of joint events
    independent : as `predicted`, for independent cars
    """

    slopes: Mapping[str, SlopeSums]
    inside: Mapping[str, NDArray[np.float64]]
    loss: Mapping[str, NDArray[np.float64]]
    out: NDArray[np.float64]
    numbers: NDArray[np.int64]
    predicted: NDArray[np.int64]
    independent: NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Races and their results; arrays are (template, ...).

    Attributes
    ----------
    law, fields, truth : law and fields of the races, and scenarios of every template
    size : (template,), number of cars
    retired : (template, result, car) bool, padded
    climatology : mapping of market to (template, result), its loss, sum over cases
    observed, cases : (template, result, event) and (template, event), cases of joint events
    """

    law: Law
    fields: list[Field]
    truth: list[Scenarios]
    size: NDArray[np.int64]
    retired: NDArray[np.bool_]
    climatology: Mapping[str, NDArray[np.float64]]
    observed: NDArray[np.int64]
    cases: NDArray[np.int64]


def make_world(rng: np.random.Generator, law: Law, n_templates: int) -> World:
    """Draw races and results; the climatology of retirements is that of all templates."""
    drawn_fields = draw_fields(rng, law, n_templates)
    truth = draw_races(rng, law, drawn_fields, N_SCENARIOS)
    size = np.array([field.utility.size for field in drawn_fields])
    happened = [
        _evaluate(field, scenarios.head(N_RESULTS))
        for field, scenarios in zip(drawn_fields, truth, strict=True)
    ]
    out = [~scenarios.running for scenarios in truth]
    share = sum(each.sum() for each in out) / sum(each.size for each in out)
    number = np.concatenate([each.sum(axis=1) for each in out])
    climatology = [_climatology_loss(scenarios.head(N_RESULTS), share, number) for scenarios in truth]
    retired = np.zeros((n_templates, N_RESULTS, size.max()), bool)
    for r, (n, each) in enumerate(zip(size, out, strict=True)):
        retired[r, :, :n] = each[:N_RESULTS]
    return World(
        law=law,
        fields=drawn_fields,
        truth=truth,
        size=size,
        retired=retired,
        climatology=_stacked(climatology),
        observed=np.stack([_numbers(cases) for cases in happened]),
        cases=np.array([[case.shape[1] for case in cases] for cases in happened]),
    )


def _climatology_loss(results: Scenarios, share: float, number: NDArray) -> dict[str, NDArray[np.float64]]:
    n_cars = results.finish.shape[1]
    equal = np.full((n_cars, n_cars), 1 / n_cars)
    distribution = np.bincount(np.minimum(number, n_cars), minlength=n_cars + 1) / number.size
    n_pairs = n_cars * (n_cars - 1) / 2
    retired = ~results.running
    return {
        **{name: _brier(np.full(n_cars, k / n_cars), results.finish <= k) for name, k in TOP_EVENTS.items()},
        HEAD_TO_HEAD: np.full(len(results.finish), 0.25 * n_pairs),
        FINISH: _crps(equal, results.finish),
        WHO_RETIRES: _brier(np.full(n_cars, share), retired),
        HOW_MANY_RETIRE: _count_crps(distribution, retired),
    }


def make_forecast(rng: np.random.Generator, world: World, scenarios: Sequence[Scenarios]) -> Forecast:
    """Score the forecast with these scenarios under the world's results."""
    parts = [
        _score(rng, field, drawn, truth.head(N_RESULTS))
        for field, drawn, truth in zip(world.fields, scenarios, world.truth, strict=True)
    ]
    slopes = {
        name: SlopeSums(
            *(np.stack([getattr(part.slopes[name], f.name) for part in parts]) for f in fields(SlopeSums))
        )
        for name in parts[0].slopes
    }
    width = world.size.max()
    return Forecast(
        slopes=slopes,
        inside=_stacked([part.inside for part in parts]),
        loss=_stacked([part.loss for part in parts]),
        out=np.stack([np.pad(part.out, (0, width - part.out.size)) for part in parts]),
        numbers=np.stack([part.numbers for part in parts]),
        predicted=np.stack([part.predicted for part in parts]),
        independent=np.stack([part.independent for part in parts]),
    )


def _stacked(parts: Sequence[Mapping[str, NDArray]]) -> dict[str, NDArray]:
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _score(rng: np.random.Generator, field: Field, drawn: Scenarios, results: Scenarios) -> Forecast:
    """Score the forecast of one template."""
    n_cars = np.array([field.utility.size])
    probability = finish_probabilities(drawn.finish[None], n_cars)[0]
    rows, places = _every_place(probability)
    first, second = np.triu_indices(n_cars[0], k=1)
    ahead = head_to_head(drawn.finish[None], n_cars)[0, first, second]
    position, retired, out = results.finish, ~results.running, ~drawn.running
    won = position[:, first] < position[:, second]
    tops = {name: (probability[:, :k].sum(axis=1), position <= k) for name, k in TOP_EVENTS.items()}
    chance = (out.sum(axis=0) + 0.5) / (len(out) + 1)
    outcomes = drawn.tail(N_JOINT).outcomes(field, rank(-field.utility))
    shuffled = [independent_cars(outcomes, rng) for _ in range(N_SHUFFLES)]
    numbers = out.sum(axis=1)
    shares = np.bincount(numbers, minlength=n_cars[0] + 1) / numbers.size
    return Forecast(
        slopes={
            **{name: _top_sums(*top, TOP_EVENTS[name]) for name, top in tops.items()},
            HEAD_TO_HEAD: _pair_sums(logit(np.clip(ahead, LOGIT_CLIP, 1 - LOGIT_CLIP)), won),
        },
        inside={
            f"{100 * level:.0f} %": _looked_up(coverage_probability(rows, places, level), position)
            for level in DEFAULT_LEVELS
        },
        loss={
            **{name: _brier(*top) for name, top in tops.items()},
            HEAD_TO_HEAD: _brier(ahead, won),
            FINISH: _crps(probability, position),
            WHO_RETIRES: _brier(chance, retired),
            HOW_MANY_RETIRE: _count_crps(shares, retired),
        },
        out=logit(chance),
        numbers=numbers,
        predicted=_numbers([event.evaluate(outcomes) for event in EVENTS]),
        independent=np.concatenate(
            [_numbers([event.evaluate(cars) for event in EVENTS]) for cars in shuffled]
        ),
    )


def _pair_sums(x: NDArray, won: NDArray) -> SlopeSums:
    chance = expit(SLOPES[:, None] * x)
    return SlopeSums(won @ x, chance @ x, (chance * (1 - chance)) @ x**2)


def _top_sums(probability: NDArray, inside: NDArray, top: int) -> SlopeSums:
    """Return the sums of a market whose probabilities add up to `top` at every slope."""
    if top == 1:
        x = np.log(probability)
        share = np.exp(SLOPES[:, None] * (x - x.max()))
        share /= share.sum(axis=1, keepdims=True)
        mean = share @ x
        return SlopeSums(inside @ x, mean, share @ x**2 - mean**2)
    x = logit(probability)
    high = np.full(SLOPES.size, SLOPES.max() * np.abs(x).max() + 10)
    low = -high
    for _ in range(60):
        middle = (low + high) / 2
        above = expit(middle[:, None] + SLOPES[:, None] * x).sum(axis=1) > top
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    chance = expit(low[:, None] + SLOPES[:, None] * x)
    weight = chance * (1 - chance)
    spread = weight @ x**2 - (weight @ x) ** 2 / weight.sum(axis=1)
    return SlopeSums(inside @ x, chance @ x, spread)


def _every_place(probability: NDArray) -> tuple[NDArray, NDArray]:
    shape = (len(probability), *probability.shape)
    places = np.arange(1, len(probability) + 1)
    return np.broadcast_to(probability[:, None], shape), np.broadcast_to(places, probability.shape)


def _looked_up(score: NDArray, position: NDArray) -> NDArray[np.float64]:
    """Return the sum of ``score[car, position - 1]`` over cars, (result,)."""
    return score[np.arange(len(score)), position - 1].sum(axis=1)


def _crps(probability: NDArray, position: NDArray) -> NDArray[np.float64]:
    return _looked_up(discrete_crps(*_every_place(probability)), position)


def _count_crps(distribution: NDArray, retired: NDArray) -> NDArray[np.float64]:
    number = retired.sum(axis=1)
    return discrete_crps(np.broadcast_to(distribution, (number.size, distribution.size)), number + 1)


def _brier(probability: NDArray, outcome: NDArray) -> NDArray[np.float64]:
    """Return the sum over cases, (result,)."""
    return ((probability - outcome) ** 2).sum(axis=1)


def _evaluate(field: Field, scenarios: Scenarios) -> list[NDArray[np.bool_]]:
    outcomes = scenarios.outcomes(field, rank(-field.utility))
    return [event.evaluate(outcomes) for event in EVENTS]


def _numbers(cases: Sequence[NDArray[np.bool_]]) -> NDArray[np.int64]:
    return np.stack([case.sum(axis=-1) for case in cases], axis=-1)


def slope(sums: SlopeSums, chosen: NDArray, result: NDArray) -> Estimate:
    """Return the slope of a market over a history, with its interval."""
    won = sums.won[chosen, result]
    estimate = float(np.interp(won.sum(), sums.expected[chosen].sum(axis=0), SLOPES))
    at = np.interp(estimate, SLOPES, np.arange(SLOPES.size))
    below = min(int(at), SLOPES.size - 2)
    share = at - below

    def read(table: NDArray) -> NDArray[np.float64]:
        return (1 - share) * table[chosen, below] + share * table[chosen, below + 1]

    bounds = jackknife_interval(estimate, won - read(sums.expected), read(sums.information))
    return Estimate(estimate, *bounds, chosen.size, chosen.size)


def estimate_markets(
    world: World, name: str, forecast: Forecast, chosen: NDArray, result: NDArray
) -> Iterator[MarketEstimate]:
    """Yield the estimates that verdicts read, of a history of results of chosen templates."""
    race = np.arange(chosen.size)
    size = world.size[chosen].astype(float)
    for market, sums in forecast.slopes.items():
        yield MarketEstimate(market, name, "slope", "", slope(sums, chosen, result))
    for level, inside in forecast.inside.items():
        coverage = clustered_ratio(inside[chosen, result], size, race)
        yield MarketEstimate(FINISH, name, "coverage", level, coverage)
    mask = np.arange(world.size.max()) < world.size[chosen, None]
    retired = world.retired[chosen, result]
    who = retirement_slope(expit(forecast.out[chosen][mask]), retired[mask], np.nonzero(mask)[0])
    number, scenarios = retired.sum(axis=1), forecast.numbers[chosen]
    ratio = clustered_ratio(number, scenarios.mean(axis=1), race)
    yield MarketEstimate(HOW_MANY_RETIRE, name, "number ratio", "", ratio)
    for market, quantity, found in (
        (WHO_RETIRES, "slope", who),
        (HOW_MANY_RETIRE, "spread ratio", spread_ratio(number, scenarios)),
    ):
        if found is not None:
            yield MarketEstimate(market, name, quantity, "", found)
    for market, loss in forecast.loss.items():
        reference = world.climatology[market][chosen, result]
        skill = clustered_ratio(reference - loss[chosen, result], reference, race)
        yield MarketEstimate(market, name, "skill", "", skill)


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
            "gain_together": None,
            "gain_together_lower": None,
            "gain_together_upper": None,
            "n_races": chosen.size,
        }


def select_dependence_events(rng: np.random.Generator, world: World) -> NDArray[np.bool_]:
    """Return whether each event depends on the dependence between cars, (event,)."""
    counts: dict[Callable, list[NDArray]] = {independent_cars: [], dependent_cars: []}
    for field, scenarios in zip(world.fields, world.truth, strict=True):
        outcomes = scenarios.tail(N_JOINT).outcomes(field, rank(-field.utility))
        for recouple, numbers in counts.items():
            numbers.append(_numbers([event.evaluate(recouple(outcomes, rng)) for event in EVENTS]))
    independent, dependent = (np.stack(numbers) for numbers in counts.values())
    return about_dependence(
        Counts(independent, world.observed[:, 0], world.cases, EVENTS), independent, dependent
    )


def true_values(world: World, forecast: Forecast) -> dict[tuple[str, str, str], float]:
    """Return the values of the forecast over all races and results, by market, quantity and level."""
    values: dict[tuple[str, str, str], float] = {}
    for market, sums in forecast.slopes.items():
        found = np.interp(sums.won.mean(axis=1).sum(), sums.expected.sum(axis=0), SLOPES)
        values[market, "slope", ""] = float(found)
    for level, inside in forecast.inside.items():
        values[FINISH, "coverage", level] = float(inside.mean(axis=1).sum() / world.size.sum())
    for market, loss in forecast.loss.items():
        values[market, "skill", ""] = 1 - float(loss.sum() / world.climatology[market].sum())
    mask = np.arange(world.size.max()) < world.size[:, None]
    retired = world.retired[:, :N_SLOPE_RESULTS].transpose(0, 2, 1)[mask]
    x = np.repeat(expit(forecast.out[mask]), retired.shape[1])
    who = retirement_slope(x, retired.ravel(), np.zeros(x.size, np.intp))
    values[WHO_RETIRES, "slope", ""] = np.nan if who is None else who.estimate
    number = world.retired.sum(axis=2)
    mean, variance = forecast.numbers.mean(axis=1), forecast.numbers.var(axis=1, ddof=1)
    values[HOW_MANY_RETIRE, "number ratio", ""] = float(number.mean(axis=1).sum() / mean.sum())
    error = ((number - mean[:, None]) ** 2).mean(axis=1).sum()
    values[HOW_MANY_RETIRE, "spread ratio", ""] = float(np.sqrt(error / variance.sum()))
    return values
