"""Laws of filtered states: mean, quantiles and probabilities, to compare them with planted values."""

import numpy as np
from scipy.special import ndtr, ndtri

from calibration_pipeline.stats.state_filter import MARGIN, STEP, Array, State, grid, mean_by_draw

SMALLEST_TAIL = 1e-12


def cumulative_probability(state: State, group: int, x: Array) -> Array:
    """Return the probability that the quantity of a group is at most x.

    Parameters
    ----------
    state : State
    group : int
    x : array, shape (draw or 1, value)

    Returns
    -------
    array, shape (draw, value)
    """
    centre = (_levels(state) + state.mean[group])[:, None, :]
    deviation = np.sqrt(state.variance[group] + STEP**2 / 12)[:, None, :]
    below = ndtr((np.asarray(x)[..., None] - centre) / deviation)
    return np.einsum("dvl,dl->dv", below, state.probability)


def summarise_state(state: State, group: int, probabilities: Array) -> tuple[float, Array]:
    """Return the mean of the quantity of a group and its quantiles, over all draws.

    Parameters
    ----------
    state : State
    group : int
    probabilities : array, shape (quantile)

    Returns
    -------
    mean : float
    quantiles : array, shape (quantile)
    """
    mean = mean_by_draw(state, group).mean()
    points = grid(state.probability.shape[-1] + 2 * MARGIN)
    cumulative = cumulative_probability(state, group, points[None]).mean(axis=0)
    # On the normal scale a straight line between points is exact for a normal law.
    score = ndtri(np.clip(cumulative, SMALLEST_TAIL, 1 - SMALLEST_TAIL))
    return float(mean), np.interp(ndtri(probabilities), score, points)


def _levels(state: State) -> Array:
    return grid(state.probability.shape[-1])
