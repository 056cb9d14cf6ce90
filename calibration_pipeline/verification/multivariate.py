"""Scores of whole races: the joint forecast of all finishes of a race against its result.

Both scores read scenarios, since finish probabilities contain no dependence. At most `JOINT_SCENARIOS`
of them are used, chosen at random.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

JOINT_SCENARIOS = 1000


class JointScore(NamedTuple):
    """A score of one race, with its standard error from the finite number of scenarios."""

    score: float
    error: float


def energy_score(scenarios: NDArray, observed: NDArray) -> JointScore:
    r"""Return the fair energy score of one race, per root car; smaller is better.

    .. math:: \frac{1}{\sqrt n} \Bigl(\frac1S \sum_s \|x_s - y\|
              - \frac{1}{2 S (S - 1)} \sum_{s \ne t} \|x_s - x_t\|\Bigr)

    Distances grow with the root of the number of cars n. Divided by it they are a typical car's distance, in
    positions, and fields of different size are comparable. The error is that of the score's first-order
    terms.

    Parameters
    ----------
    scenarios : ndarray
        Finishes, (scenario, car), at least 2 scenarios.
    observed : ndarray
        Finish, (car,).

    Returns
    -------
    JointScore

    References
    ----------
    Gneiting et al. (2008), doi:10.1007/s11749-008-0114-x, equation 7; fair: Fricker, Ferro & Stephenson
    (2013), doi:10.1002/qj.2058; first-order terms of U-statistics: Hoeffding (1948),
    doi:10.1214/aoms/1177730196.

    Examples
    --------
    >>> round(energy_score(np.array([[1, 2], [1, 2]]), np.array([2, 1])).score, 4)
    1.0
    """
    x = _choose_scenarios(scenarios).astype(np.float32)
    y = observed.astype(np.float32)
    n_scenarios, n_cars = x.shape
    # Squared distances of whole numbers: exact in float32 below 2**24.
    square = np.einsum("sc,sc->s", x, x)
    between = x @ x.T
    between *= -2
    between += square
    between += square[:, None]
    np.sqrt(between, out=between)
    to_others = between.sum(axis=1, dtype=np.float64) / (n_scenarios - 1)
    to_observed = np.linalg.norm(x - y, axis=1).astype(np.float64)
    scale = np.sqrt(n_cars)
    error = np.std(to_observed - to_others, ddof=1) / np.sqrt(n_scenarios)
    return JointScore(float((to_observed.mean() - to_others.mean() / 2) / scale), float(error / scale))


def variogram_score(scenarios: NDArray, observed: NDArray) -> JointScore:
    r"""Return the variogram score of order 1/2 of one race, a mean over pairs of cars; smaller is better.

    .. math:: \binom n2^{-1} \sum_{i < j}
              \Bigl(|y_i - y_j|^{1/2} - \frac1S \sum_s |x_{si} - x_{sj}|^{1/2}\Bigr)^2

    It detects wrong dependence between cars better than the energy score does. A race of one car scores 0.

    Parameters
    ----------
    scenarios : ndarray
        Finishes, (scenario, car), at least 2 scenarios.
    observed : ndarray
        Finish, (car,).

    Returns
    -------
    JointScore

    References
    ----------
    Scheuerer & Hamill (2015), doi:10.1175/MWR-D-14-00269.1, equation 2.

    Examples
    --------
    >>> round(variogram_score(np.array([[1, 2, 3], [1, 2, 3]]), np.array([2, 1, 3])).score, 4)
    0.1144
    """
    x = np.ascontiguousarray(_choose_scenarios(scenarios).T, dtype=np.float32)
    first, second = np.triu_indices(len(x), k=1)
    if not first.size:
        return JointScore(0.0, 0.0)
    spread = x[first] - x[second]
    np.sqrt(np.abs(spread, out=spread), out=spread)
    expected = spread.mean(axis=1)
    miss = expected - np.sqrt(np.abs(observed[first] - observed[second]))
    spread *= miss.astype(np.float32)[:, None]  # BLAS's products depend, in the last bit, on where arrays lie
    influence = 2 * spread.sum(axis=0) / first.size
    error = np.std(influence, ddof=1) / np.sqrt(influence.size)
    return JointScore(float(np.mean(miss**2)), float(error))


def _choose_scenarios(scenarios: NDArray) -> NDArray:
    """Choose `JOINT_SCENARIOS` scenarios at random, the same for every race and score.

    Evenly spaced ones would see half of the network's 64 parameter draws, which repeat every 64 scenarios.
    """
    n_scenarios = len(scenarios)
    if n_scenarios <= JOINT_SCENARIOS:
        return scenarios
    chosen = np.random.default_rng(0).choice(n_scenarios, JOINT_SCENARIOS, replace=False)
    return scenarios[np.sort(chosen)]
