"""Simulated seasons as several test modules take them."""

from collections.abc import Sequence

import polars as pl

from calibration_pipeline.schemas.frames import LapAggregates
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.telemetry.features import build_driver_features, entry_list
from calibration_pipeline.tracks import compile_constraints


def without_laps(seasons: Sequence[int], seed: int = 5) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return features and results of simulated seasons that have no laps."""
    source = SimulatedSource(seasons, compile_constraints(), seed=seed)
    results = pl.concat(source.load_season(season).race_results for season in seasons)
    return build_driver_features(entry_list(results), results, LapAggregates.empty()), results
