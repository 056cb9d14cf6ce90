"""Races of a season's rows: which rows form a race, its number, and which races count for points.

Rows are grouped by round, or by date where the table has no rounds. Where rounds and dates contradict each
other, the dates decide. Races of other series and exhibitions are left out; every decision is logged.
"""

import datetime
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import polars as pl

from calibration_pipeline.sources.names import Nicknames, driver_keys
from calibration_pipeline.sources.quarantine import NO_POINTS_RACE, OTHER_SERIES, QuarantineLog
from calibration_pipeline.sources.tables.columns import ROW, SeasonRows, plain_name

RACE_COLUMNS = (
    "race_name",
    "track",
    "surface",
    "race_date",
    "race_laps",
    "scheduled_laps",
    "green_laps",
    "n_cautions",
)
"""Columns with one value a race."""
SERIES_WORDS = {
    "truck": r"truck|craftsman|^(3|c|ncts|ncwts)$",
    "xfinity": r"xfinity|busch|nationwide|o.?reilly|^(2|b|nxs|nns)$",
    "cup": r"cup|^(1|w|ncs|nscs|mencs)$",
}
EXHIBITION = (
    r"(?i)\b(clash|duels?|all[- ]?stars?|shoot[- ]?out|unlimited|showdown|exhibition|qualifying|qualifier|"
    r"heat race|non[- ]points|pre-?season|invitational|(nascar|sprint|winston|monster energy) open)\b"
)
PLACEHOLDERS = (
    r"(?i)^(tba|tbd|tbc|to be (announced|determined|confirmed)|unknown|n/?a|driver|-+|\?+)[ .]*\d*$"
)
"""Names of drivers that are not known yet."""
MAJORITY = 2 / 3
"""Share of a race's rows that decides a value of the race."""
SMALL_FIELD = 20
SMALL_SHARE = 0.6
"""Fields below this share of the season's median, and races below this share of the usual laps, are small."""
DAYS_BEFORE = 14
"""An exhibition at a track precedes the points race there by at most these days."""
MANY_ROWS = 10
"""Rows without a number are a race of their own from this number on."""

type Race = dict[str, Any]
type UsualLaps = Callable[[int, str], int | None]


def assign_races(
    season_rows: SeasonRows,
    series: str,
    usual_laps: UsualLaps,
    where: str,
    log: QuarantineLog,
    counts: Counter[str],
    nicknames: Nicknames | None = None,
) -> pl.DataFrame:
    """Add the keys of race and driver to each row of the races that count.

    Rows that are equal in every column count once. Without driver ids, the name identifies a driver,
    as `sources.names` does.

    Parameters
    ----------
    season_rows : SeasonRows
        Rows of one season, columns of `RESULTS`.
    series : str
        Series in force.
    usual_laps : callable
        (season, name of a track) → usual laps of a race there, None where the track is not known.
    where : str
        Address of the table.
    log : QuarantineLog
    counts : Counter
    nicknames : Nicknames, optional
        Other spellings of names; those of the package if None.

    Returns
    -------
    polars.DataFrame
        The rows with round, race_id and race_order (both 100 * season + round), `label` of the race,
        `has_run`, `table_round` (the number that the table gives the race), driver_id, driver_key (the name's
        key), and columns of the race with one value.
    """
    rows = season_rows.rows
    once = rows.unique([name for name in rows.columns if name != ROW], keep="first", maintain_order=True)
    counts["results_repeated"] += rows.height - once.height
    calendar = _Calendar(once, series, usual_laps, where, log)
    assigned = calendar.assign()
    counts["exhibitions"] += calendar.exhibitions
    _log_cells(season_rows, assigned, where, log)
    name = plain_name(pl.col("driver"))
    key = driver_keys(assigned["driver"], assigned["race_order"], nicknames)
    start = pl.col("start_position")
    return assigned.with_columns(
        driver=name,
        driver_key=key,
        driver_id=pl.coalesce("driver_id", key),
        start_position=pl.when(start > 0).then(start),
    )


def has_run() -> pl.Expr:
    """Return the expression whether a row is of a car that drove: it has a finish or a lap."""
    return ((pl.col("finish_position") > 0) | (pl.col("laps_completed") > 0)).fill_null(value=False)


def most_laps(laps: pl.Expr) -> pl.Expr:
    """Return the aggregation of the most laps that two cars of a race completed, else of the most laps.

    One wrong number never decides the length of a race.
    """
    return pl.coalesce(laps.filter(laps.is_duplicated()).max(), laps.max())


def label_race(race: Mapping[str, Any]) -> str:
    """Return season, number, name and track of a race, for messages."""
    name = ", ".join(filter(None, (race.get("race_name"), race.get("track")))) or "no track"
    number = f" race {race['round']}" if race.get("round") is not None else ""
    return f"{race['season']}{number} ({name})"


class _Calendar:
    """The races of one season's rows."""

    def __init__(
        self, rows: pl.DataFrame, series: str, usual_laps: UsualLaps, where: str, log: QuarantineLog
    ) -> None:
        self.rows = rows
        self.season = log.season
        self.series = series
        self.usual_laps = usual_laps
        self.where = where
        self.log = log
        self.exhibitions = 0
        self.by_date = rows["round"].null_count() == rows.height

    def assign(self) -> pl.DataFrame:
        """Return the rows of the races that count, with the keys of their race."""
        self._drop_placeholders()
        self._keep_series()
        self._group()
        races = self._races()
        races = self._drop_exhibitions(races)
        self._number(races)
        kept = [race for race in races if race["round"] is not None]
        keys = {
            "group": pl.Int64, "round": pl.Int64, "label": pl.String, "has_run": pl.Boolean,
            "table_round": pl.Int64,
        }  # fmt: skip
        schema = keys | {name: self.rows.schema[name] for name in RACE_COLUMNS}
        for race in kept:
            race["label"] = label_race(race)
            race["table_round"] = race["table_round"] or race["round"]
        table = pl.DataFrame([[race[name] for name in schema] for race in kept], schema=schema, orient="row")
        order = 100 * pl.col("season") + pl.col("round")
        return (
            self.rows.drop("round", *RACE_COLUMNS)
            .join(table, on="group", how="inner", maintain_order="left")
            .with_columns(race_id=order, race_order=order)
            .drop("group", "foreign")
        )

    def _leave_out(self, race: Race, rule: str, value: object = None, *, is_exhibition: bool = False) -> None:
        """Log a race that is left out, and take its number; an exhibition has no race_id."""
        has_id = race["round"] is not None and not is_exhibition
        race_id = 100 * self.season + race["round"] if has_id else None
        self.log.add(
            "race", "left out", rule, place=self.where, race_id=race_id, race=label_race(race), value=value
        )
        race["round"] = None

    def _drop_placeholders(self) -> None:
        """Leave out rows that name neither a driver nor a result, or neither a race nor a result."""
        no_race = pl.col("track").is_null() & pl.col("race_name").is_null() & pl.col("race_date").is_null()
        empty = (pl.col("driver").is_null() | no_race & pl.col("round").is_null()) & ~has_run()
        dropped = self.rows.filter(empty)
        self.rows = self.rows.filter(~empty)
        for row in dropped.iter_rows(named=True):
            self.log.add(
                "entry", "left out", "it is a placeholder without a driver or a race and without a result",
                place=self.where, race=label_race(row), subject=row["driver"],
            )  # fmt: skip

    def _keep_series(self) -> None:
        """Keep the rows of the series in force; rows without a series belong to it."""
        given = self.rows["series"].drop_nulls().unique(maintain_order=True).to_list()
        known = {value: _series_of(value) for value in given}
        if not any(known.values()):
            if given:
                self.log.add(
                    "value", "nulled", "no known series", place=self.where, subject="series", value=given[0]
                )
            return
        for value, found in known.items():
            if found == self.series:
                continue
            others = self.rows.filter(pl.col("series") == value)
            n = others.select("round", "race_date", "track").n_unique()
            count = "1 race is" if n == 1 else f"{n} races are"
            self.log.add(
                "race", "left out", f"{count} {OTHER_SERIES}", place=self.where,
                race=f"{self.season}, series {value}",
            )  # fmt: skip
            self.rows = self.rows.filter(pl.col("series").ne_missing(value))

    def _group(self) -> None:
        """Add the number of each row's race in the order of the file, `group`; leave out rows of no race."""
        key = "race_date" if self.by_date else "round"
        self._detach_foreign_rows(key)
        if self.rows[key].null_count():
            self._fill_key(key)
        keys = [key]
        if self.by_date:
            # Two tracks on one day are two races, unless few rows name the second.
            share = pl.len().over(key, "track") / pl.len().over(key)
            apart = pl.when(pl.len().over(key) > 1, share.min().over(key) > 1 - MAJORITY).then(
                pl.col("track")
            )
            self.rows = self.rows.with_columns(apart=apart)
            keys.append("apart")
        elif self._doubled_rounds():
            keys.append("race_date")
        order = pl.struct(keys).rank("dense").cast(pl.Int64)
        self.rows = self.rows.with_columns(group=order).drop("apart", strict=False)

    def _detach_foreign_rows(self, key: str) -> None:
        """Take the key from rows that stand in another race: few rows of it, with a driver that it has."""
        foreign = pl.lit(value=False)
        for name in {"track", "race_name", "race_date"} - {key}:
            share = pl.len().over(key, name) / pl.len().over(key)
            foreign |= pl.col(name).is_not_null() & (share < 1 - MAJORITY)
        foreign &= pl.col(key).is_not_null() & pl.struct(key, "driver").is_duplicated()
        self.rows = self.rows.with_columns(foreign=foreign)
        if self.rows["foreign"].any():
            self.rows = self.rows.with_columns(pl.when(~pl.col("foreign")).then(pl.col(key)).alias(key))

    def _doubled_rounds(self) -> bool:
        """Whether a round has two winners on two days, and so stands for two races."""
        winners = self.rows.filter(pl.col("finish_position") == 1).group_by("round")
        days = winners.agg(pl.col("race_date").drop_nulls().n_unique(), pl.len())
        return not days.filter(pl.col("race_date") > 1, pl.col("len") == pl.col("race_date")).is_empty()

    def _fill_key(self, key: str) -> None:
        """Find the race of rows without a round or a date: the one that lacks their driver and finish."""
        fields: dict[Any, set[tuple[str, Any]]] = {}
        for value, track, driver, finish in self.rows.select(
            key, "track", "driver", "finish_position"
        ).iter_rows():
            if value is not None:
                fields.setdefault(value, set()).update((("t", track), ("d", driver), ("f", finish)))
        without = self.rows.filter(pl.col(key).is_null())
        whole = without.group_by("track", "race_date").len().filter(pl.col("len") >= MANY_ROWS)
        found: dict[int, Any] = {}
        for number, (track, date, _) in enumerate(whole.iter_rows()):
            # A whole race: it is numbered by its date later, if that is possible.
            if key == "round":
                rows = without.filter(pl.col("track").eq_missing(track), pl.col("race_date").eq_missing(date))
                found |= dict.fromkeys(rows[ROW], 1_000 + number)
        for row in without.iter_rows(named=True):
            if row[ROW] in found:
                continue
            tests = {("d", row["driver"]), ("f", row["finish_position"])} - {("f", None)}
            near = [
                value
                for value, field in fields.items()
                if not tests & field and (row["track"] is None or ("t", row["track"]) in field)
            ]
            rule = f"{key} is that of another race" if row["foreign"] else f"{key} is not given"
            if len(near) == 1:
                found[row[ROW]] = near[0]
                self.log.add(
                    "value", "corrected", f"{rule}, the race is the one that lacks the car",
                    place=self.where, race=label_race(row | {key: near[0]}), subject=row["driver"],
                )  # fmt: skip
            else:
                self.log.add(
                    "entry", "left out", rule, place=self.where, race=label_race(row), subject=row["driver"]
                )
        table = pl.DataFrame(
            {ROW: list(found), "found": list(found.values())},
            schema={ROW: pl.Int64, "found": self.rows.schema[key]},
        )
        filled = self.rows.join(table, on=ROW, how="left", maintain_order="left")
        self.rows = (
            filled.with_columns(pl.coalesce(key, "found")).drop("found").filter(~pl.col(key).is_null())
        )

    def _races(self) -> list[Race]:
        """Return the races in the order of `group`, each with one value of every race column."""
        drove = pl.col("laps_completed").filter(has_run())
        table = self.rows.group_by("group").agg(
            pl.col("season", "round").first(),
            *(pl.col(name).drop_nulls().unique(maintain_order=True) for name in RACE_COLUMNS),
            n_cars=has_run().sum(),
            has_run=has_run().any(),
            laps=most_laps(drove),
        )
        races = table.sort("group").to_dicts()
        for race in races:
            race["table_round"] = None if self.by_date else race["round"]
            torn = {name: race[name] for name in RACE_COLUMNS if len(race[name]) > 1}
            race |= {name: next(iter(race[name]), None) for name in RACE_COLUMNS}
            race["torn"] = None
            if torn:
                rows = self.rows.filter(group=race["group"])
                for name, found in torn.items():
                    self._settle(race, name, rows[name].drop_nulls(), found)
            if (race["round"] or 0) >= 1_000 or self.by_date:
                race["round"] = None
        return races

    def _settle(self, race: Race, name: str, given: pl.Series, found: list[Any]) -> None:
        """Decide a race column of which the rows of a race have several values."""
        value, count = given.value_counts(sort=True).row(0)
        values = ", ".join(str(each) for each in found[:3])
        rule = f"its rows name {len(found)} values of {name}"
        if count >= MAJORITY * len(given) - 1e-9 or name in ("race_name", "surface"):
            race[name] = value
            self.log.add(
                "value", "corrected", f"{rule}, {value} in most", place=self.where, race=label_race(race),
                subject=name, value=values,
            )  # fmt: skip
        elif name == "track":
            race["torn"] = (rule, values)
        else:
            race[name] = None
            self.log.add(
                "value", "nulled", rule, place=self.where, race=label_race(race), subject=name, value=values
            )

    def _drop_exhibitions(self, races: list[Race]) -> list[Race]:
        """Leave out exhibitions, and take their numbers from those of later races."""
        sizes = [race["n_cars"] for race in races if race["has_run"]]
        usual = median(sizes) if sizes else 0
        following = [*races[1:], None][: len(races)]
        kept: list[Race] = []
        dropped: list[int] = []
        for race, after in zip(races, following, strict=True):
            reason = self._exhibition(race, after, usual)
            if reason is None:
                kept.append(race)
                continue
            number = race["round"]
            self.exhibitions += 1
            self._leave_out(race, reason, is_exhibition=True)
            if number is not None and number >= 1:
                dropped.append(number)
        numbers = sorted(set(dropped) - {race["round"] for race in kept})
        for race in kept:
            if race["round"] is not None:
                race["round"] -= bisect_right(numbers, race["round"])
        return kept

    def _exhibition(self, race: Race, after: Race | None, usual_size: float) -> str | None:
        """Return why a race is an exhibition; None for a points race."""
        if race["round"] is not None and race["round"] <= 0:
            return f"its number is not positive: {NO_POINTS_RACE}"
        if re.search(EXHIBITION, race["race_name"] or ""):
            return f"{NO_POINTS_RACE} by its name"
        laps, usual = race["laps"], None
        if race["track"] is not None and self.series == "cup":
            usual = race["scheduled_laps"] or self.usual_laps(self.season, race["track"])
        if not laps or not usual or laps >= SMALL_SHARE * usual:
            return None
        few = f"it has {laps} laps of the usual {usual}"
        if _is_small(race["n_cars"], usual_size):
            return f"{few} and {race['n_cars']} cars: {NO_POINTS_RACE}"
        if after is not None and after["track"] == race["track"] and _follows(race, after):
            return f"{few} and precedes the points race there: {NO_POINTS_RACE}"
        return None

    def _number(self, races: list[Race]) -> None:
        """Set each race's round, and leave out races that cannot be numbered or are no whole race."""
        sizes = [race["n_cars"] for race in races if race["has_run"]]
        usual = median(sizes) if sizes else 0
        self._check_years(races)
        if self.by_date:
            dated = [race for race in races if race["race_date"] is not None]
            for number, race in enumerate(sorted(dated, key=lambda race: race["race_date"]), 1):
                race["round"] = number
        else:
            self._fill_rounds(races)
            self._order_by_date(races)
        for race in races:
            if race["round"] is None:
                continue
            if race["torn"] is not None:
                self._leave_out(race, *race["torn"])
            elif race["track"] is None:
                self._leave_out(race, "it has no track")
            elif race["has_run"] and race["n_cars"] == 1:
                self._leave_out(race, "it has one car")
            elif race["has_run"] and _is_small(race["n_cars"], usual):
                rule = "its field is a part of the usual one: rows are lost, or it is an exhibition"
                self._leave_out(race, rule, f"{race['n_cars']} cars of {usual:g}")

    def _check_years(self, races: Iterable[Race]) -> None:
        """Drop dates of another year than the season."""
        for race in races:
            date: datetime.date | None = race["race_date"]
            if date is not None and date.year != self.season:
                self.log.add(
                    "value", "nulled", "its date is not in the season", place=self.where,
                    race=label_race(race), subject="race_date", value=date,
                )  # fmt: skip
                race["race_date"] = None

    def _fill_rounds(self, races: list[Race]) -> None:
        """Number a race without a round by its date, where exactly one number is free there."""
        for race in races:
            if race["round"] is not None:
                continue
            dated = [r for r in races if r["round"] is not None and r["race_date"] is not None]
            date = race["race_date"]
            if date is not None and dated:
                before = max([0, *(int(r["round"]) for r in dated if r["race_date"] < date)])
                behind = min([int(r["round"]) for r in dated if r["race_date"] > date] or [before + 2])
                if behind - before == 2:
                    number = before + 1
                    race["round"] = number
                    self.log.add(
                        "race", "corrected", "round is not given, its date decides", place=self.where,
                        race_id=100 * self.season + number, race=label_race(race),
                    )  # fmt: skip
                    continue
            self._leave_out(race, "it has no number")

    def _order_by_date(self, races: list[Race]) -> None:
        """Let dates decide the order of races, where rounds contradict them."""
        numbered = sorted((race for race in races if race["round"] is not None), key=lambda r: r["round"])
        dated = [race for race in numbered if race["race_date"] is not None]
        repeated = Counter(race["round"] for race in numbered)
        doubled = [race for race in numbered if repeated[race["round"]] > 1]
        in_order = all(a["race_date"] <= b["race_date"] for a, b in pairwise(dated))
        by_date = sorted(dated, key=lambda race: race["race_date"])
        if doubled:
            if len(dated) == len(numbered) == numbered[-1]["round"]:
                self._renumber(by_date, range(1, len(numbered) + 1), "two races have its number")
            else:
                for race in doubled:
                    self._leave_out(race, "two races have its number", race["round"])
            return
        if in_order:
            return
        numbers = [race["round"] for race in dated]
        changed = sum(race["round"] != number for race, number in zip(by_date, numbers, strict=True))
        if changed > 2 and (outlier := _find_outlier(dated)) is not None:
            self.log.add(
                "value", "nulled", "its date contradicts its number and all other dates", place=self.where,
                race=label_race(outlier), subject="race_date", value=outlier["race_date"],
            )  # fmt: skip
            outlier["race_date"] = None
            return
        self._renumber(by_date, numbers, "its number contradicts its date, the dates decide")

    def _renumber(self, races: Sequence[Race], numbers: Iterable[int], rule: str) -> None:
        for race, number in zip(races, numbers, strict=True):
            if race["round"] != number:
                found = f"round {race['round']} on {race['race_date']}"
                race["round"] = number
                self.log.add(
                    "race", "corrected", rule, place=self.where, race_id=100 * self.season + number,
                    race=label_race(race), value=found,
                )  # fmt: skip


def _find_outlier(dated: Sequence[Race]) -> Race | None:
    """Return the only race without which the dates are in order."""
    for i, race in enumerate(dated):
        rest = [*dated[:i], *dated[i + 1 :]]
        if all(a["race_date"] <= b["race_date"] for a, b in pairwise(rest)):
            return race
    return None


def _follows(race: Race, after: Race) -> bool:
    """Return whether a race follows another one within days, or directly where dates are not known."""
    if race["race_date"] is None or after["race_date"] is None:
        return True
    return 0 <= (after["race_date"] - race["race_date"]).days <= DAYS_BEFORE


def _is_small(n_cars: int, usual: float) -> bool:
    """Return whether a field is small among those of its season, whose median is `usual`."""
    return n_cars < SMALL_SHARE * usual or n_cars < SMALL_FIELD <= usual


def _series_of(value: str) -> str | None:
    return next((name for name, words in SERIES_WORDS.items() if re.search(words, value.lower())), None)


def _log_cells(season_rows: SeasonRows, assigned: pl.DataFrame, where: str, log: QuarantineLog) -> None:
    """Log the cells that are not of their column's type, of the rows that belong to a race."""
    if not season_rows.defects:
        return
    rows = {row[ROW]: row for row in assigned.iter_rows(named=True)}
    for defect in season_rows.defects:
        if defect.row is None:
            log.add("value", "nulled", defect.rule, place=where, subject=defect.column, value=defect.value)
            continue
        row = rows.get(defect.row)
        if row is None:
            continue
        of_race = defect.column in RACE_COLUMNS
        log.add(
            "value", "corrected" if defect.column in ("season", "round") else "nulled", defect.rule,
            place=where, race_id=row["race_id"], race=row["label"],
            subject=defect.column if of_race else f"{row['driver']}, {defect.column}",
            value=defect.value or None,
        )  # fmt: skip
