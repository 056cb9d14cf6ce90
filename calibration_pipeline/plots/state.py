"""Charts of the calibration's state: sharpness and front tilt over time."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.plots.figures import ARCHETYPE_STYLES, GREY, figure_panels
from calibration_pipeline.plots.series import write_no_races

LIMITS = (0.7, 1.4)
"""Values that the vertical axis shows at least."""
LABELS = {
    "slope": ("Sharpness over time", "Calibration slope before each race, 95 % interval"),
    "tilt": ("Front tilt over time", "Factor on the front group's sharpness, 95 % interval"),
}
"""Quantity -> title, and label of the vertical axis."""
NARROW = 0.05
"""Share of all races up to which a season has no room for its label."""


def state_figure(states: pl.DataFrame, quantity: str) -> Figure:
    """Return the chart of a quantity of the state before every race, a panel an archetype.

    Parameters
    ----------
    states : polars.DataFrame
        As `calibration.summaries.state_by_race` returns it.
    quantity : str
        Key of `LABELS`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, panels = figure_panels(
        len(ARCHETYPES), 1, height=6.6, bottom=0.8, top=0.65, gaps=(0, 0.28), sharex=True, sharey=True
    )
    draw_states(panels, states, quantity)
    return figure


def draw_states(panels: Sequence[Axes], states: pl.DataFrame, quantity: str) -> Sequence[Axes]:
    """Draw a quantity of the state before every race with its 95 % interval; 1 is calibrated.

    Parameters
    ----------
    panels : sequence of matplotlib.axes.Axes
        One an archetype, with shared scales.
    states : polars.DataFrame
        archetype, season, race_order, and the quantity with _lower and _upper.
    quantity : str
        Key of `LABELS`.

    Returns
    -------
    sequence of matplotlib.axes.Axes
    """
    title, label = LABELS[quantity]
    panels[0].figure.suptitle(title)
    if states.is_empty():
        for ax in panels:
            write_no_races(ax)
        return panels
    calendar = states.select("season", "race_order").unique().sort("race_order")
    starts = np.flatnonzero(np.diff(calendar["season"].to_numpy(), prepend=0))
    for ax, archetype in zip(panels, ARCHETYPES, strict=True):
        style = ARCHETYPE_STYLES[archetype]
        own = states.filter(archetype=archetype).sort("race_order")
        x = calendar["race_order"].search_sorted(own["race_order"]).to_numpy()
        ax.axhline(1, color=GREY, linewidth=1)
        ax.vlines(
            starts[1:] - 0.5,
            0,
            1,
            color=GREY,
            linewidth=0.6,
            linestyle=":",
            transform=ax.get_xaxis_transform(),
        )
        ends = own[f"{quantity}_lower"], own[f"{quantity}_upper"]
        ax.fill_between(x, *ends, color=style.color, alpha=0.2, linewidth=0)
        ax.plot(x, own[quantity], style.marker, color=style.color, markersize=2.5)
        ax.plot(x, own[quantity], "-", color=style.color, linewidth=1.2)
        ax.set_title(style.label, fontsize="small", loc="left")
    lowest = states[f"{quantity}_lower"].to_numpy().min()
    highest = states[f"{quantity}_upper"].to_numpy().max()
    panels[0].set(yscale="log", ylim=(min(LIMITS[0], lowest), max(LIMITS[1], highest)))
    panels[0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    labelled = starts[np.diff(starts, append=calendar.height) > NARROW * calendar.height]
    panels[-1].set_xticks(labelled, calendar["season"].to_numpy()[labelled].astype(str), rotation=45)
    panels[0].figure.supxlabel("Races of all archetypes, by season", fontsize="medium")
    panels[0].figure.supylabel(label, fontsize="medium")
    return panels
