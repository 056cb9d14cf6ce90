"""Fuzzing targets: a name, valid seed inputs, and a function that takes bytes and must return.

A target raises nothing for any bytes: the error that the docstrings promise is caught here, any other is a
finding.
"""

import contextlib
import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import fsspec
import polars as pl

from assets.settings import ENV_PREFIX, Settings, SettingsError, load_settings
from calibration_pipeline.events.text import parse_event, parse_events
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.nascar_feed.documents import (
    Result,
    ScheduledRace,
    race_of,
    races_of,
    read_leniently,
)
from calibration_pipeline.sources.nascar_feed.laps import parse_laps
from calibration_pipeline.sources.nascar_feed.reader import _parse
from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from fuzz.choices import Choices, columns_of
from fuzz.ensembles import NETCDF, PARQUET, ensembles_columns, ensembles_netcdf, ensembles_parquet
from fuzz.probabilities import (
    CSV,
    PRICES,
    prices,
    probabilities_cells,
    probabilities_columns,
    probabilities_csv,
)

TRACKS = compile_constraints()
MEMORY = fsspec.filesystem("memory")
FEED, TABLES, ENSEMBLES = "memory://fuzz-feed", "memory://fuzz-tables", "memory://fuzz-ensembles"


class Target(NamedTuple):
    """Something that is fuzzed.

    Attributes
    ----------
    run : callable
        Takes bytes.
    seeds : list of bytes
        Inputs to begin with.
    """

    run: Callable[[bytes], None]
    seeds: list[bytes]


def race_list() -> dict[str, Any]:
    """A season of three points races, two of which have run."""
    heads = [
        {
            "race_id": n,
            "race_season": 2021,
            "race_type_id": 1,
            "race_name": f"Race {n}",
            "race_date": f"2021-02-{n:02d}T15:00:00",
            "track_id": 105,
            "track_name": "Daytona International Speedway",
            "scheduled_laps": 5,
            "average_speed": 140.5 if n < 3 else 0,
            "total_race_time": "3:00:00" if n < 3 else "",
        }
        for n in (1, 2, 3)
    ]
    return {"series_1": heads}


def weekend(race_id: int) -> dict[str, Any]:
    """A race of three cars and four laps."""
    results = [
        {
            "finishing_position": place if race_id < 3 else 0,
            "starting_position": 4 - place,
            "car_number": str(place),
            "driver_fullname": f"* Driver {place} (i)",
            "driver_id": 100 + place,
            "team_name": "Team",
            "car_make": "Ford",
            "laps_completed": 4,
            "laps_led": 4 if place == 1 else 0,
            "finishing_status": "Running" if place < 3 else "Accident",
        }
        for place in (1, 2, 3)
    ]
    race = {
        "race_id": race_id,
        "scheduled_laps": 5,
        "actual_laps": 4,
        "number_of_cautions": 1,
        "number_of_caution_laps": 1,
        "results": results,
    }
    return {"weekend_race": [race]}


def lap_times() -> dict[str, Any]:
    """The laps of that race."""
    cars = [
        {
            "Number": str(place),
            "NASCARDriverID": 100 + place,
            "Laps": [{"Lap": n, "LapTime": 45.5 if n else None, "RunningPos": place} for n in range(5)],
        }
        for place in (1, 2, 3)
    ]
    flags = [{"LapsCompleted": n, "FlagState": state} for n, state in enumerate((8, 1, 2, 1, 4))]
    return {"laps": cars, "flags": flags}


def feed_text(data: bytes) -> None:
    """Bytes as each of the feed's documents."""
    try:
        document = _parse(data, "the document", 2**20)
    except SourceError:
        return
    for model in (ScheduledRace, Result):
        read_leniently(model, document)
    with contextlib.suppress(SourceError):
        races_of(document, "cup", "the document")
    with contextlib.suppress(SourceError):
        race_of(document, "the document")
    with contextlib.suppress(SourceError):
        parse_laps(document, "the document")


def feed_season(data: bytes) -> None:
    """A season whose documents are changed, read as the pipeline reads it."""
    choices = Choices(data)
    documents = {"2021/race_list_basic.json": race_list()}
    for race_id in (1, 2, 3):
        documents[f"2021/1/{race_id}/weekend-feed.json"] = weekend(race_id)
        documents[f"2021/1/{race_id}/lap-times.json"] = lap_times()
    for _ in range(1 + choices.number(3)):
        path = choices.pick(list(documents))
        documents[path] = choices.changed(documents[path])
    for path, document in documents.items():
        MEMORY.pipe(f"{FEED}/{path}", json.dumps(document).encode(errors="surrogatepass"))
    source = NascarFeedSource(FEED, TRACKS)
    for ask in (source.load_season, source.finished_races, source.next_race):
        with contextlib.suppress(SourceError):
            ask(2021)


RESULTS_HEADER = "season,round,race_date,track,driver,car_number,start_position,finish_position,laps_completed,laps_led,status,rating"  # noqa: E501
RESULTS = f"""{RESULTS_HEADER}
2021,1,2021-02-14,daytona,Ann Á.,07,1,2,200,10,running,90.5
2021,1,2021-02-14,daytona,Bob #,11,2,1,200,190,Running,100
2021,2,2021-02-21,kansas,Bob,11,NA,,,,,
2020,1,,daytona,Ann,07,1,1,200,,accident,
"""
LAPS = """season,round,driver,lap,position,lap_time_s,flag
2021,1,Ann Á.,0,1,,green
2021,1,Ann Á.,1,2,50.5,green
2021,1,Bob,1,1,50.25,yellow
"""


def read_tables(results: bytes, laps: bytes | None, form: str) -> None:
    """Read tables of a form as the pipeline reads them."""
    MEMORY.pipe(f"{TABLES}/results{form}", results)
    if laps is not None:
        MEMORY.pipe(f"{TABLES}/laps{form}", laps)
    try:
        source = TablesSource(
            f"{TABLES}/results{form}", None if laps is None else f"{TABLES}/laps{form}", TRACKS
        )
        seasons = source.seasons
    except SourceError:
        return
    for season in seasons[-1:] or (2021,):
        for ask in (source.load_season, source.next_race):
            with contextlib.suppress(SourceError):
                ask(season)


def tables_csv(data: bytes) -> None:
    """Bytes as a table of results, and as one of laps beside valid results."""
    read_tables(data, None, ".csv")
    read_tables(RESULTS.encode(), data, ".csv")


def tables_gzip(data: bytes) -> None:
    """Bytes as a packed table."""
    read_tables(data, None, ".csv.gz")


def cells(text: str) -> list[list[Any]]:
    """The lines of a table."""
    return [line.split(",") for line in text.splitlines()]


def tables_cells(data: bytes) -> None:
    """Valid tables with changed cells, rows and headers."""
    choices = Choices(data)
    both = []
    for text in (RESULTS, LAPS):
        rows = choices.changed(cells(text), most=6)
        lines = [",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
        both.append("\n".join(lines).encode(errors="surrogatepass"))
    read_tables(both[0], both[1], ".csv")


def packed(frame: pl.DataFrame, **options: Any) -> bytes:
    """A frame as Parquet."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, **options)
    return buffer.getvalue()


def tables_parquet(data: bytes) -> None:
    """Bytes as a table in Parquet."""
    read_tables(data, None, ".parquet")


def tables_types(data: bytes) -> None:
    """Valid tables whose columns hold other types and values, in Parquet."""
    choices = Choices(data)
    results = pl.read_csv(RESULTS.encode(), null_values=["NA"], try_parse_dates=True)
    laps = pl.read_csv(LAPS.encode())
    try:
        both = [packed(columns_of(choices, frame)) for frame in (results, laps)]
    except (pl.exceptions.PolarsError, UnicodeError):
        return
    read_tables(both[0], both[1], ".parquet")


def events(data: bytes) -> None:
    """Bytes as an event, which is itself again when it is written and read, and as a file of events."""
    text = data.decode(errors="surrogateescape")
    with contextlib.suppress(ValueError):
        event = parse_event(text)
        again = parse_event(str(event)) if len(str(event)) <= 500 else event
        if again != event:
            raise AssertionError(f"{text!r} is {event}, and that is {again}")
    with contextlib.suppress(ValueError):
        parse_events(text)


def events_toml(data: bytes) -> None:
    """Bytes as a file of events."""
    with contextlib.suppress(ValueError):
        parse_events(data.decode(errors="replace"))


OPTIONS: tuple[Any, ...] = (
    "", " ", "0", "-1", "1e3", "true", "2020-", "2020-2021", "2020,2021", "9999", "٢٠٢٠", "2020-2019",
    "simulated", "tables", "nascar_feed", "dask", "process_pool", "~", "~nobody/x", "s3://bucket", "://",
    "memory://a", "http://[", "ftp://u:p@h/a", "file:///nowhere", "a\x00b", "/", ".", "a" * 5000, "é",
    "\udc80", "%", "$HOME", "tcp://127.0.0.1:1", "unknown-scheme://a", "memory://a.toml", "abfs://x", "zip://a::b",
)  # fmt: skip


def settings(data: bytes) -> None:
    """Odd options, variables and a `.env` of bytes."""
    choices = Choices(data)
    names = list(Settings.model_fields)

    def some() -> Iterator[tuple[str, str]]:
        for _ in range(choices.number(4)):
            value = choices.pick(OPTIONS) if choices.number(4) else choices.text()
            yield choices.pick(names), value

    options = dict(some())
    variables = {
        f"{ENV_PREFIX}{name.upper()}": value for name, value in some() if "\x00" not in value and _fits(value)
    }
    file = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.env"
    lines = b"".join(
        f"{ENV_PREFIX}{name.upper()}={value}\n".encode(errors="surrogateescape") for name, value in some()
    )
    file.write_bytes(lines + (choices.bytes(200) if choices.number(2) else b""))
    try:
        with (
            mock.patch.dict(os.environ, variables),
            mock.patch("assets.settings._env_file", return_value=file),
            contextlib.suppress(SettingsError),
        ):
            made = load_settings(options)
            str(made.store_path)
            with contextlib.suppress(SettingsError):
                made.season_list  # noqa: B018
    finally:
        file.unlink(missing_ok=True)


def _fits(value: str) -> bool:
    """Whether the environment can hold a text."""
    try:
        os.fsencode(value)
    except UnicodeError:
        return False
    return True


def targets() -> dict[str, Target]:
    """Return everything that is fuzzed, by name."""
    documents = [json.dumps(each).encode() for each in (race_list(), weekend(1), weekend(3), lap_times())]
    texts = [RESULTS.encode(), LAPS.encode()]
    frame = pl.read_csv(RESULTS.encode(), null_values=["NA"])
    parquets = [packed(frame, compression=kind) for kind in ("uncompressed", "zstd", "snappy")]
    event = [b"top(5) & running", b"~(led(1) | dnf)", b"count(dnf) >= 8", b"same_make(top(3))"]
    event += [b"at_least(2, favourites(3), top(10))", b"both_teammates(top(10))"]
    toml = [b'[events]\n"podium sweep" = "same_make(top(3))"\n', b"[events]\na.b = 1\n"]
    shapes: Sequence[bytes] = [bytes([n] * 40) for n in range(0, 250, 25)]
    return {
        "feed_text": Target(feed_text, documents),
        "feed_season": Target(feed_season, list(shapes)),
        "tables_csv": Target(tables_csv, texts),
        "tables_gzip": Target(tables_gzip, [gzip.compress(text, mtime=0) for text in texts]),
        "tables_cells": Target(tables_cells, list(shapes)),
        "tables_parquet": Target(tables_parquet, parquets),
        "tables_types": Target(tables_types, list(shapes)),
        "events": Target(events, event),
        "events_toml": Target(events_toml, toml),
        "ensembles_parquet": Target(ensembles_parquet, PARQUET),
        "ensembles_columns": Target(ensembles_columns, list(shapes)),
        "ensembles_netcdf": Target(ensembles_netcdf, NETCDF),
        "probabilities_csv": Target(probabilities_csv, CSV),
        "probabilities_cells": Target(probabilities_cells, list(shapes)),
        "probabilities_columns": Target(probabilities_columns, list(shapes)),
        "prices": Target(prices, PRICES),
        "settings": Target(settings, list(shapes)),
    }
