"""Coherent finish probabilities: every car has one position, every position is taken once."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOLERANCE = 1e-9
MAX_ITERATIONS = 10_000


def sinkhorn(probabilities: ArrayLike, field_size: ArrayLike) -> NDArray[np.float64]:
    """Scale rows and columns of each race's table until both sum to 1.

    Of all coherent tables this is the one nearest to the given one in relative entropy.

    Parameters
    ----------
    probabilities : array_like, shape (race, driver, position)
        Non-negative; cars first, padding last. Entries beyond the field are not read.
    field_size : array_like, shape (race,)
        Cars in each race, at most the number of drivers and of positions.

    Returns
    -------
    ndarray, shape (race, driver, position), float64
        Rows and columns over the field sum to 1 within 1e-9; 0 beyond it.

    Raises
    ------
    ValueError
        If a probability within a field is negative or not finite, if a field does not fit the table, or
        if a table cannot be made coherent (its zeros leave no way to fill every position).

    References
    ----------
    Sinkhorn and Knopp, Concerning nonnegative matrices and doubly stochastic matrices, Pacific Journal of
    Mathematics 21 (1967) 343-348.

    Examples
    --------
    >>> sinkhorn([[[0.8, 0.2], [0.8, 0.2]]], [2]).round(3).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """
    given = np.asarray(probabilities, dtype=np.float64)
    size = np.asarray(field_size)
    _check(given, size)
    is_car = np.arange(given.shape[1]) < size[:, None]
    is_position = np.arange(given.shape[2]) < size[:, None]
    inside = is_car[:, :, None] & is_position[:, None, :]
    table = np.where(inside, given, 0.0)
    bad = int((~np.isfinite(table) | (table < 0)).sum())
    if bad:
        raise ValueError(f"Argument probabilities must be finite and not negative, got {bad} that are not.")
    if (is_car & (table.sum(axis=2) == 0)).any() or (is_position & (table.sum(axis=1) == 0)).any():
        raise ValueError("No coherent table: a car or a position of the field has probability 0 throughout.")
    for _ in range(MAX_ITERATIONS):
        table /= np.where(is_position, table.sum(axis=1), 1.0)[:, None, :]
        rows = np.where(is_car, table.sum(axis=2), 1.0)
        if np.abs(rows - 1.0).max(initial=0.0) <= TOLERANCE:
            return table
        table /= rows[:, :, None]
    raise ValueError(f"No coherent table within {MAX_ITERATIONS} iterations: too many zeros.")


def _check(given: NDArray[np.float64], size: NDArray) -> None:
    if given.ndim != 3:
        raise ValueError(f"Argument probabilities must be (race, driver, position), got shape {given.shape}.")
    if size.shape != given.shape[:1]:
        raise ValueError(f"Argument field_size must be ({given.shape[0]},), got shape {size.shape}.")
    widest = min(given.shape[1:])
    if size.size and not (size.min() >= 1 and size.max() <= widest):
        raise ValueError(f"Argument field_size must lie in 1..{widest}, got {size.min()}..{size.max()}.")
