"""Worker processes: each materializes one partition of a job's assets at a time, in one Dagster run.

Nothing slow is imported here, so that the fork server loads the assets while its command still does.
"""

import contextlib
import functools
import gc
import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from calibration_pipeline.terminal.log import file_handler, hand_to, output_into

from ..instance import COMMAND_TAG, open_instance
from ..jax_environment import prepare_jax
from ..settings import from_public_json

if TYPE_CHECKING:
    import dagster as dg

PRELOADED = [
    "assets.definitions",
    "alembic.context",  # for Dagster's records, as SQLAlchemy is
    "sqlalchemy.dialects.sqlite",
    "calibration_pipeline.forecast.next_race",
    "calibration_pipeline.calibration.pooling",
    "calibration_pipeline.calibration.state",
    "calibration_pipeline.report",
    "calibration_pipeline.verification.metric_table",
    # xarray imports these when it first writes a file.
    "dask.array",
    "distributed",
    "h5netcdf",
]
"""Loaded once by the fork server; none of them starts JAX, or the threads of polars or DuckDB."""
WORKERS_LOG = "workers.log"

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration: the command shows a run's events itself."""

_one_run_at_a_time = threading.Lock()
_kept_open: dict[str, sqlite3.Connection] = {}


class Work(NamedTuple):
    """One run: assets of a job, for one partition. No credentials are in it."""

    settings: str
    home: str
    job: str
    assets: Sequence[str]
    partition: str | None
    tags: Mapping[str, str]


def materialize(work: Work) -> bool:
    """Execute a run and return whether it succeeded. This is the task of a worker process.

    Dagster executes one run at a time in a process, whose threads may be several on a Dask worker.

    Parameters
    ----------
    work : Work
    """
    with _one_run_at_a_time, _synchronous_dask(), _records_kept_open():
        os.environ["DAGSTER_HOME"] = work.home
        prepare_jax()
        defs = _definitions(work.settings, work.tags.get(COMMAND_TAG, ""))
        instance = _instance(work.home)
        keys = {key.path[-1]: key for key in defs.resolve_asset_graph().get_all_asset_keys()}
        result = defs.resolve_job_def(work.job).execute_in_process(
            instance=instance,
            asset_selection=[keys[name] for name in work.assets],
            partition_key=work.partition,
            run_config=QUIET,
            raise_on_error=False,
            tags=work.tags,
        )
        return result.success


def load(settings: str, command: str) -> None:
    """Load what a run needs, before there is one. This is the first task of a worker process."""
    prepare_jax()
    _definitions(settings, command)


def start_fork_server(home: Path) -> ForkServerContext:
    """Start the fork server, where it does not run, and return before it has loaded the assets.

    Its processes write to a log file: whoever reads the command's output would wait for their end.

    Parameters
    ----------
    home : Path
        DAGSTER_HOME, in which `WORKERS_LOG` gets the stdout and stderr of the processes.

    Raises
    ------
    OSError
        If that file cannot be written.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # else the current folder comes first, with any other package `assets`
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # glibc: heaps of all threads keep memory
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    prepare_jax()
    with output_into(home / WORKERS_LOG):
        forkserver.ensure_running()
    return context


def initialize_worker(log_file: str) -> None:
    """Set up a process of a pool: its log, its records, its end when the command ends, however that ended."""
    from sqlalchemy import Engine, event

    event.listen(Engine, "connect", _defer_syncs)
    gc.freeze()  # what the fork server loaded is never garbage: collections are shorter
    hand_to(file_handler(Path(log_file)))
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


@functools.lru_cache(maxsize=1)
def _definitions(settings: str, command: str) -> "dg.Definitions":  # noqa: ARG001  # a source reads once
    from ..definitions import build_defs

    return build_defs(from_public_json(settings))


@functools.cache
def _instance(home: str) -> "dg.DagsterInstance":  # noqa: ARG001  # the key of the cache
    """Return the instance in DAGSTER_HOME, which this process opens once."""
    return open_instance()


def _defer_syncs(connection: object, _: object) -> None:
    """Let a connection to SQLite wait for the disk neither when it commits nor, within a run, when it closes.

    Dagster connects for each event of a run. SQLite syncs a database, and forgets its index of the log, when
    the last connection has closed, so one to each database stays open until the run ends. A power failure can
    lose the last events, but does not damage the others (https://sqlite.org/wal.html).
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = NORMAL")
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        if path not in _kept_open:
            _kept_open[path] = sqlite3.connect(path, check_same_thread=False)
            _kept_open[path].execute("PRAGMA journal_mode = WAL")
            _kept_open[path].execute("PRAGMA schema_version").fetchone()  # the first read opens the log


@contextlib.contextmanager
def _records_kept_open() -> Iterator[None]:
    try:
        yield
    finally:
        while _kept_open:
            _kept_open.popitem()[1].close()


def _synchronous_dask() -> contextlib.AbstractContextManager[object]:
    """Keep xarray from using a Dask worker's own scheduler, whose locks it would wait for."""
    try:
        import dask.config
    except ImportError:
        return contextlib.nullcontext()
    return dask.config.set(scheduler="synchronous")


def _end_after(command: multiprocessing.process.BaseProcess | None) -> None:
    if command is not None:
        command.join()
        os._exit(1)
