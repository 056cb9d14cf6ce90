"""The sensor: a wave a tick, news of the source, attempts that wait, and what a failed check stops."""

import datetime
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.definitions import build_defs
from assets.instance import open_instance, prepare_home
from assets.orchestration import sensors
from assets.orchestration.commands import living_command
from assets.orchestration.jobs import REPORT, WAVES
from assets.orchestration.sensors import ATTEMPTS, CHECK, SENSOR
from assets.orchestration.staleness import OTHER_ENTRIES, Lineage
from assets.orchestration.tasks import Task
from assets.settings import Settings
from assets.storage.io_manager import SOURCE_VERSION
from calibration_pipeline.sources.news import describe_missing, missing_races
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.example_tables import write_table
from helpers.stored_runs import copied, point_at


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
    """A code location that was loaded once, whose sensor ticks; requests are executed at once."""

    def __init__(
        self,
        table: Path,
        store: Path,
        instance: dg.DagsterInstance,
        seasons: str | None = None,
        address: str | None = None,
    ) -> None:
        self.table = table
        self.folder = table.parent / "forecasters"
        self.folder.mkdir(exist_ok=True)
        self.settings = Settings(
            source="tables",
            results=address or str(table),
            store=str(store),
            seasons=seasons,
            forecasters=str(self.folder),
        )
        self.defs = build_defs(self.settings)
        self.repository = self.defs.get_repository_def()
        self.instance = instance
        self.cursor: str | None = None
        self.launched: set[str] = set()

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, repository_def=self.repository)
        answer = self.repository.get_sensor_def(SENSOR)(context)
        assert isinstance(answer, dg.SensorResult | dg.SkipReason)
        if isinstance(answer, dg.SensorResult):
            self.cursor = answer.cursor
        return answer

    def requests(self) -> list[dg.RunRequest]:
        """Tick, and return the requests whose run key is new, as the daemon launches them."""
        answer = self.tick()
        assert isinstance(answer, dg.SensorResult), answer
        return [request for request in answer.run_requests or [] if request.run_key not in self.launched]

    def skipped(self) -> str:
        answer = self.tick()
        if isinstance(answer, dg.SkipReason):
            return str(answer.skip_message)
        assert not answer.run_requests
        return str(answer.skip_reason and answer.skip_reason.skip_message)

    def execute(self, request: dg.RunRequest) -> bool:
        self.launched.add(str(request.run_key))
        return (
            build_defs(self.settings)  # as in a separate process, which reads the source again
            .resolve_job_def(str(request.job_name))
            .execute_in_process(
                partition_key=request.partition_key,
                asset_selection=request.asset_selection,
                tags=dict(request.tags),
                instance=self.instance,
                raise_on_error=False,
            )
            .success
        )

    def until(self, job: str) -> list[tuple[str, str | None]]:
        """Execute wave after wave until a job of that name is requested; return the runs before it."""
        runs = []
        for _ in WAVES:
            requests = self.requests()
            if not requests or job in {request.job_name for request in requests}:
                return runs
            for request in requests:
                assert self.execute(request)
                runs.append((str(request.job_name), request.partition_key))
        raise AssertionError(f"still requesting: {runs}")


@pytest.fixture(scope="module")
def first_season(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Store tracks and the first season of a table, for `ingested` to copy."""
    folder = tmp_path_factory.mktemp("first_season")
    write_table(folder / "mine.csv", {2022: 1})
    with pytest.MonkeyPatch.context() as patch:
        point_at(folder, patch)
        prepare_home()
        with open_instance() as instance:
            watched = Watched(folder / "mine.csv", folder / "store", instance)
            assert watched.until("features") == [("tracks", None), ("ingest", "2022")]
    return watched


@pytest.fixture
def ingested(first_season: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Return a location whose tracks and first season are stored."""
    table = first_season.table  # its path is a setting, and must not change
    write_table(table, {2022: 1})
    copied(table.parent, tmp_path, monkeypatch)
    with open_instance() as instance:
        watched = Watched(table, tmp_path / "store", instance)
        watched.cursor, watched.launched = first_season.cursor, set(first_season.launched)
        yield watched


@pytest.mark.slow
def test_waves_follow_each_other_a_tick_each(ingested: Watched) -> None:
    (features,) = ingested.requests()
    assert (features.job_name, features.partition_key) == ("features", "2022")
    assert features.tags["calibration/source"] == "tables"
    assert features.tags["calibration/seasons"] == "2022"
    assert not any("lock" in name or "/" in value for name, value in features.tags.items())
    assert ingested.execute(features)
    (networks,) = ingested.requests()
    assert networks.job_name == "networks"
    assert ingested.execute(networks)
    (scenarios,) = ingested.requests()
    assert (scenarios.job_name, scenarios.partition_key) == ("scenarios", "network|2022")


@pytest.mark.slow
def test_a_new_file_of_a_forecaster_loads_the_code_location_again(ingested: Watched) -> None:
    (ingested.folder / "late.nc").touch()
    assert ingested.skipped().startswith("New, or no longer there: forecaster late. Reload the code location")


def test_a_forecaster_or_a_season_that_disappears_loads_the_code_location_again(ingested: Watched) -> None:
    """A run would not have it, and so the loaded location would ask for the run again and again."""
    gone = ingested.folder / "gone.nc"
    gone.touch()
    with_forecaster = Watched(ingested.table, ingested.settings.store_path.parents[1], ingested.instance)
    gone.unlink()
    assert with_forecaster.skipped().startswith("New, or no longer there: forecaster gone. ")
    write_table(ingested.table, {2022: 1, 2023: 2})
    two_seasons = Watched(ingested.table, ingested.settings.store_path.parents[1], ingested.instance)
    write_table(ingested.table, {2022: 1})
    assert two_seasons.skipped().startswith("New, or no longer there: season 2023. ")


def test_a_forecast_of_a_newer_entry_list_than_the_known_one_is_requested_once(ingested: Watched) -> None:
    """The list is asked for every three hours on the web, and read again by each run."""
    settings = ingested.settings.model_copy(update={"seasons": "2022"})
    key = dg.AssetKey([*settings.key_prefix, "race_forecast"])
    lineage = Lineage(ingested.defs.resolve_asset_graph(), settings, ingested.instance, {}, "known")
    (job,) = (job for wave in WAVES for job in wave if "race_forecast" in job.assets)
    task = Task(job, ("race_forecast",), "network")
    requests = []
    for n_lists in (1, 1, 1, 3):  # the last time, the list has been another in between
        ingested.instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition="network", metadata={SOURCE_VERSION: "newer"})
        )
        reasons = {"race_forecast": f"race_forecast [network] {OTHER_ENTRIES}"}
        requests.append(sensors._request(lineage, task, reasons, n_lists))
        if (found := requests[-1]) is not None:
            ingested.instance.create_run_for_job(ingested.defs.resolve_job_def(job.name), tags=found.tags)
    assert [request is None for request in requests] == [False, True, True, False]


def test_a_race_is_ingested_once_and_only_its_season(ingested: Watched) -> None:
    write_table(ingested.table, {2022: 2})
    (new,) = ingested.requests()
    assert (new.job_name, new.partition_key) == ("ingest", "2022")
    assert {key.path[-1] for key in new.asset_selection or ()} == {
        "lap_telemetry",
        "race_results",
        "quarantine",
    }
    assert ingested.execute(new)
    assert ingested.requests()[0].job_name == "features"
    assert json.loads(ingested.cursor or "")["known"] == {"2022": [202201, 202202]}


@pytest.mark.slow
def test_a_partition_whose_run_failed_is_requested_again_only_after_a_change(
    table: Path, instance: dg.DagsterInstance
) -> None:
    watched = Watched(table, table.parent / "store", instance)
    watched.until("features")
    (request,) = watched.requests()
    results = watched.settings.store_path / "race_results" / "2022.parquet"
    whole = results.read_bytes()
    results.unlink()
    assert not watched.execute(request)
    results.write_bytes(whole)
    assert watched.requests() == []
    write_table(table, {2022: 2})
    (ingest,) = watched.requests()
    assert watched.execute(ingest)
    (again,) = watched.requests()
    assert again.job_name == "features"
    assert watched.execute(again)


@pytest.mark.slow
def test_a_failed_blocking_check_stops_the_runs_downstream(ingested: Watched) -> None:
    key = dg.AssetKey(["tables", "cup", "race_results"])
    evaluation = dg.AssetCheckEvaluation(key, "contract", False, {}, blocking=True, partition="2022")
    ingested.instance.report_runless_asset_event(evaluation)
    assert ingested.requests() == []
    assert ingested.execute(dg.RunRequest(job_name="ingest", partition_key="2022"))
    assert ingested.requests()[0].job_name == "features"


@pytest.mark.slow
def test_nothing_is_requested_while_a_run_of_the_source_is_in_progress(ingested: Watched) -> None:
    job = ingested.defs.resolve_job_def("features")
    started = dg.DagsterRunStatus.STARTED
    run = ingested.instance.create_run_for_job(job, status=started)
    assert ingested.skipped() == "1 runs of tables are in progress."
    ingested.instance.report_run_failed(run)
    assert ingested.requests()[0].job_name == "features"
    of_another = build_defs(Settings(seasons="2024")).resolve_job_def("features")
    ingested.instance.create_run_for_job(
        of_another,
        status=started,
        asset_selection=frozenset({dg.AssetKey(["simulated", "cup", "driver_features"])}),
    )
    assert ingested.requests()


@pytest.mark.slow
def test_a_source_that_is_down_is_named_and_asked_again(ingested: Watched) -> None:
    for request in ingested.requests():
        ingested.execute(request)
    known, content = json.loads(ingested.cursor or "")["known"], ingested.table.read_text()
    ingested.table.unlink()
    assert re.search(r"The source could not be asked; .*mine.csv does not exist", ingested.skipped())
    assert json.loads(ingested.cursor or "").get("known", known) == known
    ingested.table.write_text(content)
    assert ingested.requests()


@pytest.mark.slow
def test_a_source_on_the_web_that_refuses_is_named_and_left_in_peace(
    table: Path, instance: dg.DagsterInstance
) -> None:
    asked: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/mine.csv"
        watched = Watched(table, table.parent / "store", instance, "2022", address)
        watched.until("ingest")
        (ingest,) = watched.requests()
        assert not watched.execute(ingest)
        n_asked = len(asked)
        messages = [watched.skipped() for _ in range(3)]
        server.shutdown()
    assert n_asked
    assert all("The source could not be asked" in message for message in messages), messages
    assert len(asked) == n_asked


@pytest.mark.slow
def test_an_ingest_that_fails_is_requested_again_but_not_for_ever(
    table: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingested = Watched(table, table.parent / "store", instance, seasons="2022")
    ingested.until("scenarios")
    write_table(table, {2022: 2})
    good, keys = table.read_text(), set()

    def fail() -> None:
        (request,) = ingested.requests()
        assert request.job_name == "ingest"
        keys.add(request.run_key)
        table.unlink()
        assert not ingested.execute(request)
        table.write_text(good)

    fail()
    assert "ingest" not in {request.job_name for request in ingested.requests()}, "it waits for an hour"
    monkeypatch.setattr(sensors, "FIRST_WAIT", datetime.timedelta(0))
    for _ in range(ATTEMPTS - 1):
        fail()
    assert len(keys) == ATTEMPTS
    assert "ingest" not in {request.job_name for request in ingested.requests()}


@pytest.mark.slow
def test_corrected_results_are_ingested_again_once(ingested: Watched) -> None:
    """Results change after a race, as by a disqualification; the season is then read again."""
    ingested.until("scenarios")
    rows = ingested.table.read_text()
    ingested.table.write_text(rows.replace("Ann,1,1,", "Ann,1,2,").replace("Bo,2,2,", "Bo,2,1,"))
    assert ingested.table.read_text() != rows
    (request,) = ingested.requests()
    assert (request.job_name, request.partition_key) == ("ingest", "2022")
    assert ingested.execute(request)
    stored = pl.read_parquet(ingested.settings.store_path / "race_results" / "2022.parquet")
    assert stored.filter(finish_position=1)["driver"].to_list() == ["Bo"]
    assert "ingest" not in {request.job_name for request in ingested.requests()}


def test_a_race_without_results_is_ingested_again_only_when_the_source_changes(
    ingested: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race counts as run before its results are there: the ingest succeeds without it."""

    class Early(TablesSource):
        def finished_races(self, season: int) -> dict[int, str]:
            return {**super().finished_races(season), 202209: "2022 race 9 (darlington)"}

    early = Early(str(ingested.settings.results), None, compile_constraints())
    monkeypatch.setattr(sensors, "build_source", lambda _settings: early)
    assert "ingest" not in {request.job_name for request in ingested.requests()}


def test_each_season_is_asked_for_finished_races_once_a_tick(
    ingested: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(ingested.table, {2021: 1, 2022: 1})
    asked: list[int] = []

    class Counted(TablesSource):
        def finished_races(self, season: int) -> dict[int, str]:
            asked.append(season)
            return super().finished_races(season)

    counted = Counted(str(ingested.table), None, compile_constraints())
    monkeypatch.setattr(sensors, "build_source", lambda _settings: counted)
    ingested.tick()
    assert asked == [2021, 2022]


def test_a_new_season_waits_for_its_partition(ingested: Watched) -> None:
    """Without access to the code server, the message of the tick names the reload that is necessary."""
    before = ingested.cursor
    write_table(ingested.table, {2022: 1, 2023: 2})
    assert re.search(r"New, or no longer there: season 2023\. Reload the code location", ingested.skipped())
    assert ingested.cursor == before
    reloaded = Watched(ingested.table, ingested.settings.store_path.parents[1], ingested.instance)
    reloaded.cursor = before
    (request,) = reloaded.requests()
    assert (request.job_name, request.partition_key) == ("ingest", "2023")


def test_the_report_is_overdue_once_for_each_race_that_finished_since(ingested: Watched) -> None:
    write_table(ingested.table, {2022: 3})
    answer = ingested.tick()
    assert isinstance(answer, dg.SensorResult)
    (event,) = answer.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.check_name, event.passed, event.severity) == (CHECK, False, dg.AssetCheckSeverity.WARN)
    assert event.asset_key == dg.AssetKey(["tables", "cup", REPORT])
    assert event.description == (
        "2 finished races are not in the results: 2022 race 2 (phoenix), 2022 race 3 (talladega)."
    )
    once = ingested.tick()
    assert isinstance(once, dg.SensorResult)
    assert not once.asset_events


@pytest.mark.slow
def test_the_check_of_the_report_compares_the_source_with_the_stored_results(
    ingested: Watched,
) -> None:
    finished = {2022: {202201: "2022 race 1 (daytona)", 202299: "another"}}
    assert missing_races(ingested.settings.store_path, finished) == {2022: {202299: "another"}}
    assert describe_missing({}) == "Every finished race is in the results."
    check = dg.AssetCheckKey(dg.AssetKey(["tables", "cup", REPORT]), CHECK)
    job = dg.Definitions(
        asset_checks=[each for each in ingested.defs.asset_checks or [] if check in each.check_keys],
        jobs=[dg.define_asset_job("judge", selection=dg.AssetSelection.checks(check))],
        resources={"settings": ingested.settings.model_copy(update={"seasons": "2022"})},
    ).resolve_job_def("judge")
    for rounds, passed in ((1, True), (2, False)):
        write_table(ingested.table, {2022: rounds})
        (evaluation,) = job.execute_in_process(instance=ingested.instance).get_asset_check_evaluations()
        assert evaluation.passed is passed
        assert evaluation.severity == dg.AssetCheckSeverity.WARN
    ingested.table.unlink()
    (unknown,) = job.execute_in_process(instance=ingested.instance).get_asset_check_evaluations()
    assert not unknown.passed
    assert "Not known whether races have finished" in str(unknown.description)


def test_sensor_and_schedule_are_on_only_with_the_automation_setting(table: Path) -> None:
    for automation in (False, True):
        defs = build_defs(Settings(source="tables", results=str(table), automation=automation))
        statuses = {defs.resolve_schedule_def("after_race_weekend").default_status.value}
        statuses |= {defs.get_repository_def().get_sensor_def(SENSOR).default_status.value}
        assert statuses == {"RUNNING" if automation else "STOPPED"}


@pytest.mark.slow
def test_requests_of_series_and_settings_differ(table: Path, instance: dg.DagsterInstance) -> None:
    """Dagster launches a run key once: what was never stored must have another key under other settings."""
    keys = set()
    for changes in ({}, {"series": "truck"}, {"seed": 7}):
        watched = Watched(table, table.parent / "store", instance)
        watched.settings = watched.settings.model_copy(update=changes)
        watched.repository = build_defs(watched.settings).get_repository_def()
        (request,) = watched.requests()
        assert request.job_name == "tracks"
        keys.add(request.run_key)
    assert len(keys) == 3


@pytest.mark.slow
def test_a_new_entry_list_of_the_next_race_is_noticed(ingested: Watched) -> None:
    known = []
    for ahead in ("", "2022,2,phoenix,Ann,1,,\n2022,2,phoenix,Bo,2,,\n"):
        write_table(ingested.table, {2022: 1})
        ingested.table.write_text(ingested.table.read_text() + ahead)
        ingested.tick()
        known.append(json.loads(ingested.cursor or "")["entries"])
    assert known[0] != known[1]
    other_series = json.loads(ingested.cursor or "") | {
        "of": ["tables", "truck"],
        "known": {"2022": [202209]},
    }
    ingested.cursor = json.dumps(other_series)
    answer = ingested.tick()
    assert isinstance(answer, dg.SensorResult)
    assert not answer.asset_events, "what is known of another series says nothing"
    assert json.loads(ingested.cursor or "")["n_lists"] == 1


@pytest.mark.slow
def test_a_value_whose_run_died_before_its_checks_is_materialized_once_more(ingested: Watched) -> None:
    job, instance = ingested.defs.resolve_job_def("ingest"), ingested.instance
    season = {"dagster/partition": "2022"}
    key = dg.AssetKey(["tables", "cup", "race_results"])

    def die(*, after_storing: bool) -> list[tuple[str | None, str | None]]:
        run = instance.create_run_for_job(job, tags=season)  # it plans its checks
        assert ingested.skipped() == "1 runs of tables are in progress."
        if after_storing:
            (record,) = instance.fetch_materializations(dg.AssetRecordsFilter(key), limit=1).records
            instance.report_runless_asset_event(record.asset_materialization)
        instance.report_run_failed(run)
        requests = ingested.requests()
        for request in requests:
            instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.FAILURE)
        return [(request.job_name, request.partition_key) for request in requests]

    assert ("ingest", "2022") not in die(after_storing=False), "the checks of the stored value have passed"
    assert die(after_storing=True) == [("ingest", "2022")]
    assert ("ingest", "2022") not in die(after_storing=True), (
        "checks that end their run would end it for ever"
    )


@pytest.mark.slow
def test_a_dead_commands_run_does_not_stop_the_sensor(ingested: Watched) -> None:
    job = ingested.defs.resolve_job_def("features")
    with living_command(ingested.instance) as tags:
        ingested.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert ingested.skipped() == "1 runs of tables are in progress."
    assert ingested.requests()[0].job_name == "features"
