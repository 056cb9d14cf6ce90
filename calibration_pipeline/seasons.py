"""Seasons as users write them: years and ranges, the last of which may be open."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

FIRST_SEASON = 1949
ALL_RACES = "all races"
"""Name of the era that holds every scored race."""


class Seasons(NamedTuple):
    """Seasons in order; where they are open, each new year is one of them."""

    years: tuple[int, ...]
    is_open: bool


def parse_seasons(text: str, current_year: int) -> Seasons:
    """Return the seasons of a text.

    Parameters
    ----------
    text : str
        Years and ranges, as in '2020', '2016,2018-2020' or '2020-' (up to the current year).
    current_year : int
        No season after it exists yet.

    Raises
    ------
    ValueError
        If `text` has another form, or a season is not between 1949 and `current_year`.

    Examples
    --------
    >>> parse_seasons("2016,2018-2020", 2026)
    Seasons(years=(2016, 2018, 2019, 2020), is_open=False)
    >>> parse_seasons("2025-", 2026)
    Seasons(years=(2025, 2026), is_open=True)
    """
    text = re.sub(r"\s", "", text)
    if not re.fullmatch(r"(\d{4}(-\d{4})?,)*\d{4}(-(\d{4})?)?", text):
        raise ValueError("not years and ranges of years")
    years: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        season_range = range(int(first), int(last or (current_year if dash else first)) + 1)
        if not season_range and last:
            raise ValueError(f"{part} is no ascending range")
        years.update(season_range or [int(first)])
    if min(years) < FIRST_SEASON or max(years) > current_year:
        raise ValueError(f"not between {FIRST_SEASON} and {current_year}")
    return Seasons(tuple(sorted(years)), text.endswith("-"))


def span(seasons: Sequence[int]) -> str:
    """Return seasons in order as years and ranges, as `parse_seasons` reads them.

    Examples
    --------
    >>> span([2016, 2018, 2019, 2020]), span([2020])
    ('2016,2018-2020', '2020')
    """
    starts = [seasons[0], *(later for earlier, later in pairwise(seasons) if later > earlier + 1)]
    ends = [*(earlier for earlier, later in pairwise(seasons) if later > earlier + 1), seasons[-1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def without_gaps(seasons: Sequence[int]) -> list[int]:
    """Return all years from the first of the seasons to the last: a walk over seasons passes them all.

    Examples
    --------
    >>> without_gaps([2016, 2018])
    [2016, 2017, 2018]
    """
    return list(range(seasons[0], seasons[-1] + 1))


def parse_eras(text: str) -> tuple[int, ...]:
    """Return the first seasons of eras, from a text such as '2022' or '2018,2022'; '0' declares none.

    Raises
    ------
    ValueError
        If `text` has another form, or the seasons do not ascend from 1949 on.

    Examples
    --------
    >>> parse_eras("2018, 2022")
    (2018, 2022)
    """
    text = re.sub(r"\s", "", text)
    if text == "0":
        return ()
    if not re.fullmatch(r"\d{4}(,\d{4})*", text):
        raise ValueError("not years, separated by commas")
    starts = tuple(int(year) for year in text.split(","))
    if any(later <= earlier for earlier, later in pairwise((FIRST_SEASON - 1, *starts))):
        raise ValueError(f"not ascending from {FIRST_SEASON} on")
    return starts


def split_eras(starts: Sequence[int], seasons: Sequence[int]) -> dict[str, list[bool]]:
    """Return which races belong to each era, the newest era first, all races last.

    Parameters
    ----------
    starts : sequence of int
        First season of each declared era, ascending; an era ends before the next one starts.
    seasons : sequence of int
        Season of each race.

    Returns
    -------
    dict
        Name of the era to whether each race belongs to it, (race,). Eras with no race or with all races are
        left out; `ALL_RACES` is always there.

    Examples
    --------
    >>> split_eras([2018, 2022], [2017, 2018, 2023])
    {'from 2022': [False, False, True], '2018-2021': [False, True, False], 'all races': [True, True, True]}
    """
    eras = {}
    for start, end in pairwise([*starts, math.inf]):
        name = f"from {start:g}" if end == math.inf else span(range(int(start), int(end)))
        eras[name] = [start <= season < end for season in seasons]
    declared = {name: own for name, own in reversed(eras.items()) if any(own) and not all(own)}
    return {**declared, ALL_RACES: [True] * len(seasons)}
