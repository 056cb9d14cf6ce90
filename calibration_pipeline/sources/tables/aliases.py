"""Names of columns: the aliases of widespread tables, a user's mapping file, and the message on missing ones.

Names are compared without case and punctuation: `Race Date`, `race_date` and `RaceDate` are one name.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence

from fsspec.core import url_to_fs

from calibration_pipeline.io.addresses import safe_cause, storage_errors, without_credentials
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.tracks.compiled import normalise_name

ALIASES: Mapping[str, tuple[str, ...]] = {
    "season": ("year", "race_season", "season_year", "race_year"),
    "round": ("race_number", "race_num", "race_no", "race_round", "race_of_season", "rnd", "race"),
    "race_date": ("date", "date_of_race", "race_day", "date_scheduled", "event_date"),
    "race_name": ("event", "event_name", "race_title", "name"),
    "series": ("series_id", "series_name", "race_series", "nascar_series"),
    "track": ("track_name", "circuit", "venue", "speedway", "track_id"),
    "surface": ("track_surface", "track_type"),
    "driver": ("driver_name", "driver_fullname", "driver_full_name", "full_name", "name"),
    "driver_id": ("nascar_driver_id",),
    "car_number": ("car", "car_num", "car_no", "number", "num", "no", "vehicle_number"),
    "team": ("team_name", "owner", "car_owner", "entrant", "organization"),
    "make": ("car_make", "manufacturer", "manu", "mfr", "vehicle_manufacturer"),
    "start_position": ("starting_position", "start_pos", "start", "starting_pos", "grid_position", "grid"),
    "finish_position": (
        "finishing_position", "finish_pos", "finish", "fin", "finishing_pos", "final_position", "pos",
        "position",
    ),
    "laps_completed": ("laps", "completed_laps", "laps_run"),
    "laps_led": ("led", "lead_laps"),
    "status": ("finishing_status", "finish_status", "result_status", "reason_out"),
    "race_laps": ("actual_laps", "laps_in_race"),
    "scheduled_laps": ("laps_scheduled",),
    "n_cautions": ("cautions", "number_of_cautions", "num_cautions"),
    "rating": ("driver_rating",),
    "lap": ("lap_number", "lap_num", "lap_no"),
    "position": ("running_position", "running_pos", "pos"),
    "lap_time_s": ("lap_time", "lap_time_seconds", "time_s"),
    "flag": ("flag_state", "lap_flag"),
}  # fmt: skip
"""Other names of each column, the most usual ones first."""
SHOWN_COLUMNS = 30
LARGEST_MAPPING = 100_000


def recognise_columns(
    wanted: Iterable[str], found: Sequence[str], mapping: Mapping[str, str], where: str
) -> dict[str, str]:
    """Return the table's name of each wanted column that it has.

    Parameters
    ----------
    wanted : iterable of str
        Our names, in the order in which they choose.
    found : sequence of str
        Names in the table.
    mapping : mapping of str to str
        A user's choice: our name → name in the table.
    where : str
        Address of the table, for messages.

    Raises
    ------
    SourceError
        If the mapping names a column that the table lacks, or two columns have the same name.
    """
    names: dict[str, str] = {}
    for ours, theirs in mapping.items():
        if theirs not in found:
            near = describe_near([theirs], found)
            raise SourceError(f"{where} has no column {theirs!r}, which the mapping of {ours} names{near}.")
        names[ours] = theirs
    spelled: dict[str, list[str]] = {}
    for name in found:
        spelled.setdefault(normalise_name(name), []).append(name)
    for ours in wanted:
        if ours in names:
            continue
        for alias in (ours, *ALIASES.get(ours, ())):
            hits = [name for name in spelled.get(normalise_name(alias), ()) if name not in names.values()]
            if len(hits) > 1 and alias not in hits:
                raise SourceError(
                    f"{where}: columns {' and '.join(hits)} have one name: choose one by --columns."
                )
            if hits:
                names[ours] = alias if alias in hits else hits[0]
                break
    again = (re.fullmatch(r"(.*)_duplicated_\d+", name) for name in found)
    if repeated := next((match[1] for match in again if match and match[1] in names.values()), None):
        raise SourceError(f"{where}: column {repeated} occurs twice.")
    return names


def describe_missing_columns(
    missing: Sequence[Sequence[str]], found: Sequence[str], used: Iterable[str], table: str, where: str
) -> str:
    """Return the message on columns that a table lacks, with the mapping file to start from.

    Parameters
    ----------
    missing : sequence of sequences of str
        Groups of our names; a table must have one of each group.
    found : sequence of str
        Names in the table.
    used : iterable of str
        Names in the table that are recognised.
    table : str
        `results` or `laps`, the table of the mapping file.
    where : str
        Address of the table.
    """
    taken = set(used)
    free = [name for name in found if name not in taken]
    lacking = ", ".join(" or ".join(group) + describe_near(group, free) for group in missing)
    shown = ", ".join(found[:SHOWN_COLUMNS]) + (", ..." if len(found) > SHOWN_COLUMNS else "")
    guesses = {group[0]: next(iter(_near(group, free)), "?") for group in missing}
    lines = ", ".join(f'{ours} = "{theirs}"' for ours, theirs in guesses.items())
    return (
        f"{where} lacks the columns {lacking}; it has {shown}. Name them in a file for --columns, as in: "
        f"{table} = {{ {lines} }}"
    )


def read_mapping(address: str | None) -> dict[str, dict[str, str]]:
    """Read a mapping file: TOML with tables `results` and `laps`, our name = "name in the table".

    Parameters
    ----------
    address : str or None
        Path or address; None gives no mapping.

    Raises
    ------
    SourceError
        If the file cannot be read, is no TOML, or has another form.
    """
    if address is None:
        return {}
    path = without_credentials(address)
    try:
        filesystem, place = url_to_fs(address)
        with filesystem.open(place, "rb") as file:
            content = file.read(LARGEST_MAPPING + 1)
        if len(content) > LARGEST_MAPPING:
            raise ValueError(f"it has more than {LARGEST_MAPPING:,} bytes")
        tables = tomllib.loads(content.decode())
    except storage_errors(ValueError) as error:
        reason = without_credentials(" ".join(f"{error}".split()))
        raise SourceError(f"{path} cannot be read as a mapping of columns: {reason}.") from safe_cause(
            error, address
        )
    for table, names in tables.items():
        if table not in ("results", "laps") or not isinstance(names, dict):
            raise SourceError(f"{path} must hold the tables results and laps alone; got {table!r}.")
        for ours, theirs in names.items():
            if ours not in ALIASES and ours not in UNALIASED:
                raise SourceError(
                    f"{path}: {table} has no column {ours!r}{describe_near([ours], [*ALIASES])}."
                )
            if not isinstance(theirs, str):
                raise SourceError(f"{path}: {ours} must name a column as text; got {theirs!r}.")
    return tables


UNALIASED = ("green_laps", "fastest_laps")
"""Columns without an alias: other tables have other figures under similar names."""


def describe_near(names: Sequence[str], found: Sequence[str]) -> str:
    """Return ' (near it: ...)' with the names in `found` that are similar to one of `names`, or nothing."""
    near = _near(names, found)
    return f" (near it: {', '.join(near)})" if near else ""


def _near(names: Sequence[str], found: Sequence[str]) -> list[str]:
    folded = {name.casefold(): name for name in found}
    near: dict[str, None] = {}
    for name in names:
        parts = [part for part in folded if len(part) > 2 and (part in name or name in part)]
        like = difflib.get_close_matches(name.casefold(), folded, n=2)
        near |= dict.fromkeys(folded[key] for key in (*like, *parts))
    return list(near)[:3]
