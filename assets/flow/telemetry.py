"""Group `telemetry`: from laps to the features of a car before its race."""

import dagster as dg
import polars as pl
from upath import UPath

from calibration_pipeline.io.stored_files import local_file
from calibration_pipeline.telemetry import aggregate_laps, build_driver_features, entry_list
from calibration_pipeline.telemetry.column_sources import AGGREGATE_COLUMNS, LAP_COLUMNS, RESULT_COLUMNS
from calibration_pipeline.telemetry.features import ENTRY_COLUMNS

from ..partitions import ALL_SEASONS, earlier_and_own_seasons
from .metadata import column_lineage, rows, table


@dg.asset(partitions_def=ALL_SEASONS, kinds={"duckdb", "parquet"}, code_version="1")
def lap_aggregates(context: dg.AssetExecutionContext, lap_telemetry: UPath) -> dg.Output[pl.DataFrame]:
    """Aggregate each car's laps, out of core, to facts that are known only after its race."""
    with local_file(lap_telemetry) as path:
        frame = aggregate_laps([path])
    return dg.Output(
        frame,
        metadata={
            **rows(frame),
            "races": frame["race_id"].n_unique(),
            "sample": table(frame, 5),
            **column_lineage(
                context.asset_key, {"lap_telemetry": LAP_COLUMNS}, {"lap_telemetry": ("race_id", "driver_id")}
            ),
        },
    )


@dg.asset(
    partitions_def=ALL_SEASONS,
    kinds={"polars", "parquet"},
    code_version="1",
    ins={
        "race_results": dg.AssetIn(partition_mapping=earlier_and_own_seasons),
        "lap_aggregates": dg.AssetIn(partition_mapping=earlier_and_own_seasons),
    },
)
def driver_features(
    context: dg.AssetExecutionContext,
    race_results: dict[str, pl.DataFrame],
    lap_aggregates: dict[str, pl.DataFrame],
) -> dg.Output[pl.DataFrame]:
    """Features of every car before its race, computed from earlier races alone."""
    history = pl.concat(race_results.values())
    laps = pl.concat(lap_aggregates.values())
    frame = build_driver_features(entry_list(race_results[context.partition_key]), history, laps)
    return dg.Output(
        frame,
        metadata={
            **rows(frame),
            "races": frame["race_id"].n_unique(),
            "history_races": history["race_id"].n_unique(),
            "history_seasons": ", ".join(sorted(race_results)),
            "sample": table(frame, 5),
            **column_lineage(
                context.asset_key,
                {"race_results": RESULT_COLUMNS, "lap_aggregates": AGGREGATE_COLUMNS},
                {"race_results": ENTRY_COLUMNS},
            ),
        },
    )
