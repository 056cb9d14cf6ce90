"""Group `verification`: scores of the forecasts on races that no recalibration had seen, and the verdicts.

Modules that need JAX are imported inside the functions that compute.
"""

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.events.files import judged_events
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.schemas.partition_keys import split_key
from calibration_pipeline.seasons import ALL_RACES

from ..partitions import ARCHETYPE_PARTITIONS
from ..settings import Settings
from ..storage.io_manager import depends_on
from .calibration import outcomes_alone
from .metadata import bullets, chart, numbers, plot, rows, table

FORECASTS = {"recalibrated_forecast": outcomes_alone}
SHOWN_COLUMNS = (
    *("era", "forecast", "event", "predicted", "observed"),
    *("z", "p_value", "p_together", "gain", "n_races"),
)
SHOWN_VERDICTS = ("era", "market", "verdict", "recalibration", "races_needed", "n_races", "evidence")
SHOWN_EVENTS = ("win", "top 5", "top 10", "head to head")


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    code_version="5",
    ins=FORECASTS,
    metadata=depends_on("seed"),
)
def calibration_metrics(
    settings: dg.ResourceParam[Settings],
    archetype_races: xr.DataTree,
    recalibrated_forecast: xr.Dataset,
    backtest: xr.Dataset,
) -> dg.Output[pl.DataFrame]:
    """Scores of raw and recalibrated forecasts beside baselines, with race-clustered intervals."""
    from calibration_pipeline.plots import charts
    from calibration_pipeline.verification import metric_table
    from calibration_pipeline.verification.backtest import scored_forecasts

    forecasts = scored_forecasts(archetype_races, recalibrated_forecast)
    metrics = metric_table.score_backtest(backtest, forecasts, settings.seed)
    shown = metrics.filter(pl.col("quantity").is_in(["crps", "log_score", "coverage", "head_to_head_slope"]))
    columns = ("forecast", "quantity", "level", "estimate", "lower", "upper", "n_races")
    return dg.Output(
        metrics,
        metadata={
            **rows(metrics),
            **numbers(metric_table.headline_scores(metrics)),
            "coverage": chart(charts.draw_coverage, metrics.filter(quantity="coverage")),
            "scores": table(shown.select(columns), 40),
        },
    )


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    code_version="3",
    ins=FORECASTS,
    metadata=depends_on("seed"),
)
def calibration_curves(
    settings: dg.ResourceParam[Settings],
    archetype_races: xr.DataTree,
    recalibrated_forecast: xr.Dataset,
    backtest: xr.Dataset,
) -> dg.Output[pl.DataFrame]:
    """Predicted probabilities of binary events against how often they happened, with isotonic fits."""
    from calibration_pipeline.plots import charts, figures
    from calibration_pipeline.verification import reliability
    from calibration_pipeline.verification.backtest import scored_forecasts

    forecasts = scored_forecasts(archetype_races, recalibrated_forecast)
    curves = reliability.calibration_curves(backtest, forecasts, settings.seed)
    plots = {}
    for event in SHOWN_EVENTS:
        figure, panels = figures.figure_pair(event.capitalize())
        charts.draw_reliability(panels, curves.filter(event=event))
        plots[event.replace(" ", "_")] = plot(figure)
    return dg.Output(curves, metadata={**rows(curves), **plots})


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    code_version="6",
    ins=FORECASTS,
    metadata=depends_on("seed", "events", "eras"),
)
def joint_event_validation(
    settings: dg.ResourceParam[Settings], archetype_races: xr.DataTree, recalibrated_forecast: xr.Dataset
) -> dg.Output[pl.DataFrame]:
    """Predicted probabilities of joint events, as "led a lap and top 10", against results."""
    from calibration_pipeline.calibration.archetype_races import results_table
    from calibration_pipeline.plots import charts
    from calibration_pipeline.verification import joint_events
    from calibration_pipeline.verification.backtest import scored_forecasts

    events, skipped = joint_events.validate_events(
        scored_forecasts(archetype_races, recalibrated_forecast),
        results_table(archetype_races),
        judged_events(settings.events),
        settings.seed,
        settings.era_starts,
    )
    shown = events.filter(era=ALL_RACES)
    return dg.Output(
        events,
        metadata={
            **rows(events),
            "skipped": bullets([f"{event}: {why}" for event, why in skipped.items()]),
            "events_of": without_credentials(settings.events or "the default ones"),
            "joint_events": chart(charts.draw_joint_events, shown, n_rows=shown["event"].n_unique()),
            "events": table(events.select(SHOWN_COLUMNS), 40),
        },
    )


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    code_version="2",
    ins=FORECASTS,
    metadata=depends_on("seed"),
)
def calibration_monitoring(
    settings: dg.ResourceParam[Settings], archetype_races: xr.DataTree, recalibrated_forecast: xr.Dataset
) -> dg.Output[pl.DataFrame]:
    """Evidence against calibration after each race, by market, valid however often one looks."""
    from calibration_pipeline.calibration.archetype_races import results_table
    from calibration_pipeline.plots.monitoring import draw_evidence
    from calibration_pipeline.verification.backtest import scored_forecasts
    from calibration_pipeline.verification.monitoring import list_alarms, monitor_forecasts

    forecasts = scored_forecasts(archetype_races, recalibrated_forecast)
    monitoring = monitor_forecasts(forecasts, results_table(archetype_races), settings.seed)
    return dg.Output(
        monitoring,
        metadata={
            **rows(monitoring),
            "evidence": chart(draw_evidence, monitoring),
            "alarms": table(list_alarms(monitoring), 40),
        },
    )


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    code_version="5",
    ins=FORECASTS,
    metadata=depends_on("eras"),
)
def verdict(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    archetype_races: xr.DataTree,
    recalibrated_forecast: xr.Dataset,
    backtest: xr.Dataset,
    joint_event_validation: pl.DataFrame,
) -> dg.Output[pl.DataFrame]:
    """Rulings whether the archetype's forecasts can be trusted, by era and market, with the evidence."""
    from calibration_pipeline.calibration.archetype_races import results_table
    from calibration_pipeline.verification.backtest import scored_forecasts
    from calibration_pipeline.verification.verdicts import matrix

    archetype, forecaster = split_key(context.partition_key)
    verdicts = matrix.judge_eras(
        backtest,
        scored_forecasts(archetype_races, recalibrated_forecast),
        results_table(archetype_races),
        joint_event_validation,
        settings.era_starts,
    )
    frame = matrix.verdict_table(forecaster, archetype, verdicts)
    cells = frame.filter(line=1).select(SHOWN_VERDICTS)
    return dg.Output(frame, metadata={**rows(frame), "verdicts": table(cells, cells.height)})
