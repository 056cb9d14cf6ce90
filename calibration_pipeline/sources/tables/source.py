"""Seasons from a table of results, and optionally a table of laps: a user's own, or nascaR.data's.

The names of the columns are in `columns`, the checks and defaults in `frames`. Races that fit no archetype or
whose track is not known are left out and named.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import polars as pl

from calibration_pipeline.schemas.frames import EntryList, LapTelemetry, RaceResults
from calibration_pipeline.sources.base import NoNextRace, SeasonData, SourceError, validate_frame
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.quarantine import QuarantineLog, races_left_out
from calibration_pipeline.sources.tables import frames
from calibration_pipeline.sources.tables.columns import LAPS, RESULTS, Columns
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.tracks import CompiledTracks, Series

logger = logging.getLogger(__name__)

COUNTS = (
    "races",
    "races_left_out",
    "races_not_run",
    "races_laps_led_mismatch",
    "races_grid_with_gaps",
    "cars",
    "cars_without_status",
    "cars_without_rating",
    "cars_ranked_behind_fewer_laps",
    "non_starters",
    "results_repeated",
)
LAP_COUNTS = (
    "races_without_laps",
    "cars_without_laps",
    "cars_with_lap_gaps",
    "laps",
    "laps_without_time",
    "laps_without_position",
    "laps_without_result",
    "laps_repeated",
    "laps_in_gaps",
)


class TablesSource:
    """Reads seasons from tables. Each table is read at the first access.

    Parameters
    ----------
    results_path : str
        Table of results, one row a car and race: `.parquet`, `.csv` or `.csv.gz`, a path or an address that
        fsspec opens.
    laps_path : str, optional
        Table of laps, one row a car and lap, in the same forms.
    tracks : CompiledTracks
        Catalogue that gives the archetype and the usual laps of a race.
    series : {"cup", "xfinity", "truck"}
        Series of the races.
    nicknames : Nicknames, optional
        Table of other spellings of drivers' names; that of the package if None.

    Raises
    ------
    SourceError
        If a path ends in something else.
    """

    name = "tables"

    def __init__(
        self,
        results_path: str,
        laps_path: str | None,
        tracks: CompiledTracks,
        *,
        series: Series = "cup",
        nicknames: Nicknames | None = None,
    ) -> None:
        self.tracks = tracks
        self.series = series
        self.nicknames = nicknames
        self._results_file = TableFile(results_path)
        self._laps_file = None if laps_path is None else TableFile(laps_path)

    @cached_property
    def seasons(self) -> tuple[int, ...]:
        """The seasons with races that have run, from the first that the track catalogue knows."""
        first = min(era.first_season for era in self.tracks.eras)
        return tuple(
            season
            for season in self._results.seasons()
            if season >= first and (self._results.read(season)["finish_position"] > 0).any()
        )

    def load_season(self, season: int) -> SeasonData:
        """Return the races of `season` that have run.

        `counts` holds the names in `COUNTS`, and where there is a table of laps those in `LAP_COUNTS`.

        Raises
        ------
        SourceError
            If the table has no such season, or a table is damaged or contradicts itself.
        """
        counts = Counter(dict.fromkeys(COUNTS + (LAP_COUNTS if self._laps else ()), 0))
        where = self._results_file.path
        log = QuarantineLog(season)
        run = self._finished(season, counts, log)
        cars = frames.starters(run, where, counts)
        results = frames.complete(cars, counts)
        telemetry = LapTelemetry.empty()
        if self._laps is not None and self._laps_file is not None and not results.is_empty():
            laps = self._laps.read(season)
            results, telemetry = frames.add_laps(results, laps, self._laps_file.path, counts, self.nicknames)
        quarantine = log.frame()
        lines = races_left_out(quarantine)
        for line in lines:
            logger.warning("Left out: %s", line)
        counts.update(races=results["race_id"].n_unique(), races_left_out=len(lines))
        return SeasonData(
            race_results=validate_frame(RaceResults, results, self._where(season)),
            lap_telemetry=validate_frame(LapTelemetry, telemetry, self._where(season)),
            counts=dict(counts),
            quarantine=quarantine,
        )

    def finished_races(self, season: int) -> dict[int, str]:
        """Return the races of `season` that have run, on known tracks and with a grid.

        Raises
        ------
        SourceError
            If the table cannot be read.
        """
        if season not in self._results.seasons():
            return {}
        races = self._finished(season, Counter(), QuarantineLog(season)).unique("race_id").sort("race_order")
        return {race["race_id"]: _label(race) for race in races.iter_rows(named=True)}

    def version(self, season: int) -> str:
        """Return the SHA-256 of the season's rows in both tables."""
        digest = hashlib.sha256()
        for columns in (self._results, self._laps):
            if columns is not None and season in columns.seasons():
                digest.update(columns.read(season).write_csv().encode())
        return digest.hexdigest()

    def refresh(self, season: int, number: int) -> None:
        """Refuse: nothing of this source is kept."""
        raise SourceError(f"Race {number} of {season} needs no refresh: tables are always read again.")

    def next_race(self, after_season: int) -> pl.DataFrame | NoNextRace | None:
        """Return the entry list of the first race that has not run, in `after_season` or the one after.

        A race that has not run is one whose cars all have no finish; most tables have none.

        Returns
        -------
        polars.DataFrame, NoNextRace or None
            Schema `EntryList`; the reason if every such race is at a track that is unknown or fits no
            archetype; None where the table has no such race.
        """
        reason: NoNextRace | None = None
        for season in (after_season, after_season + 1):
            if season not in self._results.seasons():
                continue
            rows = self._numbered(season, Counter())
            last_run = pl.col("race_order").filter(pl.col("finish_position") > 0).max().fill_null(0)
            log = QuarantineLog(season)
            upcoming = frames.locate_races(
                rows.filter(pl.col("race_order") > last_run), self.tracks, self._results_file.path, log
            )
            for line in races_left_out(log.frame()):
                none = NoNextRace(f"No forecast of {line}")
                logger.warning("%s", none.why)
                reason = reason or none
            if not upcoming.is_empty():
                first = upcoming.filter(pl.col("race_order") == pl.col("race_order").min())
                cars = frames.entries(first, self._results_file.path)
                return validate_frame(EntryList, cars, self._where(season))
        return reason

    def _finished(self, season: int, counts: Counter[str], log: QuarantineLog) -> pl.DataFrame:
        """Return the cars of the usable races; the others are added to `log`."""
        where = self._results_file.path
        located = frames.locate_races(self._numbered(season, counts), self.tracks, where, log)
        has_run = (pl.col("finish_position") > 0).any().over("race_order")
        has_grid = pl.col("start_position").is_not_null().any().over("race_order")
        counts["races_not_run"] += located.filter(~has_run.fill_null(value=False))["race_order"].n_unique()
        run = located.filter(has_run)
        for race in run.filter(~has_grid).unique("race_order").sort("race_order").iter_rows(named=True):
            rule = "its grid is not known"
            log.add("race", "left out", rule, place=where, race_id=race["race_id"], race=_label(race))
        return run.filter(has_grid)

    def _where(self, season: int) -> str:
        return f"Season {season} of {self._results_file.path}"

    @cached_property
    def _results(self) -> Columns:
        return Columns(self._results_file, RESULTS)

    @cached_property
    def _laps(self) -> Columns | None:
        return None if self._laps_file is None else Columns(self._laps_file, LAPS)

    def _numbered(self, season: int, counts: Counter[str]) -> pl.DataFrame:
        """Return a season's rows, each with its race and driver."""
        where = self._results_file.path
        rows = self._results.read(season)
        if rows.is_empty():
            known = ", ".join(map(str, self._results.seasons())) or "none"
            raise SourceError(f"Season {season} is not in {where}; it has {known}.")
        return frames.number_races(rows, where, counts, self.nicknames)


def _label(race: Mapping[str, Any]) -> str:
    return f"{race['season']} race {race['round']} ({race['track']})"
