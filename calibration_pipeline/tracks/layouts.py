"""Layouts that a track's plain name hides: which seasons raced which layout, as data, and their recognition.

Many tables name the venue alone. Its layout then follows from the season, or from the number of laps.
"""

from dataclasses import dataclass

LAPS_TOLERANCE = 0.2
"""A race is recognised as run on a layout if its laps are within this share of the layout's usual laps."""


@dataclass(frozen=True)
class Layout:
    """A second layout of a venue that a series raced.

    Attributes
    ----------
    series : str
        `cup`, `xfinity` or `truck`.
    track_id : str
        Track that the venue's plain name means.
    layout_id : str
        Track of the layout in the catalogue.
    first_season, last_season : int
        Seasons of the layout, both ends included.
    laps : int
        Laps of the usual race on the layout.
    alone : bool
        Whether the series raced no other layout of the venue in these seasons.
    """

    series: str
    track_id: str
    layout_id: str
    first_season: int
    last_season: int
    laps: int
    alone: bool = False


# Laps are the most frequent ones in nascaR.data's results of each series.
LAYOUTS = (
    Layout("cup", "indianapolis", "indianapolis_road", 2021, 2023, 82, alone=True),
    Layout("cup", "charlotte", "charlotte_roval", 2018, 2025, 109),
    Layout("cup", "bristol", "bristol_dirt", 2021, 2023, 250),
    Layout("cup", "daytona", "daytona_road", 2020, 2021, 65),
    Layout("xfinity", "indianapolis", "indianapolis_road", 2020, 2023, 62, alone=True),
    Layout("xfinity", "charlotte", "charlotte_roval", 2018, 2025, 67),
    Layout("xfinity", "daytona", "daytona_road", 2020, 2021, 52),
    Layout("truck", "bristol", "bristol_dirt", 2021, 2023, 150),
    Layout("truck", "charlotte", "charlotte_roval", 2025, 2025, 67),
    Layout("truck", "daytona", "daytona_road", 2020, 2021, 46),
)


def find_layout(series: str, track_id: str, season: int, race_laps: int | None) -> Layout | None:
    """Return the layout that a race at a plainly named venue was run on; None for that of the plain name.

    Parameters
    ----------
    series : str
        `cup`, `xfinity` or `truck`.
    track_id : str
        Track that the plain name means.
    season : int
    race_laps : int or None
        Laps of the race, None where they are not known.

    Examples
    --------
    >>> find_layout("cup", "charlotte", 2022, 112).layout_id
    'charlotte_roval'
    >>> find_layout("cup", "charlotte", 2022, 400) is None
    True
    >>> find_layout("cup", "indianapolis", 2022, None).layout_id
    'indianapolis_road'
    """
    for layout in LAYOUTS:
        is_there = layout.series == series and layout.track_id == track_id
        if not is_there or not layout.first_season <= season <= layout.last_season:
            continue
        off = abs((race_laps or 0) / layout.laps - 1)
        if layout.alone or off <= LAPS_TOLERANCE:
            return layout
    return None
