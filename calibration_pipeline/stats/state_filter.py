r"""Filter of a quantity that moves from race to race, and of its differences between groups of races.

At race r of group a the quantity is

.. math:: x_{a,r} = c_r + d_{a,r}

The common level c is a heavy-tailed walk over all races. A step is :math:`N(0, walk\_sigma^2)`. With a small
probability, larger at a season's first race, the step is a jump :math:`N(0, jump\_sigma^2)`. The deviations d
are stationary autoregressions of order 1 with standard deviation `deviation_sigma`.

The filter is factorised. The level has probabilities on a grid. Given the level, the deviations are
independent and normal. A race multiplies the probabilities by its likelihood, integrated over the deviation,
and moves the mean and variance of its group's deviation to their exact values. The next step mixes these
moments over the levels that it comes from (moment matching: Barber 2012, Bayesian Reasoning and Machine
Learning, chapter 25). A test compares the filter with a particle filter. Arrays are vectorised over draws of
the parameters.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from calibration_pipeline.stats.quadrature import gauss_hermite

Array = NDArray[np.float64]

STEP = 0.05
MARGIN = 18
"""Number of points of a log-likelihood beyond the grid of the common level, on each side."""
SMALLEST_PROBABILITY = 1e-100
SMALLEST_VARIANCE = 1e-8
SMALLEST_LIKELIHOOD = 1e-300
NEGLIGIBLE = 1e-150
"""Factors below it count as 0: products of subnormal numbers would take most of the time."""


class Dynamics(NamedTuple):
    """Parameters of a quantity's movement.

    Attributes
    ----------
    walk_sigma : (draw), standard deviation of a step that is no jump
    deviation_sigma : (draw), standard deviation of the groups' deviations
    initial_sigma : standard deviation of the level before the first race, mean 0
    jump_sigma : standard deviation of a jump
    jump_probability, season_jump_probability : probability of a jump within a season, and between seasons
    deviation_half_life : races of all groups after which a deviation has lost half of its mean
    """

    walk_sigma: Array
    deviation_sigma: Array
    initial_sigma: float
    jump_sigma: float
    jump_probability: float
    season_jump_probability: float
    deviation_half_life: float


class State(NamedTuple):
    """Distribution of the level and of the groups' deviations.

    Attributes
    ----------
    probability : (draw, level), of each value of a `grid`
    mean, variance : (group, draw, level), of the deviations given the level
    """

    probability: Array
    mean: Array
    variance: Array


class Filtered(NamedTuple):
    """States of a calendar.

    Attributes
    ----------
    before : list of State, before each race from `first_kept` on
    after : State, after the last race
    log_evidence : (race, draw), log predictive likelihood of each race given the races before it
    mean : (race, draw), mean of the quantity before each race, of the race's group
    """

    before: list[State]
    after: State
    log_evidence: Array
    mean: Array


def grid(n: int) -> Array:
    """Return the grid of n values around 0, n odd, of a log-likelihood or of the common level.

    Examples
    --------
    >>> grid(3)
    array([-0.05,  0.  ,  0.05])
    """
    return STEP * np.arange(-(n // 2), n // 2 + 1, dtype=np.float64)


POINTS, LEVELS = grid(149), grid(149 - 2 * MARGIN)
"""Grids of a log slope's likelihood, and of its common level."""


def smooth_likelihood(log_likelihood: Array, noise_sigma: Array) -> Array:
    """Integrate race-level noise out of log-likelihoods.

    Parameters
    ----------
    log_likelihood : array, shape (race, point)
        On a `grid`.
    noise_sigma : array, shape (draw)
        Standard deviation of the noise that is added to the quantity.

    Returns
    -------
    array, shape (race, draw, point)
    """
    largest = log_likelihood.max(axis=-1)
    likelihood = np.exp(log_likelihood - largest[:, None])
    smooth = np.einsum(
        "dij,rj->rdi", gaussian_kernel(noise_sigma, log_likelihood.shape[-1]), likelihood, optimize=True
    )
    return np.log(smooth + SMALLEST_LIKELIHOOD) + largest[:, None, None]


def smooth_by_draw(log_likelihood: Array, noise_sigma: Array) -> Array:
    """Integrate race-level noise out of log-likelihoods that differ by draw, as `smooth_likelihood` does.

    Parameters
    ----------
    log_likelihood : array, shape (..., draw, race, point)
        On a `grid`.
    noise_sigma : array, shape (draw)

    Returns
    -------
    array, shape (..., draw, race, point)
    """
    kernel = gaussian_kernel(noise_sigma, log_likelihood.shape[-1])
    kernel[kernel < NEGLIGIBLE] = 0.0
    largest = log_likelihood.max(axis=-1, keepdims=True)
    likelihood = np.exp(log_likelihood - largest)
    likelihood[likelihood < NEGLIGIBLE] = 0.0
    smooth: Array = np.log(likelihood @ kernel.swapaxes(1, 2) + SMALLEST_LIKELIHOOD) + largest
    return smooth


def gaussian_kernel(sigma: Array, n: int) -> Array:
    """Return transition matrices of the discrete Gaussian law on a grid of distance `STEP`.

    Its variance is exact for every sigma, also below the grid's distance (Lindeberg 1990,
    doi:10.1109/34.49051, eq. 19). Rows are normalised at the ends of the grid.

    Parameters
    ----------
    sigma : array, shape (draw)
    n : int
        Number of points of the grid.

    Returns
    -------
    array, shape (draw, n, n)
    """
    weight = ive(np.arange(n), (np.asarray(sigma)[:, None] / STEP) ** 2)
    kernel = weight[:, np.abs(np.subtract.outer(np.arange(n), np.arange(n)))]
    return kernel / kernel.sum(axis=-1, keepdims=True)


def filter_races(
    log_likelihood: Array,
    group: NDArray[np.int_],
    starts_season: NDArray[np.bool_],
    dynamics: Dynamics,
    n_groups: int,
    first_kept: int = 0,
) -> Filtered:
    """Filter a quantity over the races of a calendar, all groups in order of time.

    Parameters
    ----------
    log_likelihood : array, shape (race, draw, point)
        Of the quantity at the race, on a `grid`. The grid of the common level has `MARGIN` fewer points on
        each side.
    group : array of int, shape (race)
    starts_season : array of bool, shape (race)
        Whether the race is the first of its season.
    dynamics : Dynamics
    n_groups : int
    first_kept : int
        Index of the first race whose state is returned.

    Returns
    -------
    Filtered
        The state before a race depends on earlier races only. `advance` returns the state before a race to
        forecast.
    """
    n_levels = log_likelihood.shape[-1] - 2 * MARGIN
    steps = _transitions(dynamics, n_levels)
    state, before = _initial_state(dynamics, n_groups, n_levels), []
    evidence, mean = np.zeros((2, *log_likelihood.shape[:2]))
    for race, (own, first) in enumerate(zip(group, starts_season, strict=True)):
        if race:
            state = _move(state, dynamics, steps[int(first)])
        if race >= first_kept:
            before.append(state)
        mean[race] = mean_by_draw(state, int(own))
        state, evidence[race] = _update(state, int(own), log_likelihood[race])
    return Filtered(before, state, evidence, mean)


def advance(state: State, dynamics: Dynamics, *, starts_season: bool) -> State:
    """Return the state before the next race.

    Parameters
    ----------
    state : State
        After the last race.
    dynamics : Dynamics
    starts_season : bool
        Whether the next race is the first of its season.
    """
    steps = _transitions(dynamics, state.probability.shape[-1])
    return _move(state, dynamics, steps[int(starts_season)])


def mean_by_draw(state: State, group: int) -> Array:
    """Return the mean of the quantity of a group for each draw of the parameters: (draw)."""
    means: Array = (state.probability * (_levels(state) + state.mean[group])).sum(axis=-1)
    return means


def draw_values(state: State, group: int, n_values: int, rng: np.random.Generator) -> Array:
    """Draw the quantity of a group.

    Parameters
    ----------
    state : State
    group : int
    n_values : int
        Values for each draw of the parameters.
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (draw, value)
    """
    cumulative = np.cumsum(state.probability, axis=-1)
    stratified = (np.arange(n_values) + rng.random((len(cumulative), n_values))) / n_values
    level = (stratified[..., None] > cumulative[:, None, :-1]).sum(axis=-1)
    centre = np.take_along_axis(_levels(state) + state.mean[group], level, axis=-1)
    variance = np.take_along_axis(state.variance[group], level, axis=-1) + STEP**2 / 12
    return centre + np.sqrt(variance) * rng.standard_normal(level.shape)


def _levels(state: State) -> Array:
    return grid(state.probability.shape[-1])


def _initial_state(dynamics: Dynamics, n_groups: int, n_levels: int) -> State:
    """Return the state before the first race: the stationary law of the deviations."""
    weight = np.exp(-0.5 * (grid(n_levels) / dynamics.initial_sigma) ** 2)
    shape = (len(dynamics.walk_sigma), n_levels)
    variance = np.broadcast_to(_deviation_variance(dynamics)[:, None], (n_groups, *shape))
    return State(np.broadcast_to(weight / weight.sum(), shape), np.zeros((n_groups, *shape)), variance)


def _update(state: State, group: int, log_likelihood: Array) -> tuple[State, Array]:
    """Update a state by a race of log-likelihood (draw, point); return also its log evidence, (draw)."""
    nodes, weights = gauss_hermite()
    mean, deviation = state.mean[group], np.sqrt(state.variance[group])
    x = (_levels(state) + mean)[..., None] + deviation[..., None] * nodes
    values = _interpolate(log_likelihood, x)
    largest = values.max(axis=(1, 2))
    mass = weights * np.exp(values - largest[:, None, None])
    total = mass.sum(axis=-1) + SMALLEST_LIKELIHOOD
    first, second = mass @ nodes / total, mass @ nodes**2 / total
    moved = state.probability * total
    evidence = moved.sum(axis=-1)
    means, variances = state.mean.copy(), state.variance.copy()
    means[group] = mean + deviation * first
    variances[group] = np.maximum(deviation**2 * (second - first**2), SMALLEST_VARIANCE)
    return State(moved / evidence[:, None], means, variances), np.log(evidence) + largest


def _transitions(dynamics: Dynamics, n_levels: int) -> tuple[Array, Array]:
    """Return the transition matrices of the level within a season, and between seasons: (draw, from, to)."""
    walk = gaussian_kernel(dynamics.walk_sigma, n_levels)
    jump = gaussian_kernel(np.array([dynamics.jump_sigma]), n_levels)
    within, between = (
        (1 - p) * walk + p * jump for p in (dynamics.jump_probability, dynamics.season_jump_probability)
    )
    return within, between


def _move(state: State, dynamics: Dynamics, transition: Array) -> State:
    probability = np.maximum(state.probability, SMALLEST_PROBABILITY)
    weighted = np.concatenate(
        [
            probability[None],
            probability * state.mean,
            probability * (state.variance + state.mean**2),
        ]
    )
    moved = (weighted.swapaxes(0, 1) @ transition).swapaxes(0, 1)
    n = len(state.mean)
    mean = moved[1 : n + 1] / moved[0]
    variance = np.maximum(moved[n + 1 :] / moved[0] - mean**2, SMALLEST_VARIANCE)
    kept = 0.5 ** (1 / dynamics.deviation_half_life)
    new = (1 - kept**2) * _deviation_variance(dynamics)[:, None]
    return State(moved[0] / moved[0].sum(axis=-1, keepdims=True), kept * mean, kept**2 * variance + new)


def _deviation_variance(dynamics: Dynamics) -> Array:
    """Stationary variance of the deviations: (draw)."""
    return np.maximum(np.asarray(dynamics.deviation_sigma) ** 2, SMALLEST_VARIANCE)


def _interpolate(log_likelihood: Array, x: Array) -> Array:
    """Interpolate log-likelihoods (draw, point) at x (draw, ...) by cubic polynomials."""
    n = log_likelihood.shape[-1]
    at = np.clip(x / STEP + n // 2, 1.0, n - 2.000001)
    left = at.astype(np.int64)
    t = at - left
    draw = np.arange(len(log_likelihood)).reshape(-1, *(1,) * (x.ndim - 1))
    start = draw * log_likelihood.shape[-1] + left
    flat = log_likelihood.ravel()
    before, here, after, beyond = (flat[start + k] for k in (-1, 0, 1, 2))
    slope = 0.5 * (after - before)
    curve = before - 2.5 * here + 2 * after - 0.5 * beyond
    cube = 1.5 * (here - after) + 0.5 * (beyond - before)
    return here + t * (slope + t * (curve + t * cube))
