"""The code location: assets, checks and resources put together. No implementation belongs here."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from . import calibration, catalogue, forecast, ingest, report, scenarios, telemetry, verification
from .automation import automate, carry_to_report, ingest_job, weekly
from .checks import build_checks
from .executors import build_executor
from .partitions import narrow, seasons_of
from .process import prepare_process
from .progress import progress_logger
from .races import every_finished_race, finished_races_sensor
from .resources import build_resources, with_seasons
from .settings import Settings, load_settings

ASSETS: list[dg.AssetsDefinition] = [
    ingest.track_constraints,
    ingest.season,
    telemetry.lap_aggregates,
    telemetry.driver_features,
    scenarios.causal_network,
    scenarios.scenario_ensemble,
    calibration.calibration_posterior,
    calibration.recalibrated_ensemble,
    calibration.backtest,
    calibration.pooled_posterior,
    calibration.model_comparison,
    verification.calibration_metrics,
    verification.calibration_curves,
    verification.joint_event_validation,
    verification.verdict,
    forecast.next_race,
    report.report_pictures,
    report.calibration_report,
    catalogue.catalogue,
]


def build_defs(settings: Settings, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the asset graph for the settings in force.

    Parameters
    ----------
    settings : Settings
    resources : mapping, optional
        Replace resources by key, as tests do.
    """
    as_set, settings = settings, with_seasons(settings)
    seasons = seasons_of(settings)
    truth = [ingest.simulated_truth] if settings.source == "simulated" else []
    assets = automate([narrow(asset, seasons) for asset in [*ASSETS, *truth]], settings)
    ingestion = ingest_job(assets)
    return dg.Definitions(
        assets=assets,
        asset_checks=[*build_checks(assets), every_finished_race],
        jobs=[ingestion],
        schedules=[weekly(ingestion, seasons, settings)],
        sensors=[carry_to_report(settings), finished_races_sensor(as_set, ingestion, seasons)],
        resources={**build_resources(settings), **(resources or {})},
        executor=build_executor(settings),
        loggers={"progress": progress_logger},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the code location that Dagster loads, with settings from the environment and `.env`."""
    prepare_process()
    return build_defs(load_settings())
