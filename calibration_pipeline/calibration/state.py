"""State of the calibration before every race: log slope and incident shift, filtered over the calendar.

NUTS fits what is slow, once a fold: noise, the scale of the walk, and the differences between archetypes
(`pooling`). Given draws of these parameters, the two quantities follow the races of all archetypes
(`stats.state_filter`). The constants below were chosen on the seasons 2015 to 2020 (`benchmarks.state`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.race_curves import LOG_SHARPNESS_BOX, Reference
from calibration_pipeline.mcmc.priors import PRIOR_INTERCEPT, PRIOR_SLOPE_MU
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.stats.chebyshev import LOG_SLOPE_BOX, chebyshev_basis
from calibration_pipeline.stats.state_filter import (
    POINTS,
    Dynamics,
    Filtered,
    draw_values,
    filter_races,
    smooth_likelihood,
)

N_DRAWS = 64
"""Number of posterior draws of the slow parameters."""
RACES_A_SEASON = 36
"""The walk's scale is fitted by season; a race has its variance divided by this number."""
JUMP_SIGMA, JUMP_PROBABILITY, SEASON_JUMP_PROBABILITY = 0.3, 0.005, 0.2
DEVIATION_HALF_LIFE = 80.0
"""Half-life of an archetype's deviation, races of all archetypes: that of the network's races."""
SHIFT_WALK_SIGMA, SHIFT_DEVIATION_SIGMA = 0.02, 0.2
"""Standard deviations of a step of the incident shift, and of its differences between archetypes."""


class Calendar(NamedTuple):
    """Races of all archetypes in order of time.

    Attributes
    ----------
    archetype : (race) int, index into `ARCHETYPES`
    season : (race) int
    order, incident : (race, coefficient), curves as in `race_curves.RaceCurves`; 0 for a race to forecast
    """

    archetype: NDArray[np.int_]
    season: NDArray[np.int_]
    order: AnyArray
    incident: AnyArray


class SlowParameters(NamedTuple):
    """Posterior draws of the parameters that the races of a fold share.

    Attributes
    ----------
    slope_sigma, archetype_sigma : (draw)
    noise_sigma : (archetype, draw)
    references : Reference of each archetype
    """

    slope_sigma: AnyArray
    archetype_sigma: AnyArray
    noise_sigma: AnyArray
    references: Sequence[Reference]


class Fold(NamedTuple):
    """Consecutive races of the calendar, and the slow parameters fitted to the races before them."""

    races: range
    slow: SlowParameters


class FilteredFold(NamedTuple):
    """States of the log slope and of the incident shift before the races of a fold.

    Attributes
    ----------
    slope, shift : Filtered
        The incident shift has one draw.
    noise_sigma : (race, draw), race-level noise of the log slope
    """

    slope: Filtered
    shift: Filtered
    noise_sigma: AnyArray


def thin_slow_parameters(
    posterior: Mapping[str, AnyArray], references: Sequence[Reference], n_draws: int = N_DRAWS
) -> SlowParameters:
    """Select evenly spaced draws of the pooled map.

    Parameters
    ----------
    posterior : mapping
        slope_sigma, archetype_sigma (draw), noise_sigma (draw, archetype).
    references : sequence of Reference
        Of each archetype.
    n_draws : int
    """
    few = np.linspace(0, len(posterior["slope_sigma"]) - 1, n_draws).round().astype(int)
    slope, archetype, noise = (
        np.asarray(posterior[name], np.float64)[few]
        for name in ("slope_sigma", "archetype_sigma", "noise_sigma")
    )
    return SlowParameters(slope, archetype, noise.T, references)


def filter_folds(calendar: Calendar, folds: Sequence[Fold]) -> Iterator[FilteredFold]:
    """Filter the calendar for every fold, each time from the first race to the fold's last one.

    Parameters
    ----------
    calendar : Calendar
    folds : sequence of Fold

    Yields
    ------
    FilteredFold
        The state before a race depends on earlier races, and on the slow parameters of its fold.
    """
    starts_season = np.diff(calendar.season, prepend=calendar.season[:1]) != 0
    shift = incident_log_likelihood(calendar.incident)
    for races, slow in folds:
        seen = slice(races.stop)
        archetype = calendar.archetype[seen]
        order = order_log_likelihood(archetype, calendar.order[seen], slow)
        slopes = filter_races(order, archetype, starts_season[seen], slope_dynamics(slow), len(ARCHETYPES))
        shifts = filter_races(shift[seen], archetype, starts_season[seen], shift_dynamics(), len(ARCHETYPES))
        noise_sigma = np.asarray(slow.noise_sigma)[archetype[races.start :]]
        yield FilteredFold(_of_races(slopes, races), _of_races(shifts, races), noise_sigma)


def draw_changes(
    fold: FilteredFold, race: int, archetype: int, n_scenarios: int, rng: np.random.Generator
) -> Recalibration:
    """Draw the recalibration of every scenario of one race from the state before it.

    Parameters
    ----------
    fold : FilteredFold
    race : int
        Index of the race in the fold.
    archetype : int
        Index into `ARCHETYPES`.
    n_scenarios : int
    rng : numpy.random.Generator

    Returns
    -------
    Recalibration
        Arrays (scenario). Scenarios take the draws of the slow parameters in random order: in the network,
        the number of a scenario selects its parameters.
    """
    noise = fold.noise_sigma[race]
    by_draw = draw_values(fold.slope.before[race], archetype, -(-n_scenarios // len(noise)), rng)
    by_draw = by_draw + noise[:, None] * rng.standard_normal(by_draw.shape)
    shift = draw_values(fold.shift.before[race], archetype, n_scenarios, rng)
    return Recalibration(
        log_sharpness=rng.permutation(by_draw.ravel())[:n_scenarios].astype(np.float32),
        incident_shift=rng.permutation(shift.ravel()).astype(np.float32),
    )


def _of_races(filtered: Filtered, races: range) -> Filtered:
    chosen = slice(races.start, races.stop)
    return Filtered(filtered.before[chosen], filtered.log_evidence[chosen])


def slope_dynamics(slow: SlowParameters) -> Dynamics:
    """Return the movement of the log slope."""
    return Dynamics(
        np.asarray(slow.slope_sigma) / np.sqrt(RACES_A_SEASON),
        np.asarray(slow.archetype_sigma),
        PRIOR_SLOPE_MU,
        JUMP_SIGMA,
        JUMP_PROBABILITY,
        SEASON_JUMP_PROBABILITY,
        DEVIATION_HALF_LIFE,
    )


def shift_dynamics() -> Dynamics:
    """Return the movement of the incident shift; its parameters are constants, so it has one draw."""
    return Dynamics(
        np.array([SHIFT_WALK_SIGMA]),
        np.array([SHIFT_DEVIATION_SIGMA]),
        PRIOR_INTERCEPT,
        JUMP_SIGMA,
        JUMP_PROBABILITY,
        SEASON_JUMP_PROBABILITY,
        DEVIATION_HALF_LIFE,
    )


def order_log_likelihood(archetype: NDArray[np.int_], order: AnyArray, slow: SlowParameters) -> NDArray:
    """Tabulate the running orders' log-likelihoods by log slope, race noise integrated out.

    Parameters
    ----------
    archetype : array of int, shape (race)
    order : array, shape (race, coefficient)
    slow : SlowParameters

    Returns
    -------
    array, shape (race, draw, point)
    """
    curves = np.asarray(order, np.float64)
    values = np.zeros((len(curves), len(slow.slope_sigma), len(POINTS)))
    for a, reference in enumerate(slow.references):
        own = archetype == a
        basis = chebyshev_basis(POINTS + reference.log_slope, curves.shape[1], *LOG_SHARPNESS_BOX)
        noise = np.hypot(reference.noise_sigma, np.asarray(slow.noise_sigma)[a])
        values[own] = smooth_likelihood(curves[own] @ np.asarray(basis).T, noise)
    return values


def incident_log_likelihood(incident: AnyArray) -> NDArray:
    """Tabulate the incidents' log-likelihoods by shift of the logit: (race, 1, point)."""
    curves = np.asarray(incident, np.float64)
    basis = chebyshev_basis(POINTS, curves.shape[1], *LOG_SLOPE_BOX)
    return (curves @ np.asarray(basis).T)[:, None, :]
