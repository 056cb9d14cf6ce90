"""Summary frames of networks and ensembles, for plots and tables."""

import numpy as np
import polars as pl
import xarray as xr


def finish_chances(ensemble: xr.Dataset) -> pl.DataFrame:
    """Win, top 5, top 10 and retirement probabilities of each car of the last race.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.

    Returns
    -------
    polars.DataFrame
        driver, car_number (if known), start_position, win, top5, top10, dnf (shares of the scenarios), the
        likeliest winner first; no rows if the ensemble has no races. dnf is null where the ensemble lacks
        `running`.
    """
    if ensemble.sizes["race"] == 0:
        return pl.DataFrame(
            schema={
                "driver": pl.String,
                "car_number": pl.String,
                "start_position": pl.Int64,
                **dict.fromkeys(("win", "top5", "top10", "dnf"), pl.Float64),
            }
        )
    cars = ensemble.isel(race=-1)
    cars = cars.isel(driver=slice(int(cars["field_size"])))
    finish = cars["finish_position"].transpose("scenario", "driver").values
    number = cars["car_number"].values if "car_number" in cars.coords else np.full(cars.sizes["driver"], "")
    return pl.DataFrame(
        {
            "driver": cars["name"].values.astype(str),
            "car_number": number.astype(str),
            "start_position": cars["start_position"].values.astype(np.int64),
            "win": (finish == 1).mean(axis=0),
            "top5": (finish <= 5).mean(axis=0),
            "top10": (finish <= 10).mean(axis=0),
            "dnf": 1 - cars["running"].transpose("scenario", "driver").values.mean(axis=0)
            if "running" in cars
            else None,
        },
        schema_overrides={"dnf": pl.Float64},
    ).sort("win", "top5", "top10", descending=True)


def weight_estimates(network: xr.Dataset) -> pl.DataFrame:
    """Pace weights of a network's last fold, with the central 95 % of their draws.

    Parameters
    ----------
    network : xarray.Dataset
        `CausalNetwork`.

    Returns
    -------
    polars.DataFrame
        archetype, covariate, estimate, lower, upper; no rows if the network has no fold.
    """
    columns = ("archetype", "covariate", "estimate", "lower", "upper")
    if network.sizes["fold"] == 0:
        return pl.DataFrame(schema={n: pl.String if i < 2 else pl.Float64 for i, n in enumerate(columns)})
    weight = network["pace_weight"].isel(fold=-1).transpose("archetype", "pace_covariate", "draw").values
    lower, upper = np.quantile(weight, (0.025, 0.975), axis=-1)
    archetype, covariate = np.meshgrid(
        network["archetype"].values, network["pace_covariate"].values, indexing="ij"
    )
    values = (archetype, covariate, weight.mean(axis=-1), lower, upper)
    return pl.DataFrame(dict(zip(columns, (value.ravel() for value in values), strict=True)))
