"""Argument checks of the marginal calibration map: shapes, positions, probabilities, parameters."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration_pipeline.stats.real_arrays import check_real

SUM_TOLERANCE = 1e-4
RANGES = {
    **dict.fromkeys(("slope", "slope_next"), (0.0, 1e6)),
    "log_slope": (-14.0, 14.0),
    "noise_sigma": (-20.0, 20.0),
    **dict.fromkeys(("intercept", "slope_mu", "slope_sigma"), (-1e6, 1e6)),
}
"""Parameter -> the range of its draws, in which the map's probabilities are finite; a slope is above 0."""


def check_arrays(position: ArrayLike | None, probabilities: ArrayLike) -> None:
    """Check that tables are real, (n_races, n_drivers, n_positions), and that positions match them."""
    check_real(probabilities, "Predicted probabilities")
    if position is not None:
        check_real(position, "Observed positions")
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
    """Check that samples have all parameters, with draws in their `RANGES`."""
    missing = sorted(set(names) - set(samples))
    if missing:
        raise ValueError(f"Argument samples must have all parameters, got none for {', '.join(missing)}.")
    for name in RANGES:
        if name in samples:
            check_draws(name, samples[name])


def check_draws(name: str, draws: ArrayLike) -> None:
    """Check that there are draws of a parameter of the map, all in its range of `RANGES`."""
    check_real(draws, f"Draws of {name}")
    values = np.asarray(draws)
    if not values.size:
        raise ValueError(
            f"Argument samples must hold draws, got none of {name} (shape {values.shape}): pass the samples "
            "of run_mcmc_calibration."
        )
    lower, upper = RANGES[name]
    is_slope = name in ("slope", "slope_next")
    bad = ~((values > lower if is_slope else values >= lower) & (values <= upper))
    if bad.any():
        rule = f"be above 0 and at most {upper:g}" if is_slope else f"lie in [{lower:g}, {upper:g}]"
        negative = is_slope and bool((values < 0).any())
        advice = ": a slope is never negative, take the exponential of a log slope" if negative else ""
        raise ValueError(
            f"Draws of {name} must {rule}, got {int(bad.sum())} of {values.size} that are not, the first is "
            f"{values[bad][0]}{advice}."
        )
