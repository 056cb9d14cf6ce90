"""Estimates over races with 95 % intervals. Races are the independent units, never cars.

Every interval here is a delete-one-race jackknife of a ratio of race totals with Student's t on races - 1
degrees of freedom. With fields of one size that is exactly the t interval of the race means. Comparisons
are paired by handing in differences.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """An estimate with its race-clustered 95 % interval; bounds are None where races are too few to tell.

    Attributes
    ----------
    estimate : float
        The estimate.
    lower, upper : float or None
        Ends of the interval, None with fewer than two races.
    n_races, n_cases : int
        Independent units, and the cases that they hold.
    """

    estimate: float
    lower: float | None
    upper: float | None
    n_races: int
    n_cases: int


def student_t(n_races: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided Student t quantile for a mean over `n_races` races.

    Examples
    --------
    >>> round(student_t(5), 3)
    2.776
    """
    return float(stdtrit(n_races - 1, 0.5 + confidence / 2))


def clustered_mean(values: NDArray, race: NDArray) -> Estimate:
    """Return the mean over cases; a race weighs as many cases as it has.

    Parameters
    ----------
    values : ndarray
        One number a case (car, pair), (n_cases,). For a paired comparison, the differences.
    race : ndarray
        The race of each case, (n_cases,); any labels.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If there are no cases, shapes differ or a value is not finite.

    Examples
    --------
    >>> clustered_mean(np.array([1.0, 3.0, 2.0, 4.0]), np.array([7, 7, 8, 8])).estimate
    2.5
    """
    return clustered_ratio(values, np.ones(np.shape(values)), race)


def clustered_ratio(numerator: NDArray, denominator: NDArray, race: NDArray) -> Estimate:
    r"""Return the ratio of two totals over cases, with a race-jackknife interval.

    With race totals :math:`A_r, B_r`, the estimate :math:`q = \sum A_r / \sum B_r`, shares
    :math:`h_r = B_r / \sum B_r` and residuals :math:`e_r = (A_r - q B_r) / (1 - h_r)`, the squared standard
    error is :math:`\frac{G - 1}{G} \sum e_r^2 / (\sum B_r)^2` for G races.

    Parameters
    ----------
    numerator, denominator : ndarray
        One number a case, (n_cases,).
    race : ndarray
        The race of each case, (n_cases,); any labels.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If there are no cases, shapes differ, a value is not finite or the denominators add to 0.

    References
    ----------
    Cochran (1977), Sampling Techniques, chapter 6; the same correction for regressions is CR3 of Bell &
    McCaffrey (2002), Survey Methodology 28(2).
    """
    if np.size(numerator) == 0:
        raise ValueError("Argument values must hold at least one case, got none.")
    if not np.shape(numerator) == np.shape(denominator) == np.shape(race):
        raise ValueError(
            f"Arguments must have one shape (n_cases,), got {np.shape(numerator)}, {np.shape(denominator)} "
            f"and race {np.shape(race)}."
        )
    if not (np.isfinite(numerator).all() and np.isfinite(denominator).all()):
        raise ValueError("Argument values must be finite, got NaN or infinity.")
    totals, weights = race_totals(race, numerator, denominator)
    if weights.sum() == 0:
        raise ValueError("Argument denominator must not add to 0.")
    estimate = float(totals.sum() / weights.sum())
    lower, upper = jackknife_interval(estimate, totals - estimate * weights, weights)
    return Estimate(estimate, lower, upper, totals.size, np.size(numerator))


def clustered_share(successes: NDArray, trials: NDArray) -> Estimate:
    """Return a share over races with a Wilson interval on the effective number of trials.

    The effective number is what would give the race-jackknife standard error if trials were independent, at
    most their real number; where every trial came out alike it is the number of races. Student's t stands
    in for the normal quantile, except where each race has one trial: that is Wilson's interval itself.

    Parameters
    ----------
    successes, trials : ndarray
        Counts by race, (n_races,).

    Returns
    -------
    Estimate
        Bounds lie in [0, 1] and are never equal.

    Raises
    ------
    ValueError
        If there are no trials.

    References
    ----------
    Wilson (1927), doi:10.1080/01621459.1927.10502953; effective sample size and t: Korn & Graubard (1998),
    Survey Methodology 24(2).

    Examples
    --------
    >>> e = clustered_share(np.array([0, 0, 0, 0]), np.array([5, 5, 5, 5]))
    >>> e.estimate, e.lower, e.upper > 0.4
    (0.0, 0.0, True)
    """
    used = trials > 0
    totals, weights = successes[used].astype(float), trials[used].astype(float)
    if not used.any():
        raise ValueError("Argument trials must hold at least one trial, got none.")
    n_races, n_trials = totals.size, int(weights.sum())
    share = float(totals.sum() / n_trials)
    if n_races < 2:
        return Estimate(share, None, None, n_races, n_trials)
    if (weights == 1).all():
        return Estimate(
            share, *_wilson(share, n_races, float(ndtri(0.5 + CONFIDENCE / 2))), n_races, n_trials
        )
    error = _jackknife_error(totals - share * weights, weights)
    n_effective = float(n_races) if error == 0 else min(n_trials, share * (1 - share) / error**2)
    return Estimate(share, *_wilson(share, n_effective, student_t(n_races)), n_races, n_trials)


def race_totals(race: NDArray, *values: NDArray) -> tuple[NDArray[np.float64], ...]:
    """Add each of `values` (n_cases,) up by race: (n_races,) each, races in sorted order."""
    _, index = np.unique(race, return_inverse=True)
    return tuple(np.bincount(index, weights=column) for column in values)


def jackknife_interval(
    estimate: float, residual: NDArray, weight: NDArray, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Return the t interval of an estimate that solves ``sum(residual) = 0`` over races.

    Parameters
    ----------
    estimate : float
        The estimate.
    residual : ndarray
        Estimating function by race at the estimate, (n_races,).
    weight : ndarray
        Minus its derivative by race, (n_races,).
    confidence : float
        Level of the interval.

    Returns
    -------
    tuple
        Lower and upper bound, None both where fewer than two races carry weight.
    """
    if np.count_nonzero(weight) < 2:
        return None, None
    half = student_t(residual.size, confidence) * _jackknife_error(residual, weight)
    return estimate - half, estimate + half


def _jackknife_error(residual: NDArray, weight: NDArray) -> float:
    total = weight.sum()
    deleted = residual / (1 - weight / total)
    n_races = residual.size
    return float(np.sqrt((n_races - 1) / n_races * np.sum(deleted**2)) / total)


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    lower, upper = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return min(lower, share), max(upper, share)
