"""Group `verification`: how good the forecasts are on races that no fit had seen, and what follows."""

from collections.abc import Sequence

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline import figures, plotting
from calibration_pipeline.addresses import without_credentials
from calibration_pipeline.calibration.recalibration import scored_races
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.verification import joint_events, metric_table, reliability, verdicts

from .calibration import (
    own_races_of_every_season,
    own_recalibrated_races,
    own_scenarios_of_every_season,
)
from .events import judged_events
from .metadata import OWNERS, boundary, plot, plotted_scores, rows, table
from .partitions import ARCHETYPE_PARTITIONS
from .settings import Settings

GROUP = "verification"
ENSEMBLES = {
    "scenario_ensemble": own_scenarios_of_every_season,
    "recalibrated_ensemble": own_recalibrated_races,
}
OUTCOMES = {"race_results": own_races_of_every_season, **ENSEMBLES}
SHOWN_COLUMNS = (
    "forecast",
    "event",
    "predicted",
    "observed",
    "z",
    "p_value",
    "p_together",
    "gain",
    "n_races",
)
SHOWN_EVENTS = ("win", "top 5", "top 10", "head to head")


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="3",
    io_manager_key="parquet",
    ins=ENSEMBLES,
    metadata=boundary("calibration_metrics"),
)
def calibration_metrics(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scenario_ensemble: dict[str, xr.Dataset],
    recalibrated_ensemble: xr.Dataset,
    backtest: xr.Dataset,
) -> dg.Output[pl.DataFrame]:
    """Score raw and recalibrated forecasts beside baselines, with race-clustered intervals."""
    ensembles = judged_ensembles(
        list(scenario_ensemble.values()), recalibrated_ensemble, context.partition_key
    )
    metrics = metric_table.score_backtest(backtest, ensembles, settings.seed)
    figure, ax = figures.figure_axes()
    plotting.draw_coverage(ax, metrics.filter(quantity="coverage"))
    shown = metrics.filter(pl.col("quantity").is_in(["crps", "log_score", "coverage", "head_to_head_slope"]))
    columns = ("forecast", "quantity", "level", "estimate", "lower", "upper", "n_races")
    return dg.Output(
        metrics,
        metadata={
            **rows(metrics),
            **plotted_scores(metrics),
            "seed": settings.seed,
            "coverage": plot(figure),
            "scores": table(shown.select(columns), 40),
        },
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="2",
    io_manager_key="parquet",
    ins=ENSEMBLES,
    metadata=boundary("calibration_curves"),
)
def calibration_curves(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    scenario_ensemble: dict[str, xr.Dataset],
    recalibrated_ensemble: xr.Dataset,
    backtest: xr.Dataset,
) -> dg.Output[pl.DataFrame]:
    """Hold predicted probabilities of binary events against how often they happened, with isotonic fits."""
    ensembles = judged_ensembles(
        list(scenario_ensemble.values()), recalibrated_ensemble, context.partition_key
    )
    curves = reliability.calibration_curves(backtest, ensembles, settings.seed)
    plots = {}
    for event in SHOWN_EVENTS:
        figure, panels = figures.figure_pair()
        plotting.draw_reliability(panels, curves.filter(event=event))
        plots[event.replace(" ", "_")] = plot(figure)
    return dg.Output(curves, metadata={**rows(curves), "seed": settings.seed, **plots})


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="3",
    io_manager_key="parquet",
    ins=OUTCOMES,
    metadata=boundary("joint_event_validation"),
)
def joint_event_validation(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    scenario_ensemble: dict[str, xr.Dataset],
    recalibrated_ensemble: xr.Dataset,
) -> dg.Output[pl.DataFrame]:
    """Hold predicted probabilities of joint events, as "led a lap and top 10", against results."""
    ensembles = judged_ensembles(
        list(scenario_ensemble.values()), recalibrated_ensemble, context.partition_key
    )
    results = pl.concat(race_results.values())
    chosen = judged_events(settings.events)
    events, skipped = joint_events.validate_events(ensembles, results, chosen, settings.seed)
    figure, ax = figures.figure_axes(height=figures.rows_height(max(events["event"].n_unique(), 2)))
    plotting.draw_joint_events(ax, events)
    return dg.Output(
        events,
        metadata={
            **rows(events),
            "skipped": "; ".join(f"{event}: {why}" for event, why in skipped.items()) or "none",
            "events_of": without_credentials(settings.events or "the default ones"),
            "seed": settings.seed,
            "joint_events": plot(figure),
            "events": table(events.select(SHOWN_COLUMNS), 40),
        },
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="2",
    io_manager_key="parquet",
    metadata=boundary("verdict"),
)
def verdict(
    context: dg.AssetExecutionContext,
    backtest: xr.Dataset,
    calibration_metrics: pl.DataFrame,
    joint_event_validation: pl.DataFrame,
) -> dg.Output[pl.DataFrame]:
    """Rule whether the archetype's forecasts can be trusted, with the lines of evidence that decide it."""
    n_calibrated = int((backtest["n_calibration_races"] > 0).sum())
    ruling = verdicts.judge(context.partition_key, calibration_metrics, joint_event_validation, n_calibrated)
    frame = verdicts.verdict_table(ruling)
    return dg.Output(
        frame,
        metadata={
            "verdict": ruling.verdict,
            "evidence": dg.MetadataValue.md("\n".join(f"- {line}" for line in ruling.evidence)),
        },
    )


def judged_ensembles(
    raw: Sequence[xr.Dataset], recalibrated: xr.Dataset, archetype: str
) -> dict[str, xr.Dataset]:
    """Return the archetype's ensembles by forecast, of the races that the backtest scores."""
    forecasts = {"raw": join_seasons(raw, archetype), "recalibrated": recalibrated}
    return {forecast: scored_races(ensemble) for forecast, ensemble in forecasts.items()}
