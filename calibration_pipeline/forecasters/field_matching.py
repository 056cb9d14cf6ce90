"""Races and cars of a forecaster's file, matched to the races in force and to the cars entered.

Rules that every form shares: an entered car that the forecast lacks quarantines the race; a car that was not
at the start is removed and counted; a driver who occurs twice quarantines the race.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

import polars as pl

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.car_matching import (
    FieldMatch,
    MatchedRace,
    match_ids,
    match_numbers,
    number_as_written,
    plain_number,
)
from calibration_pipeline.forecasters.tables import ForecastTable
from calibration_pipeline.scenarios.covariates import race_slots
from calibration_pipeline.seasons import span
from calibration_pipeline.sources.names import Nicknames, driver_key, match_drivers
from calibration_pipeline.sources.quarantine import DefectLog, Row

SHOWN = 5
NO_SUCH_RACE = "the results have no such race"
TWICE = "a driver occurs twice"


class RacesInForce:
    """Races that forecasts are wanted of, and the cars entered in them.

    Parameters
    ----------
    entries : polars.DataFrame
        `DriverFeatures` or `EntryList`.
    nicknames : Nicknames, optional
        Table of other spellings of drivers' names; that of the package if None.
    other_seasons : collection of int
        Seasons in force whose races are not in `entries`: a file may hold these alone.
    """

    def __init__(
        self,
        entries: pl.DataFrame,
        nicknames: Nicknames | None = None,
        other_seasons: Collection[int] = (),
    ) -> None:
        self.nicknames = nicknames
        self.other_seasons = other_seasons
        self.entries = entries
        label = pl.format("{} race {} ({})", "season", "round", "track_id")
        self.races = (
            entries.select("race_id", "season", "round", label=label)
            .unique("race_id")
            .sort("season", "round")
        )
        ordered = entries.sort("start_position", "driver_id").select(
            "race_id", "driver_id", "driver", pl.col("car_number").cast(pl.String)
        )
        self._cars = {
            int(str(race_id)): cars
            for (race_id,), cars in ordered.partition_by("race_id", as_dict=True, include_key=False).items()
        }
        self._nearest_names: dict[str, str | None] = {}
        self._known = {
            "driver_id": {name.casefold() for name in ordered["driver_id"]},
            "driver": {driver_key(name, nicknames) for name in ordered["driver"].unique()},
            "car_number": {plain_number(number) for number in ordered["car_number"].drop_nulls()},
        }

    def cars(self, race_id: int) -> pl.DataFrame:
        """Return driver_id, driver and car_number of the cars entered in a race, by grid."""
        return self._cars[race_id]

    def slots(self, race_ids: Iterable[int]) -> pl.DataFrame:
        """Return the entries of some races, numbered by `covariates.race_slots`."""
        return race_slots(self.entries.filter(pl.col("race_id").is_in(list(race_ids))))

    def locate(self, keys: Sequence[pl.DataFrame], log: DefectLog) -> list[pl.DataFrame]:
        """Match the races of a forecaster's files to those in force.

        Parameters
        ----------
        keys : sequence of polars.DataFrame
            For each file race_id, or season and round, or all three. With all three, race_id counts in the
            rows that have one. It does not count if all races in force have a race_id made of season and
            round, or if none in the file fits.
        log : DefectLog
            Gets the races that the results lack between others of their season.

        Returns
        -------
        list of polars.DataFrame
            For each file the distinct keys that fit, with the column `found`: the race_id in force.

        Raises
        ------
        ForecasterError
            If races are in force and no file fits one, nor another season in force; the message names the
            seasons in the files.
        """
        located = [self._locate_file(frame, log) for frame in keys]
        if not self.races.is_empty() and all(frame.is_empty() for frame in located):
            self._refuse_other_seasons(pl.concat(keys, how="diagonal_relaxed"), log.path)
        return located

    def _locate_file(self, keys: pl.DataFrame, log: DefectLog) -> pl.DataFrame:
        by_season = {"season", "round"} <= set(keys.columns)
        by_id = "race_id" in keys.columns and not (by_season and self._ids_are_idle(keys["race_id"]))
        has_id = pl.col("race_id").is_not_null() if by_id else pl.lit(False)
        has_round = pl.all_horizontal(pl.col("season", "round").is_not_null()) if by_season else pl.lit(False)
        with_race = keys.filter(has_id | has_round)
        distinct = with_race.unique().sort(pl.all())
        if n_without := keys.height - with_race.height:
            log.notes.append(f"{n_without} rows name no race by whole numbers; they are not read.")
        ways = [(has_id, ["race_id"])] * by_id + [(~has_id, ["season", "round"])] * by_season
        located = pl.concat(
            distinct.filter(own).join(self.races.select(*on, found="race_id"), on=on, maintain_order="left")
            for own, on in ways
        )
        rest = distinct.join(located, on=distinct.columns, how="anti", nulls_equal=True)
        if by_season:  # a race after the last one may not have run yet
            spans = self.races.group_by("season").agg(first=pl.min("round"), last=pl.max("round"))
            rest = rest.join(spans, on="season", how="left", maintain_order="left")
            is_lacking = pl.col("round").is_between("first", "last").fill_null(False)
            for row in rest.filter(is_lacking).iter_rows(named=True):
                log.add({"season": row["season"], "label": _label(row)}, NO_SUCH_RACE)
            elsewhere = pl.col("season").is_in(list(self.other_seasons)).fill_null(False)
            rest = rest.filter(~is_lacking & ~elsewhere)
        if not rest.is_empty():
            races = named([_label(row) for row in rest.iter_rows(named=True)])
            n_races = "1 race of the file is" if rest.height == 1 else f"{rest.height} races of the file are"
            log.notes.append(f"{n_races} not in force: {races}.")
        return located

    def _ids_are_idle(self, ids: pl.Series) -> bool:
        """Return whether a file's race_id says no more than its season and round, or fits no race."""
        from_round = 100 * self.races["season"] + self.races["round"]
        return bool((from_round == self.races["race_id"]).all()) or not ids.is_in(self.races["race_id"]).any()

    def join_races(self, rows: pl.DataFrame, table: ForecastTable, log: DefectLog) -> pl.DataFrame:
        """Return the rows of the races in force, with the race_id in force instead of the table's keys.

        Parameters
        ----------
        rows : polars.DataFrame
            The table's key columns, and any other columns.
        table : ForecastTable
        log : DefectLog
            As for `locate`.
        """
        keys = list(table.keys)
        (located,) = self.locate([rows.select(keys)], log)
        joined = rows.join(located, on=keys, maintain_order="left", nulls_equal=True).drop(keys)
        return joined.rename({"found": "race_id"})

    def match(self, labels: Sequence[str], race_id: int, by: str) -> FieldMatch:
        """Match the labels of a race's cars to the cars entered.

        Parameters
        ----------
        labels : sequence of str
            Each once.
        race_id : int
        by : {"driver_id", "driver", "car_number"}
        """
        cars = self._cars[race_id]
        names = zip(cars[by], cars["driver_id"], strict=True)
        known = {name: driver for name, driver in names if name is not None}
        if by == "car_number":
            matched = match_numbers(labels, list(known))
        elif by == "driver_id":
            matched = match_ids(labels, list(known))
        else:
            matched = match_drivers(labels, known, self.nicknames)
        drivers = {label: known[car] for label, car in matched.matches.items()}
        taken = set(drivers.values())
        if by == "driver":
            repeated = [label for label in matched.unmatched if self._match_alone(label, known)]
        else:
            keys = [(number_as_written if by == "car_number" else str.casefold)(label) for label in labels]
            count = Counter(keys)
            repeated = [label for label, key in zip(labels, keys, strict=True) if count[key] > 1]
        missing = cars.filter(~pl.col("driver_id").is_in(taken))["driver"].to_list()
        absent = {label: near for label, near in matched.unmatched.items() if label not in repeated}
        return FieldMatch(drivers, absent, missing, repeated)

    def choose_labels(self, table: ForecastTable) -> tuple[str, str]:
        """Return the column that names the cars, and what it holds: the column of the entries.

        Of all columns and readings, the one counts in which most labels are known.

        Raises
        ------
        ForecasterError
            If the table has no column that names the cars.
        """
        if not table.labels:
            raise ForecasterError(
                f"{table.path} must name its cars by driver, driver_id or car_number; it has "
                f"{table.shown_columns}."
            )
        best = (-1, "", "")
        for ours, theirs in table.labels.items():
            values = table.collect(table.text(theirs).unique())[theirs].drop_nulls().to_list()
            n_known, by = self.best_reading(values, ours)
            best = max(best, (n_known, theirs, by), key=lambda found: found[0])
        return best[1], best[2]

    def best_reading(self, labels: Collection[str], column: str) -> tuple[int, str]:
        """Return how many labels of a column are known, and as which column of the entries.

        Parameters
        ----------
        labels : collection of str
        column : {"driver", "driver_id", "car_number"}
            A column `driver` may hold names, ids or car numbers.
        """
        readings = ("driver", "driver_id", "car_number") if column == "driver" else (column,)
        counts = {by: self.count_known(labels, by) for by in readings}
        best = max(counts, key=lambda by: counts[by])
        return counts[best], best

    def count_known(self, labels: Iterable[str], by: str) -> int:
        """Return how many labels are of a car entered in some race in force."""
        plain = {
            "driver_id": str.casefold,
            "driver": lambda label: driver_key(label, self.nicknames),
            "car_number": plain_number,
        }[by]
        return sum(plain(label) in self._known[by] for label in labels)

    def matched_races(self, rows: pl.DataFrame, by: str, log: DefectLog) -> Iterator[MatchedRace]:
        """Yield the races of a long table that have all cars entered; the others are quarantined.

        Parameters
        ----------
        rows : polars.DataFrame
            race_id in force, label, and any other columns.
        by : {"driver_id", "driver", "car_number"}
        log : DefectLog
        """
        parts = rows.partition_by("race_id", as_dict=True, include_key=False)
        for race in self.races.iter_rows(named=True):
            own = parts.get((race["race_id"],))
            if own is None:
                continue
            match = self.match(own["label"].unique(maintain_order=True).to_list(), race["race_id"], by)
            if not self.refuse_incomplete(match, race, log):
                found = pl.col("label").replace_strict(match.drivers, default=None, return_dtype=pl.String)
                yield MatchedRace(race, self._cars[race["race_id"]], own.with_columns(driver_id=found))

    def refuse_incomplete(self, match: FieldMatch, race: Row, log: DefectLog) -> bool:
        """Return whether a race is quarantined: a car entered is missing, or a driver occurs twice."""
        if match.repeated:
            log.add(race, TWICE, value=named(match.repeated))
            return True
        if match.missing:
            unknown = [f"{label!r} (nearest: {near!r})" for label, near in match.absent.items() if near]
            value = named(match.missing) + (f"; unknown: {named(unknown)}" if unknown else "")
            n = len(match.missing) + len(match.drivers)
            log.add(race, f"the forecast must have all {n} cars entered, {len(match.missing)} are missing",
                    value=value)  # fmt: skip
            return True
        for label in match.absent:
            log.add_absent(race, label, self._nearest(label))
        return False

    def _nearest(self, label: str) -> str | None:
        """Return the nearest name of a driver in force to a label that is none."""
        if label not in self._nearest_names:
            known = any(self.count_known([label], by) for by in self._known)
            names = () if known else self.entries["driver"].unique()
            self._nearest_names[label] = match_drivers([label], names).unmatched.get(label)
        return self._nearest_names[label]

    def _match_alone(self, name: str, known: Iterable[str]) -> bool:
        return bool(match_drivers([name], known, self.nicknames).matches)

    def _refuse_other_seasons(self, keys: pl.DataFrame, path: str) -> None:
        has_rounds = {"season", "round"} <= set(keys.columns)
        seasons = sorted(keys.drop_nulls(["season", "round"])["season"].unique()) if has_rounds else []
        ids = sorted(keys["race_id"].drop_nulls().unique()) if "race_id" in keys.columns else []
        if set(seasons) & set(self.other_seasons) or (ids and not seasons and self.other_seasons):
            return
        held = f"the race_id {named([str(race) for race in ids])}" if ids else "no race by whole numbers"
        held = _seasons(seasons) if seasons else held
        raise ForecasterError(
            f"{path}: no race of it is in force; it holds {held}, and in force are the {self.races.height} "
            f"races of {_seasons(sorted(self.races['season'].unique()))}."
        )


def named(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others.

    >>> named(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _label(key: Row) -> str:
    season, number = key.get("season"), key.get("round")
    return f"{season} race {number}" if season is not None and number is not None else str(key["race_id"])


def _seasons(seasons: Sequence[int]) -> str:
    return f"the {'season' if len(seasons) == 1 else 'seasons'} {span(seasons)}"
