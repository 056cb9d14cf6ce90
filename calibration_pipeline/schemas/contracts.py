"""Pandera contracts by asset, validation against them, and the message of a failure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandera.polars
import pandera.xarray
import polars as pl
import xarray as xr
from pandera.errors import SchemaError, SchemaErrors

from calibration_pipeline.schemas import (
    comparison,
    datasets,
    forecasters,
    forecasts,
    frames,
    histories,
    monitoring,
    quarantine,
)

SHOWN_FAILURES = 3
SHOWN_CASES = 3

BOUNDARIES: Mapping[str, Any] = {
    "track_constraints": frames.TrackTable,
    "lap_telemetry": frames.LapTelemetry,
    "race_results": frames.RaceResults,
    "quarantine": quarantine.Quarantine,
    "lap_aggregates": frames.LapAggregates,
    "simulated_truth": datasets.SimulatedTruth,
    "driver_features": frames.DriverFeatures,
    "fold_history": histories.FoldHistory,
    "causal_network": datasets.CausalNetwork,
    "scenario_ensemble": datasets.ScenarioEnsemble,
    "scenario_quarantine": quarantine.Quarantine,
    "race_curves": datasets.RaceCurves,
    "archetype_races": datasets.ArchetypeRaces,
    "calibration_posterior": datasets.CalibrationPosterior,
    "archetype_state": datasets.RaceStates,
    "recalibrated_forecast": datasets.ScenarioEnsemble,
    "backtest": datasets.Backtest,
    "pooled_posterior": datasets.PooledPosterior,
    "calibration_state": datasets.CalibrationState,
    "model_comparison": frames.ModelComparison,
    "calibration_metrics": frames.MetricTable,
    "joint_event_validation": frames.JointEventTable,
    "calibration_curves": frames.CalibrationCurves,
    "calibration_monitoring": monitoring.CalibrationMonitoring,
    "verdict": frames.VerdictTable,
    "report_pictures": frames.ReportPictures,
    "event_probabilities": forecasters.EventProbabilities,
    "event_quarantine": quarantine.Quarantine,
    "event_posterior": forecasters.EventPosterior,
    "event_state": forecasters.EventState,
    "recalibrated_events": forecasters.EventProbabilities,
    "event_verdict": frames.VerdictTable,
    "position_probabilities": forecasters.PositionProbabilities,
    "position_quarantine": quarantine.Quarantine,
    "position_posterior": forecasters.PositionPosterior,
    "position_state": forecasters.MapState,
    "recalibrated_positions": forecasters.PositionProbabilities,
    "position_verdict": frames.VerdictTable,
    "blend_weights": comparison.BlendWeights,
    "market_scores": comparison.MarketScores,
    "leaderboard": comparison.Leaderboard,
    "next_events": forecasters.EventProbabilities,
    "next_positions": forecasters.EventProbabilities,
    "forecaster_chances": comparison.ForecasterChances,
    "blend_forecast": datasets.ScenarioEnsemble,
    "race_forecast": datasets.ScenarioEnsemble,
    "forecast_chances": forecasts.ForecastChances,
    "forecast_events": forecasts.ForecastEvents,
    "forecast_scenarios": forecasts.ForecastScenarios,
}

BY_FORECASTER = (
    "model_comparison",
    "calibration_metrics",
    "joint_event_validation",
    "calibration_curves",
    "calibration_monitoring",
    "report_pictures",
    "event_probabilities",
    "event_quarantine",
    "position_quarantine",
    "recalibrated_events",
    "next_events",
    "next_positions",
    "forecast_chances",
    "forecast_events",
    "forecast_scenarios",
)
"""Tables of one forecaster a file, named after it, that have no column of forecasters."""
BY_FORECASTER_AND_SEASON = ("scenario_quarantine",)
"""Tables of one forecaster a folder, named after it, that have no column of forecasters."""


class ContractError(ValueError):
    """Error of a value that breaks its contract; names asset, partition, variable, rule and values."""


def validate(value: Any, asset: str, partition: str | None = None) -> Any:
    """Return `value` after a check of the contract of `asset`.

    Parameters
    ----------
    value : polars.DataFrame, xarray.Dataset or xarray.DataTree
    asset : str
        A name in `BOUNDARIES`.
    partition : str, optional
        Named in the message.

    Raises
    ------
    ContractError
        If `value` breaks the contract; the message has the first failures in one line.
    """
    try:
        return BOUNDARIES[asset].validate(value, lazy=True)
    except SchemaErrors as error:
        failures = [_message(failure) for failure in error.schema_errors]
        more = f" (and {len(failures) - SHOWN_FAILURES} more)" if len(failures) > SHOWN_FAILURES else ""
        raise ContractError(
            f"{place(asset, partition)} breaks its contract: {' | '.join(failures[:SHOWN_FAILURES])}{more}."
        ) from None


def value_type(asset: str) -> type[pl.DataFrame] | type[xr.Dataset] | type[xr.DataTree]:
    """Return the type of an asset's value.

    Examples
    --------
    >>> value_type("race_results").__name__
    'DataFrame'
    """
    model = BOUNDARIES[asset]
    if issubclass(model, pandera.polars.DataFrameModel):
        return pl.DataFrame
    return xr.DataTree if issubclass(model, pandera.xarray.DataTreeModel) else xr.Dataset


def place(asset: str, partition: str | None) -> str:
    """Return the name of an asset's partition in messages.

    Examples
    --------
    >>> place("race_results", "2021"), place("calibration_report", None)
    ('race_results [2021]', 'calibration_report')
    """
    return f"{asset} [{partition}]" if partition else asset


class Column(NamedTuple):
    """Declaration of a table's column, or of a dataset's variable, in a contract."""

    name: str
    type: str
    description: str | None
    nullable: bool


def declared_columns(asset: str) -> list[Column]:
    """Return the columns or variables of an asset's contract; in a tree, the name starts with the group."""
    return _columns(BOUNDARIES[asset].to_schema())


def _columns(schema: Any, prefix: str = "") -> list[Column]:
    if hasattr(schema, "columns"):
        return [
            Column(name, str(column.dtype), column.description, bool(column.nullable))
            for name, column in schema.columns.items()
        ]
    if hasattr(schema, "children"):
        children = schema.children.items()
        return [column for name, child in children for column in _columns(child, f"{prefix}{name}/")]
    return [
        Column(prefix + name, _array_type(variable), variable.description, bool(variable.nullable))
        for name, variable in {**(schema.coords or {}), **(schema.data_vars or {})}.items()
    ]


def _array_type(variable: Any) -> str:
    dtype = np.dtype(getattr(variable.dtype, "type", variable.dtype))
    return f"{dtype.name} ({', '.join(variable.dims or ())})"


def _message(failure: SchemaError) -> str:
    """Return variable, rule and first values of a failure, on one line."""
    cases = failure.failure_cases
    check = getattr(failure.check, "error", None) or failure.check
    schema = failure.schema
    if isinstance(cases, pl.DataFrame) and cases.width == 1:
        values = ", ".join(repr(value) for value in cases.head(SHOWN_CASES).to_series().to_list())
        return f"{cases.columns[0]} fails {check}, first values {values}"
    if isinstance(cases, pl.DataFrame):
        unique = getattr(schema, "unique", None) or []
        keys = [*unique, *str(check).replace("'", " ").split()]
        shown = [column for column in cases.columns if column in keys] or cases.columns
        rows = "; ".join(str(row) for row in cases.select(shown).head(SHOWN_CASES).to_dicts())
        rule = (
            f"rows must be unique by {', '.join(unique)}" if check == "multiple_fields_uniqueness" else check
        )
        return f"{rule}; first rows {rows}"
    if isinstance(cases, xr.DataArray):
        failing = cases.values[cases.notnull().values]  # values that passed are missing in it
        values = ", ".join(repr(value) for value in failing[:SHOWN_CASES].tolist() or [np.nan])
        return f"{schema.name} fails {check}, first values {values}"
    name = getattr(schema, "name", None)
    text = str(failure).splitlines()[0].removesuffix("naive plan: (run LazyFrame.explain").strip()
    return text if name is None or str(name) in text else f"{name}: {text}"
