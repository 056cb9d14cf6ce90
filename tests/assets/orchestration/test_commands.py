"""Commands on one instance: the runs of dead ones are ended, those of living or other ones are left alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.instance import COMMAND_TAG, DEFAULT_CONFIG
from assets.orchestration.commands import MAX_RETRIES_TAG, end_dead_runs, living_command


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job
def idle() -> None:
    """Have runs to record."""
    nothing()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text(DEFAULT_CONFIG.read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def started(instance: dg.DagsterInstance, command: str) -> dg.DagsterRun:
    return instance.create_run_for_job(idle, tags={COMMAND_TAG: command}, status=dg.DagsterRunStatus.STARTED)


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


@pytest.mark.slow
def test_the_run_of_a_killed_command_is_ended(instance: dg.DagsterInstance) -> None:
    program = (
        "import dagster as dg, os, signal, sys\n"
        "from assets.orchestration.commands import living_command\n"
        "from assets.instance import COMMAND_TAG\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance, living_command(instance) as tags:\n"
        "    print(tags[COMMAND_TAG], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, instance.root_directory], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = started(instance, done.stdout.strip())
    end_dead_runs(instance)
    assert status(instance, run) == dg.DagsterRunStatus.FAILURE
    assert not list(Path(instance.root_directory).glob("locks/*"))


def test_the_run_of_a_living_command_is_left_alone(instance: dg.DagsterInstance) -> None:
    with living_command(instance) as tags:
        run = started(instance, tags[COMMAND_TAG])
        end_dead_runs(instance)
        assert status(instance, run) == dg.DagsterRunStatus.STARTED
    end_dead_runs(instance)
    assert status(instance, run) == dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("command", ["another-machine:0123456789ab:0123456789ab", ""])
def test_nothing_is_known_of_other_machines_and_of_the_daemon_s_runs(
    instance: dg.DagsterInstance, command: str
) -> None:
    run = started(instance, command)
    end_dead_runs(instance)
    assert status(instance, run) == dg.DagsterRunStatus.STARTED


def test_nothing_is_known_of_commands_with_another_home_on_the_same_records(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """As with one Postgres for two folders of this machine: the lock of a command is in its own."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dagster.yaml").write_text(DEFAULT_CONFIG.read_text())
    with (
        dg.DagsterInstance.from_config(str(tmp_path / "other")) as other,
        living_command(other) as tags,
    ):
        run = started(instance, tags[COMMAND_TAG])
        end_dead_runs(instance)
        assert status(instance, run) == dg.DagsterRunStatus.STARTED


def test_the_daemon_retries_no_run_of_a_command_and_tags_hold_no_path(instance: dg.DagsterInstance) -> None:
    with living_command(instance) as tags:
        assert tags[MAX_RETRIES_TAG] == "0"
        assert os.sep not in "".join(tags.values())
