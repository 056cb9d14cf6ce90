"""Group `report`: the calibration report."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from urllib.parse import urlsplit

import dagster as dg
import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES, parse_archetype
from calibration_pipeline.calibration.inference import TARGET_ACCEPT
from calibration_pipeline.calibration.summaries import (
    convergence_by_fold,
    identification,
    predictive_checks,
    slope_by_season,
)
from calibration_pipeline.report import ReportContent, archetype_pictures, render_html, render_markdown
from calibration_pipeline.report.numbers import number
from calibration_pipeline.sources.base import Source
from calibration_pipeline.tracks import compile_constraints
from calibration_pipeline.verification.reliability import pit_ecdf
from calibration_pipeline.verification.verdicts import read_verdict

from .events import judged_events
from .forecast import forecast_notes
from .metadata import OWNERS, boundary, rows, table
from .partitions import ARCHETYPE_PARTITIONS
from .scenarios import fold_length
from .settings import Settings
from .storage import SCHEMA_VERSION, Report
from .summary import SUMMARY, summary_rows

GROUP = "report"
PACKAGES = ("calibration-pipeline", "jax", "numpyro", "arviz", "xarray", "polars", "duckdb", "dagster")
those_that_exist = dg.AssetIn(metadata={"allow_missing_partitions": True})


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"matplotlib", "parquet"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="parquet",
    metadata=boundary("report_pictures"),
)
def report_pictures(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    calibration_metrics: pl.DataFrame,
    joint_event_validation: pl.DataFrame,
    calibration_curves: pl.DataFrame,
    backtest: xr.Dataset,
    calibration_posterior: xr.DataTree,
) -> dg.Output[pl.DataFrame]:
    """Draw what the report shows of the archetype alone: reliability, coverage, joint events and its fit."""
    pictures = archetype_pictures(
        parse_archetype(context.partition_key),
        calibration_metrics,
        joint_event_validation,
        calibration_curves,
        pit_ecdf(backtest, settings.seed),
        calibration_posterior,
    )
    frame = pl.DataFrame(
        {"archetype": context.partition_key, "picture": list(pictures), "png": list(pictures.values())},
        schema_overrides={"png": pl.Binary},
    )
    return dg.Output(frame, metadata={**rows(frame), "pictures": ", ".join(pictures)})


@dg.asset(
    group_name=GROUP,
    kinds={"html", "markdown"},
    owners=OWNERS,
    code_version="3",
    io_manager_key="report",
    ins=dict.fromkeys(
        (
            "calibration_metrics",
            "joint_event_validation",
            "calibration_curves",
            "verdict",
            "report_pictures",
            "backtest",
            "calibration_posterior",
        ),
        those_that_exist,
    ),
)
def calibration_report(
    source: dg.ResourceParam[Source],
    settings: dg.ResourceParam[Settings],
    calibration_metrics: dict[str, pl.DataFrame],
    joint_event_validation: dict[str, pl.DataFrame],
    calibration_curves: dict[str, pl.DataFrame],
    verdict: dict[str, pl.DataFrame],
    report_pictures: dict[str, pl.DataFrame],
    backtest: dict[str, xr.Dataset],
    calibration_posterior: dict[str, xr.DataTree],
    model_comparison: pl.DataFrame,
    race_forecast: xr.Dataset,
    forecast_chances: pl.DataFrame,
    forecast_events: pl.DataFrame,
) -> dg.Output[Report]:
    """Write the report: a verdict per archetype, and the evidence, as one page and its Markdown twin."""
    fits = _in_order(calibration_posterior)
    verdicts = [read_verdict(frame) for frame in _in_order(verdict).values()]
    metrics = pl.concat(_in_order(calibration_metrics).values())
    convergence = pl.concat(
        convergence_by_fold(fit).select(pl.lit(name).alias("archetype"), pl.all())
        for name, fit in fits.items()
    )
    events = pl.concat(_in_order(joint_event_validation).values())
    content = ReportContent(
        title="Can the simulated races be trusted?",
        source=source.name,
        verdicts=verdicts,
        metrics=metrics,
        joint_events=events,
        skipped_events=_unjudged(events, settings),
        curves=pl.concat(_in_order(calibration_curves).values()),
        pit=pl.concat(pit_ecdf(scored, settings.seed) for scored in _in_order(backtest).values()),
        slopes=pl.concat(slope_by_season(fit, name) for name, fit in fits.items()),
        convergence=convergence,
        identification=pl.concat(identification(fit) for fit in fits.values()),
        predictive_checks=pl.concat(predictive_checks(fit) for fit in fits.values()),
        fits=fits,
        comparison=model_comparison,
        forecast=None if forecast_chances.is_empty() else forecast_chances,
        forecast_events=forecast_events,
        forecast_title=_race_title(race_forecast),
        forecast_archetype=str(race_forecast["archetype"].values[0]) if race_forecast.sizes["race"] else "",
        forecast_notes=forecast_notes(race_forecast),
        provenance={
            **_provenance(settings, source.name, backtest, model_comparison),
            **_sampling(fits, convergence),
            **{package: _version(package) for package in PACKAGES},
        },
    )
    drawn = {
        name: png
        for frame in report_pictures.values()
        for name, png in frame.select("picture", "png").iter_rows()
    }
    report = Report(render_html(content, drawn), render_markdown(content))
    return dg.Output(
        report,
        metadata={
            SUMMARY: summary_rows(verdicts, metrics, convergence),
            "verdicts": table(
                pl.DataFrame([{"archetype": str(v.archetype), "verdict": v.verdict} for v in verdicts])
            ),
            "summary_page": dg.MetadataValue.md(report.markdown),
        },
    )


def _in_order[T](by_archetype: Mapping[str, T]) -> dict[str, T]:
    return {str(name): by_archetype[name] for name in ARCHETYPES if name in by_archetype}


def _unjudged(events: pl.DataFrame, settings: Settings) -> dict[str, str]:
    """Return the events that were judged nowhere; the assets' metadata say why."""
    judged = set(events["event"])
    return {
        str(event): "what it needs is not known, or there are no races"
        for event in judged_events(settings.events)
        if str(event) not in judged
    }


def _race_title(forecast: xr.Dataset) -> str:
    if forecast.sizes["race"] == 0:
        return ""
    race = forecast.isel(race=0)
    kind = parse_archetype(str(race["archetype"].item())).label.lower()
    return f"Race {int(race['round'])} of {int(race['season'])}, {race['track_id'].item()} ({kind})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed, run from its folder"


def _provenance(
    settings: Settings, source: str, backtest: Mapping[str, xr.Dataset], comparison: pl.DataFrame
) -> dict[str, str]:
    scored = [int(one["race_order"].max()) for one in backtest.values() if one.sizes["race"]]
    seasons = settings.season_list
    best = comparison.row(0, named=True)["model"] if comparison.height else "none"
    return {
        "Source": source,
        "Source address": _shown({"nascar_feed": settings.feed_url, "tables": settings.results}.get(source)),
        "Seasons": f"{seasons[0]} to {seasons[-1]}",
        "Races per fold": str(fold_length(settings) or "a season"),
        "Last race scored": str(int(np.max(scored))) if scored else "none",
        "Scenarios of": _shown(settings.ensembles, f"the causal network ({settings.network})"),
        "Joint events of": _shown(settings.events, "the default ones"),
        "Scenarios a race": str(settings.scenarios) if settings.ensembles is None else "as in the ensemble",
        "Seed": str(settings.seed),
        "Best calibration by leave-one-out": best,
        "Track constraints, SHA-256": compile_constraints().content_hash,
        "Schema version of stored files": SCHEMA_VERSION,
    }


def _sampling(fits: Mapping[str, xr.DataTree], convergence: pl.DataFrame) -> dict[str, str]:
    """Return how the posteriors were sampled, and the worst of their diagnostics."""
    if not fits:
        return {}
    attributes = next(iter(fits.values())).attrs
    chains = (str(attributes[name]) for name in ("n_chains", "n_warmup", "n_samples"))
    r_hat, bulk, tail = convergence.select(pl.max("r_hat"), pl.min("ess_bulk", "ess_tail")).row(0)
    by_fit = convergence.group_by("archetype", "fold").agg(pl.max("divergences"))
    return {
        "NUTS chains, warm-up, draws a chain": ", ".join(chains),
        "NUTS target acceptance": str(TARGET_ACCEPT),
        "Fits": str(by_fit.height),
        "Worst R-hat of all fits": number(r_hat),
        "Least ESS, bulk and tail": f"{number(bulk, 0)} and {number(tail, 0)}",
        "Divergences": str(by_fit["divergences"].sum()),
    }


def _shown(address: str | None, otherwise: str = "none, simulated") -> str:
    """Return an address for others to read: a local file's name, or host and path without credentials."""
    if address is None:
        return otherwise
    if "://" not in address:
        return PurePath(address).name
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
