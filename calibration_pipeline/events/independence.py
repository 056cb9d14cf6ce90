"""Test of independence between cars: joint events under an ensemble and under independent cars.

An ensemble holds a marginal distribution for each car and the dependence between cars. Independent cars keep
the first without the second: each car's scenarios are shuffled separately, and the shuffled finishes are
ranked again, since two cars cannot both win. (Ranking blurs finish positions like a forecast that is 2-3 %
less sharp; running and laps led keep each car's distribution exactly.) The log-score gain compares the
ensemble's number of cases in a race with that of independent cars. Its sum over races is the log likelihood
ratio, which is the most powerful test of independence. With 2,000 scenarios, a number of cases that takes
many values loses up to .01 nats a race to the finite number of scenarios.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from calibration_pipeline.events.counts import Counts, Race
from calibration_pipeline.events.language import Event, Outcomes

N_SHUFFLES, N_INDEPENDENT = 4, 8000
"""Largest number of shuffles, and number of independent scenarios after which no shuffle is added."""
SIGNIFICANCE = 0.05
NOTICEABLE = 0.02
"""Least expected gain, nats a race, of a strong dependence in an event that is about dependence."""
SHARED_VARIANCE = 0.5
"""Share of race, team and make in the variance of a car's performance, in the strong dependence."""
CERTAIN = 0.98
"""Share of scenarios with the median number of cases from which on the number counts as fixed."""

Recoupling = Callable[[Outcomes, np.random.Generator], Outcomes]


@dataclass(frozen=True)
class Independence:
    """Gain of the ensemble's dependence between cars over independent cars, by event.

    Attributes
    ----------
    gain : (race, event)
        Log score of the observed number of cases minus that of independent cars, nats.
    p_value : (event)
        Share of histories of independent cars whose gain is at least the observed one.
    power : (event)
        Probability of a p-value of at most 5 % if the ensemble is right.
    """

    gain: NDArray[np.float64]
    p_value: NDArray[np.float64]
    power: NDArray[np.float64]


def n_shuffles(n_scenarios: int) -> int:
    """Return the number of shuffles of an ensemble of `n_scenarios` scenarios.

    Parameters
    ----------
    n_scenarios : int

    Examples
    --------
    >>> [n_shuffles(n) for n in (500, 2000, 4000, 100_000)]
    [4, 4, 2, 1]
    """
    return min(N_SHUFFLES, max(1, ceil(N_INDEPENDENT / n_scenarios)))


def independent_cars(outcomes: Outcomes, rng: np.random.Generator) -> Outcomes:
    """Shuffle each car's scenarios separately and rank the finishes again, ties at random.

    Parameters
    ----------
    outcomes : Outcomes
        Scenarios of one race, (scenario, car).
    rng : numpy.random.Generator

    Returns
    -------
    Outcomes
        As many scenarios; in each, finish positions are a permutation.

    References
    ----------
    Schefzik, Thorarinsdottir & Gneiting (2013), doi:10.1214/13-STS443, eq. 3: an ensemble's dependence is the
    order of its members, which shuffling removes.
    """
    shape = outcomes.finish_position.shape
    return _reordered(outcomes, rng.permuted(np.broadcast_to(_column(shape[0]), shape), axis=0), rng)


def dependent_cars(outcomes: Outcomes, rng: np.random.Generator) -> Outcomes:
    """Reorder each car's scenarios so that race, team and make share half the variance of its performance.

    A car's scenarios are sorted from its best (running, far in front) to its worst, and drawn by a Gaussian
    copula. The shared part of the copula has a factor of the race, of each team and of each make, of equal
    variance.

    Parameters
    ----------
    outcomes : Outcomes
        Scenarios of one race, (scenario, car).
    rng : numpy.random.Generator

    Returns
    -------
    Outcomes
        As many scenarios; in each, finish positions are a permutation.
    """
    n_scenarios, n_cars = outcomes.finish_position.shape
    shared = rng.normal(size=(n_scenarios, 1))
    for labels in (outcomes.team, outcomes.make):
        group = _groups(labels, n_cars)
        shared = shared + rng.normal(size=(n_scenarios, n_cars))[:, group]
    own = rng.normal(size=(n_scenarios, n_cars))
    performance = np.sqrt(SHARED_VARIANCE / 3) * shared + np.sqrt(1 - SHARED_VARIANCE) * own
    retired = 0 if outcomes.running is None else n_cars * ~outcomes.running.astype(bool)
    worst_last = _sorting(outcomes.finish_position + retired, rng)
    chosen = np.empty_like(worst_last)
    np.put_along_axis(chosen, performance.argsort(axis=0), worst_last, axis=0)
    return _reordered(outcomes, chosen, rng)


def count_recoupled(
    races: Sequence[Race],
    events: Sequence[Event],
    recouple: Recoupling,
    n_times: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Count the cases of events in scenarios recoupled `n_times`, (race, n_times * scenario, event)."""
    return np.stack(
        [
            np.concatenate(
                [
                    np.stack([event.of_cases(outcomes).sum(axis=-1) for event in events], axis=-1)
                    for outcomes in (recouple(race.scenarios, rng) for _ in range(n_times))
                ]
            )
            for race in races
        ]
    )


def log_probabilities(number: NDArray, cases: NDArray, n_scenarios: int) -> NDArray[np.float64]:
    """Return the log probability of each possible number of cases of a race.

    A number that a share f of scenarios has gets probability (S f + 1/2) / (S + K / 2), for S scenarios and K
    possible numbers: the rule of `scenarios.probabilities`.

    Parameters
    ----------
    number : array of int, shape (race, scenario)
        Number of cases in each scenario.
    cases : array of int, shape (race)
        The largest possible number.
    n_scenarios : int
        S, which may differ from the size of `number`: two ensembles in a comparison need the same smoothing.

    Returns
    -------
    ndarray, shape (race, largest number of cases + 1)
        Nats.

    Examples
    --------
    >>> np.exp(log_probabilities(np.array([[0, 0, 1]]), np.array([1]), 3)).tolist()
    [[0.625, 0.375]]
    """
    width = int(cases.max()) + 1
    cell = number + width * _column(len(number))
    share = np.bincount(cell.ravel(), minlength=width * len(number)).reshape(-1, width) / number.shape[1]
    return np.log((n_scenarios * share + 0.5) / (n_scenarios + (cases[:, None] + 1) / 2))


def log_scores(counts: Counts) -> NDArray[np.float64]:
    """Return the log score of the observed number of cases, (race, event), nats."""
    n_scenarios = counts.predicted.shape[1]
    scores = np.empty(counts.observed.shape)
    for e in range(len(counts.events)):
        log_probability = log_probabilities(counts.predicted[..., e], counts.cases[:, e], n_scenarios)
        scores[:, e] = _of_number(log_probability, counts.observed[:, e : e + 1])[:, 0]
    return scores


def judge_independence(
    counts: Counts, independent: NDArray[np.int64], uniforms: NDArray[np.float64]
) -> Independence:
    """Test whether the results reject independent cars, by the gain of the ensemble over them.

    One half of the scenarios estimates the probabilities, the other half forms the replicate histories. No
    scenario is scored by probabilities that it contributed to.

    Parameters
    ----------
    counts : Counts
        Of the ensemble and of the results.
    independent : ndarray
        Number of cases of the same races if cars were independent, (race, scenario, event).
    uniforms : ndarray
        Uniform numbers in [0, 1) that choose a scenario of each race in each replicate history,
        (replicate, race).

    Returns
    -------
    Independence

    References
    ----------
    Neyman & Pearson (1933), doi:10.1098/rsta.1933.0009: the likelihood ratio is the most powerful test;
    Monte-Carlo p-values: Davison & Hinkley (1997), Bootstrap Methods and their Application, eq. 4.11.
    """
    gain = np.empty(counts.observed.shape)
    p_value, power = np.empty(len(counts.events)), np.empty(len(counts.events))
    for e in range(len(counts.events)):
        predicted, observed = counts.predicted[..., e], counts.observed[:, e : e + 1]
        known, new = _halves(independent[..., e])
        log_known = log_probabilities(known, counts.cases[:, e], predicted.shape[1])

        ratio = log_probabilities(predicted, counts.cases[:, e], predicted.shape[1]) - log_known
        gain[:, e] = _of_number(ratio, observed)[:, 0]
        p_value[e] = _p_values(gain[:, e].sum(), _histories(_of_number(ratio, new), uniforms))

        first, second = _halves(predicted)
        ratio = log_probabilities(first, counts.cases[:, e], predicted.shape[1]) - log_known
        by_chance, as_predicted = (_histories(_of_number(ratio, of), uniforms) for of in (new, second))
        power[e] = np.mean(_p_values(as_predicted, by_chance) <= SIGNIFICANCE)
    return Independence(gain, p_value, power)


def about_dependence(
    counts: Counts, independent: NDArray[np.int64], dependent: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which events carry information about dependence between cars, (event,).

    A strong dependence must show in the event: the expected log-score gain of `dependent_cars` over
    `independent_cars` is at least `NOTICEABLE` nats a race. Events about one car, or three, gain less. An
    event about cars carries no information if the same number of cars meets it in at least `CERTAIN` of the
    scenarios, for example "top 5 and running". The answer depends neither on the ensemble's own dependence
    nor on the results.

    Parameters
    ----------
    counts : Counts
        Of the ensemble.
    independent, dependent : ndarray
        Number of cases, (race, scenario, event).
    """
    n_scenarios = counts.predicted.shape[1]
    informative: list[bool | np.bool_] = []
    for e, event in enumerate(counts.events):
        own = counts.cases[:, e] > 0
        if not own.any():
            informative.append(False)
            continue
        cases = counts.cases[own, e]
        first, second = _halves(dependent[own, :, e])
        ratio = log_probabilities(first, cases, n_scenarios) - log_probabilities(
            independent[own, :, e], cases, n_scenarios
        )
        shows = _of_number(ratio, second).mean() >= NOTICEABLE
        number = counts.predicted[own, :, e]
        fixed = np.mean(number == np.median(number, axis=1, keepdims=True)) >= CERTAIN
        informative.append(shows and not (event.cases == "car" and fixed))
    return np.array(informative)


def _reordered(outcomes: Outcomes, chosen: NDArray[np.intp], rng: np.random.Generator) -> Outcomes:
    """Return the scenarios with car i of scenario s taken from scenario ``chosen[s, i]``."""

    def taken(values: NDArray | None) -> NDArray | None:
        return None if values is None else np.take_along_axis(values, chosen, axis=0)

    order = _sorting(np.take_along_axis(outcomes.finish_position, chosen, axis=0).T, rng)
    position = np.empty_like(order)
    np.put_along_axis(position, order, _column(order.shape[0]) + 1, axis=0)
    return replace(
        outcomes,
        finish_position=position.T,
        running=taken(outcomes.running),
        laps_led=taken(outcomes.laps_led),
    )


def _sorting(values: NDArray, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the indices that sort the first axis, ties in random order."""
    return (values + rng.random(values.shape, np.float32)).argsort(axis=0)


def _halves(number: NDArray) -> tuple[NDArray, NDArray]:
    """Split the scenarios into those of even and of odd index."""
    return number[:, ::2], number[:, 1::2]


def _groups(labels: NDArray | None, n_cars: int) -> NDArray[np.intp]:
    """Return a group number below `n_cars` for each car; cars with the same known label share it."""
    own = np.arange(n_cars)
    if labels is None:
        return own
    first = (labels[:, None] == labels).argmax(axis=1)
    return np.where(labels == "", own, first)


def _of_number(table: NDArray, number: NDArray) -> NDArray[np.float64]:
    """Read ``table[race, number[race, scenario]]``."""
    return np.take_along_axis(table, number, axis=1)


def _histories(values: NDArray, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum over races of one scenario's value, sorted, (replicate,)."""
    chosen = (uniforms * values.shape[1]).astype(np.intp)
    return np.sort(values[_column(len(values)).T, chosen].sum(axis=1))


def _p_values(observed: NDArray | float, by_chance: NDArray) -> NDArray[np.float64]:
    """Return the share of sorted replicate values that are at least as large, up to rounding."""
    above = by_chance.size - np.searchsorted(by_chance, np.asarray(observed) - 1e-9)
    return (1 + above) / (1 + by_chance.size)


def _column(n: int) -> NDArray[np.intp]:
    return np.arange(n)[:, None]
