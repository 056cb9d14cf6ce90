"""Time of `run --update` after ten seasons, when the table of results has one new race.

The seasons are simulated and written as tables without the last race. Each command runs in a separate
process; the later commands reuse the store and the compiled programs of the first.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import polars as pl

from benchmarks.command import run_pipeline
from benchmarks.performance.timing import measured_on
from benchmarks.result_files import Row
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

FIRST_SIMULATED = 2018
FIRST_SEASON = 2017
"""Season of the first simulated season, 2018, in the table: a year earlier, so that ten end by 2026."""

FOREVER = 9999


class Sizes(NamedTuple):
    """Number of seasons, and of scenarios a race."""

    n_seasons: int
    n_scenarios: int


FULL, SMALL = Sizes(10, 2000), Sizes(2, 100)


def write_tables(folder: Path, n_seasons: int, *, with_last: bool) -> tuple[int, int]:
    """Write results and laps of simulated seasons; return the numbers of races and laps.

    Races on a track that did not exist a year earlier are omitted, because the source omits them.
    """
    seasons = range(FIRST_SIMULATED, FIRST_SIMULATED + n_seasons)
    tracks = compile_constraints()
    source = SimulatedSource(tuple(seasons), tracks, seed=42)
    loaded = [source.load_season(season) for season in seasons]
    results = pl.concat(season.race_results for season in loaded)
    laps = pl.concat(season.lap_telemetry for season in loaded)
    cars = results.select("race_id", "driver_id", "driver", "round")
    back = FIRST_SEASON - FIRST_SIMULATED
    earlier = pl.col("season") + back
    results = results.with_columns(season=earlier, race_date=pl.col("race_date").dt.offset_by(f"{back}y"))
    laps = laps.join(cars, on=["race_id", "driver_id"]).with_columns(season=earlier)
    eras = tracks.to_frame().select("track_id", "first_season", "last_season")
    existing = results.join(eras, on="track_id").filter(
        pl.col("season").is_between("first_season", pl.col("last_season").fill_null(FOREVER))
    )
    results, laps = (
        frame.filter(pl.col("race_id").is_in(existing["race_id"].implode())) for frame in (results, laps)
    )
    if not with_last:
        last = results["race_id"].max()
        results, laps = (frame.filter(pl.col("race_id") != last) for frame in (results, laps))
    results.rename({"track_id": "track"}).drop("race_id", "race_order", "archetype", "running").write_parquet(
        folder / "results.parquet"
    )
    laps.select("season", "round", "driver", "lap", "position", "lap_time_s", "flag").write_parquet(
        folder / "laps.parquet"
    )
    return results["race_id"].n_unique(), laps.height


def run(folder: Path, sizes: Sizes, *options: str) -> tuple[float, str]:
    """Run the pipeline over the tables; return the seconds and the printed text."""
    tables = ("--results", str(folder / "results.parquet"), "--laps", str(folder / "laps.parquet"))
    scenarios = ("--scenarios", str(sizes.n_scenarios))
    return run_pipeline(folder, "--source", "tables", *tables, *scenarios, *options)


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Run over the tables without the last race, then update with it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_races, n_laps = write_tables(folder, sizes.n_seasons, with_last=False)
        first, _ = run(folder, sizes)
        unchanged, _ = run(folder, sizes, "--update")
        write_tables(folder, sizes.n_seasons, with_last=True)
        update, printed = run(folder, sizes, "--update")
    materialized = sum(line.lstrip().startswith("✓") for line in printed.splitlines())
    runs: list[Row] = [
        {"command": "run", "new_races": n_races, "laps": n_laps, "steps": "", "s": f"{first:.0f}"},
        {"command": "run --update", "new_races": 0, "laps": "", "steps": "", "s": f"{unchanged:.0f}"},
        {"command": "run --update", "new_races": 1, "laps": "", "steps": materialized, "s": f"{update:.0f}"},
    ]
    machine = measured_on(["dagster", "jax", "polars"])
    return {"new_race": [{**row, "measured_on": machine} for row in runs]}
