"""Defects of documents of the timing feed, as tests put them into the folder of a race."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

type Document = Any
type Change = Callable[[Document, int], None] | bytes | None
"""Change of a document for a row's number, its new content, or None for its removal."""
WEEKEND, LAPS, LIST = "weekend-feed.json", "lap-times.json", "race_list_basic.json"


def in_result(**values: Any) -> Callable[[Document, int], None]:
    """Return the defect of one row of the results."""

    def change(document: Document, k: int) -> None:
        rows = [row for row in document["weekend_race"][0]["results"] if row["finishing_position"]]
        rows[k % len(rows)].update(values)

    return change


def as_next(field: str) -> Callable[[Document, int], None]:
    """Return the defect of a value that stands in two rows of the results."""

    def change(document: Document, k: int) -> None:
        rows = [row for row in document["weekend_race"][0]["results"] if row["finishing_position"]]
        rows[k % len(rows)][field] = rows[(k + 1) % len(rows)][field]

    return change


def in_race(**values: Any) -> Callable[[Document, int], None]:
    return lambda document, _k: document["weekend_race"][0].update(values)


def result_lost(document: Document, k: int) -> None:
    rows = document["weekend_race"][0]["results"]
    rows.pop(k % len(rows))


def result_twice(document: Document, k: int) -> None:
    rows = document["weekend_race"][0]["results"]
    rows.append(dict(rows[k % len(rows)]))


def numbers_as_text(document: Document, _k: int) -> None:
    for row in document["weekend_race"][0]["results"]:
        row.update(
            {name: str(v) for name, v in row.items() if isinstance(v, int) and not isinstance(v, bool)}
        )


def unknown_fields(document: Document, _k: int) -> None:
    for row in document["weekend_race"][0]["results"]:
        row["a_new_field"] = {"of": ["any", "form"]}


def laps_of_car(value: Any) -> Callable[[Document, int], None]:
    def change(document: Document, k: int) -> None:
        document["laps"][k % len(document["laps"])]["Laps"] = value

    return change


def in_lap(**values: Any) -> Callable[[Document, int], None]:
    def change(document: Document, k: int) -> None:
        laps = document["laps"][k % len(document["laps"])]["Laps"]
        laps[len(laps) // 2].update(values)

    return change


def lap_time_as_text(document: Document, k: int) -> None:
    laps = document["laps"][k % len(document["laps"])]["Laps"]
    laps[len(laps) // 2]["LapTime"] = str(laps[len(laps) // 2]["LapTime"])


def laps_cut(document: Document, _k: int) -> None:
    for car in document["laps"]:
        car["Laps"] = car["Laps"][: len(car["Laps"]) // 2]


FEED_DEFECTS: dict[str, tuple[str, Change]] = {
    "no document": (WEEKEND, None),
    "null": (WEEKEND, b"null"),
    "an empty list": (WEEKEND, b"[]"),
    "no race": (WEEKEND, b'{"weekend_race": null}'),
    "cut off": (WEEKEND, b'{"weekend_race": [{"race'),
    "a web page": (WEEKEND, b"<html>Forbidden</html>"),
    "of another race": (WEEKEND, in_race(race_id=4711)),
    "start taken twice": (WEEKEND, as_next("starting_position")),
    "finish taken twice": (WEEKEND, as_next("finishing_position")),
    "car number taken twice": (WEEKEND, as_next("car_number")),
    "driver twice": (WEEKEND, as_next("driver_id")),
    "finish lost": (WEEKEND, result_lost),
    "result twice": (WEEKEND, result_twice),
    "no status": (WEEKEND, in_result(finishing_status=None)),
    "no laps led": (WEEKEND, in_result(laps_led=None)),
    "negative laps": (WEEKEND, in_result(laps_completed=-1)),
    "neither id nor name": (WEEKEND, in_result(driver_id=0, driver_fullname=None)),
    "a name as number": (WEEKEND, in_result(driver_fullname=17)),
    "finish is text": (WEEKEND, in_result(finishing_position="first")),
    "no race laps": (WEEKEND, in_race(actual_laps=0)),
    "race laps null": (WEEKEND, in_race(actual_laps=None)),
    "numbers as text": (WEEKEND, numbers_as_text),
    "unknown fields": (WEEKEND, unknown_fields),
    "no laps document": (LAPS, None),
    "laps null": (LAPS, b'{"laps": null, "flags": null}'),
    "laps body null": (LAPS, b"null"),
    "laps cut off": (LAPS, b'{"laps": ['),
    "laps of a car null": (LAPS, laps_of_car(None)),
    "laps of a car empty": (LAPS, laps_of_car([])),
    "laps too short": (LAPS, laps_cut),
    "a lap without number": (LAPS, in_lap(Lap=None)),
    "a negative lap time": (LAPS, in_lap(LapTime=-4.0)),
    "a lap time as text": (LAPS, lap_time_as_text),
    "a position 0": (LAPS, in_lap(RunningPos=0)),
}


def damage_race(race: Path, kind: str, k: int) -> None:
    """Put a defect into the folder of a race.

    Parameters
    ----------
    race : Path
        Folder `{season}/{series}/{race_id}` of a feed.
    kind : str
        Key of `FEED_DEFECTS`.
    k : int
        Number of the row or car that is changed.
    """
    document, change = FEED_DEFECTS[kind]
    path = race / document
    if change is None:
        path.unlink()
    elif isinstance(change, bytes):
        path.write_bytes(change)
    else:
        value = json.loads(path.read_bytes())
        change(value, k)
        path.write_text(json.dumps(value))
