"""Executors of `concurrent.futures` for the command's runs: a process pool, a thread, or a Dask cluster."""

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children
from typing import Any

from calibration_pipeline.terminal.log import LOG_FILE

from ..instance import home_folder
from ..settings import Settings, export_credentials
from .worker import initialize_worker, start_fork_server

CONNECT_TIMEOUT_S = 20


class ExecutorError(RuntimeError):
    """No executor can be had; the message names its address and the cause."""


@contextmanager
def open_executor(settings: Settings) -> Iterator[Executor]:
    """Yield the executor of the settings; its processes end with it.

    Parameters
    ----------
    settings : Settings
        `executor`, `processes` and `dask_address`.

    Raises
    ------
    ExecutorError
        If no Dask scheduler answers, or its workers die.
    """
    export_credentials(settings)
    if settings.executor == "dask":
        with _dask_client(str(settings.dask_address)) as client:
            yield client.get_executor(pure=False)
        return
    if settings.executor == "in_process":
        pool: Executor = ThreadPoolExecutor(1)
    else:
        home = home_folder()
        pool = ProcessPoolExecutor(
            settings.processes,
            start_fork_server(home),
            initializer=initialize_worker,
            initargs=(str(home / LOG_FILE),),
        )
    try:
        yield pool
    finally:
        # First: a broken pool waits for a busy worker, which holds back its SIGTERM. Files are written whole
        # or not at all.
        for process in active_children():
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _dask_client(address: str) -> Iterator[Any]:
    from distributed import Client, KilledWorker

    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ExecutorError(f"No Dask scheduler answers at {address}: {error}") from error
    with client:
        try:
            yield client
        except KilledWorker as error:
            raise ExecutorError(f"Workers of the Dask cluster died: {error}") from error
