"""A joint event judged on the stored forecasts."""

from collections.abc import Iterator

import polars as pl
from upath import UPath

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.events.language import Event
from calibration_pipeline.io.stored_values import path_of, read_asset, stored_partitions
from calibration_pipeline.verification.joint_events import validate_events

from ..partitions import archetype_partition


def judge_stored(store: UPath, event: Event, seed: int) -> Iterator[tuple[str, pl.DataFrame, str]]:
    """Judge an event on the stored forecasts of each archetype.

    Yields
    ------
    tuple
        Archetype, rows of its `JointEventTable`, and the reason where there are no rows.
    """
    from calibration_pipeline.calibration.archetype_races import results_table
    from calibration_pipeline.verification.backtest import scored_forecasts

    for archetype in ARCHETYPES:
        partition = archetype_partition(archetype)
        if not path_of(store, "recalibrated_forecast", partition).exists():
            continue
        races = read_asset(store, "archetype_races", partition)
        forecasts = scored_forecasts(races, read_asset(store, "recalibrated_forecast", partition))
        table, skipped = validate_events(forecasts, results_table(races), [event], seed)
        yield archetype.label, table, skipped.get(str(event), "")


def has_scenarios(store: UPath) -> bool:
    """Return whether a run has stored raw and recalibrated forecasts."""
    return all(stored_partitions(store / asset) for asset in ("archetype_races", "recalibrated_forecast"))
