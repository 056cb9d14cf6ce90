"""Joint events as they would be if cars had nothing to do with each other, and whether results tell.

An ensemble says how each car may fare, and how cars fare together. Here the second is taken away and the
first kept: each car's scenarios are shuffled on their own, and places are given out anew by the shuffled
ones, since two cars cannot both win. (Places are blurred by that as by a forecast 2-3 % less sharp; running
and laps led keep each car's chances exactly.) What the ensemble's number of cases a race is worth beyond that
of independent cars is a log-score gain. Summed over races it is the log likelihood ratio, and so the most
powerful test of independence. With 2,000 scenarios, numbers that spread over many values lose up to .01 nats
a race to the finite number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from calibration_pipeline.events.counts import Counts, Race
from calibration_pipeline.events.language import Event, Outcomes

N_SHUFFLES, N_INDEPENDENT = 4, 8000
"""Each scenario is shuffled so often at most, and no oftener than it takes for so many independent ones."""
SIGNIFICANCE = 0.05
NOTICEABLE = 0.02
"""Nats a race by which a strong dependence must show in an event that is about dependence."""
SHARED_VARIANCE = 0.5
"""Share of the variance of a car's day that race, team and make have in the strong dependence."""
CERTAIN = 0.98
"""Share of scenarios with the most frequent number of cars from which on the number is as good as fixed."""

Recoupling = Callable[[Outcomes, np.random.Generator], Outcomes]


@dataclass(frozen=True)
class Independence:
    """What the ensemble's dependence between cars is worth, by event.

    Attributes
    ----------
    gain : (race, event)
        Log score of the observed number of cases minus that of independent cars, nats.
    p_value : (event)
        How often independent cars would have results that speak at least as much for the ensemble.
    power : (event)
        How often the results would have a p-value of at most 5 % if the ensemble were right.
    """

    gain: NDArray[np.float64]
    p_value: NDArray[np.float64]
    power: NDArray[np.float64]


def n_shuffles(n_scenarios: int) -> int:
    """Return how often an ensemble of so many scenarios is shuffled.

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
    """Shuffle each car's scenarios on their own and give places out anew, ties by lot.

    Parameters
    ----------
    outcomes : Outcomes
        Scenarios of one race, (scenario, car).
    rng : numpy.random.Generator

    Returns
    -------
    Outcomes
        As many scenarios; in each, places are a permutation.

    References
    ----------
    Schefzik, Thorarinsdottir & Gneiting (2013), doi:10.1214/13-STS443, eq. 3: an ensemble's dependence is the
    order of its members, which shuffling removes.
    """
    shape = outcomes.finish_position.shape
    return _reordered(outcomes, rng.permuted(np.broadcast_to(_column(shape[0]), shape), axis=0), rng)


def dependent_cars(outcomes: Outcomes, rng: np.random.Generator) -> Outcomes:
    """Reorder each car's scenarios so that race, team and make share half the variance of a car's day.

    A car's scenarios are sorted from its best day (running, far in front) to its worst, and drawn by a
    Gaussian copula whose shared part is a factor of the race, of each team and of each make, equally strong.

    Parameters
    ----------
    outcomes : Outcomes
        Scenarios of one race, (scenario, car).
    rng : numpy.random.Generator

    Returns
    -------
    Outcomes
        As many scenarios; in each, places are a permutation.
    """
    n_scenarios, n_cars = outcomes.finish_position.shape
    shared = rng.normal(size=(n_scenarios, 1))
    for labels in (outcomes.team, outcomes.make):
        group = _groups(labels, n_cars)
        shared = shared + rng.normal(size=(n_scenarios, n_cars))[:, group]
    own = rng.normal(size=(n_scenarios, n_cars))
    day = np.sqrt(SHARED_VARIANCE / 3) * shared + np.sqrt(1 - SHARED_VARIANCE) * own
    retired = 0 if outcomes.running is None else n_cars * ~outcomes.running.astype(bool)
    worst_last = _sorting(outcomes.finish_position + retired, rng)
    chosen = np.empty_like(worst_last)
    np.put_along_axis(chosen, day.argsort(axis=0), worst_last, axis=0)
    return _reordered(outcomes, chosen, rng)


def count_recoupled(
    races: Sequence[Race],
    events: Sequence[Event],
    recouple: Recoupling,
    n_times: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Count the cases of events in scenarios coupled anew `n_times`, (race, n_times * scenario, event)."""
    return np.stack(
        [
            np.concatenate(
                [
                    np.stack([event.evaluate(outcomes).sum(axis=-1) for event in events], axis=-1)
                    for outcomes in (recouple(race.scenarios, rng) for _ in range(n_times))
                ]
            )
            for race in races
        ]
    )


def log_chances(number: NDArray, cases: NDArray, n_scenarios: int) -> NDArray[np.float64]:
    """Return the log chance of each possible number of cases of a race.

    A number that a share f of scenarios has gets the chance (S f + 1/2) / (S + K / 2), for S scenarios and K
    possible numbers: the rule of `scenarios.probabilities`.

    Parameters
    ----------
    number : array of int, shape (race, scenario)
        Number of cases in each scenario.
    cases : array of int, shape (race)
        The largest possible number.
    n_scenarios : int
        S, where that is not how many there are: two ensembles that are compared must be smoothed alike.

    Returns
    -------
    ndarray, shape (race, largest number of cases + 1)
        Nats.

    Examples
    --------
    >>> np.exp(log_chances(np.array([[0, 0, 1]]), np.array([1]), 3)).tolist()
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
        chances = log_chances(counts.predicted[..., e], counts.cases[:, e], n_scenarios)
        scores[:, e] = _of_number(chances, counts.observed[:, e : e + 1])[:, 0]
    return scores


def judge_independence(
    counts: Counts, independent: NDArray[np.int64], lots: NDArray[np.float64]
) -> Independence:
    """Compare an ensemble's numbers of cases, and the results, with those of independent cars.

    Chances are told by one half of the scenarios and histories made of the other: what is scored has not
    taken part in the scoring.

    Parameters
    ----------
    counts : Counts
        Of the ensemble and of the results.
    independent : ndarray
        Number of cases of the same races if cars were independent, (race, scenario, event).
    lots : ndarray
        What draws a scenario of each race in each replicate history, uniform in [0, 1), (replicate, race).

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
        chances_known = log_chances(known, counts.cases[:, e], predicted.shape[1])

        ratio = log_chances(predicted, counts.cases[:, e], predicted.shape[1]) - chances_known
        gain[:, e] = _of_number(ratio, observed)[:, 0]
        p_value[e] = _p_values(gain[:, e].sum(), _histories(_of_number(ratio, new), lots))

        first, second = _halves(predicted)
        ratio = log_chances(first, counts.cases[:, e], predicted.shape[1]) - chances_known
        by_chance, as_predicted = (_histories(_of_number(ratio, of), lots) for of in (new, second))
        power[e] = np.mean(_p_values(as_predicted, by_chance) <= SIGNIFICANCE)
    return Independence(gain, p_value, power)


def about_dependence(
    counts: Counts, independent: NDArray[np.int64], dependent: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which events say anything about dependence between cars, (event,).

    Those in which a strong dependence would show: the expected log-score gain of the numbers of
    `dependent_cars` over those of `independent_cars` is at least `NOTICEABLE` nats a race. It is less in what
    is about one car, or three. Nor does an event say anything that is true of the same number of cars in at
    least `CERTAIN` of the scenarios, as "top 5 and running" is of five. Neither the ensemble's own dependence
    nor the results matter.

    Parameters
    ----------
    counts : Counts
        Of the ensemble.
    independent, dependent : ndarray
        Number of cases, (race, scenario, event).
    """
    n_scenarios = counts.predicted.shape[1]
    tells = []
    for e, event in enumerate(counts.events):
        cases = counts.cases[:, e]
        first, second = _halves(dependent[..., e])
        ratio = log_chances(first, cases, n_scenarios) - log_chances(independent[..., e], cases, n_scenarios)
        shows = _of_number(ratio, second).mean() >= NOTICEABLE
        number = counts.predicted[..., e]
        fixed = np.mean(number == np.median(number, axis=1, keepdims=True)) >= CERTAIN
        tells.append(shows and not (event.cases == "car" and fixed))
    return np.array(tells)


def _reordered(outcomes: Outcomes, chosen: NDArray[np.intp], rng: np.random.Generator) -> Outcomes:
    """Return the scenarios with car i of scenario s taken from scenario ``chosen[s, i]``."""

    def taken(values: NDArray | None) -> NDArray | None:
        return None if values is None else np.take_along_axis(values, chosen, axis=0)

    order = _sorting(np.take_along_axis(outcomes.finish_position, chosen, axis=0).T, rng)
    places = np.empty_like(order)
    np.put_along_axis(places, order, _column(order.shape[0]) + 1, axis=0)
    return replace(
        outcomes, finish_position=places.T, running=taken(outcomes.running), laps_led=taken(outcomes.laps_led)
    )


def _sorting(values: NDArray, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return what sorts the first axis, ties by lot."""
    return (values + rng.random(values.shape, np.float32)).argsort(axis=0)


def _halves(number: NDArray) -> tuple[NDArray, NDArray]:
    """Part the scenarios in two, every second one each."""
    return number[:, ::2], number[:, 1::2]


def _groups(labels: NDArray | None, n_cars: int) -> NDArray[np.intp]:
    """Number the cars so that those of one known label share a number, below `n_cars`."""
    own = np.arange(n_cars)
    if labels is None:
        return own
    first = (labels[:, None] == labels).argmax(axis=1)
    return np.where(labels == "", own, first)


def _of_number(table: NDArray, number: NDArray) -> NDArray[np.float64]:
    """Read ``table[race, number[race, scenario]]``."""
    return np.take_along_axis(table, number, axis=1)


def _histories(values: NDArray, lots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add one scenario's value of each race up, sorted, (replicate,)."""
    chosen = (lots * values.shape[1]).astype(np.intp)
    return np.sort(values[_column(len(values)).T, chosen].sum(axis=1))


def _p_values(observed: NDArray | float, by_chance: NDArray) -> NDArray[np.float64]:
    """Return how often sorted values by chance are at least as large, up to rounding."""
    above = by_chance.size - np.searchsorted(by_chance, np.asarray(observed) - 1e-9)
    return (1 + above) / (1 + by_chance.size)


def _column(n: int) -> NDArray[np.intp]:
    return np.arange(n)[:, None]
