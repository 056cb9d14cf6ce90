"""The sensor `keep_up_to_date`: it asks the source for news, and requests the runs of stale partitions.

Each tick requests the first wave with stale partitions; the next tick without a run in progress requests the
next. A partition whose run failed is requested again only when something that it depends on has changed. The
season of a finished race is ingested once for each set of races; where that run fails, or leaves a race out
whose results are not there yet, it is requested again, at most five times.
"""

import datetime
import hashlib
import json
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import dagster as dg

from calibration_pipeline.io.addresses import is_on_the_web
from calibration_pipeline.sources.base import SourceError

from ..resources import build_source, run_tags, with_seasons
from ..settings import Settings, SettingsError
from .commands import UNFINISHED
from .finished_races import Races, evaluate_missing, missing_races
from .jobs import INGEST, WAVES
from .staleness import Lineage
from .tasks import Task, blocked_by, stale_tasks, without_missing_inputs

SENSOR = "keep_up_to_date"
INTERVAL_S = 30
WEB_INTERVAL_S = 600
"""Seconds between two questions to a source on the web."""
ATTEMPTS = 5
FIRST_WAIT = datetime.timedelta(hours=1)
"""After an ingest that left a race out, its results not there yet; twice as long after each further one."""
RELOAD_TIMEOUT_S = 120
SEASONS_ASKED = 2
RACES_TAG = "calibration/races"
STALE_TAG = "calibration/stale"
"""Tag of a run: a digest of the reasons for it. A run with the same digest is not requested again."""
IN_PROGRESS = [dg.DagsterRunStatus.QUEUED, *UNFINISHED]

type Tick = dg.SensorResult | dg.SkipReason


def keep_up_to_date(
    as_set: Settings, jobs: Iterable[Any], loaded: dg.PartitionsDefinition, report: dg.AssetKey
) -> dg.SensorDefinition:
    """Return the sensor.

    Parameters
    ----------
    as_set : Settings
        As the user set them: where no seasons are set, the source is asked for them at every tick.
    jobs : iterable of dagster jobs
        The jobs of all waves.
    loaded : dagster.PartitionsDefinition
        The seasons of the code location as it was loaded.
    report : dagster.AssetKey
        Key of the report, whose check fails once races have finished since.
    """

    @dg.sensor(
        name=SENSOR,
        jobs=list(jobs),
        minimum_interval_seconds=INTERVAL_S,
        description="Asks the source for finished races, and requests the runs of stale partitions.",
        default_status=dg.DefaultSensorStatus.RUNNING
        if as_set.automation
        else dg.DefaultSensorStatus.STOPPED,
    )
    def sensor(context: dg.SensorEvaluationContext) -> Tick:
        if n_runs := _runs_in_progress(context.instance, as_set):
            return dg.SkipReason(f"{n_runs} runs of {as_set.source} are in progress.")
        cursor = json.loads(context.cursor) if context.cursor else {}
        known: dict[str, list[int]] = cursor.get("known", {})
        finished: dict[int, Races] = {}
        notes: list[str] = []
        settings = as_set
        try:
            settings = with_seasons(as_set)
            if time.time() - cursor.get("asked_at", 0.0) >= (WEB_INTERVAL_S if _is_on_the_web(as_set) else 0):
                finished = _ask(settings, known)
                cursor["asked_at"] = time.time()
        except (SourceError, SettingsError) as error:
            notes.append(f"The source could not be asked; the next tick tries again. {error}")
        if new := [season for season in finished if str(season) not in loaded.get_partition_keys()]:
            return dg.SkipReason(_reload(context, new))
        missing = missing_races(settings, finished)
        news, waiting = _due(context.instance, settings, missing)
        cursor["known"] = known | {str(season): sorted(races) for season, races in finished.items()}
        is_overdue = any(
            not set(races) <= set(known.get(str(season), ())) for season, races in missing.items()
        )
        requests: list[dg.RunRequest] = []
        if settings.seasons or settings.default_seasons:
            lineage = Lineage(context.repository_def.asset_graph, settings, context.instance, news)  # type: ignore[union-attr]
            requests = _requests(lineage, news)
        quiet = " ".join([*notes, *waiting]) or "No race has finished that is not stored; all is up to date."
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else quiet,
            cursor=json.dumps(cursor),
            asset_events=[evaluate_missing(report, missing)] if is_overdue and known else [],
        )

    return sensor


def _runs_in_progress(instance: dg.DagsterInstance, settings: Settings) -> int:
    """Return how many runs of this source's and series' assets have not ended."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))
    prefix = list(settings.key_prefix)
    return sum(
        run.asset_selection is None or any(key.path[:-1] == prefix for key in run.asset_selection)
        for run in runs
    )


def _is_on_the_web(settings: Settings) -> bool:
    return settings.source == "nascar_feed" and is_on_the_web(settings.feed_url)


def _ask(settings: Settings, known: Mapping[str, Collection[int]]) -> dict[int, Races]:
    """Return the finished races of the last seasons, and of those that are not known yet."""
    source = build_source(settings)
    seasons = settings.season_list
    asked = [season for season in seasons if season in seasons[-SEASONS_ASKED:] or str(season) not in known]
    return {season: source.finished_races(season) for season in asked}


def _due(
    instance: dg.DagsterInstance, settings: Settings, missing: Mapping[int, Races]
) -> tuple[dict[int, Races], list[str]]:
    """Return the seasons to ingest for their missing races, and why the others wait."""
    due: dict[int, Races] = {}
    waiting = []
    for season, races in missing.items():
        if wait := _wait(instance, settings, season, races):
            waiting.append(wait)
        else:
            due[season] = races
    return due, waiting


def _wait(instance: dg.DagsterInstance, settings: Settings, season: int, races: Races) -> str | None:
    """Return why a season is not ingested again now for these races, None if it is."""
    tags = {RACES_TAG: _races_digest(season, races), "calibration/source": settings.source}
    records = instance.get_run_records(filters=dg.RunsFilter(tags=tags))
    labels = ", ".join(races.values())
    if n_left_out := sum(record.dagster_run.is_success for record in records):
        left_out = f"Ingest of season {season} left out: {labels}."
        if n_left_out >= ATTEMPTS:
            return left_out
        again = max(record.create_timestamp for record in records) + FIRST_WAIT * 2 ** (n_left_out - 1)
        if datetime.datetime.now(datetime.UTC) < again:
            return f"{left_out} The next attempt is at {again:%H:%M} UTC."
    elif len(records) >= ATTEMPTS:
        return f"Ingest of season {season} failed {len(records)} times; launch it by hand for: {labels}."
    return None


def _races_digest(season: int, races: Races) -> str:
    return f"{season}-{hashlib.sha256(json.dumps(sorted(races)).encode()).hexdigest()[:12]}"


def _requests(lineage: Lineage, news: Mapping[int, Races]) -> list[dg.RunRequest]:
    """Return the run requests of the first wave that has any.

    Partitions wait whose inputs are missing, or failed a blocking check.
    """
    failed_checks = lineage.failed_checks()
    for wave in WAVES:
        requests = []
        for task, reasons in stale_tasks(lineage, wave).items():
            lacks_inputs = bool(without_missing_inputs(lineage, [task])[1])
            if lacks_inputs or blocked_by(lineage, task, failed_checks):
                continue
            tags = {}
            if task.job == INGEST and (races := news.get(int(str(task.partition)))):
                tags = {RACES_TAG: _races_digest(int(str(task.partition)), races)}
            if request := _request(lineage, task, reasons, tags):
                requests.append(request)
        if requests:
            return requests
    return []


def _request(
    lineage: Lineage, task: Task, reasons: Mapping[str, str], tags: Mapping[str, str]
) -> dg.RunRequest | None:
    """Return the request of a run, None if one was requested for the same cause and materialized nothing."""
    instance = lineage.instance
    records = {asset: lineage.record(asset, task.partition) for asset in reasons}
    cause = {
        "job": task.job.name,
        "partition": task.partition,
        "reasons": dict(reasons),
        "since": {asset: record.storage_id if record else None for asset, record in records.items()},
        "inputs": {asset: lineage.input_versions(asset, task.partition) for asset in reasons},
        "attempts": len(instance.get_runs(dg.RunsFilter(tags=dict(tags)))) if tags else 0,
    }
    digest = hashlib.sha256(json.dumps(cause, sort_keys=True).encode()).hexdigest()[:16]
    own = {**run_tags(lineage.settings), STALE_TAG: digest}
    if instance.get_runs(dg.RunsFilter(tags=own), limit=1):
        return None
    return dg.RunRequest(
        run_key=f"{lineage.settings.source}-{digest}",
        job_name=task.job.name,
        partition_key=task.partition,
        asset_selection=[lineage.keys[asset] for asset in task.assets],
        tags={**own, **tags},
    )


def _reload(context: dg.SensorEvaluationContext, seasons: Collection[int]) -> str:
    """Ask the code server to load the definitions again, with the new seasons; return a message.

    The server ends the process in which the sensor runs, so a thread asks it after the tick.
    """
    new = f"Season {', '.join(map(str, seasons))} is new in the source and no partition yet."
    create_client = getattr(context.code_location_origin, "create_client", None)
    if create_client is None:
        return f"{new} Reload the code location, or restart the daemon: this one cannot be asked to."
    client = create_client()
    threading.Thread(target=client.reload_code, args=(RELOAD_TIMEOUT_S,), daemon=True).start()
    return f"{new} The code location loads again; if this line stays, restart its server."
