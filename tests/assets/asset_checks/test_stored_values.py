"""Each property holds of good values and fails of bad ones, as stored; errors block and warnings do not."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import xarray as xr
from upath import UPath

from assets.asset_checks.stored_values import ERROR, PROPERTIES, WARN, Property, build_checks
from assets.partitions import ARCHETYPE_PARTITIONS, season_partitions
from assets.storage.io_manager import StoredManager
from calibration_pipeline.checks import properties
from calibration_pipeline.checks.plausibility import ENOUGH_RACES, LEAST_FIELD
from calibration_pipeline.checks.properties import Finding, forecasts_point_the_right_way
from calibration_pipeline.io.stored_files import write_atomically
from calibration_pipeline.io.stored_values import encode, path_of, read_value
from calibration_pipeline.schemas.contracts import ContractError, validate
from calibration_pipeline.schemas.frames import DriverFeatures, RaceResults
from calibration_pipeline.seasons import Seasons
from calibration_pipeline.sources.quarantine import QuarantineLog
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints
from helpers.example_report import joint_event_table, metric_table

SEASONS = season_partitions(Seasons((2020, 2021), is_open=False))
PREFIX = ("simulated", "cup")


def results(**changes: object) -> pl.DataFrame:
    """Return two races of two cars each."""
    frame = pl.DataFrame(
        {
            "race_id": [1, 1, 2, 2],
            "season": 2021,
            "round": [1, 1, 2, 2],
            "race_order": [202101, 202101, 202102, 202102],
            "track_id": "daytona",
            "archetype": "superspeedway",
            "driver_id": ["a", "b", "a", "b"],
            "driver": ["A", "B", "A", "B"],
            "car_number": ["1", "2", "1", "2"],
            "team": None,
            "make": None,
            "race_date": None,
            "start_position": [1, 2, 1, 2],
            "finish_position": [2, 1, 1, 2],
            "laps_completed": 10,
            "laps_led": [3, 7, 10, 0],
            "running": True,
            "status": "running",
            "race_laps": 10,
            "scheduled_laps": 10,
            "green_laps": 8,
            "n_cautions": 1,
            "fastest_laps": [4, 4, 8, 0],
            "rating": None,
        }
        | changes,
        strict=False,
    )
    return frame.cast(dict(RaceResults.empty().schema))


def ensemble(**changes: object) -> xr.Dataset:
    """Return an ensemble of one race, two scenarios and two cars, padded to three slots."""
    outcome, car, scenario = ("race", "scenario", "driver"), ("race", "driver"), ("race", "scenario")
    finish = np.array([[[1, 2, 0], [2, 1, 0]]], np.int16)
    names = np.array([["a", "b", ""]])
    value = xr.Dataset(
        {
            "finish_position": (outcome, finish),
            "laps_led": (outcome, np.array([[[4, 6, 0], [10, 0, 0]]], np.int16)),
            "fastest_laps": (outcome, np.array([[[4, 4, 0], [8, 0, 0]]], np.int16)),
            "race_laps": (scenario, np.array([[10, 10]], np.int16)),
            "green_laps": (scenario, np.array([[8, 8]], np.int16)),
            "utility": (car, np.zeros((1, 3), np.float32)),
            "incident_logit": (car, np.zeros((1, 3), np.float32)),
            "chaos_scale": ("race", np.zeros(1, np.float32)),
        },
        {
            "race": [7],
            "season": ("race", np.array([2021], np.int32)),
            "round": ("race", np.array([2], np.int32)),
            "race_order": ("race", np.array([202102], np.int32)),
            "track_id": ("race", ["daytona"]),
            "archetype": ("race", ["superspeedway"]),
            "fold": ("race", ["2021"]),
            "field_size": ("race", np.array([2], np.int16)),
            "driver_id": (car, names),
            "name": (car, names),
            "team": (car, names),
            "make": (car, names),
            "start_position": (car, np.array([[1, 2, 0]], np.int16)),
            "network_as_of": ("race", np.array([202101], np.int32)),
        },
    )
    for name, values in changes.items():
        value[name] = (value[name].dims, np.asarray(values, value[name].dtype))
    return value


def fit(r_hat: float = 1.0, ess: float = 900.0, divergences: int = 0, *, pooled: bool = False) -> xr.DataTree:
    """Return a fit of which only the convergence is of interest, of the fold 2021."""
    draws = ("chain", "draw")
    by_draw = (draws, np.ones((2, 3), np.float32))
    posterior = xr.Dataset(dict.fromkeys(("slope_mu", "slope_sigma", "noise_sigma", "intercept"), by_draw))
    if pooled:
        by_archetype = ((*draws, "archetype"), np.ones((2, 3, 4), np.float32))
        posterior = posterior.assign(
            noise_sigma=by_archetype,
            intercept=by_archetype,
            archetype_sigma=by_draw,
            log_slope=((*draws, "archetype", "season"), np.ones((2, 3, 4, 1), np.float32)),
        )
    diagnostic = ("fold", "parameter")
    convergence = xr.Dataset(
        {
            "r_hat": (diagnostic, [[1.0, r_hat]]),
            "ess_bulk": (diagnostic, [[900.0, 900.0]]),
            "ess_tail": (diagnostic, [[900.0, ess]]),
            "divergences": ("fold", [divergences]),
        },
        {"fold": ["2021"], "parameter": ["slope_mu", "intercept"]},
    )
    stats = xr.Dataset({"diverging": (draws, np.zeros((2, 3), bool))})
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats, "convergence": convergence})
    if pooled:
        tree["slow"] = xr.DataTree(slow_parameters())
    else:
        races = {
            "season": ("race", np.array([2021], np.int32)),
            "race_order": ("race", np.array([202101], np.int32)),
        }
        tree["constant_data"] = xr.DataTree(xr.Dataset(races, {"race": [202101]}))
    return tree


def slow_parameters() -> xr.Dataset:
    """Return slow parameters of the fold 2021, the same in every draw."""
    by_archetype = ("fold", "archetype")
    by_draw = (("fold", "draw"), np.ones((1, 3)))
    return xr.Dataset(
        {
            **dict.fromkeys(("slope_sigma", "archetype_sigma"), by_draw),
            "noise_sigma": (("fold", "draw", "archetype"), np.ones((1, 3, 4))),
            **dict.fromkeys(
                ("reference_log_slope", "reference_noise", "reference_front_tilt"),
                (by_archetype, np.zeros((1, 4))),
            ),
            "n_races": (by_archetype, np.ones((1, 4), np.int32)),
            "as_of": ("fold", np.array([202036], np.int32)),
        },
        {"fold": ["2021"], "archetype": ["superspeedway", "intermediate", "short_track", "road_course"]},
    )


def metrics(estimate: float, lower: float | None, upper: float | None) -> pl.DataFrame:
    """Return scores of one archetype, in which the recalibrated coverage at 80 % is given."""
    table = metric_table().filter(archetype="superspeedway")
    covered = (pl.col("quantity") == "coverage") & pl.col("estimate").is_not_null()
    given = covered & (pl.col("level") == "80 %") & (pl.col("forecast") == "recalibrated")
    nominal = pl.col("level").str.strip_suffix(" %").cast(pl.Float64, strict=False) / 100
    values = {"estimate": estimate, "lower": lower, "upper": upper}
    return table.with_columns(
        pl.when(given)
        .then(pl.lit(value, pl.Float64))
        .when(covered)
        .then(nominal)
        .otherwise(pl.col(name))
        .alias(name)
        for name, value in values.items()
    )


def events(
    predicted: float, observed: float, lower: float | None, upper: float | None, n_races: int = 36
) -> pl.DataFrame:
    """Return two joint events of one archetype; the recalibrated forecast of `count(dnf) >= 8` is given."""
    table = joint_event_table().filter(archetype="superspeedway")
    given = (pl.col("event") == "count(dnf) >= 8") & (pl.col("forecast") == "recalibrated")
    values = {
        "predicted": predicted,
        "observed": observed,
        "lower": lower,
        "upper": upper,
        "calibration_error": abs(predicted - observed),
        "n_races": n_races,
    }
    return table.with_columns(
        pl.when(given).then(pl.lit(value, table.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def features(as_of: int) -> pl.DataFrame:
    """Return the features of one car, which know races up to `as_of`."""
    schema = DriverFeatures.empty().schema
    keys = results()[:1].select(name for name in schema if name in RaceResults.empty().columns)
    forms = {name: 0 for name in schema if name not in keys.columns}
    return keys.with_columns(**forms | {"feature_as_of": as_of}).cast(dict(schema)).select(*schema)


def backtest(as_of: int) -> xr.Dataset:
    """Return the backtest of one race of two cars, whose calibration knows races up to `as_of`."""
    place, pair, car = ("race", "driver", "position"), ("race", "driver", "opponent"), ("race", "driver")
    even = np.array([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]])
    raced = ensemble()
    return xr.Dataset(
        {
            "raw": (place, even),
            "recalibrated": (place, even),
            "raw_head_to_head": (pair, even),
            "recalibrated_head_to_head": (pair, even),
            "finish_position": (car, np.array([[1, 2, 0]], np.int16)),
            "share_beaten": (car, np.zeros((1, 3))),
        },
        {
            **raced.coords,
            "calibration_as_of": ("race", np.array([as_of], np.int32)),
            "n_calibration_races": ("race", np.array([1], np.int32)),
        },
    )


def quarantine(entity: str, rule: str) -> pl.DataFrame:
    log = QuarantineLog(2021)
    log.add(entity, "left out", rule, place="feed", race_id=7, race="2021 race 7 (Daytona)")  # type: ignore[arg-type]
    return log.frame()


def whole_season() -> pl.DataFrame:
    return SimulatedSource([2021], compile_constraints()).load_season(2021).race_results


def wide_ensemble(n: int = LEAST_FIELD) -> xr.Dataset:
    """Return the ensemble with n cars, of which the first leads every lap."""
    wide = ensemble().isel(driver=np.zeros(n, int))
    places, names = np.arange(1, n + 1), np.array([[f"d{i}" for i in range(n)]])
    first = np.array([1] + [0] * (n - 1))
    return wide.assign(
        {
            name: (wide[name].dims, np.broadcast_to(values, wide[name].shape).astype(wide[name].dtype))
            for name, values in {
                "finish_position": places,
                "laps_led": 10 * first,
                "fastest_laps": 8 * first,
            }.items()
        }
    ).assign_coords(
        driver_id=(("race", "driver"), names),
        start_position=(("race", "driver"), places[None].astype(np.int16)),
        field_size=("race", np.array([n], np.int16)),
    )


def sharp_backtest() -> xr.Dataset:
    """Return the backtest of some races in which the favourite won."""
    races = backtest(202101).isel(race=np.zeros(ENOUGH_RACES, int))
    favourite = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 0.0]])
    races = races.assign_coords(race=np.arange(races.sizes["race"]) + 7)
    dims = ("race", "driver", "position")
    return races.assign(
        {name: (dims, np.stack([favourite] * ENOUGH_RACES)) for name in ("raw", "recalibrated")}
    )


def test_forecasts_of_equal_cars_point_nowhere() -> None:
    alike = np.full((ENOUGH_RACES, 3, 3), [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])
    found = forecasts_point_the_right_way(
        sharp_backtest().assign(raw=(("race", "driver", "position"), alike))
    )
    assert found.passed
    assert found.sentence == "All cars are expected to finish alike."


def upside_down() -> xr.Dataset:
    races = sharp_backtest()
    return races.assign(finish_position=(("race", "driver"), np.array([[2, 1, 0]] * ENOUGH_RACES, np.int16)))


R_HAT, ESS, DIVERGED = {"r_hat": 1.05}, {"ess": 400.0}, {"divergences": 3}


def monitoring(alarm_season: int, log10_e: float) -> pl.DataFrame:
    """Monitoring of two seasons: an alarm of the raw forecast in 2021, and `log10_e` at a season's end."""
    rows = [
        {
            "archetype": "superspeedway",
            "forecast": forecast,
            "market": market,
            "race_id": race_order,
            "season": race_order // 100,
            "race_order": race_order,
            "rank": None if market == "all markets" else 0.01,
            "log10_e_season": 0.5,
            "log10_e_start": 3.0,
        }
        for forecast in ("raw", "recalibrated")
        for market in ("win", "all markets")
        for race_order in (202101, 202102, 202201, 202202)
    ]
    last = pl.col("race_order").eq(100 * alarm_season + 2) & pl.col("market").eq("all markets")
    past = pl.col("race_order").eq(202102) & pl.col("forecast").eq("raw")
    shown = pl.when(last & pl.col("forecast").eq("recalibrated")).then(log10_e)
    return pl.DataFrame(rows).with_columns(
        log10_e_season=shown.when(past).then(4.0).otherwise("log10_e_season")
    )


STORED = {
    ("quarantine", "nothing_is_quarantined"): (
        QuarantineLog(2021).frame(),
        quarantine("race", rule="its results are null"),
        "2021 race 7 (Daytona): its results are null (race left out). All: calibration-pipeline sql",
    ),
    ("race_results", "plausible"): (whole_season(), results(), "round 1 (daytona): 2 cars started"),
    ("scenario_ensemble", "plausible"): (wide_ensemble(), ensemble(), "race 7: 2 cars are forecast"),
    ("race_forecast", "plausible"): (wide_ensemble(), ensemble(), "race 7: 2 cars are forecast"),
    ("backtest", "right_way_up"): (sharp_backtest(), upside_down(), "may be upside down"),
    ("race_results", "laps_led_add_up"): (results(), results(laps_led=[3, 6, 10, 0]), "1 (-1)"),
    ("scenario_ensemble", "laps_add_up"): (ensemble(), ensemble(laps_led=[[[4, 6, 0], [9, 0, 0]]]), "7"),
    ("recalibrated_forecast", "laps_add_up"): (
        ensemble(),
        ensemble(fastest_laps=[[[4, 4, 0], [9, 0, 0]]]),
        "7",
    ),
    ("scenario_ensemble", "nothing_from_the_future"): (ensemble(), ensemble(network_as_of=[202102]), "7"),
    ("recalibrated_forecast", "nothing_from_the_future"): (
        ensemble(),
        ensemble(network_as_of=[202103]),
        "7",
    ),
    ("calibration_posterior", "r_hat"): (
        fit(1.049),
        fit(**R_HAT),
        "the worst is that of intercept, fold 2021: 1.05.",
    ),
    ("calibration_posterior", "effective_sample_size"): (fit(ess=401), fit(**ESS), "intercept"),
    ("calibration_posterior", "divergences"): (fit(), fit(**DIVERGED), "3 transitions diverged, in the fits"),
    ("pooled_posterior", "r_hat"): (fit(pooled=True), fit(**R_HAT, pooled=True), "intercept"),
    ("pooled_posterior", "effective_sample_size"): (
        fit(pooled=True),
        fit(**ESS, pooled=True),
        "intercept",
    ),
    ("pooled_posterior", "divergences"): (fit(pooled=True), fit(**DIVERGED, pooled=True), "of 2021"),
    ("calibration_metrics", "coverage"): (
        metrics(0.6, 0.45, 0.75),
        metrics(0.6, 0.51, 0.69),
        "coverage at 80 % (recalibrated)",
    ),
    ("joint_event_validation", "calibration_error"): (
        events(0.3, 0.6, 0.35, 0.8),
        events(0.3, 0.6, 0.41, 0.8),
        "count(dnf) >= 8 (recalibrated)",
    ),
    ("calibration_monitoring", "no_alarm"): (
        monitoring(2021, 1.29),
        monitoring(2022, 1.31),
        "the largest of the 2 races of 2022 is 20.4 (recalibrated). Markets at an alarm: all markets (",
    ),
}


type Check = Callable[[Path, str, Any], dict[str, dg.AssetCheckEvaluation]]


@pytest.fixture(scope="module")
def check_stored() -> Iterator[Check]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield partial(evaluate_stored, instance)


def evaluate_stored(
    instance: dg.DagsterInstance, folder: Path, asset: str, value: Any
) -> dict[str, dg.AssetCheckEvaluation]:
    """Store a value in a run of a partition, and return the evaluations of its checks by name."""
    by_season = asset in ("race_results", "scenario_ensemble")

    @dg.asset(
        key=dg.AssetKey([*PREFIX, asset]),
        partitions_def=SEASONS if by_season else ARCHETYPE_PARTITIONS,
    )
    def stored() -> Any:
        return value

    result = dg.materialize(
        [stored, *build_checks([stored])],
        instance=instance,
        partition_key="2021" if by_season else "superspeedway|network",
        resources={"io_manager": StoredManager(UPath(folder))},
        raise_on_error=False,
    )
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def test_every_check_has_a_stored_value_that_fails_it() -> None:
    assert set(STORED) == {(asset, each.name) for each in PROPERTIES for asset in each.assets}


@pytest.mark.parametrize(("asset", "name"), STORED)
def test_check_passes_good_stored_values_and_fails_bad_ones(
    check_stored: Check, tmp_path: Path, asset: str, name: str
) -> None:
    good, bad, named = STORED[asset, name]
    evaluations = check_stored(tmp_path / "good", asset, good)
    failed = {each.check_name for each in evaluations.values() if not each.passed}
    assert failed <= {"plausible"} - {name}, "most examples have two cars only"
    evaluations = check_stored(tmp_path / "bad", asset, bad)
    assert evaluations["contract"].passed
    evaluation = evaluations[name]
    assert not evaluation.passed
    assert named in str(evaluation.description)
    assert {"estimate", "threshold", "n"} <= set(evaluation.metadata)


TAKEN_TWICE = ensemble(finish_position=[[[1, 2, 0], [2, 2, 0]]])
REFUSED = {
    "race_results": (results(), results(finish_position=[2, 1, 1, 1]), "must be a permutation of 1..n"),
    "driver_features": (features(0), features(202101), "feature_as_of must be before the race"),
    "scenario_ensemble": (ensemble(), TAKEN_TWICE, "must be a permutation of 1..n in every scenario"),
    "recalibrated_forecast": (ensemble(), TAKEN_TWICE, "must be a permutation of 1..n in every scenario"),
    "race_forecast": (ensemble(), TAKEN_TWICE, "must be a permutation of 1..n in every scenario"),
    "backtest": (backtest(202101), backtest(202102), "calibration_as_of must be before the race"),
}


@pytest.mark.parametrize("asset", REFUSED)
def test_rules_of_a_contract_need_no_check(tmp_path: Path, asset: str) -> None:
    """Test that the contract refuses a value when it is written, and a stored one when it is read."""
    good, bad, rule = REFUSED[asset]
    path = path_of(UPath(tmp_path), asset, "2021")
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(validate(good, asset)))
    read_value(path, asset, "2021")
    with pytest.raises(ContractError, match=re.escape(rule)):
        validate(bad, asset)
    path.write_bytes(encode(bad))
    with pytest.raises(ContractError, match=re.escape(rule)):
        read_value(path, asset, "2021")


def test_numbers_of_a_check_have_at_most_four_digits(check_stored: Check, tmp_path: Path) -> None:
    evaluation = check_stored(tmp_path, "calibration_posterior", fit(r_hat=1.0123456))["r_hat"]
    shown = {name: value.value for name, value in evaluation.metadata.items()}
    assert shown == {"estimate": 1.012, "threshold": 1.05, "n": 2}
    assert isinstance(shown["n"], int)


def test_r_hat_that_cannot_be_computed_does_not_pass(check_stored: Check, tmp_path: Path) -> None:
    evaluation = check_stored(tmp_path, "calibration_posterior", fit(r_hat=np.nan))["r_hat"]
    assert not evaluation.passed
    assert "not computable" in str(evaluation.description)


def test_races_with_unknown_laps_are_left_out_of_the_sum() -> None:
    finding = properties.results_laps_led_add_up(results(race_laps=[None, None, 10, 10]))
    assert finding.passed
    assert finding.metadata["n"] == 1


def test_scenarios_without_laps_are_not_summed() -> None:
    without = ensemble(laps_led=[[[9, 9, 0], [9, 9, 0]]]).drop_vars("race_laps")
    finding = properties.scenario_laps_add_up(without)
    assert finding.passed
    assert finding.metadata["n_scenarios"] == 2


def test_races_of_another_forecaster_are_counted() -> None:
    finding = properties.networks_know_only_the_past(ensemble(network_as_of=[0]))
    assert finding.passed
    assert finding.metadata == {"estimate": 0, "threshold": 0, "n": 0, "n_not_of_network": 1}
    assert finding.sentence.startswith("1 races are of another forecaster")


def test_values_without_races_pass() -> None:
    for find, empty in (
        (properties.coverage_is_near_nominal, metrics(0.8, None, None).clear()),
        (properties.joint_events_are_near_observed, events(0.1, 0.1, None, None).clear()),
        (properties.r_hat_is_low, pl.DataFrame({"r_hat": []})),
        (properties.scenario_laps_add_up, ensemble().isel(race=slice(0))),
        (properties.networks_know_only_the_past, ensemble().isel(race=slice(0))),
    ):
        assert find(empty).passed
        assert find(empty).metadata["n"] == 0


def test_a_prediction_inside_the_interval_of_six_races_passes() -> None:
    """Test that estimate and interval are of the same gap: six races cannot show that 0.40 is not 0.17."""
    finding = properties.joint_events_are_near_observed(events(0.4, 1 / 6, 0.03, 0.56, n_races=6))
    assert finding.passed
    shown = finding.metadata
    assert shown["estimate"] == pytest.approx(0.4 - 1 / 6)
    assert (shown["lower"], shown["upper"]) == pytest.approx((0.4 - 0.56, 0.4 - 0.03))
    assert shown["lower"] <= shown["estimate"] <= shown["upper"]
    assert (shown["threshold"], shown["n"]) == (0.1, 6)
    assert "gap +0.233 (95 % interval -0.160 to +0.370)" in finding.sentence


@pytest.mark.parametrize(
    ("predicted", "lower", "upper", "passed"),
    [(0.5, 0.2, 0.39, False), (0.5, 0.2, 0.41, True), (0.1, 0.21, 0.5, False), (0.1, 0.19, 0.5, True)],
)
def test_an_interval_wholly_outside_the_tolerance_fails(
    predicted: float, lower: float, upper: float, passed: bool
) -> None:
    finding = properties.joint_events_are_near_observed(events(predicted, 0.3, lower, upper))
    assert finding.passed is passed
    assert finding.metadata["estimate"] == pytest.approx(predicted - 0.3)


def test_the_event_furthest_outside_is_shown_although_another_gap_is_larger() -> None:
    table = events(0.9, 0.5, 0.2, 0.95).with_columns(
        predicted=pl.when(event="led(1) & top(10)", forecast="raw").then(0.3).otherwise("predicted"),
        observed=pl.when(event="led(1) & top(10)").then(0.5).otherwise("observed"),
        lower=pl.when(event="led(1) & top(10)").then(0.45).otherwise("lower"),
        upper=pl.when(event="led(1) & top(10)").then(0.55).otherwise("upper"),
    )
    finding = properties.joint_events_are_near_observed(table)
    assert not finding.passed
    assert "furthest is led(1) & top(10) (raw): predicted 0.3, observed 0.5" in finding.sentence
    assert finding.metadata["estimate"] == pytest.approx(-0.2)


@pytest.mark.parametrize(
    "finding",
    [
        properties.joint_events_are_near_observed(events(0.9, 0.1, None, None, n_races=1)),
        properties.coverage_is_near_nominal(metrics(0.3, None, None)),
    ],
)
def test_a_gap_without_an_interval_cannot_fail(finding: Finding) -> None:
    assert finding.passed
    assert "no interval: not testable" in finding.sentence
    assert abs(finding.metadata["estimate"]) > 0.4
    assert finding.metadata["n_without_interval"] == 1
    assert not {"lower", "upper"} & set(finding.metadata)


def test_coverage_is_held_against_its_level() -> None:
    finding = properties.coverage_is_near_nominal(metrics(0.6, 0.5, 0.68))
    assert not finding.passed
    assert finding.metadata["estimate"] == pytest.approx(-0.2)
    assert (finding.metadata["lower"], finding.metadata["upper"]) == pytest.approx((-0.3, -0.12))
    assert properties.coverage_is_near_nominal(metrics(0.6, 0.5, 0.72)).passed


def test_descriptions_are_escaped(
    check_stored: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test that the UI, which renders the description of an evaluation as Markdown, displays it as it is."""
    hostile = Property(
        ("race_results",),
        "holds",
        "It holds.",
        lambda _: Finding(False, "![x](http://a.b/c)", {}),
        blocks=False,
    )
    monkeypatch.setattr("assets.asset_checks.stored_values.PROPERTIES", (hostile,))
    evaluation = check_stored(tmp_path, "race_results", results())["holds"]
    assert evaluation.description == r"!\[x\](`http://a.b/c`)"


def test_keys_with_a_prefix_have_checks_of_their_own() -> None:
    def asset(prefix: str) -> dg.AssetsDefinition:
        @dg.asset(key=[prefix, "cup", "race_results"], partitions_def=SEASONS)
        def stored() -> None: ...

        return stored

    @dg.asset
    def without_contract() -> None: ...

    checks = build_checks([asset("simulated"), asset("tables"), without_contract])
    assert [check.node_def.name for check in checks] == [
        "simulated__cup__race_results_checks",
        "tables__cup__race_results_checks",
    ]
    for check, prefix in zip(checks, ("simulated", "tables"), strict=True):
        keys = {each.key for each in check.check_specs}
        key = dg.AssetKey([prefix, "cup", "race_results"])
        names = ("contract", "plausible", "laps_led_add_up")
        assert keys == {dg.AssetCheckKey(key, name) for name in names}
        assert all(each.partitions_def == SEASONS for each in check.check_specs)


LAPS = pl.DataFrame(
    {
        "race_id": [1],
        "driver_id": ["4153"],
        "laps_timed": [10],
        "average_position": [3.5],
        "top15_share": [1.0],
        "fastest_lap_share": [0.2],
        "green_pace": [-0.01],
        "average_position_50l": [3.5],
        "green_pace_50l": [-0.01],
        "falloff_50l": [None],
    },
    schema_overrides={"falloff_50l": pl.Float64},
)


@pytest.mark.parametrize(
    ("severity", "damage", "downstream"), [(ERROR, False, False), (WARN, False, True), (WARN, True, False)]
)
def test_errors_block_downstream_assets_and_warnings_do_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    severity: dg.AssetCheckSeverity,
    damage: bool,
    downstream: bool,
) -> None:
    required = Property(
        ("lap_aggregates",),
        "holds",
        "It holds.",
        lambda _: Finding(False, "Not so.", {}),
        blocks=severity == ERROR,
    )
    monkeypatch.setattr("assets.asset_checks.stored_values.PROPERTIES", (required,))

    class Damaging(StoredManager):
        def write(self, value: pl.DataFrame, context: dg.OutputContext, path: UPath) -> bytes:
            if not damage:
                return super().write(value, context, path)
            data = encode(value.with_columns(top15_share=2.0))
            write_atomically(path, data)
            return data

    @dg.asset(key_prefix=PREFIX, partitions_def=SEASONS)
    def lap_aggregates() -> pl.DataFrame:
        return LAPS

    @dg.asset(partitions_def=SEASONS, deps=[lap_aggregates])
    def after() -> None:
        pass

    assets = [lap_aggregates, after]
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*assets, *build_checks(assets)],
            instance=instance,
            partition_key="2021",
            resources={"io_manager": Damaging(UPath(tmp_path))},
            raise_on_error=False,
        )
    evaluations = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert evaluations["contract"].passed is not damage
    assert not evaluations["holds"].passed
    if damage:
        expected = r"lap_aggregates \[2021\] breaks its contract"
        assert str(evaluations["contract"].description).startswith(expected)
        assert "top15_share" in str(evaluations["contract"].description)
        assert evaluations["holds"].description == "Not checked, since the contract is broken."
    else:
        assert evaluations["holds"].description == "Not so."
    materialized = {event.asset_key.path[-1] for event in result.get_asset_materialization_events()}
    assert ("after" in materialized) is downstream
