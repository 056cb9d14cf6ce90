"""Scores of ensemble forecasts of single numbers: CRPS, log score, coverage.

An ensemble is `(n_samples, n_predictions)`, the observations are `(n_predictions,)`. Functions take arrays
and return plain numbers. Scores of finish probabilities are in `verification.scores`.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from calibration_pipeline.stats.real_arrays import check_real, check_size

DEFAULT_LEVELS = (0.5, 0.8, 0.95)
COVERAGE_TOLERANCE = 0.1
"""Coverage further than this from its level is logged as a warning."""
CRPS_BLOCK = 256
"""Predictions that are sorted and summed at a time, so that they fit a processor's cache."""
DENSITY_FLOOR = float(np.finfo(np.float64).tiny)
"""Densities and probabilities below the smallest normal float64 count as this (log: -708.4)."""
CONSTANT_SPREAD = 1e-12
"""Members that differ by no more than this, relative to ``max(1, |c|)``, make a constant ensemble."""
CONSTANT_BANDWIDTH = 1e-6
"""Bandwidth of a constant ensemble, relative to ``max(1, |c|)``."""

logger = logging.getLogger(__name__)


@overload
def compute_crps(
    predictions: ArrayLike, observations: ArrayLike, *, fair: bool = False, reduce: Literal[True] = True
) -> float: ...
@overload
def compute_crps(
    predictions: ArrayLike, observations: ArrayLike, *, fair: bool = False, reduce: Literal[False]
) -> NDArray[np.float64]: ...
def compute_crps(
    predictions: ArrayLike, observations: ArrayLike, *, fair: bool = False, reduce: bool = True
) -> float | NDArray[np.float64]:
    r"""Return the mean continuous ranked probability score; smaller is better, 0 is perfect.

    .. math:: \mathrm{CRPS} = E|X - y| - \tfrac12 E|X - X'|

    evaluated exactly for the ensemble's empirical distribution, by sorting, in O(n log n).

    Parameters
    ----------
    predictions : array_like
        Ensembles, (n_samples, n_predictions).
    observations : array_like
        Observed values, (n_predictions,), in the units of `predictions`.
    fair : bool
        Take E|X - X'| over distinct members, which makes the score unbiased for the distribution that the
        members were drawn from, however few they are; it can then be negative.
    reduce : bool
        Return the mean over predictions; False returns the score of each prediction.

    Returns
    -------
    float or ndarray
        In the units of `predictions`; (n_predictions,) where `reduce` is false.

    Raises
    ------
    ValueError
        If shapes do not match, a value is masked, complex, NaN, infinite or beyond ±1e100, or `fair` is true
        for a single member.

    References
    ----------
    Gneiting & Raftery (2007), doi:10.1198/016214506000001437, equation 21; the sorted form is in
    Jordan, Krüger & Lerch (2019), doi:10.18637/jss.v090.i12; the fair version: Ferro (2014),
    doi:10.1002/qj.2270.

    Examples
    --------
    >>> compute_crps([[1.0], [3.0]], [2.0])
    0.5
    >>> compute_crps([[1.0, 1.0], [3.0, 3.0]], [2.0, 3.0], reduce=False).tolist()
    [0.5, 0.5]
    """
    x, y = _validated(predictions, observations)
    n_samples = x.shape[0]
    if fair and n_samples < 2:
        raise ValueError(f"Argument fair needs at least 2 samples, got {n_samples}.")
    weight = 2.0 * np.arange(1, n_samples + 1) - n_samples - 1
    score = np.empty(y.size)
    for start in range(0, y.size, CRPS_BLOCK):
        block = slice(start, start + CRPS_BLOCK)
        # Deviations from the observation: exact zeros at a perfect forecast, no cancellation far from 0.
        deviation = np.subtract(x[:, block].T, y[block, None], order="C")
        deviation.sort(axis=1)
        half_spread = deviation @ weight / (n_samples * (n_samples - 1 if fair else n_samples))
        score[block] = np.abs(deviation, out=deviation).mean(axis=1) - half_spread
    return float(np.mean(score)) if reduce else score


@overload
def compute_log_score(
    predictions: ArrayLike, observations: ArrayLike, *, reduce: Literal[True] = True
) -> float: ...
@overload
def compute_log_score(
    predictions: ArrayLike, observations: ArrayLike, *, reduce: Literal[False]
) -> NDArray[np.float64]: ...
def compute_log_score(
    predictions: ArrayLike, observations: ArrayLike, *, reduce: bool = True
) -> float | NDArray[np.float64]:
    """Return the mean log predictive density; larger is better.

    The density of an ensemble is a Gaussian kernel density estimate with Scott's bandwidth,
    ``std(ddof=1) * n_samples ** (-1/5)``, as in `scipy.stats.gaussian_kde`. Densities below `DENSITY_FLOOR`
    count as the floor, with a logged warning. A constant ensemble has bandwidth 0; it is read as a point
    forecast ``c`` known to ``CONSTANT_BANDWIDTH * max(1, |c|)``, so that a hit scores high, a miss the floor,
    and both are finite.

    Parameters
    ----------
    predictions : array_like
        Ensembles, (n_samples, n_predictions).
    observations : array_like
        Observed values, (n_predictions,), in the units of `predictions`.
    reduce : bool
        Return the mean over predictions; False returns the score of each prediction.

    Returns
    -------
    float or ndarray
        In nats; (n_predictions,) where `reduce` is false.

    Raises
    ------
    ValueError
        If shapes do not match, or a value is masked, complex, NaN, infinite or beyond ±1e100.

    References
    ----------
    Scott (1992), Multivariate Density Estimation, doi:10.1002/9780470316849, equation 6.42;
    the score: Good (1952), doi:10.1111/j.2517-6161.1952.tb00104.x.

    Examples
    --------
    >>> round(compute_log_score([[-1.0], [0.0], [1.0]], [0.0]), 3)
    -1.145
    """
    x, y = _validated(predictions, observations)
    score = kernel_log_density(x, y, np.ones_like(x))
    return float(np.mean(score)) if reduce else score


@overload
def compute_coverage(
    predictions: ArrayLike,
    observations: ArrayLike,
    levels: Sequence[float] = DEFAULT_LEVELS,
    *,
    reduce: Literal[True] = True,
) -> dict[float, float]: ...
@overload
def compute_coverage(
    predictions: ArrayLike,
    observations: ArrayLike,
    levels: Sequence[float] = DEFAULT_LEVELS,
    *,
    reduce: Literal[False],
) -> dict[float, NDArray[np.float64]]: ...
def compute_coverage(
    predictions: ArrayLike,
    observations: ArrayLike,
    levels: Sequence[float] = DEFAULT_LEVELS,
    *,
    reduce: bool = True,
) -> dict[float, float] | dict[float, NDArray[np.float64]]:
    """Return the share of observations inside the central prediction intervals; nominal is best.

    An observation's probability integral transform (PIT) is its rank among the members, ties broken at
    random: uniform on ``[#{x < y}, #{x <= y} + 1] / (n_samples + 1)``. If members and observation come from
    one distribution it is uniform on [0, 1], for any number of members, continuous or discrete. The share is
    the exact probability that it falls inside ``[(1 - level) / 2, (1 + level) / 2]``: nothing is drawn, and
    nominal coverage is attainable for finish positions too. A share more than `COVERAGE_TOLERANCE` from its
    level is logged as a warning.

    Parameters
    ----------
    predictions : array_like
        Ensembles, (n_samples, n_predictions).
    observations : array_like
        Observed values, (n_predictions,), in the units of `predictions`.
    levels : sequence of float
        Nominal levels, each between 0 and 1; one level is a sequence too, as ``[0.9]``.
    reduce : bool
        Return the share of all observations; False returns each observation's probability to be inside.

    Returns
    -------
    dict
        Level to share, or to probabilities (n_predictions,) where `reduce` is false.

    Raises
    ------
    ValueError
        If shapes do not match, a value is masked, complex, NaN, infinite or beyond ±1e100, or levels are no
        sequence of numbers between 0 and 1.

    References
    ----------
    Czado, Gneiting & Held (2009), doi:10.1111/j.1541-0420.2009.01191.x, equations 1 and 2.

    Examples
    --------
    >>> compute_coverage([[1.0], [2.0], [3.0]], [2.5], levels=[0.6])
    {0.6: 1.0}
    """
    x, y = _validated(predictions, observations)
    if np.ndim(levels) == 0:
        raise ValueError(
            f"Argument levels must be a sequence of numbers between 0 and 1, got {levels!r}: pass one level "
            "as a list."
        )
    checked = [_level(level) for level in levels]
    n_slots = x.shape[0] + 1
    low = (x < y).sum(axis=0) / n_slots
    high = ((x <= y).sum(axis=0) + 1) / n_slots
    inside = {level: pit_share(low, high, level) for level in checked}
    if not reduce:
        return inside
    coverage = {level: float(np.mean(share)) for level, share in inside.items()}
    for level, share in coverage.items():
        if abs(share - level) > COVERAGE_TOLERANCE:
            logger.warning(
                "Coverage of the %.0f %% intervals is %.1f %%, more than %.0f points off.",
                100 * level,
                100 * share,
                100 * COVERAGE_TOLERANCE,
            )
    return coverage


def compute_all_metrics(predictions: ArrayLike, observations: ArrayLike) -> dict[str, Any]:
    """Return CRPS, log score and coverage of ensembles in one dict.

    Parameters
    ----------
    predictions : array_like
        Ensembles, (n_samples, n_predictions).
    observations : array_like
        Observed values, (n_predictions,), in the units of `predictions`.

    Returns
    -------
    dict
        ``crps`` (float), ``log_score`` (float) and ``coverage`` (dict of level to share).

    Raises
    ------
    ValueError
        If shapes do not match, or a value is masked, complex, NaN, infinite or beyond ±1e100.

    Examples
    --------
    >>> sorted(compute_all_metrics([[1.0], [2.0], [3.0]], [2.0]))
    ['coverage', 'crps', 'log_score']
    """
    return {
        "crps": compute_crps(predictions, observations),
        "log_score": compute_log_score(predictions, observations),
        "coverage": compute_coverage(predictions, observations),
    }


def kernel_log_density(members: NDArray, observations: NDArray, counts: NDArray) -> NDArray[np.float64]:
    """Return the log density of a Gaussian kernel estimate at each observation, floored.

    `compute_log_score` averages these values and documents bandwidth, floor and constant ensembles.

    Parameters
    ----------
    members : ndarray
        Values that the ensembles take, broadcast against `counts`.
    observations : ndarray
        Observed values, (n_predictions,).
    counts : ndarray
        How often each value is taken, (n_members, n_predictions).

    Returns
    -------
    ndarray
        (n_predictions,), nats.
    """
    n_samples, held = counts.sum(axis=0), counts > 0
    members = np.broadcast_to(members, counts.shape)
    smallest = np.min(members, axis=0, where=held, initial=np.inf)
    largest = np.max(members, axis=0, where=held, initial=-np.inf)
    size = np.maximum(1.0, np.abs(smallest))
    # Deviations from the smallest: no cancellation far from 0.
    deviation = members - smallest
    mean = (counts * deviation).sum(axis=0) / n_samples
    square = (counts * (deviation - mean) ** 2).sum(axis=0)
    spread = np.sqrt(square / np.maximum(n_samples - 1, 1))
    constant = largest - smallest <= CONSTANT_SPREAD * size
    bandwidth = np.where(constant, CONSTANT_BANDWIDTH * size, spread * n_samples**-0.2)
    exponent = -0.5 * ((members - observations) / bandwidth) ** 2
    log_sum = logsumexp(exponent, axis=0, b=counts)
    return floored(log_sum - np.log(n_samples * bandwidth * np.sqrt(2 * np.pi)))


def pit_share(low: NDArray, high: NDArray, level: float) -> NDArray[np.float64]:
    """Return P(lower <= U <= upper) of a PIT U uniform on [low, high], for the central interval of `level`.

    Parameters
    ----------
    low, high : ndarray
        Ends of the PIT, any one shape. Where they are equal the PIT is that number.
    level : float
        Nominal level, between 0 and 1.

    Returns
    -------
    ndarray
        Probabilities, the shape of `low`.
    """
    lower, upper = (1 - _level(level)) / 2, (1 + level) / 2
    width = np.asarray(high - low)
    inside = np.clip(np.minimum(high, upper) - np.maximum(low, lower), 0.0, None)
    atom = width <= 0
    share = inside / np.where(atom, 1.0, width)
    return np.where(atom, (lower <= low) & (low <= upper), np.minimum(share, 1.0))


def floored(log_density: NDArray) -> NDArray[np.float64]:
    """Return log densities or log probabilities with `DENSITY_FLOOR` in force; its use is logged."""
    floor = np.log(DENSITY_FLOOR)
    n_below = int(np.count_nonzero(log_density < floor))
    if n_below:
        logger.warning(
            "The log score of %d of %d predictions is at its floor, %.1f.", n_below, log_density.size, floor
        )
    return np.maximum(log_density, floor)


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"Argument level must fulfil 0 < level < 1, got {level}.")
    return float(level)


def _validated(
    predictions: ArrayLike, observations: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    check_real(predictions, "Argument predictions")
    check_real(observations, "Argument observations")
    x = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(observations, dtype=np.float64)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(
            f"Argument predictions must have shape (n_samples, n_predictions), none 0, got {x.shape}."
        )
    if y.ndim != 1:
        raise ValueError(f"Argument observations must have shape (n_predictions,), got {y.shape}.")
    if x.shape[1] != y.shape[0]:
        hint = " It fits only transposed: pass predictions.T." if x.shape[0] == y.shape[0] else ""
        raise ValueError(
            f"Argument predictions must have shape (n_samples, n_predictions), got {x.shape}: axis 0 is "
            f"{x.shape[0]} samples, axis 1 is {x.shape[1]} predictions, but there are {y.shape[0]} "
            f"observations.{hint}"
        )
    for name, values in (("predictions", x), ("observations", y)):
        if not np.isfinite(values).all():
            n_nan, n_bad = int(np.isnan(values).sum()), int((~np.isfinite(values)).sum())
            raise ValueError(
                f"Argument {name} must be finite, got {n_nan} NaN and {n_bad - n_nan} infinite "
                f"of {values.size} values."
            )
        check_size(values, f"Argument {name}")
    return x, y
