"""Group `ingest`: the source's seasons and the compiled tracks, as tables."""

import datetime
from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.schemas.frames import LapTelemetry, RaceResults
from calibration_pipeline.sources.base import SeasonData, Source
from calibration_pipeline.sources.quarantine import races_left_out
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import load_tracks

from ..partitions import ALL_SEASONS
from ..settings import Settings
from ..storage.io_manager import SOURCE_VERSION, depends_on
from .metadata import bullets, rows, table

TABLES = {
    "lap_telemetry": ("2", "One row a car and lap: position, lap time, flag."),
    "race_results": ("3", "One row a starter and race: grid, finish, laps led, how it ended."),
    "quarantine": ("2", "What the source left out, nulled or corrected, with the rule; one row a defect."),
}
"""Code version and description of each table of a season."""


@dg.asset(kinds={"polars", "parquet"}, code_version="1", metadata=depends_on("tracks"))
def track_constraints(settings: dg.ResourceParam[Settings]) -> dg.Output[pl.DataFrame]:
    """Track catalogue by era: archetype, length and scheduled laps, known without racing."""
    tracks = load_tracks(settings.series, settings.tracks)
    frame = tracks.to_frame()
    by_archetype = frame.group_by("archetype").len("tracks").sort("archetype")
    return dg.Output(
        frame,
        metadata={**rows(frame), "content_hash": tracks.content_hash, "archetypes": table(by_archetype)},
    )


@dg.multi_asset(
    name="season",
    partitions_def=ALL_SEASONS,
    can_subset=True,
    deps=["track_constraints"],
    outs={
        name: dg.AssetOut(
            description=description,
            kinds={"polars", "parquet"},
            code_version=code_version,
            is_required=False,
            metadata=depends_on("source", "tracks"),
        )
        for name, (code_version, description) in TABLES.items()
    },
)
def season(context: dg.AssetExecutionContext, source: dg.ResourceParam[Source]) -> Iterator[dg.Output]:
    """Read one season's points races from the source; races that are left out are counted and named.

    This year's season is empty until its first race has finished.
    """
    year = int(context.partition_key)
    version = source.version(year)  # before anything is read: a change meanwhile is noticed next time
    waits = year == datetime.datetime.now(datetime.UTC).year and not source.finished_races(year)
    data = _no_races() if waits else source.load_season(year)
    metadata: dict[str, Any] = {
        "source": source.name,
        SOURCE_VERSION: version,
        **data.counts,
        "left_out": bullets(races_left_out(data.quarantine)),
    }
    for name in TABLES:
        frame: pl.DataFrame = getattr(data, name)
        if name in context.op_execution_context.selected_output_names:
            yield dg.Output(frame, name, metadata={**rows(frame), **metadata, "sample": table(frame, 5)})


def _no_races() -> SeasonData:
    return SeasonData(RaceResults.empty(), LapTelemetry.empty(), {"races": 0})


@dg.asset(
    partitions_def=ALL_SEASONS,
    deps=["track_constraints"],
    kinds={"xarray", "netcdf"},
    code_version="1",
    metadata=depends_on("source", "tracks"),
)
def simulated_truth(
    context: dg.AssetExecutionContext, source: dg.ResourceParam[SimulatedSource]
) -> dg.Output[xr.Dataset]:
    """True parameters of a simulated season, to compare estimates with. No forecast reads it."""
    truth = source.truth(int(context.partition_key))
    return dg.Output(truth, metadata={"races": truth.sizes["race"]})
