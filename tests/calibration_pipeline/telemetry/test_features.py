"""Driver features: nothing from the race or later, and the values that the definitions give."""

import math
import time
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.schemas.frames import DriverFeatures, EntryList, LapAggregates, RaceResults
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.telemetry import (
    build_driver_features,
    check_availability,
    entry_list,
    features,
)
from calibration_pipeline.tracks import compile_constraints
from helpers.paths import REAL_DATA

TRACKS = {
    "daytona": "superspeedway",
    "charlotte": "intermediate",
    "kansas": "intermediate",
    "bristol": "short_track",
    "sonoma": "road_course",
}
RESULTS_2013_2023 = REAL_DATA / "cup_results_2013_2023.parquet"


def make_results(n_seasons: int, n_races: int, field_sizes: list[int], seed: int) -> pl.DataFrame:
    """Races with fields of several sizes from one pool of drivers; some cars retire, some lack a team."""
    rng = np.random.default_rng(seed)
    n_drivers = max(field_sizes) + 4
    skill = rng.normal(0, 1, n_drivers)
    frames = []
    for index in range(n_seasons * n_races):
        season, number = 2015 + index // n_races, index % n_races + 1
        n = field_sizes[index % len(field_sizes)]
        driver = rng.permutation(n_drivers)[:n]
        track = list(TRACKS)[index % len(TRACKS)]
        finish = (rng.normal(0, 1, n) - skill[driver]).argsort().argsort() + 1
        running = rng.random(n) > 0.15
        led = np.where(finish <= 3, 60 // finish, 0)
        rating = np.round(140 - 5 * finish + rng.normal(0, 10, n), -1).clip(0, 150)
        known = rng.random(n) > (0.1 if index % 3 == 1 else 1.0)  # of whole races nothing is known
        frames.append(
            pl.DataFrame(
                {
                    "race_id": np.full(n, 100 * season + number + 7),
                    "season": np.full(n, season),
                    "round": np.full(n, number),
                    "race_order": np.full(n, 100 * season + number),
                    "track_id": track,
                    "archetype": TRACKS[track],
                    "driver_id": [f"d{k:02d}" for k in driver],
                    "driver": [f"Driver {k}" for k in driver],
                    "car_number": [str(k) for k in driver],
                    "team": [None if k % 11 == 0 else f"team {k // 4}" for k in driver],
                    "make": "make",
                    "start_position": rng.permutation(n) + 1,
                    "finish_position": finish,
                    "laps_completed": np.where(running, 150, 90),
                    "laps_led": led,
                    "running": running,
                    "status": np.where(running, "running", "accident"),
                    "race_laps": np.full(n, 150),
                    "scheduled_laps": np.full(n, 150),
                    "green_laps": np.full(n, 120),
                    "n_cautions": np.full(n, rng.poisson(6)),
                    "fastest_laps": np.zeros(n, int),
                    "rating": pl.Series(
                        [float(r) if k else None for r, k in zip(rating, known, strict=True)]
                    ),
                },
                schema_overrides={"rating": pl.Float64},
            )
        )
    return pl.concat(frames).with_columns(race_date=pl.lit(None, pl.Date))


def make_aggregates(results: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Laps that go with the results; every seventh car was not timed."""
    rng = np.random.default_rng(seed)
    n = results.height
    return LapAggregates.empty().vstack(
        results.select(
            "race_id",
            "driver_id",
            laps_timed=pl.lit(100, pl.Int64),
            average_position=(pl.col("finish_position") + pl.Series(rng.uniform(-3, 3, n))).clip(1),
            top15_share=pl.lit(0.5),
            fastest_lap_share=pl.lit(0.0),
            green_pace=pl.when(pl.int_range(pl.len()) % 7 > 0).then(pl.Series(rng.normal(0, 0.01, n))),
            average_position_50l=pl.lit(10.0),
            green_pace_50l=pl.lit(0.0),
            falloff_50l=pl.lit(0.0),
        )
    )


RESULTS = make_results(n_seasons=2, n_races=12, field_sizes=[18, 22, 20], seed=1)
AGGREGATES = make_aggregates(RESULTS, seed=2)
FEATURES = build_driver_features(entry_list(RESULTS), RESULTS, AGGREGATES)

SAME = {"rel_tol": 1e-13, "abs_tol": 1e-14}  # the last bit depends on how many rows are computed together


def build(results: pl.DataFrame = RESULTS, aggregates: pl.DataFrame = AGGREGATES) -> pl.DataFrame:
    return build_driver_features(entry_list(results), results, aggregates)


def normal_score(place: float, n: int) -> float:
    share = (n - place + 0.5) / n
    return NormalDist().inv_cdf(min(max(share, 0.5 / n), 1 - 0.5 / n))


class SlowFeatures:
    """The definitions of the features in plain Python, race by race."""

    def __init__(self, results: pl.DataFrame, aggregates: pl.DataFrame) -> None:
        laps = {(row["race_id"], row["driver_id"]): row for row in aggregates.to_dicts()}
        self.orders = sorted(set(results["race_order"]))
        self.races = {
            order: results.filter(pl.col("race_order") == order).to_dicts() for order in self.orders
        }
        for rows in self.races.values():
            for row in rows:
                n = len(rows)
                row["score"] = normal_score(row["finish_position"], n)
                lap = laps.get((row["race_id"], row["driver_id"]))
                row["start"] = normal_score(row["start_position"], n)
                row["ran"] = row["score"]
                if lap:
                    row["ran"] = normal_score(lap["average_position"], n)
                if row["rating"] is not None:
                    rated = [other["rating"] for other in rows if other["rating"] is not None]
                    better = sum(rating > row["rating"] for rating in rated)
                    row["ran"] = normal_score(better + (rated.count(row["rating"]) + 1) / 2, len(rated))
                pace = lap["green_pace"] if lap else None
                row["pace"] = None if pace is None else min(max(-100 * pace, -2.0), 2.0)
                row["led"] = row["laps_led"] / max(other["laps_completed"] for other in rows)
                row["retired"] = float(not row["running"])
                row["field_retired"] = sum(not other["running"] for other in rows) / n
                row["form_before"] = self.mean(
                    row["race_order"], "ran", 40, {"driver_id": row["driver_id"]}, prior=-0.5, pseudo=3
                )
                row["surprise"] = row["ran"] - row["form_before"]
            start, finish = ([row[f"{name}_position"] for row in rows] for name in ("start", "finish"))
            passing = 1 - float(np.corrcoef(start, finish)[0, 1])  # both are permutations of 1..n
            for row in rows:
                row["passing"] = passing

    def mean(
        self,
        before: int,
        value: str,
        half_life: float,
        where: dict[str, str | None],
        prior: float | None = 0.0,
        pseudo: float = 0.0,
    ) -> float | None:
        """Mean over the cars of each earlier race, then exponentially weighted over the races."""
        past = [order for order in self.orders if order < before]
        total = weight = 0.0
        for elapsed, order in enumerate(reversed(past), start=1):
            seen = [
                row[value]
                for row in self.races[order]
                if all(row[key] == wanted for key, wanted in where.items()) and row[value] is not None
            ]
            if seen:
                w = 0.5 ** (elapsed / half_life)
                total += w * sum(seen) / len(seen)
                weight += w
        if weight == 0:
            return prior
        return (total + pseudo * (prior or 0.0)) / (weight + pseudo)

    def of(self, row: dict) -> dict[str, float | None]:
        """Features of one entry."""
        before = row["race_order"]
        driver = {"driver_id": row["driver_id"]}
        kind = {"archetype": row["archetype"]}
        track = {"track_id": row["track_id"]}
        team = {"team": row["team"]} if row["team"] else {}
        number = {"car_number": row["car_number"]}
        team_form = self.mean(before, "score", 60, team, 0, 3) if team else 0.0
        past = [order for order in self.orders if order < before]
        starts = sum(other["driver_id"] == row["driver_id"] for order in past for other in self.races[order])
        field_rate = self.mean(before, "field_retired", 150, driver, 0.15, 1)
        own_rate = self.mean(before, "retired", 150, driver, field_rate, 25)
        assert field_rate is not None
        assert own_rate is not None
        out = {
            "feature_as_of": past[-1] if past else 0,
            "finish_form": self.mean(before, "score", 40, driver, -0.5, 3),
            "running_form": self.mean(before, "ran", 40, driver, -0.5, 3),
            "recent_form": self.mean(before, "ran", 12, driver, -0.5, 3),
            "start_form": self.mean(before, "start", 30, driver, -0.5, 3),
            "pace_form": None
            if self.mean(before, "pace", 40, driver, None) is None
            else self.mean(before, "pace", 40, driver, 0, 3),
            "archetype_form": self.mean(before, "surprise", 150, driver | kind, 0, 5),
            "track_form": self.mean(before, "surprise", 150, driver | track, 0, 4),
            "team_form": team_form,
            "team_archetype_form": self.mean(before, "surprise", 100, team | kind, 0, 8) if team else 0.0,
            "car_form": self.mean(before, "ran", 40, team | number, team_form, 5) if team else team_form,
            "led_form": self.mean(before, "led", 40, driver, 0, 3),
            "experience": math.log(1 + starts),
            "incident_form": math.log(own_rate / (1 - own_rate)) - math.log(field_rate / (1 - field_rate)),
        }
        for name, value, prior in (
            ("track_incident_rate", "retired", 0.15),
            ("track_caution_rate", "n_cautions", None),
            ("track_passing", "passing", 0.5),
        ):
            overall = self.mean(before, value, 150, {}, prior)
            of_kind = self.mean(before, value, 150, kind, overall, 3)
            out[name] = self.mean(before, value, 150, track, of_kind, 3)
        return out


def test_features_equal_the_definitions() -> None:
    without_some_laps = AGGREGATES.filter(pl.col("race_id") % 3 > 0)
    built = build(aggregates=without_some_laps)
    slow = SlowFeatures(RESULTS, without_some_laps)
    expected = pl.DataFrame([slow.of(row) for row in built.to_dicts()], infer_schema_length=None)
    assert set(expected.columns) == set(features.HISTORY_COLUMNS)
    assert built["pace_form"].null_count() > 0
    assert_frame_equal(built.select(expected.columns), expected, rel_tol=1e-9, abs_tol=1e-10)


def test_features_keep_the_contract() -> None:
    RaceResults.validate(RESULTS, lazy=True)
    LapAggregates.validate(AGGREGATES, lazy=True)
    EntryList.validate(entry_list(RESULTS), lazy=True)
    DriverFeatures.validate(FEATURES, lazy=True)
    assert FEATURES.height == RESULTS.height
    assert not any(column.is_nan().any() for column in FEATURES if column.dtype.is_float())
    carried = entry_list(RESULTS).sort("race_order", "start_position")
    assert_frame_equal(FEATURES.select(carried.columns), carried)


@given(seed=st.integers(0, 2**32 - 1), race=st.integers(0, 23))
@settings(max_examples=20)
def test_nothing_of_the_race_or_later_is_known(seed: int, race: int) -> None:
    """Rewriting every result and lap of a race and of all later ones leaves its features as they are."""
    rng = np.random.default_rng(seed)
    order = sorted(RESULTS["race_order"].unique())[race]
    race_ids = RESULTS.filter(pl.col("race_order") >= order)["race_id"].unique().to_list()
    redrawn = RESULTS.with_columns(
        finish_position=pl.int_range(1, pl.len() + 1).shuffle(seed % 1000).over("race_id"),
        running=pl.Series(rng.random(RESULTS.height) > 0.5),
        laps_completed=pl.Series(rng.integers(0, 400, RESULTS.height)),
        laps_led=pl.Series(rng.integers(0, 400, RESULTS.height)),
        n_cautions=pl.lit(int(rng.integers(0, 30)), pl.Int64),
        team=pl.lit(None, pl.String),
        track_id=pl.lit("elsewhere"),
        start_position=pl.int_range(1, pl.len() + 1).shuffle(seed % 999).over("race_id"),
    )
    later = pl.col("race_order") >= order
    results = pl.concat([RESULTS.filter(~later), redrawn.filter(later).sample(fraction=0.8, seed=seed % 99)])
    of_race = pl.col("race_id").is_in(race_ids)
    aggregates = pl.concat(
        [
            AGGREGATES.filter(~of_race),
            AGGREGATES.filter(of_race)
            .with_columns(
                average_position=pl.lit(float(rng.uniform(1, 40))),
                green_pace=pl.lit(float(rng.normal())),
            )
            .sample(fraction=0.5, seed=seed % 99),
        ]
    )
    entries = entry_list(RESULTS).filter(pl.col("race_order") <= order)
    changed = build_driver_features(entries, results, aggregates)
    assert_frame_equal(changed, FEATURES.filter(pl.col("race_order") <= order), **SAME)
    assert (changed["feature_as_of"] < changed["race_order"]).all()


@given(n_known=st.integers(0, 23))
@settings(max_examples=10)
def test_adding_later_races_changes_nothing(n_known: int) -> None:
    order = sorted(RESULTS["race_order"].unique())[n_known]
    known = RESULTS.filter(pl.col("race_order") < order)
    entries = entry_list(RESULTS).filter(pl.col("race_order") == order)
    built = build_driver_features(entries, known, AGGREGATES)
    assert_frame_equal(built, FEATURES.filter(pl.col("race_order") == order), **SAME)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_row_order_does_not_matter(seed: int) -> None:
    shuffled = RESULTS.sample(fraction=1.0, shuffle=True, seed=seed)
    entries = entry_list(RESULTS).sample(fraction=1.0, shuffle=True, seed=seed + 1)
    aggregates = AGGREGATES.sample(fraction=1.0, shuffle=True, seed=seed + 2)
    assert_frame_equal(build_driver_features(entries, shuffled, aggregates), FEATURES, **SAME)


def test_the_past_does_change_features() -> None:
    """The tests above would pass if results were not read at all."""
    order = RESULTS["race_order"].max()
    previous = RESULTS.filter(pl.col("race_order") < order)["race_order"].max()
    n = pl.len().over("race_id").cast(pl.Int64)
    reversed_finish = pl.when(pl.col("race_order") == previous).then(n + 1 - pl.col("finish_position"))
    results = RESULTS.with_columns(finish_position=reversed_finish.fill_null(pl.col("finish_position")))
    last = pl.col("race_order") == order
    before, after = FEATURES.filter(last), build(results).filter(last)
    assert (before["finish_form"] - after["finish_form"]).abs().max() > 0.05
    assert before["feature_as_of"].unique().to_list() == [previous]


def test_a_newcomer_gets_the_priors() -> None:
    order = RESULTS["race_order"].max() + 1
    entries = (
        entry_list(RESULTS)
        .filter(pl.col("race_order") == order - 1)
        .with_columns(race_order=pl.lit(order, pl.Int64), race_id=pl.lit(1, pl.Int64))
        .with_columns(
            driver_id=pl.when(pl.col("start_position") == 1).then(pl.lit("newcomer")).otherwise("driver_id"),
            team=pl.when(pl.col("start_position") == 1).then(pl.lit("new team")).otherwise("team"),
        )
    )
    built = build_driver_features(entries, RESULTS, AGGREGATES)
    DriverFeatures.validate(built, lazy=True)
    newcomer = built.row(0, named=True)
    assert newcomer["driver_id"] == "newcomer"
    assert newcomer["finish_form"] == features.ROOKIE_FORM
    for name in ("running_form", "recent_form", "start_form"):
        assert newcomer[name] == features.ROOKIE_FORM
    for name in ("archetype_form", "track_form", "team_form", "car_form", "led_form", "experience"):
        assert newcomer[name] == 0
    assert newcomer["incident_form"] == 0
    assert newcomer["pace_form"] is None
    assert newcomer["track_caution_rate"] == built["track_caution_rate"][1]


def test_the_first_race_has_only_priors() -> None:
    entries = entry_list(RESULTS).filter(pl.col("race_order") == 201501)
    for results in (RESULTS, RESULTS.clear()):
        built = build_driver_features(entries, results, AGGREGATES)
        DriverFeatures.validate(built, lazy=True)
        assert built["feature_as_of"].unique().to_list() == [0]
        assert built["track_incident_rate"].unique().to_list() == [features.RETIREMENT_RATE]
        assert built["track_passing"].unique().to_list() == [features.PASSING]
        assert built["track_caution_rate"].null_count() == built.height


def test_no_entries_give_an_empty_table() -> None:
    built = build_driver_features(entry_list(RESULTS).clear(), RESULTS, AGGREGATES)
    DriverFeatures.validate(built, lazy=True)
    assert built.height == 0


def test_a_crawling_car_does_not_drown_its_form() -> None:
    """Two laps with a stop may be ten times the field's lap time; the race counts as 2 % slow."""
    last = RESULTS["race_order"].max()
    crawled = AGGREGATES.filter(pl.col("green_pace").is_not_null()).row(0, named=True)
    is_crawl = (pl.col("race_id") == crawled["race_id"]) & (pl.col("driver_id") == crawled["driver_id"])

    def pace_form(green_pace: float) -> float:
        pace = pl.when(is_crawl).then(green_pace).otherwise("green_pace").alias("green_pace")
        entries = (
            entry_list(RESULTS)
            .head(1)
            .with_columns(
                driver_id=pl.lit(crawled["driver_id"]),
                race_order=pl.lit(last + 1, pl.Int64),
                start_position=1,
            )
        )
        return build_driver_features(entries, RESULTS, AGGREGATES.with_columns(pace))["pace_form"].item()

    assert pace_form(10.0) == pace_form(0.02) < pace_form(0.01)


def test_fields_may_grow() -> None:
    results = make_results(n_seasons=1, n_races=6, field_sizes=[36, 43], seed=4)
    built = build(results, make_aggregates(results, seed=5))
    DriverFeatures.validate(built, lazy=True)
    assert built.group_by("race_order", maintain_order=True).len()["len"].to_list() == [36, 43] * 3


def test_a_season_without_laps_keeps_earlier_features() -> None:
    first_season = RESULTS.filter(pl.col("season") == 2015)["race_id"].unique().to_list()
    built = build(aggregates=AGGREGATES.filter(pl.col("race_id").is_in(first_season)))
    DriverFeatures.validate(built, lazy=True)
    opening = pl.col("race_order") == 201601
    assert_frame_equal(built.filter(opening), FEATURES.filter(opening), **SAME)
    known = [driver for (driver,) in built.filter(opening).select("driver_id").rows()]
    last = built.filter(pl.col("race_order") == 201612, pl.col("driver_id").is_in(known))
    assert last["pace_form"].null_count() == 0
    none_at_all = build(aggregates=LapAggregates.empty())
    DriverFeatures.validate(none_at_all, lazy=True)
    assert none_at_all["pace_form"].null_count() == none_at_all.height
    assert none_at_all["pace_form"].null_count() == none_at_all.height


def test_cautions_are_null_when_never_counted() -> None:
    built = build(RESULTS.with_columns(n_cautions=pl.lit(None, pl.Int64)))
    assert built["track_caution_rate"].null_count() == built.height
    assert FEATURES.filter(pl.col("race_order") > 201501)["track_caution_rate"].null_count() == 0


def test_a_rebuilt_track_starts_without_history() -> None:
    """A track that changes its archetype is shrunk to the new archetype, without its old races."""
    rebuilt = pl.when((pl.col("track_id") == "kansas") & (pl.col("season") == 2016)).then(
        pl.lit("superspeedway")
    )
    built = build(RESULTS.with_columns(archetype=rebuilt.fill_null(pl.col("archetype"))))
    kansas = built.filter(pl.col("track_id") == "kansas", pl.col("season") == 2016).sort("race_order")
    assert kansas["track_form"][0] == 0
    assert (kansas.filter(pl.col("race_order") == kansas["race_order"][0])["track_form"] == 0).all()


def test_an_unset_grid_follows_finish_form() -> None:
    order = RESULTS["race_order"].max()
    unset = pl.when(pl.col("race_order") != order).then("start_position").alias("start_position")
    built = build_driver_features(entry_list(RESULTS).with_columns(unset), RESULTS, AGGREGATES)
    DriverFeatures.validate(built, lazy=True)
    last = built.filter(pl.col("race_order") == order)
    assert last["start_position"].to_list() == list(range(1, last.height + 1))
    assert last["finish_form"].is_sorted(descending=True)
    assert_frame_equal(
        built.filter(pl.col("race_order") < order), FEATURES.filter(pl.col("race_order") < order)
    )


def test_a_partly_set_grid_is_refused() -> None:
    unset = pl.when(pl.int_range(pl.len()) != 3).then("start_position").alias("start_position")
    with pytest.raises(
        ValueError, match=r"for all cars of a race or for none; in race_id \d+ it is null for 1 of"
    ):
        build_driver_features(entry_list(RESULTS).with_columns(unset), RESULTS, AGGREGATES)


def test_a_driver_entered_twice_is_refused() -> None:
    entries = entry_list(RESULTS)
    with pytest.raises(ValueError, match=r"driver_id 'd\d+' is entered twice in race_id"):
        build_driver_features(pl.concat([entries, entries.head(1)]), RESULTS, AGGREGATES)


def test_results_are_no_entries() -> None:
    with pytest.raises(ValueError, match=r"known before the race.*finish_position, laps_completed, laps_led"):
        build_driver_features(RESULTS, RESULTS, AGGREGATES)
    with pytest.raises(ValueError, match=r"entries must have the columns track_id"):
        build_driver_features(entry_list(RESULTS).drop("track_id"), RESULTS, AGGREGATES)


def test_every_feature_declares_its_availability() -> None:
    columns = list(DriverFeatures.to_schema().columns)
    assert set(features.FEATURE_AVAILABILITY) == set(columns)
    assert set(features.FEATURE_AVAILABILITY.values()) == {"entry", "history"}
    check_availability(columns)
    outcomes = set(RaceResults.to_schema().columns) - set(EntryList.to_schema().columns)
    for name in outcomes | set(LapAggregates.to_schema().columns) - {"race_id", "driver_id"}:
        with pytest.raises(ValueError, match=rf"known before the race; not known to be: {name}\."):
            check_availability([name])


def test_thirteen_seasons_take_seconds() -> None:
    results = make_results(n_seasons=13, n_races=36, field_sizes=[40], seed=6)
    aggregates = make_aggregates(results, seed=7)
    start = time.perf_counter()
    built = build(results, aggregates)
    assert time.perf_counter() - start < 3
    assert built.height == 13 * 36 * 40


@pytest.mark.real
@pytest.mark.skipif(not RESULTS_2013_2023.exists(), reason="the optional real seasons are absent")
def test_form_predicts_real_finishes() -> None:
    source = TablesSource(str(RESULTS_2013_2023), None, compile_constraints())
    results = pl.concat(source.load_season(season).race_results for season in source.seasons)
    assert set(results["archetype"]) == set(ARCHETYPES)
    built = build(results, LapAggregates.empty())
    DriverFeatures.validate(built, lazy=True)
    later = built.join(results.select("race_id", "driver_id", "finish_position"), on=["race_id", "driver_id"])
    later = later.filter(pl.col("season") >= 2014)

    def rank_correlation(*kinds: str) -> float:
        rows = later.filter(pl.col("archetype").is_in(kinds)) if kinds else later
        return rows.select(-pl.corr("finish_form", "finish_position", method="spearman")).item()

    assert rank_correlation() > 0.45
    assert rank_correlation("short_track", "intermediate") > 0.5
    assert 0.1 < rank_correlation("superspeedway") < 0.3
