"""Tables of results as a user has them, for tests."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import polars as pl

from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

TABLE_COLUMNS = ("season", "round", "track", "driver", "start_position", "finish_position", "laps_completed")
TRACKS = ("daytona", "phoenix", "talladega", "bristol")
RESULTS_COLUMNS = (
    "season", "round", "track_id", "driver", "car_number", "team", "make", "start_position",
    "finish_position", "laps_completed", "laps_led", "status",
)  # fmt: skip


def write_table(path: Path, races: dict[int, int]) -> None:
    """Write a table with the first races of each season, two cars each."""
    lines = [",".join(TABLE_COLUMNS)]
    for season, rounds in races.items():
        for i in range(rounds):
            lines += [f"{season},{i + 1},{TRACKS[i]},{car},{n},{n},200" for n, car in ((1, "Ann"), (2, "Bo"))]
    path.write_text("\n".join(lines) + "\n")


@cache
def example_results(season: int = 2022, rounds: int = 6) -> pl.DataFrame:
    """Return the first races of a simulated season as a user's table, dated a week apart, ordered by finish.

    No two cars of a race share a number, and every race has its winner's laps.
    """
    source = SimulatedSource([season], compile_constraints())
    results = source.load_season(season).race_results.filter(pl.col("round") <= rounds)
    day = pl.date(season, 2, 13) + pl.duration(days=7 * pl.col("round"))
    return results.sort("round", "finish_position").select(*RESULTS_COLUMNS, race_date=day)


def write_results(path: Path, seasons: Sequence[int], rounds: int) -> None:
    """Write a table of simulated results, the first races of each season."""
    source = SimulatedSource(seasons, compile_constraints())
    results = pl.concat([source.load_season(season).race_results for season in seasons])
    results.filter(pl.col("round") <= rounds).select(RESULTS_COLUMNS).write_csv(path)
