"""Layouts that a track's plain name hides."""

import pytest

from calibration_pipeline.tracks import compile_constraints
from calibration_pipeline.tracks.layouts import LAPS_TOLERANCE, LAYOUTS, Layout, find_layout

TRACKS = compile_constraints()


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.series}-{layout.layout_id}")
def test_layouts_are_tracks_of_the_catalogue_in_their_seasons(layout: Layout) -> None:
    for season in (layout.first_season, layout.last_season):
        assert TRACKS.by_id(layout.track_id, season).track_id == layout.track_id
        assert TRACKS.by_id(layout.layout_id, season).length_miles > 0
    if layout.series == "cup":
        usual = TRACKS.by_id(layout.layout_id, layout.last_season).scheduled_laps
        assert abs(usual / layout.laps - 1) <= LAPS_TOLERANCE


@pytest.mark.parametrize(
    ("track_id", "season", "laps", "found"),
    [
        ("daytona", 2021, 70, "daytona_road"),
        ("daytona", 2021, 200, None),
        ("daytona", 2014, 112, None),
        ("charlotte", 2020, 208, None),
        ("charlotte", 2017, 109, None),
        ("indianapolis", 2021, 95, "indianapolis_road"),
        ("indianapolis", 2024, 82, None),
        ("bristol", 2023, 250, "bristol_dirt"),
        ("bristol", 2023, None, None),
        ("talladega", 2021, 117, None),
    ],
)
def test_the_laps_decide_where_two_layouts_were_raced(
    track_id: str, season: int, laps: int | None, found: str | None
) -> None:
    layout = find_layout("cup", track_id, season, laps)
    assert (layout and layout.layout_id) == found


def test_each_series_has_its_own_layouts() -> None:
    assert find_layout("xfinity", "indianapolis", 2020, 62) is not None
    assert find_layout("cup", "indianapolis", 2020, 160) is None
    assert find_layout("xfinity", "charlotte", 2020, 67) is not None
    assert find_layout("truck", "bristol", 2020, 200) is None
