"""Write frames as files in the layout of NASCAR's timing feed, for tests of its reader.

`{season}/race_list_basic.json`, `{season}/1/{race_id}/weekend-feed.json`, and
`{season}/1/{race_id}/lap-times.json`, with the fields and codes of the live feed. Driver ids must be numeric
strings.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl

from calibration_pipeline.sources import SeasonData
from calibration_pipeline.tracks import CATALOGUE

FLAG_STATES = {"green": 1, "yellow": 2, "red": 3, "checkered": 4, "warm_up": 8}
MAKES = {"Chevrolet": "Chv", "Ford": "Frd", "Toyota": "Tyt"}


def write_feed(folder: Path, seasons: dict[int, SeasonData]) -> None:
    """Write every season's races below `folder`."""
    for season, data in seasons.items():
        races = data.race_results.partition_by("race_id", maintain_order=True)
        laps = data.lap_telemetry.partition_by("race_id", as_dict=True)
        heads = []
        for results in races:
            head = _race_head(results)
            race_laps = laps[(head["race_id"],)]
            weekend = {
                **head,
                "results": _results(results),
                "caution_segments": _caution_segments(race_laps, head["race_id"]),
            }
            race_folder = folder / str(season) / "1" / str(head["race_id"])
            _write(race_folder / "weekend-feed.json", {"weekend_race": [weekend], "weekend_runs": []})
            _write(race_folder / "lap-times.json", _lap_times(results, race_laps))
            heads.append(head)
        _write_race_list(folder, season, heads)


def write_entries(folder: Path, entries: pl.DataFrame) -> None:
    """Write the entry list of a race that has not run, as the only race of its season."""
    outcome = {"race_laps": 0, "green_laps": 0, "n_cautions": 0, "finish_position": 0, "laps_completed": 0}
    not_run = entries.with_columns(
        [pl.lit(value).alias(name) for name, value in {**outcome, "laps_led": 0, "status": ""}.items()]
    )
    head = _race_head(not_run) | {"average_speed": 0, "total_race_time": "", "winner_driver_id": 0}
    race_folder = folder / str(head["race_season"]) / "1" / str(head["race_id"])
    weekend = {**head, "results": _results(not_run), "caution_segments": []}
    _write(race_folder / "weekend-feed.json", {"weekend_race": [weekend], "weekend_runs": []})
    _write_race_list(folder, head["race_season"], [head])


def _write_race_list(folder: Path, season: int, heads: list[dict[str, Any]]) -> None:
    path = folder / str(season) / "race_list_basic.json"
    _write(path, {"series_1": heads, "series_2": [], "series_3": []})


def _race_head(results: pl.DataFrame) -> dict[str, Any]:
    first = results.row(0, named=True)
    track = next(spec for spec in CATALOGUE if spec.track_id == first["track_id"])
    start = f"{first['race_date'].isoformat()}T15:30:00"
    return {
        "race_id": first["race_id"],
        "series_id": 1,
        "race_season": first["season"],
        "race_name": f"Race {first['round']}",
        "race_type_id": 1,
        "track_id": track.feed_ids[0],
        "track_name": track.name,
        "date_scheduled": start,
        "race_date": start,
        "scheduled_laps": first["scheduled_laps"],
        "actual_laps": first["race_laps"],
        "number_of_cars_in_field": results.height,
        "number_of_leaders": int((results["laps_led"] > 0).sum()),
        "number_of_cautions": first["n_cautions"],
        "number_of_caution_laps": first["race_laps"] - first["green_laps"],
        "average_speed": 124.669,
        "total_race_time": "3:12:45",
        "winner_driver_id": int(first["driver_id"]),
        "playoff_round": 0,
    }


def _results(results: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "race_id": row["race_id"],
            "series_id": 1,
            "race_season": row["season"],
            "finishing_position": row["finish_position"],
            "starting_position": row["start_position"],
            "car_number": row["car_number"],
            "official_car_number": row["car_number"],
            "driver_fullname": row["driver"],
            "driver_id": int(row["driver_id"]),
            "team_name": row["team"],
            "car_make": row["make"],
            "laps_led": row["laps_led"],
            "laps_completed": row["laps_completed"],
            "finishing_status": row["status"].capitalize(),
            "disqualified": False,
            "diff_laps": row["race_laps"] - row["laps_completed"],
        }
        for row in results.iter_rows(named=True)
    ]


def _flags(laps: pl.DataFrame) -> pl.DataFrame:
    return laps.select("lap", "flag").unique("lap").sort("lap")


def _caution_segments(laps: pl.DataFrame, race_id: int) -> list[dict[str, Any]]:
    yellow = (
        _flags(laps)
        .with_columns(segment=(pl.col("flag") != pl.col("flag").shift(1)).cum_sum())
        .filter(pl.col("flag") == "yellow")
        .group_by("segment")
        .agg(start_lap=pl.min("lap"), end_lap=pl.max("lap"))
        .sort("start_lap")
    )
    return [
        {
            "race_id": race_id,
            "start_lap": row["start_lap"],
            "end_lap": row["end_lap"],
            "reason": "Unknown",
            "flag_state": FLAG_STATES["yellow"],
        }
        for row in yellow.iter_rows(named=True)
    ]


def _lap_times(results: pl.DataFrame, laps: pl.DataFrame) -> dict[str, Any]:
    by_driver = laps.partition_by("driver_id", as_dict=True)
    cars = []
    for row in results.iter_rows(named=True):
        own = by_driver[(row["driver_id"],)]
        cars.append(
            {
                "Number": row["car_number"],
                "FullName": f"* {row['driver']} #",
                "Manufacturer": MAKES[row["make"]],
                "RunningPos": row["finish_position"],
                "NASCARDriverID": int(row["driver_id"]),
                "Laps": own.select(
                    Lap="lap",
                    LapTime="lap_time_s",
                    LapSpeed=pl.lit(None, pl.String),
                    RunningPos="position",
                ).to_dicts(),
            }
        )
    flags = [{"LapsCompleted": lap, "FlagState": FLAG_STATES[flag]} for lap, flag in _flags(laps).iter_rows()]
    return {"laps": cars, "flags": flags}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
