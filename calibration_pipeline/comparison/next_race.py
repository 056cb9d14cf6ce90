"""Probabilities of the next race by every forecaster and by their blend, side by side."""

from collections.abc import Mapping

import polars as pl

from calibration_pipeline.comparison.blend import blend_events
from calibration_pipeline.comparison.pool_weights import BLEND
from calibration_pipeline.schemas.comparison import ForecasterChances

MARKETS = {"win": "win", "top5": "top 5", "top10": "top 10"}
"""Column of `ForecastChances` to its market."""
KEYS = ("race_id", "driver_id", "market")


def compare_next_race(
    chances: Mapping[str, pl.DataFrame], events: Mapping[str, pl.DataFrame], weights: pl.DataFrame
) -> pl.DataFrame:
    """Join the recalibrated probabilities of all forecasters that have the next race, and their blend.

    Parameters
    ----------
    chances : mapping of str to polars.DataFrame
        Forecaster to `ForecastChances`; the tables of forecasters without the race are empty.
    events : mapping of str to polars.DataFrame
        Forecaster to `EventProbabilities` of the next race, recalibrated; possibly empty.
    weights : polars.DataFrame
        `BlendWeights`, with the next race.

    Returns
    -------
    polars.DataFrame
        `ForecasterChances`, the blend last. Markets of the network's chances alone; empty without a race.

    Raises
    ------
    ValueError
        If two forecasters have different cars.
    """
    tables = {name: frame.select("race_id", "driver_id", *MARKETS) for name, frame in chances.items()}
    members = {name: _unpivot(frame) for name, frame in tables.items() if frame.height}
    members |= {
        name: frame.filter(pl.col("market").is_in(list(MARKETS.values()))).select(*KEYS, "probability")
        for name, frame in events.items()
        if frame.height
    }
    drivers = pl.concat(
        [frame.select("race_id", "driver_id", "driver") for frame in chances.values()]
    ).unique()
    forecasts = {name: frame.with_columns(forecast=pl.lit("recalibrated")) for name, frame in members.items()}
    if len(members) > 1 and weights.height:
        members[BLEND] = blend_events(forecasts, weights).select(*KEYS, "probability")
    joined = [
        frame.join(drivers, on=["race_id", "driver_id"]).select(
            "race_id",
            "driver_id",
            "driver",
            pl.lit(name).alias("forecaster"),
            "market",
            "probability",
        )
        for name, frame in members.items()
    ]
    return pl.concat([ForecasterChances.empty(), *joined])


def side_by_side(chances: pl.DataFrame) -> pl.DataFrame:
    """Return a row a car, with its name and the probability of each forecaster.

    Two cars may show the same name, such as that of a driver who is to be announced.

    Parameters
    ----------
    chances : polars.DataFrame
        `ForecasterChances` of one market.

    Returns
    -------
    polars.DataFrame
        driver, and a column for each forecaster.
    """
    wide = chances.pivot("forecaster", index=["driver_id", "driver"], values="probability")
    return wide.drop("driver_id")


def _unpivot(chances: pl.DataFrame) -> pl.DataFrame:
    long = chances.unpivot(
        list(MARKETS), index=["race_id", "driver_id"], variable_name="market", value_name="probability"
    )
    return long.with_columns(pl.col("market").replace_strict(MARKETS)).select(*KEYS, "probability")
