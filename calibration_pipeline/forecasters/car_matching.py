"""Labels of one race's cars, matched to the cars entered by id or car number.

`sources.names` matches names. Car numbers match as written on the car, and then without leading zeros.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from calibration_pipeline.sources.names import DriverMatches
from calibration_pipeline.sources.quarantine import Row


class FieldMatch(NamedTuple):
    """Labels of one race, matched to the cars entered.

    Attributes
    ----------
    drivers : dict of str to str
        Label → driver_id.
    absent : dict of str to str or None
        Label that is no car entered → the nearest name of a car without a label.
    missing : list of str
        Drivers entered who have no label.
    repeated : list of str
        Labels of a driver who has another label.
    """

    drivers: dict[str, str]
    absent: dict[str, str | None]
    missing: list[str]
    repeated: list[str]


class MatchedRace(NamedTuple):
    """One race of a forecast that has all cars entered.

    Attributes
    ----------
    race : mapping
        race_id, season, round and label.
    cars : polars.DataFrame
        driver_id, driver and car_number of the cars entered, by grid.
    rows : polars.DataFrame
        Rows of the file, with driver_id; null for a car that was not at the start.
    """

    race: Row
    cars: pl.DataFrame
    rows: pl.DataFrame


def match_ids(labels: Iterable[str], known: Sequence[str]) -> DriverMatches:
    """Match ids of drivers; case does not count."""
    folded = {name.casefold(): name for name in known}
    matches = {label: folded[label.casefold()] for label in labels if label.casefold() in folded}
    return DriverMatches(matches, dict.fromkeys(label for label in labels if label not in matches))


def match_numbers(labels: Sequence[str], known: Sequence[str]) -> DriverMatches:
    """Match car numbers as written, then without leading zeros where this means one car on either side."""
    written = {number_as_written(label): label for label in labels}
    matches = {written[number]: number for number in known if number in written}
    free = [number for number in known if number not in matches.values()]
    left = [label for label in dict.fromkeys(labels) if label not in matches]
    plain = Counter(plain_number(label) for label in labels)
    theirs = Counter(plain_number(number) for number in known)
    by_plain = {plain_number(number): number for number in free}
    for label in left:
        number = plain_number(label)
        if number in by_plain and plain[number] == 1 and theirs[number] == 1:
            matches[label] = by_plain[number]
    return DriverMatches(matches, dict.fromkeys(label for label in left if label not in matches))


def number_as_written(label: str) -> str:
    """Return a car number as written on the car: without a mark, and 7 for 7.0."""
    return re.sub(r"\.0$", "", label.strip().lstrip("#").strip())


def plain_number(label: str) -> str:
    """Return a car number without marks and leading zeros."""
    return number_as_written(label).lstrip("0") or "0"
