"""Seasons from the files of NASCAR's public timing feed: points races that have run, laps included.

Paths below the base URL: `{season}/race_list_basic.json`, and `weekend-feed.json` and `lap-times.json` in
`{season}/{series}/{race_id}/`, where the series is 1 (Cup), 2 (Xfinity) or 3 (Truck). Races that fit no
archetype or whose track is unknown are left out, named and counted. No track is guessed.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from calibration_pipeline.schemas.frames import EntryList, LapTelemetry, RaceResults
from calibration_pipeline.sources.base import (
    AnnouncedRace,
    DefectError,
    MissingDocumentError,
    NoNextRace,
    SeasonData,
    SourceError,
    validate_frame,
)
from calibration_pipeline.sources.laps import align_to_leader, attach_fastest_laps, attach_laps
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.nascar_feed.documents import (
    Race,
    ScheduledRace,
    race_of,
    races_of,
    read_leniently,
)
from calibration_pipeline.sources.nascar_feed.frames import Note, entry_frame, green_laps, result_frame
from calibration_pipeline.sources.nascar_feed.laps import laps_agree, last_lap_as_raced, parse_laps
from calibration_pipeline.sources.nascar_feed.reader import FeedReader
from calibration_pipeline.sources.nascar_feed.rounds import (
    FINAL_AFTER,
    Round,
    is_overtaken,
    season_rounds,
)
from calibration_pipeline.sources.quarantine import (
    QuarantineLog,
    describe_quarantine,
    entry_defects,
    races_left_out,
    refuse_sparse_season,
)
from calibration_pipeline.sources.web import WebLimits
from calibration_pipeline.tracks import (
    SERIES,
    CompiledTracks,
    Series,
    TrackConstraints,
    UnknownTrackError,
)

logger = logging.getLogger(__name__)

RESULTS, LAPS = "weekend-feed.json", "lap-times.json"
FIRST_LISTS = range(2017, 2027)
"""Seasons whose lists the live feed has; one of them answers unless the feed refuses."""
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
    nicknames : Nicknames, optional
        Table of other spellings, for drivers without an id; that of the package if None.
    """

    name = "nascar_feed"

    def __init__(
        self,
        base_url: str,
        tracks: CompiledTracks,
        cache_dir: Path | None = None,
        limits: WebLimits | None = None,
        series: Series = "cup",
        nicknames: Nicknames | None = None,
    ) -> None:
        self.tracks = tracks
        self.series = series
        self.nicknames = nicknames
        self._reader = FeedReader(base_url, cache_dir, limits)
        self._days_of: dict[int, list[date]] = {}

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

        What cannot be used is left out and named in the quarantine: a value, an entry, laps, or a race. The
        newest race may have run and have no results, or not all its laps, in the feed yet: it counts as not
        yet run (`races_awaited`). `counts` holds the names in `COUNTS`; `laps_without_time` leaves out lap 0,
        the grid.

        Raises
        ------
        SourceError
            If the season does not exist, the feed cannot be read, or less than two thirds of the finished
            races can be used.
        """
        counts = Counter(dict.fromkeys(COUNTS, 0))
        log = QuarantineLog(season)
        results, laps = [RaceResults.empty()], [LapTelemetry.empty()]
        without_laps: list[Round] = []
        n_run = 0
        for scheduled in map(self._settled, self._rounds(season, log)):
            if not scheduled.race.has_run:
                counts["races_not_run"] += 1
                continue
            n_run += 1
            if not scheduled.race.race_id:  # `rounds` has named it
                continue
            try:
                track = self._track(scheduled.race)
            except UnknownTrackError as error:
                self._leave_out(scheduled, str(error), log)
                n_run -= 1
                continue
            season_has_laps = any(not frame.is_empty() for frame in laps)
            own = QuarantineLog(season)
            try:
                race_results, race_laps = self._load_race(scheduled, track, counts, own, season_has_laps)
            except _AwaitedError as error:
                self._leave_out(scheduled, str(error), log)
                counts["races_awaited"] += 1
                n_run -= 1
                continue
            except DefectError as error:
                log.rows += own.rows
                self._leave_out(scheduled, str(error), log)
                self._invalidate([scheduled])
                continue
            log.rows += own.rows
            results.append(race_results)
            laps.append(race_laps)
            if race_laps.is_empty() and not any(row["entity"] == "laps" for row in own.rows):
                without_laps.append(scheduled)
        if len(without_laps) < len(results) - 1:  # early seasons have no laps at all
            for scheduled in without_laps:
                self._note(scheduled, log, LAPS)("laps", "left out", "the feed has none, but of other races")
        quarantine = log.frame()
        left_out = races_left_out(quarantine)
        counts.update(races=len(results) - 1, races_left_out=len(left_out) - counts["races_awaited"])
        counts["races_not_run"] += counts["races_awaited"]
        where = self._where(season)
        for line in left_out:
            logger.warning("Left out: %s", line)
        if text := describe_quarantine(quarantine.filter(pl.col("entity") != "race")):
            logger.warning("Season %s: %s", season, text)
        refuse_sparse_season(quarantine, len(results) - 1, n_run, where)
        return SeasonData(
            race_results=validate_frame(RaceResults, pl.concat(results, how="diagonal"), where),
            lap_telemetry=validate_frame(LapTelemetry, pl.concat(laps, how="diagonal"), where),
            counts=dict(counts),
            quarantine=quarantine,
        )

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

        Documents that are final come from the cache. A race whose laps are awaited is read without them
        once a later race has run.
        """
        digest = hashlib.sha256()
        try:
            rounds = [r for r in self._rounds(season) if r.race.has_run and self._is_known(r.race)]
        except MissingDocumentError:
            return digest.hexdigest()
        for scheduled in map(self._settled, rounds):
            digest.update(scheduled.race.model_dump_json().encode() + b"newest" * scheduled.is_newest)
            for document in (RESULTS, LAPS):
                try:
                    found = self._reader.digest(scheduled.path(document), final=scheduled.is_final)
                except DefectError as error:  # a document that is missing or damaged may be replaced
                    found = str(error)
                digest.update(found.encode())
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

    def next_race(self, after_season: int) -> AnnouncedRace | NoNextRace | None:
        """Return the first race that has not run and has an entry list, in `after_season` or the next.

        Returns
        -------
        AnnouncedRace, NoNextRace or None
            The defects name earlier races that cannot be forecast: at a track that is unknown or fits no
            archetype, or with a damaged document. Without a race to forecast: the reason of the first of
            them, None if no entry list is announced.
        """
        earlier: list[NoNextRace] = []
        for season in (after_season, after_season + 1):
            try:
                rounds = self._rounds(season)
            except MissingDocumentError:
                continue
            days = [r.day for r in rounds if r.race.has_run and r.day]
            for scheduled in rounds:
                if scheduled.race.has_run or is_overtaken(scheduled, max(days, default=None)):
                    continue
                found = self._entries(scheduled)
                if isinstance(found, NoNextRace):
                    earlier.append(found)
                elif found is not None:
                    entries = validate_frame(EntryList, found.entries, self._where(season))
                    return AnnouncedRace(entries, (*(race.before for race in earlier), *found.defects))
        return earlier[0] if earlier else None

    def _leave_out(self, scheduled: Round, rule: str, log: QuarantineLog) -> None:
        """Add a race that is left out to the log."""
        self._note(scheduled, log, RESULTS)("race", "left out", rule.rstrip("."))

    def _note(self, scheduled: Round, log: QuarantineLog, document: str) -> Note:
        """Return the function that adds a defect of a race's document to the log."""
        race, place = scheduled.race, self._reader.url(scheduled.path(document))
        return partial(log.add, place=place, race_id=race.race_id, race=race.label)

    def _where(self, season: int) -> str:
        return f"Season {season} of {self._reader.base_url}"

    def _rounds(self, season: int, log: QuarantineLog | None = None) -> list[Round]:
        """Return the points races of a season, in the order of running."""
        path = _list_path(season)
        try:
            document = self._reader.read_json(path)
        except MissingDocumentError as error:
            self._refuse_silence(season, error)
            raise MissingDocumentError(f"Season {season} is not in the feed: {error}") from error
        url = self._reader.url(path)
        rows = races_of(document, self.series, url)
        if rows is None:
            raise MissingDocumentError(f"Season {season} is not in the feed: {url} is empty.")
        number = SERIES.index(self.series) + 1
        log = QuarantineLog(season) if log is None else log
        return season_rounds(rows, season, number, url, log, self._own_day)

    def _settled(self, scheduled: Round) -> Round:
        """Return a race with what the next season's list adds: whether a later race has run."""
        if not scheduled.race.has_run or scheduled.is_final or not scheduled.day:
            return scheduled
        following = self._days_run(int(scheduled.race.race_season or 0) + 1)
        final = any(day >= scheduled.day + FINAL_AFTER for day in following)
        return replace(scheduled, is_newest=scheduled.is_newest and not following, is_final=final)

    def _days_run(self, season: int) -> list[date]:
        """Return the days of a season's races that have run; none where there is no such season yet."""
        if season not in self._days_of:
            try:
                path = _list_path(season)
                rows = races_of(self._reader.read_json(path), self.series, self._reader.url(path)) or []
            except DefectError:
                rows = []
            races = (
                race for race, wrong in (read_leniently(ScheduledRace, row) for row in rows) if not wrong
            )
            self._days_of[season] = [race.day for race in races if race and race.has_run and race.day]
        return self._days_of[season]

    def _refuse_silence(self, season: int, error: MissingDocumentError) -> None:
        """Raise where the feed answers no request at all: then nothing is known of the season.

        Raises
        ------
        SourceError
            If the lists of all other seasons are missing, too.
        """
        if not self._reader.is_remote or self._reader.has_answered:
            return
        for other in (season - 1, season + 1, *FIRST_LISTS):
            try:
                self._reader.read_json(_list_path(other))
            except MissingDocumentError:
                continue
            return
        raise SourceError(
            f"The feed refuses: {self._reader.base_url} answers no season's list, the last with: {error}"
        ) from error

    def _own_day(self, scheduled: Round) -> date | None:
        """Return the day of a race in its own document, None if it is not known."""
        path = scheduled.path(RESULTS)
        try:
            found = race_of(self._reader.read_json(path), self._reader.url(path))
        except DefectError:
            return None
        race = found[0] if found else None
        if race is None or race.race_id not in (None, scheduled.race.race_id) or not race.race_date:
            return None
        return race.race_date.date()

    def _track(self, race: ScheduledRace) -> TrackConstraints:
        """Return the race's track; a track that fits no archetype counts as unknown."""
        track = self.tracks.find(int(race.race_season or 0), feed_id=race.track_id, name=race.track_name)
        if track.archetype is None:
            raise UnknownTrackError(f"Track {track.name} fits no archetype.")
        return track

    def _is_known(self, race: ScheduledRace) -> bool:
        """Return whether a race has an id, and a track with an archetype."""
        if not race.race_id:
            return False
        try:
            self._track(race)
        except UnknownTrackError:
            return False
        return True

    def _load_race(
        self,
        scheduled: Round,
        track: TrackConstraints,
        counts: Counter[str],
        log: QuarantineLog,
        season_has_laps: bool,
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return results and laps of one race, and add to `counts` and `log`.

        Raises `_AwaitedError` where the newest race is not complete in the feed yet, and `DefectError` where
        its results cannot be used.
        """
        note = self._note(scheduled, log, RESULTS)
        race = self._finished(scheduled, note)
        own = Counter[str]()
        race_laps = race.actual_laps or _most_laps(race.results or [])
        if not race.actual_laps and race_laps:
            note("value", "corrected", "its laps are those of the car with the most", subject="actual_laps")
        results = result_frame(race.results or [], race_laps, note, own, self.nicknames)
        parsed = self._laps(scheduled, results, race_laps, log)
        if scheduled.is_newest and season_has_laps:
            _await_laps(parsed and parsed[0], race_laps or 0, self._reader.url(scheduled.path(LAPS)))
        led = results["laps_led"]
        known = race_laps is not None and not led.has_nulls()
        own["races_laps_led_mismatch"] += known and led.sum() != race_laps
        if parsed is None:
            own["races_without_laps"] += 1
            telemetry, flags = LapTelemetry.empty().drop("race_id", "season", "track_id"), None
        else:
            laps, flags = parsed[0], last_lap_as_raced(parsed[1], race_laps)
            telemetry = attach_laps(results, laps, flags, own)
        n_green = green_laps(race, race_laps, flags, note)
        results = attach_fastest_laps(results, align_to_leader(telemetry), race_laps).with_columns(
            race_laps=pl.lit(race_laps, pl.Int64),
            green_laps=pl.lit(n_green, pl.Int64),
            n_cautions=pl.lit(race.number_of_cautions, pl.Int64),
        )
        if parsed is not None and n_green is not None:
            own["green_laps_untimed"] += n_green - int(results["fastest_laps"].sum())
        counts.update(own)
        race_keys = _race_keys(scheduled, track, race.scheduled_laps)
        lap_keys = {key: race_keys[key] for key in ("race_id", "season", "track_id")}
        return (
            results.drop("feed_driver_id").with_columns(**race_keys).sort("finish_position"),
            telemetry.with_columns(**lap_keys),
        )

    def _finished(self, scheduled: Round, note: Note) -> Race:
        """Return a race that has run; raise `_AwaitedError` if the newest race has no results yet."""
        where = self._reader.url(scheduled.path(RESULTS))
        try:
            document = self._reader.read_json(scheduled.path(RESULTS), final=scheduled.is_final)
        except MissingDocumentError as error:
            if not scheduled.is_newest:
                raise
            raise _AwaitedError(f"it has run, but its results are not there yet: {error}") from error
        found = race_of(document, where)
        race, wrong = found or (None, [])
        if race is None or not any(_has_finish(row) for row in race.results or []):
            if scheduled.is_newest:
                raise _AwaitedError(f"it has run, but its results are not there yet: {where} has no finish.")
            raise DefectError(f"it has run, but {where} has no results")
        self._check_race(race.race_id, scheduled, where)
        for rule in wrong:
            note("value", "nulled", rule)
        return race

    def _invalidate(self, rounds: Sequence[Round]) -> None:
        """Have the documents of races requested again."""
        for scheduled in rounds:
            for document in (RESULTS, LAPS):
                self._reader.invalidate(scheduled.path(document))

    def _laps(
        self, scheduled: Round, results: pl.DataFrame, race_laps: int | None, log: QuarantineLog
    ) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """Return the laps and flags of a race; None where there are none, or those of another race."""
        note, path = self._note(scheduled, log, LAPS), scheduled.path(LAPS)
        try:
            document = self._reader.read_json(path, final=scheduled.is_final)
            laps, flags, defects = parse_laps(document, self._reader.url(path))
        except MissingDocumentError:
            return None
        except DefectError as error:
            note("laps", "left out", str(error).rstrip("."))
            return None
        if laps.is_empty():
            note("laps", "left out", "its document has no laps")
            return None
        if reason := laps_agree(laps, results, race_laps):
            note("laps", "left out", f"they are of another race: {reason}")
            self._invalidate([scheduled])
            return None
        for car, rule in defects:
            note("laps", "left out", rule, subject=car)
        last = int(laps["lap"].max() or 0)  # type: ignore[arg-type]
        if race_laps and last < race_laps and not scheduled.is_newest:
            note("laps", "kept", f"they end at lap {last} of {race_laps}")
        return laps, flags

    def _entries(self, scheduled: Round) -> AnnouncedRace | NoNextRace | None:
        """Return the entry list of a race; None if there is none yet, the reason if it cannot be forecast."""
        path = scheduled.path(RESULTS)
        where = self._reader.url(path)
        log = QuarantineLog(int(scheduled.race.race_season or 0))
        try:
            track = self._track(scheduled.race)
            found = race_of(self._reader.read_json(path), where)
            race = found[0] if found else None
            self._check_race(race.race_id if race else None, scheduled, where)
        except MissingDocumentError:
            return None
        except (UnknownTrackError, DefectError) as error:
            none = NoNextRace(f"No forecast of {scheduled.race.label}: {str(error).rstrip('.')}.")
            logger.warning("%s", none.why)
            return none
        note = self._note(scheduled, log, RESULTS)
        entries = entry_frame((race.results if race else None) or [], note, self.nicknames)
        if text := describe_quarantine(log.frame()):
            logger.warning("Entry list: %s", text)
        if entries.is_empty():
            return None
        keys = _race_keys(scheduled, track, race.scheduled_laps if race else None)
        entries = entries.drop("feed_driver_id", "name_id").with_columns(**keys)
        return AnnouncedRace(entries, entry_defects(log.frame()))

    def _check_race(self, race_id: int | None, scheduled: Round, where: str) -> None:
        if race_id is not None and race_id != scheduled.race.race_id:
            raise DefectError(f"{where} must be of race {scheduled.race.race_id}; it is of {race_id}")


def _list_path(season: int) -> str:
    return f"{int(season)}/race_list_basic.json"


def _has_finish(row: Any) -> bool:
    return isinstance(row, dict) and str(row.get("finishing_position") or "0").strip() not in ("0", "0.0")


def _most_laps(rows: Sequence[Any]) -> int | None:
    """Return the most laps that a car completed."""
    laps = [str(row.get("laps_completed")) for row in rows if isinstance(row, dict)]
    whole = [int(number) for number in laps if number.isdecimal()]
    return max(whole, default=0) or None


def _await_laps(laps: pl.DataFrame | None, race_laps: int, where: str) -> None:
    """Raise `_AwaitedError` for a race whose laps are not all in the feed yet."""
    if laps is None or laps.is_empty():
        raise _AwaitedError(f"it has run, but its laps are not there yet: {where} is missing or empty.")
    last = laps["lap"].max()
    if isinstance(last, int) and last < race_laps:
        raise _AwaitedError(
            f"it has run, but its laps are not all there yet: {where} ends at lap {last} of {race_laps}."
        )


def _race_keys(scheduled: Round, track: TrackConstraints, laps: int | None) -> dict[str, pl.Expr]:
    """Return the columns that are the same for all rows of a race."""
    race, season = scheduled.race, int(scheduled.race.race_season or 0)
    return {
        "race_id": pl.lit(race.race_id, pl.Int64),
        "season": pl.lit(season, pl.Int64),
        "round": pl.lit(scheduled.number, pl.Int64),
        "race_order": pl.lit(100 * season + scheduled.number, pl.Int64),
        "track_id": pl.lit(track.track_id, pl.String),
        "archetype": pl.lit(str(track.archetype), pl.String),
        "race_date": pl.lit(scheduled.day, pl.Date),
        "scheduled_laps": pl.lit(laps or race.scheduled_laps or None, pl.Int64),
    }
