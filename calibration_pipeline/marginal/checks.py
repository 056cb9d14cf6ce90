"""Argument checks of the marginal calibration map: shapes, positions, probabilities, parameters."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUM_TOLERANCE = 1e-4


def check_shapes(position: ArrayLike | None, probabilities: ArrayLike) -> None:
    """Check that tables are (n_races, n_drivers, n_positions), and that the positions' shape matches."""
    shape = np.shape(probabilities)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(
            f"Predicted probabilities must be (n_races, n_drivers, n_positions), got shape {shape}."
        )
    if position is not None and np.shape(position) != shape[:2]:
        raise ValueError(
            f"Observed positions must be (n_races, n_drivers) = {shape[:2]} as the predicted probabilities, "
            f"got shape {np.shape(position)}."
        )


def check_values(position: NDArray, probabilities: NDArray) -> None:
    """Check that positions are in 0..n (0 is padding), and that each car's row is a distribution."""
    n_positions = probabilities.shape[-1]
    bad = int((~((position >= 0) & (position <= n_positions) & (position == np.floor(position)))).sum())
    if bad:
        raise ValueError(
            f"Observed positions must be whole numbers in 1..{n_positions} (0 marks padding), "
            f"got {bad} that are not."
        )
    rows = probabilities[position > 0].astype(np.float64)
    if not rows.size:
        raise ValueError("At least one car must take part, got padding only.")
    not_finite = int((~np.isfinite(rows)).sum())
    if not_finite:
        raise ValueError(
            f"Predicted probabilities must be finite, got {not_finite} that are NaN or infinite."
        )
    negative = int((rows < 0).sum())
    if negative:
        raise ValueError(f"Predicted probabilities must not be negative, got {negative} that are.")
    error = np.abs(rows.sum(axis=-1) - 1.0)
    if error.max() > SUM_TOLERANCE:
        raise ValueError(
            f"Predicted probabilities must sum to 1 over positions within {SUM_TOLERANCE}, got "
            f"{int((error > SUM_TOLERANCE).sum())} rows that do not (largest error {error.max():.3g})."
        )


def season_index(season: ArrayLike, n_races: int) -> tuple[NDArray, NDArray[np.intp]]:
    """Return the seasons in increasing order, and each race's index among them."""
    labels = np.asarray(season)
    if labels.shape != (n_races,):
        raise ValueError(f"Argument season must be ({n_races},), one label a race, got shape {labels.shape}.")
    return np.unique(labels, return_inverse=True)


def check_parameters(samples: Mapping[str, ArrayLike], names: Iterable[str]) -> None:
    """Check that samples have all parameters."""
    missing = sorted(set(names) - set(samples))
    if missing:
        raise ValueError(f"Argument samples must have all parameters, got none for {', '.join(missing)}.")
