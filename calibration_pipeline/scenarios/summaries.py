"""Summary frames of networks and ensembles, for plots and tables."""

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.scenarios.probabilities import finish_probabilities

CHANCES = ("win", "top5", "top10", "dnf")


def car_chances(race: xr.Dataset) -> NDArray[np.float64]:
    """Return the probabilities `CHANCES` of each car, smoothed by half a count as in the backtest.

    Parameters
    ----------
    race : xarray.Dataset
        One race of a `ScenarioEnsemble`, without padding.

    Returns
    -------
    array, shape (car, chance)
        `probabilities.finish_probabilities` summed over positions; (retirements + 1/2) / (S + 1), NaN where
        the race lacks `running`.
    """
    finish = race["finish_position"].transpose("scenario", "driver").values
    n_scenarios, n_cars = finish.shape
    inside = np.cumsum(finish_probabilities(finish[None], np.array([n_cars]))[0], axis=1)
    dnf = np.full(n_cars, np.nan)
    if "running" in race:
        out = ~race["running"].transpose("scenario", "driver").values
        dnf = (out.sum(axis=0) + 0.5) / (n_scenarios + 1)
    tops = [np.minimum(inside[:, min(limit, n_cars) - 1], 1.0) for limit in (1, 5, 10)]
    return np.stack([*tops, dnf], axis=1)


def finish_chances(ensemble: xr.Dataset) -> pl.DataFrame:
    """Win, top 5, top 10 and retirement probabilities of each car of the last race.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`.

    Returns
    -------
    polars.DataFrame
        driver, car_number (if known), start_position, win, top5, top10, dnf (as in `car_chances`), the
        likeliest winner first; no rows if the ensemble has no races. dnf is null where the ensemble lacks
        `running`.
    """
    if ensemble.sizes["race"] == 0:
        return pl.DataFrame(
            schema={
                "driver": pl.String,
                "car_number": pl.String,
                "start_position": pl.Int64,
                **dict.fromkeys(CHANCES, pl.Float64),
            }
        )
    cars = ensemble.isel(race=-1)
    cars = cars.isel(driver=slice(int(cars["field_size"])))
    number = cars["car_number"].values if "car_number" in cars.coords else np.full(cars.sizes["driver"], "")
    return pl.DataFrame(
        {
            "driver": cars["name"].values.astype(str),
            "car_number": number.astype(str),
            "start_position": cars["start_position"].values.astype(np.int64),
            **dict(zip(CHANCES, car_chances(cars).T, strict=True)),
        },
        nan_to_null=True,
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
