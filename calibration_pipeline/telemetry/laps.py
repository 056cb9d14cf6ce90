"""Facts of one car's race, aggregated from its laps by DuckDB: one row a car and race.

This module reads lap tables from Parquet files, out of core. Features over races are in `features`.
"""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from calibration_pipeline.schemas.frames import LapAggregates

MIN_PARTS, RACES_A_PART = 4, 250
"""Least number of parts that are aggregated, and most races of a part: these bound the memory."""

# Lap 0 is the grid. relative is as in `rolling.relative_green_time`; the last 50 laps are those whose number
# is less than 50 below the car's last, as in its window "50l".
QUERY = """
WITH laps AS (
    SELECT race_id, driver_id, lap, position, lap_time_s,
        CASE WHEN flag = 'green' THEN lap_time_s END AS green_time_s
    FROM read_parquet($paths, union_by_name = true)
    WHERE lap >= 1 AND race_id BETWEEN $first AND $last
),
field AS (
    SELECT race_id, lap, median(green_time_s) AS median_s,
        arg_min(driver_id, row(green_time_s, position, driver_id)) AS fastest
    FROM laps
    WHERE green_time_s IS NOT NULL
    GROUP BY race_id, lap
),
race AS (SELECT race_id, count(*) AS green_laps FROM field GROUP BY race_id),
car AS (SELECT race_id, driver_id, max(lap) AS last_lap FROM laps GROUP BY race_id, driver_id),
timed AS (
    SELECT laps.*, green_time_s / median_s - 1 AS relative, lap > last_lap - 50 AS late,
        driver_id = fastest AS is_fastest, green_laps
    FROM laps
    JOIN car USING (race_id, driver_id)
    LEFT JOIN field USING (race_id, lap)
    LEFT JOIN race USING (race_id)
)
SELECT race_id, driver_id,
    count(lap_time_s) AS laps_timed,
    avg(position) AS average_position,
    avg((position <= 15)::INTEGER) AS top15_share,
    count(*) FILTER (is_fastest) / any_value(green_laps) AS fastest_lap_share,
    median(relative) AS green_pace,
    avg(position) FILTER (late) AS average_position_50l,
    avg(relative) FILTER (late) AS green_pace_50l,
    CASE WHEN count(relative) FILTER (late) >= 2
        THEN regr_slope(relative, lap) FILTER (late) END AS falloff_50l
FROM timed
GROUP BY race_id, driver_id
ORDER BY race_id, driver_id
"""

RACES = "SELECT DISTINCT race_id FROM read_parquet($paths, union_by_name = true) WHERE lap >= 1"


def aggregate_laps(lap_paths: Sequence[str]) -> pl.DataFrame:
    """Aggregate laps to facts of each car's race, known only after that race.

    The laps may exceed the memory: races are read part by part, as many parts at a time as there are cores,
    and DuckDB spills to a temporary folder. One thread reads a part, and the parts depend on the files alone.
    Sums are therefore computed in the same order, and the same files give the same bits on every machine.

    The columns that end in `_50l` are the end-of-race values of `compute_aggregate_features`.
    `fastest_lap_share` counts the laps on which the car was the fastest of those timed under green (of
    equal times the car ahead), over the race's green laps on which any car was timed: it adds up to 1
    over the field, and is null, as the paces are, for a race without lap times. Cars without a lap but
    lap 0, the grid, have no row.

    Parameters
    ----------
    lap_paths : sequence of str
        Parquet files of `LapTelemetry`.

    Returns
    -------
    polars.DataFrame
        `LapAggregates`, sorted by race_id and driver_id.

    Raises
    ------
    duckdb.IOException
        If a file does not exist.
    """
    if not lap_paths:
        return LapAggregates.empty()
    with duckdb.connect() as connection:
        found = connection.sql(RACES, params={"paths": list(lap_paths)}).fetchnumpy()["race_id"]
    if not len(found):
        return LapAggregates.empty()
    n_parts = max(MIN_PARTS, -(-len(found) // RACES_A_PART))
    parts = [races for races in np.array_split(np.sort(found), n_parts) if len(races)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        frames = list(pool.map(partial(_aggregate, list(lap_paths)), parts))
    return pl.concat(frames)


def _aggregate(lap_paths: list[str], races: NDArray[np.int64]) -> pl.DataFrame:
    """Aggregate the races from the first to the last of `races`."""
    params = {"paths": lap_paths, "first": int(races[0]), "last": int(races[-1])}
    with (
        tempfile.TemporaryDirectory() as spill,
        duckdb.connect(config={"temp_directory": spill, "threads": 1}) as connection,
    ):
        return pl.DataFrame(connection.sql(QUERY, params=params))
