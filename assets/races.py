"""The sensor that asks the source which races have finished, and what is told of races that are not stored.

It asks for the ingest of a season whose races the store lacks, once for each set of races; where that run
fails, or leaves a race out whose results are not there yet, it asks again, a few times.
"""

import datetime
import hashlib
import json
import threading
from collections.abc import Mapping

import dagster as dg
import polars as pl
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin

from calibration_pipeline.sources.base import SourceError

from .automation import default_sensor_status
from .resources import build_source, with_seasons
from .settings import Settings, SettingsError

SENSOR = "finished_races"
ATTEMPTS = 5
FIRST_WAIT = datetime.timedelta(hours=1)
"""After an ingest that left a race out, its results not there yet; twice as long after each further one."""
NEAR_INTERVAL_S, WEB_INTERVAL_S = 30, 600
RELOAD_TIMEOUT_S = 120
SEASONS_ASKED = 2
RACES_TAG = "calibration/races"
REPORT = dg.AssetKey("calibration_report")
CHECK = "every_finished_race"
Races = dict[int, str]


def stored_races(settings: Settings, season: int) -> set[int]:
    """Return the races of a season that the store holds results of."""
    path = settings.store_path / "race_results" / f"{season}.parquet"
    if not path.exists():
        return set()
    return set(pl.read_parquet(path.read_bytes(), columns=["race_id"])["race_id"])


def missing_races(settings: Settings, finished: Mapping[int, Races]) -> dict[int, Races]:
    """Return the finished races that the store lacks, by season; seasons that lack none are left out.

    Parameters
    ----------
    settings : Settings
    finished : mapping
        season → race_id → what people call the race.
    """
    lacking = {}
    for season, races in finished.items():
        stored = stored_races(settings, season)
        if lacks := {race: label for race, label in races.items() if race not in stored}:
            lacking[season] = lacks
    return lacking


def tell_missing(lacking: Mapping[int, Races]) -> str:
    """Return a sentence that names the finished races which the results lack.

    Examples
    --------
    >>> tell_missing({2026: {7: "2026 race 7 (daytona)"}})
    '1 finished race is not in the results: 2026 race 7 (daytona).'
    """
    labels = [label for races in lacking.values() for label in races.values()]
    if not labels:
        return "Every finished race is in the results."
    named = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    count = "1 finished race is" if len(labels) == 1 else f"{len(labels)} finished races are"
    return f"{count} not in the results: {named}."


@dg.asset_check(
    asset=REPORT,
    name=CHECK,
    description="Every race that has finished, as the source tells, is in the results that the report is of.",
)
def every_finished_race(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Compare the races of the last season, fresh from the source, with the stored results."""
    last = settings.season_list[-1]
    try:
        finished = build_source(settings).finished_races(last)
    except SourceError as error:  # the report is good; whether it is the newest is not known
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"Cannot tell: the source could not be asked. {error}",
            metadata={"season": last},
        )
    lacking = missing_races(settings, {last: finished})
    return dg.AssetCheckResult(
        passed=not lacking,
        severity=dg.AssetCheckSeverity.WARN,
        description=tell_missing(lacking),
        metadata={"season": last, "missing": sum(map(len, lacking.values()))},
    )


def finished_races_sensor(as_set: Settings, job: Job, loaded: dg.PartitionsDefinition) -> dg.SensorDefinition:
    """Return the sensor.

    Parameters
    ----------
    as_set : Settings
        As the user set them: where no seasons are set, the source is asked for them at every tick.
    job : dagster.UnresolvedAssetJobDefinition
        Ingests a season.
    loaded : dagster.PartitionsDefinition
        The seasons of the code location as it was loaded.
    """
    on_the_web = as_set.source == "nascar_feed" and as_set.feed_url.startswith(("http://", "https://"))

    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=WEB_INTERVAL_S if on_the_web else NEAR_INTERVAL_S,
        description="Asks the source which races have finished, and for the ingest of those not stored.",
        default_status=default_sensor_status(as_set),
    )
    def finished_races(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        known: dict[str, list[int]] = json.loads(context.cursor) if context.cursor else {}
        try:
            settings = with_seasons(as_set)
            asked = [
                season
                for i, season in enumerate(reversed(settings.season_list))
                if i < SEASONS_ASKED or str(season) not in known
            ]
            source = build_source(settings)
            finished = {season: source.finished_races(season) for season in sorted(asked)}
        except (SourceError, SettingsError) as error:
            return dg.SkipReason(f"The source could not be asked; the next tick tries again. {error}")

        here = set(loaded.get_partition_keys())
        if not_loaded := [season for season in finished if str(season) not in here]:
            return dg.SkipReason(_reload(context, not_loaded))
        lacking = missing_races(settings, finished)
        answers = [_request(context.instance, season, races) for season, races in lacking.items()]
        requests = [answer for answer in answers if isinstance(answer, dg.RunRequest)]
        waiting = [answer for answer in answers if isinstance(answer, str)]
        told = {str(season): sorted(races) for season, races in finished.items()}
        news = any(not set(told[str(season)]) <= set(known.get(str(season), ())) for season in lacking)
        quiet = " ".join(waiting) or "No race has finished that is not stored."
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else quiet,
            cursor=json.dumps(known | told),
            asset_events=[_overdue(lacking)] if news and known else [],
        )

    return finished_races


def _request(instance: dg.DagsterInstance, season: int, races: Races) -> dg.RunRequest | str:
    """Return the request of a season's ingest, or why there is none."""
    digest = hashlib.sha256(json.dumps(sorted(races)).encode()).hexdigest()[:12]
    what = f"{season}-{digest}"
    records = instance.get_run_records(filters=dg.RunsFilter(tags={RACES_TAG: what}))
    runs = [record.dagster_run for record in records]
    labels = ", ".join(races.values())
    if any(not run.is_finished for run in runs):
        return f"Season {season} is being ingested."
    if n_left_out := sum(run.is_success for run in runs):
        left_out = f"Ingest of season {season} left out: {labels}."
        if n_left_out >= ATTEMPTS:
            return left_out
        again = max(record.create_timestamp for record in records) + FIRST_WAIT * 2 ** (n_left_out - 1)
        if datetime.datetime.now(datetime.UTC) < again:
            return f"{left_out} It is asked again at {again:%H:%M} UTC."
    elif len(runs) >= ATTEMPTS:
        return f"Ingest of season {season} failed {len(runs)} times; launch it by hand for: {labels}."
    return dg.RunRequest(run_key=f"{what}-{len(runs)}", partition_key=str(season), tags={RACES_TAG: what})


def _overdue(lacking: Mapping[int, Races]) -> dg.AssetCheckEvaluation:
    """Return what the report's check says when races have finished since."""
    return dg.AssetCheckEvaluation(
        asset_key=REPORT,
        check_name=CHECK,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=tell_missing(lacking),
        metadata={"missing": sum(map(len, lacking.values()))},
    )


def _reload(context: dg.SensorEvaluationContext, seasons: list[int]) -> str:
    """Ask the code server to load the definitions again, so that they have new seasons; return what was done.

    The server ends the process in which the sensor runs, so it is asked from a thread, after the tick.
    """
    new = f"Season {', '.join(map(str, seasons))} is new in the source and no partition yet."
    origin = context.code_location_origin
    if not isinstance(origin, GrpcServerCodeLocationOrigin):
        return f"{new} Reload the code location, or restart the daemon: this one cannot be asked to."
    client = origin.create_client()
    threading.Thread(target=client.reload_code, args=(RELOAD_TIMEOUT_S,), daemon=True).start()
    return f"{new} The code location loads again; if this line stays, restart its server."
