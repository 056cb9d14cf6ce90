"""Asset checks: which property is checked at which asset, and whether its failure stops what follows.

Broken data and forecasts that know the future block; poor calibration warns. The properties themselves are
in `properties`.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import dagster as dg
import xarray as xr
from upath import UPath

from calibration_pipeline.calibration.summaries import convergence_by_fold

from . import properties
from .contracts import BOUNDARIES, ContractError
from .properties import Finding
from .storage import stored_value

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
CONTRACT = "contract"
READ_AGAIN = "What is stored, read again, fulfils the contract of its boundary."
Partitions = dg.PartitionsDefinition | None


class Property(NamedTuple):
    """A property that an asset's values must have; of a fit, its convergence by fold."""

    asset: str
    name: str
    severity: dg.AssetCheckSeverity
    description: str
    find: Callable[[Any], Finding]


PROPERTIES = (
    Property(
        "race_results",
        "finishes_are_permutations",
        ERROR,
        "Every place of a race is taken once.",
        properties.results_are_permutations,
    ),
    Property(
        "race_results",
        "laps_led_add_up",
        WARN,
        "The laps led of a race add up to the laps that it ran; a few real races are off by one.",
        properties.results_laps_led_add_up,
    ),
    Property(
        "driver_features",
        "nothing_from_the_future",
        ERROR,
        "No feature knows the race itself or a later one.",
        properties.features_know_only_the_past,
    ),
    Property(
        "scenario_ensemble",
        "finishes_are_permutations",
        ERROR,
        "Every place is taken once in every scenario.",
        properties.scenarios_are_permutations,
    ),
    Property(
        "scenario_ensemble",
        "laps_add_up",
        ERROR,
        "In every scenario laps led add up to the race's laps, and fastest laps to its green laps.",
        properties.scenario_laps_add_up,
    ),
    Property(
        "scenario_ensemble",
        "nothing_from_the_future",
        ERROR,
        "The network that sampled a race was fitted on earlier races alone.",
        properties.networks_know_only_the_past,
    ),
    Property(
        "calibration_posterior",
        "r_hat",
        ERROR,
        "Every parameter of every fit has a rank-normalised R-hat below 1.05.",
        properties.r_hat_is_low,
    ),
    Property(
        "calibration_posterior",
        "effective_sample_size",
        WARN,
        "Every parameter of every fit has bulk and tail effective sample sizes above 400.",
        properties.ess_is_high,
    ),
    Property(
        "calibration_posterior",
        "divergences",
        WARN,
        "No transition of any fit's sampler diverged.",
        properties.nothing_diverged,
    ),
    Property(
        "recalibrated_ensemble",
        "finishes_are_permutations",
        ERROR,
        "Every place is taken once in every scenario.",
        properties.scenarios_are_permutations,
    ),
    Property(
        "recalibrated_ensemble",
        "laps_add_up",
        ERROR,
        "In every scenario laps led add up to the race's laps, and fastest laps to its green laps.",
        properties.scenario_laps_add_up,
    ),
    Property(
        "recalibrated_ensemble",
        "nothing_from_the_future",
        ERROR,
        "The network that sampled a race was fitted on earlier races alone.",
        properties.networks_know_only_the_past,
    ),
    Property(
        "backtest",
        "nothing_from_the_future",
        ERROR,
        "The calibration that is applied to a race saw only earlier races.",
        properties.calibrations_know_only_the_past,
    ),
    Property(
        "pooled_posterior",
        "r_hat",
        ERROR,
        "Every parameter of every fit has a rank-normalised R-hat below 1.05.",
        properties.r_hat_is_low,
    ),
    Property(
        "pooled_posterior",
        "effective_sample_size",
        WARN,
        "Every parameter of every fit has bulk and tail effective sample sizes above 400.",
        properties.ess_is_high,
    ),
    Property(
        "pooled_posterior",
        "divergences",
        WARN,
        "No transition of any fit's sampler diverged.",
        properties.nothing_diverged,
    ),
    Property(
        "calibration_metrics",
        "coverage",
        WARN,
        "Central intervals cover within 10 points of what they say.",
        properties.coverage_is_near_nominal,
    ),
    Property(
        "joint_event_validation",
        "calibration_error",
        WARN,
        "Joint events happen within 0.1 of as often as predicted.",
        properties.joint_events_are_near_observed,
    ),
    Property(
        "race_forecast",
        "finishes_are_permutations",
        ERROR,
        "Every place is taken once in every scenario.",
        properties.scenarios_are_permutations,
    ),
)


def build_checks(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Return the checks of the assets that are in the graph, cut like them."""
    cuts = {spec.key.to_user_string(): spec.partitions_def for asset in assets for spec in asset.specs}
    return [asset_checks(asset, cut) for asset, cut in cuts.items() if asset in BOUNDARIES]


def asset_checks(asset: str, cut: Partitions) -> dg.AssetChecksDefinition:
    """Return the checks of one asset: its contract, and its properties. They read their partition once.

    Parameters
    ----------
    asset : str
    cut : dagster.PartitionsDefinition or None
        Partitions of the asset.
    """
    required = [one for one in PROPERTIES if one.asset == asset]

    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=[
            _spec(asset, CONTRACT, ERROR, READ_AGAIN, cut),
            *(_spec(asset, one.name, one.severity, one.description, cut) for one in required),
        ],
        ins={"stored": dg.AssetKey(asset)},
    )
    def checks(stored: UPath) -> Iterator[dg.AssetCheckResult]:
        try:
            value = stored_value(stored, asset, stored.stem if cut else None)
        except ContractError as error:
            broken = Finding(False, str(error), {})
            yield _result(asset, CONTRACT, ERROR, broken)
            for one in required:
                yield _result(asset, one.name, one.severity, Finding(False, "The contract is broken.", {}))
            return
        contract = {"contract": BOUNDARIES[asset].__name__}
        yield _result(asset, CONTRACT, ERROR, Finding(True, READ_AGAIN, contract))
        judged = convergence_by_fold(value) if isinstance(value, xr.DataTree) else value
        for one in required:
            yield _result(asset, one.name, one.severity, one.find(judged))

    return checks


def _spec(
    asset: str, name: str, severity: dg.AssetCheckSeverity, description: str, cut: Partitions
) -> dg.AssetCheckSpec:
    with warnings.catch_warnings(action="ignore", category=dg.PreviewWarning):
        return dg.AssetCheckSpec(
            name, asset=asset, description=description, blocking=severity == ERROR, partitions_def=cut
        )


def _result(asset: str, name: str, severity: dg.AssetCheckSeverity, finding: Finding) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(asset),
        check_name=name,
        passed=finding.passed,
        severity=severity,
        description=finding.sentence,
        metadata=finding.metadata,
    )
