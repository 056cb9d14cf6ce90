"""Tracks of a user's TOML file, added to the catalogue.

The file holds tables [[track]] with name, archetype, length_miles and laps, and optionally first_season,
last_season and aliases. A track of the catalogue gets another era by an entry with one of its names.
"""

import tomllib
from collections.abc import Mapping
from typing import Any

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.io.text_files import read_text_file
from calibration_pipeline.tracks.catalogue import CATALOGUE, CATALOGUE_START, ConstraintSpec, Laps, Series
from calibration_pipeline.tracks.compiled import CompiledTracks, compile_constraints, normalise_name

NO_ARCHETYPE = "none"
MAX_TRACKS = 1_000
REQUIRED = ("name", "archetype", "length_miles", "laps")
OPTIONAL = ("first_season", "last_season", "aliases")


def load_tracks(series: Series = "cup", address: str | None = None) -> CompiledTracks:
    """Return the catalogue of a series, with the tracks of a user's file.

    Parameters
    ----------
    series : {"cup", "xfinity", "truck"}
    address : str, optional
        Path, or address of an object store, of a TOML file.

    Raises
    ------
    ValueError
        If the file cannot be read, or breaks a rule; the message names file, entry, rule and value.
    """
    if address is None:
        return compile_constraints(series=series)
    try:
        return compile_constraints(series=series, added=_parse(read_text_file(address)))
    except ValueError as error:
        raise ValueError(f"{without_credentials(address)}: {error}") from None


def _parse(text: str) -> list[ConstraintSpec]:
    document = tomllib.loads(text)
    entries = document.get("track", [])
    if document.keys() - {"track"} or not isinstance(entries, list) or not entries:
        raise ValueError(f"the file must hold tables [[track]] alone; it holds {sorted(document)}")
    if len(entries) > MAX_TRACKS:
        raise ValueError(f"the file must hold at most {MAX_TRACKS:,} tracks; it holds {len(entries):,}")
    known = {
        normalise_name(name): spec.track_id
        for spec in CATALOGUE
        for name in (spec.track_id, spec.name, *spec.aliases)
    }
    return [_spec(entry, number, known) for number, entry in enumerate(entries, 1)]


def _spec(entry: Any, number: int, known: Mapping[str, str]) -> ConstraintSpec:
    """Return an entry of the file as an entry of the catalogue.

    `known` holds the names of the catalogue; a name in it keeps its track_id.
    """
    keys = entry.keys() if isinstance(entry, dict) else set()
    where = f"track {number}" + (f" ({entry['name']})" if "name" in keys else "")
    if missing := [key for key in REQUIRED if key not in keys]:
        raise ValueError(f"{where}: it must have {', '.join(REQUIRED)}; it lacks {', '.join(missing)}")
    if unknown := sorted(keys - {*REQUIRED, *OPTIONAL}):
        raise ValueError(f"{where}: optional keys are {', '.join(OPTIONAL)}; got {unknown[0]!r}")
    aliases = entry.get("aliases", [])
    first, last = entry.get("first_season", CATALOGUE_START), entry.get("last_season")
    rules = {
        "name": (
            "a text with Latin letters",
            _is_name(entry["name"]) and normalise_name(entry["name"]).isascii(),
        ),
        "archetype": (
            f"one of {', '.join(ARCHETYPES)}, {NO_ARCHETYPE}",
            entry["archetype"] in (*ARCHETYPES, NO_ARCHETYPE),
        ),
        "length_miles": ("a number > 0 and <= 30", _is_number(entry["length_miles"], 30)),
        "laps": ("a whole number from 1 to 2000", _is_whole(entry["laps"], 1, 2_000)),
        "first_season": ("a year from 1949 to 2200", _is_whole(first, 1949, 2200)),
        "last_season": (
            "a year from first_season to 2200",
            last is None or (_is_whole(first, 1949, 2200) and _is_whole(last, first, 2200)),
        ),
        "aliases": ("a list of names", isinstance(aliases, list) and all(map(_is_name, aliases))),
    }
    for key, (rule, holds) in rules.items():
        if not holds:
            raise ValueError(f"{where}: {key} must be {rule}; got {entry[key]!r}")
    name, laps = entry["name"], entry["laps"]
    archetype = None if entry["archetype"] == NO_ARCHETYPE else Archetype(entry["archetype"])
    return ConstraintSpec(
        track_id=known.get(normalise_name(name), f"user_{normalise_name(name)}"),
        name=name,
        archetype=archetype,
        length_miles=float(entry["length_miles"]),
        scheduled_laps=Laps(laps, laps, laps),
        first_season=first,
        last_season=last,
        aliases=tuple(aliases),
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and bool(normalise_name(value))


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
