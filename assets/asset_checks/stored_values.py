"""Asset checks: which property is checked at which asset, and whether its failure blocks what follows.

Broken data and forecasts that know the future block; poor calibration warns. The properties themselves are
in `properties`. A rule that a contract enforces needs no check here.

Dagster's page on the concept: https://docs.dagster.io/guides/test/asset-checks.
"""

import warnings
from collections.abc import Iterable, Iterator

import dagster as dg
import xarray as xr
from upath import UPath

from calibration_pipeline.calibration.summaries import convergence_by_fold
from calibration_pipeline.checks.properties import PROPERTIES, Finding, Property
from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.io.stored_values import read_value
from calibration_pipeline.schemas.contracts import BOUNDARIES, ContractError

from ..flow.metadata import number

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
CONTRACT = "contract"
READ_AGAIN = "The stored value, read again, fulfils the contract of its asset."
NOT_CHECKED = "Not checked, since the contract is broken."


def build_checks(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Return the checks of those assets that have a contract, partitioned like them.

    Parameters
    ----------
    assets : iterable of dagster.AssetsDefinition
        Contract and properties are looked up by the last part of each asset's key.
    """
    specs = [spec for asset in assets for spec in asset.specs]
    return [asset_checks(spec) for spec in specs if spec.key.path[-1] in BOUNDARIES]


def asset_checks(asset: dg.AssetSpec) -> dg.AssetChecksDefinition:
    """Return the checks of one asset: its contract, and its properties. They read each partition once."""
    key, name = asset.key, asset.key.path[-1]
    required = [each for each in PROPERTIES if name in each.assets]

    @dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_checks",
        specs=[
            _spec(asset, CONTRACT, ERROR, READ_AGAIN),
            *(_spec(asset, each.name, _severity(each), each.description) for each in required),
        ],
        ins={"stored": key},
    )
    def checks(context: dg.AssetCheckExecutionContext, stored: UPath) -> Iterator[dg.AssetCheckResult]:
        partition = context.partition_key if context.has_partition_key else None
        try:
            value = read_value(stored, name, partition)
        except ContractError as error:
            yield _result(key, CONTRACT, ERROR, Finding(False, str(error), {}))
            for each in required:
                yield _result(key, each.name, _severity(each), Finding(False, NOT_CHECKED, {}))
            return
        contract = {"contract": BOUNDARIES[name].__name__}
        yield _result(key, CONTRACT, ERROR, Finding(True, READ_AGAIN, contract))
        if required and isinstance(value, xr.DataTree):
            value = convergence_by_fold(value)
        for each in required:
            yield _result(key, each.name, _severity(each), each.find(value))

    return checks


def _severity(required: Property) -> dg.AssetCheckSeverity:
    return ERROR if required.blocks else WARN


def _spec(
    asset: dg.AssetSpec, name: str, severity: dg.AssetCheckSeverity, description: str
) -> dg.AssetCheckSpec:
    with warnings.catch_warnings(action="ignore", category=dg.PreviewWarning):
        return dg.AssetCheckSpec(
            name,
            asset=asset.key,
            description=description,
            blocking=severity == ERROR,
            partitions_def=asset.partitions_def,
        )


def _result(
    asset: dg.AssetKey, name: str, severity: dg.AssetCheckSeverity, finding: Finding
) -> dg.AssetCheckResult:
    """Return a finding as Dagster takes it; the UI renders the description of an evaluation as Markdown."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=finding.passed,
        severity=severity,
        description=escape_text(finding.sentence),
        metadata={
            name: number(value) if isinstance(value, int | float) else value
            for name, value in finding.metadata.items()
        },
    )
