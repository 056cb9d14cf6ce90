"""The whole pipeline: wall time and peak memory by asset, by number of seasons and scenarios.

Each cell is a run of the command line on simulated seasons with a store of its own. Times are those that
Dagster recorded; memory is that of the process and its children, looked at ten times a second.
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

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.pipeline_run import LATER
from benchmarks.performance.timing import KilledError, TooSlowError, measure_apart
from calibration_pipeline.plots.figures import figure_axes, rows_height

SEASONS, SCENARIOS = (4, 13, 40), (1000, 10_000, 100_000)
FIRST_SEASON = 2018
"""The first season whose calendar the track catalogue holds."""
RACES_A_SEASON, RACES_OF_A_KIND, CARS = 36, 14, 40
"""Races of the kind of track that has most of them, a season, and cars of a field: at most so many."""
BYTES_A_CAR = 9
COPIES = 3
"""An archetype's ensemble is held so many times at most: raw, recalibrated and what is computed of them."""
LIMIT_S = 7200


class Cell(NamedTuple):
    """A size of the pipeline."""

    seasons: int
    scenarios: int


class Sizes(NamedTuple):
    """How long a cell may take."""

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
    """Memory of the largest ensemble that is held whole: one kind of track, all seasons.

    Examples
    --------
    >>> ensemble_bytes(Cell(4, 1000))
    20160000
    """
    return cell.seasons * RACES_OF_A_KIND * cell.scenarios * CARS * BYTES_A_CAR


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refused(cell: Cell) -> str | None:
    """Say why a cell is not tried: its ensembles would not fit into memory."""
    needed, there = COPIES * ensemble_bytes(cell), memory_bytes()
    if needed <= there:
        return None
    return (
        f"refused: {COPIES} x {ensemble_bytes(cell) / 1e9:,.0f} GB of ensembles, {there / 1e9:,.0f} GB there"
    )


def measure(sizes: Sizes, cells: Sequence[Cell]) -> Section:
    """Measure the cells asked for, and say of the others of the grid that they were not."""
    outcome: dict[Cell, Mapping[str, Any] | str] = {}
    grid = [Cell(seasons, scenarios) for seasons in SEASONS for scenarios in SCENARIOS]
    for cell in sorted({*grid, *cells}):
        if reason := refused(cell):
            outcome[cell] = reason
        elif cell not in cells:
            outcome[cell] = "not run"
        else:
            outcome[cell] = run(cell, sizes.limit_s)
            print(overview({cell: outcome[cell]}).splitlines()[-1], flush=True)
    found = {cell: what for cell, what in outcome.items() if not isinstance(what, str)}
    parts = [machine(["dagster", "jax", "numpyro", "polars", "duckdb", "xarray"]), overview(outcome)]
    if not found:
        return Section("\n\n".join(parts), {})
    parts += [by_asset(found), "![Time of the pipeline by asset](images/performance_pipeline.png)"]
    return Section("\n\n".join(parts), {"performance_pipeline": draw(found)})


def run(cell: Cell, limit_s: float) -> Mapping[str, Any] | str:
    """Run one cell in a store of its own, which is gone afterwards; or say that it took too long."""
    request = {"first_season": FIRST_SEASON, **cell._asdict(), "folder": ""}
    years = FIRST_SEASON + cell.seasons - datetime.date.today().year
    told = {LATER: str(years)} if years > 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        request["folder"] = str(Path(folder))
        try:
            measured: Mapping[str, Any] = measure_apart(
                "benchmarks.performance.pipeline_run", request, limit_s, told
            )
        except TooSlowError:
            return f"not run: over {limit_s / 60:.0f} minutes"
        except KilledError as error:
            return f"not run: {error}"
    return measured


def overview(outcome: Mapping[Cell, Mapping[str, Any] | str]) -> str:
    """Write the grid: wall time, peak memory and size of the store, or why there are none."""
    rows = []
    for cell, what in outcome.items():
        label = [str(cell.seasons), f"{cell.scenarios:,}"]
        if isinstance(what, str):
            rows.append([*label, what, "", "", "", ""])
            continue
        assets = sum(one["seconds"] for one in what["assets"].values())
        sizes = [
            f"{what['peak'] / 2**20:,.0f}",
            f"{ensemble_bytes(cell) / 2**20:,.0f}",
            f"{what['stored'] / 2**20:,.0f}",
        ]
        times = [f"{what['wall']:.0f}", f"{assets:.0f}"]
        rows.append([*label, *times, *sizes])
    columns = ["seasons", "scenarios", "wall time, s", "in assets, s", "peak memory, MiB",
               "largest ensemble, MiB", "store, MiB"]  # fmt: skip
    return table(columns, rows)


def by_asset(found: Mapping[Cell, Mapping[str, Any]]) -> str:
    """Write seconds of all partitions together and peak memory of every asset, in order of time."""
    names = sorted(
        {name for what in found.values() for name in what["assets"]}, key=lambda name: -_seconds(found, name)
    )
    columns = [text for c in found for text in (f"{c.seasons} x {c.scenarios:,}: s", "peak, MiB")]
    nothing = {"seconds": 0.0, "peak": 0}
    rows = []
    for name in names:
        cells = [what["assets"].get(name, nothing) for what in found.values()]
        pairs = [(f"{one['seconds']:.1f}", f"{one['peak'] / 2**20:,.0f}") for one in cells]
        rows.append([name, *(text for pair in pairs for text in pair)])
    return table(["asset", *columns], rows)


def _seconds(found: Mapping[Cell, Mapping[str, Any]], name: str) -> float:
    return max(what["assets"].get(name, {"seconds": 0.0})["seconds"] for what in found.values())


def draw(found: Mapping[Cell, Mapping[str, Any]]) -> Figure:
    """Draw a bar for every cell, cut by asset; small assets are drawn together."""
    figure, ax = figure_axes(8, rows_height(len(found), 0.5) + 1)
    shares = [{n: one["seconds"] for n, one in what["assets"].items()} for what in found.values()]
    large = {n for share in shares for n, s in share.items() if s > 0.04 * sum(share.values())}
    left = np.zeros(len(found))
    ax.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)
    for name in [*sorted(large, key=lambda name: -_seconds(found, name)), "the other assets"]:
        if name in large:
            width = np.array([share.get(name, 0.0) for share in shares])
        else:
            width = np.array([sum(s for n, s in share.items() if n not in large) for share in shares])
        ax.barh(range(len(found)), width, left=left, label=name)
        left += width
    ax.set_yticks(range(len(found)), [f"{c.seasons} seasons, {c.scenarios:,} scenarios" for c in found])
    ax.invert_yaxis()
    ax.set(xlabel="Seconds, of all processes")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure
