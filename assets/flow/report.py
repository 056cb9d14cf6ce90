"""Group `report`: the calibration report, and the catalogue of all stored tables.

Modules that need JAX or ArviZ are imported inside the functions that compute.
"""

from typing import Any, cast

import dagster as dg
import polars as pl
import xarray as xr
from upath import UPath

from calibration_pipeline.analysis.provenance import shown_settings
from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.events.files import judged_events
from calibration_pipeline.forecasters.folder import NETWORK, Form
from calibration_pipeline.io.sql import build_catalogue
from calibration_pipeline.schemas.partition_keys import archetype_of, by_archetype
from calibration_pipeline.schemas.quarantine import Quarantine
from calibration_pipeline.terminal.summary import score_rows, verdict_rows

from ..orchestration.jobs import REPORT
from ..partitions import SHOWN_PARTITIONS
from ..settings import Settings
from ..storage.io_manager import ALLOW_MISSING, PATH, depends_on
from .comparison import existing_partitions
from .metadata import rows, table

SUMMARY = "summary"
PACKAGES = ("calibration-pipeline", "jax", "numpyro", "arviz", "xarray", "polars", "duckdb", "dagster")
OF_PROBABILITIES = ("{}_probabilities", "recalibrated_{}s", "{}_posterior", "{}_state", "{}_verdict")
"""Assets of a form of probabilities that its report reads."""
NOUNS = {"event": Form.EVENTS, "position": Form.POSITIONS}


@dg.asset(
    partitions_def=SHOWN_PARTITIONS,
    kinds={"matplotlib", "parquet"},
    code_version="4",
    metadata=depends_on("seed"),
)
def report_pictures(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    calibration_metrics: pl.DataFrame,
    joint_event_validation: pl.DataFrame,
    calibration_curves: pl.DataFrame,
    calibration_monitoring: pl.DataFrame,
    backtest: xr.Dataset,
    calibration_posterior: xr.DataTree,
) -> dg.Output[pl.DataFrame]:
    """Pictures of an archetype in the report: calibration, joint events, monitoring and its fit."""
    from calibration_pipeline.report import archetype_pictures
    from calibration_pipeline.verification.reliability import pit_ecdf

    archetype = archetype_of(context.partition_key)
    pictures = archetype_pictures(
        parse_archetype(archetype),
        calibration_metrics,
        joint_event_validation,
        calibration_curves,
        pit_ecdf(backtest, settings.seed),
        calibration_monitoring,
        calibration_posterior,
    )
    frame = pl.DataFrame(
        {"archetype": archetype, "picture": list(pictures), "png": list(pictures.values())},
        schema_overrides={"png": pl.Binary},
    )
    return dg.Output(frame, metadata={**rows(frame), "pictures": ", ".join(pictures)})


@dg.asset(
    kinds={"html", "markdown"},
    code_version="14",
    metadata=depends_on(
        *("source", "tracks", "seasons", "fold_races", "network", "forecaster", "forecasters"),
        *("margin", "nicknames", "events", "eras", "scenarios", "seed"),
    ),
    ins=dict.fromkeys(
        (
            *("calibration_metrics", "joint_event_validation", "calibration_curves", "verdict"),
            *("calibration_monitoring", "report_pictures", "backtest", "calibration_posterior"),
            "race_results",
        ),
        existing_partitions,
    )
    | dict.fromkeys(
        (
            *("quarantine", "scenario_quarantine", "event_quarantine", "position_quarantine"),
            *(asset.format(noun) for asset in OF_PROBABILITIES for noun in NOUNS),
        ),
        dg.AssetIn(metadata={ALLOW_MISSING: True}, dagster_type=dict[str, Any]),
    ),
)
def calibration_report(
    settings: dg.ResourceParam[Settings],
    calibration_metrics: dict[str, pl.DataFrame],
    joint_event_validation: dict[str, pl.DataFrame],
    calibration_curves: dict[str, pl.DataFrame],
    calibration_monitoring: dict[str, pl.DataFrame],
    verdict: dict[str, pl.DataFrame],
    report_pictures: dict[str, pl.DataFrame],
    backtest: dict[str, xr.Dataset],
    calibration_posterior: dict[str, xr.DataTree],
    pooled_posterior: dict[str, xr.DataTree],
    calibration_state: dict[str, xr.DataTree],
    model_comparison: dict[str, pl.DataFrame],
    race_forecast: dict[str, xr.Dataset],
    forecast_chances: dict[str, pl.DataFrame],
    forecast_events: dict[str, pl.DataFrame],
    forecaster_chances: pl.DataFrame,
    leaderboard: pl.DataFrame,
    race_results: dict[str, pl.DataFrame],
    **others: dict[str, Any],
) -> dg.Output[dict[str, bytes]]:
    """Report with the matrix of verdicts and the evidence, as one page and its Markdown twin."""
    from calibration_pipeline.forecast.next_race import forecast_notes
    from calibration_pipeline.report import assembly, render_html, render_markdown

    shown = settings.shown_forecaster
    if not (by_archetype(verdict, shown) or any(shown in others[f"{noun}_verdict"] for noun in NOUNS)):
        raise ValueError(f"No verdict of {shown} is stored; --select +{REPORT} materializes all it needs.")
    simulator = shown if shown in race_forecast else NETWORK
    next_race = race_forecast[simulator]
    circumstances = assembly.Circumstances(
        assembly.NextRaceForecast(
            next_race,
            forecast_chances[simulator],
            forecast_events[simulator],
            forecast_notes(next_race),
            forecaster_chances,
        ),
        leaderboard,
        pl.concat([Quarantine.empty(), *others["quarantine"].values()]),
        {key: own for kind in ("scenario", *NOUNS) for key, own in others[f"{kind}_quarantine"].items()},
        shown_settings(settings, settings.season_list, settings.fold_length),
        assembly.package_versions(PACKAGES),
    )
    if shown in race_forecast:
        evidence = assembly.Evidence(
            by_archetype(calibration_posterior, shown),
            by_archetype(verdict, shown),
            by_archetype(calibration_metrics, shown),
            by_archetype(joint_event_validation, shown),
            by_archetype(calibration_curves, shown),
            by_archetype(calibration_monitoring, shown),
            by_archetype(backtest, shown),
        )
        pooled = assembly.PooledEvidence(
            pooled_posterior[shown], calibration_state[shown], model_comparison[shown]
        )
        content = assembly.assemble_content(
            evidence, pooled, judged_events(settings.events), circumstances, settings.seed
        )
    else:
        noun = next(name for name in NOUNS if shown in others[f"{name}_verdict"])
        raw, recalibrated, *stored = (others[asset.format(noun)][shown] for asset in OF_PROBABILITIES)
        evidence_of_form = assembly.ProbabilityEvidence(
            {"raw": raw, "recalibrated": recalibrated}, pl.concat(race_results.values()), *stored
        )
        content = assembly.assemble_probabilities(NOUNS[noun], evidence_of_form, circumstances, settings.seed)
    pictures = {
        name: png
        for frame in by_archetype(report_pictures, shown).values()
        for name, png in frame.select("picture", "png").iter_rows()
    }
    markdown = render_markdown(content)
    verdicts = verdict_rows(content.verdicts)
    scores = score_rows(content.archetypes, content.metrics, content.convergence)
    return dg.Output(
        {".html": render_html(content, pictures).encode(), ".md": markdown.encode()},
        metadata={
            SUMMARY: {"verdicts": verdicts, "scores": scores},
            "verdicts": table(pl.DataFrame(verdicts), len(verdicts)),
            "summary_page": dg.MetadataValue.md(markdown),
        },
    )


@dg.asset(kinds={"duckdb"}, code_version="2")
def catalogue(
    settings: dg.ResourceParam[Settings],
    calibration_report: UPath,  # noqa: ARG001  # the tables that the report was written from are all there
) -> dg.Output[dict[str, bytes]]:
    """DuckDB file of views over all tables, for any DuckDB client."""
    data, views = build_catalogue(settings.store_path)
    return dg.Output({".duckdb": data}, metadata={"views": table(views, 40)})


def stored_summary(
    instance: dg.DagsterInstance, settings: Settings
) -> tuple[dict[str, list[dict[str, str]]], str]:
    """Return the last report's summary, rows of verdicts and of scores, and the report's path.

    Raises
    ------
    LookupError
        If no run recorded a report.
    """
    event = instance.get_latest_materialization_event(dg.AssetKey([*settings.key_prefix, REPORT]))
    if event is None or event.asset_materialization is None:
        raise LookupError(f"No run recorded {REPORT}.")
    metadata = event.asset_materialization.metadata
    return cast("dict[str, list[dict[str, str]]]", metadata[SUMMARY].value), str(metadata[PATH].value)
