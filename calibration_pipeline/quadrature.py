"""Integrals over standard normal variables, by Gauss-Hermite quadrature."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

N_NODES = 15


@cache
def gauss_hermite(n: int = N_NODES) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights that integrate over a standard normal variable.

    Examples
    --------
    >>> nodes, weights = gauss_hermite(15)
    >>> [round(float(weights @ nodes**k), 6) for k in (0, 2, 4)]  # moments of N(0, 1)
    [1.0, 1.0, 3.0]
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, weights / weights.sum()
