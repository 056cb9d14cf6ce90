"""Pools of processes: all are forked from a server that has loaded the asset graph.

Nothing slow is imported here, so that the server can load the graph while its command still does.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

PRELOADED = [
    "assets.definitions",
    # What is otherwise imported at its first use, by each process anew: xarray's to write a file, Dagster's.
    "dask.array",
    "distributed",
    "h5netcdf",
    "dagster._core.storage.base_storage",
]
"""Loaded once by the fork server; none of them starts JAX, polars' or DuckDB's threads."""
STEPS_LOG = "steps.log"


def start_server(home: Path) -> ForkServerContext:
    """Start the server, where it does not run, and go on while it loads; return how it starts processes.

    It cannot write where the command does: who reads what that tells would wait for the server's end.

    Parameters
    ----------
    home : Path
        DAGSTER_HOME, in whose `STEPS_LOG` its processes write what goes to stdout and stderr.

    Raises
    ------
    OSError
        If that file cannot be written.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _output_into(home / STEPS_LOG):
        forkserver.ensure_running()
    return context


def end_with_command() -> None:
    """Let this process of a pool end when the command's is gone, however that ended; else it would stay."""
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(command: multiprocessing.process.BaseProcess | None) -> None:
    if command is not None:
        command.join()
        os._exit(1)


@contextlib.contextmanager
def _output_into(path: Path) -> Iterator[None]:
    """Let processes that are started meanwhile write what goes to stdout and stderr into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        kept = {stream: os.dup(stream) for stream in (1, 2)}
        try:
            for stream in kept:
                os.dup2(file.fileno(), stream)
            yield
        finally:
            for stream, own in kept.items():
                os.dup2(own, stream)
                os.close(own)
