"""Laps aligned to the leader's."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from calibration_pipeline.sources.laps import align_to_leader, attach_fastest_laps


def race(times: dict[str, list[float | None]], flags: list[str]) -> pl.DataFrame:
    rows = [
        {"driver_id": driver, "lap": lap, "position": k, "lap_time_s": time, "flag": flags[lap - 1]}
        for k, (driver, own) in enumerate(times.items(), 1)
        for lap, time in enumerate(own, 1)
    ]
    return pl.DataFrame(rows, schema_overrides={"lap_time_s": pl.Float64})


def test_a_lapped_car_s_laps_are_those_of_the_leader_at_that_time() -> None:
    """Car B loses 70 s on its first lap, under green; its other laps end two laps of the leader later."""
    laps = race(
        {"a": [30, 31, 32, 33, 30], "b": [100, 29, 29]}, ["green", "green", "yellow", "green", "green"]
    )
    aligned = align_to_leader(laps).sort("driver_id", "lap")
    assert aligned.filter(driver_id="a")["lap"].to_list() == [1, 2, 3, 4, 5]
    assert aligned.filter(driver_id="b").select("lap", "flag").rows() == [
        (3, "yellow"),
        (4, "green"),
        (5, "green"),
    ]
    results = pl.DataFrame({"driver_id": ["a", "b"]})
    assert attach_fastest_laps(results, laps, 5)["fastest_laps"].to_list() == [3, 1]
    assert attach_fastest_laps(results, aligned, 5)["fastest_laps"].to_list() == [2, 2]


def test_laps_with_gaps_stay_as_they_are() -> None:
    laps = race({"a": [30, 30, 30, 30], "b": [100, 29, 29]}, ["green"] * 4)
    gaps = laps.filter((pl.col("driver_id") != "b") | (pl.col("lap") != 2))
    assert_frame_equal(align_to_leader(gaps), gaps)


def test_of_equal_times_at_equal_positions_the_lower_driver_id_counts() -> None:
    """As two laps of a lapped and another car may stand once they are aligned."""
    laps = race({"a": [30], "b": [30]}, ["green"]).with_columns(position=pl.lit(3))
    results = pl.DataFrame({"driver_id": ["a", "b"]})
    for order in (laps, laps.reverse()):
        assert attach_fastest_laps(results, order, 1)["fastest_laps"].to_list() == [1, 0]


times = st.lists(st.floats(20, 200) | st.none(), min_size=6, max_size=6)


@given(st.lists(times, min_size=1, max_size=4), st.integers(1, 6))
def test_no_lap_is_lost_and_cars_on_the_lead_lap_keep_theirs(field: list[list[float | None]], n: int) -> None:
    laps = race({f"car {k}": own[: n if k else 6] for k, own in enumerate(field)}, ["green"] * 6)
    aligned = align_to_leader(laps)
    assert aligned.height == laps.height
    assert aligned["lap"].is_between(1, 6).all()
    assert_frame_equal(
        aligned.select("driver_id", "lap_time_s"),
        laps.select("driver_id", "lap_time_s"),
        check_row_order=False,
    )
    level = align_to_leader(laps.with_columns(lap_time_s=pl.lit(30.0)))
    assert_frame_equal(level, laps.with_columns(lap_time_s=pl.lit(30.0)), check_row_order=False)
