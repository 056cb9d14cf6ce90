"""The track catalogue, checked and compiled: frozen, hashed, and looked up by season and name or id."""

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise

import polars as pl

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.schemas.frames import TrackTable
from calibration_pipeline.tracks.catalogue import CATALOGUE, ConstraintSpec


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
    """All tracks and eras, with a hash of their content.

    Attributes
    ----------
    eras : tuple[TrackConstraints, ...]
        One entry a track and era, ordered by track and season.
    content_hash : str
        SHA-256 of the catalogue, hexadecimal; the same in every process.

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
        by_name = None if name is None else self._by_name.get(_normalised(name))
        looked_up = f"name {name!r}, feed id {feed_id}"
        if by_id and by_name and by_id != by_name:
            raise UnknownTrackError(
                f"Track with {looked_up} is ambiguous: the id means {by_id}, the name means {by_name}."
            )
        track_id = by_id or by_name
        if track_id is None:
            raise UnknownTrackError(f"Track with {looked_up} is unknown; {self._nearest(name)}.")
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
        near = difflib.get_close_matches(_normalised(wanted or ""), [*self._by_name], n=3, cutoff=0.5)
        names = {era.track_id: era.name for era in self.eras}
        nearest = list(dict.fromkeys(names[self._by_name[key]] for key in near))
        return f"the nearest names are {', '.join(nearest)}" if nearest else "no known name is near it"


def compile_constraints(specs: Sequence[ConstraintSpec] = CATALOGUE) -> CompiledTracks:
    """Check the catalogue and compile it into frozen, hashed constraints.

    Parameters
    ----------
    specs : sequence of ConstraintSpec
        One entry a track and era; their order does not matter.

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
    """
    ordered = sorted(specs, key=lambda spec: (spec.track_id, spec.first_season))
    for spec in ordered:
        _check_entry(spec)
    for earlier, later in pairwise(ordered):
        _check_eras(earlier, later)
    content = json.dumps([asdict(spec) for spec in ordered], sort_keys=True, ensure_ascii=True)
    names = (
        (spec.track_id, _normalised(name))
        for spec in ordered
        for name in (spec.track_id, spec.name, *spec.aliases)
    )
    feed_ids = ((spec.track_id, feed_id) for spec in ordered for feed_id in spec.feed_ids)
    kept = [f.name for f in fields(TrackConstraints)]
    return CompiledTracks(
        eras=tuple(TrackConstraints(**{key: getattr(spec, key) for key in kept}) for spec in ordered),
        content_hash=hashlib.sha256(content.encode()).hexdigest(),
        _by_name=_unambiguous(names, "name"),
        _by_feed_id=_unambiguous(feed_ids, "feed id"),
    )


def _normalised(name: str) -> str:
    """Return letters and digits of `name` in lower case, accents removed.

    >>> _normalised("Autódromo  Hermanos-Rodríguez")
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
    rules = {
        "track_id must be lower case letters, digits and underscores": bool(
            re.fullmatch(r"[a-z][a-z0-9_]*", spec.track_id)
        ),
        "length_miles must be > 0": spec.length_miles > 0,
        "scheduled_laps must be > 0": spec.scheduled_laps > 0,
        "first_season must be <= last_season": spec.last_season is None
        or spec.first_season <= spec.last_season,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f"Track entry: {rule}; got {spec}.")


def _check_eras(earlier: ConstraintSpec, later: ConstraintSpec) -> None:
    if earlier.track_id != later.track_id:
        return
    if earlier.last_season is None or later.first_season <= earlier.last_season:
        raise ValueError(
            f"Eras of a track must not overlap; {later.track_id} has two in season {later.first_season}."
        )
