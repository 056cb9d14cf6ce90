"""Dagster runs, each of one partition: in this process, or several at a time, each in its own process."""

import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.code_pointer import CustomPointer, ModuleCodePointer
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run_iterator
from dagster._core.instance import InstanceRef
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster_shared.serdes import deserialize_value, serialize_value

from assets.log import hand_to
from assets.pool import end_with_command, start_server
from assets.process import prepare_process
from assets.secrets import secret_addresses, with_secrets, without_secrets
from assets.settings import Settings
from calibration_pipeline.archetypes import ARCHETYPES

RUN_CONFIG: dict[str, Any] = {"loggers": {"progress": {}}}
POLL_S = 0.2
ENDING_S = 10.0
"""So long may runs take to end when they are interrupted."""
Hear = Callable[[dg.DagsterEvent, str | None], None]

_events: Any = None
"""In a process of the pool: where the events of its run go."""


class Run(NamedTuple):
    """Assets that are made together, of one partition, or of none where they have none."""

    keys: frozenset[dg.AssetKey]
    partition: str | None


def run_here(
    job: dg.JobDefinition, instance: dg.DagsterInstance, run: Run, tags: Mapping[str, str]
) -> Sequence[dg.DagsterEvent]:
    """Execute a run in this process, and return its events."""
    result = job.execute_in_process(
        run_config=RUN_CONFIG,
        instance=instance,
        partition_key=run.partition,
        asset_selection=list(run.keys),
        raise_on_error=False,
        tags=tags,
    )
    return result.all_events


class Processes:
    """Processes in which runs are executed, one run at a time in each, for Dagster cannot run two in one.

    They are started when they are first needed, and stay until the end: what was loaded and compiled in one
    serves its next run.

    Parameters
    ----------
    settings : Settings
        As many as its `processes`; for Dask, whose steps run elsewhere, as many as there are archetypes.
    instance : dagster.DagsterInstance
        One that other processes can open.
    """

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.n = len(ARCHETYPES) if settings.executor == "dask" else settings.processes
        self.settings, self.instance = settings, instance
        self._started: tuple[ProcessPoolExecutor, Any] | None = None

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self._started[0].shutdown(cancel_futures=True)

    def start(self, n_runs: int) -> None:
        """Start those that so many runs need now; they load what runs need, and are ready when these come.

        Parameters
        ----------
        n_runs : int
            Most runs at a time.
        """
        for _ in range(min(n_runs, self.n)):
            self._start()[0].submit(_load, json.dumps(without_secrets(self.settings)))

    def execute(
        self, settings: Settings, runs: Sequence[Run], hear: Hear, tags: Mapping[str, str]
    ) -> dict[Run, Sequence[dg.DagsterEvent]]:
        """Execute runs through the settings' executor; return the events of each that was started.

        After a failure no more are started.

        Parameters
        ----------
        settings : Settings
            Travel with the run: each process builds the graph from them, whatever its environment says.
        runs : sequence of Run
        hear : callable
            Is told each event, and its partition, as it comes.
        tags : mapping of str to str
            Tags of the runs.

        Raises
        ------
        concurrent.futures.process.BrokenProcessPool
            If a process died.
        """
        pool, queue = self._start()
        arguments = (json.dumps(without_secrets(settings)), serialize_value(self.instance.get_ref()))
        submitted = {pool.submit(_run, *arguments, run, dict(tags)): run for run in runs}
        waiting = set(submitted)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=POLL_S)
                while not queue.empty():
                    _tell(queue.get(), hear)
                if any(not _succeeded(run) for run in done):
                    for run in waiting:
                        run.cancel()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            wait(waiting, timeout=ENDING_S)  # the terminal has interrupted them as well
            for process in multiprocessing.active_children():
                process.kill()  # Dagster holds a SIGTERM back; files are written whole or not at all
            raise
        return {run: future.result() for future, run in submitted.items() if not future.cancelled()}

    def _start(self) -> tuple[ProcessPoolExecutor, Any]:
        if self._started is None:
            context = start_server(Path(self.instance.root_directory))
            queue = context.SimpleQueue()
            known = (queue, secret_addresses(self.settings))
            pool = ProcessPoolExecutor(self.n, mp_context=context, initializer=_keep, initargs=known)
            self._started = pool, queue
        return self._started


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


def _run(settings: str, instance_ref: str, what: Run, tags: Mapping[str, str]) -> Sequence[dg.DagsterEvent]:
    """Execute one run and return its events. This is what a process of the pool does."""
    job = _job(settings)
    selection, partition = what
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


def was_interrupted(events: Sequence[dg.DagsterEvent]) -> bool:
    """Tell whether the run with these events ended at an interrupt, which Dagster takes for a failed step."""
    errors = [event.step_failure_data.error for event in events if event.is_step_failure]
    return any(error and error.cls_name == DagsterExecutionInterruptedError.__name__ for error in errors)


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


def _load(settings: str) -> None:
    """Load what a run needs, before there is one."""
    definitions_from(settings)


def _job(settings: str) -> ReconstructableJob:
    pointer = ModuleCodePointer(__name__, definitions_from.__name__, working_directory=None)
    repository = ReconstructableRepository(CustomPointer(pointer, [settings], []))
    return repository.get_reconstructable_job(IMPLICIT_ASSET_JOB_NAME)
