"""Summary frames of fits and of the state, for plots, checks and reports."""

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.mcmc.priors import SCALARS

INTERVAL = 0.95
INFORMED = 0.2
"""Smallest contraction of a parameter that the data inform: its standard deviation is then at most 0.9 of the
prior's. The Monte Carlo error of a contraction is about 0.04."""
PREDICTIVE_CHECKS = {
    "archetype": pl.String,
    "statistic": pl.String,
    "group": pl.String,
    "observed": pl.Float64,
    "mean": pl.Float64,
    "lower": pl.Float64,
    "upper": pl.Float64,
    "tail_probability": pl.Float64,
}


def convergence_by_fold(fit: xr.DataTree) -> pl.DataFrame:
    """Convergence of every fit of a tree: the latest one, and, if pooled, one a fold.

    Parameters
    ----------
    fit : xarray.DataTree
        As returned by `archetype_fit.fit_archetype`, or by `pooling.fit_pooled`.

    Returns
    -------
    polars.DataFrame
        fold, parameter, r_hat, ess_bulk, ess_tail, divergences (of the fold's whole fit).
    """
    convergence = fit["convergence"].to_dataset()
    columns = ("r_hat", "ess_bulk", "ess_tail")
    each = convergence[[*columns, "divergences"]].to_dataframe(dim_order=("fold", "parameter")).reset_index()
    return pl.DataFrame(each.to_dict("list")).select(
        "fold", "parameter", pl.col(columns).fill_nan(None), pl.col("divergences").cast(pl.Int64)
    )


def state_by_race(state: xr.DataTree) -> pl.DataFrame:
    """Calibration slope, shift and front tilt before every race that has a state, in order of time.

    Parameters
    ----------
    state : xarray.DataTree
        `CalibrationState`.

    Returns
    -------
    polars.DataFrame
        archetype, season, race_order, race_id, n_calibration_races, and mean and central 95 % interval:
        slope, shift and tilt (a factor: 1 is calibrated), each with _lower and _upper. States of forecasts
        that are no scenarios have no tilt.
    """
    races = state["races"].to_dataset()
    tail = (1 - INTERVAL) / 2
    columns = {
        "archetype": races["archetype"].values.astype(str),
        **{name: races[name].values.astype(np.int64) for name in ("season", "race_order")},
        "race_id": races["race"].values,
        "n_calibration_races": races["n_calibration_races"].values.astype(np.int64),
    }
    quantities = {"slope": np.exp(races["log_slope"].values), "shift": races["intercept"].values}
    if "front_tilt" in races:
        quantities["tilt"] = np.exp(races["front_tilt"].values)
    for name, draws in quantities.items():
        columns[name] = draws.mean(axis=1, dtype=np.float64)
        lower, upper = np.quantile(draws.astype(np.float64), (tail, 1 - tail), axis=1)
        columns |= {f"{name}_lower": lower, f"{name}_upper": upper}
    return pl.DataFrame(columns)


def slope_by_season(fit: xr.DataTree, archetype: str) -> pl.DataFrame:
    """Calibration slope of every season of a fit, and of the season after the last.

    Parameters
    ----------
    fit : xarray.DataTree
        As returned by `archetype_fit.fit_archetype`, or by `pooling.fit_pooled`.
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
    """Contraction of each parameter of the latest fit from prior to posterior.

    Parameters
    ----------
    fit : xarray.DataTree
        As returned by `archetype_fit.fit_archetype`.

    Returns
    -------
    polars.DataFrame
        archetype, parameter (`log_slope[2021]` for the log slope of a season), mean,
        lower, upper (95 % highest density), contraction = 1 - posterior variance / prior variance (Schad,
        Betancourt and Vasishth 2021, https://doi.org/10.1037/met0000275): near 0 the posterior is the prior;
        informed, whether it is at least `INFORMED`.
    """
    import arviz as az  # imported lazily: code that only reads stored diagnostics does not need it

    after = _scalar_draws(fit["posterior"].to_dataset())
    before = _scalar_draws(fit["prior"].to_dataset())
    draws = np.array(list(after.values()))
    prior_variance = np.array([values.var() for values in before.values()])
    lower, upper = np.array([az.hdi(values, prob=INTERVAL) for values in draws]).T
    contraction = 1 - draws.var(axis=1) / prior_variance
    return pl.DataFrame(
        {
            "archetype": [str(fit.attrs["archetype"])] * len(after),
            "parameter": list(after),
            "mean": draws.mean(axis=1),
            "lower": lower,
            "upper": upper,
            "contraction": contraction,
            "informed": contraction >= INFORMED,
        }
    )


def _scalar_draws(group: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """Parameter or `log_slope[season]` -> draws of all chains."""
    draws = {name: group[name].values.astype(np.float64).ravel() for name in SCALARS}
    by_season = group["log_slope"].transpose("season", "chain", "draw")
    labels = by_season["season"].values
    rows = by_season.values.astype(np.float64).reshape(len(labels), -1)
    return draws | {
        f"log_slope[{season}]": values for season, values in zip(labels.tolist(), rows, strict=True)
    }


def predictive_checks(fit: xr.DataTree) -> pl.DataFrame:
    """Compare statistics of the observed races with the map's predictions, before and after the fit.

    Parameters
    ----------
    fit : xarray.DataTree
        As returned by `archetype_fit.fit_archetype`.

    Returns
    -------
    polars.DataFrame
        archetype, statistic (rank_correlation, n_incidents: see `latent_predictive`), group (prior or
        posterior), observed (mean over races), mean, lower, upper (of the replicated means over races,
        central 95 %), tail_probability: twice the share of replicated means at least as far out as the
        observed one, on its side, ties counted half (posterior predictive p-value, Gelman, Meng & Stern 1996,
        Statistica Sinica 6:733). Small: the map does not reproduce the races. No rows without races.
    """
    rows = []
    for statistic, observed in fit["observed_data"].to_dataset().data_vars.items():
        if not observed.size:
            continue
        happened = float(observed.mean())
        for group in ("prior", "posterior"):
            races = fit[f"{group}_predictive"].to_dataset()[str(statistic)]
            replicated = races.mean("race").values.ravel()
            tied = np.isclose(replicated, happened)
            above = float(np.where(tied, 0.5, replicated > happened).mean())
            lower, upper = np.quantile(replicated, ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))
            rows.append(
                {
                    "archetype": str(fit.attrs["archetype"]),
                    "statistic": str(statistic),
                    "group": group,
                    "observed": happened,
                    "mean": float(replicated.mean()),
                    "lower": float(lower),
                    "upper": float(upper),
                    "tail_probability": 2 * min(above, 1 - above),
                }
            )
    return pl.DataFrame(rows, schema=PREDICTIVE_CHECKS)


def worst_convergence(convergence: pl.DataFrame) -> dict[str, float]:
    """Return the worst diagnostics of all fits; an empty dict without fits.

    Parameters
    ----------
    convergence : polars.DataFrame
        As `convergence_by_fold` returns it.
    """
    worst = convergence.select(
        worst_r_hat=pl.max("r_hat"), least_ess_bulk=pl.min("ess_bulk"), least_ess_tail=pl.min("ess_tail")
    ).row(0, named=True)
    known = {name: value for name, value in worst.items() if value is not None}
    return {**known, "divergences": int(convergence.unique("fold")["divergences"].sum())} if known else {}
