"""Tests of the simulated source: valid frames, one truth, the same from the same seed."""

import time
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.schemas.frames import EntryList, LapTelemetry, RaceResults
from calibration_pipeline.sources import SeasonData, SourceError
from calibration_pipeline.sources.simulated.laws import LAWS
from calibration_pipeline.sources.simulated.race import run_race
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

SEASONS = (2020, 2021, 2022, 2023)
TRACKS = compile_constraints()


def source(seed: int = 42) -> SimulatedSource:
    return SimulatedSource(SEASONS, TRACKS, seed=seed)


@cache
def season(year: int, seed: int = 42) -> SeasonData:
    return source(seed).load_season(year)


@cache
def all_results(seed: int) -> pl.DataFrame:
    return pl.concat([season(year, seed).race_results for year in SEASONS])


@pytest.fixture(params=SEASONS)
def data(request: pytest.FixtureRequest) -> SeasonData:
    return season(request.param)


def test_frames_fulfil_their_contracts(data: SeasonData) -> None:
    RaceResults.validate(data.race_results, lazy=True)
    LapTelemetry.validate(data.lap_telemetry, lazy=True)
    assert data.counts == {"races": 36, "cars": data.race_results.height, "laps": data.lap_telemetry.height}
    assert data.quarantine.is_empty()


def test_next_race_is_the_first_race_of_the_season_after() -> None:
    entries = source().next_race(2021).entries
    EntryList.validate(entries, lazy=True)
    first = season(2022).race_results.filter(pl.col("round") == 1)
    assert_frame_equal(entries, first.select(entries.columns).sort("start_position"))
    assert source().next_race(2023).entries["race_order"].unique().to_list() == [202401]


def test_same_seed_gives_the_same_frames_in_any_order() -> None:
    alone = source().load_season(2021)
    other = source()
    other.load_season(2020)
    after = other.load_season(2021)
    assert_frame_equal(alone.race_results, after.race_results)
    assert_frame_equal(alone.lap_telemetry, after.lap_telemetry)
    assert source().truth(2021).identical(other.truth(2021))


def test_later_seasons_do_not_change_earlier_ones() -> None:
    shorter = SimulatedSource(SEASONS[:2], TRACKS).load_season(2021)
    assert_frame_equal(shorter.race_results, season(2021).race_results)


def test_another_seed_gives_another_season() -> None:
    assert not season(2020, 42).race_results.equals(season(2020, 43).race_results)


def test_a_season_is_a_cup_season(data: SeasonData) -> None:
    results = data.race_results
    races = results.unique("race_id").sort("race_order")
    assert races.height == 36
    assert races["track_id"][0] == "daytona"
    assert races["track_id"][-1] == "phoenix"
    assert races["race_date"].is_sorted()
    assert set(races["race_date"].dt.weekday()) == {7}
    count = dict(races["archetype"].value_counts().iter_rows())
    assert count["road_course"] == 6
    assert count["short_track"] == 10
    assert count["superspeedway"] == (6 if races["season"][0] >= 2022 else 4)
    field = results.group_by("race_id").len()["len"]
    assert field.min() >= 36
    assert field.max() <= 40
    assert results["make"].n_unique() == 3
    assert results["team"].n_unique() == 14
    full_time = results.group_by("driver_id").len().filter(pl.col("len") == 36)
    assert full_time.height >= 32
    assert results["driver_id"].str.contains(r"^\d+$").all()


def test_drivers_keep_their_names_while_some_come_and_go() -> None:
    results = all_results(42)
    assert results.group_by("driver_id").agg(pl.n_unique("driver"))["driver"].max() == 1
    assert results.group_by("driver").agg(pl.n_unique("driver_id"))["driver_id"].max() == 1
    first, last = (set(season(year).race_results["driver_id"]) for year in (2020, 2023))
    assert len(first & last) > 20
    assert first - last
    assert last - first


def test_laps_agree_with_results(data: SeasonData) -> None:
    """Every count in the results can be recounted from the laps."""
    laps = data.lap_telemetry.sort("race_id", "lap", "position")
    raced = laps.filter(pl.col("lap") > 0)
    green = raced.filter(pl.col("flag") == "green")
    fastest = green.drop_nulls("lap_time_s").sort("race_id", "lap", "lap_time_s", "position")
    fastest = fastest.unique(["race_id", "lap"], keep="first", maintain_order=True)
    keys = ["race_id", "driver_id"]
    recounted = (
        laps.group_by(keys)
        .agg(
            laps_completed=pl.max("lap"),
            rows=pl.len().cast(pl.Int64) - 1,
            start_position=pl.col("position").filter(pl.col("lap") == 0).first(),
            laps_led=((pl.col("position") == 1) & (pl.col("lap") > 0)).sum().cast(pl.Int64),
        )
        .join(fastest.group_by(keys).agg(fastest_laps=pl.len().cast(pl.Int64)), on=keys, how="left")
        .with_columns(pl.col("fastest_laps").fill_null(0))
        .join(raced.group_by("race_id").agg(race_laps=pl.max("lap")), on="race_id")
        .join(green.group_by("race_id").agg(green_laps=pl.n_unique("lap").cast(pl.Int64)), on="race_id")
        .sort(keys)
    )
    results = data.race_results.sort(keys)
    assert recounted["rows"].equals(recounted["laps_completed"])
    columns = ["laps_completed", "start_position", "laps_led", "fastest_laps", "race_laps", "green_laps"]
    assert_frame_equal(recounted.select(keys + columns), results.select(keys + columns))


def test_each_lap_has_places_from_one_without_gaps(data: SeasonData) -> None:
    by_lap = data.lap_telemetry.group_by("race_id", "lap").agg(
        pl.len(), unique=pl.n_unique("position"), last=pl.max("position"), flags=pl.n_unique("flag")
    )
    assert (by_lap["unique"] == by_lap["len"]).all()
    assert (by_lap["last"] == by_lap["len"]).all()
    assert (by_lap["flags"] == 1).all()


def test_last_lap_is_led_by_the_winner_who_is_running(data: SeasonData) -> None:
    laps = data.lap_telemetry
    last = laps.filter(pl.col("lap") == pl.col("lap").max().over("race_id"))
    winners = data.race_results.filter(pl.col("finish_position") == 1)
    assert winners["running"].all()
    leaders = last.filter(pl.col("position") == 1).sort("race_id")
    assert leaders["driver_id"].equals(winners.sort("race_id")["driver_id"])
    places = last.join(data.race_results, on=["race_id", "driver_id"])
    assert (places["position"] == places["finish_position"]).all()


def test_sums_and_orders_within_a_race(data: SeasonData) -> None:
    results = data.race_results.sort("race_id", "finish_position")
    sums = results.group_by("race_id").agg(
        pl.sum("laps_led", "fastest_laps"),
        pl.first("race_laps", "green_laps", "n_cautions"),
        falling=(pl.col("laps_completed").diff().fill_null(0) <= 0).all(),
    )
    assert (sums["laps_led"] == sums["race_laps"]).all()
    assert (sums["fastest_laps"] == sums["green_laps"]).all()
    assert sums["falling"].all()
    assert ((results["status"] == "running") == results["running"]).all()
    flags = data.lap_telemetry.unique(["race_id", "lap"]).sort("race_id", "lap")
    starts = (pl.col("flag") == "yellow") & (pl.col("flag").shift(1) != "yellow")
    cautions = flags.group_by("race_id").agg(n=starts.sum().cast(pl.Int64))
    assert cautions.join(sums, on="race_id").select((pl.col("n") == pl.col("n_cautions")).all()).item()


def test_lap_times_are_those_of_a_race(data: SeasonData) -> None:
    laps = data.lap_telemetry
    assert laps.filter(pl.col("lap") == 0)["lap_time_s"].is_null().all()
    raced = laps.filter(pl.col("lap") > 0)
    assert 0.001 < raced["lap_time_s"].is_null().mean() < 0.01
    median = raced.group_by("race_id", "flag").agg(pl.median("lap_time_s"))
    slow = median.pivot("flag", index="race_id", values="lap_time_s")
    assert (slow["yellow"] > 1.3 * slow["green"]).all()


@given(
    archetype=st.sampled_from(ARCHETYPES),
    n_cars=st.integers(20, 45),
    laps=st.integers(50, 200),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_any_race_adds_up(archetype: Archetype, n_cars: int, laps: int, seed: int) -> None:
    """Permutations, led laps and fastest laps hold for every archetype, field, length and seed."""
    rng = np.random.default_rng(seed)
    team = np.arange(n_cars) // 3
    race = run_race(rng.normal(size=n_cars), team, LAWS[archetype], 1.0, laps, 1.5, rng)
    places = np.arange(1, n_cars + 1)
    assert (np.sort(race.start_position) == places).all()
    assert (np.sort(race.finish_position) == places).all()
    assert (race.position[:, 0] == race.start_position).all()
    assert ((race.position > 0).sum(axis=1) - 1 == race.laps_completed).all()
    assert race.laps_led.sum() == race.race_laps >= laps
    assert race.fastest_laps.sum() == race.green_laps > 0
    assert race.laps_completed.min() >= 0
    winner = race.finish_position.argmin()
    assert race.running[winner]
    assert race.laps_completed[winner] == race.race_laps
    assert (race.laps_completed[~race.running] < race.race_laps).all()
    assert np.nanmin(race.lap_time_s) > 0


DNF_SHARE = {"superspeedway": 0.26, "intermediate": 0.15, "short_track": 0.09, "road_course": 0.09}


@pytest.mark.parametrize("archetype", ARCHETYPES)
@pytest.mark.slow
def test_retirements_are_as_many_and_as_clumped_as_in_cup_races(archetype: str) -> None:
    """Shares as in Cup races; the variance of their number is two to three times binomial."""
    results = pl.concat(
        [all_results(seed).with_columns(seed=seed) for seed in range(4)], how="vertical_relaxed"
    ).filter(pl.col("archetype") == archetype)
    races = results.group_by("seed", "race_id").agg(n=pl.len(), out=(~pl.col("running")).sum())
    share = races["out"].sum() / races["n"].sum()
    dispersion = races["out"].var() / (races["n"].mean() * share * (1 - share))
    assert share == pytest.approx(DNF_SHARE[archetype], abs=0.025)
    assert 1.7 < dispersion < 3.8
    truth = source(0).truth(2020)["incident_rate"].sel(archetype=str(archetype))
    assert share == pytest.approx(truth.item(), abs=0.025)


def test_retired_cars_are_mostly_but_not_always_behind() -> None:
    mixed = (
        all_results(42)
        .filter(pl.col("running").not_().any().over("race_id"))
        .group_by("archetype", "race_id")
        .agg(
            best_retired=pl.col("finish_position").filter(~pl.col("running")).min(),
            last_running=pl.col("finish_position").filter("running").max(),
            gap=pl.col("finish_position").filter(~pl.col("running")).mean()
            - pl.col("finish_position").filter("running").mean(),
        )
        .with_columns(mixed=pl.col("best_retired") < pl.col("last_running"))
    )
    assert (mixed["gap"] > 0).mean() > 0.98
    share = dict(mixed.group_by("archetype").agg(pl.mean("mixed")).iter_rows())
    assert 0.2 < mixed["mixed"].mean() < 0.7
    assert share["superspeedway"] > 0.6


def test_truth_names_the_change_of_regime() -> None:
    sharpness = {year: source().truth(year)["sharpness"].values for year in SEASONS}
    assert all((sharpness[year] == 1.0).all() for year in (2020, 2021))
    assert all((sharpness[year] == 0.75).all() for year in (2022, 2023))
    assert source().truth(2020).attrs["first_season_of_new_regime"] == 2022


def test_truth_lines_up_with_the_results() -> None:
    """Speed is known for those who raced, and the fast finish in front, least so at superspeedways."""
    truth = source().truth(2023)
    results = season(2023).race_results
    speed = pl.DataFrame(
        {
            "race_id": np.repeat(truth["race"].values, truth.sizes["driver"]),
            "driver_id": np.tile(truth["driver"].values, truth.sizes["race"]),
            "speed": truth["speed"].values.ravel(),
        }
    ).filter(pl.col("speed").is_not_nan())
    joined = results.join(speed, on=["race_id", "driver_id"])
    assert joined.height == results.height == speed.height
    agreement = joined.group_by("archetype", "race_id").agg(
        rho=-pl.corr("speed", "finish_position", method="spearman")
    )
    by_archetype = dict(agreement.group_by("archetype").agg(pl.mean("rho")).iter_rows())
    assert by_archetype["superspeedway"] < 0.4
    assert min(by_archetype[name] for name in ("intermediate", "short_track", "road_course")) > 0.4


def test_truth_survives_netcdf(tmp_path) -> None:
    truth = source().truth(2020)
    truth.to_netcdf(tmp_path / "truth.nc", engine="h5netcdf")
    assert set(truth.dims) == {"driver", "archetype", "race"}


def test_a_season_is_generated_in_seconds() -> None:
    begin = time.perf_counter()
    source().load_season(2023)
    assert time.perf_counter() - begin < 4


@pytest.mark.parametrize(
    ("seasons", "message"),
    [
        ([], "at least one season"),
        ([2021, 2020], "must be ascending"),
        ([2020, 2020], "must be ascending"),
        ([2012, 2013], "Season 2012 cannot be simulated: Track 'daytona' is not known"),
    ],
)
def test_bad_seasons_are_refused(seasons: list[int], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        SimulatedSource(seasons, TRACKS)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SourceError, match="seed >= 0, got -1"):
        SimulatedSource([2020], TRACKS, seed=-1)


@pytest.mark.parametrize("method", ["load_season", "next_race", "truth"])
def test_a_season_not_configured_is_refused(method: str) -> None:
    with pytest.raises(SourceError, match="2020, 2021, 2022, 2023; got 2019"):
        getattr(source(), method)(2019)


def test_finished_races_are_those_of_the_season(data: SeasonData) -> None:
    season = data.race_results["season"][0]
    assert list(source().finished_races(season)) == data.race_results["race_id"].unique().sort().to_list()
    assert source().finished_races(2050) == {}
