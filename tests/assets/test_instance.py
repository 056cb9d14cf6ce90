"""The Dagster instance: its configuration, and its records on SQLite and on Postgres."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType

from assets.cli import main
from assets.instance import DEFAULT_CONFIG, POSTGRES_VARIABLE, prepare_home
from assets.settings import SettingsError
from helpers.paths import ROOT
from helpers.postgres_server import PASSWORD, binaries, postgres

ADDRESS = "postgresql+psycopg2://me:hidden@db/dagster"
INGEST = ["run", "--select", "track_constraints,lap_telemetry,race_results", "--seasons", "2025"]


def test_configuration_limits_runs_and_sends_nothing_home(project: Path) -> None:
    home = prepare_home()
    assert home == project / ".dagster_home"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 4 * 3600
        limits = instance.get_concurrency_config()
        assert limits.pool_config.default_pool_limit is None
        assert limits.run_queue_config is not None
        assert limits.run_queue_config.max_concurrent_runs == 2
        kept = instance.get_tick_retention_settings(InstigatorType.SENSOR)
        assert {status.value: days for status, days in kept.items()}["SKIPPED"] == 2
        with instance.compute_log_manager.capture_logs(["run"]):
            print("printed by a run")  # noqa: T201
        assert not any(home.rglob("run.*"))


def test_postgres_is_named_by_the_environment_and_its_address_is_not_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project / ".dagster_home" / "dagster.yaml"
    prepare_home()
    assert config.read_text() == DEFAULT_CONFIG.read_text()
    monkeypatch.setenv(POSTGRES_VARIABLE, ADDRESS)
    prepare_home()
    assert f"env: {POSTGRES_VARIABLE}" in config.read_text()
    assert "hidden" not in config.read_text()
    monkeypatch.delenv(POSTGRES_VARIABLE)
    prepare_home()
    assert config.read_text() == DEFAULT_CONFIG.read_text()


def test_a_users_configuration_is_kept_and_a_contradiction_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project / ".dagster_home" / "dagster.yaml"
    config.parent.mkdir()
    config.write_text("telemetry: {enabled: false}\n")
    prepare_home()
    assert config.read_text() == "telemetry: {enabled: false}\n"
    monkeypatch.setenv(POSTGRES_VARIABLE, ADDRESS)
    with pytest.raises(
        SettingsError, match=rf"{POSTGRES_VARIABLE} is set, but .*dagster.yaml does not use it"
    ):
        prepare_home()
    config.write_text(f"storage: {{postgres: {{postgres_url: {{env: {POSTGRES_VARIABLE}}}}}}}\n")
    prepare_home()
    monkeypatch.delenv(POSTGRES_VARIABLE)
    with pytest.raises(SettingsError, match=r"is not set, but .* reads it"):
        prepare_home()


def test_an_address_with_another_scheme_is_refused_without_showing_it(
    project: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(POSTGRES_VARIABLE, "postgresql://me:hidden@db/dagster")
    assert main(INGEST) == 2
    error = capsys.readouterr().err
    assert "must begin with postgresql+psycopg2://" in error
    assert "hidden" not in error


def test_a_database_needs_its_package_and_must_answer(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(POSTGRES_VARIABLE, "postgresql+psycopg2://me:hidden@127.0.0.1:9/dagster")
    monkeypatch.setattr("dagster_postgres.utils.time.sleep", lambda _seconds: None)
    assert main(INGEST) == 1
    error = capsys.readouterr().err
    assert f"Dagster's records in {(project / '.dagster_home').resolve()} cannot be kept" in error
    assert "Connection refused" in error
    assert "hidden" not in error
    assert "Traceback" not in error
    monkeypatch.setattr("assets.instance.find_spec", lambda _name: None)
    assert main(INGEST) == 2
    assert "pip install 'calibration-pipeline[postgres]'" in capsys.readouterr().err


def test_records_that_cannot_be_read_get_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = prepare_home() / "history" / "runs.db"
    runs.parent.mkdir()
    runs.write_bytes(b"no database" * 1000)
    assert main(INGEST) == 1
    error = capsys.readouterr().err
    home = (project / ".dagster_home").resolve()
    assert f"Dagster's records in {home} cannot be kept, the command was given up: DatabaseError" in error
    assert "file is not a database" in error
    assert "Traceback" not in error
    assert "Traceback" in (project / ".dagster_home" / "calibration.log").read_text()


OPENED_ON_A_SIGNAL = """
import sys
import dagster._core.storage.base_storage
from assets.instance import open_records
print("ready", flush=True)
sys.stdin.readline()
with open_records() as instance:
    print(instance.get_runs_count(), end="")
"""


@pytest.mark.slow
def test_concurrent_first_commands_create_the_records_once(project: Path) -> None:  # noqa: ARG001
    prepare_home()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    commands = [subprocess.Popen([sys.executable, "-c", OPENED_ON_A_SIGNAL], **pipes) for _ in range(4)]
    assert [command.stdout.readline() for command in commands] == ["ready\n"] * 4
    for command in commands:
        command.stdin.write("now\n")
        command.stdin.flush()
    assert [command.communicate() for command in commands] == [("0", "")] * 4


def test_a_configuration_is_written_whole_or_not_at_all(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one, as a full disk leaves it, would be taken for one of the user's own."""

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(INGEST) == 1
    message = capsys.readouterr().err
    assert "DAGSTER_HOME cannot be written: [Errno 28] No space left on device" in message
    assert str(project / ".dagster_home" / "dagster.yaml") in message
    assert list((project / ".dagster_home").iterdir()) == []
    prepare_home()
    assert (project / ".dagster_home" / "dagster.yaml").read_text() == DEFAULT_CONFIG.read_text()


@pytest.mark.server
@pytest.mark.skipif(binaries() is None, reason="Postgres is not installed: apt-get install postgresql")
def test_runs_are_recorded_in_a_real_postgres(tmp_path: Path) -> None:
    """A run by the command line is found in the database, with its checks, and nothing in SQLite files."""
    home = tmp_path / "home"
    with postgres() as address:
        environment = {
            **os.environ,
            POSTGRES_VARIABLE: address,
            "CALIBRATION_STORE": str(tmp_path / "store"),
            "DAGSTER_HOME": str(home),
        }
        command = [sys.executable, "-m", "assets.cli", *INGEST]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        asked = (
            "import dagster as dg\n"
            "with dg.DagsterInstance.get() as instance:\n"
            "    print(type(instance.run_storage).__name__, instance.get_runs_count())\n"
            "    key = dg.AssetKey(['simulated', 'cup', 'race_results'])\n"
            "    print(*instance.get_materialized_partitions(key))\n"
        )
        answer = subprocess.run(
            [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True
        )
    assert answer.stdout.split() == ["PostgresRunStorage", "2", "2025"]
    assert not list(home.rglob("*.db"))
    written = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert all(PASSWORD.encode() not in content for content in written)
