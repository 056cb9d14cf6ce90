"""News of a source: its present data of a season against the results that are stored."""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import polars as pl
from polars.exceptions import PolarsError
from upath import UPath

from calibration_pipeline.io.stored_values import path_of
from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace, Source

RECENT_SEASONS = 2
"""Last seasons in which the source may still add or correct races; a table may anywhere."""
Races = Mapping[int, str]
"""race_id → label."""


class News(NamedTuple):
    """The source's present data of a season: their version, and finished races without stored results."""

    version: str
    missing: Races


def stored_races(store: UPath, season: int) -> set[int] | None:
    """Return the races of a season that have stored results, None where the season is not stored."""
    path = path_of(store, "race_results", str(season))
    if not path.exists():
        return None
    try:
        return set(pl.read_parquet(path.read_bytes(), columns=["race_id"])["race_id"])
    except PolarsError:  # reading the value names a damaged file, and its season is read again
        return set()


def read_news(
    source: Source,
    store: UPath,
    seasons: Sequence[int],
    others: Collection[int] = (),
    refreshed: Collection[int] = (),
) -> tuple[dict[int, News], dict[int, Races]]:
    """Return the news of the stored seasons that the source may have changed, and the finished races.

    Parameters
    ----------
    source : Source
    store : UPath
        Folder or object-store address of the source's and series' assets.
    seasons : sequence of int
        The seasons in force, in order.
    others : collection of int
        Other seasons whose finished races are returned as well.
    refreshed : collection of int
        Seasons that the source may have changed although they are not recent.

    Raises
    ------
    SourceError
        If the source cannot be read.
    """
    asked = seasons if source.name == "tables" else sorted({*seasons[-RECENT_SEASONS:], *refreshed})
    stored = [season for season in asked if stored_races(store, season) is not None]
    finished: dict[int, Races] = {
        season: source.finished_races(season) for season in sorted({*stored, *others})
    }
    missing = missing_races(store, finished)
    return {season: News(source.version(season), missing.get(season, {})) for season in stored}, finished


def entry_version(announced: AnnouncedRace | NoNextRace | None) -> str:
    """Return a digest of a source's next race: of its entry list, or of the reason why there is none."""
    if isinstance(announced, AnnouncedRace):
        content = "\n".join([announced.entries.write_json(), *announced.defects])
    else:
        content = announced.why if announced else ""
    return sha256(content.encode()).hexdigest()[:16]


def missing_races(store: UPath, finished: Mapping[int, Races]) -> dict[int, dict[int, str]]:
    """Return the finished races that have no stored results, by season; complete seasons are not in it.

    Parameters
    ----------
    store : UPath
        Folder or object-store address of the source's and series' assets.
    finished : mapping
        season → race_id → label.
    """
    missing = {}
    for season, races in finished.items():
        stored: Collection[int] = stored_races(store, season) or ()
        if lacks := {race: label for race, label in races.items() if race not in stored}:
            missing[season] = lacks
    return missing


def describe_missing(missing: Mapping[int, Races]) -> str:
    """Return a sentence that names the finished races without results.

    Examples
    --------
    >>> describe_missing({2026: {7: "2026 race 7 (daytona)"}})
    '1 finished race is not in the results: 2026 race 7 (daytona).'
    """
    labels = [label for races in missing.values() for label in races.values()]
    if not labels:
        return "Every finished race is in the results."
    named = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    count = "1 finished race is" if len(labels) == 1 else f"{len(labels)} finished races are"
    return f"{count} not in the results: {named}."
