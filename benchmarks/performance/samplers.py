"""NUTS: effective samples a second of both calibration maps, here and in other samplers.

Two comparisons. With the same tabulated likelihood and the same target of acceptance in every sampler, what
differs is the sampler alone. End to end each tool fits the model as one writes it there, with its own target,
and this project makes its table first. Each map and number of races is a process of its own, in which all
samplers run in turn.
"""

from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.timing import TooSlowError, measure_apart, ratios, shown
from calibration_pipeline.plots.figures import BLUE, GREEN, ORANGE, VERMILION

NEEDED = ("pymc", "nutpie", "blackjax")
OURS = "this project"
COLORS = {OURS: BLUE, "NumPyro": ORANGE, "PyMC with nutpie": VERMILION, "BlackJAX": GREEN}
COMPARISONS = {True: "The same tabulated likelihood", False: "End to end"}
LIMIT_S = 1800
COLUMNS = (
    "map",
    "races",
    "chains x (warm-up + draws)",
    "sampler",
    "first run, s",
    "warm, s",
    "smallest ESS",
    "ESS a second, first run",
    "ESS a second, warm",
    "ours ÷ this, warm",
)


class Cell(NamedTuple):
    """A map and a number of races: chains, warm-up and draws, and turns after the first.

    Other samplers than ours are measured where `others`, else their runs at the number of races before are
    scaled by the time of one gradient.
    """

    kind: str
    n_races: int
    length: tuple[int, int, int]
    n_turns: int
    others: bool = True


class Sizes(NamedTuple):
    """Cells by comparison: tabulated, plain; in each map the numbers of races increase."""

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


def measure(sizes: Sizes) -> Section:
    """Measure every cell, or say what is not installed."""
    if missing := [name for name in NEEDED if not find_spec(name)]:
        return Section(f"Skipped: {', '.join(missing)} not installed; `make bench` installs them.", {})
    parts, rates = [machine(["numpyro", "jax", *NEEDED])], {}
    for tabulated, cells in zip((True, False), sizes, strict=True):
        found: dict[Cell, list[dict[str, Any]]] = {}
        before: list[dict[str, Any]] = []
        written: list[list[str]] = []
        for cell in cells:
            try:
                rows = measure_cell(cell, tabulated)
            except TooSlowError as error:
                nothing = [""] * (len(COLUMNS) - 4)
                written.append([cell.kind, f"{cell.n_races:,}", "", f"not run: {error}", *nothing])
                continue
            if not cell.others:
                scale_up(rows, before)
            found[cell], before = rows, rows
            written += lines(cell, rows)
        parts += [f"{COMPARISONS[tabulated]}:", table(COLUMNS, written)]
        rates[tabulated] = found
    parts.append("![Effective samples a second](images/performance_samplers.png)")
    return Section("\n\n".join(parts), {"performance_samplers": draw(rates)})


def measure_cell(cell: Cell, tabulated: bool) -> list[dict[str, Any]]:
    """Measure a cell in a process of its own, where JAX sees a device for every chain."""
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
    """Fill in runs that were not measured: as many gradients and effective samples as with fewer races.

    Races bring parameters of their own to the plain models, and with them longer trajectories: the time is
    rather more.
    """
    for row, known in zip(rows, before, strict=True):
        if row["first"] is None:
            slower = row["gradient"] / known["gradient"]
            seconds, effective = np.mean(known["warm"], axis=0)
            row["warm"] = [[seconds * slower, effective]]
            row["scaled"] = True


def lines(cell: Cell, rows: list[dict[str, Any]]) -> list[list[str]]:
    """Write a cell as lines of the table; what is scaled and not measured begins with ≈."""
    chains, warm_up, draws = cell.length
    ours = [effective / seconds for seconds, effective in rows[0]["warm"]]
    written = []
    for row in rows:
        seconds, effective = zip(*row["warm"], strict=True)
        rates = [e / s for s, e in row["warm"]]
        about = "≈ " if row.get("scaled") else ""
        compared = ratios(ours[: len(rates)], rates)
        first = row["first"]
        written.append(
            [
                cell.kind,
                f"{cell.n_races:,}",
                f"{chains} x ({warm_up} + {draws})",
                row["sampler"],
                f"{first[0]:.1f}" if first else "not run",
                about + shown(seconds),
                about + shown(effective),
                f"{first[1] / first[0]:,.1f}" if first else "not run",
                about + shown(rates),
                about + shown(compared),
            ]
        )
    return written


def draw(rates: dict[bool, dict[Cell, list[dict[str, Any]]]]) -> Figure:
    """Draw warm effective samples a second over the number of races; hollow where scaled."""
    races = sorted({cell.n_races for found in rates.values() for cell in found})
    kinds = sorted({cell.kind for found in rates.values() for cell in found})
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots(len(kinds), 2, sharex=True, sharey=True, squeeze=False)
    for line, kind in zip(axes, kinds, strict=True):
        for ax, (tabulated, found) in zip(line, rates.items(), strict=True):
            cells = {cell: rows for cell, rows in found.items() if cell.kind == kind}
            for sampler, color in COLORS.items():
                known = [
                    (cell.n_races, next(r for r in rows if r["sampler"] == sampler))
                    for cell, rows in cells.items()
                ]
                x = [n for n, _ in known]
                y = [np.median([e / s for s, e in row["warm"]]) for _, row in known]
                ax.plot(x, y, "-", color=color, label=sampler)
                fill = ["white" if row.get("scaled") else color for _, row in known]
                ax.scatter(x, y, c=fill, edgecolors=color, zorder=3)
            ax.set(xscale="log", yscale="log", title=f"{kind} map: {COMPARISONS[tabulated].lower()}")
            ax.set_xticks(races, [f"{n:,}" for n in races])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.grid(alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    figure.supxlabel("Races")
    figure.supylabel("Effective samples a second, warm")
    return figure
