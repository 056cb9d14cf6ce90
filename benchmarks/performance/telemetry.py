"""Time and memory of aggregating laps, beside plain DuckDB and plain Polars.

Every run is a separate process, so that its peak memory can be measured. Plain DuckDB is one query over all
files with default settings; plain Polars is a lazy query with the streaming engine. All answers are compared.
"""

import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import duckdb

from benchmarks.performance.timing import MIB, KilledError, measure_apart, measured_on, ratios
from benchmarks.result_files import Row, repeated

N_CARS, N_LAPS = 40, 250
RACES_A_FILE = 36
TOOLS = ("ours", "plain DuckDB", "plain Polars")
LIMIT_S = 600
KILLED = {"seconds": math.inf, "peak": math.inf, "sums": {}}
"""Result of a run that exceeded the memory; `inf` in the result file."""

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
    """Number of lap rows -> number of turns."""

    turns: dict[int, int]


FULL = Sizes({1_000_000: 3, 20_000_000: 2, 100_000_000: 1})
SMALL = Sizes({N_CARS * N_LAPS * 2: 1})


def write_laps(folder: Path, n_rows: int) -> list[str]:
    """Write lap rows in the form of the pipeline's store, a file for each season; return the paths."""
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
    """Return the seconds and peak bytes of each turn by tool, on temporary generated laps."""
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
    """Raise if a tool's number of rows or sum of a column differs from ours."""
    ours = answers["ours"]["sums"]
    for tool, found in answers.items():
        wrong = [
            name
            for name, value in found["sums"].items()
            if not abs(value - ours[name]) <= 1e-9 * max(1.0, abs(ours[name]))
        ]
        if wrong:
            raise ValueError(
                f"{tool} must give our answer over {n_files} files, differs in {', '.join(wrong)}."
            )


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Measure every size, the smallest first."""
    machine = measured_on(["duckdb", "polars"])
    rows: list[Row] = []
    for n_rows, turns in sizes.turns.items():
        tools = measure_size(n_rows, turns)
        seconds = {tool: [run["seconds"] for run in runs] for tool, runs in tools.items()}
        best = [min(pair) for pair in zip(seconds["plain DuckDB"], seconds["plain Polars"], strict=True)]
        rows += [
            {
                "lap_rows": n_rows,
                "tool": tool,
                **repeated("s", seconds[tool]),
                **repeated("ratio", ratios(seconds[tool], best)),
                **repeated("peak_mib", [run["peak"] / MIB for run in runs]),
                "measured_on": machine,
            }
            for tool, runs in tools.items()
        ]
    return {"telemetry": rows}
