"""The track catalogue, checked and compiled: frozen, hashed, and looked up by season and name or id."""

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from statistics import median

import polars as pl

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.schemas.frames import TrackTable
from calibration_pipeline.tracks.catalogue import CATALOGUE, SERIES, ConstraintSpec, Series

ADD_TRACKS = "--tracks tracks.toml adds tracks"


class UnknownTrackError(ValueError):
    """Error of a track that is not in the catalogue; tracks are never guessed."""


@dataclass(frozen=True)
class TrackConstraints:
    """Facts of a track that are known without racing, over one era.

    Attributes
    ----------
    track_id : str
        Track and layout.
    name : str
        Common name.
    archetype : Archetype or None
        Archetype; None if the track fits none, e.g. dirt.
    first_season, last_season : int, int or None
        The era, both ends included; None leaves it open.
    length_miles : float
        Length of a lap, miles.
    scheduled_laps : int
        Laps of a usual race.
    """

    track_id: str
    name: str
    archetype: Archetype | None
    first_season: int
    last_season: int | None
    length_miles: float
    scheduled_laps: int

    def covers(self, season: int) -> bool:
        """Return whether `season` lies in this era."""
        return self.first_season <= season and (self.last_season is None or season <= self.last_season)


@dataclass(frozen=True)
class CompiledTracks:
    """All tracks and eras of one series, with a hash of their content.

    Attributes
    ----------
    eras : tuple[TrackConstraints, ...]
        One entry a track and era, ordered by track and season. An era ends where the track or the series'
        laps change.
    content_hash : str
        SHA-256 of eras, names and feed ids, hexadecimal; the same in every process.

    Examples
    --------
    >>> tracks = compile_constraints()
    >>> tracks.find(2021, name="ATLANTA MOTOR SPEEDWAY").archetype
    <Archetype.INTERMEDIATE: 'intermediate'>
    >>> tracks.find(2025, name="EchoPark Speedway").archetype
    <Archetype.SUPERSPEEDWAY: 'superspeedway'>
    """

    eras: tuple[TrackConstraints, ...]
    content_hash: str
    _by_name: dict[str, str] = field(repr=False, compare=False)
    _by_feed_id: dict[int, str] = field(repr=False, compare=False)

    def find(self, season: int, *, feed_id: int | None = None, name: str | None = None) -> TrackConstraints:
        """Return the track with a feed id or name, as it was in `season`.

        Parameters
        ----------
        season : int
            Year.
        feed_id : int, optional
            Id of the track in NASCAR's timing feed.
        name : str, optional
            Any of its names, or its `track_id`; case, accents and punctuation do not matter.

        Raises
        ------
        UnknownTrackError
            If neither is known, if the two mean different tracks, or if the track has no era in `season`.
        """
        by_id = None if feed_id is None else self._by_feed_id.get(feed_id)
        by_name = None if name is None else self._by_name.get(normalise_name(name))
        looked_up = f"name {name!r}, feed id {feed_id}"
        if by_id and by_name and by_id != by_name:
            raise UnknownTrackError(
                f"Track with {looked_up} is ambiguous: the id means {by_id}, the name means {by_name}."
            )
        track_id = by_id or by_name
        if track_id is None:
            raise UnknownTrackError(
                f"Track with {looked_up} is unknown; {self._nearest(name)}; {ADD_TRACKS}."
            )
        return self.by_id(track_id, season)

    def by_id(self, track_id: str, season: int) -> TrackConstraints:
        """Return the track called `track_id` as it was in `season`.

        Raises
        ------
        UnknownTrackError
            If there is no such track, or it has no era in `season`.
        """
        eras = [era for era in self.eras if era.track_id == track_id]
        if not eras:
            raise UnknownTrackError(f"Track {track_id!r} is unknown; {self._nearest(track_id)}.")
        for era in eras:
            if era.covers(season):
                return era
        known = ", ".join(f"{era.first_season}-{era.last_season or ''}" for era in eras)
        raise UnknownTrackError(f"Track {track_id!r} is not known in season {season}, only in {known}.")

    def to_frame(self) -> pl.DataFrame:
        """Return one row a track and era: schema `TrackTable`."""
        columns = {f.name: [getattr(era, f.name) for era in self.eras] for f in fields(TrackConstraints)}
        columns["archetype"] = [era.archetype.value if era.archetype else None for era in self.eras]
        frame = pl.DataFrame(
            columns, schema_overrides={"archetype": pl.String, "last_season": pl.Int64}, strict=True
        )
        return TrackTable.validate(frame)

    def _nearest(self, wanted: str | None) -> str:
        """Return the part of a message that lists the known names nearest to `wanted`."""
        near = difflib.get_close_matches(normalise_name(wanted or ""), [*self._by_name], n=3, cutoff=0.5)
        names = {era.track_id: era.name for era in self.eras}
        nearest = list(dict.fromkeys(names[self._by_name[key]] for key in near))
        return f"the nearest names are {', '.join(nearest)}" if nearest else "no known name is near it"


def compile_constraints(
    specs: Sequence[ConstraintSpec] = CATALOGUE,
    series: Series = "cup",
    added: Sequence[ConstraintSpec] = (),
) -> CompiledTracks:
    """Check the catalogue and compile it into frozen, hashed constraints of one series.

    A series that has not raced at a track gets the laps that make up its median distance at this archetype.

    Parameters
    ----------
    specs : sequence of ConstraintSpec
        One entry a track and era; their order does not matter.
    series : {"cup", "xfinity", "truck"}
        The series whose laps count.
    added : sequence of ConstraintSpec
        Further entries, such as a user's; they change nothing of the others.

    Returns
    -------
    CompiledTracks

    Raises
    ------
    ValueError
        If an entry is out of range, eras of a track overlap, or a name or feed id means two tracks.

    Examples
    --------
    >>> compile_constraints().by_id("bristol_dirt", 2022).archetype is None
    True
    >>> compile_constraints(series="truck").by_id("kansas", 2024).scheduled_laps
    134
    """
    ordered = sorted((*specs, *added), key=lambda spec: (spec.track_id, spec.first_season))
    for spec in ordered:
        _check_entry(spec)
    for earlier, later in pairwise(ordered):
        _check_eras(earlier, later)
    eras = tuple(era for spec in ordered for era in _eras(spec, _laps(spec, specs, series)))
    by_name = _unambiguous(
        (
            (spec.track_id, normalise_name(name))
            for spec in ordered
            for name in (spec.track_id, spec.name, *spec.aliases)
        ),
        "name",
    )
    by_feed_id = _unambiguous(
        ((spec.track_id, feed_id) for spec in ordered for feed_id in spec.feed_ids), "feed id"
    )
    content = json.dumps([[asdict(era) for era in eras], by_name, by_feed_id], sort_keys=True)
    return CompiledTracks(
        eras=eras,
        content_hash=hashlib.sha256(content.encode()).hexdigest(),
        _by_name=by_name,
        _by_feed_id=by_feed_id,
    )


def _laps(spec: ConstraintSpec, specs: Sequence[ConstraintSpec], series: Series) -> dict[int, int]:
    """Return first season → laps of a series at a track; its median distance where it has not raced there."""
    if laps := spec.scheduled_laps.of(series):
        return laps
    raced = [other for other in specs if other.scheduled_laps.of(series)]
    alike = [other for other in raced if other.archetype == spec.archetype] or raced
    if not alike:
        raise ValueError(f"Series {series} must have laps at one track at least; it has none at {spec.name}.")
    miles = median(other.length_miles * [*other.scheduled_laps.of(series).values()][-1] for other in alike)
    return {0: max(round(miles / spec.length_miles), 1)}


def _eras(spec: ConstraintSpec, laps: Mapping[int, int]) -> Iterator[TrackConstraints]:
    """Yield an entry's eras: one for each number of laps within the entry's seasons."""
    starts = [max(start, spec.first_season) for start in laps]
    ends: list[int | None] = [*(start - 1 for start in starts[1:]), spec.last_season]
    for start, end, n in zip(starts, ends, laps.values(), strict=True):
        yield TrackConstraints(
            spec.track_id, spec.name, spec.archetype, start, end, spec.length_miles, scheduled_laps=n
        )


def normalise_name(name: str) -> str:
    """Return letters and digits of a name in lower case, accents removed.

    Examples
    --------
    >>> normalise_name("Autódromo  Hermanos-Rodríguez")
    'autodromohermanosrodriguez'
    """
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    return "".join(character for character in decomposed if character.isalnum())


def _unambiguous[Key](pairs: Iterable[tuple[str, Key]], key_type: str) -> dict[Key, str]:
    """Return the track of each key; refuse a key of two tracks."""
    table: dict[Key, str] = {}
    for track_id, key in pairs:
        if table.setdefault(key, track_id) != track_id:
            raise ValueError(
                f"Each {key_type} must mean one track; {key!r} means {table[key]} and {track_id}."
            )
    return table


def _check_entry(spec: ConstraintSpec) -> None:
    own, last = [spec.scheduled_laps.of(series) for series in SERIES], spec.last_season
    changes = [season for laps in own for season in list(laps)[1:]]
    rules = {
        "track_id must be lower case letters, digits and underscores": bool(
            re.fullmatch(r"[a-z][a-z0-9_]*", spec.track_id)
        ),
        "length_miles must be > 0": spec.length_miles > 0,
        "scheduled_laps must be > 0": all(n > 0 for laps in own for n in laps.values()),
        "scheduled_laps must be known from first_season on": all(
            min(laps) <= spec.first_season for laps in own if laps
        ),
        "scheduled_laps must change after first_season and by last_season": all(
            season > spec.first_season and (last is None or season <= last) for season in changes
        ),
        "first_season must be <= last_season": last is None or spec.first_season <= last,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f"Track entry: {rule}; got {spec}.")


def _check_eras(earlier: ConstraintSpec, later: ConstraintSpec) -> None:
    if earlier.track_id != later.track_id:
        return
    if earlier.last_season is None or later.first_season <= earlier.last_season:
        raise ValueError(
            f"Eras of a track must not overlap; {later.track_id} has two in season {later.first_season} "
            f"({earlier.name}, {later.name})."
        )
