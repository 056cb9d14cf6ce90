"""Operation as a whole: a daemon carries a new season to the report; broken data stop where they are."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from upath import UPath

from assets.definitions import build_defs
from assets.instance import prepare_home
from assets.orchestration.sensors import SENSOR
from assets.settings import Settings
from assets.storage.io_manager import StoredManager
from calibration_pipeline.analysis.provenance import setting_values
from calibration_pipeline.io.stored_files import write_atomically
from calibration_pipeline.io.stored_values import encode
from helpers.example_tables import write_results, write_table
from helpers.paths import ROOT

LONGEST_S = 1800
SETTLED_S = 100
ENDED_S = 150
"""Dagster allows itself 60 seconds for each of two processes."""
PREFIX = ["tables", "cup"]
BROKEN = dg.AssetCheckKey(dg.AssetKey([*PREFIX, "race_results"]), "contract")


class Damaging(StoredManager):
    """Stores results in which two cars finish first."""

    def write(self, value: pl.DataFrame, context: dg.OutputContext, path: UPath) -> bytes:
        if "finish_position" not in value.columns:
            return super().write(value, context, path)
        data = encode(value.with_columns(finish_position=pl.lit(1, pl.Int64)))
        write_atomically(path, data)
        return data


@pytest.mark.slow
def test_broken_results_stop_at_the_check_and_later_assets_keep_their_files(project: Path) -> None:
    """Neither the run nor the sensor goes past the check; the event log has the reason."""
    table = project / "mine.csv"
    write_table(table, {2022: 2})
    store = str(project / "store")
    settings = Settings(source="tables", results=str(table), seasons="2022", store=store)
    features = settings.store_path / "driver_features" / "2022.parquet"
    damaged = {
        "io_manager": Damaging(settings.store_path, settings=setting_values(settings, settings.season_list))
    }
    names = ("lap_telemetry", "race_results", "lap_aggregates", "driver_features")
    chain = [dg.AssetKey([*PREFIX, name]) for name in names]
    with dg.DagsterInstance.ephemeral() as instance:

        def run(defs: dg.Definitions, keys: list[dg.AssetKey], season: str | None) -> bool:
            job = defs.resolve_implicit_global_asset_job_def()
            return job.execute_in_process(
                instance=instance, asset_selection=keys, partition_key=season, raise_on_error=False
            ).success

        def requested() -> list[dg.RunRequest]:
            """Return the requests of a tick of the sensor."""
            repository = build_defs(settings).get_repository_def()
            context = dg.build_sensor_context(instance, repository_def=repository)
            answer = repository.get_sensor_def(SENSOR)(context)
            assert isinstance(answer, dg.SensorResult)
            return list(answer.run_requests or [])

        good, bad = build_defs(settings), build_defs(settings, damaged)
        assert run(good, [dg.AssetKey([*PREFIX, "track_constraints"])], None)
        assert run(good, chain, "2022")
        before = features.read_bytes()
        write_table(table, {2022: 3})
        assert not run(bad, chain, "2022"), "a run that has all of them stops"
        assert run(bad, [chain[0], dg.AssetKey([*PREFIX, "quarantine"])], "2022")
        assert not run(bad, chain[1:2], "2022")
        assert requested() == []
        assert features.read_bytes() == before
        (record,) = instance.event_log_storage.get_asset_check_execution_history(BROKEN, limit=1)
        assert record.event is not None
        evaluation = record.event.get_dagster_event().asset_check_evaluation_data
        assert not evaluation.passed
        assert evaluation.blocking
        description = str(evaluation.description).replace("\\", "")
        assert "race_results [2022] breaks its contract" in description
        assert "finish_position" in description

        assert run(build_defs(settings), chain[:2], "2022")
        (request,) = requested()
        assert (request.asset_selection, request.partition_key) == (chain[3:], "2022")


@contextmanager
def daemon(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """Start `dagster dev` in a group of its own; end the whole group after."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = ["dev", "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", *serve],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(ENDED_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(what: str, reached: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + LONGEST_S
    while not reached():
        assert process.poll() is None, f"the daemon ended:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < end, f"no {what} after {LONGEST_S} s:\n{log.read_text()[-3000:]}"
        time.sleep(2)


@pytest.mark.soak
def test_a_new_season_in_the_source_reaches_the_report_without_a_command(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty folder: one season, a run; then a daemon, and a second season in the file."""
    table, log, store = project / "mine.csv", project / "dev.log", project / "store"
    write_results(project / "both.csv", [2022, 2023], 8)
    lines = (project / "both.csv").read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("2023")))
    environment = os.environ | {
        "CALIBRATION_SOURCE": "tables",
        "CALIBRATION_RESULTS": str(table),
        "CALIBRATION_STORE": str(store),
        "CALIBRATION_SCENARIOS": "100",
        "CALIBRATION_FOLD_RACES": "4",
        "CALIBRATION_AUTOMATION": "true",
        "DAGSTER_HOME": str(project / "home"),
    }
    command = [sys.executable, "-m", "assets.cli", "run"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    report = store / "tables" / "cup" / "calibration_report.md"
    before = report.read_text()
    assert "202308" not in before

    monkeypatch.setenv("DAGSTER_HOME", str(project / "home"))
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        by_hand = {run.run_id for run in instance.get_runs()}

        def runs() -> list[dg.DagsterRun]:
            return [run for run in instance.get_runs() if run.run_id not in by_hand]

        def settled() -> bool:
            """Whether the report was materialized, and no run has been requested for a few ticks since."""
            if report.read_text() == before or any(not run.is_finished for run in runs()):
                return False
            ends = [record.end_time or 0.0 for record in instance.get_run_records(limit=1)]
            return time.time() - max(ends) > SETTLED_S

        with daemon(environment, log) as process:
            wait_for(
                "tick", lambda: "No race has finished that is not stored" in log.read_text(), process, log
            )
            assert not runs(), "the partitions that the command materialized are up to date"
            (project / "more.csv").write_text("".join(lines))
            (project / "more.csv").replace(table)
            wait_for("new report", settled, process, log)
        made = [
            (key.path[-1], run.tags.get("dagster/partition"))
            for run in runs()
            for key in (run.asset_selection or ())
        ]
        assert {run.status for run in runs()} == {dg.DagsterRunStatus.SUCCESS}
        assert sorted(made) == sorted(set(made)), "nothing was made twice"
        assert len([run for run in runs() if run.job_name == "ingest"]) == 1
    assert ("driver_features", "2023") in made
    assert ("driver_features", "2022") not in made
    assert ("calibration_report", None) in made
    assert "202308" in report.read_text()
