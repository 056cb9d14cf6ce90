"""Aggregating laps: ours against the same question asked in plain DuckDB and plain Polars.

Every run is a process of its own, so that its peak memory is its own. Plain means as one writes the
question down: DuckDB over all files with its defaults, Polars with its streaming engine. Answers are held
against ours.
"""

import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import duckdb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.timing import KilledError, measure_apart, ratios, shown, spread
from calibration_pipeline.plots.figures import BLUE, ORANGE, VERMILION

N_CARS, N_LAPS = 40, 250
RACES_A_FILE = 36
TOOLS = {"ours": BLUE, "plain DuckDB": ORANGE, "plain Polars": VERMILION}
LIMIT_S = 600
KILLED = {"seconds": math.inf, "peak": math.inf, "sums": {}}
"""What a run is that took more memory than there is; `inf` in the table."""

LAPS = f"""
COPY (
    WITH field AS (
        SELECT race, car, lap, hash(race, car, lap) AS h,
            CASE WHEN hash(race, lap) % 6 = 0 THEN 'yellow' ELSE 'green' END AS flag
        FROM range($first, $last) races(race), range({N_CARS}) cars(car), range({N_LAPS + 1}) laps(lap)
    )
    SELECT race::BIGINT AS race_id, (2000 + race // 36)::BIGINT AS season, 'oval' AS track_id,
        'd' || car AS driver_id, car::VARCHAR AS car_number, lap::BIGINT AS lap,
        ((7 * car + 3 * lap + race) % {N_CARS} + 1)::BIGINT AS position,
        CASE WHEN lap > 0
            THEN round(30 + 0.01 * car + 0.002 * lap + (h % 1000)::BIGINT / 2000, 3) END AS lap_time_s,
        CASE WHEN lap = 0 THEN 'warm_up' ELSE flag END AS flag
    FROM field
    ORDER BY race, driver_id, lap
) TO '{{path}}' (FORMAT parquet, COMPRESSION zstd)
"""  # noqa: S608


class Sizes(NamedTuple):
    """Lap rows, with how often each size is measured in turn."""

    turns: dict[int, int]


FULL = Sizes({1_000_000: 3, 20_000_000: 2, 100_000_000: 1})
SMALL = Sizes({N_CARS * N_LAPS * 2: 1})


def write_laps(folder: Path, n_rows: int) -> list[str]:
    """Write seasons of lap rows, a file each, as the pipeline stores them; return the paths."""
    n_races = max(n_rows // (N_CARS * N_LAPS), 1)
    paths = []
    with duckdb.connect() as connection:
        for first in range(0, n_races, RACES_A_FILE):
            path = folder / f"{first:06d}.parquet"
            last = min(first + RACES_A_FILE, n_races)
            connection.execute(LAPS.format(path=path), {"first": first, "last": last})
            paths.append(str(path))
    return paths


def measure_size(n_rows: int, turns: int) -> dict[str, list[dict[str, float]]]:
    """Tool -> seconds and peak bytes of each turn; generated laps are gone afterwards."""
    measured: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_laps(Path(folder), n_rows)
        for _ in range(turns):
            for tool, rows in measured.items():
                request = {"tool": tool, "folder": folder}
                try:
                    rows.append(measure_apart("benchmarks.performance.aggregating", request, LIMIT_S))
                except KilledError:
                    rows.append(KILLED)
        check_answers({tool: rows[0] for tool, rows in measured.items()}, len(paths))
    return measured


def check_answers(answers: dict[str, dict[str, float]], n_files: int) -> None:
    """Raise where a tool's answer is not ours: rows, and sums of every column."""
    ours = answers["ours"]["sums"]
    for tool, found in answers.items():
        wrong = [
            name
            for name, value in found["sums"].items()
            if not abs(value - ours[name]) <= 1e-9 * max(1.0, abs(ours[name]))
        ]
        if wrong:
            raise ValueError(
                f"{tool} must answer as ours over {n_files} files, differs in {', '.join(wrong)}."
            )


def measure(sizes: Sizes) -> Section:
    """Measure every size, the smallest first."""
    found = {n_rows: measure_size(n_rows, turns) for n_rows, turns in sizes.turns.items()}
    rows = []
    for n_rows, tools in found.items():
        seconds = {tool: [one["seconds"] for one in runs] for tool, runs in tools.items()}
        best = [min(pair) for pair in zip(seconds["plain DuckDB"], seconds["plain Polars"], strict=True)]
        for tool, runs in tools.items():
            memory = [one["peak"] / 2**20 for one in runs]
            relative = shown(ratios(seconds[tool], best))
            rows.append([f"{n_rows / 1e6:g} million", tool, shown(seconds[tool]), relative, shown(memory)])
    text = "\n\n".join(
        [
            machine(["duckdb", "polars"]),
            f"Races of {N_CARS} cars and {N_LAPS} laps, {RACES_A_FILE} races a file; each run "
            "in a process of its own, without its start.",
            table(
                ["lap rows", "tool", "seconds", "÷ the better of DuckDB and Polars", "peak memory, MiB"], rows
            ),
            "![Time and memory of aggregating laps](images/performance_telemetry.png)",
        ]
    )
    return Section(text, {"performance_telemetry": draw(found)})


def draw(found: dict[int, dict[str, list[dict[str, float]]]]) -> Figure:
    """Draw seconds and memory over the number of rows."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, quantity, unit, label in zip(
        axes, ("seconds", "peak"), (1, 2**20), ("Seconds", "Peak memory, MiB"), strict=True
    ):
        for tool, color in TOOLS.items():
            middle = [
                spread([one[quantity] / unit for one in tools[tool]]).median for tools in found.values()
            ]
            ax.plot([n / 1e6 for n in found], middle, "o-", color=color, label=tool)
        ax.set(xscale="log", yscale="log", xlabel="Lap rows, millions", title=label)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
        ax.grid(alpha=0.3)
    axes[0].legend()
    return figure
