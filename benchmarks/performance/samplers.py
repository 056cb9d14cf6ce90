"""Effective samples a second of NUTS for both calibration maps, in this project and in other samplers.

In the comparison `tabulated`, all samplers read the same tabulated likelihood with the same target
acceptance, so that only the samplers differ. In the comparison `end to end`, each tool fits the model in its
usual form with its default target, and the time of this project includes the table. All samplers of a map
and a number of races run in turns in one process.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.performance.timing import SkippedError, TooSlowError, measure_apart, measured_on, ratios
from benchmarks.result_files import Row, repeated
from calibration_pipeline.plots.figures import BLUE, GREEN, ORANGE, VERMILION

NEEDED = ("pymc", "nutpie", "blackjax")
OURS = "this project"
COLORS = {OURS: BLUE, "NumPyro": ORANGE, "PyMC with nutpie": VERMILION, "BlackJAX": GREEN}
COMPARISONS = {True: "tabulated", False: "end to end"}
LIMIT_S = 1800


class Cell(NamedTuple):
    """A map, a number of races, (chains, warm-up, draws), and the number of turns after the first.

    With `others`, all samplers are measured. Without it, the runs of the other samplers at the next smaller
    number of races are scaled by the time of one gradient.
    """

    kind: str
    n_races: int
    length: tuple[int, int, int]
    n_turns: int
    others: bool = True


class Sizes(NamedTuple):
    """Cells of each comparison; the number of races increases within each map."""

    tabulated: tuple[Cell, ...]
    plain: tuple[Cell, ...]


WHOLE, SHORT = (4, 500, 1000), (4, 300, 300)
FULL = Sizes(
    tabulated=(
        Cell("latent", 36, WHOLE, 3),
        Cell("latent", 360, WHOLE, 3),
        Cell("latent", 3600, WHOLE, 3),
        Cell("marginal", 36, WHOLE, 3),
        Cell("marginal", 360, WHOLE, 1),
        Cell("marginal", 3600, WHOLE, 1, others=False),
    ),
    plain=(
        Cell("latent", 36, WHOLE, 1),
        Cell("latent", 360, SHORT, 1),
        Cell("latent", 3600, SHORT, 1, others=False),
        Cell("marginal", 36, SHORT, 1),
        Cell("marginal", 360, SHORT, 1, others=False),
        Cell("marginal", 3600, SHORT, 1, others=False),
    ),
)
SMALL = Sizes(tabulated=(Cell("latent", 8, (2, 200, 200), 1),), plain=())


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Measure every cell.

    Raises
    ------
    SkippedError
        If a package is missing.
    """
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise SkippedError(f"{', '.join(missing)} not installed; `make bench` installs them")
    machine = measured_on(["numpyro", "jax", *NEEDED])
    rows: list[Row] = []
    for (tabulated, comparison), cells in zip(COMPARISONS.items(), sizes, strict=True):
        before: list[dict[str, Any]] = []
        for cell in cells:
            try:
                found = measure_cell(cell, tabulated)
            except TooSlowError as error:
                print(f"{comparison}, {cell.kind}, {cell.n_races:,} races: not run, {error}", flush=True)
                continue
            if not cell.others:
                scale_up(found, before)
            before = found
            labels = {"comparison": comparison, "measured_on": machine}
            rows += [{**labels, **row} for row in table_rows(cell, found)]
    return {"samplers": rows}


def measure_cell(cell: Cell, tabulated: bool) -> list[dict[str, Any]]:
    """Measure a cell in a separate process, in which JAX has a device for every chain."""
    request = {
        "kind": cell.kind,
        "n_races": cell.n_races,
        "tabulated": tabulated,
        "length": cell.length,
        "turns": cell.n_turns,
        "only_ours": not cell.others,
    }
    rows: list[dict[str, Any]] = measure_apart("benchmarks.performance.sampling", request, LIMIT_S)
    return rows


def scale_up(rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    """Fill in the runs that were not measured: the gradients and effective samples of the smaller cell.

    The plain models have parameters for each race, and more races need longer trajectories: the true time is
    longer than the scaled time.
    """
    for row, known in zip(rows, before, strict=True):
        if row["first"] is None:
            slower = row["gradient"] / known["gradient"]
            seconds, effective = np.mean(known["warm"], axis=0)
            row["warm"] = [[seconds * slower, effective]]
            row["scaled"] = True


def table_rows(cell: Cell, found: list[dict[str, Any]]) -> list[Row]:
    """Return a row for each sampler of a cell."""
    chains, warm_up, draws = cell.length
    ours = [effective / seconds for seconds, effective in found[0]["warm"]]
    rows: list[Row] = []
    for sampler in found:
        seconds, effective = zip(*sampler["warm"], strict=True)
        rates = [e / s for s, e in sampler["warm"]]
        first = sampler["first"]
        rows.append(
            {
                "map": cell.kind,
                "races": cell.n_races,
                "chains": chains,
                "warm_up": warm_up,
                "draws": draws,
                "sampler": sampler["sampler"],
                "first_s": f"{first[0]:.1f}" if first else "",
                **repeated("s", seconds),
                **repeated("ess", effective),
                "first_ess_per_s": f"{first[1] / first[0]:.1f}" if first else "",
                **repeated("ess_per_s", rates),
                **repeated("ratio", ratios(ours[: len(rates)], rates)),
                "scaled": str(sampler.get("scaled", False)).lower(),
            }
        )
    return rows


def draw(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Draw warm effective samples a second over the number of races; scaled values are hollow."""
    rows = [row for row in rows if row["ess_per_s"]]
    races, kinds = sorted({int(row["races"]) for row in rows}), sorted({row["map"] for row in rows})
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots(len(kinds), 2, sharex=True, sharey=True, squeeze=False)
    for line, kind in zip(axes, kinds, strict=True):
        for ax, comparison in zip(line, COMPARISONS.values(), strict=True):
            for sampler, color in COLORS.items():
                wanted = (comparison, kind, sampler)
                part = [row for row in rows if (row["comparison"], row["map"], row["sampler"]) == wanted]
                x, y = [int(row["races"]) for row in part], [float(row["ess_per_s"]) for row in part]
                ax.plot(x, y, "-", color=color, label=sampler)
                fill = ["white" if row["scaled"] == "true" else color for row in part]
                ax.scatter(x, y, c=fill, edgecolors=color, zorder=3)
            ax.set(xscale="log", yscale="log", title=f"{kind} map, {comparison}")
            ax.set_xticks(races, [f"{n:,}" for n in races])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.grid(alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    figure.supxlabel("Races")
    figure.supylabel("Effective samples a second, warm")
    return figure
