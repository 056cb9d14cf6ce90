"""Fixtures that several test modules share. A fixture for a single module stays in that module."""

import gc
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from helpers.paths import ROOT

# Set before JAX is imported: test processes and later runs share compiled functions.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import hypothesis
import pytest
import sqlalchemy
import sqlalchemy.event
from filelock import FileLock

from benchmarks.interrupts import enable_interrupts
from helpers.stored_runs import SMALL, make

SYSTEM = ROOT / "tests" / "system"

gc.disable()  # imports leave no garbage: `pytest_collection_finish` enables it
enable_interrupts()
# Machines differ in speed: no test is about the time of an example.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def _do_not_wait_for_the_disk(connection: object, _record: object) -> None:
    """No test is about a power failure: Dagster's records need not reach the disk at each commit."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def pytest_configure(config: pytest.Config) -> None:
    """Import JAX where tests run, and not in the process that distributes them to others."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", default=None):
        from calibration_pipeline.mcmc.nuts import use_host_devices

        use_host_devices()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole runs: short files at the end keep all test processes busy."""
    items.sort(key=lambda item: SYSTEM not in item.path.parents)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from visiting all imported modules again and again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests independent of the environment that they run in."""
    for name in [name for name in os.environ if name.startswith("CALIBRATION_")]:
        monkeypatch.delenv(name)
    os.environ.pop("JAX_NUM_CPU_DEVICES", None)  # of a run in this process


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the store and the instance of `SMALL`; tests work on copies of it."""
    # Test processes share it: the parent of their folders is that of the whole test run.
    in_process = tmp_path_factory.getbasetemp()
    folder = (in_process.parent if "PYTEST_XDIST_WORKER" in os.environ else in_process) / "small_run"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "whole").exists():
            make(folder, SMALL)
            (folder / "whole").touch()
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty project folder that settings, store and instance are kept in."""
    monkeypatch.setattr("assets.settings.project_folder", lambda: tmp_path)
    monkeypatch.setattr("assets.instance.project_folder", lambda: tmp_path)
    monkeypatch.setattr("assets.resources.project_folder", lambda: tmp_path)
    # Worker processes know of none of that.
    monkeypatch.setenv("CALIBRATION_EXECUTOR", "in_process")
    monkeypatch.setenv("CALIBRATION_STORE", str(tmp_path / "data" / "store"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path


@pytest.fixture
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an address of an object store for which there are no credentials; no request is sent."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # one that an earlier test made has its credentials
    return "s3://bucket"
