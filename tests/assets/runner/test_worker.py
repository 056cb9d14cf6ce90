"""Worker processes: their setup before JAX starts, their records, and the modules that are preloaded."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT

pytestmark = pytest.mark.slow
PROGRAM = """
from assets.jax_environment import prepare_jax

prepare_jax()
prepare_jax()
import jax

hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hits" in name else None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
assert jax.jit(lambda x: x + 1)(1) == 2
print(jax.local_device_count(), len(hits), jax.config.jax_compilation_cache_dir)
"""


def run(program: str, home: Path, **variables: str) -> list[str]:
    """Run a program in a new process and return the words that it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**kept, "DAGSTER_HOME": str(home), **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_process_uses_the_programs_that_an_earlier_one_compiled(tmp_path: Path) -> None:
    """Entries that a killed process left empty are compiled again."""
    first, second = run(PROGRAM, tmp_path), run(PROGRAM, tmp_path)
    assert first[:2] == ["4", "0"]
    assert second[0] == "4"
    assert int(second[1]) > 0
    assert second[2] == first[2]
    folder = Path(first[2])
    assert folder.parent == tmp_path / "compiled"
    entries = sorted(folder.iterdir())
    for entry in entries:
        entry.write_bytes(b"")
    assert run(PROGRAM, tmp_path)[1] == "0"
    assert sorted(folder.iterdir()) == entries
    assert all(entry.stat().st_size for entry in entries)


def test_a_folder_of_the_user_s_is_used(tmp_path: Path) -> None:
    own = str(tmp_path / "own")
    assert run(PROGRAM, tmp_path, JAX_COMPILATION_CACHE_DIR=own)[2] == own
    assert not (tmp_path / "compiled").exists()


MATERIALIZE = """
from pathlib import Path

import sqlalchemy

from assets.instance import prepare_home
from assets.runner.worker import Work, initialize_worker, materialize
from assets.settings import Settings, to_public_json

home = str(prepare_home())
initialize_worker(home + "/calibration.log")
database = Path(home, "mine.db")
engine = sqlalchemy.create_engine(f"sqlite:///{database}", poolclass=sqlalchemy.NullPool)
for statement in ("CREATE TABLE events (number)", "INSERT INTO events VALUES (1)"):
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert database.with_name("mine.db-wal").stat().st_size > 0, "a connection that closed has synced its log"
settings = to_public_json(Settings(store=home + "/store", seasons="2024"))
assert materialize(Work(settings, home, "tracks", ["track_constraints"], None, {}))
"""


READ = """
from assets.instance import open_instance

with open_instance() as instance:
    (done,) = instance.get_runs()
    print(done.status.value, *(entry.dagster_event_type.value for entry in instance.all_logs(done.run_id)))
"""


def test_a_worker_syncs_its_records_when_a_run_ends_not_at_each_event(tmp_path: Path) -> None:
    """A database's log outlives its connections until a run ends; then a reader has all events without it."""
    run(MATERIALIZE, tmp_path, PYTHONWARNINGS="ignore")
    assert not list(tmp_path.rglob("*.db-wal"))
    with contextlib.closing(sqlite3.connect(tmp_path / "mine.db")) as mine:
        assert mine.execute("SELECT number FROM events").fetchall() == [(1,)]
    status, *kinds = run(READ, tmp_path, PYTHONWARNINGS="ignore")
    assert status == "SUCCESS"
    assert "ASSET_MATERIALIZATION" in kinds
    assert kinds[-1] == "PIPELINE_SUCCESS"


def test_the_fork_server_starts_neither_jax_nor_threads_that_a_fork_loses(tmp_path: Path) -> None:
    """Processes forked after JAX's start hang; arrays in a preloaded module would start it."""
    program = (
        "import importlib, threading\n"
        "from assets.runner.worker import PRELOADED\n"
        "for name in PRELOADED: importlib.import_module(name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "from pathlib import Path\n"
        "print(*(thread.read_text().strip() for thread in Path('/proc/self/task').glob('*/comm')))\n"
    )
    threads = " ".join(run(program, tmp_path, PYTHONWARNINGS="ignore"))
    assert not re.findall(r"polars-\d+|tokio\S*|async-executor\S*", threads), "polars' pools are started"
