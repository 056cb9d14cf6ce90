"""From scenarios to probabilities."""

import numpy as np
from numpy.typing import NDArray


def finish_probabilities(finish_position: NDArray, field_size: NDArray) -> NDArray[np.float64]:
    """Finish probabilities of an ensemble, smoothed by half a count a place.

    P(position k) = (count + 1/2) / (S + n/2) for S scenarios of n cars (the Jeffreys-Perks rule for
    multinomials, Good 1965, The Estimation of Probabilities): never 0, and rows and columns add to 1.

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
    n_races, n_scenarios, width = finish_position.shape
    probability = np.zeros((n_races, width, width))
    slot = np.arange(width)
    for race, n in enumerate(np.asarray(field_size, int)):
        cell = finish_position[race, :, :n].astype(np.intp) - 1 + slot[:n] * n
        count = np.bincount(cell.ravel(), minlength=n * n).reshape(n, n)
        probability[race, :n, :n] = (count + 0.5) / (n_scenarios + n / 2)
    return probability


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
    n_races, n_scenarios, width = finish_position.shape
    probability = np.zeros((n_races, width, width))
    for race, n in enumerate(np.asarray(field_size, int)):
        place = finish_position[race, :, :n]
        wins = (place[:, :, None] < place[:, None, :]).sum(axis=0)
        probability[race, :n, :n] = (wins + 0.5) / (n_scenarios + 1)
        np.fill_diagonal(probability[race], 0.0)
    return probability
