"""Slopes of forecast probabilities: the exponent or logit factor that would calibrate them.

A slope of 1 is calibrated, below 1 the forecast is over-confident, above 1 under-confident. At 1 each
estimating equation has expectation 0 for a calibrated forecast, whatever the dependence between cars of a
race. Intervals are race-clustered: the sandwich with the jackknife correction (Liang & Zeger 1986,
doi:10.1093/biomet/73.1.13; Bell & McCaffrey 2002, Survey Methodology 28(2)).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from calibration_pipeline.stats.intervals import Estimate, error_ratio, jackknife_interval

LOGIT_CLIP = 1e-3
"""Head-to-head probabilities are clipped to [LOGIT_CLIP, 1 - LOGIT_CLIP] before their logit is taken."""
SLOPE_RANGE = (-20.0, 20.0)
INTERCEPT_STEPS = 60
"""Steps of the bisection for the intercept of a race: it is then exact to rounding."""

Terms = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Estimating function and minus its derivative, by case, (cases,) each."""


def win_slope(probability: NDArray, won: NDArray, race: NDArray) -> Estimate | None:
    r"""Return the exponent b for which :math:`p_i^b / \sum_j p_j^b` fits the winners best.

    It is the slope of the conditional logit model on log p, and the inverse of the temperature.

    Parameters
    ----------
    probability : ndarray
        P(win) of each car, above 0, (cars,).
    won : ndarray
        Whether the car won, one a race, (cars,) bool.
    race : ndarray
        The race of each car, (cars,).

    Returns
    -------
    Estimate or None
        None where there is no slope within `SLOPE_RANGE`: all cars are equal, or each winner was the
        favourite.

    References
    ----------
    McFadden (1974), Conditional logit analysis of qualitative choice behavior; Guo et al. (2017),
    arXiv:1706.04599, section 4.2.

    Examples
    --------
    >>> p = np.tile([0.8, 0.2], 5)
    >>> won = np.array([True, False] * 4 + [False, True])
    >>> round(win_slope(p, won, np.repeat(np.arange(5), 2)).estimate, 6)
    1.0
    """
    x = np.log(probability)
    _, index = np.unique(race, return_inverse=True)
    largest = np.full(index.max() + 1, -np.inf)
    smallest = -largest
    np.maximum.at(largest, index, x)
    np.minimum.at(smallest, index, x)

    def terms(slope: float) -> Terms:
        extreme = largest if slope >= 0 else smallest
        weight = np.exp(slope * (x - extreme[index]))
        share = weight / np.bincount(index, weight)[index]
        mean = np.bincount(index, share * x)[index]
        return won * (x - mean), share * (x - mean) ** 2

    return _solve(terms, index)


def top_slope(probability: NDArray, inside: NDArray, race: NDArray) -> Estimate | None:
    """Return the factor on logit p that fits best who finishes inside the top k.

    Each race has its own intercept, with which its probabilities add up to its number of cars inside: that of
    probabilities is right before and after.

    Parameters
    ----------
    probability : ndarray
        P(inside) of each car, between 0 and 1, (cars,).
    inside : ndarray
        Whether the car finished inside, (cars,) bool; neither none nor all of a race.
    race : ndarray
        The race of each car, (cars,).

    Returns
    -------
    Estimate or None
        None where there is no slope within `SLOPE_RANGE`.

    References
    ----------
    Cox (1958), doi:10.1093/biomet/45.3-4.562, with intercepts by race as in Breslow & Day (1980), Statistical
    Methods in Cancer Research I, section 6.3.

    Examples
    --------
    >>> p = np.tile([0.8, 0.2], 5)
    >>> inside = np.array([True, False] * 4 + [False, True])
    >>> round(top_slope(p, inside, np.repeat(np.arange(5), 2)).estimate, 6)
    1.0
    """
    x = logit(probability)
    _, index = np.unique(race, return_inverse=True)
    number = np.bincount(index, inside)

    def terms(slope: float) -> Terms:
        bound = np.abs(slope * x).max() + np.log(x.size)
        low, high = np.full(number.size, -bound), np.full(number.size, bound)
        for _ in range(INTERCEPT_STEPS):
            middle = (low + high) / 2
            above = np.bincount(index, expit(middle[index] + slope * x)) > number
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return _logistic_terms(x, inside, expit(low[index] + slope * x), index)

    return _solve(terms, index)


def head_to_head_slope(probability: NDArray, outcome: NDArray, race: NDArray) -> Estimate | None:
    """Return the slope of the logistic regression of outcomes of pairs of cars on logit p.

    Without an intercept: which car of a pair comes first is arbitrary, and swapping them changes nothing.

    Parameters
    ----------
    probability : ndarray
        P(the first car beats the second), (pairs,); clipped to [LOGIT_CLIP, 1 - LOGIT_CLIP].
    outcome : ndarray
        Whether it did, (pairs,).
    race : ndarray
        The race of each pair, (pairs,).

    Returns
    -------
    Estimate or None
        None where there is no slope within `SLOPE_RANGE`: every probability is 1/2, or outcomes are
        separated.

    References
    ----------
    Cox (1958), doi:10.1093/biomet/45.3-4.562.

    Examples
    --------
    >>> won = np.array([True] * 4 + [False])
    >>> round(head_to_head_slope(np.full(5, 0.8), won, np.arange(5)).estimate, 6)
    1.0
    """
    x = logit(np.clip(probability, LOGIT_CLIP, 1 - LOGIT_CLIP))
    _, index = np.unique(race, return_inverse=True)

    def terms(slope: float) -> Terms:
        mean = expit(slope * x)
        return x * (outcome - mean), x**2 * mean * (1 - mean)

    return _solve(terms, index)


def retirement_slope(probability: NDArray, retired: NDArray, race: NDArray) -> Estimate | None:
    """Return the slope of the logistic regression of retirements on logit p, with one intercept.

    The intercept takes up how many cars retire; the slope is about which ones.

    Parameters
    ----------
    probability : ndarray
        P(retirement) of each car, between 0 and 1, (cars,).
    retired : ndarray
        Whether the car retired, (cars,) bool.
    race : ndarray
        The race of each car, (cars,).

    Returns
    -------
    Estimate or None
        None where there is no slope within `SLOPE_RANGE`.

    References
    ----------
    Cox (1958), doi:10.1093/biomet/45.3-4.562.
    """
    if retired.all() or not retired.any():
        return None
    x = logit(probability)
    number = retired.sum()
    _, index = np.unique(race, return_inverse=True)

    def terms(slope: float) -> Terms:
        bound = np.abs(slope * x).max() + np.log(x.size)
        intercept = brentq(lambda a: expit(a + slope * x).sum() - number, -bound, bound, xtol=1e-12)
        return _logistic_terms(x, retired, expit(intercept + slope * x), np.zeros(x.size, np.intp))

    return _solve(terms, index)


def _logistic_terms(x: NDArray, outcome: NDArray, mean: NDArray, group: NDArray) -> Terms:
    """Return the terms of a slope whose intercepts, one a group, are profiled out."""
    weight = mean * (1 - mean)
    centre = np.bincount(group, weight * x) / np.bincount(group, weight)
    deviation = x - centre[group]
    return deviation * (outcome - mean), weight * deviation**2


def _solve(terms: Callable[[float], Terms], race: NDArray) -> Estimate | None:
    def score(slope: float) -> float:
        return float(terms(slope)[0].sum())

    if not terms(1.0)[1].any() or score(SLOPE_RANGE[0]) <= 0 or score(SLOPE_RANGE[1]) >= 0:
        return None
    slope = float(brentq(score, *SLOPE_RANGE, xtol=1e-10))
    of_cases, information = terms(slope)
    residual, weight = np.bincount(race, of_cases), np.bincount(race, information)
    lower, upper = jackknife_interval(slope, residual, weight)
    ratio = error_ratio(residual, weight, of_cases)
    return Estimate(slope, lower, upper, residual.size, of_cases.size, ratio)
