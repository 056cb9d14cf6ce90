"""Group `verification`: how good the forecasts are on races that no fit had seen, and what follows."""

import dagster as dg
import polars as pl
import xarray as xr

from assets.calibration import of_every_season, own_races_of_every_season, own_recalibrated_races
from assets.metadata import OWNERS, boundary, plot, rows, table
from assets.partitions import ARCHETYPE_PARTITIONS
from assets.settings import Settings
from calibration_pipeline import figures, plotting
from calibration_pipeline.calibration.recalibration import scored_races
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.verification import joint_events, reliability, scores, verdicts

GROUP = "verification"
OUTCOMES = {
    "race_results": of_every_season,
    "scenario_ensemble": own_races_of_every_season,
    "recalibrated_ensemble": own_recalibrated_races,
}
SHOWN_EVENTS = ("win", "top 5", "top 10", "head to head")


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="parquet",
    metadata=boundary("calibration_metrics"),
)
def calibration_metrics(backtest: xr.Dataset) -> dg.Output[pl.DataFrame]:
    """Score raw and recalibrated forecasts beside two baselines, with race-clustered intervals."""
    metrics = scores.score_backtest(backtest)
    figure, ax = figures.figure_axes()
    plotting.draw_coverage(ax, metrics.filter(quantity="coverage"))
    shown = metrics.filter(pl.col("quantity").is_in(["crps", "log_score", "coverage", "head_to_head_slope"]))
    columns = ("forecast", "quantity", "level", "estimate", "lower", "upper", "n_races")
    return dg.Output(
        metrics,
        metadata={**rows(metrics), "coverage": plot(figure), "scores": table(shown.select(columns), 40)},
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="parquet",
    metadata=boundary("calibration_curves"),
)
def calibration_curves(backtest: xr.Dataset) -> dg.Output[pl.DataFrame]:
    """Hold predicted probabilities of binary events against observed shares, in quantile bins."""
    curves = reliability.calibration_curves(backtest)
    plots = {}
    for event in SHOWN_EVENTS:
        figure, ax = figures.figure_axes()
        plotting.draw_calibration_curve(ax, curves.filter(event=event))
        plots[event.replace(" ", "_")] = plot(figure)
    return dg.Output(curves, metadata={**rows(curves), **plots})


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="parquet",
    ins=OUTCOMES,
    metadata=boundary("joint_event_validation"),
)
def joint_event_validation(
    context: dg.AssetExecutionContext,
    race_results: dict[str, pl.DataFrame],
    scenario_ensemble: dict[str, xr.Dataset],
    recalibrated_ensemble: xr.Dataset,
) -> dg.Output[pl.DataFrame]:
    """Hold predicted probabilities of joint events, as "led a lap and top 10", against results."""
    ensembles = _judged_ensembles(scenario_ensemble, recalibrated_ensemble, context.partition_key)
    events, skipped = joint_events.validate_events(ensembles, pl.concat(race_results.values()))
    figure, ax = figures.figure_axes(height=figures.rows_height(max(events["event"].n_unique(), 2)))
    plotting.draw_joint_events(ax, events)
    return dg.Output(
        events,
        metadata={
            **rows(events),
            "skipped": "; ".join(f"{event}: {why}" for event, why in skipped.items()) or "none",
            "joint_events": plot(figure),
            "events": table(events.select("forecast", "event", "predicted", "observed", "z", "n_races")),
        },
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"polars", "parquet"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="parquet",
    ins=OUTCOMES,
    metadata=boundary("verdict"),
)
def verdict(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    scenario_ensemble: dict[str, xr.Dataset],
    recalibrated_ensemble: xr.Dataset,
    backtest: xr.Dataset,
    calibration_metrics: pl.DataFrame,
) -> dg.Output[pl.DataFrame]:
    """Rule whether the archetype's forecasts can be trusted, with the lines of evidence that decide it."""
    ensembles = _judged_ensembles(scenario_ensemble, recalibrated_ensemble, context.partition_key)
    results = pl.concat(race_results.values())
    tests = {
        forecast: joint_events.joint_test(ensemble, results, seed=settings.seed, reference=ensembles["raw"])
        for forecast, ensemble in ensembles.items()
        if ensemble.sizes["race"]
    }
    n_calibrated = int((backtest["n_calibration_races"] > 0).sum())
    ruling = verdicts.judge(context.partition_key, calibration_metrics, tests, n_calibrated)
    frame = verdicts.verdict_table(ruling)
    return dg.Output(
        frame,
        metadata={
            "verdict": ruling.verdict,
            "evidence": dg.MetadataValue.md("\n".join(f"- {line}" for line in ruling.evidence)),
            "seed": settings.seed,
        },
    )


def _judged_ensembles(
    raw: dict[str, xr.Dataset], recalibrated: xr.Dataset, archetype: str
) -> dict[str, xr.Dataset]:
    """Return the archetype's ensembles by forecast, of the races that the backtest scores."""
    forecasts = {"raw": join_seasons(list(raw.values()), archetype), "recalibrated": recalibrated}
    return {forecast: scored_races(ensemble) for forecast, ensemble in forecasts.items()}
