"""Seasons from a table of results, and optionally a table of laps: a user's own, or nascaR.data's.

The columns are in `columns`, the races in `calendar`, the entries in `field`, the defaults in `frames`.
Everything that is left out, nulled or corrected is in the quarantine.
"""

import hashlib
import logging
from collections import Counter
from functools import cached_property
from statistics import median

import polars as pl

from calibration_pipeline.schemas.frames import EntryList, LapTelemetry, RaceResults
from calibration_pipeline.sources.base import (
    AnnouncedRace,
    NoNextRace,
    SeasonData,
    SourceError,
    validate_frame,
)
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.quarantine import (
    QuarantineLog,
    entry_defects,
    races_left_out,
    refuse_sparse_season,
)
from calibration_pipeline.sources.tables.aliases import read_mapping
from calibration_pipeline.sources.tables.calendar import assign_races
from calibration_pipeline.sources.tables.columns import LAPS, RESULTS, Columns
from calibration_pipeline.sources.tables.field import clean_fields
from calibration_pipeline.sources.tables.frames import NO_ARCHETYPE, ON_DIRT, complete, locate_races
from calibration_pipeline.sources.tables.laps import add_laps
from calibration_pipeline.sources.tables.next_race import clean_entries
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.tracks import CompiledTracks, Series, UnknownTrackError
from calibration_pipeline.tracks.layouts import find_layout

logger = logging.getLogger(__name__)

COUNTS = (
    "races",
    "races_left_out",
    "races_not_run",
    "exhibitions",
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
        Table of results, one row a car and race: a path or an address that fsspec opens, in one of
        `reader.FORMS`.
    laps_path : str, optional
        Table of laps, one row a car and lap, in the same forms.
    tracks : CompiledTracks
        Catalogue that gives the archetype and the usual laps of a race.
    series : {"cup", "xfinity", "truck"}
        Series of which races are read.
    columns : str, optional
        Path or address of a mapping file for columns that are not recognised by their names.
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
        series: Series = "cup",
        columns: str | None = None,
        nicknames: Nicknames | None = None,
    ) -> None:
        self.tracks = tracks
        self.series = series
        self.nicknames = nicknames
        self._results_file = TableFile(results_path)
        self._laps_file = None if laps_path is None else TableFile(laps_path)
        self._columns = columns

    @cached_property
    def seasons(self) -> tuple[int, ...]:
        """The seasons with races that have run, from the first that the track catalogue knows."""
        first = min(era.first_season for era in self.tracks.eras)
        return tuple(
            season for season in self._results.seasons() if season >= first and self._has_race(season)
        )

    def load_season(self, season: int) -> SeasonData:
        """Return the races of `season` that have run.

        `counts` holds the names in `COUNTS`, and where there is a table of laps those in `LAP_COUNTS`.

        Raises
        ------
        SourceError
            If the table has no such season, too few of its races can be used, or a table is damaged.
        """
        counts = Counter(dict.fromkeys(COUNTS + (LAP_COUNTS if self._laps else ()), 0))
        where = self._results_file.path
        log = QuarantineLog(season)
        results = self._finished(season, counts, log)
        telemetry = LapTelemetry.empty()
        if self._laps is not None and self._laps_file is not None and not results.is_empty():
            laps = self._laps.read_checked(season)
            results, telemetry = add_laps(results, laps, self._laps_file.path, log, counts, self.nicknames)
        quarantine = log.frame()
        lines = races_left_out(quarantine)
        for line in lines:
            logger.warning("Left out: %s", line)
        counts.update(races=results["race_id"].n_unique(), races_left_out=len(lines))
        self._refuse_sparse(quarantine, counts, f"Season {season} of {where}")
        return SeasonData(
            race_results=validate_frame(RaceResults, results, self._where(season)),
            lap_telemetry=validate_frame(LapTelemetry, telemetry, self._where(season)),
            counts=dict(counts),
            quarantine=quarantine,
        )

    def finished_races(self, season: int) -> dict[int, str]:
        """Return the races of `season` that have run and that `load_season` reads.

        Raises
        ------
        SourceError
            If the table cannot be read.
        """
        if season not in self._results.seasons():
            return {}
        races = self._finished(season, Counter(), QuarantineLog(season)).unique("race_id").sort("race_order")
        return {race["race_id"]: race["label"] for race in races.iter_rows(named=True)}

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

    def next_race(self, after_season: int) -> AnnouncedRace | NoNextRace | None:
        """Return the first race that has not run, with its entry list, in `after_season` or the one after.

        A race that has not run is one whose cars all have no finish and no laps, and that no race that has
        run follows; most tables have none.

        Returns
        -------
        AnnouncedRace, NoNextRace or None
            The defects name earlier races at a track that is unknown or fits no archetype, and another layout
            of the race. The reason if every race is at such a track, or the field cannot be forecast; None
            if there is no race.
        """
        earlier: list[NoNextRace] = []
        usual_size = 0.0
        for season in (after_season, after_season + 1):
            if season not in self._results.seasons():
                continue
            log = QuarantineLog(season)
            rows = self._assigned(season, Counter(), log)
            sizes = rows.filter("has_run").group_by("race_order").len()["len"].to_list()
            usual_size = median(sizes) if sizes else usual_size
            last_run = rows.filter("has_run")["race_order"].max() or 0
            ahead = rows.filter(~pl.col("has_run"), pl.col("race_order") > last_run)
            log = QuarantineLog(season)
            upcoming = locate_races(ahead, self.tracks, self.series, self._results_file.path, log)
            next_id = upcoming["race_id"].min()
            quarantine = log.frame()
            if next_id is not None:
                quarantine = quarantine.filter(pl.col("race_id") <= next_id)
            for line in races_left_out(quarantine):
                earlier.append(NoNextRace(f"No forecast of {line}"))
                logger.warning("%s", earlier[-1].why)
            if next_id is not None:
                found = clean_entries(upcoming.filter(race_id=next_id), usual_size)
                if isinstance(found, NoNextRace):
                    return found
                entries = validate_frame(EntryList, found.entries, self._where(season))
                own = entry_defects(quarantine.filter(race_id=next_id))
                return AnnouncedRace(entries, (*(race.before for race in earlier), *own, *found.defects))
        return earlier[0] if earlier else None

    def _finished(self, season: int, counts: Counter[str], log: QuarantineLog) -> pl.DataFrame:
        """Return the results of the usable races; defects are added to `log`."""
        where = self._results_file.path
        rows = self._assigned(season, counts, log)
        last_run = rows.filter("has_run")["race_order"].max() or 0
        not_run = rows.filter(~pl.col("has_run")).unique("race_order").sort("race_order")
        counts["races_not_run"] += not_run.height
        for race in not_run.filter(pl.col("race_order") < last_run).iter_rows(named=True):
            rule = "it has no results, and later races have run"
            log.add("race", "left out", rule, place=where, race_id=race["race_id"], race=race["label"])
        located = locate_races(rows.filter("has_run"), self.tracks, self.series, where, log)
        return complete(clean_fields(located, where, log, counts), where, log, counts)

    def _refuse_sparse(self, quarantine: pl.DataFrame, counts: Counter[str], where: str) -> None:
        """Refuse a season that lost too many races to defects: more than one, and more than a third."""
        lost = quarantine.filter(
            pl.col("race_id").is_not_null(),
            ~pl.col("rule").str.contains(f"({NO_ARCHETYPE}|{ON_DIRT})$"),
            entity="race",
            consequence="left out",
        )
        if lost.height > 1:
            refuse_sparse_season(lost, counts["races"], counts["races"] + lost.height, where)

    def _has_race(self, season: int) -> bool:
        """Return whether two cars of a season have a finish; a single row is a placeholder or an error."""
        return int((self._results.read(season)["finish_position"] > 0).sum()) > 1

    def _usual_laps(self, season: int, track: str) -> int | None:
        try:
            known = self.tracks.find(season, name=track)
        except UnknownTrackError:
            return None
        layout = find_layout(self.series, known.track_id, season, None)
        return known.scheduled_laps if layout is None else layout.laps

    def _where(self, season: int) -> str:
        return f"Season {season} of {self._results_file.path}"

    @cached_property
    def _mapping(self) -> dict[str, dict[str, str]]:
        return read_mapping(self._columns)

    @cached_property
    def _results(self) -> Columns:
        return Columns(self._results_file, RESULTS, self._mapping.get("results"))

    @cached_property
    def _laps(self) -> Columns | None:
        if self._laps_file is None:
            return None
        return Columns(self._laps_file, LAPS, self._mapping.get("laps"))

    def _assigned(self, season: int, counts: Counter[str], log: QuarantineLog) -> pl.DataFrame:
        """Return a season's rows, each with its race and driver."""
        where = self._results_file.path
        rows = self._results.read_checked(season)
        if rows.rows.is_empty():
            known = ", ".join(map(str, self._results.seasons())) or "none"
            raise SourceError(f"Season {season} is not in {where}; it has {known}.")
        return assign_races(rows, self.series, self._usual_laps, where, log, counts, self.nicknames)
