"""The sensor `keep_up_to_date`: it asks the source for news, and requests the runs of stale partitions.

Each tick requests the first wave with stale partitions; the next tick without a run in progress requests the
next. A partition whose run failed is requested again only when something that it depends on has changed, or,
up to five times, where it reads the source. A season is ingested when the source has other data of it.
"""

import datetime
import hashlib
import json
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from calibration_pipeline.analysis.records import Record
from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.io.addresses import is_remote
from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.seasons import span
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.news import (
    RECENT_SEASONS,
    News,
    Races,
    describe_missing,
    entry_version,
    missing_races,
    read_news,
)

from ..partitions import known_forecasters
from ..resources import build_source, run_tags, with_seasons
from ..settings import Settings, SettingsError
from .commands import UNFINISHED, end_dead_runs
from .jobs import INGEST, WAVES
from .staleness import OF_NEXT_RACE, OTHER_ENTRIES, UNCHECKED, Lineage
from .tasks import Task, blocked_tasks, lacks_inputs, stale_tasks

SENSOR = "keep_up_to_date"
CHECK = "every_finished_race"
"""Check of the report: every race that has finished is in its results."""
INTERVAL_S = 30
WEB_INTERVAL_S = 600
"""Seconds between two questions to a source that is not on this machine for finished races."""
ENTRIES_INTERVAL_S = 3 * 3600
"""Seconds between two questions to such a source for the next race's entry list: a request a race."""
ATTEMPTS = 5
FIRST_WAIT = datetime.timedelta(hours=1)
"""After a run that failed; twice as long after each further one."""
RELOAD_TIMEOUT_S = 120
STALE_TAG = "calibration/stale"
"""Tag of a run: a digest of the reasons for it. A run with the same digest is not requested again."""
IN_PROGRESS = [dg.DagsterRunStatus.QUEUED, *UNFINISHED]

type Tick = dg.SensorResult | dg.SkipReason


def keep_up_to_date(
    as_set: Settings,
    jobs: Iterable[Any],
    loaded: dg.PartitionsDefinition,
    forecasters: Mapping[Form, Collection[str]],
    report: dg.AssetKey,
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
    forecasters : mapping
        The forecasters of each form of the code location as it was loaded.
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
        end_dead_runs(context.instance)
        if n_runs := _runs_in_progress(context.instance, as_set):
            return dg.SkipReason(f"{n_runs} runs of {as_set.source} are in progress.")
        cursor = json.loads(context.cursor) if context.cursor else {}
        if cursor.get("of") != [*as_set.key_prefix]:
            cursor = {"of": [*as_set.key_prefix]}
        known: dict[str, list[int]] = cursor.get("known", {})
        finished: dict[int, Races] = {}
        news: dict[int, News] = {}
        changed: list[str] = []
        partitions = {*loaded.get_partition_keys()}
        settings = as_set
        try:
            is_far = any(map(is_remote, as_set.source_addresses))
            if time.time() - cursor.get("asked_at", 0.0) >= (WEB_INTERVAL_S if is_far else 0):
                cursor |= {"asked_at": time.time(), "fault": None}
                settings = with_seasons(as_set)
                seasons, source = settings.season_list, build_source(settings)
                asked = {*seasons[-RECENT_SEASONS:], *(year for year in seasons if str(year) not in known)}
                news, finished = read_news(source, settings.store_path, seasons, asked)
                changed = [f"season {season}" for season in sorted({*map(str, seasons)} ^ partitions)]
                if time.time() - cursor.get("entries_at", 0.0) >= (ENTRIES_INTERVAL_S if is_far else 0):
                    entries = entry_version(source.next_race(seasons[-1]))
                    n_lists = cursor.get("n_lists", 0) + (entries != cursor.get("entries"))
                    cursor |= {"entries": entries, "n_lists": n_lists, "entries_at": time.time()}
            elif not (as_set.seasons or as_set.default_seasons):  # the source knows the seasons
                settings = as_set.model_copy(update={"seasons": span([*map(int, partitions)])})
        except (SourceError, SettingsError) as error:
            cursor["fault"] = f"The source could not be asked; a later tick asks again. {error}"
        try:
            present = known_forecasters(settings)
        except ForecasterError as error:
            return dg.SkipReason(str(error))
        for form, names in present.items():
            changed += [f"forecaster {name}" for name in sorted({*names} ^ {*forecasters[form]})]
        if changed:
            return dg.SkipReason(_reload(context, changed))
        missing = missing_races(settings.store_path, finished)
        cursor["known"] = known | {str(season): sorted(races) for season, races in finished.items()}
        is_overdue = any(not {*races} <= {*known.get(str(year), ())} for year, races in missing.items())
        requests: list[dg.RunRequest] = []
        if settings.seasons or settings.default_seasons:
            graph = context.repository_def.asset_graph  # type: ignore[union-attr]
            lineage = Lineage(graph, settings, context.instance, news, cursor.get("entries"))
            requests = _requests(lineage, cursor.get("n_lists", 0))
        notes = [cursor["fault"]] if cursor.get("fault") else []
        notes += [describe_missing(missing)] if missing else []
        quiet = " ".join(notes) or "No race has finished that is not stored; all is up to date."
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else quiet,
            cursor=json.dumps(cursor),
            asset_events=[_overdue(report, missing)] if is_overdue and known else [],
        )

    return sensor


def _overdue(report: dg.AssetKey, missing: Mapping[int, Races]) -> dg.AssetCheckEvaluation:
    """Return the evaluation of the report's check when races have finished since."""
    return dg.AssetCheckEvaluation(
        asset_key=report,
        check_name=CHECK,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=escape_text(describe_missing(missing)),
        metadata={"missing": sum(map(len, missing.values()))},
    )


def _runs_in_progress(instance: dg.DagsterInstance, settings: Settings) -> int:
    """Return how many runs of this source's and series' assets have not ended."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))
    prefix = list(settings.key_prefix)
    return sum(
        run.asset_selection is None or any(key.path[:-1] == prefix for key in run.asset_selection)
        for run in runs
    )


def _requests(lineage: Lineage, n_lists: int) -> list[dg.RunRequest]:
    """Return the run requests of the first wave that has any.

    Partitions wait whose inputs are missing, or failed a blocking check. `n_lists` counts the entry lists of
    the source: one that comes back is another.
    """
    for wave in WAVES:
        stale = stale_tasks(lineage, wave)
        blocked = blocked_tasks(lineage, stale)
        ready = (task for task in stale if task not in blocked and not lacks_inputs(lineage, task))
        found = (_request(lineage, task, stale[task], n_lists) for task in ready)
        if requests := [request for request in found if request]:
            return requests
    return []


def _request(lineage: Lineage, task: Task, reasons: Mapping[str, str], n_lists: int) -> dg.RunRequest | None:
    """Return the request of a run, None if one was requested for the same cause and may not be again."""
    instance = lineage.instance
    records = {asset: lineage.record(asset, task.partition) for asset in reasons}
    is_of_next_race = bool({*reasons} & {*OF_NEXT_RACE})
    news = lineage.news.get(str(task.partition))
    tags = run_tags(lineage.settings)
    cause = {
        "tags": tags,
        "job": task.job.name,
        "partition": task.partition,
        "reasons": dict(reasons),
        "since": {asset: record and _since(record, reasons[asset]) for asset, record in records.items()},
        "inputs": {asset: lineage.input_versions(asset, task.partition) for asset in reasons},
        "settings": {asset: lineage.present_settings(asset, task.partition) for asset in reasons},
        "code": {asset: lineage.graph.get(lineage.keys[asset]).code_version for asset in reasons},
        "source": news.version if news and task.job == INGEST else None,
        "entries": [lineage.entries, n_lists] if is_of_next_race else None,
    }
    digest = hashlib.sha256(json.dumps(cause, sort_keys=True).encode()).hexdigest()[:16]
    earlier = instance.get_run_records(dg.RunsFilter(tags={STALE_TAG: digest}))
    failed = is_of_next_race and all(found.dagster_run.is_failure for found in earlier)
    if earlier and not ((task.job == INGEST or failed) and _may_try_again(earlier)):
        return None
    return dg.RunRequest(
        run_key=f"{digest}-{len(earlier)}",
        job_name=task.job.name,
        partition_key=task.partition,
        asset_selection=[lineage.keys[asset] for asset in task.assets],
        tags={**tags, STALE_TAG: digest},
    )


def _since(record: Record, reason: str) -> object:
    """Return what a stored partition must differ in, to be requested again for the same reason.

    A run reads the entry list itself, which may be newer than the one known here. Checks that end their run
    would end it each time.
    """
    if reason.endswith(OTHER_ENTRIES):
        return record.source_version
    return record.data_version if reason.endswith(UNCHECKED) else record.storage_id


def _may_try_again(earlier: Sequence[dg.RunRecord]) -> bool:
    """Return whether a run that reads the source may be requested again: after 1, 2, 4 and 8 hours."""
    last = max(record.create_timestamp for record in earlier)
    wait = FIRST_WAIT * 2 ** (len(earlier) - 1)
    return len(earlier) < ATTEMPTS and datetime.datetime.now(datetime.UTC) >= last + wait


def _reload(context: dg.SensorEvaluationContext, found: Collection[str]) -> str:
    """Ask the code server to load the definitions again, as seasons or forecasters changed; return a message.

    The server ends the process in which the sensor runs, so a thread asks it after the tick.
    """
    new = f"New, or no longer there: {', '.join(found)}."
    create_client = getattr(context.code_location_origin, "create_client", None)
    if create_client is None:
        return f"{new} Reload the code location, or restart the daemon: this one cannot be asked to."
    client = create_client()
    threading.Thread(target=client.reload_code, args=(RELOAD_TIMEOUT_S,), daemon=True).start()
    return f"{new} The code location loads again; if this line stays, restart its server."
