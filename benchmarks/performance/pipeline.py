"""Wall time and peak memory of the whole pipeline, by asset and by number of seasons and scenarios.

Each cell is a run of the command line on simulated seasons with an empty store. Dagster records the times of
the steps; the memory of the process and its descendants is sampled every second, shared pages divided.
"""

import datetime
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.performance.pipeline_run import LATER
from benchmarks.performance.timing import MIB, KilledError, TooSlowError, measure_apart, measured_on
from benchmarks.result_files import Row
from calibration_pipeline.plots.figures import rows_height

FIRST_SEASON = 2018
"""First season with a calendar in the track catalogue."""
RACES_OF_AN_ARCHETYPE, CARS = 14, 40
"""Upper limits: races of one archetype in a season, and cars in a field."""
BYTES_A_CAR = 9
COPIES = 3
"""Copies of an archetype's ensemble in memory: raw, recalibrated and derived values."""
LIMIT_S = 7200
OTHERS = "the other assets"


class Cell(NamedTuple):
    """A size of the pipeline."""

    seasons: int
    scenarios: int


class Sizes(NamedTuple):
    """Time limit of a cell, seconds."""

    limit_s: float


FULL, SMALL = Sizes(LIMIT_S), Sizes(3600)


def read_cells(text: str) -> list[Cell]:
    """Read cells.

    Examples
    --------
    >>> read_cells("4x1000,13x2000")
    [Cell(seasons=4, scenarios=1000), Cell(seasons=13, scenarios=2000)]
    """
    pairs = (part.split("x") for part in text.split(","))
    return [Cell(int(seasons), int(scenarios)) for seasons, scenarios in pairs]


def ensemble_bytes(cell: Cell) -> int:
    """Return the memory of the largest ensemble: one archetype, all seasons.

    Examples
    --------
    >>> ensemble_bytes(Cell(4, 1000))
    20160000
    """
    return cell.seasons * RACES_OF_AN_ARCHETYPE * cell.scenarios * CARS * BYTES_A_CAR


def memory_bytes() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refused(cell: Cell) -> str | None:
    """Return the reason why a cell cannot run: its ensembles exceed the memory; None if it can run."""
    ensemble, memory = ensemble_bytes(cell) / 1e9, memory_bytes() / 1e9
    if COPIES * ensemble <= memory:
        return None
    return f"refused: {COPIES} x {ensemble:,.0f} GB of ensembles exceed {memory:,.0f} GB of memory"


def measure(sizes: Sizes, cells: Sequence[Cell]) -> dict[str, list[Row]]:
    """Measure the cells: a row for each cell, and a row for each cell and asset."""
    machine = measured_on(["dagster", "jax", "numpyro", "polars", "duckdb", "xarray"])
    overview: list[Row] = []
    by_asset: list[Row] = []
    for cell in cells:
        reason = refused(cell)
        found = reason or run(cell, sizes.limit_s)
        overview.append({**overview_row(cell, found), "measured_on": machine})
        if not isinstance(found, str):
            by_asset += [{**row, "measured_on": machine} for row in asset_rows(cell, found)]
        print(overview[-1], flush=True)
    return {"pipeline": overview} | ({"pipeline_assets": by_asset} if by_asset else {})


def run(cell: Cell, limit_s: float) -> Mapping[str, Any] | str:
    """Run a cell in a temporary store; return its measurements, or the reason why it did not finish."""
    request = {"first_season": FIRST_SEASON, **cell._asdict(), "folder": ""}
    years = FIRST_SEASON + cell.seasons - datetime.date.today().year
    environment = {LATER: str(years)} if years > 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        request["folder"] = str(Path(folder))
        try:
            measured: Mapping[str, Any] = measure_apart(
                "benchmarks.performance.pipeline_run", request, limit_s, environment
            )
        except TooSlowError:
            return f"not run: over {limit_s / 60:.0f} minutes"
        except KilledError as error:
            return f"not run: {error}"
    return measured


def overview_row(cell: Cell, found: Mapping[str, Any] | str) -> Row:
    """Return the totals of a cell, or the reason why there are none."""
    columns = ("wall_s", "in_assets_s", "peak_mib", "largest_ensemble_mib", "store_mib")
    if isinstance(found, str):
        return {**cell._asdict(), **dict.fromkeys(columns, ""), "note": found}
    in_assets = sum(asset["seconds"] for asset in found["assets"].values())
    sizes = (size / MIB for size in (found["peak"], ensemble_bytes(cell), found["stored"]))
    totals = (f"{value:.0f}" for value in (found["wall"], in_assets, *sizes))
    return {**cell._asdict(), **dict(zip(columns, totals, strict=True)), "note": ""}


def asset_rows(cell: Cell, found: Mapping[str, Any]) -> list[Row]:
    """Return the seconds of all partitions and the peak memory of every asset, the slowest asset first."""
    assets = sorted(found["assets"].items(), key=lambda item: -item[1]["seconds"])
    return [
        {
            **cell._asdict(),
            "asset": name,
            "s": f"{asset['seconds']:.1f}",
            "peak_mib": f"{asset['peak'] / MIB:.0f}",
        }
        for name, asset in assets
    ]


def draw(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Draw a bar for every cell from `pipeline_assets`, divided by asset; small assets share a segment."""
    seconds: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        seconds.setdefault((row["seasons"], row["scenarios"]), {})[row["asset"]] = float(row["s"])
    bars = list(seconds.values())
    large = {name for bar in bars for name, s in bar.items() if s > 0.04 * sum(bar.values())}
    slowest_first = sorted(large, key=lambda name: -max(bar.get(name, 0.0) for bar in bars))
    figure = Figure(figsize=(8, rows_height(len(bars), 0.5) + 1), layout="constrained")
    ax = figure.add_subplot()
    left = np.zeros(len(bars))
    ax.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)
    for label in [*slowest_first, OTHERS]:
        width = [
            sum(s for name, s in bar.items() if (name if name in large else OTHERS) == label) for bar in bars
        ]
        ax.barh(range(len(bars)), width, left=left, label=label)
        left += np.array(width)
    labels = [f"{seasons} seasons, {int(scenarios):,} scenarios" for seasons, scenarios in seconds]
    ax.set_yticks(range(len(bars)), labels)
    ax.invert_yaxis()
    ax.set(xlabel="Seconds, of all processes")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure
