"""Aggregation of laps by one tool: the process that `telemetry` starts."""

import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl

from benchmarks.performance.timing import answer, peak_memory
from calibration_pipeline.telemetry import aggregate_laps
from calibration_pipeline.telemetry.laps import QUERY


def ours(paths: list[str]) -> pl.DataFrame:
    """Aggregate with the pipeline's function."""
    return aggregate_laps(paths)


def plain_duckdb(paths: list[str]) -> pl.DataFrame:
    """Aggregate with one DuckDB query over all files, with default settings (all cores)."""
    with duckdb.connect() as connection:
        everything = {"paths": paths, "first": -(2**63), "last": 2**63 - 1}
        return pl.DataFrame(connection.sql(QUERY, params=everything))


def plain_polars(paths: list[str]) -> pl.DataFrame:
    """Aggregate with a lazy Polars query and the streaming engine."""
    laps = (
        pl.scan_parquet(paths)
        .filter(pl.col("lap") >= 1)
        .select("race_id", "driver_id", "lap", "position", "lap_time_s", "flag")
        .with_columns(green=pl.when(pl.col("flag") == "green").then("lap_time_s"))
    )
    timed = laps.filter(pl.col("green").is_not_null())
    order = ["green", "position", "driver_id"]
    field = timed.group_by("race_id", "lap").agg(
        median=pl.col("green").median(), fastest=pl.col("driver_id").sort_by(order).first()
    )
    race = field.group_by("race_id").agg(green_laps=pl.len())
    car = laps.group_by("race_id", "driver_id").agg(last=pl.col("lap").max())
    late, relative = pl.col("lap") > pl.col("last") - 50, pl.col("green") / pl.col("median") - 1
    x, y = pl.col("lap").cast(pl.Float64).filter("known"), pl.col("relative").filter("known")
    slope = pl.when(pl.col("known").sum() >= 2).then(pl.cov(x, y) / x.var())
    return (
        laps.join(car, on=["race_id", "driver_id"])
        .join(field, on=["race_id", "lap"], how="left")
        .join(race, on="race_id", how="left")
        .with_columns(late=late, relative=relative)
        .with_columns(known=pl.col("late") & pl.col("relative").is_not_null())
        .group_by("race_id", "driver_id")
        .agg(
            laps_timed=pl.col("lap_time_s").count(),
            average_position=pl.col("position").mean(),
            top15_share=(pl.col("position") <= 15).mean(),
            fastest_lap_share=(pl.col("driver_id") == pl.col("fastest")).sum() / pl.col("green_laps").first(),
            green_pace=pl.col("relative").median(),
            average_position_50l=pl.col("position").filter("late").mean(),
            green_pace_50l=pl.col("relative").filter("late").mean(),
            falloff_50l=slope,
        )
        .sort("race_id", "driver_id")
        .collect(engine="streaming")
    )


TOOLS: dict[str, Callable[[list[str]], pl.DataFrame]] = {
    "ours": ours,
    "plain DuckDB": plain_duckdb,
    "plain Polars": plain_polars,
}


def measure(tool: str, folder: str) -> dict:
    """Aggregate all files of a folder; return the seconds, the peak bytes and the sums of the columns."""
    paths = sorted(str(path) for path in Path(folder).glob("*.parquet"))
    started = time.perf_counter()
    frame = TOOLS[tool](paths)
    seconds = time.perf_counter() - started
    sums = {name: float(frame[name].sum()) for name in frame.columns if frame.schema[name].is_numeric()}
    return {"seconds": seconds, "peak": peak_memory(), "sums": {"rows": frame.height, **sums}}


if __name__ == "__main__":
    answer(measure)
