"""Seasons as users write them: a list of years, a range, or a range that is open."""

import re
from collections.abc import Sequence

FIRST_SEASON = 1949


def parse_seasons(text: str, current_year: int) -> tuple[int, int | None]:
    """Return the first and the last season of `text`; the last is None where it is open.

    Parameters
    ----------
    text : str
        '2020,2021', '2020-2023', '2020' or '2020-' (up to the current year).
    current_year : int
        No season after it exists yet.

    Raises
    ------
    ValueError
        If `text` has another form, or its seasons are not consecutive or not between 1949 and
        `current_year`.

    Examples
    --------
    >>> parse_seasons("2020,2021", 2026), parse_seasons("2020-2023", 2026), parse_seasons("2020-", 2026)
    ((2020, 2021), (2020, 2023), (2020, None))
    """
    text = text.replace(" ", "")
    if re.fullmatch(r"\d{4}(,\d{4})*", text):
        years = [int(year) for year in text.split(",")]
        first, last = years[0], years[-1]
        consecutive = years == list(range(first, last + 1))
    elif match := re.fullmatch(r"(\d{4})-(\d{4})?", text):
        first, last = int(match[1]), int(match[2] or current_year)
        consecutive = first <= last
    else:
        raise ValueError("not a list or a range of years")
    if not consecutive:
        raise ValueError("not consecutive")
    if first < FIRST_SEASON or last > current_year:
        raise ValueError(f"not between {FIRST_SEASON} and {current_year}")
    return first, None if text.endswith("-") else last


def span(seasons: Sequence[int]) -> str:
    """Return first and last of consecutive seasons.

    Examples
    --------
    >>> span([2020, 2021, 2022]), span([2020])
    ('2020-2022', '2020')
    """
    return f"{seasons[0]}-{seasons[-1]}" if len(seasons) > 1 else str(seasons[0])
