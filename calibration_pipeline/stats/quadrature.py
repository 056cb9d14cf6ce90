"""Quadrature nodes and weights for integrals over a standard normal variable.

Gauss-Hermite nodes are the best for smooth functions. They miss a function that is much narrower than the
distance between nodes. Evenly spaced nodes, the trapezoid rule, resolve it (Trefethen & Weideman 2014, SIAM
Review 56:385, doi:10.1137/130932132).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

N_NODES = 15
N_EVEN_NODES = 25
REACH = 4.5


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


@cache
def even_nodes(
    n: int = N_EVEN_NODES, reach: float = REACH
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return evenly spaced nodes in [-reach, reach], and weights as for `gauss_hermite`.

    A Gaussian factor of standard deviation w is integrated with a relative error of about
    2 exp(-2 (pi w / step)^2): one in 10^8 at a step of w, 1.4 % at 2 w.

    Examples
    --------
    >>> nodes, weights = even_nodes()
    >>> [round(float(weights @ nodes**k), 2) for k in (0, 2, 4)]  # moments of N(0, 1)
    [1.0, 1.0, 3.0]
    """
    nodes = np.linspace(-reach, reach, n)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()
