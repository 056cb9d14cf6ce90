"""State of the calibration before every race: log slope and incident shift, filtered over the calendar.

NUTS fits what is slow, once a fold: noise, the scale of the walk, and the differences between archetypes
(`pooling`). Given draws of these parameters, the two quantities follow the races of all archetypes
(`stats.state_filter`). The constants below were chosen on the seasons 2015 to 2020 (`benchmarks.state`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.race_curves import INCIDENT_SHIFT_BOX, LOG_SHARPNESS_BOX, Reference
from calibration_pipeline.mcmc.convergence import LATEST
from calibration_pipeline.mcmc.priors import PRIOR_INTERCEPT, PRIOR_SLOPE_MU
from calibration_pipeline.scenarios.covariates import AnyArray
from calibration_pipeline.stats.chebyshev import chebyshev_basis
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
DRAWN = ("log_slope", "noise_sigma", "intercept")
"""Stored variables: log calibration slope, its race-level noise, and incident shift."""
SAME_FOLD, NEW_FOLD, NEW_SEASON = OPENINGS = ("same_fold", "new_fold", "new_season")
"""Whether the next race is of the last race's fold, of a new fold in its season, or of a new season."""
RACES_A_SEASON = 36
"""The walk's scale is fitted by season; a race has its variance divided by this number."""
JUMP_SIGMA, JUMP_PROBABILITY, SEASON_JUMP_PROBABILITY = 0.3, 0.005, 0.2
DEVIATION_HALF_LIFE = 80.0
"""Half-life of an archetype's deviation, races of all archetypes: that of the network's races."""
SHIFT_WALK_SIGMA, SHIFT_DEVIATION_SIGMA = 0.02, 0.2
"""Standard deviations of a step of the incident shift, and of its differences between archetypes."""
SHIFT_POINTS = grid(361)
"""Grid of the incident shift's likelihood; it covers ensembles in which hardly any car retires."""
BLOCK = 32
"""Races that are tabulated together. The last block is padded: a race's values are bitwise the same whatever
the number of later races."""


_basis = jax.jit(chebyshev_basis, static_argnums=1)  # one program in place of one for each operation


class Calendar(NamedTuple):
    """Races of all archetypes in order of time.

    Attributes
    ----------
    race, race_order : (race) int
    fold : (race) str
    archetype : (race) int, index into `ARCHETYPES`
    order, incident : (race, coefficient), curves as in `race_curves.RaceCurves`
    """

    race: NDArray[np.int_]
    race_order: NDArray[np.int_]
    fold: NDArray[np.str_]
    archetype: NDArray[np.int_]
    order: AnyArray
    incident: AnyArray

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
        return Calendar._make(values[:n_races] for values in self)


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
    references = zip(slow["reference_log_slope"].values, slow["reference_noise"].values, strict=True)
    return SlowParameters(
        slow["slope_sigma"].values,
        slow["archetype_sigma"].values,
        slow["noise_sigma"].transpose("archetype", "draw").values,
        [Reference(*pair) for pair in references],
    )


def join_calendar(fits: Mapping[Archetype, xr.DataTree]) -> Calendar:
    """Join the races of all archetypes.

    Parameters
    ----------
    fits : mapping
        Archetype -> `CalibrationPosterior`, of all archetypes.
    """
    parts = [fits[archetype]["constant_data"].to_dataset() for archetype in ARCHETYPES]
    race, race_order, fold, order, incident = (
        np.concatenate([part[name].values for part in parts])
        for name in ("race", "race_order", "fold", "order_curve", "incident_curve")
    )
    archetype = np.repeat(np.arange(len(parts)), [part.sizes["race"] for part in parts])
    by_time = np.argsort(race_order)
    return Calendar._make(values[by_time] for values in (race, race_order, fold, archetype, order, incident))


def fold_ranges(calendar: Calendar) -> Iterator[tuple[str, range]]:
    """Yield each fold and the indices of its races, in order of time."""
    for fold in dict.fromkeys(calendar.fold.tolist()):
        own = np.flatnonzero(calendar.fold == fold)
        yield fold, range(int(own[0]), int(own[-1]) + 1)


def filter_state(fits: Mapping[Archetype, xr.DataTree], pooled: xr.DataTree, seed: int) -> xr.DataTree:
    """Filter the calendar for every fold, and draw the states before its races and before the next race.

    Parameters
    ----------
    fits : mapping
        Archetype -> `CalibrationPosterior`, of all archetypes.
    pooled : xarray.DataTree
        `PooledPosterior` of these fits.
    seed : int
        A race's draws depend on the seed, the number of earlier races, and the archetype.

    Returns
    -------
    xarray.DataTree
        `CalibrationState`. A race has no state if fewer than `MIN_CALIBRATION_RACES` races of its archetype
        are before its fold.
    """
    calendar = join_calendar(fits)
    n_races = len(calendar.race)
    shifts = filter_shifts(calendar)
    races: dict[int, NDArray] = {}
    following = np.full((len(OPENINGS), len(ARCHETYPES), len(DRAWN), STORED_DRAWS), np.nan, np.float32)

    def draw_next(opening: str, slopes: Filtered, slow: SlowParameters, known: NDArray[np.bool_]) -> None:
        first = opening == NEW_SEASON
        slope = advance(slopes.after, slope_dynamics(slow), starts_season=first)
        shift = advance(shifts.after, shift_dynamics(), starts_season=first)
        for a in np.flatnonzero(known).tolist():
            rng = np.random.default_rng([seed, n_races, a])
            following[OPENINGS.index(opening), a] = draw_state(slope, shift, slow, a, rng)

    for fold, own in fold_ranges(calendar):
        known = _count_races(calendar, own.start) >= MIN_CALIBRATION_RACES
        if not known.any():
            continue
        slow = read_slow_parameters(pooled, fold)
        slopes = filter_slopes(calendar.until(own.stop), slow, own.start)
        for state, race in zip(slopes.before, own, strict=True):
            if known[a := calendar.archetype[race]]:
                rng = np.random.default_rng([seed, race, a])
                races[race] = draw_state(state, shifts.before[race], slow, int(a), rng)
        if own.stop == n_races:
            draw_next(SAME_FOLD, slopes, slow, known)
    known = _count_races(calendar, n_races) >= MIN_CALIBRATION_RACES
    if known.any():
        slow = read_slow_parameters(pooled, LATEST)
        slopes = filter_slopes(calendar, slow, n_races)
        draw_next(NEW_FOLD, slopes, slow, known)
        draw_next(NEW_SEASON, slopes, slow, known)
    tree = xr.DataTree.from_dict(
        {"races": _race_group(calendar, races), "next": _next_group(calendar, following)}
    )
    tree.attrs = {
        "n_races": n_races,
        "seed": seed,
        "last_fold": str(calendar.fold[-1]) if n_races else "",
        "last_season": int(calendar.season[-1]) if n_races else 0,
    }
    return tree


def draw_state(
    slope: State, shift: State, slow: SlowParameters, archetype: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the state before a race.

    Parameters
    ----------
    slope, shift : State
        Of the log slope, with one draw of each of the slow parameters, and of the incident shift.
    slow : SlowParameters
    archetype : int
        Index into `ARCHETYPES`.
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (variable, draw)
        `STORED_DRAWS` draws of each of `DRAWN`. Log slopes stand in the order of the slow parameters.
    """
    noise = np.asarray(slow.noise_sigma)[archetype]
    n_values = STORED_DRAWS // len(noise)
    log_slope = draw_values(slope, archetype, n_values, rng).ravel()
    intercept = draw_values(shift, archetype, STORED_DRAWS, rng).ravel()
    return np.stack([log_slope, np.repeat(noise, n_values), rng.permutation(intercept)])


def filter_slopes(calendar: Calendar, slow: SlowParameters, first_kept: int = 0) -> Filtered:
    """Filter the log slope over a calendar; states before `first_kept` are not kept."""
    order = order_log_likelihood(calendar.archetype, calendar.order, slow)
    return filter_races(
        order, calendar.archetype, calendar.starts_season, slope_dynamics(slow), len(ARCHETYPES), first_kept
    )


def filter_shifts(calendar: Calendar) -> Filtered:
    """Filter the incident shift over a calendar."""
    incident = incident_log_likelihood(calendar.incident)
    return filter_races(
        incident, calendar.archetype, calendar.starts_season, shift_dynamics(), len(ARCHETYPES)
    )


def _count_races(calendar: Calendar, n_races: int) -> NDArray[np.int_]:
    """Count the races of each archetype among the first races: (archetype)."""
    return np.bincount(calendar.archetype[:n_races], minlength=len(ARCHETYPES))


def _race_group(calendar: Calendar, draws: Mapping[int, NDArray]) -> xr.Dataset:
    """Return the group `races` of `CalibrationState`."""
    index = np.array(sorted(draws), np.int64)
    values = np.array([draws[race] for race in index], np.float32).reshape(-1, len(DRAWN), STORED_DRAWS)
    n_earlier = [_count_races(calendar, race)[calendar.archetype[race]] for race in index]
    names = np.array([str(archetype) for archetype in ARCHETYPES])
    return xr.Dataset(
        {name: (("race", "draw"), values[:, k]) for k, name in enumerate(DRAWN)},
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


def _next_group(calendar: Calendar, draws: NDArray[np.float32]) -> xr.Dataset:
    """Return the group `next` of `CalibrationState` from draws (opening, archetype, variable, draw)."""
    n_earlier = np.where(np.isnan(draws[:, :, 0, 0]), 0, _count_races(calendar, len(calendar.race)))
    return xr.Dataset(
        {name: (("opening", "archetype", "draw"), draws[:, :, k]) for k, name in enumerate(DRAWN)}
        | {"n_calibration_races": (("opening", "archetype"), n_earlier.astype(np.int32))},
        {"opening": list(OPENINGS), "archetype": [str(archetype) for archetype in ARCHETYPES]},
    )


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
        basis = _basis(POINTS + reference.log_slope, curves.shape[1], *LOG_SHARPNESS_BOX)
        noise = np.hypot(reference.noise_sigma, np.asarray(slow.noise_sigma)[a])
        own = np.flatnonzero(archetype == a)
        for rows, block in _blocks(own, curves):
            values[rows] = smooth_likelihood(block @ np.asarray(basis).T, noise)[: len(rows)]
    return values


def incident_log_likelihood(incident: AnyArray) -> NDArray:
    """Tabulate the incidents' log-likelihoods by shift of the logit, on `SHIFT_POINTS`: (race, 1, point)."""
    curves = np.asarray(incident, np.float64)
    basis = np.asarray(_basis(SHIFT_POINTS, curves.shape[1], *INCIDENT_SHIFT_BOX))
    values = np.zeros((len(curves), 1, len(SHIFT_POINTS)))
    for rows, block in _blocks(np.arange(len(curves)), curves):
        values[rows, 0] = (block @ basis.T)[: len(rows)]
    return values


def _blocks(races: NDArray[np.int_], curves: NDArray) -> Iterator[tuple[NDArray[np.int_], NDArray]]:
    """Yield races and their curves, padded to `BLOCK` races."""
    for start in range(0, len(races), BLOCK):
        rows = races[start : start + BLOCK]
        yield rows, np.pad(curves[rows], [(0, BLOCK - len(rows)), (0, 0)])
