"""Ranks of numbers, and checks of finish positions."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

WORD = 64
"""Bits of a word in `is_permutation`."""


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
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, order.shape[-1] + 1), axis=-1)
    return ranks


def rank_at_random(values: NDArray, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Rank along the last axis, 1 for the smallest, equal values in random order.

    Parameters
    ----------
    values : ndarray, shape (m, n)
        No NaN.
    rng : numpy.random.Generator
        Used for rows with equal values alone.

    Returns
    -------
    ranks : ndarray of int, shape (m, n)
        A permutation of 1..n in each row.
    has_ties : ndarray of bool, shape (m)

    Examples
    --------
    >>> ranks, has_ties = rank_at_random(np.array([[3, 1, 2], [5, 1, 1]]), np.random.default_rng(0))
    >>> ranks[0].tolist(), ranks[1, 0].item(), has_ties.tolist()
    ([3, 1, 2], 3, [False, True])
    """
    order = np.argsort(values, axis=-1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=-1)
    has_ties: NDArray[np.bool_] = (ascending[:, 1:] == ascending[:, :-1]).any(axis=1)
    tied = values[has_ties]
    order[has_ties] = np.lexsort((rng.random(tied.shape), tied), axis=-1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, values.shape[-1] + 1), axis=-1)
    return ranks, has_ties


def are_permutations(position: NDArray[np.integer], n_cars: ArrayLike) -> bool:
    """Return whether the cars of every race have the positions 1..n, each once, in every scenario.

    The function works race by race, so that its memory does not grow with the number of races.

    Parameters
    ----------
    position : ndarray of int, shape (n_races, ..., width)
        Positions; the cars come first, then padding, which must be 0.
    n_cars : array_like of int, shape (n_races,)
        Cars of each race.

    Returns
    -------
    bool

    Examples
    --------
    >>> are_permutations(np.array([[[2, 1, 0], [1, 2, 0]]]), [2])
    True
    >>> are_permutations(np.array([[[2, 1, 0], [2, 2, 0]]]), [2])
    False
    """
    return all(
        0 <= n <= race.shape[-1] and not race[..., n:].any() and is_permutation(race[..., :n]).all()
        for race, n in zip(position, np.asarray(n_cars).tolist(), strict=True)
    )


def is_permutation(position: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return whether n cars have the positions 1..n, each once.

    Each position sets one bit of a 64-bit word. n cars set n different bits only if no position occurs twice.

    Parameters
    ----------
    position : ndarray of int, shape (..., n)

    Returns
    -------
    ndarray of bool, shape (...)

    Examples
    --------
    >>> is_permutation(np.array([[2, 1, 3], [2, 2, 3]])).tolist()
    [True, False]
    """
    n = position.shape[-1]
    lowest_bit = np.uint64(1)
    valid: NDArray[np.bool_] = np.ones(position.shape[:-1], np.bool_)
    for first in range(0, n + 1, WORD):
        # In int64, because `first` may be out of range of a narrower type.
        shift = np.subtract(position, first, dtype=np.int64, casting="unsafe") if first else position
        # A shift below 0 becomes a very large one; NumPy shifts by WORD or more to 0.
        bits = np.left_shift(lowest_bit, shift, dtype=np.uint64, casting="unsafe")
        wanted = sum(1 << (k - first) for k in range(max(first, 1), min(first + WORD, n + 1)))
        valid &= np.bitwise_or.reduce(bits, axis=-1) == np.uint64(wanted)
    return valid


def first_to_last(order: NDArray) -> NDArray[np.intp]:
    """Return the cars of each running order, first to last, then the cars that take no part (0).

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
