"""Ranks of numbers, as finishing places need them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank(values: ArrayLike) -> NDArray[np.intp]:
    """Rank along the last axis: 1 for the smallest, equal values in their order.

    Parameters
    ----------
    values : array_like, shape (..., n)

    Returns
    -------
    ndarray, shape (..., n)
        A permutation of 1..n.

    Examples
    --------
    >>> rank([0.3, 0.1, 0.3]).tolist()
    [2, 1, 3]
    """
    order = np.argsort(values, axis=-1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(1, order.shape[-1] + 1), axis=-1)
    return places


def first_to_last(order: NDArray) -> NDArray[np.intp]:
    """Return the cars of each running order, first to last, those that take no part (0) after them.

    Parameters
    ----------
    order : ndarray, shape (..., n)
        Ranks from 1, 0 for the others.

    Returns
    -------
    ndarray, shape (..., n)
        Indices of cars.

    Examples
    --------
    >>> first_to_last(np.array([2, 0, 1])).tolist()
    [2, 0, 1]
    """
    return np.argsort(np.where(order > 0, order, order.shape[-1] + 1), axis=-1, kind="stable")
