"""Walk-forward recalibration of every season by the state before its races, for `repair` and `forecasts`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from benchmarks.evaluation import draw_seasons
from calibration_pipeline.calibration.pooling import fit_pooled
from calibration_pipeline.calibration.race_curves import join_curves, observe, tabulate_races
from calibration_pipeline.calibration.recalibration import draw_recalibrations
from calibration_pipeline.calibration.state import MIN_CALIBRATION_RACES, filter_state
from calibration_pipeline.models import predict_with_calibrated_model, run_mcmc_calibration
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.scenarios.probabilities import finish_probabilities

SETTINGS: dict[str, Any] = {"n_warmup": 300, "n_samples": 500, "n_chains": 2}
"""NUTS settings of the marginal map; only posterior means are used."""


def fit_state(
    ensembles: Iterable[xr.Dataset], results: pl.DataFrame, seasons: Sequence[int], seed: int = 1
) -> tuple[xr.Dataset, xr.DataTree, xr.DataTree]:
    """Fit all archetypes together, and filter the state before every race, as the pipeline does.

    Parameters
    ----------
    ensembles : iterable of xarray.Dataset
        `ScenarioEnsemble` of seasons or of archetypes.
    results : polars.DataFrame
    seasons : sequence of int
        Seasons of the walk.
    seed : int

    Returns
    -------
    curves : xarray.Dataset
        `RaceCurves` of all races.
    pooled, state : xarray.DataTree
        `PooledPosterior` and `CalibrationState`.
    """
    curves = join_curves(tabulate_races(races, results, seed) for races in ensembles)
    pooled = fit_pooled(curves, list(seasons), seed=seed)
    return curves, pooled, filter_state(curves, pooled, seed)


def recalibrate_seasons(
    features: pl.DataFrame,
    networks: Mapping[int, xr.Dataset],
    raw: Sequence[xr.Dataset],
    results: pl.DataFrame,
    seasons: Sequence[int],
    seed: int = 1,
) -> list[xr.Dataset]:
    """Recalibrate seasons by the state: draw new scenarios from the networks of the raw scenarios.

    Parameters
    ----------
    features, results : polars.DataFrame
    networks : mapping
        Season -> network, for all seasons of `raw`.
    raw : sequence of xarray.Dataset
        `ScenarioEnsemble` of every season of `networks`.
    seasons : sequence of int
        Seasons to draw.
    seed : int

    Returns
    -------
    list of xarray.Dataset
        `ScenarioEnsemble` of each of `seasons`.
    """
    n_scenarios = raw[0].sizes["scenario"]
    states = fit_state(raw, results, list(networks), seed)[2]["races"].to_dataset()
    changes: dict[int, Recalibration] = {}
    for ensemble in raw:
        ahead = ensemble.isel(race=np.isin(ensemble["season"].values, seasons))
        changes |= draw_recalibrations(states, ahead, n_scenarios, seed)
    return draw_seasons(features, {s: networks[s] for s in seasons}, n_scenarios, changes, seed)


def map_tables(ensemble: xr.Dataset, results: pl.DataFrame, seasons: Sequence[int]) -> NDArray[np.float64]:
    """Recalibrate the finish probabilities of one archetype by the marginal map.

    Each season has a slope if the earlier races cover several seasons.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble` of one archetype, all seasons.
    results : polars.DataFrame
    seasons : sequence of int
        Seasons to recalibrate. Earlier seasons stay raw, as do seasons with fewer than three races to fit.

    Returns
    -------
    array, shape (race, driver, position)
    """
    table = finish_probabilities(ensemble["finish_position"].values, ensemble["field_size"].values)
    finish = observe(ensemble, results).finish_position
    recalibrated = table.copy()
    season, kind = ensemble["season"].values, str(ensemble["archetype"].values[0])
    for now in seasons:
        seen, ahead = season < now, season == now
        if seen.sum() >= MIN_CALIBRATION_RACES and ahead.any():
            several = season[seen] if len(np.unique(season[seen])) > 1 else None
            samples, _ = run_mcmc_calibration(finish[seen], table[seen], kind, **SETTINGS, season=several)
            recalibrated[ahead] = predict_with_calibrated_model(samples, table[ahead], kind)
    return recalibrated
