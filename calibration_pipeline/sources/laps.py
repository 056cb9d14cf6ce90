"""Joins of a race's laps to its results, for every source that has laps."""

from collections import Counter

import polars as pl


def attach_laps(
    results: pl.DataFrame, laps: pl.DataFrame, flags: pl.DataFrame, counts: Counter[str]
) -> pl.DataFrame:
    """Return the laps of the cars in `results`, with flags; add irregular laps to `counts`.

    A car's laps are found by the driver's id, or by car number where there is no id.

    Returns
    -------
    polars.DataFrame
        driver_id, car_number, lap, position, lap_time_s (null where not timed), flag.
    """
    cars = results.select("feed_driver_id", "driver_id", "car_number")
    feed_id = "feed_driver_id"
    by_id = laps.drop("car_number").join(cars.drop_nulls(feed_id), on=feed_id).drop(feed_id)
    by_number = (
        laps.join(cars, on=feed_id, how="anti")
        .drop(feed_id)
        .join(cars.join(laps, on=feed_id, how="anti").drop(feed_id), on="car_number")
    )
    found = pl.concat([by_id, by_number.select(by_id.columns)])
    with_position = found.filter(pl.col("position") > 0)
    once = with_position.unique(["driver_id", "lap"], keep="first", maintain_order=True)
    timed = once.with_columns(
        pl.when(pl.col("lap_time_s") > 0).then(pl.col("lap_time_s")).alias("lap_time_s")
    )
    telemetry = timed.join(flags, on="lap", how="left", maintain_order="left")
    gaps = telemetry.group_by("driver_id").agg(
        missing=pl.col("lap").max() - pl.col("lap").min() + 1 - pl.col("lap").n_unique()
    )
    counts["laps"] += telemetry.height
    counts["laps_without_result"] += laps.height - found.height
    counts["laps_without_position"] += found.height - with_position.height
    counts["laps_repeated"] += with_position.height - once.height
    counts["laps_without_time"] += telemetry.filter(pl.col("lap") > 0)["lap_time_s"].null_count()
    counts["laps_in_gaps"] += int(gaps["missing"].sum())
    counts["cars_with_lap_gaps"] += gaps.filter(pl.col("missing") > 0).height
    counts["cars_without_laps"] += results.height - gaps.height
    return telemetry


def attach_fastest_laps(results: pl.DataFrame, laps: pl.DataFrame, race_laps: int | None) -> pl.DataFrame:
    """Add the number of green laps on which each car was the fastest; null where no lap was timed.

    Of cars with the same time, the car ahead on the track counts.
    """
    green = laps.filter(
        pl.col("flag") == "green",
        pl.col("lap").is_between(1, race_laps or 0),
        pl.col("lap_time_s").is_not_null(),
    )
    if green.is_empty():
        return results.with_columns(fastest_laps=pl.lit(None, pl.Int64))
    fastest = green.sort("lap", "lap_time_s", "position").unique("lap", keep="first", maintain_order=True)
    per_car = fastest.group_by("driver_id").agg(fastest_laps=pl.len().cast(pl.Int64))
    return results.join(per_car, on="driver_id", how="left").with_columns(pl.col("fastest_laps").fill_null(0))
