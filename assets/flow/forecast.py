"""Group `forecast`: the next race, recalibrated exactly as the backtest that was scored.

Modules that need JAX are imported inside the functions that compute.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.events.files import judged_events
from calibration_pipeline.forecasters.folder import Form, find_forecasters
from calibration_pipeline.sources.base import Source
from calibration_pipeline.sources.names import read_nicknames
from calibration_pipeline.sources.news import entry_version

from ..partitions import FORECASTERS, every_season
from ..settings import Settings
from ..storage.io_manager import SOURCE_VERSION, depends_on
from .metadata import chart, number, rows, table

TABLES = {
    "forecast_chances": "Probabilities of each car of the next race: win, top 5, top 10, retirement.",
    "forecast_events": "Probabilities of the joint events in the next race, with intervals.",
    "forecast_scenarios": "The calibrated scenarios of the next race in long form, for an optimizer.",
}
SHOWN_ROWS = 45
SETTINGS = depends_on("seed", "scenarios", "fold_races", "network", "forecaster_files", "events")
OF_EVERY_SEASON = ("race_results", "lap_aggregates", "driver_features", "causal_network")


@dg.multi_asset(
    name="next_race",
    partitions_def=FORECASTERS,
    ins=dict.fromkeys(OF_EVERY_SEASON, dg.AssetIn(partition_mapping=every_season)),
    outs={
        "race_forecast": dg.AssetOut(
            description="Calibrated scenarios of the next race that has not run, as NetCDF.",
            kinds={"jax", "netcdf"},
            code_version="9",
            metadata=SETTINGS,
        ),
        **{
            name: dg.AssetOut(
                description=description, kinds={"polars", "parquet"}, code_version="5", metadata=SETTINGS
            )
            for name, description in TABLES.items()
        },
    },
)
def next_race(
    context: dg.AssetExecutionContext,
    source: dg.ResourceParam[Source],
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    lap_aggregates: dict[str, pl.DataFrame],
    driver_features: dict[str, pl.DataFrame],
    causal_network: dict[str, xr.Dataset],
    calibration_state: xr.DataTree,
) -> Iterator[dg.Output]:
    """Forecast of the next race by a forecaster, by exactly the procedure that was backtested.

    All tables are stored empty where the source announces no race, or a user's forecaster lacks it.
    """
    from calibration_pipeline.forecast.next_race import Knowledge, Method, forecast_next_race
    from calibration_pipeline.plots import charts
    from calibration_pipeline.scenarios.network.structure import VARIANTS

    last = max(race_results)
    known = Knowledge(
        pl.concat(race_results.values()),
        pl.concat(lap_aggregates.values()),
        pl.concat(driver_features.values()),
        causal_network[last],
        calibration_state,
    )
    structure, folds = VARIANTS[settings.network], settings.fold_length
    nicknames = read_nicknames(settings.nicknames)
    files = find_forecasters(settings.forecasters).by_form[Form.SCENARIOS].get(context.partition_key)
    method = Method(settings.scenarios, folds, settings.seed, structure, files, nicknames)
    announced = source.next_race(int(last))
    made = forecast_next_race(announced, known, method, judged_events(settings.events))
    forecast, chances = made.ensemble, made.chances
    facts: dict[str, Any] = made.facts
    shown: dict[str, Any] = {}
    if not chances.is_empty():
        drawn = chart(charts.draw_finish_distribution, chances, n_rows=chances.height, row_height=0.24)
        errors = chances.select(pl.max_horizontal("win_error", "top5_error", "top10_error").max())
        shown = {"chances": drawn, "largest_monte_carlo_error": number(float(errors.item()))}
    shown |= {"races": forecast.sizes["race"], SOURCE_VERSION: entry_version(announced)}
    yield dg.Output(forecast, "race_forecast", metadata={**facts, **shown})
    for name, frame in zip(TABLES, (chances, made.events, made.scenarios), strict=True):
        yield dg.Output(frame, name, metadata={**rows(frame), **facts, "table": table(frame, SHOWN_ROWS)})
