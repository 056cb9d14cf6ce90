"""Field of one race: entries that did not start, doubled or missing values, and what is left of the race.

A field without a defect is not touched. Otherwise the mildest consequence is chosen: a value that the other
cars determine is corrected, else the entry is left out, else the race.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import polars as pl

from calibration_pipeline.sources.quarantine import DID_NOT_START, Consequence, Entity, QuarantineLog
from calibration_pipeline.sources.tables.columns import ROW
from calibration_pipeline.sources.tables.statuses import is_non_starter

LONE_LEAD = 1.05
"""A winner with more laps than the second times this number has a wrong number of laps."""
BEHIND = 4
"""A car has a wrong number of laps if the next so many cars all have more."""
MOSTLY_GIVEN = 0.9
"""A missing value is logged where this share of a season's cars has one."""
LOST_SHARE = 0.1
"""A race is left out if more than this share of its cars cannot be used."""
MOST_GAPS = 10
"""Grid positions beyond the field, as of entries that were withdrawn."""
KEYS = ("driver_id", "finish_position", "start_position", "laps_completed")

type Car = dict[str, Any]
type Report = Callable[[Entity, Consequence, str, Car | None, object], None]


class _FieldError(Exception):
    """Error of a race that cannot be used; names the rule and the value."""

    def __init__(self, rule: str, value: object = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.value = value


def clean_fields(rows: pl.DataFrame, where: str, log: QuarantineLog, counts: Counter[str]) -> pl.DataFrame:
    """Return the cars that started, each race with finishes 1..n and one row a driver, car and grid position.

    Parameters
    ----------
    rows : polars.DataFrame
        Rows of races that have run, with `label` and the column `non_starter`.
    where : str
        Address of the table.
    log : QuarantineLog
        Gets the entries and races that are left out and the values that are corrected.
    counts : Counter
    """
    rows = rows.with_columns(non_starter=is_non_starter(pl.col("status")))
    _log_gaps(rows.filter(pl.col("finish_position") > 0), where, log)
    judged = rows.group_by("race_order").agg(bad=_is_defective(), free=_free_starts())
    defective = set(judged.filter("bad")["race_order"])
    free_starts = dict(
        judged.filter(~pl.col("bad"), pl.col("free") != "").select("race_order", "free").rows()
    )
    usual = Counter[tuple[Any, ...]]()
    for names in (["driver_id", "team"], ["driver_id", "car_number"], ["driver_id"]):
        usual.update({tuple(key): n for *key, n in rows.group_by(names).len().iter_rows()})
    cleaned: list[pl.DataFrame] = []
    for (order,), race in rows.group_by("race_order", maintain_order=True):
        first = race.row(0, named=True)
        if order in free_starts:
            log.add(
                "race", "kept", "its grid has positions without a car: withdrawn, or a lost row", place=where,
                race_id=first["race_id"], race=first["label"], value=free_starts[order],
            )  # fmt: skip
        if order not in defective:
            cleaned.append(race)
            continue

        def report(
            entity: Entity,
            consequence: Consequence,
            rule: str,
            car: Car | None,
            value: object,
            first: Mapping[str, Any] = first,
        ) -> None:
            counts["non_starters"] += rule == DID_NOT_START
            subject = None if car is None else car["driver"] or f"car {car['car_number']}"
            log.add(
                entity, consequence, rule, place=where, race_id=first["race_id"], race=first["label"],
                subject=subject, value=value,
            )  # fmt: skip

        try:
            cars = _repair(race.sort(ROW).to_dicts(), usual, report)
        except _FieldError as error:
            report("race", "left out", error.rule, None, error.value)
            continue
        cleaned.append(pl.DataFrame(cars, schema=race.schema, orient="row"))
    kept = pl.concat(cleaned) if cleaned else rows.clear()
    counts["cars"] += kept.height
    return kept


def _log_gaps(cars: pl.DataFrame, where: str, log: QuarantineLog) -> None:
    """Log the missing values of columns that most cars of the season have."""
    logged = {(row["race_id"], row["subject"]) for row in log.rows}
    for column in ("car_number", "team", "make", "laps_led"):
        without = cars.filter(pl.col(column).is_null())
        if without.height > (1 - MOSTLY_GIVEN) * cars.height:
            continue
        for car in without.iter_rows(named=True):
            if (car["race_id"], f"{car['driver']}, {column}") in logged:
                continue
            log.add(
                "value", "nulled", f"{column} is not given", place=where, race_id=car["race_id"],
                race=car["label"], subject=car["driver"],
            )  # fmt: skip


def _is_defective() -> pl.Expr:
    """Return the aggregation whether a race has any defect that `_repair` knows."""
    finish, laps = pl.col("finish_position"), pl.col("laps_completed")
    empty = pl.any_horizontal(*(pl.col(name).is_null().any() for name in KEYS))
    repeated = pl.any_horizontal(
        *(pl.col(name).drop_nulls().is_duplicated().any() for name in (*KEYS[:3], "car_number"))
    )
    in_order = laps.sort_by(finish)
    behind = [in_order.shift(-k) for k in range(1, BEHIND + 1)]
    winner, others = laps.filter(finish == 1).first(), laps.filter(finish > 1).max()
    impossible = (
        (finish.min() != 1)
        | (finish.max() != pl.len())
        | (laps.max() == 0)
        | (winner < laps.max())
        | (winner > LONE_LEAD * others)
        | pl.all_horizontal(in_order < each for each in behind).any()
        | (laps > pl.col("race_laps")).any()
        | (pl.col("laps_led") > laps).any()
        | (pl.col("start_position").max() > pl.len() + MOST_GAPS)
    )
    return empty | repeated | impossible.fill_null(value=True) | pl.col("non_starter").any()


def _free_starts() -> pl.Expr:
    """Return the aggregation of the grid positions up to the last one that no car of the race has."""
    start = pl.col("start_position")
    last = start.max().fill_null(0).clip(upper_bound=pl.len() + MOST_GAPS)
    positions = pl.int_range(1, last + 1)
    return positions.filter(~positions.is_in(start.drop_nulls().implode())).cast(pl.String).str.join(", ")


def _repair(cars: list[Car], usual: Counter[tuple[Any, ...]], report: Report) -> list[Car]:
    """Return the cars of one race, repaired; in the order of the file.

    Raises
    ------
    _FieldError
        If the race cannot be used.
    """
    cars = _merge_doubled_drivers(_drop_non_starters(cars, report), usual, report)
    n_started = len(cars)
    if not any(car["finish_position"] for car in cars):
        raise _FieldError("it has no finish positions")
    if all(car["start_position"] is None for car in cars):
        raise _FieldError("its grid is not known")
    cars = _settle_finishes(cars, report)
    n_started = max([n_started, *(car["finish_position"] for car in cars)])
    cars = _settle_laps(sorted(cars, key=lambda car: car["finish_position"]), report)
    cars = _settle_starts(cars, report)
    _settle_car_numbers(cars, report)
    for car in cars:
        if car["laps_led"] is not None and car["laps_led"] > car["laps_completed"]:
            report("value", "nulled", "it led more laps than it completed", car, car["laps_led"])
            car["laps_led"] = None
    finishes = [car["finish_position"] for car in cars]
    if len(cars) < 2:
        raise _FieldError("it has one car", len(cars))
    if n_started - len(cars) > max(LOST_SHARE * n_started, 1):
        raise _FieldError("too many of its cars cannot be used", f"{len(cars)} of {n_started}")
    if finishes[0] != 1:
        raise _FieldError("its winner is not known")
    if missing := [k for k in range(1, finishes[-1]) if k not in finishes]:
        rule = "positions without a car are closed up"
        report("race", "corrected", rule, None, ", ".join(map(str, missing)))
        for number, car in enumerate(cars, 1):
            car["finish_position"] = number
    return cars


def _drop_non_starters(cars: list[Car], report: Report) -> list[Car]:
    kept = []
    for car in cars:
        no_laps, no_start = not car["laps_completed"], car["start_position"] is None
        no_finish = not car["finish_position"]
        if (no_laps and (car["non_starter"] or no_finish or no_start)) or (no_finish and car["non_starter"]):
            report("entry", "left out", DID_NOT_START, car, car["status"])
        elif car["driver_id"] is None:
            report("entry", "left out", "driver is not given", car, None)
        else:
            kept.append(car | {"finish_position": car["finish_position"] or None})
    return kept


def _merge_doubled_drivers(cars: list[Car], usual: Counter[tuple[Any, ...]], report: Report) -> list[Car]:
    """Keep one row a driver, and one row of an entry that stands under two drivers."""
    kept = list(cars)

    def drop(car: Car, rule: str, value: object) -> None:
        report("entry", "left out", rule, car, value)
        kept[:] = [other for other in kept if other is not car]

    by_driver = sorted(cars, key=lambda car: car["driver_id"])
    for driver, group in groupby(by_driver, key=lambda car: car["driver_id"]):
        rows = sorted(
            group,
            key=lambda car: (
                car["finish_position"] is None,
                -usual[(driver, car["car_number"])] if car["car_number"] else 0,
                -usual[(driver, car["team"])] if car["team"] else 0,
                sum(value is None for value in car.values()),
                car[ROW],
            ),
        )
        for other in rows[1:]:
            same = other["finish_position"] in (None, rows[0]["finish_position"])
            rule = "its driver has another row with this result" if same else "its driver has another result"
            value = other["team"] if same else f"finish {other['finish_position']}"
            drop(other, rule, value)
    finish: dict[Any, list[Car]] = {}
    for car in kept:
        if car["finish_position"] is not None:
            finish.setdefault(car["finish_position"], []).append(car)
    for rows in finish.values():
        if len(rows) != 2 or rows[0]["start_position"] is None:
            continue
        if all(rows[0][name] == rows[1][name] for name in ("start_position", "laps_completed", "status")):
            rows.sort(key=lambda car: -usual[(car["driver_id"],)])
            drop(rows[1], "another driver has its result", f"finish {rows[1]['finish_position']}")
    return kept


def _settle_finishes(cars: list[Car], report: Report) -> list[Car]:
    """Find the finish of cars without one and of cars that share one, by the order of the file or laps."""
    times = Counter(car["finish_position"] for car in cars)
    following = [car["finish_position"] or 0 for car in cars[1:]] + [len(cars) + 1]
    unsure = [
        car
        for car, after in zip(cars, following, strict=True)
        if car["finish_position"] is None
        or times[car["finish_position"]] > 1
        or car["finish_position"] > max(len(cars), after)
    ]
    if not unsure:
        return cars
    sure = {car["finish_position"] for car in cars} - {car["finish_position"] for car in unsure}
    n = max([len(cars), *sure])
    free = [position for position in range(1, n + 1) if position not in sure]
    found = (
        _by_file_order(cars, unsure, free) or _by_elimination(unsure, free) or _by_laps(cars, unsure, free)
    )
    kept = []
    for car in cars:
        given = car["finish_position"]
        if car not in unsure:
            kept.append(car)
        elif found:
            position = found[car[ROW]]
            if position != given:
                rule = (
                    "finish_position is not given" if given is None else "its finish_position is not its own"
                )
                report("value", "corrected", f"{rule}, the other cars decide it: {position}", car, given)
            kept.append(car | {"finish_position": position})
        elif given is not None and times[given] > 1:
            raise _FieldError("two cars have one finish_position", given)
        elif given is not None:
            kept.append(car)
        else:
            report("entry", "left out", "finish_position is not given", car, None)
    return kept


def _by_file_order(cars: Sequence[Car], unsure: Sequence[Car], free: Sequence[int]) -> dict[int, int]:
    """Return the free positions by row, where the rows are ordered by finish; else nothing."""
    fixed = [car["finish_position"] for car in cars if car not in unsure]
    if len(fixed) < 2 or any(a >= b for a, b in pairwise(fixed)):
        return {}
    found: dict[int, int] = {}
    last = 0
    for is_unsure, group in groupby(cars, key=lambda car: car in unsure):
        rows = list(group)
        if not is_unsure:
            last = rows[-1]["finish_position"]
            continue
        behind = next((f for f in fixed if f > last), max(len(cars), *fixed) + 1)
        between = [position for position in free if last < position < behind]
        if len(between) != len(rows):
            return {}
        found |= {car[ROW]: position for car, position in zip(rows, between, strict=True)}
    return found


def _by_elimination(unsure: Sequence[Car], free: Sequence[int]) -> dict[int, int]:
    return {unsure[0][ROW]: free[0]} if len(unsure) == len(free) == 1 else {}


def _by_laps(cars: Sequence[Car], unsure: Sequence[Car], free: Sequence[int]) -> dict[int, int]:
    """Return positions of two cars by row, where laps of the cars around allow one order alone."""
    if len(unsure) != 2 or len(free) != 2:
        return {}
    laps = {car["finish_position"]: car["laps_completed"] for car in cars if car not in unsure}

    def fits(car: Car, position: int) -> bool:
        ahead = [n for place, n in laps.items() if place < position and n is not None]
        behind = [n for place, n in laps.items() if place > position and n is not None]
        own = car["laps_completed"]
        return own is not None and max(behind, default=0) <= own <= min(ahead, default=own)

    orders = [free, free[::-1]]
    fitting = [o for o in orders if all(fits(car, place) for car, place in zip(unsure, o, strict=True))]
    if len(fitting) == len(orders):
        fitting = [o for o in fitting if _descends(unsure, o)]
    if len(fitting) != 1:
        return {}
    return {car[ROW]: place for car, place in zip(unsure, fitting[0], strict=True)}


def _descends(cars: Sequence[Car], places: Sequence[int]) -> bool:
    """Return whether the first of two cars by position has more laps than the second."""
    (_, first), (_, second) = sorted(
        (place, car["laps_completed"]) for place, car in zip(places, cars, strict=True)
    )
    return bool(first > second)


def _settle_laps(cars: list[Car], report: Report) -> list[Car]:
    """Find laps that are not given or that exceed the winner's, from the cars around; else drop the car.

    The winner completed the most laps. Where two other cars have more, the winner's laps are wrong.
    """
    winner = cars[0]
    if winner["finish_position"] != 1:
        raise _FieldError("its winner is not known")
    given = Counter(car["laps_completed"] for car in cars[1:] if car["laps_completed"] is not None)
    if not given or max(given) == 0:
        raise _FieldError("no other car has completed a lap")
    most, laps = max(given), winner["laps_completed"]
    if given[most] > 1 and (laps is None or laps < most or laps > LONE_LEAD * most):
        rule = f"laps of the winner are not given, or far from those of the next cars, {most}"
        report("value", "corrected", rule, winner, laps)
        winner["laps_completed"] = most
    elif laps is None:
        raise _FieldError("laps of the winner are not given")
    top = winner["laps_completed"]
    race_laps = winner["race_laps"]
    if race_laps is not None and race_laps < top:
        report("value", "corrected", f"race_laps must be at least the winner's, {top}", None, race_laps)
        for car in cars:
            car["race_laps"] = None
    kept = []
    for i, car in enumerate(cars):
        laps = car["laps_completed"]
        behind = [each["laps_completed"] or 0 for each in cars[i + 1 : i + 1 + BEHIND]]
        is_passed = laps is not None and len(behind) == BEHIND and laps < min(behind)
        if laps is not None and laps <= top and not is_passed:
            kept.append(car)
            continue
        rule = f"it has more laps than the winner, {top}"
        if laps is None:
            rule = "laps_completed is not given"
        elif is_passed:
            rule = f"it has fewer laps than the {BEHIND} cars behind it"
        around = {cars[k]["laps_completed"] for k in (i - 1, i + 1) if 0 <= k < len(cars)}
        if len(around) == 1 and 0 < i < len(cars) - 1 and None not in around and max(around) <= top:
            (same,) = around
            report("value", "corrected", f"{rule}, the cars around have {same}", car, laps)
            kept.append(car | {"laps_completed": same})
        else:
            report("entry", "left out", rule, car, laps)
    return kept  # fmt: skip


def _settle_starts(cars: list[Car], report: Report) -> list[Car]:
    """Find the start of a car if one position is free; else leave out the cars of which it is not known."""
    for car in cars:
        if (start := car["start_position"]) is not None and start > len(cars) + MOST_GAPS:
            report("value", "nulled", "start_position is far beyond the field", car, start)
            car["start_position"] = None
    times = Counter(car["start_position"] for car in cars)
    known = [position for position in times if position is not None]
    free = [k for k in range(1, max([len(cars), *known]) + 1) if k not in times]
    without = [car for car in cars if car["start_position"] is None]
    kept = []
    for car in cars:
        start = car["start_position"]
        if start is None and len(without) == len(free) == 1 and max(times.values()) == 1:
            report("value", "corrected", f"start_position is not given, one is free: {free[0]}", car, None)
            kept.append(car | {"start_position": free[0]})
        elif start is None:
            report("entry", "left out", "start_position is not given", car, None)
        elif times[start] > 1:
            report("entry", "left out", "two cars have its start_position", car, start)
        else:
            kept.append(car)
    return kept


def _settle_car_numbers(cars: Sequence[Car], report: Report) -> None:
    times = Counter(car["car_number"] for car in cars if car["car_number"] is not None)
    for car in cars:
        if times[car["car_number"]] > 1:
            report("value", "nulled", "two cars have its car_number", car, car["car_number"])
            car["car_number"] = None
