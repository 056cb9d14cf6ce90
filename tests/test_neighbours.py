"""Other runs of the same instance: those whose process died are ended, those that live are waited for."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets import neighbours
from assets.instance import DEFAULT_CONFIG
from assets.neighbours import LOCK_TAG, end_dead_runs, living, wait_for_pools

POOL = "mcmc"


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


def started(instance: dg.DagsterInstance, lock: str) -> dg.DagsterRun:
    """Record a run that has started and holds every place in the pool."""
    run = instance.create_run_for_job(idle, tags={LOCK_TAG: lock})
    instance.report_dagster_event(
        dg.DagsterEvent("PIPELINE_START", job_name="idle", message=""), run_id=run.run_id
    )
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(POOL)
    for place in range(storage.get_concurrency_info(POOL).slot_count):
        assert storage.claim_concurrency_slot(POOL, run.run_id, f"nothing {place}").is_claimed
    return run


def holders(instance: dg.DagsterInstance) -> set[str]:
    return instance.event_log_storage.get_concurrency_info(POOL).active_run_ids


def test_the_run_of_a_killed_process_is_ended_and_its_place_freed(instance: dg.DagsterInstance) -> None:
    program = (
        "import dagster as dg, os, signal, sys\n"
        "from assets.neighbours import LOCK_TAG, living\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance, living(instance) as tags:\n"
        "    print(tags[LOCK_TAG], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, instance.root_directory], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    run = started(instance, done.stdout.strip())
    end_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert holders(instance) == set()
    assert not list(Path(instance.root_directory).glob("locks/*"))


def test_a_run_whose_process_lives_is_left_alone(instance: dg.DagsterInstance) -> None:
    with living(instance) as tags:
        run = started(instance, tags[LOCK_TAG])
        end_dead_runs(instance)
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
        assert holders(instance) == {run.run_id}
    end_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("lock", ["another-machine:/nowhere/lock", ""])
def test_of_other_machines_and_of_the_daemon_s_runs_nothing_is_known(
    instance: dg.DagsterInstance, lock: str
) -> None:
    run = started(instance, lock)
    end_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
    assert holders(instance) == {run.run_id}


def test_a_run_that_ended_without_giving_its_place_back_gives_it_back(instance: dg.DagsterInstance) -> None:
    run = started(instance, "")
    instance.report_run_failed(run)
    end_dead_runs(instance)
    assert holders(instance) == set()


def test_a_full_pool_is_waited_for_and_told_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told, polls = started(instance, f"{socket.gethostname()}:{__file__}"), [], []
    monkeypatch.setattr(neighbours, "_is_dead", lambda _lock: len(polls) > 2)
    monkeypatch.setattr(neighbours.time, "sleep", polls.append)
    wait_for_pools(instance, {POOL}, told.append)
    assert told == ["waiting: another run holds the pool mcmc"]
    assert len(polls) == 3
    assert instance.get_run_by_id(run.run_id).is_finished
    wait_for_pools(instance, {POOL, "another"}, told.append)
    assert len(told) == 1
