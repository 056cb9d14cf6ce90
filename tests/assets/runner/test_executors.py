"""Executors: equal values in process, in a pool and on Dask; a killed worker or command leaves nothing."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from upath import UPath

from assets.instance import DEFAULT_CONFIG
from assets.orchestration.commands import UNFINISHED
from assets.settings import SettingsError, load_settings
from helpers.clusters import BUCKET, command, dask_cluster, object_store, start
from helpers.stored import assert_same_values

# Two short seasons up to their features, to their networks, or to the scores of one archetype.
OPTIONS = ["run", "--seasons", "2024,2025", "--scenarios", "100", "--archetypes", "road_course"]
FEATURES, NETWORKS, SCORES = "driver_features", "causal_network", "calibration_metrics"
LAST_PARTITION = {NETWORKS: "2025", SCORES: "road_course|network"}
ENDED_S = 400.0


@pytest.fixture(scope="module")
def last(request: pytest.FixtureRequest) -> str:
    """Return the asset up to which a test runs."""
    return request.param


@pytest.fixture(scope="module")
def in_process(last: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of a run in one process."""
    folder = tmp_path_factory.mktemp("in_process")
    command(
        [*OPTIONS, "--select", f"+{last}", "--executor", "in_process"],
        {"CALIBRATION_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")},
    )
    return folder / "store" / "simulated" / "cup"


@pytest.mark.soak
@pytest.mark.parametrize("last", [NETWORKS], indirect=True)
def test_a_pool_of_processes_gives_the_same_values(in_process: Path, last: str, tmp_path: Path) -> None:
    env = {"CALIBRATION_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(tmp_path / "home")}
    out = command([*OPTIONS, "--select", f"+{last}", "--processes", "2"], env)
    assert f"✓ {last} [{LAST_PARTITION[last]}]" in out
    assert "DEBUG" not in out
    assert_same_values(UPath(tmp_path / "store" / "simulated" / "cup"), in_process)


def step_processes(home: Path, step: str, partition: str) -> list[int]:
    """Return the processes in which a step of a partition started, in order."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": partition}))
        events = [
            record.event_log_entry.dagster_event
            for run in reversed(runs)
            for record in instance.get_records_for_run(
                run.run_id, of_type=dg.DagsterEventType.STEP_START
            ).records
        ]
    return [event.pid for event in events if event and event.step_key == step and event.pid]


def wait_for_step(run: subprocess.Popen, home: Path, step: str, partition: str) -> int:
    """Return the process in which a step starts, as soon as it does."""
    end = time.monotonic() + ENDED_S
    while not (found := step_processes(home, step, partition)):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.5)
    return found[-1]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a DAGSTER_HOME whose storage is there before others open it."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(DEFAULT_CONFIG, folder / "dagster.yaml")
    assert not step_processes(folder, NETWORKS, "2025")
    return folder


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Serve an object store and return the environment of processes that use it."""
    with object_store(tmp_path) as reach:
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
        yield reach


@pytest.mark.server
@pytest.mark.parametrize("last", [FEATURES], indirect=True)
def test_dask_gives_the_same_values(
    in_process: Path, last: str, tmp_path: Path, home: Path, bucket: dict[str, str]
) -> None:
    """Two workers fill an object store."""
    env = {**bucket, "DAGSTER_HOME": str(home), "CALIBRATION_STORE": f"s3://{BUCKET}/mine"}
    with dask_cluster(tmp_path, bucket) as (address, workers):
        out = command(
            [*OPTIONS, "--select", f"+{last}", "--executor", "dask", "--dask-address", address], env
        )
        in_workers = {pid for season in ("2024", "2025") for pid in step_processes(home, last, season)}
        assert in_workers <= {worker.pid for worker in workers}
    assert in_workers
    assert "testing-secret" not in out
    assert_same_values(UPath(f"s3://{BUCKET}/mine/simulated/cup"), in_process)


@pytest.mark.soak
@pytest.mark.server
@pytest.mark.parametrize("last", [NETWORKS, SCORES], indirect=True)
def test_dask_gives_the_same_values_though_a_worker_is_killed(
    in_process: Path, last: str, tmp_path: Path, home: Path, bucket: dict[str, str]
) -> None:
    """Two workers fill an object store; the one that fits the last network is killed meanwhile."""
    env = {**bucket, "DAGSTER_HOME": str(home), "CALIBRATION_STORE": f"s3://{BUCKET}/mine"}
    with dask_cluster(tmp_path, bucket) as (address, workers):
        run = start([*OPTIONS, "--select", f"+{last}", "--executor", "dask", "--dask-address", address], env)
        try:
            victim = wait_for_step(run, home, NETWORKS, "2025")
            assert victim in [worker.pid for worker in workers]
            os.kill(victim, signal.SIGKILL)
            out, _ = run.communicate(timeout=ENDED_S)
        finally:
            run.kill()
    assert run.returncode == 0, out
    (survivor,) = [worker.pid for worker in workers if worker.pid != victim]
    assert step_processes(home, NETWORKS, "2025") == [victim, survivor]
    assert f"✓ {last} [{LAST_PARTITION[last]}]" in out
    assert "testing-secret" not in out
    with dg.DagsterInstance.from_config(str(home)) as instance:
        statuses = sorted(run.status.value for run in instance.get_runs(dg.RunsFilter(job_name="networks")))
    assert statuses == ["FAILURE", "SUCCESS", "SUCCESS"]
    store = UPath(f"s3://{BUCKET}/mine/simulated/cup")
    assert_same_values(store, in_process)
    if last == SCORES:
        judged = command(["events", "top(5) & running"], env)
        assert "Road course" in judged
        there = {"CALIBRATION_STORE": str(in_process.parents[1])}
        assert judged == command(["events", "top(5) & running"], there)


@pytest.mark.soak
@pytest.mark.server
def test_dask_workers_that_die_one_after_the_other_end_the_command_with_a_message(
    tmp_path: Path, home: Path
) -> None:
    """Dask gives up a run after so many deaths as it allows: here the first one."""
    env = {"CALIBRATION_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(home)}
    with dask_cluster(tmp_path, {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}) as (address, _):
        options = ["--select", f"+{NETWORKS}", "--executor", "dask", "--dask-address", address]
        run = start([*OPTIONS, *options], env)
        os.kill(wait_for_step(run, home, NETWORKS, "2025"), signal.SIGKILL)
        out, _ = run.communicate(timeout=ENDED_S)
    assert run.returncode == 1
    assert "Workers of the Dask cluster died" in out
    assert "Traceback" not in out
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))


@pytest.mark.server
def test_the_report_is_found_in_an_object_store(bucket: dict[str, str], tmp_path: Path) -> None:
    env = {**bucket, "CALIBRATION_STORE": f"s3://{BUCKET}/reports", "DAGSTER_HOME": str(tmp_path / "home")}
    for source in ("tables", "simulated"):
        page = UPath(f"s3://{BUCKET}/reports/{source}/cup/calibration_report.html")
        page.write_bytes(b"<html>")
        page.with_suffix(".md").write_bytes(f"the report of {source}".encode())
        time.sleep(1.1)  # modification times have whole seconds
    out = command(["report"], env)
    assert "the report of simulated" in out
    assert "was not verified" in out
    assert f"s3://{BUCKET}/reports/simulated/cup/calibration_report.html" in out


@pytest.mark.soak
@pytest.mark.server
def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path) -> None:
    env = {"CALIBRATION_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(tmp_path / "home")}
    run = start(
        ["run", "--select", "track_constraints", "--executor", "dask", "--dask-address", "tcp://127.0.0.1:9"],
        env,
    )
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in out
    assert "Traceback" not in out


def test_dask_needs_an_address_and_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"CALIBRATION_DASK_ADDRESS .*executor dask needs it"):
        load_settings({"executor": "dask"})
    assert load_settings({"executor": "dask", "dask_address": "tcp://127.0.0.1:8786"}).processes == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"calibration-pipeline\[dask\]"):
        load_settings({"executor": "dask", "dask_address": "tcp://127.0.0.1:8786"})


def processes_of(home: Path) -> list[int]:
    """Return the processes whose environment names this DAGSTER_HOME."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"DAGSTER_HOME={home}".encode() in environment.split(b"\0"):
            found.append(int(folder.name))
    return found


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are listed by /proc")
def test_a_killed_command_leaves_no_process_and_no_blocked_pipe(tmp_path: Path, home: Path) -> None:
    """Whoever reads the command's output sees its end at once; its dead run is ended by the next command."""
    env = {"CALIBRATION_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(home)}
    run = start([*OPTIONS, "--select", f"+{NETWORKS}"], env)
    wait_for_step(run, home, NETWORKS, "2025")
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    end = time.monotonic() + 30
    while left := processes_of(home):
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.2)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    command(["run", "--select", "track_constraints"], env)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))


@pytest.mark.soak
def test_a_killed_worker_ends_the_command_with_a_message(tmp_path: Path, home: Path) -> None:
    env = {"CALIBRATION_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(home)}
    run = start([*OPTIONS, "--select", f"+{NETWORKS}"], env)
    os.kill(wait_for_step(run, home, NETWORKS, "2025"), signal.SIGKILL)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "A worker process died" in out
    assert "Traceback" not in out
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
