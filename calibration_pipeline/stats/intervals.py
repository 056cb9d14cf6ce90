"""Estimates over races with 95 % intervals. Races are the independent units, never cars.

Every interval of a mean, ratio or slope studentises by the delete-one-race jackknife and removes the skewness
that is left by Hall's transformation. A few races decide a score such as the Brier score of the winner, and
Student's t alone would miss one truth in twelve. `benchmarks.intervals` measures the coverage.
A paired comparison passes differences.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """An estimate with its race-clustered 95 % interval; bounds are None with fewer than two races.

    Attributes
    ----------
    estimate : float
        The estimate.
    lower, upper : float or None
        Ends of the interval, None with fewer than two races.
    n_races, n_cases : int
        Independent units, and the cases that they hold.
    error_ratio : float or None
        Race-clustered standard error over the naive one, which takes cases for independent; None with fewer
        than two races, or where the naive one is 0.
    """

    estimate: float
    lower: float | None
    upper: float | None
    n_races: int
    n_cases: int
    error_ratio: float | None = None


def student_t(n_races: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided Student t quantile for an estimate over `n_races` races.

    With more than two races, one of the races - 1 degrees of freedom is spent on the skewness.

    Examples
    --------
    >>> round(student_t(5), 3)
    3.182
    """
    return float(stdtrit(max(n_races - 2, 1), 0.5 + confidence / 2))


def tail_probability(room: float, half_width: float, n_races: int) -> float:
    """Return the one-sided p-value of an estimate that lies `room` away from a limit.

    The estimate over its error is taken for Student's t, with the error from the interval's half.

    Parameters
    ----------
    room : float
        Distance of the estimate from the limit; negative on the wrong side of it, infinite without a limit.
    half_width : float
        Distance of the estimate from the end of its 95 % interval towards the limit.
    n_races : int
        Races of the estimate.

    Returns
    -------
    float
        0.025 where the interval ends at the limit.

    Examples
    --------
    >>> round(tail_probability(0.3, 0.3, 20), 3)
    0.025
    """
    if math.isinf(room) or half_width <= 0:
        return 0.0 if room > 0 else 1.0
    return float(stdtr(max(n_races - 2, 1), -room / half_width * student_t(n_races)))


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
    error is :math:`\frac{G - 1}{G} \sum e_r^2 / (\sum B_r)^2` for G races. See `jackknife_interval`.

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
    residual = totals - estimate * weights
    lower, upper = jackknife_interval(estimate, residual, weights)
    ratio = error_ratio(residual, weights, numerator - estimate * denominator)
    return Estimate(estimate, lower, upper, totals.size, np.size(numerator), ratio)


def clustered_share(successes: NDArray, trials: NDArray) -> Estimate:
    """Return a share over races with a Wilson interval on the effective number of trials.

    The effective number of independent trials gives the race-jackknife standard error. It exceeds the real
    number where cars of a race exclude each other, as for ten positions. Where that error is 0, it is the
    number of races. Student's t replaces the normal quantile, except where each race has one trial: there the
    result is Wilson's interval itself.

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
    variance = share * (1 - share)
    n_effective = variance / error**2 if error > 0 else float(n_races)
    ratio = error / np.sqrt(variance / n_trials) if error > 0 else None
    return Estimate(share, *_wilson(share, n_effective, student_t(n_races)), n_races, n_trials, ratio)


def race_totals(race: NDArray, *values: NDArray) -> tuple[NDArray[np.float64], ...]:
    """Add each of `values` (n_cases,) up by race: (n_races,) each, races in sorted order."""
    _, index = np.unique(race, return_inverse=True)
    return tuple(np.bincount(index, weights=column) for column in values)


def jackknife_interval(
    estimate: float, residual: NDArray, weight: NDArray
) -> tuple[float | None, float | None]:
    r"""Return the 95 % interval of an estimate that solves ``sum(residual) = 0`` over races.

    With the jackknife standard error :math:`\hat\sigma`, the skewness :math:`\hat\gamma` of the jackknife
    residuals over G races and the Student quantile t, the bounds are
    :math:`\hat\theta - \hat\sigma g^{-1}(\pm t)` with
    :math:`g^{-1}(x) = \frac{3}{a} \{ [1 + a (x - a / 6)]^{1/3} - 1 \}` and
    :math:`a = \hat\gamma / \sqrt{G}`. Without skewness that is the t interval.

    Parameters
    ----------
    estimate : float
        The estimate.
    residual : ndarray
        Estimating function by race at the estimate, (n_races,).
    weight : ndarray
        Minus its derivative by race, (n_races,).

    Returns
    -------
    tuple
        Lower and upper bound, None both where fewer than two races carry weight.

    References
    ----------
    Hall (1992), On the removal of skewness by transformation, JRSS B 54(1), 221-228, section 2; the
    jackknife: see `clustered_ratio`.

    Examples
    --------
    >>> skewed = np.array([0.0, 0.0, 0.0, 1.0, 9.0])
    >>> [round(bound, 1) for bound in jackknife_interval(2.0, skewed - 2.0, np.ones(5))]
    [-1.1, 14.6]
    """
    if np.count_nonzero(weight) < 2:
        return None, None
    quantile = student_t(residual.size, CONFIDENCE)
    error = _jackknife_error(residual, weight)
    a = _skewness(_jackknife_residual(residual, weight)) / np.sqrt(residual.size)
    return estimate - error * _unskewed(quantile, a), estimate - error * _unskewed(-quantile, a)


def error_ratio(residual: NDArray, weight: NDArray, case_residual: NDArray) -> float | None:
    """Return the race-clustered standard error over the naive one of an estimating equation.

    The naive error is that of independent cases, ``sqrt(n / (n - 1) * sum(e**2)) / sum(weight)``; the squared
    ratio is the design effect (Kish 1965, Survey Sampling, chapter 8).

    Parameters
    ----------
    residual, weight : ndarray
        As in `jackknife_interval`, by race, (n_races,).
    case_residual : ndarray
        The estimating function by case, (n_cases,); adds up to `residual`.

    Returns
    -------
    float or None
        None where fewer than two races carry weight, or the naive error is 0.

    Examples
    --------
    >>> error_ratio(np.array([2.0, -2.0]), np.array([4.0, 4.0]), np.repeat([0.5, -0.5], 4)).__round__(2)
    2.65
    """
    n_cases = case_residual.size
    if np.count_nonzero(weight) < 2 or not case_residual.any():
        return None
    naive = np.sqrt(n_cases / (n_cases - 1) * np.sum(case_residual**2)) / abs(weight.sum())
    return float(_jackknife_error(residual, weight) / naive)


def _jackknife_error(residual: NDArray, weight: NDArray) -> float:
    n_races = residual.size
    deleted = _jackknife_residual(residual, weight)
    return float(np.sqrt((n_races - 1) / n_races * np.sum(deleted**2)) / weight.sum())


def _jackknife_residual(residual: NDArray, weight: NDArray) -> NDArray[np.float64]:
    return residual / (1 - weight / weight.sum())


def _skewness(values: NDArray) -> float:
    """Return the adjusted sample skewness; 0 with fewer than three values, or equal ones."""
    n = values.size
    deviation = values - values.mean()
    spread = deviation.std(ddof=1)
    if n < 3 or spread <= 1e-12 * np.abs(values).max():
        return 0.0
    return float(n / ((n - 1) * (n - 2)) * np.sum((deviation / spread) ** 3))


def _unskewed(quantile: float, a: float) -> float:
    """Return Hall's inverse transformation of a quantile."""
    if abs(a) < 1e-6:
        return quantile
    return float(3 / a * (np.cbrt(1 + a * (quantile - a / 6)) - 1))


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    lower, upper = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return min(lower, share), max(upper, share)
