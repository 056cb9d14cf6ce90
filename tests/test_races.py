"""The sensor asks once for what the store lacks, is quiet when the feed is down, and tells what is late."""

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets import races
from assets.definitions import build_defs
from assets.races import ATTEMPTS, CHECK, RACES_TAG, missing_races, tell_missing
from assets.settings import Settings

TABLE_COLUMNS = ("season", "round", "track", "driver", "start_position", "finish_position", "laps_completed")
TRACKS = ("daytona", "phoenix", "talladega", "bristol")


def write_table(path: Path, races: dict[int, int]) -> None:
    """Write a table with the first races of each season, two cars each."""
    lines = [",".join(TABLE_COLUMNS)]
    for season, rounds in races.items():
        for i in range(rounds):
            lines += [f"{season},{i + 1},{TRACKS[i]},{car},{n},{n},200" for n, car in ((1, "Ann"), (2, "Bo"))]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def table(project: Path) -> Path:
    path = project / "mine.csv"
    write_table(path, {2022: 1})
    return path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as one:
        yield one


class Watched:
    """A code location that was loaded once, whose sensor ticks."""

    def __init__(self, table: Path, instance: dg.DagsterInstance) -> None:
        self.settings = Settings(source="tables", results=str(table), store=str(table.parent / "store"))
        self.defs = build_defs(self.settings)
        self.sensor = self.defs.get_repository_def().get_sensor_def("finished_races")
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.defs.get_repository_def()
        )
        answer = self.sensor(context)
        assert isinstance(answer, dg.SensorResult | dg.SkipReason)
        if isinstance(answer, dg.SensorResult):
            self.cursor = answer.cursor
        return answer

    def requests(self) -> list[dg.RunRequest]:
        answer = self.tick()
        assert isinstance(answer, dg.SensorResult)
        return list(answer.run_requests or [])

    def obey(self, request: dg.RunRequest) -> bool:
        job = self.defs.resolve_job_def("ingest_season")
        return job.execute_in_process(
            partition_key=request.partition_key,
            tags=dict(request.tags),
            instance=self.instance,
            raise_on_error=False,
        ).success


def test_a_race_is_asked_for_until_it_is_stored_and_then_never_again(
    table: Path, instance: dg.DagsterInstance
) -> None:
    watched = Watched(table, instance)
    (first,) = watched.requests()
    (again,) = watched.requests()
    assert first.partition_key == "2022"
    assert first.run_key == again.run_key, "the daemon launches a run key once"
    assert watched.obey(first)
    quiet = watched.tick()
    assert isinstance(quiet, dg.SensorResult)
    assert not quiet.run_requests
    assert quiet.skip_reason is not None
    assert "No race has finished" in str(quiet.skip_reason.skip_message)

    write_table(table, {2022: 2})
    (new,) = watched.requests()
    assert new.run_key != first.run_key
    assert watched.obey(new)
    assert watched.requests() == []
    assert json.loads(watched.cursor or "") == {"2022": [202201, 202202]}


def test_what_a_run_by_hand_stored_is_not_asked_for(table: Path, instance: dg.DagsterInstance) -> None:
    Watched(table, instance).obey(dg.RunRequest(partition_key="2022"))
    assert Watched(table, instance).requests() == []


def test_a_source_that_is_down_is_told_and_asked_again(table: Path, instance: dg.DagsterInstance) -> None:
    watched = Watched(table, instance)
    watched.obey(watched.requests()[0])
    before, content = watched.cursor, table.read_text()
    table.unlink()
    down = watched.tick()
    assert isinstance(down, dg.SkipReason)
    assert "mine.csv does not exist" in str(down.skip_message)
    assert "next tick tries again" in str(down.skip_message)
    assert watched.cursor == before
    table.write_text(content)
    assert watched.requests() == []


def test_an_ingest_that_fails_is_asked_for_again_but_not_for_ever(
    table: Path, instance: dg.DagsterInstance
) -> None:
    watched = Watched(table, instance)
    good, keys = table.read_text(), set()
    for _ in range(ATTEMPTS):
        (request,) = watched.requests()
        keys.add(request.run_key)
        table.write_text(good.replace("Ann,1,1", "Ann,1,2"))
        assert not watched.obey(request)
        table.write_text(good)
    assert len(keys) == ATTEMPTS
    given_up = watched.tick()
    assert isinstance(given_up, dg.SensorResult)
    assert not given_up.run_requests
    assert given_up.skip_reason is not None
    assert f"failed {ATTEMPTS} times" in str(given_up.skip_reason.skip_message)
    assert "2022 race 1 (daytona)" in str(given_up.skip_reason.skip_message)


def test_a_race_that_was_left_out_is_asked_for_again_later(
    table: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race is listed as run before its results are there: the ingest succeeds without it."""
    watched = Watched(table, instance)
    stored = table.parent / "store" / "tables" / "race_results" / "2022.parquet"

    def told() -> str:
        answer = watched.tick()
        assert isinstance(answer, dg.SensorResult)
        assert not answer.run_requests
        return str(answer.skip_reason and answer.skip_reason.skip_message)

    (request,) = watched.requests()
    keys = {request.run_key}
    assert watched.obey(request)
    stored.unlink()
    assert re.search(r"left out: 2022 race 1 \(daytona\)\. It is asked again at \d\d:\d\d UTC", told())
    monkeypatch.setattr(races, "FIRST_WAIT", datetime.timedelta(0))
    for _ in range(ATTEMPTS - 1):
        (request,) = watched.requests()
        keys.add(request.run_key)
        assert watched.obey(request)
        stored.unlink()
    assert len(keys) == ATTEMPTS
    assert told() == "Ingest of season 2022 left out: 2022 race 1 (daytona)."


def test_nothing_is_asked_for_while_it_is_being_made(table: Path, instance: dg.DagsterInstance) -> None:
    watched = Watched(table, instance)
    (request,) = watched.requests()
    instance.create_run_for_job(
        watched.defs.resolve_job_def("ingest_season"),
        status=dg.DagsterRunStatus.STARTED,
        tags={RACES_TAG: request.tags[RACES_TAG]},
    )
    busy = watched.tick()
    assert isinstance(busy, dg.SensorResult)
    assert not busy.run_requests
    assert busy.skip_reason is not None
    assert "being ingested" in str(busy.skip_reason.skip_message)


def test_a_new_season_waits_for_its_partition(table: Path, instance: dg.DagsterInstance) -> None:
    """Where the code server cannot be asked to load its definitions again, the tick says what to do."""
    watched = Watched(table, instance)
    watched.obey(watched.requests()[0])
    before = watched.cursor
    write_table(table, {2022: 1, 2023: 2})
    waiting = watched.tick()
    assert isinstance(waiting, dg.SkipReason)
    assert "Season 2023 is new in the source" in str(waiting.skip_message)
    assert watched.cursor == before
    reloaded = Watched(table, instance)
    reloaded.cursor = before
    (request,) = reloaded.requests()
    assert request.partition_key == "2023"


def test_the_report_is_told_of_races_that_finished_since(table: Path, instance: dg.DagsterInstance) -> None:
    watched = Watched(table, instance)
    watched.obey(watched.requests()[0])
    watched.requests()
    write_table(table, {2022: 3})
    answer = watched.tick()
    assert isinstance(answer, dg.SensorResult)
    (told,) = answer.asset_events
    assert isinstance(told, dg.AssetCheckEvaluation)
    assert (told.check_name, told.passed, told.severity) == (CHECK, False, dg.AssetCheckSeverity.WARN)
    assert told.description == (
        "2 finished races are not in the results: 2022 race 2 (phoenix), 2022 race 3 (talladega)."
    )
    for _ in range(2):
        instance.report_runless_asset_event(told)
    once = watched.tick()
    assert isinstance(once, dg.SensorResult)
    assert not once.asset_events, "told once"


def test_the_check_of_the_report_compares_the_source_with_what_is_stored(
    table: Path, instance: dg.DagsterInstance
) -> None:
    watched = Watched(table, instance)
    finished = {2022: {202201: "2022 race 1 (daytona)"}}
    assert missing_races(watched.settings, finished) == finished
    watched.obey(watched.requests()[0])
    assert missing_races(watched.settings, finished) == {}
    assert tell_missing({}) == "Every finished race is in the results."
    stored = table.parent / "store" / "tables" / "race_results" / "2022.parquet"
    assert pl.read_parquet(stored)["race_id"].unique().to_list() == [202201]
    check = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("calibration_report"), CHECK))
    job = dg.Definitions(
        asset_checks=[one for one in watched.defs.asset_checks or [] if CHECK in str(list(one.check_keys))],
        jobs=[dg.define_asset_job("judge", selection=check)],
        resources={"settings": watched.settings.model_copy(update={"seasons": "2022"})},
    ).resolve_job_def("judge")
    for rounds, passed in ((1, True), (2, False)):
        write_table(table, {2022: rounds})
        (evaluation,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
        assert evaluation.passed is passed
        assert evaluation.severity == dg.AssetCheckSeverity.WARN
    table.unlink()
    (unknown,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert not unknown.passed
    assert "Cannot tell: the source could not be asked. " in str(unknown.description)


def test_sensors_and_schedule_run_by_themselves_only_where_a_setting_says_so(table: Path) -> None:
    for automation in (False, True):
        settings = Settings(source="tables", results=str(table), automation=automation)
        defs = build_defs(settings)
        names = ("finished_races", "carry_to_report")
        statuses = {defs.get_repository_def().get_sensor_def(name).default_status.value for name in names}
        statuses |= {defs.resolve_schedule_def("after_race_weekend").default_status.value}
        assert statuses == {"RUNNING" if automation else "STOPPED"}
