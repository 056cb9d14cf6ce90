"""Races joined to tracks, and values of a race that a table lacks.

The docstrings below describe the defaults.
"""

from collections import Counter
from typing import Any

import polars as pl

from calibration_pipeline.sources.quarantine import QuarantineLog
from calibration_pipeline.sources.tables.calendar import most_laps
from calibration_pipeline.sources.tables.statuses import add_running
from calibration_pipeline.tracks import CompiledTracks, TrackConstraints, UnknownTrackError
from calibration_pipeline.tracks.layouts import find_layout

DIRT = "dirt"
NO_ARCHETYPE = "fits no archetype"
ON_DIRT = "it was run on dirt"
"""Ends of the rules of races that are left out because of their track, and not of a defect."""
LEAST_LAPS, MOST_LAPS = 0.5, 1.5
"""Shares of the usual laps between which a race of the Cup can have been run on a layout."""


def locate_races(
    rows: pl.DataFrame, tracks: CompiledTracks, series: str, where: str, log: QuarantineLog
) -> pl.DataFrame:
    """Add track, archetype and scheduled laps; leave out races of no archetype or of an unknown track.

    A venue's plain name may hide another layout: the season or the laps decide. Where the table lacks the
    scheduled laps, those of the track's usual race in the catalogue are used. They are known before the race,
    so they never come from the laps that were run.

    Returns
    -------
    polars.DataFrame
        The rows of the races kept, with track_id, archetype and scheduled_laps; `log` gets the others, and
        races that were assigned to another layout.
    """
    first = pl.exclude("laps_completed").first()
    races = rows.group_by("race_order").agg(first, laps=most_laps(pl.col("laps_completed")))
    found: list[tuple[int, str, str, int]] = []
    for race in races.sort("race_order").iter_rows(named=True):
        try:
            track = _find_track(race, tracks, series, where, log)
        except UnknownTrackError as error:
            reason = str(error).rstrip(".")
        else:
            laps = race["scheduled_laps"] or track.scheduled_laps
            share = (race["laps"] or laps) / laps if series == "cup" else 1.0
            if track.archetype is None:
                reason = f"{track.name} {NO_ARCHETYPE}"
            elif (race["surface"] or "").lower() == DIRT:
                reason = ON_DIRT
            elif not LEAST_LAPS <= share <= MOST_LAPS:
                reason = (
                    f"its {race['laps']} laps are {share:.0%} of the usual {laps} at {track.name}: "
                    "another layout or another race"
                )
            else:
                found.append((race["race_order"], track.track_id, str(track.archetype), laps))
                continue
        log.add("race", "left out", reason, place=where, race_id=race["race_id"], race=race["label"])
    schema = {
        "race_order": pl.Int64,
        "track_id": pl.String,
        "archetype": pl.String,
        "scheduled_laps": pl.Int64,
    }
    located = pl.DataFrame(found, schema=schema, orient="row")
    return rows.drop("scheduled_laps").join(located, on="race_order", how="inner", maintain_order="left")


def _find_track(
    race: dict[str, Any], tracks: CompiledTracks, series: str, where: str, log: QuarantineLog
) -> TrackConstraints:
    """Return the track of a race, on the layout that its season or its laps mean."""
    track = tracks.find(race["season"], name=race["track"])
    layout = find_layout(series, track.track_id, race["season"], race["laps"])
    if layout is None:
        return track
    other = tracks.by_id(layout.layout_id, race["season"])
    why = (
        f"its laps are those of {other.name}" if not layout.alone else f"the series raced {other.name} alone"
    )
    laps = None if race["laps"] is None else f"{race['laps']} laps"
    log.add(
        "race", "corrected", f"track {race['track']!r} hides the layout: {why}", place=where,
        race_id=race["race_id"], race=race["label"], value=laps,
    )  # fmt: skip
    return other


def complete(cars: pl.DataFrame, where: str, log: QuarantineLog, counts: Counter[str]) -> pl.DataFrame:
    """Fill missing values of a car's race, and count irregular ones.

    `race_laps` are the most laps that a car completed. `statuses.add_running` describes the status. Other
    missing values stay null.
    """
    most = pl.col("laps_completed").max().over("race_order")
    race_laps = pl.col("race_laps").fill_null(pl.when(most > 0).then(most))
    ordered = cars.sort("race_order", "finish_position").with_columns(race_laps=race_laps)
    done = add_running(ordered, where, log, counts)
    by_race = done.group_by("race_order").agg(
        off=pl.col("laps_led").sum() != pl.col("race_laps").first(),
        known=pl.col("laps_led").is_not_null().all(),
        gaps=pl.col("start_position").max() > pl.len(),
        moved_back=(pl.col("laps_completed") > pl.col("laps_completed").cum_min().shift(1)).sum(),
    )
    counts["races_laps_led_mismatch"] += by_race.filter(pl.col("known") & pl.col("off")).height
    counts["races_grid_with_gaps"] += by_race.filter(pl.col("gaps")).height
    counts["cars_ranked_behind_fewer_laps"] += int(by_race["moved_back"].sum())
    counts["cars_without_rating"] += done["rating"].null_count()
    return done
