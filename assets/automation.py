"""What runs by itself: the automation conditions, the weekly schedule, freshness, and the jobs behind them.

Ingest is asked for by the schedule and by the sensor of `races`. The conditions carry what it stored
to the report: an asset is asked for when what it reads was updated, everything before it has settled and
every blocking check of what it reads has passed.
"""

import datetime
from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job

from .partitions import ARCHETYPE_PARTITIONS
from .settings import Settings

When = dg.AutomationCondition
TIME_ZONE = "America/New_York"
AFTER_RACE_WEEKENDS = "0 6 * * 1"
DEADLINE = "0 12 * * 1"
RACE_WEEKEND = datetime.timedelta(hours=36)
EVERY_MORNING = "0 7 * * *"
COMING = ("race_forecast", "forecast_chances", "forecast_events", "forecast_scenarios")
"""Made anew every morning of a running season as well: entry lists and grids are announced between races."""
INGESTED = ("lap_telemetry", "race_results", "simulated_truth")
INTERVAL_S = 30
# The longest way from an asset of archetypes back to what was ingested.
STEPS_TO_INGEST = 5


def automate(assets: Iterable[dg.AssetsDefinition], settings: Settings) -> list[dg.AssetsDefinition]:
    """Return the assets with their automation conditions, and in a running season with their freshness.

    Parameters
    ----------
    assets : iterable of dagster.AssetsDefinition
    settings : Settings
    """
    assets = list(assets)
    specs = {spec.key.to_user_string(): spec for asset in assets for spec in asset.specs}
    reads = {
        name: {dep.asset_key.to_user_string() for dep in spec.deps} & specs.keys()
        for name, spec in specs.items()
    }
    running = is_running(settings)
    mornings = COMING if running else ()
    conditions = {
        name: _condition(name, specs, reads, in_mornings=name in mornings)
        for name in specs
        if name not in INGESTED
    }
    freshness = race_week() if running else None

    def with_automation(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        timely = freshness if name != "track_constraints" else None
        return spec.replace_attributes(
            automation_condition=conditions.get(name), freshness_policy=timely or spec.freshness_policy
        )

    return [asset.map_asset_specs(with_automation) for asset in assets]


def is_running(settings: Settings) -> bool:
    """Whether the last season is this year's, so that races of it are still to come."""
    return settings.season_list[-1] == datetime.date.today().year


def race_week() -> dg.FreshnessPolicy:
    """Return the rule that an asset is overdue on Monday noon if it was not made since the race weekend."""
    return dg.FreshnessPolicy.cron(deadline_cron=DEADLINE, lower_bound_delta=RACE_WEEKEND, timezone=TIME_ZONE)


def default_sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    """Return whether sensors run before anyone switches them on."""
    return dg.DefaultSensorStatus.RUNNING if settings.automation else dg.DefaultSensorStatus.STOPPED


def carry_to_report(settings: Settings) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the automation conditions."""
    return dg.AutomationConditionSensorDefinition(
        "carry_to_report",
        target=dg.AssetSelection.all(),
        description="Asks for everything that reads what was updated, up to the report.",
        minimum_interval_seconds=INTERVAL_S,
        default_status=default_sensor_status(settings),
    )


def ingest_job(assets: Iterable[dg.AssetsDefinition]) -> Job:
    """Return the job that reads a season from the source."""
    there = {spec.key.to_user_string() for asset in assets for spec in asset.specs}
    return dg.define_asset_job(
        "ingest_season",
        selection=dg.AssetSelection.assets(*(name for name in INGESTED if name in there)),
        description="Reads a season's results and laps from the source.",
    )


def weekly(job: Job, seasons: dg.PartitionsDefinition, settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule that reads the last season again after every race weekend."""

    @dg.schedule(
        name="after_race_weekend",
        job=job,
        cron_schedule=AFTER_RACE_WEEKENDS,
        execution_timezone=TIME_ZONE,
        description="Mondays, 6:00 in New York: reads the last season again, official results included.",
        default_status=dg.DefaultScheduleStatus.RUNNING
        if settings.automation
        else dg.DefaultScheduleStatus.STOPPED,
    )
    def after_race_weekend() -> dg.RunRequest:
        return dg.RunRequest(partition_key=seasons.get_partition_keys()[-1])

    return after_race_weekend


def _condition(
    name: str, specs: Mapping[str, dg.AssetSpec], reads: Mapping[str, set[str]], *, in_mornings: bool
) -> dg.AutomationCondition:
    """Return when an asset is asked for."""
    if not reads[name]:
        return _since_handled(When.missing().newly_true() | When.code_version_changed()) & ~When.in_progress()
    cuts = {specs[parent].partitions_def for parent in _last_read(name, reads)}
    cut = specs[name].partitions_def
    through_others = dg.AssetSelection.assets(*sorted(reads[name] - _last_read(name, reads)))
    if isinstance(cut, dg.TimeWindowPartitionsDefinition):
        updated: dg.AutomationCondition = When.any_deps_match(When.newly_updated()).ignore(through_others)
        ready = ~When.any_deps_match(When.missing() | When.in_progress() | When.will_be_requested())
    else:
        updated = When.any_deps_updated().ignore(through_others)
        from_seasons = cut == ARCHETYPE_PARTITIONS and cuts != {cut}
        steps = STEPS_TO_INGEST if from_seasons else 1 if cut == ARCHETYPE_PARTITIONS else 2
        ready = ~When.any_deps_missing() & ~_unsettled(steps)
    if in_mornings:
        updated = updated | When.cron_tick_passed(EVERY_MORNING, TIME_ZONE)
    return (
        _since_handled(When.missing().newly_true() | updated)
        & ready.with_label("what_it_reads_has_settled")
        & ~When.in_progress()
        & _checks_passed()
    ).with_label("carry_to_report")


def _last_read(name: str, reads: Mapping[str, set[str]]) -> set[str]:
    """Return what the asset reads, but for what reaches it through something else that it reads.

    Only these trigger it: an update of the others arrives through them, and once.
    """
    return {
        parent
        for parent in reads[name]
        if not any(parent in _ancestors(other, reads) for other in reads[name] - {parent})
    }


def _ancestors(name: str, reads: Mapping[str, set[str]]) -> set[str]:
    return reads[name].union(*(_ancestors(parent, reads) for parent in reads[name]))


def _since_handled(trigger: dg.AutomationCondition) -> dg.AutomationCondition:
    """Return whether it became true since the asset was last asked for or made.

    Unlike `since_last_handled` it holds over a reload that adds a season, and lets the first evaluation ask
    for what is missing.
    """
    return trigger.since(When.newly_requested() | When.newly_updated()).with_label("updated_and_not_handled")


def _unsettled(steps: int) -> dg.AutomationCondition:
    """Return whether something up to `steps` before the asset is being made, or waits to be."""
    waiting = _since_handled(When.any_deps_match(When.newly_updated()))
    busy: dg.AutomationCondition = (When.in_progress() | waiting) & ~When.will_be_requested()
    for _ in range(steps - 1):
        busy = busy | When.any_deps_match(busy)
    return When.any_deps_match(busy)


def _checks_passed() -> dg.AutomationCondition:
    """Return whether every blocking check of everything that the asset reads has passed.

    Dagster's `all_deps_blocking_checks_passed` is content with one good partition of each. What is asked for
    in the same run is checked there, and stops the run.
    """
    failing = When.any_checks_match(~When.check_passed(), blocking_only=True) & ~When.will_be_requested()
    return (~When.any_deps_match(failing)).with_label("blocking_checks_passed")
