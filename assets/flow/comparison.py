"""Group `comparison`: all forecasters side by side, and their blend.

Modules that need JAX are imported inside the functions that compute.
"""

from collections.abc import Mapping

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.forecasters.folder import NETWORK

from ..partitions import every_season
from ..settings import Settings
from ..storage.io_manager import ALLOW_MISSING, depends_on
from .metadata import rows, table

existing_partitions = dg.AssetIn(metadata={ALLOW_MISSING: True})
SHOWN = (
    *("archetype", "market", "forecast", "rank", "forecaster"),
    *("score", "gain_over_network", "verdict", "n_shared"),
)


@dg.multi_asset(
    outs={
        "blend_weights": dg.AssetOut(
            description="Weights of the forecasters in the blend before each race, by earlier log scores.",
            kinds={"polars", "parquet"},
            code_version="2",
        ),
        "market_scores": dg.AssetOut(
            description="Scores of every forecaster, the blend and climatology, by race and market.",
            kinds={"polars", "parquet"},
            code_version="3",
        ),
    },
    ins={
        "race_results": dg.AssetIn(partition_mapping=every_season),
        **dict.fromkeys(
            (
                "backtest",
                "event_probabilities",
                "recalibrated_events",
                "position_probabilities",
                "position_state",
                "recalibrated_positions",
            ),
            existing_partitions,
        ),
    },
)
def scores_of_forecasters(
    race_results: dict[str, pl.DataFrame],
    backtest: dict[str, xr.Dataset],
    event_probabilities: dict[str, pl.DataFrame],
    recalibrated_events: dict[str, pl.DataFrame],
    position_probabilities: dict[str, xr.Dataset],
    position_state: dict[str, xr.DataTree],
    recalibrated_positions: dict[str, xr.Dataset],
    race_forecast: dict[str, xr.Dataset],
) -> tuple[dg.Output[pl.DataFrame], dg.Output[pl.DataFrame]]:
    """Scores of every forecaster by race and market, and the weights of the blend."""
    from calibration_pipeline.comparison.all_forecasters import compare_forecasters

    compared = compare_forecasters(
        backtest,
        by_forecast(event_probabilities, recalibrated_events),
        by_forecast(position_probabilities, recalibrated_positions),
        position_state,
        pl.concat(race_results.values()),
        race_forecast[NETWORK],
    )
    forecasters = {"forecasters": ", ".join(compared.forecasters)}
    return (
        dg.Output(compared.weights, metadata=rows(compared.weights)),
        dg.Output(compared.scores, metadata={**rows(compared.scores), **forecasters}),
    )


@dg.asset(kinds={"polars", "parquet"}, code_version="1")
def leaderboard(market_scores: pl.DataFrame) -> dg.Output[pl.DataFrame]:
    """Forecasters by market and archetype: scores, differences to the network, evidence and verdict."""
    from calibration_pipeline.comparison.leaderboard import rank_forecasters

    board = rank_forecasters(market_scores)
    return dg.Output(board, metadata={**rows(board), "leaderboard": table(board.select(SHOWN), 60)})


@dg.asset(kinds={"polars", "parquet"}, code_version="2")
def forecaster_chances(
    forecast_chances: dict[str, pl.DataFrame],
    next_events: dict[str, pl.DataFrame],
    next_positions: dict[str, pl.DataFrame],
    blend_weights: pl.DataFrame,
) -> dg.Output[pl.DataFrame]:
    """Probabilities of the next race by every forecaster, recalibrated, and by their blend."""
    from calibration_pipeline.comparison.next_race import compare_next_race, side_by_side

    chances = compare_next_race(forecast_chances, next_events | next_positions, blend_weights)
    wins = side_by_side(chances.filter(market="win"))
    return dg.Output(chances, metadata={**rows(chances), "win": table(wins, 45)})


@dg.asset(kinds={"numpy", "netcdf"}, code_version="2", metadata=depends_on("seed", "scenarios"))
def blend_forecast(
    settings: dg.ResourceParam[Settings], race_forecast: dict[str, xr.Dataset], blend_weights: pl.DataFrame
) -> dg.Output[xr.Dataset]:
    """Scenarios of the next race: whole scenarios of the forecasters, in proportion to their weights."""
    from calibration_pipeline.comparison.blend import mix_scenarios

    members = {name: forecast for name, forecast in race_forecast.items() if forecast.sizes["race"]}
    if NETWORK in members and len(members) > 1 and blend_weights.height:
        mixed = mix_scenarios(members, blend_weights, "recalibrated", settings.scenarios, settings.seed)
    else:
        mixed = race_forecast[NETWORK]
    return dg.Output(mixed, metadata={"races": mixed.sizes["race"], "forecasters": ", ".join(members)})


def by_forecast[T](raw: Mapping[str, T], recalibrated: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Return raw and recalibrated forecasts together, by forecaster."""
    return {name: {"raw": raw[name], "recalibrated": own} for name, own in recalibrated.items()}
