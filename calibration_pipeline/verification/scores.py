"""Scores of finish probabilities: exact functions on arrays.

Positions count from 1 (the winner). Probabilities are (..., positions) and may be padded with zeros beyond
the field. Scores of ensembles of real numbers are in `metrics`, the table of a backtest's scores in
`metric_table`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration_pipeline.metrics import floored, kernel_log_density, pit_share


def discrete_crps(probability: ArrayLike, position: ArrayLike) -> NDArray[np.float64]:
    """Return the CRPS of finish probabilities, ``sum_k (F(k) - 1{y <= k})**2``; smaller is better.

    The integral of the CRPS is this sum, in positions. The ranked probability score is the same sum over
    ``n - 1``, which lies in [0, 1] and compares fields of different size.

    Parameters
    ----------
    probability : array_like
        P(finish = position), (..., positions).
    position : array_like
        Finish, from 1, (...).

    Returns
    -------
    ndarray
        (...), in positions.

    Raises
    ------
    ValueError
        If shapes do not match or a position lies outside the field.

    References
    ----------
    Epstein (1969), doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2;
    Gneiting & Raftery (2007), doi:10.1198/016214506000001437, section 4.2.

    Examples
    --------
    >>> float(discrete_crps([0.5, 0.5, 0.0], 1))
    0.25
    """
    p, y = _validated(probability, position)
    happened = np.arange(1, p.shape[-1] + 1) >= y[..., None]
    return np.sum((np.cumsum(p, axis=-1) - happened) ** 2, axis=-1)


def fair_crps(counts: ArrayLike, position: ArrayLike) -> NDArray[np.float64]:
    """Return the fair CRPS of scenarios counted by position; smaller is better, and it can be negative.

    It is unbiased for the CRPS of the distribution that the S scenarios were drawn from, however few they
    are: the CRPS of their shares less ``sum_k F(k) (1 - F(k)) / (S - 1)``.

    Parameters
    ----------
    counts : array_like
        Scenarios by position, (..., positions), at least 2 in all.
    position : array_like
        Finish, from 1, (...).

    Returns
    -------
    ndarray
        (...), in positions.

    Raises
    ------
    ValueError
        If shapes do not match, a position lies outside the field, or there are fewer than 2 scenarios.

    References
    ----------
    Ferro (2014), doi:10.1002/qj.2270, equation 8.

    Examples
    --------
    >>> float(fair_crps([1, 1, 0], 1))
    0.0
    """
    count = np.asarray(counts, dtype=np.float64)
    total = count.sum(axis=-1, keepdims=True)
    if total.size and total.min() < 2:
        raise ValueError(f"Argument counts must hold at least 2 scenarios, got {total.min():.0f}.")
    cdf = np.cumsum(count, axis=-1) / total
    spread = np.sum(cdf * (1 - cdf), axis=-1)
    return discrete_crps(count / total, position) - spread / (total[..., 0] - 1)


def discrete_log_score(probability: ArrayLike, position: ArrayLike) -> NDArray[np.float64]:
    """Return the log probability of the observed position, nats; larger is better.

    Probabilities below `metrics.DENSITY_FLOOR` count as the floor, with a logged warning.

    Parameters
    ----------
    probability : array_like
        P(finish = position), (..., positions).
    position : array_like
        Finish, from 1, (...).

    Returns
    -------
    ndarray
        (...), nats.

    Raises
    ------
    ValueError
        If shapes do not match or a position lies outside the field.

    References
    ----------
    Good (1952), doi:10.1111/j.2517-6161.1952.tb00104.x.

    Examples
    --------
    >>> float(discrete_log_score([0.5, 0.5, 0.0], 1).round(4))
    -0.6931
    """
    p, y = _validated(probability, position)
    at_position = np.take_along_axis(p, y[..., None] - 1, axis=-1)[..., 0]
    with np.errstate(divide="ignore"):
        return floored(np.log(at_position))


def kernel_log_score(counts: ArrayLike, position: ArrayLike) -> NDArray[np.float64]:
    """Return the log kernel density at the finish of scenarios counted by position; larger is better.

    It is the summand of `metrics.compute_log_score`, from counts: Gaussian kernels of Scott's bandwidth.
    A density on the real line, it compares with itself only.

    Parameters
    ----------
    counts : array_like
        Scenarios by position, (cars, positions).
    position : array_like
        Finish, from 1, (cars,).

    Returns
    -------
    ndarray
        (cars,), nats.

    Raises
    ------
    ValueError
        If shapes do not match or a position lies outside the field.

    References
    ----------
    Scott (1992), Multivariate Density Estimation, doi:10.1002/9780470316849, equation 6.42.
    """
    count, y = _validated(counts, position)
    return kernel_log_density(np.arange(1.0, count.shape[-1] + 1)[:, None], y.astype(np.float64), count.T)


def pit_bounds(
    probability: ArrayLike, position: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the randomised PIT, F(y - 1) and F(y), each (...), of finishes y.

    Parameters
    ----------
    probability : array_like
        P(finish = position), (..., positions).
    position : array_like
        Finish, from 1, (...).

    Returns
    -------
    tuple of ndarray
        Low and high.

    Raises
    ------
    ValueError
        If shapes do not match or a position lies outside the field.

    Examples
    --------
    >>> [float(end) for end in pit_bounds([0.25, 0.5, 0.25], 2)]
    [0.25, 0.75]
    """
    p, y = _validated(probability, position)
    high = np.take_along_axis(np.cumsum(p, axis=-1), y[..., None] - 1, axis=-1)[..., 0]
    return high - np.take_along_axis(p, y[..., None] - 1, axis=-1)[..., 0], high


def coverage_probability(probability: ArrayLike, position: ArrayLike, level: float) -> NDArray[np.float64]:
    """Return the exact probability that the randomised PIT falls inside the central interval.

    The PIT is uniform on [F(y - 1), F(y)]. Its mean over cars is the coverage: nominal for a calibrated
    forecast, which an interval of whole positions cannot be.

    Parameters
    ----------
    probability : array_like
        P(finish = position), (..., positions).
    position : array_like
        Finish, from 1, (...).
    level : float
        Nominal level, between 0 and 1.

    Returns
    -------
    ndarray
        (...), in [0, 1].

    Raises
    ------
    ValueError
        If shapes do not match, a position lies outside the field or `level` is not between 0 and 1.

    References
    ----------
    Czado, Gneiting & Held (2009), doi:10.1111/j.1541-0420.2009.01191.x, equation 2.

    Examples
    --------
    >>> float(coverage_probability([0.25, 0.25, 0.25, 0.25], 1, 0.8).round(3))
    0.6
    """
    low, high = pit_bounds(probability, position)
    return pit_share(low, high, level)


def interval_width(probability: ArrayLike, level: float) -> NDArray[np.float64]:
    """Return the width of the central interval in positions, those at its ends in part.

    A position counts with the probability that its randomised PIT falls inside the interval, as in
    `coverage_probability`: the width is the difference of the quantiles of F, joined linearly.

    Parameters
    ----------
    probability : array_like
        P(finish = position), (..., positions).
    level : float
        Nominal level, between 0 and 1.

    Returns
    -------
    ndarray
        (...), in positions.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.

    References
    ----------
    Sharpness: Gneiting, Balabdaoui & Raftery (2007), doi:10.1111/j.1467-9868.2007.00587.x, section 3.3.

    Examples
    --------
    >>> float(interval_width([0.25, 0.25, 0.25, 0.25], 0.8).round(3))
    3.2
    """
    p = np.asarray(probability, dtype=np.float64)
    high = np.cumsum(p, axis=-1)
    return pit_share(high - p, high, level).sum(axis=-1)


def _validated(probability: ArrayLike, position: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(position).astype(np.int64)
    if p.ndim == 0 or p.shape[:-1] != y.shape:
        raise ValueError(
            f"Argument probability must have shape (..., positions) and position (...), got {p.shape} "
            f"and {y.shape}."
        )
    if y.size and (y.min() < 1 or y.max() > p.shape[-1]):
        raise ValueError(f"Argument position must lie in 1..{p.shape[-1]}, got {y.min()} to {y.max()}.")
    return p, y
