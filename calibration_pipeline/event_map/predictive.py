"""Recalibrated probabilities of events: the map's, renormalised within the race to the number of winners.

The renormalisation adds one number to the log odds of all cars of a race. Of all probabilities that sum to
the number of winners, these are nearest to the map's in relative entropy (Csiszár 1975,
doi:10.1214/aop/1176996454), and they stay between 0 and 1. Division by the sum would give favourites more
than 1 in the top n. The intercept, which is also added to the log odds, cancels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from calibration_pipeline.event_map.races import EventRaces

LARGEST_ERROR = 1e-9
"""Largest distance of the sum of a race's probabilities from the number of winners."""
MAX_STEPS = 200
BLOCK = 16
"""Races that are renormalised together: their arrays stay in the processor's cache."""


def renormalise(
    log_odds: NDArray[np.float64], is_car: NDArray[np.bool_], n_winners: NDArray[np.int_] | int
) -> NDArray[np.float64]:
    """Return the probabilities, of log odds with a common shift, that sum to the number of winners.

    Newton's steps, and bisection where a step leaves the interval of the root.

    Parameters
    ----------
    log_odds : array, shape (..., car)
    is_car : array of bool, shape (..., car)
    n_winners : int, or array of int, shape (...)
        At least 1, fewer than the cars.

    Returns
    -------
    array, shape (..., car)
        0 where there is no car.

    Raises
    ------
    ValueError
        If a race has as many winners as cars, or none.

    Examples
    --------
    >>> renormalise(np.log([[4.0, 1.0]]), np.ones((1, 2), bool), 1).round(3).tolist()
    [[0.667, 0.333]]
    """
    target = np.broadcast_to(np.asarray(n_winners, float), log_odds.shape[:-1])[..., None]
    n_cars = is_car.sum(axis=-1, keepdims=True)
    if not ((target > 0) & (target < n_cars)).all():
        raise ValueError("Argument n_winners must be at least 1 and below the number of cars of each race.")
    even = logit(target / n_cars)
    lower = even - np.where(is_car, log_odds, -np.inf).max(axis=-1, keepdims=True)
    upper = even - np.where(is_car, log_odds, np.inf).min(axis=-1, keepdims=True)
    shift = np.clip(0.0, lower, upper)
    for _ in range(MAX_STEPS):
        p = np.where(is_car, expit(log_odds + shift), 0.0)
        excess = p.sum(axis=-1, keepdims=True) - target
        found = np.abs(excess) <= LARGEST_ERROR
        if found.all():
            break
        lower, upper = np.where(excess < 0, shift, lower), np.where(excess > 0, shift, upper)
        slope = (p * (1 - p)).sum(axis=-1, keepdims=True)
        step = shift - excess / np.maximum(slope, 1e-300)
        step = np.where((step > lower) & (step < upper), step, 0.5 * (lower + upper))
        shift = np.where(found, shift, step)  # the other races change no bit of a race that is done
    return p


def mean_probabilities(
    races: EventRaces, log_slope: NDArray[np.float64], n_winners: int
) -> NDArray[np.float64]:
    """Return the mean of the renormalised probabilities over points of the log slope.

    Parameters
    ----------
    races : EventRaces
        `happened` is not read.
    log_slope : array, shape (race, point)
    n_winners : int

    Returns
    -------
    array, shape (race, car)
    """
    parts = [np.zeros((0, races.is_car.shape[1]))]
    for start in range(0, len(log_slope), BLOCK):
        log_odds, centre, is_car, _ = (np.asarray(values)[start : start + BLOCK] for values in races)
        from_centre = (log_odds - centre[:, None])[:, None, :]
        scaled = np.exp(log_slope[start : start + BLOCK])[..., None] * from_centre
        cars = np.broadcast_to(is_car[:, None, :], scaled.shape)
        parts.append(renormalise(centre[:, None, None] + scaled, cars, n_winners).mean(axis=1))
    return np.concatenate(parts)
