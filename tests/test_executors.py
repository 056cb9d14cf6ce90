"""Executors: the same values from one process, several, and a Dask cluster of which a worker is killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from clusters import BUCKET, ROOT, command, dask_cluster, object_store, start
from stored import assert_same_values
from upath import UPath

from assets.instance import DEFAULT_CONFIG
from assets.settings import SettingsError, load_settings

# Two short seasons up to their networks, or further up to the scores of one archetype.
OPTIONS = ["run", "--seasons", "2024,2025", "--scenarios", "100", "--archetypes", "road_course"]
NETWORKS, SCORES = "causal_network", "calibration_metrics"
LAST_PARTITION = {NETWORKS: "2025", SCORES: "road_course"}
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
        [*OPTIONS, "--select", f"+{last}"],
        {"CALIBRATION_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")},
    )
    return folder / "store" / "simulated"


@pytest.mark.soak
@pytest.mark.parametrize("last", [SCORES], indirect=True)
def test_multiprocess_gives_the_same_values(in_process: Path, tmp_path: Path) -> None:
    """The last steps again, each in a process of its own; progress is told as ever."""
    store = tmp_path / "store"
    shutil.copytree(in_process.parent, store)
    remade = ("calibration_posterior", "recalibrated_ensemble", "backtest", "calibration_metrics")
    for asset in remade:
        (store / "simulated" / asset).joinpath(
            "road_course" + (".parquet" if "metrics" in asset else ".nc")
        ).unlink()
    env = {"CALIBRATION_STORE": str(store), "DAGSTER_HOME": str(tmp_path / "home")}
    out = command([*OPTIONS, "--select", ",".join(remade), "--executor", "multiprocess"], env)
    for asset in remade:
        assert f"✓ {asset} [road_course]" in out
    assert "DEBUG" not in out
    assert_same_values(UPath(store / "simulated"), in_process)


def started(home: Path, step: str, partition: str) -> list[int]:
    """Return the processes in which a step of a partition was started, in order."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": partition}))
        events = [
            record.event_log_entry.dagster_event
            for run in runs
            for record in instance.get_records_for_run(
                run.run_id, of_type=dg.DagsterEventType.STEP_START
            ).records
        ]
    return [event.pid for event in events if event and event.step_key == step and event.pid]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Serve an object store and return the environment of processes that use it."""
    with object_store(tmp_path) as reach:
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
        yield reach


@pytest.mark.parametrize(
    "last",
    [pytest.param(NETWORKS, marks=pytest.mark.server), pytest.param(SCORES, marks=pytest.mark.soak)],
    indirect=True,
)
def test_dask_gives_the_same_values_though_a_worker_is_killed(
    in_process: Path, last: str, tmp_path: Path, bucket: dict[str, str]
) -> None:
    """Two workers fill an object store; the one that fits the last network is killed meanwhile."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(DEFAULT_CONFIG, home / "dagster.yaml")
    assert not started(home, "causal_network", "2025")  # and the storage is there before others open it
    env = {**bucket, "DAGSTER_HOME": str(home), "CALIBRATION_STORE": f"s3://{BUCKET}/mine"}
    with dask_cluster(tmp_path, bucket) as (address, workers):
        run = start([*OPTIONS, "--select", f"+{last}", "--executor", "dask", "--dask-address", address], env)
        try:
            end = time.monotonic() + ENDED_S
            while not started(home, "causal_network", "2025"):
                assert run.poll() is None, run.communicate()[0]
                assert time.monotonic() < end
                time.sleep(0.5)
            (victim,) = started(home, "causal_network", "2025")
            assert victim in [worker.pid for worker in workers]
            os.kill(victim, signal.SIGKILL)
            out, _ = run.communicate(timeout=ENDED_S)
        finally:
            run.kill()
    assert run.returncode == 0, out
    (survivor,) = [worker.pid for worker in workers if worker.pid != victim]
    assert started(home, "causal_network", "2025") == [victim, survivor]
    assert f"✓ {last} [{LAST_PARTITION[last]}]" in out
    assert "testing-secret" not in out
    store = UPath(f"s3://{BUCKET}/mine/simulated")
    assert_same_values(store, in_process)
    if last == SCORES:
        judged = command(["events", "top(5) & running"], env)
        assert "Road course" in judged
        there = {"CALIBRATION_STORE": str(in_process.parent)}
        assert judged == command(["events", "top(5) & running"], there)


@pytest.mark.server
def test_the_report_is_found_in_an_object_store(bucket: dict[str, str]) -> None:
    env = {**bucket, "CALIBRATION_STORE": f"s3://{BUCKET}/reports"}
    for source in ("tables", "simulated"):
        page = UPath(f"s3://{BUCKET}/reports/{source}/calibration_report.html")
        page.write_bytes(b"<html>")
        page.with_suffix(".md").write_bytes(f"the report of {source}".encode())
        time.sleep(1.1)  # modification times are told in seconds
    out = command(["report"], env)
    assert "the report of simulated" in out
    assert f"s3://{BUCKET}/reports/simulated/calibration_report.html" in out


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
    with pytest.raises(SettingsError, match=r"CALIBRATION_DASK_ADDRESS .*executor dask submits to it"):
        load_settings({"executor": "dask"})
    assert load_settings({"executor": "dask", "dask_address": "tcp://127.0.0.1:8786"}).processes == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"calibration-pipeline\[dask\]"):
        load_settings({"executor": "dask", "dask_address": "tcp://127.0.0.1:8786"})


def test_what_the_fork_server_loads_starts_neither_jax_nor_threads_that_a_fork_loses() -> None:
    """Processes forked after JAX's start hang; arrays in a preloaded module would start it."""
    code = (
        "import importlib, threading\n"
        "from assets.pool import PRELOADED\n"
        "for name in PRELOADED: importlib.import_module(name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "from pathlib import Path\n"
        "print(*(thread.read_text().strip() for thread in Path('/proc/self/task').glob('*/comm')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"polars-\d+|tokio\S*|async-executor\S*", done.stdout), "polars' pools are started"
