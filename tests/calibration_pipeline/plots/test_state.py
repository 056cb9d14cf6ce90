"""The chart of sharpness over time."""

import numpy as np
import pytest

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.plots.figures import figure_png
from calibration_pipeline.plots.state import state_figure
from helpers.example_report import state_table
from helpers.images import assert_on_paper


@pytest.mark.parametrize("quantity", ["slope", "tilt"])
def test_each_archetype_has_a_panel_of_its_own_races(quantity: str) -> None:
    """Races stand at their places in the whole calendar; seasons are labelled where they begin."""
    states = state_table(seasons=3)
    figure = state_figure(states, quantity)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [archetype.label for archetype in ARCHETYPES]
    for place, (ax, archetype) in enumerate(zip(figure.axes, ARCHETYPES, strict=True)):
        own = states.filter(archetype=str(archetype))
        points = ax.lines[-1].get_xydata()
        np.testing.assert_array_equal(points[:, 0], np.arange(place, 36, 4))
        np.testing.assert_allclose(points[:, 1], own[quantity])
        band = ax.collections[-1].get_paths()[0].get_extents()
        ends = own[f"{quantity}_lower"].min(), own[f"{quantity}_upper"].max()
        assert (band.ymin, band.ymax) == pytest.approx(ends)
    last = figure.axes[-1]
    assert list(last.get_xticks()) == [0, 12, 24]
    assert [label.get_text() for label in last.get_xticklabels()] == ["2022", "2023", "2024"]


def test_the_axis_holds_every_interval_and_slope_one() -> None:
    narrow, wide = state_table(), state_table().with_columns(slope_upper=state_table()["slope_upper"] + 1)
    for states in (narrow, wide):
        lower, upper = state_figure(states, "slope").axes[0].get_ylim()
        assert lower <= states["slope_lower"].min() < 1 < states["slope_upper"].max() <= upper


def test_ticks_are_plain_numbers_and_short_seasons_have_no_label() -> None:
    """A season of which one race has a state has no room for its label."""
    states = state_table(seasons=3)[11:]
    figure = state_figure(states, "slope")
    figure.draw_without_rendering()
    first, last = figure.axes[0], figure.axes[-1]
    assert not [label.get_text() for label in first.get_yticklabels(minor=True) if label.get_text()]
    assert [label.get_text() for label in last.get_xticklabels()] == ["2023", "2024"]


@pytest.mark.parametrize("quantity", ["slope", "tilt"])
def test_everything_stays_on_the_paper(quantity: str) -> None:
    assert_on_paper(state_figure(state_table(seasons=3), quantity))


def test_no_races_are_written_as_such() -> None:
    figure = state_figure(state_table().clear(), "slope")
    assert {ax.texts[0].get_text() for ax in figure.axes} == {"no races yet"}
    assert figure_png(figure)[1:4] == b"PNG"
