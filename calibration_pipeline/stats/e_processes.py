"""E-processes for ranks: running evidence that ranks are not uniform on [0, 1].

An e-process is a non-negative process whose mean is at most 1 at every stopping time if the null hypothesis
holds. It reaches c with a probability of at most 1/c, however often one looks (Ville 1939).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, logsumexp

SHAPES = 2.0 ** np.array([-1, -0.5, 0, 0.5, 1])
"""Values of both parameters of the beta densities; the pair (1, 1) is the uniform density."""


def log_e_process(rank: ArrayLike, restart: ArrayLike) -> NDArray[np.float64]:
    r"""Return the logarithm of the e-process after each race; it starts at 1 wherever `restart` changes.

    .. math:: E_t = \frac{1}{25} \sum_{a, b} \prod_{s \le t} f_{a,b}(u_s)

    The sum runs over 25 beta densities, both parameters in `SHAPES`. The bet on race t is therefore a mixture
    of beta densities, whose weights are in proportion to the densities' products over the races before. The
    uniform density is one of them, so the process stays above 1/25.

    Parameters
    ----------
    rank : array_like
        Ranks in (0, 1), in the order of the races, (..., race). Under the null hypothesis a rank is uniform,
        given all earlier races.
    restart : array_like
        Labels of consecutive races, such as seasons, (race,).

    Returns
    -------
    ndarray
        Natural logarithm, (..., race).

    Raises
    ------
    ValueError
        If a rank does not lie in (0, 1), or the races of a label are not consecutive.

    References
    ----------
    Arnold, Henzi & Ziegel (2023), Sequentially valid tests for forecast calibration, Annals of Applied
    Statistics 17, doi:10.1214/22-AOAS1697; mixtures: Robbins (1970), doi:10.1214/aoms/1177696786; Ville
    (1939), Étude critique de la notion de collectif.

    Examples
    --------
    >>> np.exp(log_e_process([0.5, 0.02, 0.01, 0.01], [2021, 2022, 2022, 2022])).round(2).tolist()
    [0.88, 1.5, 5.95, 30.44]
    """
    u, label = np.asarray(rank, np.float64), np.asarray(restart)
    if not ((u > 0) & (u < 1)).all():
        raise ValueError(f"Argument rank must lie in (0, 1), got {u.min()} to {u.max()}.")
    _, first, block = np.unique(label, return_index=True, return_inverse=True)
    if (np.diff(first[block]) < 0).any():
        raise ValueError("Argument restart must have the races of each label one after another.")
    a, b = (shape.ravel() for shape in np.meshgrid(SHAPES, SHAPES))
    log_u, log_rest = np.log(u)[..., None], np.log1p(-u)[..., None]
    log_density = (a - 1) * log_u + (b - 1) * log_rest - betaln(a, b)
    total = np.cumsum(log_density, axis=-2)
    before = (total - log_density)[..., first[block], :]
    return logsumexp(total - before, axis=-1) - np.log(a.size)


def log_mean(log_e: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
    """Return the logarithm of the mean of e-values, which is again an e-value however they depend.

    Parameters
    ----------
    log_e : array_like
        Natural logarithms of e-values. Of e-processes, all must be martingales given the same past.
    axis : int
        Axis of the processes.

    References
    ----------
    Vovk & Wang (2021), E-values: calibration, combination and applications, Annals of Statistics 49,
    doi:10.1214/20-AOS2020.

    Examples
    --------
    >>> round(float(np.exp(log_mean(np.log([1.0, 3.0])))), 3)
    2.0
    """
    values = np.asarray(log_e, np.float64)
    return logsumexp(values, axis=axis) - np.log(values.shape[axis])
