"""Walk-forward recalibration of event probabilities by the event map, market by market.

Each market has parameters and a state of its own. Before each fold NUTS fits the parameters to the races
before the fold, all archetypes together. The log slope then follows the races (`walk_forward.state`). The
forecast of a race is the mean of the map's renormalised probabilities over the state before the race.

Races without results are not fitted. A race in which all cars are winners holds no evidence: it is not
fitted, and its probabilities stay as issued.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import polars as pl
import xarray as xr
from numpyro.infer import MCMC

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.archetype_fit import season_labels
from calibration_pipeline.calibration.pooling import POOLED_PARAMETERS
from calibration_pipeline.calibration.recalibration import next_race_state
from calibration_pipeline.calibration.state import MIN_CALIBRATION_RACES, Calendar, fold_ranges
from calibration_pipeline.event_map.model import BOX, pooled_event_model, tabulate
from calibration_pipeline.event_map.predictive import mean_probabilities
from calibration_pipeline.event_map.races import MarketRows, market_rows
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.mcmc.convergence import LATEST, convergence_group
from calibration_pipeline.mcmc.draws import posterior_group, sample_stats_group
from calibration_pipeline.mcmc.nuts import check_stored_draws, run_nuts
from calibration_pipeline.mcmc.priors import PRIOR_SLOPE_MU
from calibration_pipeline.scenarios.folds import fold_name
from calibration_pipeline.schemas.results import join_results
from calibration_pipeline.stats.race_noise import even_normals, sampler_tables, spread_noise, tabulate_noise
from calibration_pipeline.walk_forward.state import (
    SURFACE,
    SlowParameters,
    check_seasons,
    filter_map,
    slow_group,
    tabulate_points,
)

PREDICTION_POINTS = 128
"""Points of the mean over states."""
JUDGED = ("slope_mu", *SlowParameters._fields)
"""Parameters whose convergence is stored, those that forecasts depend on."""
RESULTS = ("season", "round", "race_order", "archetype", "finish_position")


def fit_events(
    forecasts: pl.DataFrame,
    results: pl.DataFrame,
    seasons: Sequence[int],
    *,
    fold_races: int | None,
    n_warmup: int = 250,
    n_samples: int = 750,
    n_chains: int = 4,
    seed: int = 42,
) -> xr.DataTree:
    """Fit the event map of each market: to all races, and for each fold to the races before it.

    Parameters
    ----------
    forecasts : polars.DataFrame
        `EventProbabilities`, as issued.
    results : polars.DataFrame
        `RaceResults`, of all archetypes. Races without a forecast are left out, forecasts without a result
        are not fitted.
    seasons : sequence of int
        Seasons of the walk, from first to last without gaps; the season after the last is added.
    fold_races : int or None
        Races in a fold, None for a season.
    n_warmup, n_samples, n_chains, seed
        As for NUTS; at least 500 draws a chain, because the fits are stored.

    Returns
    -------
    xarray.DataTree
        A child for each market of the forecasts, with the groups of `PooledPosterior`; its group slow holds
        intercepts in place of references. Folds with fewer than `MIN_CALIBRATION_RACES` races of the market
        before them have no fit.

    Raises
    ------
    ValueError
        If `n_samples` is below 500, a car of a race with results has none, or the race's season is none of
        `seasons`.
    """
    check_stored_draws(n_samples)
    settings = {"n_warmup": n_warmup, "n_samples": n_samples, "n_chains": n_chains, "seed": seed}
    markets = _scored_markets(forecasts, results, fold_races)
    fits = {market: _fit_market(market, rows, list(seasons), settings) for market, rows in markets.items()}
    tree = xr.DataTree(children=fits)
    tree.attrs = {"fold_races": fold_races or 0, **settings}
    return tree


def filter_events(
    forecasts: pl.DataFrame, results: pl.DataFrame, posterior: xr.DataTree, seed: int
) -> xr.DataTree:
    """Draw the states of each market before its races, and before the next race.

    Parameters
    ----------
    forecasts, results
        As for `fit_events`.
    posterior : xarray.DataTree
        As returned by `fit_events` for the same forecasts and results.
    seed : int

    Returns
    -------
    xarray.DataTree
        A child for each market, with the groups of `CalibrationState` and the variables `state.DRAWN`.
    """
    markets = _scored_markets(forecasts, results, posterior.attrs["fold_races"] or None)
    states = {}
    for market, rows in markets.items():
        surface = tabulate_points(tabulate(rows.event_races(market)))
        read_slow = partial(SlowParameters.read, posterior[market]["slow"].to_dataset())
        states[market] = filter_map(_calendar(rows)._replace(curves={SURFACE: surface}), read_slow, seed)
    return xr.DataTree(children=states)


def race_states(state: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the `MapStates` of each market, from an `EventState`."""
    return {market: part["races"].to_dataset() for market, part in state.children.items()}


def next_race_states(
    state: xr.DataTree, race: int, archetype: str, fold: str, season: int
) -> dict[str, xr.Dataset]:
    """Return market -> state before the next race, of the markets that have one, for `recalibrate_events`.

    Parameters
    ----------
    state : xarray.DataTree
        As returned by `filter_events`.
    race : int
        race_id.
    archetype, fold, season
        Of the next race.
    """
    states = {
        market: next_race_state(part, archetype, fold, season) for market, part in state.children.items()
    }
    return {market: own.expand_dims(race=[race]) for market, own in states.items() if own is not None}


def recalibrate_events(forecasts: pl.DataFrame, states: Mapping[str, xr.Dataset]) -> pl.DataFrame:
    """Recalibrate the event probabilities of races that have a state; the others stay as issued.

    Parameters
    ----------
    forecasts : polars.DataFrame
        `EventProbabilities`.
    states : mapping
        Market -> log_slope and noise_sigma (race, draw), with the coordinate race.

    Returns
    -------
    polars.DataFrame
        `EventProbabilities`: the same rows. In each recalibrated market of a race the probabilities sum to
        the number of winners.
    """
    parts = []
    for market, own in states.items():
        n_winners = EVENT_MARKETS[market]
        rows = market_rows(
            forecasts.with_row_index()
            .filter(pl.col("market") == market, pl.col("race_id").is_in(own["race"].values.tolist()))
            .filter(pl.len().over("race_id") > n_winners)
            .sort("race_id", maintain_order=True)
        )
        known = own.sel(race=rows.races["race_id"].to_numpy())
        log_slope, noise_sigma = (
            known[name].transpose("race", "draw").values.astype(np.float64)
            for name in ("log_slope", "noise_sigma")
        )
        # Each draw has its own race noise: even quantiles in a fixed random order.
        eps = np.random.default_rng(0).permutation(even_normals(log_slope.shape[1]))[:, None]
        points, _ = spread_noise(log_slope, noise_sigma, eps, PREDICTION_POINTS)
        p = mean_probabilities(rows.event_races(market), points, n_winners)
        parts.append(rows.rows.select("index", recalibrated=pl.Series(p[rows.is_car])))
    if not parts:
        return forecasts
    new = forecasts.with_row_index().join(pl.concat(parts), on="index", how="left", maintain_order="left")
    return new.select(
        *(name for name in forecasts.columns if name != "probability"),
        probability=pl.coalesce("recalibrated", "probability"),
    ).select(forecasts.columns)


def _scored_markets(
    forecasts: pl.DataFrame, results: pl.DataFrame, fold_races: int | None
) -> dict[str, MarketRows]:
    """Return the rows of races with results and evidence, by market and in order of time."""
    known = results.select("race_id", "driver_id", *RESULTS)
    scored = forecasts.join(
        results.select("race_id").unique(), on="race_id", how="semi", maintain_order="left"
    )
    joined = join_results(scored, known, "forecast").with_columns(
        fold=fold_name(pl.col("season"), pl.col("round"), fold_races)
    )
    issued = set(forecasts["market"].unique())
    return {
        market: market_rows(
            joined.filter(pl.col("market") == market)
            .filter(pl.len().over("race_id") > last)
            .sort("race_order", maintain_order=True)
        )
        for market, last in EVENT_MARKETS.items()
        if market in issued
    }


def _calendar(rows: MarketRows) -> Calendar:
    """Return the races of a market in order of time, without curves."""
    races = rows.races
    index = {str(archetype): a for a, archetype in enumerate(ARCHETYPES)}
    return Calendar(
        races["race_id"].cast(pl.Int64).to_numpy(),
        races["race_order"].cast(pl.Int64).to_numpy(),
        np.array(races["fold"].to_list(), dtype=str),
        np.array([index[name] for name in races["archetype"]], dtype=int),
        {},
    )


def _fit_market(market: str, rows: MarketRows, seasons: list[int], settings: dict[str, int]) -> xr.DataTree:
    """Fit one market: the child of `fit_events`."""
    calendar, labels = _calendar(rows), season_labels(seasons)
    check_seasons(calendar, seasons)
    tables = tabulate_noise(tabulate(rows.event_races(market)))
    group = calendar.archetype * len(labels) + np.searchsorted(seasons, calendar.season)
    sums = np.zeros((len(ARCHETYPES) * len(labels), *tables.shape[1:]), np.float32)
    coords: dict[str, Sequence[object]] = {"archetype": [str(a) for a in ARCHETYPES], "season": labels}
    n_races = len(calendar.race)
    added, slow, convergence = 0, {}, {}
    for fold, own in [*fold_ranges(calendar), (LATEST, range(n_races, n_races))]:
        for race in range(added, own.start):  # one by one: later races change no bit of the sum
            sums[group[race]] += tables[race]
        added = own.start
        if own.start >= MIN_CALIBRATION_RACES or fold == LATEST:
            mcmc = _sample(sums.reshape(len(ARCHETYPES), len(labels), *tables.shape[1:]), settings)
            posterior, stats = posterior_group(mcmc, POOLED_PARAMETERS, coords), sample_stats_group(mcmc)
            slow[fold] = slow_group(posterior, calendar.until(own.start))
            drawn = {name: posterior[name].values for name in JUDGED}
            convergence[fold] = drawn, int(stats["diverging"].sum())
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    tree["slow"] = xr.DataTree(xr.concat(slow.values(), dim=xr.Variable("fold", list(slow))))
    tree["convergence"] = xr.DataTree(convergence_group(convergence.items()))
    tree.attrs = {"market": market, "n_races": n_races}
    return tree


def _sample(sums: np.ndarray, settings: dict[str, int]) -> MCMC:
    """Sample the parameters of a market, from sums of tables over the races before a fold."""
    # The sampler may still read its arguments when later races are added.
    return run_nuts(pooled_event_model, (sampler_tables(sums.copy(), BOX, PRIOR_SLOPE_MU),), **settings)
