"""Recalibration of scenarios by a latent fit: recalibrated forecasts, and the next race's posterior."""

import numpy as np
import xarray as xr

from calibration_pipeline.calibration.archetype_races import network_field, raw_forecast
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.scenarios.draw.ensemble import draw_races
from calibration_pipeline.scenarios.network.model import Recalibration


def draw_recalibrations(
    fit: xr.DataTree, races: xr.Dataset, n_scenarios: int, seed: int
) -> dict[int, Recalibration]:
    """Draw the recalibration of every scenario, for the races whose fold has a fit.

    Each scenario has its own posterior draw and race-level noise, so that the ensemble contains the
    uncertainty of the fit.

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.
    races : xarray.Dataset
        Coordinates race, fold, season (race).
    n_scenarios : int
    seed : int

    Returns
    -------
    dict
        race_id -> `Recalibration` of arrays (scenario). Races of a fold without a fit are missing:
        their forecast stays raw.
    """
    walk = fit["walk_forward"].to_dataset()
    fitted = set(walk["fold"].values.tolist())
    labels = zip(*(races[name].values.tolist() for name in ("race", "fold", "season")), strict=True)
    return {
        race: draw_recalibration(walk.sel(fold=fold, season=season), race, n_scenarios, seed)
        for race, fold, season in labels
        if fold in fitted
    }


def recalibrate(races: xr.DataTree, fit: xr.DataTree, seed: int) -> xr.Dataset:
    """Return the recalibrated forecast of an archetype's races.

    Races of the causal network are redrawn from the networks of their folds. A user's own scenarios are
    re-ranked. Races of a fold without a fit keep the raw scenarios.

    Parameters
    ----------
    races : xarray.DataTree
        `ArchetypeRaces`.
    fit : xarray.DataTree
        `CalibrationPosterior`.
    seed : int

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble` of the same races and cars.
    """
    raw = raw_forecast(races)
    changes = draw_recalibrations(fit, raw, raw.sizes["scenario"], seed)
    if not (raw["network_as_of"].values > 0).all():
        return rerank_races(raw, changes, seed)
    labels = raw.drop_dims("scenario").drop_vars("network_as_of").coords.to_dataset()
    network = races["network"].to_dataset()
    return draw_races(labels, network_field(races), network, raw.sizes["scenario"], seed, changes)[0]


def next_race_posterior(fit: xr.DataTree, fold: str, season: int) -> xr.Dataset | None:
    """Return the calibration posterior of the next race, chosen as in the backtest.

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.
    fold : str
        Fold of the next race. The fold's fit applies where there is one; else the latest fit.
    season : int

    Returns
    -------
    xarray.Dataset or None
        log_slope, noise_sigma, intercept (chain, draw) and n_calibration_races, the races that the fit saw;
        None where the archetype has too few for a fit.
    """
    walk = fit["walk_forward"].to_dataset()
    if fold in walk["fold"].values:
        return walk.sel(fold=fold, season=season)
    if fit.attrs["n_races"] >= fit.attrs["min_races"]:
        latest = fit["posterior"].to_dataset().sel(season=season)
        return latest.assign(n_calibration_races=fit.attrs["n_races"])
    return None


def draw_recalibration(posterior: xr.Dataset, race: int, n_scenarios: int, seed: int) -> Recalibration:
    """Draw the recalibration of every scenario of one race, as `draw_recalibrations` does.

    Parameters
    ----------
    posterior : xarray.Dataset
        As returned by `next_race_posterior`.
    race : int
        race_id.
    n_scenarios, seed : int
    """
    return _draw(posterior, n_scenarios, np.random.default_rng([seed, race]))


def _draw(posterior: xr.Dataset, n_scenarios: int, rng: np.random.Generator) -> Recalibration:
    flat = {name: posterior[name].values.ravel() for name in ("log_slope", "noise_sigma", "intercept")}
    draw = rng.integers(len(flat["log_slope"]), size=n_scenarios)
    noise = flat["noise_sigma"][draw] * rng.standard_normal(n_scenarios)
    return Recalibration(
        log_sharpness=(flat["log_slope"][draw] + noise).astype(np.float32),
        incident_shift=flat["intercept"][draw].astype(np.float32),
    )
