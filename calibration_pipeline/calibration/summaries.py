"""What plots, checks and reports show of an archetype's fits, as frames."""

import arviz as az
import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.calibration.convergence import Convergence, judge_convergence
from calibration_pipeline.calibration.draws import Samples, read_draws
from calibration_pipeline.calibration.walk_forward import PARAMETERS

LATEST = "latest"
INTERVAL = 0.95
SCALARS = ("slope_mu", "slope_sigma", "noise_sigma", "intercept")


def convergence_by_fold(fit: xr.DataTree) -> pl.DataFrame:
    """Convergence of every fit of an archetype: one a fold, and the latest.

    Parameters
    ----------
    fit : xarray.DataTree
        As made by `walk_forward.fit_archetype`, or by `pooling.fit_pooled`, which has the latest alone.

    Returns
    -------
    polars.DataFrame
        fold, parameter, r_hat, ess_bulk, ess_tail, divergences (of the fold's whole fit).
    """
    tables = []
    if "walk_forward" in fit.children:
        folds = fit["walk_forward"].to_dataset()
        for fold in folds["fold"].values:
            one = folds.sel(fold=fold)
            tables.append(_table(str(fold), _fold_draws(one), int(one["diverging"].sum())))
    latest = fit["sample_stats"]["diverging"]
    return pl.concat([*tables, _table(LATEST, fit, int(latest.sum()))])


def _fold_draws(posterior: xr.Dataset) -> Samples:
    return {name: posterior[name].transpose("chain", "draw", ...).values for name in PARAMETERS}


def _table(fold: str, samples: Samples, divergences: int) -> pl.DataFrame:
    convergence: Convergence = judge_convergence(read_draws(samples))
    return convergence.table.select(
        pl.lit(fold).alias("fold"), pl.all(), pl.lit(divergences, pl.Int64).alias("divergences")
    )


def slope_by_season(fit: xr.DataTree, archetype: str) -> pl.DataFrame:
    """Calibration slope of every season of a fit, the coming one last.

    Parameters
    ----------
    fit : xarray.DataTree
        As made by `walk_forward.fit_archetype`, or by `pooling.fit_pooled`.
    archetype : str

    Returns
    -------
    polars.DataFrame
        archetype, season, estimate (posterior median), lower, upper (central 95 %).
    """
    log_slope = fit["posterior"].to_dataset()["log_slope"]
    if "archetype" in log_slope.dims:
        log_slope = log_slope.sel(archetype=archetype)
    slope = np.exp(log_slope.transpose("chain", "draw", "season").values)
    tail = (1 - INTERVAL) / 2
    lower, median, upper = np.quantile(slope, (tail, 0.5, 1 - tail), axis=(0, 1))
    return pl.DataFrame(
        {
            "archetype": [archetype] * slope.shape[-1],
            "season": log_slope["season"].values.astype(np.int64),
            "estimate": median,
            "lower": lower,
            "upper": upper,
        }
    )


def identification(fit: xr.DataTree) -> pl.DataFrame:
    """What the data said about each parameter of the latest fit.

    Parameters
    ----------
    fit : xarray.DataTree
        As made by `walk_forward.fit_archetype`.

    Returns
    -------
    polars.DataFrame
        archetype, parameter, mean, lower, upper (95 % highest density), contraction = 1 - posterior
        variance / prior variance (Schad, Betancourt and Vasishth 2021, https://doi.org/10.1037/met0000275):
        near 0 the posterior is the prior.
    """
    rows = []
    after, before = fit["posterior"].to_dataset(), fit["prior"].to_dataset()
    for name in SCALARS:
        posterior = after[name].values
        lower, upper = az.hdi(posterior.ravel(), prob=INTERVAL)
        rows.append(
            {
                "archetype": str(fit.attrs["archetype"]),
                "parameter": name,
                "mean": float(posterior.mean()),
                "lower": float(lower),
                "upper": float(upper),
                "contraction": float(1 - posterior.var() / before[name].values.var()),
            }
        )
    return pl.DataFrame(rows)
