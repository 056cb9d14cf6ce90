"""The code location: assets, checks, jobs, schedules, sensor, resources. No implementation belongs here."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from .asset_checks import every_finished_race
from .asset_checks.stored_values import build_checks
from .flow import (
    calibration,
    comparison,
    forecast,
    ingest,
    probabilities,
    report,
    scenarios,
    telemetry,
    verification,
)
from .flow.metadata import described
from .jax_environment import prepare_jax
from .orchestration.jobs import INGEST, REPORT, build_jobs
from .orchestration.schedules import build_schedule, find_deadline
from .orchestration.sensors import keep_up_to_date
from .partitions import known_forecasters, narrow, season_partitions
from .resources import build_resources, with_seasons
from .settings import Settings, load_settings

FLOW = [ingest, telemetry, scenarios, calibration, verification, probabilities, comparison, forecast, report]
"""Modules of assets in the order of the data flow; each is a group of the UI."""


def build_defs(settings: Settings, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the definitions for the settings.

    Parameters
    ----------
    settings : Settings
    resources : mapping, optional
        Replace resources by key, as tests do.
    """
    as_set, settings = settings, with_seasons(settings)
    seasons = season_partitions(settings.seasons_in_force)
    forecasters, shown = known_forecasters(settings), settings.shown_forecaster
    groups = {
        key.path[-1]: module.__name__.rpartition(".")[2]
        for module in FLOW
        for asset in dg.load_assets_from_modules([module])
        for key in asset.keys  # type: ignore[union-attr]
    }
    deadline = find_deadline(settings)
    assets = [
        described(narrow(asset, seasons, forecasters, shown), groups, deadline)
        for asset in dg.load_assets_from_modules(FLOW, key_prefix=settings.key_prefix)
        if isinstance(asset, dg.AssetsDefinition) and _is_known(asset, settings)
    ]
    jobs = build_jobs(assets)
    last = dg.AssetKey([*settings.key_prefix, REPORT])
    return dg.Definitions(
        assets=assets,
        asset_checks=[*build_checks(assets), every_finished_race.build_check(last)],
        jobs=list(jobs.values()),
        schedules=[build_schedule(jobs[INGEST.name], seasons, settings)],
        sensors=[keep_up_to_date(as_set, jobs.values(), seasons, forecasters, last)],
        resources={**build_resources(settings), **(resources or {})},
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the code location that Dagster loads, with settings from the environment and `.env`."""
    prepare_jax()
    return build_defs(load_settings())


def _is_known(asset: dg.AssetsDefinition, settings: Settings) -> bool:
    """Return whether the source has what an asset reads: only simulated seasons have a truth."""
    return settings.source == "simulated" or all(key.path[-1] != "simulated_truth" for key in asset.keys)
