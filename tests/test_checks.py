"""Each property holds of good values and fails of bad ones; the checks block or warn as they say."""

from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
import xarray as xr
from upath import UPath

from assets import properties
from assets.checks import ERROR, WARN, Property, build_checks
from assets.properties import Finding
from assets.storage import ParquetIOManager

RESULTS = pl.DataFrame(
    {
        "race_id": [1, 1, 2, 2],
        "finish_position": [2, 1, 1, 2],
        "laps_led": [3, 7, 10, 0],
        "race_laps": [10, 10, 10, 10],
    }
)


def ensemble() -> xr.Dataset:
    """Return an ensemble of one race, two scenarios and two cars, padded to three."""
    outcome = ("race", "scenario", "driver")
    return xr.Dataset(
        {
            "finish_position": (outcome, np.array([[[1, 2, 0], [2, 1, 0]]], np.int16)),
            "laps_led": (outcome, np.array([[[4, 6, 0], [10, 0, 0]]], np.int16)),
            "fastest_laps": (outcome, np.array([[[4, 4, 0], [8, 0, 0]]], np.int16)),
            "race_laps": (("race", "scenario"), np.array([[10, 10]], np.int16)),
            "green_laps": (("race", "scenario"), np.array([[8, 8]], np.int16)),
        },
        {
            "race": [7],
            "race_order": ("race", [202102]),
            "network_as_of": ("race", [202101]),
            "calibration_as_of": ("race", [202101]),
            "field_size": ("race", [2]),
        },
    )


def features(as_of: int) -> pl.DataFrame:
    return pl.DataFrame({"race_id": [7, 7], "race_order": [202102, 202102], "feature_as_of": [202101, as_of]})


def metrics(estimate: float) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "forecast": ["raw", "recalibrated", "climatology", "raw"],
            "quantity": ["coverage", "coverage", "coverage", "crps"],
            "level": ["50 %", "80 %", "50 %", ""],
            "estimate": [0.52, estimate, 0.0, 9.0],
            "lower": [0.4, None, None, None],
            "upper": [0.6, None, None, None],
            "n_races": [12, 12, 12, 12],
        }
    )


def events(error: float) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "forecast": ["raw", "recalibrated"],
            "event": ["top(5) & running", "count(dnf) >= 8"],
            "predicted": [0.5, 0.3],
            "observed": [0.5, 0.3 + error],
            "calibration_error": [0.0, error],
            "lower": [0.4, 0.2],
            "upper": [0.6, 0.7],
            "n_races": [12, 12],
        }
    )


def convergence(r_hat: float | None, ess: float) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "fold": ["2021-1", "2021-1"],
            "divergences": [0, 0],
            "parameter": ["slope_mu", "intercept"],
            "r_hat": [1.0, r_hat],
            "ess_bulk": [900.0, 900.0],
            "ess_tail": [900.0, ess],
        },
        schema_overrides={"r_hat": pl.Float64},
    )


def broken(**changes: object) -> xr.Dataset:
    value = ensemble()
    for name, values in changes.items():
        value[name] = (value[name].dims, np.asarray(values))
    return value


GOOD_AND_BAD = {
    "results_are_permutations": (
        properties.results_are_permutations,
        RESULTS,
        RESULTS.with_columns(finish_position=pl.Series([2, 1, 1, 1])),
        "2",
    ),
    "results_laps_led_add_up": (
        properties.results_laps_led_add_up,
        RESULTS,
        RESULTS.with_columns(laps_led=pl.Series([3, 6, 10, 0])),
        "1 (-1)",
    ),
    "scenarios_are_permutations": (
        properties.scenarios_are_permutations,
        ensemble(),
        broken(finish_position=[[[1, 2, 0], [2, 2, 0]]]),
        "7",
    ),
    "scenario_laps_led": (
        properties.scenario_laps_add_up,
        ensemble(),
        broken(laps_led=[[[4, 6, 0], [9, 0, 0]]]),
        "7",
    ),
    "scenario_fastest_laps": (
        properties.scenario_laps_add_up,
        ensemble(),
        broken(fastest_laps=[[[4, 4, 0], [9, 0, 0]]]),
        "7",
    ),
    "features": (properties.features_know_only_the_past, features(0), features(202102), "7"),
    "networks": (
        properties.networks_know_only_the_past,
        ensemble(),
        broken(network_as_of=[202102]),
        "7",
    ),
    "calibrations": (
        properties.calibrations_know_only_the_past,
        ensemble(),
        broken(calibration_as_of=[202103]),
        "7",
    ),
    "r_hat": (
        properties.r_hat_is_low,
        convergence(1.049, 900),
        convergence(1.05, 900),
        "intercept",
    ),
    "ess": (
        properties.ess_is_high,
        convergence(1.0, 401),
        convergence(1.0, 400),
        "intercept",
    ),
    "coverage": (properties.coverage_is_near_nominal, metrics(0.71), metrics(0.69), "recalibrated at 80 %"),
    "joint_events": (
        properties.joint_events_are_near_observed,
        events(0.1),
        events(0.11),
        "count(dnf) >= 8 (recalibrated)",
    ),
    "divergences": (
        properties.nothing_diverged,
        convergence(1.0, 900),
        convergence(1.0, 900).with_columns(divergences=3),
        "3 transitions diverged, in the fits of 2021-1",
    ),
}


@pytest.mark.parametrize("name", GOOD_AND_BAD)
def test_property_holds_of_good_values_and_fails_of_bad_ones(name: str) -> None:
    find, good, bad, named = GOOD_AND_BAD[name]
    assert find(good).passed
    finding: Finding = find(bad)
    assert not finding.passed
    assert named in finding.sentence
    assert {"estimate", "threshold", "n"} <= set(finding.metadata)


def test_r_hat_that_cannot_be_computed_does_not_pass() -> None:
    assert not properties.r_hat_is_low(convergence(None, 900)).passed


def test_races_with_unknown_laps_are_left_out_of_the_sum() -> None:
    unknown = RESULTS.with_columns(race_laps=pl.Series([None, None, 10, 10], dtype=pl.Int64))
    finding = properties.results_laps_led_add_up(unknown)
    assert finding.passed
    assert finding.metadata["n"] == 1


def test_values_without_races_pass_and_say_so() -> None:
    for find, empty in (
        (properties.coverage_is_near_nominal, metrics(0.5).clear()),
        (properties.joint_events_are_near_observed, events(0).clear()),
        (properties.r_hat_is_low, convergence(1.0, 900).clear()),
        (properties.scenarios_are_permutations, ensemble().isel(race=slice(0))),
    ):
        assert find(empty).passed
        assert find(empty).metadata["n"] == 0


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
def test_errors_block_what_follows_and_warnings_do_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    severity: dg.AssetCheckSeverity,
    damage: bool,
    downstream: bool,
) -> None:
    required = Property(
        "lap_aggregates", "holds", severity, "It holds.", lambda _: Finding(False, "Not so.", {})
    )
    monkeypatch.setattr("assets.checks.PROPERTIES", (required,))

    class Damaging(ParquetIOManager):
        def serialise(self, value: pl.DataFrame) -> bytes:
            return super().serialise(value.with_columns(top15_share=2.0) if damage else value)

    @dg.asset(io_manager_key="parquet", partitions_def=dg.StaticPartitionsDefinition(["2020", "2021"]))
    def lap_aggregates() -> pl.DataFrame:
        return LAPS

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["2020", "2021"]), deps=[lap_aggregates])
    def after() -> None:
        pass

    assets = [lap_aggregates, after]
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*assets, *build_checks(assets)],
            instance=instance,
            partition_key="2021",
            resources={"parquet": Damaging(UPath(tmp_path))},
            raise_on_error=False,
        )
    evaluations = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert evaluations["contract"].passed is not damage
    assert not evaluations["holds"].passed
    if damage:
        assert "top15_share" in str(evaluations["contract"].description)
    else:
        assert evaluations["holds"].description == "Not so."
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert ("after" in made) is downstream
