"""A new race: what `run --update` takes after ten seasons, when a table of results has one race more.

The seasons are simulated and written as tables, the last race held back. Each command is a process of its
own, as in a terminal; the second finds what the first stored and compiled.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import polars as pl

from benchmarks.performance.page import Section, machine, table
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

ROOT = Path(__file__).parents[2]
FIRST_SIMULATED = 2018
FIRST_SEASON = 2017
"""The table calls the simulated season 2018, the first there is, 2017: ten seasons have ended by 2026."""

FOREVER = 9999


class Sizes(NamedTuple):
    """Seasons, and scenarios of a race."""

    n_seasons: int
    n_scenarios: int


FULL, SMALL = Sizes(10, 2000), Sizes(2, 100)


def write_tables(folder: Path, n_seasons: int, *, with_last: bool) -> tuple[int, int]:
    """Write results and laps of simulated seasons, with the last race or without; return races and laps.

    Races whose track was not there a year earlier are left out, as the source would leave them out.
    """
    seasons = range(FIRST_SIMULATED, FIRST_SIMULATED + n_seasons)
    tracks = compile_constraints()
    source = SimulatedSource(tuple(seasons), tracks, seed=42)
    loaded = [source.load_season(season) for season in seasons]
    results = pl.concat(one.race_results for one in loaded)
    laps = pl.concat(one.lap_telemetry for one in loaded)
    cars = results.select("race_id", "driver_id", "driver", "round")
    back = FIRST_SEASON - FIRST_SIMULATED
    earlier = pl.col("season") + back
    results = results.with_columns(season=earlier, race_date=pl.col("race_date").dt.offset_by(f"{back}y"))
    laps = laps.join(cars, on=["race_id", "driver_id"]).with_columns(season=earlier)
    eras = tracks.to_frame().select("track_id", "first_season", "last_season")
    there = results.join(eras, on="track_id").filter(
        pl.col("season").is_between("first_season", pl.col("last_season").fill_null(FOREVER))
    )
    results, laps = (
        frame.filter(pl.col("race_id").is_in(there["race_id"].implode())) for frame in (results, laps)
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
    """Run the pipeline over the tables; return seconds and what it printed."""
    words = ["run", "--source", "tables", "--store", str(folder / "store"), *options]
    words += ["--results", str(folder / "results.parquet"), "--laps", str(folder / "laps.parquet")]
    words += ["--scenarios", str(sizes.n_scenarios)]
    home = folder / "home"
    home.mkdir(exist_ok=True)
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "assets.cli", *words],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return taken, done.stdout


def measure(sizes: Sizes) -> Section:
    """Run over the tables without the last race, then update with it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_races, n_laps = write_tables(folder, sizes.n_seasons, with_last=False)
        first, _ = run(folder, sizes)
        again, _ = run(folder, sizes, "--update")
        write_tables(folder, sizes.n_seasons, with_last=True)
        update, printed = run(folder, sizes, "--update")
    made = sum(line.lstrip().startswith("✓") for line in printed.splitlines())
    rows = [
        [f"the first run: {n_races} races, {n_laps:,} laps", f"{first:.0f}"],
        ["`run --update`, nothing new", f"{again:.0f}"],
        [f"`run --update`, one race more: {made} things are made again", f"{update:.0f}"],
    ]
    size = f"{sizes.n_seasons} seasons, {sizes.n_scenarios:,} scenarios a race."
    return Section(f"{machine(['dagster', 'jax', 'polars'])} {size}\n\n{table(['command', 's'], rows)}", {})
