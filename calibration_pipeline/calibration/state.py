"""State of the calibration before every race: log slope, incident shift and front tilt, filtered by race.

NUTS fits what is slow, once a fold: noise, the scale of the walk, and the differences between archetypes
(`pooling`). Given draws of these parameters, the quantities follow the races of all archetypes
(`stats.state_filter`). The log slope reads all stages of the running order. The front tilt reads those of the
front group, at the mean of the log slope before the race. The constants below were chosen on the seasons
2015 to 2020 (`benchmarks.state`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.race_curves import INCIDENT_SHIFT_BOX, LOG_SHARPNESS_BOX, Reference
from calibration_pipeline.mcmc.convergence import LATEST
from calibration_pipeline.mcmc.priors import PRIOR_INTERCEPT, PRIOR_SLOPE_MU
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.stats.chebyshev import basis_values
from calibration_pipeline.stats.race_noise import blocks
from calibration_pipeline.stats.state_filter import (
    POINTS,
    Dynamics,
    Filtered,
    State,
    advance,
    draw_values,
    filter_races,
    grid,
    smooth_likelihood,
)

MIN_CALIBRATION_RACES = 3
"""Fewest races before a fold: of all archetypes for a fit, of the archetype for a state of its races."""
N_DRAWS = 16
"""Posterior draws of the slow parameters: their mean log score is within .0001 nats a car of that of 64."""
STORED_DRAWS = 1024
"""Number of stored draws of the state before a race."""
DRAWN = ("log_slope", "noise_sigma", "intercept", "front_tilt")
"""Stored variables: log calibration slope, its race-level noise, incident shift, and front tilt."""
SAME_FOLD, NEW_FOLD, NEW_SEASON = OPENINGS = ("same_fold", "new_fold", "new_season")
"""Whether the next race is of the last race's fold, of a new fold in its season, or of a new season."""
RACES_A_SEASON = 36
"""The walk's scale is fitted by season; a race has its variance divided by this number."""
JUMP_SIGMA, JUMP_PROBABILITY, SEASON_JUMP_PROBABILITY = 0.3, 0.005, 0.2
DEVIATION_HALF_LIFE = 80.0
"""Half-life of an archetype's deviation, races of all archetypes: that of the network's races."""
SHIFT_WALK_SIGMA, SHIFT_DEVIATION_SIGMA = 0.02, 0.2
"""Standard deviations of a step of the incident shift, and of its differences between archetypes."""
PRIOR_FRONT_TILT, FRONT_WALK_SIGMA, FRONT_DEVIATION_SIGMA = 0.15, 0.005, 0.2
"""Standard deviations of the front tilt before the first race, of a step, and between archetypes."""
SHIFT_POINTS = grid(361)
"""Grid of the incident shift's likelihood; it covers ensembles in which hardly any car retires."""


class Calendar(NamedTuple):
    """Races of all archetypes in order of time.

    Attributes
    ----------
    race, race_order : (race) int
    fold : (race) str
    archetype : (race) int, index into `ARCHETYPES`
    curves : name -> (race, ...), log-likelihoods of the race; of scenarios order, incident and front (race,
        coefficient), as in `race_curves.CurveArrays`
    """

    race: NDArray[np.int_]
    race_order: NDArray[np.int_]
    fold: NDArray[np.str_]
    archetype: NDArray[np.int_]
    curves: Mapping[str, AnyArray]

    @property
    def season(self) -> NDArray[np.int_]:
        """Season of each race."""
        return self.race_order // 100

    @property
    def starts_season(self) -> NDArray[np.bool_]:
        """Whether a race is the first of its season; the first race of all counts as a later one."""
        return np.diff(self.season, prepend=self.season[:1]) != 0

    def until(self, n_races: int) -> "Calendar":
        """Return the first races."""
        return Calendar(
            self.race[:n_races],
            self.race_order[:n_races],
            self.fold[:n_races],
            self.archetype[:n_races],
            {name: values[:n_races] for name, values in self.curves.items()},
        )


class Scales(Protocol):
    """Draws of the scales of a log slope's movement, each (draw)."""

    @property
    def slope_sigma(self) -> AnyArray:
        """Step from season to season."""

    @property
    def archetype_sigma(self) -> AnyArray:
        """Differences between archetypes."""


class FoldFilter(NamedTuple):
    """Quantities filtered with the slow parameters of a fold.

    Attributes
    ----------
    quantities : sequence of (Filtered, Dynamics)
        Each with the states before the races of the fold, and after the last race.
    draw : callable
        States of the quantities, index of the archetype, generator -> draws (variable, draw).
    """

    quantities: Sequence[tuple[Filtered, Dynamics]]
    draw: Callable[[Sequence[State], int, np.random.Generator], NDArray]


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


def read_slow_parameters(pooled: xr.DataTree, fold: str) -> SlowParameters:
    """Return the slow parameters of a fold, or of `LATEST`, from `PooledPosterior`."""
    slow = pooled["slow"].to_dataset().sel(fold=fold)
    names = ("reference_log_slope", "reference_noise", "reference_front_tilt")
    return SlowParameters(
        slow["slope_sigma"].values,
        slow["archetype_sigma"].values,
        slow["noise_sigma"].transpose("archetype", "draw").values,
        [Reference(*values) for values in zip(*(slow[name].values for name in names), strict=True)],
    )


def read_calendar(curves: xr.Dataset) -> Calendar:
    """Return the calendar of races of all archetypes.

    Parameters
    ----------
    curves : xarray.Dataset
        `RaceCurves`, in order of time.
    """
    names = [str(archetype) for archetype in ARCHETYPES]
    archetype = np.array([names.index(name) for name in curves["archetype"].values], int)
    return Calendar(
        curves["race"].values,
        curves["race_order"].values,
        curves["fold"].values,
        archetype,
        {name: curves[f"{name}_curve"].values for name in ("order", "incident", "front")},
    )


def fold_ranges(calendar: Calendar) -> Iterator[tuple[str, range]]:
    """Yield each fold and the indices of its races, in order of time."""
    for fold in dict.fromkeys(calendar.fold.tolist()):
        own = np.flatnonzero(calendar.fold == fold)
        yield fold, range(int(own[0]), int(own[-1]) + 1)


def filter_state(curves: xr.Dataset, pooled: xr.DataTree, seed: int) -> xr.DataTree:
    """Filter the calendar for every fold, and draw the states before its races and before the next race.

    Parameters
    ----------
    curves : xarray.Dataset
        `RaceCurves` of the races of all archetypes, in order of time.
    pooled : xarray.DataTree
        `PooledPosterior` of these races.
    seed : int
        A race's draws depend on the seed, the number of earlier races, and the archetype.

    Returns
    -------
    xarray.DataTree
        `CalibrationState`. A race has no state if fewer than `MIN_CALIBRATION_RACES` races of its archetype
        are before its fold.
    """
    calendar = read_calendar(curves)
    shifts = filter_shifts(calendar)

    def filter_fold(fold: str, own: range) -> FoldFilter:
        slow = read_slow_parameters(pooled, fold)
        slopes, tilts = filter_orders(calendar.until(own.stop), slow, own.start)
        own_shifts = shifts._replace(before=shifts.before[own.start : own.stop])
        quantities = (
            (slopes, slope_dynamics(slow)),
            (own_shifts, shift_dynamics()),
            (tilts, tilt_dynamics()),
        )
        return FoldFilter(quantities, partial(draw_state, slow=slow))

    return draw_states(calendar, filter_fold, DRAWN, seed)


def draw_states(
    calendar: Calendar,
    filter_fold: Callable[[str, range], FoldFilter],
    drawn: Sequence[str],
    seed: int,
) -> xr.DataTree:
    """Draw the states before the races of a calendar, fold by fold, and before the next race.

    Parameters
    ----------
    calendar : Calendar
    filter_fold : callable
        Fold, or `LATEST`, and the indices of its races -> quantities, filtered over the races before the end
        of the fold with slow parameters that are fitted to the races before it.
    drawn : sequence of str
        Names of the variables.
    seed : int
        A race's draws depend on the seed, the number of earlier races, and the archetype.

    Returns
    -------
    xarray.DataTree
        Groups `races` and `next`, as of `CalibrationState`, with the variables `drawn`.
    """
    n_races = len(calendar.race)
    races: dict[int, NDArray] = {}
    following = np.full((len(OPENINGS), len(ARCHETYPES), len(drawn), STORED_DRAWS), np.nan, np.float32)

    def draw_next(opening: str, fold: FoldFilter, known: NDArray[np.bool_]) -> None:
        first = opening == NEW_SEASON
        states = [advance(part.after, law, starts_season=first) for part, law in fold.quantities]
        for a in np.flatnonzero(known).tolist():
            rng = np.random.default_rng([seed, n_races, a])
            following[OPENINGS.index(opening), a] = fold.draw(states, a, rng)

    for label, own in fold_ranges(calendar):
        known = _count_races(calendar, own.start) >= MIN_CALIBRATION_RACES
        if not known.any():
            continue
        fold = filter_fold(label, own)
        for place, race in enumerate(own):
            if known[a := int(calendar.archetype[race])]:
                states = [part.before[place] for part, _ in fold.quantities]
                races[race] = fold.draw(states, a, np.random.default_rng([seed, race, a]))
        if own.stop == n_races:
            draw_next(SAME_FOLD, fold, known)
    known = _count_races(calendar, n_races) >= MIN_CALIBRATION_RACES
    if known.any():
        fold = filter_fold(LATEST, range(n_races, n_races))
        draw_next(NEW_FOLD, fold, known)
        draw_next(NEW_SEASON, fold, known)
    tree = xr.DataTree.from_dict(
        {
            "races": _race_group(calendar, races, drawn),
            "next": _next_group(calendar, following, drawn),
        }
    )
    tree.attrs = {
        "n_races": n_races,
        "seed": seed,
        "last_fold": str(calendar.fold[-1]) if n_races else "",
        "last_season": int(calendar.season[-1]) if n_races else 0,
    }
    return tree


def draw_state(
    states: Sequence[State], archetype: int, rng: np.random.Generator, slow: SlowParameters
) -> NDArray[np.float64]:
    """Draw the state before a race.

    Parameters
    ----------
    states : sequence of State
        Of the log slope, with one draw of each of the slow parameters, incident shift and front tilt.
    archetype : int
        Index into `ARCHETYPES`.
    rng : numpy.random.Generator
    slow : SlowParameters

    Returns
    -------
    array, shape (variable, draw)
        `STORED_DRAWS` draws of each of `DRAWN`. Log slopes stand in the order of the slow parameters.
    """
    slope, *others = states
    noise = np.asarray(slow.noise_sigma)[archetype]
    n_values = STORED_DRAWS // len(noise)
    log_slope = draw_values(slope, archetype, n_values, rng).ravel()
    shuffled = [rng.permutation(draw_values(state, archetype, STORED_DRAWS, rng).ravel()) for state in others]
    return np.stack([log_slope, np.repeat(noise, n_values), *shuffled])


def filter_orders(calendar: Calendar, slow: SlowParameters, first_kept: int = 0) -> tuple[Filtered, Filtered]:
    """Filter the log slope and the front tilt over a calendar.

    Parameters
    ----------
    calendar : Calendar
    slow : SlowParameters
    first_kept : int
        Index of the first race whose states are kept.

    Returns
    -------
    slopes, tilts : Filtered
    """
    races = (calendar.archetype, calendar.starts_season)
    law = slope_dynamics(slow)
    order = order_log_likelihood(calendar.archetype, calendar.curves["order"], slow)
    slopes = filter_races(order, *races, law, len(ARCHETYPES), first_kept)
    front = front_log_likelihood(calendar.archetype, calendar.curves["front"], slow, slopes.mean.mean(axis=1))
    return slopes, filter_races(front, *races, tilt_dynamics(), len(ARCHETYPES), first_kept)


def filter_shifts(calendar: Calendar) -> Filtered:
    """Filter the incident shift over a calendar."""
    incident = incident_log_likelihood(calendar.curves["incident"])
    return filter_races(
        incident, calendar.archetype, calendar.starts_season, shift_dynamics(), len(ARCHETYPES)
    )


def _count_races(calendar: Calendar, n_races: int) -> NDArray[np.int_]:
    """Count the races of each archetype among the first races: (archetype)."""
    return np.bincount(calendar.archetype[:n_races], minlength=len(ARCHETYPES))


def _race_group(calendar: Calendar, draws: Mapping[int, NDArray], drawn: Sequence[str]) -> xr.Dataset:
    """Return the group `races` from draws (variable, draw) by race."""
    index = np.array(sorted(draws), np.int64)
    values = np.array([draws[race] for race in index], np.float32).reshape(-1, len(drawn), STORED_DRAWS)
    n_earlier = [_count_races(calendar, race)[calendar.archetype[race]] for race in index]
    names = np.array([str(archetype) for archetype in ARCHETYPES])
    return xr.Dataset(
        {name: (("race", "draw"), values[:, k]) for k, name in enumerate(drawn)},
        {
            "race": calendar.race[index],
            "archetype": ("race", names[calendar.archetype[index]]),
            "season": ("race", calendar.season[index].astype(np.int32)),
            "fold": ("race", calendar.fold[index].astype(str)),
            "race_order": ("race", calendar.race_order[index].astype(np.int32)),
            "calibration_as_of": ("race", calendar.race_order[index - 1].astype(np.int32)),
            "n_calibration_races": ("race", np.array(n_earlier, np.int32)),
        },
    )


def _next_group(calendar: Calendar, draws: NDArray[np.float32], drawn: Sequence[str]) -> xr.Dataset:
    """Return the group `next` from draws (opening, archetype, variable, draw)."""
    n_earlier = np.where(np.isnan(draws[:, :, 0, 0]), 0, _count_races(calendar, len(calendar.race)))
    return xr.Dataset(
        {name: (("opening", "archetype", "draw"), draws[:, :, k]) for k, name in enumerate(drawn)}
        | {"n_calibration_races": (("opening", "archetype"), n_earlier.astype(np.int32))},
        {"opening": list(OPENINGS), "archetype": [str(archetype) for archetype in ARCHETYPES]},
    )


def slope_dynamics(slow: Scales) -> Dynamics:
    """Return the movement of the log slope."""
    walk = np.asarray(slow.slope_sigma) / np.sqrt(RACES_A_SEASON)
    return _dynamics(walk, np.asarray(slow.archetype_sigma), PRIOR_SLOPE_MU)


def shift_dynamics() -> Dynamics:
    """Return the movement of the incident shift; its parameters are constants, so it has one draw."""
    return _dynamics(np.array([SHIFT_WALK_SIGMA]), np.array([SHIFT_DEVIATION_SIGMA]), PRIOR_INTERCEPT)


def tilt_dynamics() -> Dynamics:
    """Return the movement of the front tilt; its parameters are constants, so it has one draw."""
    return _dynamics(np.array([FRONT_WALK_SIGMA]), np.array([FRONT_DEVIATION_SIGMA]), PRIOR_FRONT_TILT)


def _dynamics(walk: NDArray, deviation: NDArray, prior: float) -> Dynamics:
    """Return a movement with the jumps and the half-life that all three quantities share."""
    return Dynamics(
        walk,
        deviation,
        prior,
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
        basis = basis_values(POINTS + reference.log_slope, curves.shape[1], *LOG_SHARPNESS_BOX)
        noise = np.hypot(reference.noise_sigma, np.asarray(slow.noise_sigma)[a])
        own = np.flatnonzero(archetype == a)
        for rows, block in blocks(own, curves):
            values[rows] = smooth_likelihood(block @ basis.T, noise)[: len(rows)]
    return values


def front_log_likelihood(
    archetype: NDArray[np.int_], front: AnyArray, slow: SlowParameters, log_slope: NDArray[np.float64]
) -> NDArray:
    """Tabulate the log-likelihoods of the front groups' orders by front tilt, race noise integrated out.

    Parameters
    ----------
    archetype : array of int, shape (race)
    front : array, shape (race, coefficient)
    slow : SlowParameters
    log_slope : array, shape (race)
        At which the tilt is read.

    Returns
    -------
    array, shape (race, 1, point)
    """
    curves = np.asarray(front, np.float64)
    values = np.zeros((len(curves), 1, len(POINTS)))
    for a, reference in enumerate(slow.references):
        noise = np.hypot(reference.noise_sigma, np.sqrt(np.mean(np.asarray(slow.noise_sigma)[a] ** 2)))
        centre = reference.log_slope + reference.front_tilt + log_slope
        for rows, block in blocks(np.flatnonzero(archetype == a), curves):
            at = np.pad(centre[rows], (0, len(block) - len(rows)))
            basis = basis_values(at[:, None] + POINTS, block.shape[1], *LOG_SHARPNESS_BOX)
            likelihood = np.einsum("rpc,rc->rp", basis, block)
            values[rows] = smooth_likelihood(likelihood, noise[None])[: len(rows)]
    return values


def incident_log_likelihood(incident: AnyArray) -> NDArray:
    """Tabulate the incidents' log-likelihoods by shift of the logit, on `SHIFT_POINTS`: (race, 1, point)."""
    curves = np.asarray(incident, np.float64)
    basis = basis_values(SHIFT_POINTS, curves.shape[1], *INCIDENT_SHIFT_BOX)
    values = np.zeros((len(curves), 1, len(SHIFT_POINTS)))
    for rows, block in blocks(np.arange(len(curves)), curves):
        values[rows, 0] = (block @ basis.T)[: len(rows)]
    return values
