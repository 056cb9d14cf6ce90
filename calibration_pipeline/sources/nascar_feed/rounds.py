"""Rounds of a season: the points races of its list, in the order of running.

A row that is wrong costs its race at most. Dates order the races, where they agree with the order of the list
or with the race's own document.
"""

import datetime
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from calibration_pipeline.sources.base import DefectError
from calibration_pipeline.sources.nascar_feed.documents import POINTS_RACE, ScheduledRace, read_leniently
from calibration_pipeline.sources.quarantine import QuarantineLog

FINAL_AFTER = datetime.timedelta(days=15)
"""Official results are corrected for about two weeks."""
OWN_SEASON = 0.5
"""Least share of a list's races that must be of its season."""
NO_POINTS = re.compile(r"\b(clash|duel|all[- ]star|open|shootout|qualif|showdown|heat)", re.IGNORECASE)
"""Names of races that give no points, where the type is missing."""


@dataclass(frozen=True)
class Round:
    """A points race with its number in the season.

    Attributes
    ----------
    race : ScheduledRace
    number : int
        From 1; races that have not run come after those that have, and cancelled ones last.
    day : datetime.date or None
        Day of the race; that of the race's own document where the list is wrong.
    series : int
        Number of the series in paths.
    is_newest : bool
        Whether no later race of the list has run: results and laps may still come.
    is_final : bool
        Whether a race at least `FINAL_AFTER` later has run: its documents do not change any more.
    """

    race: ScheduledRace
    number: int
    day: datetime.date | None
    series: int
    is_newest: bool = False
    is_final: bool = False

    def path(self, document: str) -> str:
        """Return the path of a document of the race below the base URL."""
        return f"{self.race.race_season}/{self.series}/{self.race.race_id}/{document}"


def season_rounds(
    rows: Sequence[Any],
    season: int,
    series: int,
    where: str,
    log: QuarantineLog,
    own_day: Callable[[Round], datetime.date | None],
) -> list[Round]:
    """Return the points races of a season's list: those that have run in order, then the others.

    Parameters
    ----------
    rows : sequence
        The series' rows of the list.
    season, series : int
    where : str
        Address of the list.
    log : QuarantineLog
        Gets the rows that are wrong.
    own_day : callable
        Returns the day in a race's own document, None if it is not known.

    Raises
    ------
    DefectError
        If most races are of other seasons.
    """
    races = _once(_points_races(rows, season, where, log), where, log)
    placed = [Round(race, 0, race.day, series) for race in races]
    run = _in_order([each for each in placed if each.race.has_run], where, log, own_day)
    ahead = [each for each in placed if not each.race.has_run]
    last_day = run[-1].day if run else None
    for each in ahead:
        if is_overtaken(each, last_day):
            rule = "it has not run, later races have: it counts as cancelled"
            log.add("race", "left out", rule, place=where, race_id=each.race.race_id, race=each.race.label)
    ahead.sort(
        key=lambda each: (is_overtaken(each, last_day), each.day or datetime.date.max, each.race.race_id)
    )
    numbered = [replace(each, number=i) for i, each in enumerate([*run, *ahead], 1)]
    return [
        replace(
            each,
            is_newest=each.race.has_run and i == len(run) - 1,
            is_final=bool(each.race.has_run and each.day and last_day and last_day >= each.day + FINAL_AFTER),
        )
        for i, each in enumerate(numbered)
    ]


def is_overtaken(scheduled: Round, last_day: datetime.date | None) -> bool:
    """Return whether a race that has not run lies before the last day on which a race has."""
    return bool(
        not scheduled.race.has_run and scheduled.day is not None and last_day and scheduled.day < last_day
    )


def _points_races(rows: Sequence[Any], season: int, where: str, log: QuarantineLog) -> list[ScheduledRace]:
    """Return the points races of a list; rows that are wrong are named."""
    races = []
    strangers: list[ScheduledRace] = []
    for row in rows:
        race, wrong = read_leniently(ScheduledRace, row)
        if race is None:
            log.add("race", "left out", wrong[0], place=where)
            # It keeps its round: without an id it is race 0.
            race = read_leniently(ScheduledRace, row | {"race_id": 0})[0] if isinstance(row, dict) else None
            wrong = []
        if race is None:
            continue
        race = race if race.race_season else race.model_copy(update={"race_season": season})
        if race.race_season != season:
            strangers.append(race)
            continue
        for rule in wrong:
            log.add("value", "nulled", rule, place=where, race_id=race.race_id, race=race.label)
        if race.race_type_id is None:
            points = not NO_POINTS.search(race.race_name or "")
            rule = f"its type is missing; by its name it is {'a' if points else 'no'} points race"
            log.add("value", "corrected", rule, place=where, race_id=race.race_id, race=race.label)
            race = race.model_copy(update={"race_type_id": POINTS_RACE if points else 0})
        races.append(race)
    if len(strangers) > OWN_SEASON * (len(races) + len(strangers)):
        found = sorted({str(race.race_season) for race in strangers})
        raise DefectError(f"{where} must list season {season}; it lists {', '.join(found)}")
    for race in strangers:
        rule = f"it is in the list of season {season}"
        log.add("race", "left out", rule, place=where, race_id=race.race_id, race=race.label)
    return [race for race in races if race.race_type_id == POINTS_RACE]


def _once(races: list[ScheduledRace], where: str, log: QuarantineLog) -> list[ScheduledRace]:
    """Return every race once; of two rows the one counts that has run."""
    kept: dict[int, ScheduledRace] = {}
    for race in races:
        if race.race_id and (other := kept.get(race.race_id)) is not None:
            rule = "the list has it twice; the row that has run counts, else the first"
            log.add("race", "corrected", rule, place=where, race_id=race.race_id, race=race.label)
            kept[race.race_id] = other if other.has_run or not race.has_run else race
        else:
            kept[race.race_id or -len(kept)] = race
    return list(kept.values())


def _in_order(
    run: list[Round], where: str, log: QuarantineLog, own_day: Callable[[Round], datetime.date | None]
) -> list[Round]:
    """Return races that have run in the order of their days.

    A day that contradicts both the order of the list and that of the ids is compared with the one in the
    race's own document; where there is none, the race keeps its place in the list.
    """
    by_id = sorted(range(len(run)), key=lambda i: run[i].race.race_id)
    agreeing = _longest_ascending([each.day for each in run])
    agreeing |= {by_id[k] for k in _longest_ascending([run[i].day for i in by_id])}
    placed: list[Round] = []
    for i, each in enumerate(run):
        day = each.day
        if i not in agreeing:
            own = own_day(each)
            day = own or (placed[-1].day if placed else None)
            if day != each.day:
                source = "its own document" if own else "its place in the list"
                rule = f"its date contradicts the order of the list; by {source} it ran on {day}"
                log.add(
                    "value", "corrected", rule, place=where, race_id=each.race.race_id, race=each.race.label,
                    subject="race_date", value=each.day,
                )  # fmt: skip
        placed.append(replace(each, day=day))
    first = datetime.date.min
    return sorted(placed, key=lambda each: each.day or first)


def _longest_ascending(days: Sequence[datetime.date | None]) -> set[int]:
    """Return the positions of a longest ascending subsequence; positions without a day are not in it."""
    tails: list[datetime.date] = []
    ends: list[int] = []
    before: dict[int, int | None] = {}
    for i, day in enumerate(days):
        if day is None:
            continue
        k = bisect_right(tails, day)
        before[i] = ends[k - 1] if k else None
        tails[k : k + 1] = [day]
        ends[k : k + 1] = [i]
    chosen: set[int] = set()
    at = ends[-1] if ends else None
    while at is not None:
        chosen.add(at)
        at = before[at]
    return chosen
