r"""E-process of a difference of scores: running evidence that one forecaster is better than another.

Let :math:`\delta_t` be the gain of a forecaster over the network in race t (the network's score minus its
own), :math:`b_t` the largest loss that the two forecasts allow, known before the race, and
:math:`c_t = \max_{s \le t} b_s`. The null hypothesis is "on average not better",
:math:`\sum_{s \le t} E_{s-1} \delta_s \le 0` for all t, the weak null of Choe & Ramdas (2024). The process is

.. math:: E_t = \frac{1}{K} \sum_k \prod_{s \le t} (1 + \lambda_k \delta_s / c_s), \qquad 0 < \lambda_k < 1.

It is an e-process. With :math:`\mu_s = E_{s-1} \delta_s / c_s`, the product of
:math:`(1 + \lambda \delta_s / c_s) / (1 + \lambda \mu_s)` is a non-negative martingale. Under the null,
:math:`\prod (1 + \lambda \mu_s) \le \exp(\lambda \sum \mu_s) \le 1`: the weights :math:`1 / c_s` never grow,
so that summation by parts writes :math:`\sum_s \mu_s` as a sum, with weights of at least 0, of the sums in
the null. The stakes :math:`\lambda_k` must not depend on results for this null.

The product is the capital of the bets of Waudby-Smith & Ramdas (2024), doi:10.1093/jrsssb/qkad009. It is
never smaller than the exponential process
:math:`\exp(\lambda \sum \delta_s / c_s - \psi(\lambda) \sum (\delta_s / c_s)^2)` with
:math:`\psi(\lambda) = -\log(1 - \lambda) - \lambda` of Choe & Ramdas (2024), doi:10.1287/opre.2021.0792,
theorem 3 with centres 0 (predictable bounds: proposition EC.7). That is lemma 4.1 of Fan, Grama & Liu (2015),
doi:10.1214/EJP.v20-3496.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration_pipeline.stats.e_processes import log_mean

STAKES = 0.95 / 2.0 ** np.arange(4)
"""Stakes of the bets, as shares of the largest one that can never be lost as a whole."""
SMALLEST_BOUND = 1e-6
"""Bounds below it count as this: a loss is then impossible, or as small as rounding."""


def log_e_better(gain: ArrayLike, largest_loss: ArrayLike) -> NDArray[np.float64]:
    """Return the logarithm of the e-process against "on average not better", after each race.

    Parameters
    ----------
    gain : array_like
        Difference of scores by race in the order of time, above 0 is better, (race,).
    largest_loss : array_like
        Largest possible value of minus the gain, known before the race, (race,).

    Returns
    -------
    ndarray
        Natural logarithm, (race,). It reaches log 20 with a probability of at most 1/20 if the forecaster is
        on average not better, whenever one looks.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, or a loss exceeds its bound.

    Examples
    --------
    >>> np.exp(log_e_better([0.1, 0.1, -0.1], [0.2, 0.2, 0.1])).round(2).tolist()
    [1.22, 1.52, 1.12]
    """
    difference, bound = np.asarray(gain, np.float64), np.asarray(largest_loss, np.float64)
    if difference.ndim != 1 or difference.shape != bound.shape:
        raise ValueError(
            f"Arguments gain and largest_loss must be (race,), got {difference.shape} and {bound.shape}."
        )
    if not (np.isfinite(difference).all() and np.isfinite(bound).all()):
        raise ValueError("Arguments gain and largest_loss must be finite, got NaN or infinity.")
    scale = np.maximum.accumulate(np.maximum(bound, SMALLEST_BOUND))
    wrong = np.flatnonzero(-difference > bound + SMALLEST_BOUND)
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"Argument largest_loss must bound every loss, got {bound[i]} at race {i} with a loss of "
            f"{-difference[i]}."
        )
    capital = np.cumsum(np.log1p(STAKES[:, None] * np.maximum(difference / scale, -1.0)), axis=1)
    return log_mean(capital)
