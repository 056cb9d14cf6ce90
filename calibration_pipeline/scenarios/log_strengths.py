"""Log-strengths and incident logits of an ensemble's cars, recovered from scenarios alone.

The module estimates, from one race's scenarios, the parameters that a calibration reads. It reads no file and
no label.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from calibration_pipeline.stats.quadrature import gauss_hermite
from calibration_pipeline.stats.ranking import first_to_last, rank

RECOVERY_SCENARIOS = 4096
MAX_STEPS = 500
TOLERANCE = 1e-4
PHANTOM = 0.5
LARGEST_CHAOS_SCALE = 3.0
NO_INCIDENT_LOGIT = -60.0
"""Logit of retiring where a forecast knows no retirements: no shift then changes an incident."""


def running_order(finish_position: NDArray, running: NDArray[np.bool_] | None) -> NDArray[np.int16]:
    """Rank the running cars, 1 for the first, 0 for retired cars and padding.

    Parameters
    ----------
    finish_position : array of int, shape (..., driver)
        0 for padding.
    running : array of bool, shape (..., driver), or None
        None where it is unknown: all classified cars are then ranked.

    Examples
    --------
    >>> running_order(np.array([3, 1, 2, 0]), np.array([True, True, False, False])).tolist()
    [2, 1, 0, 0]
    """
    taking_part = finish_position > 0 if running is None else (finish_position > 0) & running
    position = np.where(taking_part, finish_position, np.iinfo(np.int16).max)
    return np.where(taking_part, rank(position), 0).astype(np.int16)


def recover_log_strengths(order: NDArray) -> NDArray[np.float64]:
    r"""Fit the reverse Plackett-Luce law to running orders, by maximum likelihood.

    The last car is drawn first, with weights :math:`w = e^{-u}`. The MM algorithm of Hunter (2004, Ann.
    Statist. 32:384, doi:10.1214/aos/1079120141, eq. 30) updates

    .. math:: w_i \leftarrow N_i \Big/ \sum_{k : i \in A_k} \frac{1}{\sum_{j \in A_k} w_j}

    with :math:`N_i` the number of draws in which car i was taken and :math:`A_k` the cars of draw k. Each car
    is also compared once, half won and half lost, with a phantom car of log-strength 0. A car that is always
    last, or always first, therefore gets a finite log-strength.

    Parameters
    ----------
    order : array of int, shape (scenario, driver)
        Ranks of the running cars from 1, 0 for the others. Of more scenarios than `RECOVERY_SCENARIOS`, so
        many are used, evenly spaced: their error (1/64) is far below the resolution of a calibration.

    Returns
    -------
    array, shape (driver)
        Log-strengths, larger is faster; their mean is 0.

    Examples
    --------
    Two cars, one ahead in 3 of 4 scenarios: the odds are 3 to 1, less for the phantom.

    >>> order = np.tile([[1, 2], [1, 2], [1, 2], [2, 1]], (1000, 1))
    >>> u = recover_log_strengths(order)
    >>> round(float(np.exp(u[0] - u[1])), 2)
    3.0
    """
    order = _evenly_spaced(order)
    n_cars = order.shape[1]
    taking_part = order > 0
    slot = np.arange(n_cars)
    cars = first_to_last(order)
    inside = slot < taking_part.sum(axis=1, keepdims=True)
    is_draw = inside & (slot > 0)  # the last car left is not drawn
    n_drawn = (order > 1).sum(axis=0) + PHANTOM
    rank = np.where(taking_part, order - 1, 0)
    log_weight = np.zeros(n_cars)
    for _ in range(MAX_STEPS):
        weight = np.exp(log_weight)
        total = np.cumsum(np.where(inside, weight[cars], 0.0), axis=1)
        each = np.divide(1.0, total, out=np.zeros_like(total), where=is_draw)
        later = np.cumsum(each[:, ::-1], axis=1)[:, ::-1]
        exposure = np.where(taking_part, np.take_along_axis(later, rank, axis=1), 0.0).sum(axis=0)
        exposure += 2 * PHANTOM / (weight + 1)
        new = np.log(n_drawn / exposure)
        new -= new.mean()
        step = np.abs(new - log_weight).max()
        log_weight = new
        if step < TOLERANCE:
            break
    return -log_weight


def _evenly_spaced(order: NDArray) -> NDArray:
    if len(order) <= RECOVERY_SCENARIOS:
        return order
    return order[np.linspace(0, len(order) - 1, RECOVERY_SCENARIOS).astype(np.intp)]


def recover_incidents(running: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    r"""Estimate each car's incident logit, and the cars' common chaos scale, from the scenarios' retirements.

    The law is :math:`P(\text{car } i \text{ retires} \mid z) = \operatorname{logit}^{-1}(a_i + c z)` with
    chaos :math:`z \sim N(0, 1)`. Chaos adds to the variance of the number of retired cars, which is
    :math:`\sum_i p_i (1 - p_i)` for independent cars. The moment estimator of c equates the law's excess
    variance with that of the scenarios. It is 0 where they vary less, and at most `LARGEST_CHAOS_SCALE`.
    Given c, :math:`a_i` equates the law's probability with the car's frequency, (retired + 1/2) / (scenarios
    + 1) (Jeffreys' rule: never 0 or 1).

    Parameters
    ----------
    running : array of bool, shape (scenario, driver)
        Cars only, no padding.

    Returns
    -------
    incident_logit : array, shape (driver)
        Logit of retiring at chaos 0.
    chaos_scale : float
    """
    out = ~running
    frequency = out.mean(axis=0)
    chance = (out.sum(axis=0) + 0.5) / (len(out) + 1)
    excess = out.sum(axis=1).var(ddof=1) - (frequency * (1 - frequency)).sum()
    low, high = 0.0, LARGEST_CHAOS_SCALE
    for _ in range(20):
        middle = (low + high) / 2
        if _excess_variance(_logit_at_no_chaos(chance, middle), middle) < excess:
            low = middle
        else:
            high = middle
    return _logit_at_no_chaos(chance, low), low


def _logit_at_no_chaos(chance: NDArray, scale: float) -> NDArray[np.float64]:
    """Solve E[logit^-1(a + scale z)] = chance for a, by Newton's method: (driver)."""
    nodes, weights = gauss_hermite()
    at = logit(chance) * np.sqrt(1 + 0.346 * scale**2)  # Zeger, Liang & Albert 1988, eq. 3.4
    for _ in range(8):
        p = expit(at[:, None] + scale * nodes)
        at = at - np.clip((p @ weights - chance) / ((p * (1 - p)) @ weights), -1.0, 1.0)
    return at


def _excess_variance(at: NDArray, scale: float) -> float:
    """Variance of the number of retired cars beyond that of independent cars of the same chances."""
    nodes, weights = gauss_hermite()
    p = expit(at[:, None] + scale * nodes)
    mean = p @ weights
    spread = (p.sum(axis=0) - mean.sum()) ** 2 @ weights
    return float(spread - ((p - mean[:, None]) ** 2 @ weights).sum())
