"""Joins of a race's laps to its results, for every source that has laps."""

from collections import Counter

import polars as pl

MOST_GAPS = 0.01
"""Largest share of missing laps with which the elapsed time of cars is known."""
SAME_TIME_S = 1e-6
"""Elapsed times that differ by less are equal but for rounding."""


def attach_laps(
    results: pl.DataFrame, laps: pl.DataFrame, flags: pl.DataFrame, counts: Counter[str]
) -> pl.DataFrame:
    """Return the laps of the cars in `results`, with flags; add irregular laps to `counts`.

    A car's laps are found by the driver's id, or by car number where there is no id.

    Returns
    -------
    polars.DataFrame
        driver_id, car_number, lap, position, lap_time_s (null where not timed), flag; ordered by driver and
        lap.
    """
    cars = results.select("feed_driver_id", "driver_id", "car_number")
    feed_id = "feed_driver_id"
    found = laps.drop("car_number").join(cars.drop_nulls(feed_id), on=feed_id).drop(feed_id)
    unknown = laps.join(cars, on=feed_id, how="anti")
    if not unknown.is_empty():
        without_laps = cars.join(laps, on=feed_id, how="anti").drop(feed_id)
        by_number = unknown.drop(feed_id).join(without_laps, on="car_number")
        found = pl.concat([found, by_number.select(found.columns)])
    keys = pl.col("driver_id", "lap")
    with_position = found.filter(pl.col("position") > 0).sort(keys, maintain_order=True)
    once = with_position.filter(~pl.all_horizontal(keys.eq_missing(keys.shift())))
    timed = once.with_columns(
        pl.when(pl.col("lap_time_s") > 0).then(pl.col("lap_time_s")).alias("lap_time_s")
    )
    telemetry = timed.join(flags, on="lap", how="left", maintain_order="left")
    gaps = telemetry.group_by("driver_id").agg(
        missing=pl.col("lap").max() - pl.col("lap").min() + 1 - pl.len()
    )
    counts["laps"] += telemetry.height
    counts["laps_without_result"] += laps.height - found.height
    counts["laps_without_position"] += found.height - with_position.height
    counts["laps_repeated"] += with_position.height - once.height
    untimed = (pl.col("lap") > 0) & pl.col("lap_time_s").is_null()
    counts["laps_without_time"] += telemetry.select(untimed.sum()).item()
    counts["laps_in_gaps"] += int(gaps["missing"].sum())
    counts["cars_with_lap_gaps"] += gaps.filter(pl.col("missing") > 0).height
    counts["cars_without_laps"] += results.height - gaps.height
    return telemetry


def align_to_leader(laps: pl.DataFrame) -> pl.DataFrame:
    """Return the laps with the leader's lap during which each was run, in place of the car's own lap.

    A lapped car runs its lap k minutes after the leader's. Elapsed time is the sum of a car's lap times; a
    lap that is not timed counts with the median of the lap. Where more than `MOST_GAPS` of the laps are
    missing, elapsed time is not known, and the laps stay as they are.

    Parameters
    ----------
    laps : polars.DataFrame
        driver_id, lap, lap_time_s, flag, and other columns, of one race, ordered by driver and lap.

    Returns
    -------
    polars.DataFrame
        The same columns, from lap 1 on; lap is the leader's lap, and flag its flag.
    """
    run = laps.filter(pl.col("lap") >= 1)
    n_missing = run.group_by("driver_id").agg(pl.col("lap").max() - pl.len())["lap"].sum()
    if n_missing > MOST_GAPS * run.height:
        return run
    typical = (
        run.group_by("lap")
        .agg(typical_s=pl.col("lap_time_s").median().fill_null(0.0))
        .sort("lap")
        .with_columns(until_s=pl.col("typical_s").cum_sum())
    )
    deviation = (pl.col("lap_time_s") - pl.col("typical_s")).fill_null(0.0)
    elapsed = (
        run.select("driver_id", "lap", "lap_time_s", "flag")
        .join(typical, on="lap", maintain_order="left")
        .with_columns(elapsed_s=pl.col("until_s") + deviation.cum_sum().over("driver_id"))
    )
    leader = (
        elapsed.group_by("lap")
        .agg(elapsed_s=pl.col("elapsed_s").min() - SAME_TIME_S, flag=pl.col("flag").first())
        .sort("lap")
        .with_columns(pl.col("elapsed_s").cum_max())
    )
    during = leader["elapsed_s"].search_sorted(elapsed["elapsed_s"], side="right") - 1
    return run.with_columns(lap=leader["lap"].gather(during), flag=leader["flag"].gather(during))


def attach_fastest_laps(results: pl.DataFrame, laps: pl.DataFrame, race_laps: int | None) -> pl.DataFrame:
    """Add the number of green laps on which each car was the fastest; null where no lap was timed.

    Of cars with the same time, the car ahead on the track counts, then the driver's id.
    """
    green = laps.filter(
        pl.col("flag") == "green",
        pl.col("lap").is_between(1, race_laps or 0),
        pl.col("lap_time_s").is_not_null(),
    )
    if green.is_empty():
        return results.with_columns(fastest_laps=pl.lit(None, pl.Int64))
    best = green.filter(pl.col("lap_time_s") == pl.col("lap_time_s").min().over("lap"))
    fastest = best.sort("lap", "lap_time_s", "position", "driver_id").unique(
        "lap", keep="first", maintain_order=True
    )
    per_car = fastest.group_by("driver_id").agg(fastest_laps=pl.len().cast(pl.Int64))
    return results.join(per_car, on="driver_id", how="left").with_columns(pl.col("fastest_laps").fill_null(0))
