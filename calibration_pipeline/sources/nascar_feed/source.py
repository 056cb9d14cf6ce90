"""Seasons from the files of NASCAR's public timing feed: points races that have run, laps included.

Paths below the base URL: `{season}/race_list_basic.json`, and `weekend-feed.json` and `lap-times.json` in
`{season}/{series}/{race_id}/`, where the series is 1 (Cup), 2 (Xfinity) or 3 (Truck). Races that fit no
archetype or whose track is unknown are left out, named and counted. No track is guessed.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from calibration_pipeline.schemas.frames import EntryList, LapTelemetry, RaceResults
from calibration_pipeline.sources.base import (
    MissingDocumentError,
    NoNextRace,
    SeasonData,
    SourceError,
    validate_frame,
)
from calibration_pipeline.sources.laps import attach_fastest_laps, attach_laps
from calibration_pipeline.sources.nascar_feed.documents import (
    POINTS_RACE,
    RACE_LISTS,
    AnyWeekend,
    EntryWeekend,
    FinishedRace,
    FinishedWeekend,
    ScheduledRace,
    parse_document,
    parse_laps,
)
from calibration_pipeline.sources.nascar_feed.frames import entry_frame, green_laps, result_frame
from calibration_pipeline.sources.nascar_feed.reader import FeedReader
from calibration_pipeline.sources.quarantine import QuarantineLog, races_left_out
from calibration_pipeline.sources.web import WebLimits
from calibration_pipeline.tracks import SERIES, CompiledTracks, Series, TrackConstraints, UnknownTrackError

logger = logging.getLogger(__name__)

COUNTS = (
    "races",
    "races_left_out",
    "races_not_run",
    "races_awaited",
    "races_without_laps",
    "races_laps_led_mismatch",
    "cars",
    "cars_without_id",
    "cars_without_laps",
    "cars_with_lap_gaps",
    "non_starters",
    "results_repeated",
    "laps",
    "laps_without_time",
    "laps_without_position",
    "laps_without_result",
    "laps_repeated",
    "laps_in_gaps",
    "green_laps_untimed",
)


@dataclass(frozen=True)
class _Round:
    """A points race with its number in the season."""

    race: ScheduledRace
    number: int
    final: bool
    series: int

    def path(self, document: str) -> str:
        return f"{self.race.race_season}/{self.series}/{self.race.race_id}/{document}"


class _AwaitedError(Exception):
    """Error of a newest race that has run but is not complete in the feed yet."""


class NascarFeedSource:
    """Reads seasons from the feed's files.

    Parameters
    ----------
    base_url : str
        Address of the files: `https://cf.nascar.com/cacher`, a folder, or a zip (`zip://::/path.zip` or the
        path of a `.zip` file).
    tracks : CompiledTracks
        Catalogue that gives the archetype of a race.
    cache_dir : Path, optional
        Folder of cached documents. Documents of races that another race follows are requested once; others
        are revalidated.
    limits : WebLimits, optional
        Limits of web requests.
    series : {"cup", "xfinity", "truck"}
        Series whose races are read.
    """

    name = "nascar_feed"

    def __init__(
        self,
        base_url: str,
        tracks: CompiledTracks,
        cache_dir: Path | None = None,
        limits: WebLimits | None = None,
        series: Series = "cup",
    ) -> None:
        self.tracks = tracks
        self.series = series
        self._reader = FeedReader(base_url, cache_dir, limits)

    @property
    def seasons(self) -> tuple[int, ...]:
        """The seasons of which a folder or zip has files.

        Raises
        ------
        SourceError
            If the feed is on the web, where it cannot be listed, or does not exist.
        """
        names = (name for name in self._reader.folders() if re.fullmatch(r"[12]\d{3}", name))
        return tuple(sorted(int(name) for name in names))

    def load_season(self, season: int) -> SeasonData:
        """Return the points races of `season` that have run.

        The newest race may have run and have no results, or not all its laps, in the feed yet: it counts as
        not yet run (`races_awaited`), with a warning and a row of the quarantine. `counts` holds the names in
        `COUNTS`; `laps_without_time` leaves out lap 0, the grid.

        Raises
        ------
        SourceError
            If the season does not exist, or a document is missing, damaged or contradicts itself.
        """
        counts = Counter(dict.fromkeys(COUNTS, 0))
        log = QuarantineLog(season)
        results, laps = [RaceResults.empty()], [LapTelemetry.empty()]
        rounds = self._rounds(season)
        for scheduled in rounds:
            if not scheduled.race.has_run:
                counts["races_not_run"] += 1
                continue
            try:
                track = self._track(scheduled.race)
            except UnknownTrackError as error:
                self._leave_out(scheduled, str(error), log)
                continue
            season_has_laps = any(not frame.is_empty() for frame in laps)
            try:
                race_results, race_laps = self._load_race(scheduled, track, counts, season_has_laps)
            except _AwaitedError as error:
                self._leave_out(scheduled, str(error), log)
                counts["races_awaited"] += 1
                continue
            except SourceError:
                self._invalidate([scheduled])
                raise
            results.append(race_results)
            laps.append(race_laps)
        quarantine = log.frame()
        counts.update(races=len(results) - 1, races_left_out=quarantine.height - counts["races_awaited"])
        counts["races_not_run"] += counts["races_awaited"]
        for line in races_left_out(quarantine):
            logger.warning("Left out: %s", line)
        where = self._where(season)
        try:
            return SeasonData(
                race_results=validate_frame(RaceResults, pl.concat(results, how="diagonal"), where),
                lap_telemetry=validate_frame(LapTelemetry, pl.concat(laps, how="diagonal"), where),
                counts=dict(counts),
                quarantine=quarantine,
            )
        except SourceError:
            self._invalidate(rounds)
            raise

    def finished_races(self, season: int) -> dict[int, str]:
        """Return the points races of `season` that have run on known tracks, from the race list alone.

        The newest race may have no results in the feed yet; `load_season` then leaves it out.

        Raises
        ------
        SourceError
            If the race list cannot be read.
        """
        try:
            rounds = self._rounds(season)
        except MissingDocumentError:
            return {}
        return {r.race.race_id: r.race.label for r in rounds if r.race.has_run and self._is_known(r.race)}

    def version(self, season: int) -> str:
        """Return the SHA-256 of the season's finished races in the list and of their documents.

        Documents that are final come from the cache.
        """
        digest = hashlib.sha256()
        try:
            rounds = [r for r in self._rounds(season) if r.race.has_run and self._is_known(r.race)]
        except MissingDocumentError:
            return digest.hexdigest()
        for scheduled in rounds:
            digest.update(scheduled.race.model_dump_json().encode())
            for document in ("weekend-feed.json", "lap-times.json"):
                try:
                    content = json.dumps(
                        self._reader.read_json(scheduled.path(document), final=scheduled.final)
                    )
                except SourceError as error:  # a document that is missing or damaged may be replaced
                    content = str(error)
                digest.update(content.encode())
        return digest.hexdigest()

    def refresh(self, season: int, number: int) -> None:
        """Have the documents of a race requested again.

        Raises
        ------
        SourceError
            If the season has no such race.
        """
        rounds = self._rounds(season)
        if not 1 <= number <= len(rounds):
            raise SourceError(f"Season {season} has rounds 1 to {len(rounds)}; got {number}.")
        self._invalidate(rounds[number - 1 : number])

    def next_race(self, after_season: int) -> pl.DataFrame | NoNextRace | None:
        """Return the entry list of the first race that has not run, in `after_season` or the next.

        Returns
        -------
        polars.DataFrame, NoNextRace or None
            Schema `EntryList`. Where no such race has an entry list yet: the reason if the first of them is
            at a track that is unknown or fits no archetype, else None.
        """
        reason: NoNextRace | None = None
        for season in (after_season, after_season + 1):
            try:
                rounds = self._rounds(season)
            except MissingDocumentError:
                continue
            last_run = max((r.number for r in rounds if r.race.has_run), default=0)
            for scheduled in rounds[last_run:]:
                entries = self._entries(scheduled)
                if isinstance(entries, NoNextRace):
                    reason = reason or entries
                elif entries is not None:
                    return validate_frame(EntryList, entries, self._where(season))
        return reason

    def _leave_out(self, scheduled: _Round, rule: str, log: QuarantineLog) -> None:
        """Add a race that is left out to the log."""
        race, place = scheduled.race, self._reader.url(scheduled.path("weekend-feed.json"))
        log.add("race", "left out", rule.rstrip("."), place=place, race_id=race.race_id, race=race.label)

    def _where(self, season: int) -> str:
        return f"Season {season} of {self._reader.base_url}"

    def _rounds(self, season: int) -> list[_Round]:
        """Return the points races of a season, in the order of running."""
        path = f"{int(season)}/race_list_basic.json"
        try:
            document = self._reader.read_json(path)
        except MissingDocumentError as error:
            raise MissingDocumentError(f"Season {season} is not in the feed: {error}") from error
        url = self._reader.url(path)
        races = parse_document(RACE_LISTS[self.series], document, url).series_1
        if strangers := sorted({race.race_season for race in races} - {season}):
            raise SourceError(f"{url} must list season {season}; it lists {strangers}.")
        points = [race for race in races if race.race_type_id == POINTS_RACE]
        points.sort(key=lambda race: (not race.has_run, race.race_date.replace(tzinfo=None), race.race_id))
        if len({race.race_id for race in points}) < len(points):
            raise SourceError(f"{url} lists a race twice.")
        number = SERIES.index(self.series) + 1
        followed = [*(race.has_run for race in points[1:]), False][: len(points)]
        return [
            _Round(race, i, final, number)
            for i, (race, final) in enumerate(zip(points, followed, strict=True), 1)
        ]

    def _track(self, race: ScheduledRace) -> TrackConstraints:
        """Return the race's track; a track that fits no archetype counts as unknown."""
        track = self.tracks.find(race.race_season, feed_id=race.track_id, name=race.track_name)
        if track.archetype is None:
            raise UnknownTrackError(f"Track {track.name} fits no archetype.")
        return track

    def _is_known(self, race: ScheduledRace) -> bool:
        try:
            self._track(race)
        except UnknownTrackError:
            return False
        return True

    def _load_race(
        self, scheduled: _Round, track: TrackConstraints, counts: Counter[str], season_has_laps: bool
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return results and laps of one race, and add to `counts`.

        Raises `_AwaitedError`, and adds nothing, where the newest race is not complete in the feed yet.
        """
        where = self._reader.url(scheduled.path("weekend-feed.json"))
        race = self._finished(scheduled, where)
        laps, flags = self._laps(scheduled)
        if not scheduled.final and season_has_laps:
            laps_where = self._reader.url(scheduled.path("lap-times.json"))
            _await_laps(laps, race.actual_laps or 0, laps_where)
        results = result_frame(race.results, where, counts)
        race_laps = race.actual_laps or None
        counts["races_laps_led_mismatch"] += race_laps is not None and results["laps_led"].sum() != race_laps
        if laps is None or flags is None:
            counts["races_without_laps"] += 1
            telemetry = LapTelemetry.empty().drop("race_id", "season", "track_id")
        else:
            telemetry = attach_laps(results, laps, flags, counts)
        n_green = green_laps(race, flags)
        results = attach_fastest_laps(results, telemetry, race_laps).with_columns(
            race_laps=pl.lit(race_laps, pl.Int64),
            green_laps=pl.lit(n_green, pl.Int64),
            n_cautions=pl.lit(race.number_of_cautions, pl.Int64),
        )
        if laps is not None and n_green is not None:
            counts["green_laps_untimed"] += n_green - int(results["fastest_laps"].sum())
        race_keys = _race_keys(scheduled, track, race.scheduled_laps)
        lap_keys = {key: race_keys[key] for key in ("race_id", "season", "track_id")}
        return (
            results.drop("feed_driver_id").with_columns(**race_keys).sort("finish_position"),
            telemetry.with_columns(**lap_keys).sort("driver_id", "lap"),
        )

    def _finished(self, scheduled: _Round, where: str) -> FinishedRace:
        """Return a race that has run; raise `_AwaitedError` if the newest race has no results yet."""
        try:
            document = self._reader.read_json(scheduled.path("weekend-feed.json"), final=scheduled.final)
        except MissingDocumentError as error:
            if scheduled.final:
                raise
            raise _AwaitedError(f"it has run, but its results are not there yet: {error}") from error
        if not scheduled.final and not parse_document(AnyWeekend, document, where).has_results:
            raise _AwaitedError(f"it has run, but its results are not there yet: {where} has no finish.")
        race = parse_document(FinishedWeekend, document, where).weekend_race[0]
        self._check_race(race.race_id, scheduled, where)
        return race

    def _invalidate(self, rounds: Sequence[_Round]) -> None:
        """Have the documents of races requested again because they cannot be used."""
        for scheduled in rounds:
            for document in ("weekend-feed.json", "lap-times.json"):
                self._reader.invalidate(scheduled.path(document))

    def _laps(self, scheduled: _Round) -> tuple[pl.DataFrame, pl.DataFrame] | tuple[None, None]:
        """Return the laps and flags of the feed; older seasons have none."""
        path = scheduled.path("lap-times.json")
        try:
            document = self._reader.read_json(path, final=scheduled.final)
        except MissingDocumentError:
            return None, None
        return parse_laps(document, self._reader.url(path))

    def _entries(self, scheduled: _Round) -> pl.DataFrame | NoNextRace | None:
        """Return the entry list of a race, None if there is none, or why the race cannot be forecast."""
        path = scheduled.path("weekend-feed.json")
        try:
            track = self._track(scheduled.race)
            document = self._reader.read_json(path)
        except UnknownTrackError as error:
            none = NoNextRace(f"No forecast of {scheduled.race.label}: {error}")
            logger.warning("%s", none.why)
            return none
        except MissingDocumentError:
            return None
        where = self._reader.url(path)
        race = parse_document(EntryWeekend, document, where).weekend_race[0]
        self._check_race(race.race_id, scheduled, where)
        if not race.results:
            return None
        keys = _race_keys(scheduled, track, race.scheduled_laps)
        return entry_frame(race.results, where).drop("feed_driver_id").with_columns(**keys)

    def _check_race(self, race_id: int, scheduled: _Round, where: str) -> None:
        if race_id != scheduled.race.race_id:
            raise SourceError(f"{where} must be of race {scheduled.race.race_id}; it is of {race_id}.")


def _await_laps(laps: pl.DataFrame | None, race_laps: int, where: str) -> None:
    """Raise `_AwaitedError` for a race whose laps are not all in the feed yet."""
    if laps is None or laps.is_empty():
        raise _AwaitedError(f"it has run, but its laps are not there yet: {where} is missing or empty.")
    last = laps["lap"].max()
    if isinstance(last, int) and last < race_laps:
        raise _AwaitedError(
            f"it has run, but its laps are not all there yet: {where} ends at lap {last} of {race_laps}."
        )


def _race_keys(scheduled: _Round, track: TrackConstraints, laps: int | None) -> dict[str, pl.Expr]:
    """Return the columns that are the same for all rows of a race."""
    race = scheduled.race
    return {
        "race_id": pl.lit(race.race_id, pl.Int64),
        "season": pl.lit(race.race_season, pl.Int64),
        "round": pl.lit(scheduled.number, pl.Int64),
        "race_order": pl.lit(100 * race.race_season + scheduled.number, pl.Int64),
        "track_id": pl.lit(track.track_id, pl.String),
        "archetype": pl.lit(str(track.archetype), pl.String),
        "race_date": pl.lit(race.race_date.date(), pl.Date),
        "scheduled_laps": pl.lit(laps or race.scheduled_laps or None, pl.Int64),
    }
