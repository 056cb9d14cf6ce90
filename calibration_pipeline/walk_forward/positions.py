"""Walk-forward recalibration of position probabilities by the marginal map.

Before each fold `models.run_mcmc_calibration` fits each archetype to its races before the fold. The log slope
then follows the races of all archetypes (`walk_forward.state`). `models.predict_with_calibrated_model`
recalibrates a race with the state before it.

The fits of archetypes are separate. The scale of the common walk is the mean of their slope_sigma, draw by
draw. The differences between archetypes have a fixed scale.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from numpyro.infer import MCMC

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.archetype_fit import PARAMETERS
from calibration_pipeline.calibration.state import MIN_CALIBRATION_RACES, Calendar, fold_ranges
from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.mcmc.convergence import LATEST, convergence_group
from calibration_pipeline.mcmc.draws import posterior_group, sample_stats_group
from calibration_pipeline.mcmc.nuts import check_stored_draws
from calibration_pipeline.mcmc.priors import PRIOR_INTERCEPT, PRIOR_NOISE_SIGMA, PRIOR_SLOPE_SIGMA, SCALARS
from calibration_pipeline.models import predict_with_calibrated_model, run_mcmc_calibration
from calibration_pipeline.schemas.datasets import POSITION, car_mask, list_cars
from calibration_pipeline.schemas.results import join_results
from calibration_pipeline.stats.race_noise import BLOCK
from calibration_pipeline.walk_forward.state import (
    SURFACE,
    SlowParameters,
    check_seasons,
    filter_map,
    slow_group,
    tabulate_points,
)

ARCHETYPE_SIGMA = 0.2
"""Scale of the differences of log slopes between archetypes: the mean of its prior in the other maps."""
SURFACES = ((32, 16), (-2.8, 2.8))
"""Nodes and box of the surfaces that the filter reads; the box is that of the state's levels."""


class _Races(NamedTuple):
    """Races with results, in order of time: finish (race, driver), probability (race, driver, position)."""

    calendar: Calendar
    finish: NDArray[np.int_]
    probability: NDArray[np.float64]


def fit_positions(
    forecasts: xr.Dataset,
    results: pl.DataFrame,
    seasons: Sequence[int],
    *,
    n_warmup: int = 250,
    n_samples: int = 750,
    n_chains: int = 4,
    seed: int = 42,
) -> xr.DataTree:
    """Fit the marginal map of each archetype: to all races, and for each fold to the races before it.

    Parameters
    ----------
    forecasts : xarray.Dataset
        `PositionProbabilities`, as issued; its coordinate fold says which races are forecast from one fit.
    results : polars.DataFrame
        `RaceResults`, of all archetypes. Races without a forecast are left out, forecasts without a result
        are not fitted.
    seasons : sequence of int
        All seasons of the history, so that fits of different folds have the same parameters.
    n_warmup, n_samples, n_chains, seed
        As for NUTS; at least 500 draws a chain, because the fits are stored.

    Returns
    -------
    xarray.DataTree
        A child for each archetype that has races, with the groups posterior and sample_stats of the fit to
        all its races, and convergence of all its fits. The group slow holds the parameters that the state
        needs; an archetype without races before a fold has draws of the prior there.

    Raises
    ------
    ValueError
        If `n_samples` is below 500, a car of a race with results has none, or the race's season is none of
        `seasons`.
    """
    check_stored_draws(n_samples)
    races = _played_races(forecasts, results)
    check_seasons(races.calendar, seasons)
    settings = {"n_warmup": n_warmup, "n_samples": n_samples, "n_chains": n_chains}
    n_races = len(races.calendar.race)
    convergence: dict[Archetype, dict[str, tuple[dict[str, NDArray], int]]] = {a: {} for a in ARCHETYPES}
    slow, latest = {}, {}
    for fold, own in [*fold_ranges(races.calendar), (LATEST, range(n_races, n_races))]:
        if own.start < MIN_CALIBRATION_RACES and fold != LATEST:
            continue
        posteriors = {}
        for a, archetype in enumerate(ARCHETYPES):
            seen = np.flatnonzero(races.calendar.archetype[: own.start] == a)
            if seen.size:
                mcmc = _fit_archetype(races, seen, archetype, seasons, random_seed=seed, **settings)
                posterior = posterior_group(mcmc, PARAMETERS, {"season": list(seasons)})
                stats = sample_stats_group(mcmc)
                drawn = {name: posterior[name].values for name in SCALARS}
                convergence[archetype][fold] = drawn, int(stats["diverging"].sum())
                posteriors[a], latest[archetype] = posterior, (posterior, stats)
        pooled = _pool_archetypes(posteriors, (n_chains, n_samples), seed)
        slow[fold] = slow_group(pooled, races.calendar.until(own.start))
    tree = xr.DataTree(children={str(a): _archetype_tree(*latest[a], convergence[a]) for a in latest})
    tree["slow"] = xr.DataTree(xr.concat(slow.values(), dim=xr.Variable("fold", list(slow))))
    tree.attrs = {"n_races": n_races, "seed": seed, **settings}
    return tree


def filter_positions(
    forecasts: xr.Dataset, results: pl.DataFrame, posterior: xr.DataTree, seed: int
) -> xr.DataTree:
    """Draw the states before the races, and before the next race.

    Parameters
    ----------
    forecasts, results
        As for `fit_positions`.
    posterior : xarray.DataTree
        As returned by `fit_positions` for the same forecasts and results.
    seed : int

    Returns
    -------
    xarray.DataTree
        Groups `races` and `next`, as of `CalibrationState`, with the variables `state.DRAWN`.
        `calibration.recalibration.next_race_state` reads the state before the next race.
    """
    races = _played_races(forecasts, results)
    surfaces = marginal.tabulate(marginal.as_races(races.finish, races.probability), *SURFACES)
    calendar = races.calendar._replace(curves={SURFACE: tabulate_points(surfaces)})
    return filter_map(calendar, partial(SlowParameters.read, posterior["slow"].to_dataset()), seed)


def recalibrate_positions(forecasts: xr.Dataset, states: xr.Dataset) -> xr.Dataset:
    """Recalibrate the position probabilities of races that have a state; the others stay as issued.

    Parameters
    ----------
    forecasts : xarray.Dataset
        `PositionProbabilities`.
    states : xarray.Dataset
        log_slope, noise_sigma and intercept (race, draw), with the coordinate race.

    Returns
    -------
    xarray.Dataset
        `PositionProbabilities` of the same races and cars. The columns of recalibrated races sum to 1 too.
    """
    probability = forecasts["probability"].values.copy()
    known = set(states["race"].values.tolist())
    for place, (race, archetype) in enumerate(
        zip(forecasts["race"].values.tolist(), forecasts["archetype"].values.tolist(), strict=True)
    ):
        if race in known:
            draws = states.sel(race=race)
            samples = {name: draws[name].values for name in ("noise_sigma", "intercept")}
            samples["slope"] = np.exp(draws["log_slope"].values)
            n = int(forecasts["field_size"].values[place])
            field = probability[[place], :n, :n]
            probability[place, :n, :n] = predict_with_calibrated_model(samples, field, archetype)[0]
    return forecasts.assign(probability=(POSITION, probability))


def _played_races(forecasts: xr.Dataset, results: pl.DataFrame) -> _Races:
    """Return the races that have results, in order of time."""
    played = np.isin(forecasts["race"].values, results["race_id"].unique().to_numpy())
    own = forecasts.isel(race=np.flatnonzero(played)).sortby("race_order")
    found = join_results(
        list_cars(own), results.select("race_id", "driver_id", "finish_position"), "forecast"
    )
    finish = np.zeros(own["probability"].shape[:2], int)
    finish[car_mask(own).values] = found["finish_position"].to_numpy()
    index = {str(archetype): a for a, archetype in enumerate(ARCHETYPES)}
    calendar = Calendar(
        own["race"].values,
        own["race_order"].values,
        own["fold"].values.astype(str),
        np.array([index[name] for name in own["archetype"].values.tolist()], dtype=int),
        {},
    )
    return _Races(calendar, finish, own["probability"].transpose(*POSITION).values)


def _fit_archetype(
    races: _Races,
    seen: NDArray[np.intp],
    archetype: Archetype,
    seasons: Sequence[int],
    **settings: int,
) -> MCMC:
    """Fit the seen races, padded to a power of two, so that few shapes are compiled.

    Padding belongs to each season in turn: a season without races has the prior's slope.
    """
    size = BLOCK
    while size < len(seen) + len(seasons):
        size *= 2
    rest = size - len(seen)
    finish, probability = (
        np.pad(values[seen], [(0, rest), *[(0, 0)] * (values.ndim - 1)])
        for values in (races.finish, races.probability)
    )
    season = np.concatenate([races.calendar.season[seen], np.resize(seasons, rest)])
    return run_mcmc_calibration(finish, probability, str(archetype), season=season, **settings)[1]


def _pool_archetypes(posteriors: Mapping[int, xr.Dataset], shape: tuple[int, int], seed: int) -> xr.Dataset:
    """Join the draws of the archetypes' fits, those of the prior where an archetype has none.

    Parameters
    ----------
    posteriors : mapping
        Index into `ARCHETYPES` -> slope_sigma, noise_sigma and intercept (chain, draw).
    shape : tuple of int
        Chains and draws.
    seed : int
    """
    rng = np.random.default_rng(seed)

    def join(name: str, prior: float) -> NDArray[np.float64]:
        drawn = rng.normal(0.0, prior, (len(ARCHETYPES), *shape))
        values = drawn if name == "intercept" else np.abs(drawn)
        for a, posterior in posteriors.items():
            values[a] = posterior[name].values
        return values

    slope = join("slope_sigma", PRIOR_SLOPE_SIGMA)[sorted(posteriors) or slice(None)].mean(axis=0)
    by_draw, by_archetype = ("chain", "draw"), ("archetype", "chain", "draw")
    return xr.Dataset(
        {
            "slope_sigma": (by_draw, slope),
            "archetype_sigma": (by_draw, np.full(shape, ARCHETYPE_SIGMA)),
            "noise_sigma": (by_archetype, join("noise_sigma", PRIOR_NOISE_SIGMA)),
            "intercept": (by_archetype, join("intercept", PRIOR_INTERCEPT)),
        },
        {"archetype": [str(a) for a in ARCHETYPES]},
    )


def _archetype_tree(
    posterior: xr.Dataset, stats: xr.Dataset, convergence: Mapping[str, tuple[dict[str, NDArray], int]]
) -> xr.DataTree:
    """Return the child of an archetype."""
    diagnostics = convergence_group(convergence.items())
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats, "convergence": diagnostics})
