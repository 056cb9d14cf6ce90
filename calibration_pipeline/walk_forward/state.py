"""State of a map with one slope and one intercept before every race: the log slope, filtered by race.

Noise, intercept and the scales of the movement are slow: draws of a fold's posterior. Given these draws, the
log slope follows the races of all archetypes as that of scenarios does (`calibration.state`). Its reference
is 1, and a race's likelihood is its surface at the draw's intercept.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.state import (
    STORED_DRAWS,
    Calendar,
    FoldFilter,
    draw_states,
    slope_dynamics,
)
from calibration_pipeline.stats.chebyshev import basis_values
from calibration_pipeline.stats.race_noise import INTERCEPT_BOX, Surfaces, blocks
from calibration_pipeline.stats.state_filter import (
    POINTS,
    State,
    draw_values,
    filter_races,
    smooth_by_draw,
)

N_DRAWS = 8
"""Posterior draws of the slow parameters: their mean log score is within .0001 nats a car of that of 64."""
DRAWN = ("log_slope", "noise_sigma", "intercept")
"""Stored variables: log calibration slope, its race-level noise, and the shift of the logit."""
SURFACE = "surface"
"""Curve of a calendar: (race, point, n_y), a surface at the log slopes `state_filter.POINTS`."""


class SlowParameters(NamedTuple):
    """Posterior draws of the parameters that the races of a fold share.

    Attributes
    ----------
    slope_sigma, archetype_sigma : (draw)
    noise_sigma, intercept : (archetype, draw)
    """

    slope_sigma: NDArray[np.float64]
    archetype_sigma: NDArray[np.float64]
    noise_sigma: NDArray[np.float64]
    intercept: NDArray[np.float64]

    @classmethod
    def read(cls, slow: xr.Dataset, fold: str) -> "SlowParameters":
        """Return the slow parameters of a fold, or of `LATEST`, from a group `slow`."""
        own = slow.sel(fold=fold)
        return cls(
            own["slope_sigma"].values,
            own["archetype_sigma"].values,
            own["noise_sigma"].transpose("archetype", "draw").values,
            own["intercept"].transpose("archetype", "draw").values,
        )


def check_seasons(calendar: Calendar, seasons: Sequence[int]) -> None:
    """Raise a ValueError if a race's season is none of the seasons of a fit."""
    unknown = sorted(set(calendar.season.tolist()) - set(seasons))
    if unknown:
        raise ValueError(
            "Argument seasons must hold the season of every race with a forecast and a result, got none of "
            f"{', '.join(map(str, unknown))}."
        )


def slow_group(posterior: xr.Dataset, seen: Calendar) -> xr.Dataset:
    """Return one fold of the group `slow`: evenly spaced draws of a fit, and the races that it saw.

    Parameters
    ----------
    posterior : xarray.Dataset
        slope_sigma, archetype_sigma (chain, draw), noise_sigma, intercept (chain, draw, archetype).
    seen : Calendar
        Races before the fold.
    """
    flat = posterior[list(SlowParameters._fields)].stack(sample=("chain", "draw"), create_index=False)
    few = np.linspace(0, flat.sizes["sample"] - 1, N_DRAWS).round().astype(int)
    thin = flat.isel(sample=few).rename_dims(sample="draw").drop_vars(("chain", "draw"), errors="ignore")
    n_races = np.bincount(seen.archetype, minlength=len(ARCHETYPES))
    return (
        thin.transpose("draw", ...)
        .astype(np.float64)
        .assign(
            n_races=("archetype", n_races.astype(np.int32)), as_of=np.int32(seen.race_order.max(initial=0))
        )
    )


def tabulate_points(surfaces: Surfaces) -> NDArray[np.float64]:
    """Read surfaces at the log slopes of the filter: (race, point, n_y), Chebyshev coefficients."""
    basis = basis_values(POINTS, surfaces.coefficients.shape[1], *surfaces.box)
    parts = [np.zeros((0, len(POINTS), surfaces.coefficients.shape[2]))]
    for rows, block in blocks(np.arange(len(surfaces.coefficients)), surfaces.coefficients):
        parts.append((basis @ block)[: len(rows)])
    return np.concatenate(parts)


def filter_map(calendar: Calendar, read_slow: Callable[[str], SlowParameters], seed: int) -> xr.DataTree:
    """Draw the states before the races of a calendar, and before the next race.

    Parameters
    ----------
    calendar : Calendar
        With the curve `SURFACE`.
    read_slow : callable
        Fold, or `LATEST` -> slow parameters fitted to the races before the fold.
    seed : int

    Returns
    -------
    xarray.DataTree
        Groups `races` and `next` as of `CalibrationState`, with the variables `DRAWN`.
    """

    def filter_fold(fold: str, own: range) -> FoldFilter:
        slow, seen = read_slow(fold), calendar.until(own.stop)
        likelihood = log_likelihood(seen.archetype, seen.curves[SURFACE], slow)
        law = slope_dynamics(slow)
        slopes = filter_races(likelihood, seen.archetype, seen.starts_season, law, len(ARCHETYPES), own.start)
        return FoldFilter([(slopes, law)], partial(_draw_state, slow=slow))

    return draw_states(calendar, filter_fold, DRAWN, seed)


def log_likelihood(
    archetype: NDArray[np.int_], surface: NDArray[np.float64], slow: SlowParameters
) -> NDArray[np.float64]:
    """Tabulate the races' log-likelihoods by log slope, race noise integrated out.

    Parameters
    ----------
    archetype : array of int, shape (race)
    surface : array, shape (race, point, n_y)
        From `tabulate_points`.
    slow : SlowParameters

    Returns
    -------
    array, shape (race, draw, point)
    """
    n_draws, n_points = len(slow.slope_sigma), len(POINTS)
    values = np.zeros((len(surface), n_draws, n_points))
    for a in range(len(ARCHETYPES)):
        own = np.flatnonzero(archetype == a)
        basis = basis_values(slow.intercept[a], surface.shape[2], *INTERCEPT_BOX)
        # Blocks of a fixed size: later races change no bit of the others.
        padded = np.stack([block for _, block in blocks(own, surface)] or [surface[:0]])
        curves = np.ascontiguousarray(np.moveaxis(padded @ basis.T, -1, 1))
        smooth = smooth_by_draw(curves, slow.noise_sigma[a])
        values[own] = np.moveaxis(smooth, 1, 2).reshape(-1, n_draws, n_points)[: len(own)]
    return values


def _draw_state(
    states: list[State], archetype: int, rng: np.random.Generator, slow: SlowParameters
) -> NDArray[np.float64]:
    """Draw `DRAWN`, in the order of the slow parameters: (variable, draw)."""
    n_values = STORED_DRAWS // len(slow.slope_sigma)
    log_slope = draw_values(states[0], archetype, n_values, rng).ravel()
    noise, intercept = (
        np.repeat(values[archetype], n_values) for values in (slow.noise_sigma, slow.intercept)
    )
    return np.stack([log_slope, noise, intercept])
