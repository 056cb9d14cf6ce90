"""Dagster runs, each of one partition: in this process, or several at a time, each in its own process."""

import contextlib
import json
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from logging.handlers import QueueHandler
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import CustomPointer, ModuleCodePointer
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import execute_run_iterator
from dagster._core.instance import InstanceRef
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster_shared.serdes import deserialize_value, serialize_value

from assets.executors import PRELOADED
from assets.log import hand_to
from assets.process import prepare_process
from assets.secrets import secret_addresses, with_secrets, without_secrets
from assets.settings import Settings

RUN_CONFIG: dict[str, Any] = {"loggers": {"progress": {}}}
POLL_S = 0.2
ENDING_S = 10.0
"""So long may runs take to end when they are interrupted."""
STEPS_LOG = "steps.log"
Hear = Callable[[dg.DagsterEvent, str | None], None]

_events: Any = None
"""In a process of the pool: where the events of its run go."""


def run_here(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    keys: Collection[dg.AssetKey],
    partition: str | None,
    tags: Mapping[str, str],
) -> Sequence[dg.DagsterEvent]:
    """Materialize the assets' partition in this process, and return the run's events."""
    result = job.execute_in_process(
        run_config=RUN_CONFIG,
        instance=instance,
        partition_key=partition,
        asset_selection=list(keys),
        raise_on_error=False,
        tags=tags,
    )
    return result.all_events


def run_elsewhere(
    settings: Settings,
    instance: dg.DagsterInstance,
    keys: Collection[dg.AssetKey],
    partitions: Sequence[str | None],
    together: int,
    hear: Hear,
    tags: Mapping[str, str],
) -> dict[str | None, Sequence[dg.DagsterEvent]]:
    """Materialize partitions through the settings' executor; return the events of each run that was started.

    Each run has a process of its own, for Dagster cannot run two in one. After a failure no more are started.

    Parameters
    ----------
    settings : Settings
        Travel with the run: each process builds the graph from them, whatever its environment says.
    instance : dagster.DagsterInstance
        One that other processes can open.
    keys : collection of dagster.AssetKey
    partitions : sequence of str or None
    together : int
        Runs at a time.
    hear : callable
        Is told each event, and its partition, as it comes.
    tags : mapping of str to str
        Tags of the runs.
    """
    context = pool_context()
    with _errors_into(Path(instance.root_directory) / STEPS_LOG):
        forkserver.ensure_running()
    queue = context.SimpleQueue()
    known = (queue, secret_addresses(settings))
    with ProcessPoolExecutor(together, mp_context=context, initializer=_keep, initargs=known) as pool:
        arguments = (json.dumps(without_secrets(settings)), serialize_value(instance.get_ref()))
        names = [key.to_user_string() for key in keys]
        runs = {
            pool.submit(_run, *arguments, names, partition, dict(tags)): partition for partition in partitions
        }
        waiting = set(runs)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=POLL_S)
                while not queue.empty():
                    _tell(queue.get(), hear)
                if any(not _succeeded(run) for run in done):
                    pool.shutdown(wait=False, cancel_futures=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            wait(waiting, timeout=ENDING_S)  # the terminal has interrupted them as well
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return {partition: run.result() for run, partition in runs.items() if not run.cancelled()}


def pool_context() -> ForkServerContext:
    """Return how processes of a pool are started: from a server that has loaded the asset graph."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _tell(told: tuple[dg.DagsterEvent, str | None] | logging.LogRecord, hear: Hear) -> None:
    if isinstance(told, logging.LogRecord):
        logging.getLogger(told.name).handle(told)
    else:
        hear(*told)


class _ToCommand(QueueHandler):
    """Lets the command log what its processes log."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record."""
        _events.put(record)


def _keep(queue: Any, addresses: Mapping[str, str]) -> None:
    global _events
    _events = queue
    hand_to(_ToCommand(queue))
    os.environ.update(addresses)
    end_with_command()


def end_with_command() -> None:
    """Let this process of a pool end when the command's is gone, however that ended; else it would stay."""
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(command: multiprocessing.process.BaseProcess | None) -> None:
    if command is not None:
        command.join()
        os._exit(1)


def _run(
    settings: str, instance_ref: str, keys: Sequence[str], partition: str | None, tags: Mapping[str, str]
) -> Sequence[dg.DagsterEvent]:
    """Execute one run and return its events. This is what a process of the pool does."""
    job = _job(settings)
    selection = frozenset(dg.AssetKey.from_user_string(key) for key in keys)
    events = []
    with dg.DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)) as instance:
        run = instance.create_run_for_job(
            job_def=job.get_subset(asset_selection=selection).get_definition(),
            run_config=RUN_CONFIG,
            tags={**tags, **({} if partition is None else {PARTITION_NAME_TAG: partition})},
            job_code_origin=job.get_python_origin(),
            asset_selection=selection,
        )
        for event in execute_run_iterator(job, run, instance):
            _events.put((event, partition))
            events.append(event)
    return events


def _succeeded(run: Future[Sequence[dg.DagsterEvent]]) -> bool:
    return run.cancelled() or (run.exception() is None and has_succeeded(run.result()))


def has_succeeded(events: Sequence[dg.DagsterEvent]) -> bool:
    """Tell whether the run with these events came to a good end."""
    return any(event.is_job_success for event in events)


@contextlib.contextmanager
def _errors_into(path: Path) -> Iterator[None]:
    """Let processes that are started meanwhile write what goes to stderr into a file."""
    sys.stderr.flush()
    with path.open("ab") as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def definitions_from(settings: str) -> dg.Definitions:
    """Return the asset graph in a process that executes steps, JAX set up as everywhere.

    Parameters
    ----------
    settings : str
        All of them, as JSON. Dagster records it with the run, so that credentials come from the environment.
    """
    from assets.definitions import build_defs

    prepare_process()
    return build_defs(with_secrets(json.loads(settings)))


def _job(settings: str) -> ReconstructableJob:
    pointer = ModuleCodePointer(__name__, definitions_from.__name__, working_directory=None)
    repository = ReconstructableRepository(CustomPointer(pointer, [settings], []))
    return repository.get_reconstructable_job(IMPLICIT_ASSET_JOB_NAME)
