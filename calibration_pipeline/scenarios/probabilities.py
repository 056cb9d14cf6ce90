"""Probabilities of finish positions and head-to-heads, from counts of scenarios."""

import numpy as np
from numpy.typing import NDArray


def finish_probabilities(finish_position: NDArray, field_size: NDArray) -> NDArray[np.float64]:
    """Finish probabilities of an ensemble, smoothed by half a count a position.

    P(position k) = (count + 1/2) / (S + n/2) for S scenarios of n cars (the Jeffreys-Perks rule for
    multinomials, Good 1965, The Estimation of Probabilities): never 0, and rows and columns sum to 1.

    Parameters
    ----------
    finish_position : array of int, shape (race, scenario, driver)
        A permutation of 1..n in every scenario, 0 for padding.
    field_size : array of int, shape (race)

    Returns
    -------
    array, shape (race, driver, position)
        0 beyond the field.

    Examples
    --------
    >>> finish_probabilities(np.array([[[1, 2], [1, 2], [2, 1]]]), np.array([2]))[0].tolist()
    [[0.625, 0.375], [0.375, 0.625]]
    """
    counts, size = position_counts(finish_position, field_size), np.asarray(field_size, int)
    car = np.arange(counts.shape[-1]) < size[:, None]
    return car[:, :, None] * smoothed_positions(counts, finish_position.shape[1], size[:, None, None])


def head_to_head(finish_position: NDArray, field_size: NDArray) -> NDArray[np.float64]:
    """Probability that a driver finishes ahead of an opponent, smoothed by half a count.

    Parameters
    ----------
    finish_position : array of int, shape (race, scenario, driver)
    field_size : array of int, shape (race)

    Returns
    -------
    array, shape (race, driver, opponent)
        (wins + 1/2) / (S + 1); 0 on the diagonal and beyond the field.

    Examples
    --------
    >>> head_to_head(np.array([[[1, 2], [1, 2], [2, 1]]]), np.array([2]))[0].tolist()
    [[0.0, 0.625], [0.375, 0.0]]
    """
    wins, size = win_counts(finish_position, field_size), np.asarray(field_size, int)
    slot = np.arange(wins.shape[-1])
    car = slot < size[:, None]
    pair = car[:, :, None] & car[:, None, :] & (slot[:, None] != slot)
    return pair * smoothed_wins(wins, finish_position.shape[1])


def position_counts(finish_position: NDArray, field_size: NDArray) -> NDArray[np.int64]:
    """Counts of scenarios by car and finish position: (race, driver, position), 0 beyond the field.

    Parameters
    ----------
    finish_position : array of int, shape (race, scenario, driver)
    field_size : array of int, shape (race)

    Examples
    --------
    >>> position_counts(np.array([[[1, 2], [1, 2], [2, 1]]]), np.array([2]))[0].tolist()
    [[2, 1], [1, 2]]
    """
    n_races, _, width = finish_position.shape
    counts = np.zeros((n_races, width, width), np.int64)
    slot = np.arange(width)
    for race, n in enumerate(np.asarray(field_size, int)):
        cell = finish_position[race, :, :n].astype(np.intp) - 1 + slot[:n] * n
        counts[race, :n, :n] = np.bincount(cell.ravel(), minlength=n * n).reshape(n, n)
    return counts


def win_counts(finish_position: NDArray, field_size: NDArray) -> NDArray[np.int64]:
    """Counts of scenarios in which a driver beats an opponent: (race, driver, opponent), 0 beyond the field.

    Parameters
    ----------
    finish_position : array of int, shape (race, scenario, driver)
    field_size : array of int, shape (race)

    Examples
    --------
    >>> win_counts(np.array([[[1, 2], [1, 2], [2, 1]]]), np.array([2]))[0].tolist()
    [[0, 2], [1, 0]]
    """
    n_races, _, width = finish_position.shape
    counts = np.zeros((n_races, width, width), np.int64)
    for race, n in enumerate(np.asarray(field_size, int)):
        position = finish_position[race, :, :n]
        counts[race, :n, :n] = (position[:, :, None] < position[:, None, :]).sum(axis=0)
    return counts


def smoothed_positions(counts: NDArray, n_scenarios: int, field_size: NDArray) -> NDArray[np.float64]:
    """Finish probabilities from counts of positions, as in `finish_probabilities`.

    Parameters
    ----------
    counts : array of int, shape (..., position)
        Scenarios by finish position.
    n_scenarios : int
    field_size : array of int, broadcast against `counts`

    Returns
    -------
    array, shape (..., position)
        0 beyond the field.
    """
    inside = np.arange(counts.shape[-1]) < field_size
    return np.where(inside, (counts + 0.5) / (n_scenarios + field_size / 2), 0.0)


def smoothed_wins(wins: NDArray, n_scenarios: int) -> NDArray[np.float64]:
    """Return (wins + 1/2) / (S + 1), any shape: the probability that a driver finishes ahead."""
    return (wins + 0.5) / (n_scenarios + 1)
