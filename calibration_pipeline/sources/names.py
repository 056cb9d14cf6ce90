"""Names of drivers: keys that do not depend on spelling, and matches of one list of names to another.

Results, entry lists, laps and users' scenarios spell a driver differently. `driver_key` is the same for all
spellings: case, accents, marks, dots, spaces of initials, "Jr." and nicknames do not matter. Where two
drivers of one race share a key, `driver_keys` and `match_drivers` compare the fuller names.
"""

import difflib
import functools
import hashlib
import json
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import polars as pl

from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.io.text_files import read_text_file
from calibration_pipeline.sources.base import NAME_MARKS

SUFFIXES = {
    **dict.fromkeys(("jr", "junior"), "jr"),
    **dict.fromkeys(("sr", "senior"), "sr"),
    **dict.fromkeys(("ii", "2nd"), "ii"),
    **dict.fromkeys(("iii", "3rd"), "iii"),
    **dict.fromkeys(("iv", "4th"), "iv"),
}
PARTICLES = {
    "da",
    "de",
    "del",
    "della",
    "der",
    "di",
    "dos",
    "la",
    "le",
    "mac",
    "mc",
    "san",
    "st",
    "van",
    "von",
}
"""Words that some sources join to the surname: Di Benedetto, DiBenedetto."""
NOT_DECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "þ": "th"})
PARENTHESES = r"\([^()]*\)"
LONGEST_NAME = 200
NEAREST_CUTOFF = 0.6


@dataclass(frozen=True)
class Nicknames:
    """Table of other spellings.

    Attributes
    ----------
    given_names : mapping of str to str
        Short form of a given name → the given name.
    drivers : mapping of str to str
        Full key of a driver's other name → full key of the driver.
    """

    given_names: Mapping[str, str]
    drivers: Mapping[str, str]

    @property
    def content_hash(self) -> str:
        """SHA-256 of the table, hexadecimal; the same in every process."""
        content = json.dumps([self.given_names, self.drivers], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class DriverMatches:
    """Result of `match_drivers`.

    Attributes
    ----------
    matches : dict of str to str
        Name → known name of the same driver; no known name occurs twice.
    unmatched : dict of str to str or None
        Name without a match → the nearest known name, None if no name is near.
    """

    matches: dict[str, str] = field(default_factory=dict)
    unmatched: dict[str, str | None] = field(default_factory=dict)


@functools.lru_cache(maxsize=2**14)
def full_key(name: str) -> str:
    """Return the words of a name, lower case and without accents and marks, joined by hyphens.

    Given name and suffix stay. "Surname, Given name" is turned round, initials and particles are joined.

    Examples
    --------
    >>> full_key("* A. J. Allmendinger (i)"), full_key("Truex, Martin Jr."), full_key("Matt Di Benedetto")
    ('aj-allmendinger', 'martin-truex-jr', 'matt-dibenedetto')
    """
    plain = unicodedata.normalize("NFKD", re.sub(NAME_MARKS, " ", name[:LONGEST_NAME])).casefold()
    letters = "".join(character for character in plain if not unicodedata.combining(character))
    letters = re.sub(r"['’‘`´]", "", letters.translate(NOT_DECOMPOSED))
    words, suffix = _in_order([re.findall(r"[^\W_]+", part) for part in letters.split(",")])
    return "-".join([*_join_particles(_join_initials(words)), *suffix])


def driver_key(name: str, nicknames: Nicknames | None = None) -> str:
    """Return the key of a driver: the same for all spellings of the name, in every season.

    Parameters
    ----------
    name : str
    nicknames : Nicknames, optional
        The table of the package if None.

    Examples
    --------
    >>> driver_key("Ricky Stenhouse, Jr."), driver_key("RICHARD STENHOUSE")
    ('richard-stenhouse', 'richard-stenhouse')
    """
    table = NICKNAMES if nicknames is None else nicknames
    full = full_key(re.sub(PARENTHESES, " ", name))
    formal = _formal(full, table)
    spellings = (full, _base(full), formal)
    return next((table.drivers[key] for key in spellings if key in table.drivers), formal)


def driver_keys(names: pl.Series, races: pl.Series, nicknames: Nicknames | None = None) -> pl.Series:
    """Return the key of each row's driver; full keys where drivers of one race would share a key.

    Parameters
    ----------
    names : polars.Series of String, shape (row,)
        Names of drivers; null stays null.
    races : polars.Series, shape (row,)
        Race of each row.
    nicknames : Nicknames, optional
        The table of the package if None.

    Returns
    -------
    polars.Series of String, shape (row,)
    """
    keyed = pl.DataFrame({"race": races, "name": names}).with_columns(
        key=_map(names, lambda name: driver_key(name, nicknames)), full=_map(names, full_key)
    )
    shared = pl.col("full").n_unique().over("race", "key") > 1
    return keyed.select(pl.when(shared).then("full").otherwise("key").alias(names.name)).to_series()


def lap_driver_keys(
    laps: pl.DataFrame, cars: pl.DataFrame, race: str, nicknames: Nicknames | None = None
) -> pl.Series:
    """Return the `driver_key` of the car that each row of laps belongs to, matched within its race.

    Parameters
    ----------
    laps : polars.DataFrame
        Race and driver of one season.
    cars : polars.DataFrame
        Race, driver and driver_key of the cars that raced.
    race : str
        Column of both that identifies the race.
    nicknames : Nicknames, optional
        The table of the package if None.

    Returns
    -------
    polars.Series of String, shape (row of laps,)
        Null where no car of the race matches.
    """
    keys = [race, "driver"]
    names = laps.select(keys).drop_nulls().unique()
    found: list[tuple[object, str, str]] = []
    for (number,), of_race in names.partition_by(race, as_dict=True).items():
        key_of = dict(cars.filter(pl.col(race) == number).select("driver", "driver_key").iter_rows())
        # A car's rows may differ in the marks of its driver.
        name_of = {full_key(name): name for name in of_race["driver"].sort()}
        matches = match_drivers(name_of.values(), key_of, nicknames).matches
        cars_of = ((name, matches.get(name_of[full_key(name)])) for name in of_race["driver"])
        found += [(number, name, key_of[car]) for name, car in cars_of if car is not None]
    schema: dict[str, Any] = {race: laps.schema[race], "driver": pl.String, "driver_key": pl.String}
    matched = pl.DataFrame(found, schema=schema, orient="row")
    return laps.select(keys).join(matched, on=keys, how="left", maintain_order="left")["driver_key"]


def match_drivers(
    names: Iterable[str], known: Iterable[str], nicknames: Nicknames | None = None
) -> DriverMatches:
    """Match the names of one race to the known names of its drivers.

    Equal texts match first, then equal full keys, then equal keys. A key matches only if it belongs to a
    single name on either side, so that two drivers never become one.

    Parameters
    ----------
    names : iterable of str
        Names to match; each counts once.
    known : iterable of str
        Names of the race's drivers.
    nicknames : Nicknames, optional
        The table of the package if None.

    Returns
    -------
    DriverMatches

    Examples
    --------
    >>> match_drivers(["KYLE LARSON", "AJ Allmendinger", "Kyle Bush"], ["A.J. Allmendinger", "Kyle Busch"])
    DriverMatches(matches={'AJ Allmendinger': 'A.J. Allmendinger'}, \
unmatched={'KYLE LARSON': None, 'Kyle Bush': 'Kyle Busch'})
    """
    left, free = dict.fromkeys(names), dict.fromkeys(known)
    matches: dict[str, str] = {}
    for key in (str, full_key, lambda name: driver_key(name, nicknames)):
        ours, theirs = _single(left, key), _single(free, key)
        found = {ours[shared]: theirs[shared] for shared in ours.keys() & theirs.keys() if shared}
        matches |= found
        left = dict.fromkeys(name for name in left if name not in found)
        taken = set(found.values())
        free = dict.fromkeys(name for name in free if name not in taken)
    return DriverMatches(matches, _nearest(left, free))


def read_nicknames(address: str | None) -> Nicknames:
    """Return the table of the package, extended by a user's TOML file of the same form.

    Parameters
    ----------
    address : str or None
        Path, or address of an object store; None for the table of the package alone.

    Raises
    ------
    ValueError
        If the file cannot be read, has another form, or gives a name two meanings; the message names the
        entry.
    """
    if address is None:
        return NICKNAMES
    try:
        return _parse(read_text_file(address), NICKNAMES)
    except ValueError as error:
        raise ValueError(f"{without_credentials(address)}: {error}") from None


def _parse(text: str, base: Nicknames) -> Nicknames:
    """Return `base` with the entries of a TOML text added."""
    document = tomllib.loads(text)
    if unknown := sorted(document.keys() - {"given_names", "drivers"}):
        raise ValueError(f"tables must be [given_names] and [drivers]; got [{unknown[0]}]")
    return Nicknames(
        _spellings("given_names", document, base.given_names, lambda name: full_key(name).split("-")[0]),
        _spellings("drivers", document, base.drivers, full_key),
    )


def _spellings(
    title: str, document: Mapping[str, Any], base: Mapping[str, str], key: Callable[[str], str]
) -> dict[str, str]:
    """Return spelling → usual name of one table of the file; each usual name is a spelling of itself."""
    table = document.get(title, {})
    found = dict(base)
    for usual, others in table.items() if isinstance(table, dict) else [("", table)]:
        if not isinstance(others, list) or not all(isinstance(name, str) and key(name) for name in others):
            raise ValueError(f"[{title}] {usual}: it must be a list of names; got {others!r}")
        if not key(usual):
            raise ValueError(f"[{title}] {usual!r}: it must have letters")
        own = found.get(key(usual), key(usual))
        for name in (usual, *others):
            if found.setdefault(key(name), own) != own:
                raise ValueError(
                    f"[{title}] {usual}: a name must have one meaning; {name!r} is also {found[key(name)]}"
                )
    return found


def _in_order(parts: list[list[str]]) -> tuple[list[str], list[str]]:
    """Return the words of a name from the given name to the surname, and its suffix, if it has one.

    `parts` are the words between commas, which stand before a suffix or after a surname.
    """
    parts = [part for part in parts if part]
    if len(parts) > 1 and not (len(parts[0]) > 1 and len(parts[1]) == 1 and parts[1][0] in SUFFIXES):
        surname, *rest = parts
        tail = [surname.pop()] if len(surname) > 1 and surname[-1] in SUFFIXES else []
        given = [word for part in rest for word in part]
        if len(given) > 1 and given[-1] in SUFFIXES:
            tail = [given.pop()]
        parts = [given, surname, tail]
    words = [word for part in parts for word in part]
    if len(words) > 2 and words[-1] in SUFFIXES:
        return words[:-1], [SUFFIXES[words[-1]]]
    return words, []


def _join_initials(words: list[str]) -> list[str]:
    """Return the words with neighbouring single letters before the surname joined."""
    joined: list[str] = []
    run = ""
    for word in words[:-1]:
        if len(word) == 1:
            run += word
            continue
        joined += [run, word] if run else [word]
        run = ""
    return [*joined, *([run] if run else []), *words[-1:]]


def _join_particles(words: list[str]) -> list[str]:
    """Return the words with particles after the given name joined to the next word."""
    joined = words[:1]
    prefix = ""
    for word in words[1:-1]:
        if word in PARTICLES:
            prefix += word
            continue
        joined.append(prefix + word)
        prefix = ""
    return [*joined, prefix + words[-1]] if len(words) > 1 else joined


def _base(full: str) -> str:
    """Return a full key without its suffix."""
    words = full.split("-")
    return "-".join(words[:-1]) if len(words) > 2 and words[-1] in SUFFIXES else full


def _formal(full: str, table: Nicknames) -> str:
    """Return a full key without its suffix, and with the formal given name."""
    given, hyphen, rest = _base(full).partition("-")
    return table.given_names.get(given, given) + hyphen + rest if rest else given


def _map(names: pl.Series, function: Callable[[str], str]) -> pl.Series:
    """Return a function of each name; it is called once for each distinct name."""
    distinct = names.unique().drop_nulls()
    return names.replace_strict(
        distinct, [function(name) for name in distinct], default=None, return_dtype=pl.String
    )


def _single(names: Iterable[str], key: Callable[[str], str]) -> dict[str, str]:
    """Return key → name of the keys that belong to a single name."""
    keyed = [(key(name), name) for name in names]
    count = Counter(shared for shared, _ in keyed)
    return {shared: name for shared, name in keyed if count[shared] == 1}


def _nearest(names: Iterable[str], known: Iterable[str]) -> dict[str, str | None]:
    """Return name → the known name that is spelled most like it."""
    spelled = {full_key(name): name for name in known}
    near = {
        name: difflib.get_close_matches(full_key(name), spelled, n=1, cutoff=NEAREST_CUTOFF) for name in names
    }
    return {name: spelled[keys[0]] if keys else None for name, keys in near.items()}


NICKNAMES = _parse(
    files("calibration_pipeline.sources").joinpath("nicknames.toml").read_text(encoding="utf-8"),
    Nicknames({}, {}),
)
"""The table of the package."""
