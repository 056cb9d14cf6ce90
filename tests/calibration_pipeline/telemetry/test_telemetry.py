"""Rolling columns of laps and the facts of a race: against slow references, and past only."""

import statistics
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrors
from polars.testing import assert_frame_equal

from calibration_pipeline.schemas.frames import LapAggregates, LapTelemetry
from calibration_pipeline.telemetry import aggregate_laps, compute_aggregate_features

WINDOWS = ("10l", "20l", "50l")
STATISTICS = ("average_position", "best_position", "laps_led", "green_pace", "falloff")


def make_laps(n_races: int, n_cars: int, n_laps: int, seed: int) -> pl.DataFrame:
    """Races with cautions, untimed laps, gaps, tied times and cars that retire; rows shuffled."""
    rng = np.random.default_rng(seed)
    race, car, lap = (index.ravel() for index in np.indices((n_races, n_cars, n_laps + 1)))
    yellow = rng.random((n_races, n_laps + 1)) < 0.2
    position = rng.random((n_races, n_laps + 1, n_cars)).argsort(axis=2) + 1
    time_s = np.round(30 + 0.1 * car + 0.01 * lap + rng.normal(0, 0.2, race.size), 1)
    retires = rng.integers(n_laps // 2, 2 * n_laps, (n_races, n_cars))
    frame = pl.DataFrame(
        {
            "race_id": race + 5000,
            "season": np.full(race.size, 2020),
            "track_id": "oval",
            "driver_id": [f"d{number}" for number in car],
            "car_number": [str(number) for number in car],
            "lap": lap,
            "position": position[race, lap, car],
            "lap_time_s": time_s,
            "flag": np.where(yellow[race, lap], "yellow", "green"),
        }
    ).with_columns(
        lap_time_s=pl.when((pl.col("lap") > 0) & pl.Series(rng.random(race.size) > 0.1)).then("lap_time_s"),
        flag=pl.when(pl.Series(rng.random(race.size) > 0.02)).then("flag"),
    )
    there = (lap <= retires[race, car]) & (rng.random(race.size) > 0.1)
    return frame.filter(pl.Series(there)).sample(fraction=1.0, shuffle=True, seed=seed)


def slow_features(laps: pl.DataFrame, width: int) -> list[dict[str, float | None]]:
    """The definition, lap by lap."""
    rows = laps.to_dicts()

    def is_timed(row: dict) -> bool:
        return row["lap"] >= 1 and row["flag"] == "green" and row["lap_time_s"] is not None

    field: dict[tuple, list[float]] = {}
    for row in rows:
        if is_timed(row):
            field.setdefault((row["race_id"], row["lap"]), []).append(row["lap_time_s"])
    out = []
    for row in rows:
        window = [
            other
            for other in rows
            if (other["race_id"], other["driver_id"]) == (row["race_id"], row["driver_id"])
            and other["lap"] >= 1
            and row["lap"] - width < other["lap"] <= row["lap"]
        ]
        if row["lap"] == 0:
            out.append(dict.fromkeys(STATISTICS))
            continue
        positions = [other["position"] for other in window]
        timed = [
            (o["lap"], o["lap_time_s"] / statistics.median(field[o["race_id"], o["lap"]]) - 1)
            for o in window
            if is_timed(o)
        ]
        out.append(
            {
                "average_position": statistics.fmean(positions),
                "best_position": min(positions),
                "laps_led": positions.count(1),
                "green_pace": statistics.fmean(pace for _, pace in timed) if timed else None,
                "falloff": statistics.linear_regression(*zip(*timed, strict=True)).slope
                if len(timed) > 1
                else None,
            }
        )
    return out


@pytest.fixture(scope="module")
def laps() -> pl.DataFrame:
    frame = make_laps(n_races=3, n_cars=5, n_laps=70, seed=1)
    LapTelemetry.validate(frame, lazy=True)
    return frame


@pytest.fixture(scope="module")
def lap_file(laps: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("laps") / "2020.parquet"
    laps.write_parquet(path)
    return str(path)


@pytest.mark.parametrize("window", WINDOWS)
def test_rolling_columns_equal_the_definition(laps: pl.DataFrame, window: str) -> None:
    rolled = compute_aggregate_features(laps)
    expected = pl.DataFrame(
        slow_features(laps, int(window[:-1])), schema_overrides={"green_pace": pl.Float64}
    ).rename(lambda name: f"{name}_{window}")
    assert_frame_equal(rolled.select(expected.columns), expected, rel_tol=1e-8, abs_tol=1e-12)


def test_rows_and_columns_are_kept(laps: pl.DataFrame) -> None:
    rolled = compute_aggregate_features(laps)
    assert_frame_equal(rolled.select(laps.columns), laps)
    assert rolled.columns[len(laps.columns) :] == [f"{name}_{w}" for w in WINDOWS for name in STATISTICS]
    grid = rolled.filter(pl.col("lap") == 0).drop(laps.columns)
    assert grid.height > 0
    assert all(column.null_count() == grid.height for column in grid)


def test_lazy_frame_gives_the_same(laps: pl.DataFrame) -> None:
    assert_frame_equal(
        compute_aggregate_features(laps.lazy(), ["3l"]), compute_aggregate_features(laps, ["3l"])
    )


def test_no_windows_and_no_laps(laps: pl.DataFrame) -> None:
    assert_frame_equal(compute_aggregate_features(laps, []), laps)
    empty = compute_aggregate_features(laps.clear())
    assert empty.height == 0
    assert "falloff_50l" in empty.columns


@given(seed=st.integers(0, 10_000), last_lap=st.integers(1, 19))
@settings(max_examples=25)
def test_no_later_lap_is_used(seed: int, last_lap: int) -> None:
    """Cutting the race after a lap, or rewriting what follows, changes nothing up to it."""
    laps = make_laps(n_races=2, n_cars=4, n_laps=20, seed=seed)
    before = compute_aggregate_features(laps, ["5l", "50l"]).filter(pl.col("lap") <= last_lap)
    until = compute_aggregate_features(laps.filter(pl.col("lap") <= last_lap), ["5l", "50l"])
    later = pl.col("lap") > last_lap
    rewritten = laps.with_columns(
        position=pl.when(later).then(1).otherwise("position"),
        lap_time_s=pl.when(later).then(99.0).otherwise("lap_time_s"),
        flag=pl.when(later).then(pl.lit("green")).otherwise("flag"),
    )
    changed = compute_aggregate_features(rewritten, ["5l", "50l"]).filter(pl.col("lap") <= last_lap)
    assert_frame_equal(until, before, rel_tol=1e-9, abs_tol=1e-12)
    assert_frame_equal(changed, before, rel_tol=1e-9, abs_tol=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_row_order_does_not_matter(seed: int) -> None:
    laps = make_laps(n_races=2, n_cars=4, n_laps=20, seed=3)
    shuffled = laps.sample(fraction=1.0, shuffle=True, seed=seed)
    keys = ["race_id", "driver_id", "lap"]
    assert_frame_equal(
        compute_aggregate_features(shuffled).sort(keys), compute_aggregate_features(laps).sort(keys)
    )


def test_a_window_does_not_stretch_over_a_gap() -> None:
    laps = pl.DataFrame(
        {
            "race_id": 1,
            "driver_id": "a",
            "lap": [1, 2, 30],
            "position": [1, 3, 5],
            "lap_time_s": [30.0, 30.0, 30.0],
            "flag": "green",
        }
    )
    rolled = compute_aggregate_features(laps, ["10l"])
    assert rolled["average_position_10l"].to_list() == [1.0, 2.0, 5.0]
    assert rolled["laps_led_10l"].to_list() == [1, 1, 0]
    assert rolled["falloff_10l"].to_list() == [None, 0.0, None]


def test_untimed_laps_have_no_pace() -> None:
    laps = pl.DataFrame(
        {"race_id": 1, "driver_id": "a", "lap": [0, 1], "position": 1, "lap_time_s": None, "flag": "green"}
    )
    rolled = compute_aggregate_features(laps, ["10l"])
    assert rolled["green_pace_10l"].to_list() == [None, None]
    assert rolled["laps_led_10l"].to_list() == [None, 1]


@pytest.mark.parametrize("window", ["10", "l", "0l", "-5l", "1.5l", "10L", "10l\n", " 10l", ""])
def test_bad_windows_are_refused(laps: pl.DataFrame, window: str) -> None:
    with pytest.raises(ValueError, match="time_windows must hold windows like '10l'"):
        compute_aggregate_features(laps, [window])


def test_a_window_given_twice_is_refused(laps: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="name each window once"):
        compute_aggregate_features(laps, ["5l", "5l"])


def test_bad_telemetry_is_refused(laps: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="must have the columns position, flag"):
        compute_aggregate_features(laps.drop("flag", "position"))
    for value in (float("nan"), float("inf"), 0.0):
        bad = pl.when(pl.int_range(pl.len()) < 2).then(value).otherwise("lap_time_s")
        with pytest.raises(ValueError, match=r"lap_time_s must be finite and above 0.* 2 values"):
            compute_aggregate_features(laps.with_columns(lap_time_s=bad))
    with pytest.raises(ValueError, match=r"one row a car and lap; lap .* is there twice"):
        compute_aggregate_features(pl.concat([laps, laps.head(1)]))


def test_the_contract_refuses_nan_lap_times(laps: pl.DataFrame) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(SchemaErrors, match="lap_time_s must be finite, or null"):
            LapTelemetry.validate(laps.with_columns(lap_time_s=pl.lit(value)), lazy=True)
    LapTelemetry.validate(laps.with_columns(lap_time_s=pl.lit(None, pl.Float64)), lazy=True)


def test_last_fifty_laps_equal_the_last_rolling_row(laps: pl.DataFrame, lap_file: str) -> None:
    facts = aggregate_laps([lap_file])
    LapAggregates.validate(facts, lazy=True)
    last = (
        compute_aggregate_features(laps)
        .filter(pl.col("lap") >= 1)
        .sort("lap")
        .group_by("race_id", "driver_id")
        .last()
        .sort("race_id", "driver_id")
    )
    columns = ["race_id", "driver_id", "average_position_50l", "green_pace_50l", "falloff_50l"]
    assert_frame_equal(facts.select(columns), last.select(columns), rel_tol=1e-8, abs_tol=1e-12)


def test_race_facts_equal_the_definition(laps: pl.DataFrame, lap_file: str) -> None:
    run = laps.filter(pl.col("lap") >= 1)
    green = run.filter(pl.col("flag") == "green", pl.col("lap_time_s").is_not_null())
    fastest = green.sort("lap_time_s", "position").unique(["race_id", "lap"], keep="first")
    n_green = fastest.group_by("race_id").agg(n=pl.len())
    assert fastest.height < green.height
    expected = (
        run.group_by("race_id", "driver_id")
        .agg(
            laps_timed=pl.col("lap_time_s").count().cast(pl.Int64),
            average_position=pl.col("position").mean(),
            top15_share=(pl.col("position") <= 15).mean(),
        )
        .join(
            fastest.group_by("race_id", "driver_id").agg(k=pl.len()), on=["race_id", "driver_id"], how="left"
        )
        .join(n_green, on="race_id")
        .with_columns(fastest_lap_share=pl.col("k").fill_null(0) / pl.col("n"))
        .join(
            green.with_columns(
                relative=pl.col("lap_time_s") / pl.col("lap_time_s").median().over("race_id", "lap") - 1
            )
            .group_by("race_id", "driver_id")
            .agg(green_pace=pl.col("relative").median()),
            on=["race_id", "driver_id"],
            how="left",
        )
        .drop("k", "n")
        .sort("race_id", "driver_id")
    )
    facts = aggregate_laps([lap_file])
    assert_frame_equal(facts.select(expected.columns), expected, rel_tol=1e-9)
    shares = facts.group_by("race_id").agg(pl.col("fastest_lap_share").sum())
    assert shares["fastest_lap_share"].to_list() == pytest.approx([1.0, 1.0, 1.0])


def test_top_fifteen_and_ties_go_to_the_car_ahead(tmp_path: Path) -> None:
    laps = pl.DataFrame(
        {
            "race_id": 1,
            "season": 2020,
            "track_id": "oval",
            "driver_id": ["a", "b", "c"] * 2,
            "car_number": ["1", "2", "3"] * 2,
            "lap": [1, 1, 1, 2, 2, 2],
            "position": [16, 15, 1, 2, 16, 1],
            "lap_time_s": [30.0, 30.0, 31.0, 30.0, 30.0, 30.0],
            "flag": "green",
        }
    )
    laps.write_parquet(tmp_path / "laps.parquet")
    facts = aggregate_laps([str(tmp_path / "laps.parquet")])
    assert facts["fastest_lap_share"].to_list() == [0.0, 0.5, 0.5]
    assert facts["top15_share"].to_list() == [0.5, 0.5, 1.0]


def test_a_race_without_lap_times_has_no_pace(laps: pl.DataFrame, lap_file: str, tmp_path: Path) -> None:
    untimed = laps.with_columns(race_id=pl.col("race_id") + 100, lap_time_s=pl.lit(None, pl.Float64))
    untimed.write_parquet(tmp_path / "untimed.parquet")
    facts = aggregate_laps([lap_file, str(tmp_path / "untimed.parquet")])
    LapAggregates.validate(facts, lazy=True)
    without = facts.filter(pl.col("race_id") > 5050)
    assert without.height == 15
    for name in ("green_pace", "green_pace_50l", "falloff_50l", "fastest_lap_share"):
        assert without[name].null_count() == without.height
    assert (without["laps_timed"] == 0).all()
    assert_frame_equal(facts.filter(pl.col("race_id") < 5050), aggregate_laps([lap_file]))


def test_a_car_with_only_the_grid_has_no_row(laps: pl.DataFrame, tmp_path: Path) -> None:
    grid_only = laps.filter((pl.col("driver_id") != "d0") | (pl.col("lap") == 0))
    grid_only.write_parquet(tmp_path / "laps.parquet")
    facts = aggregate_laps([str(tmp_path / "laps.parquet")])
    assert "d0" not in facts["driver_id"]
    laps.clear().write_parquet(tmp_path / "empty.parquet")
    LapAggregates.validate(aggregate_laps([str(tmp_path / "empty.parquet")]), lazy=True)


def test_no_files_give_an_empty_table() -> None:
    facts = aggregate_laps([])
    LapAggregates.validate(facts, lazy=True)
    assert facts.height == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(duckdb.IOException, match=r"No files found.*nowhere\.parquet"):
        aggregate_laps([str(tmp_path / "nowhere.parquet")])


def test_nothing_is_left_behind(lap_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    aggregate_laps([lap_file])
    assert list(tmp_path.iterdir()) == []


def test_the_same_laps_give_the_same_bits(tmp_path: Path) -> None:
    """More laps than one row group, which several threads would share."""
    path = str(tmp_path / "laps.parquet")
    make_laps(n_races=20, n_cars=40, n_laps=250, seed=6).write_parquet(path)
    facts = aggregate_laps([path])
    assert all(aggregate_laps([path]).equals(facts) for _ in range(3))


def test_a_season_of_laps_takes_seconds(tmp_path: Path) -> None:
    laps = make_laps(n_races=12, n_cars=40, n_laps=250, seed=5)
    laps.write_parquet(tmp_path / "laps.parquet")
    start = time.perf_counter()
    compute_aggregate_features(laps)
    aggregate_laps([str(tmp_path / "laps.parquet")])
    assert time.perf_counter() - start < 10
