"""Where runs are executed: in this process, or several at a time, each in a process of its own."""

import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import CustomPointer, ModuleCodePointer
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run_iterator
from dagster._core.instance import InstanceRef
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster_shared.serdes import deserialize_value, serialize_value

from calibration_pipeline.archetypes import ARCHETYPES

from .log import hand_to
from .plan import Run
from .pool import end_with_command, start_server
from .process import prepare_process
from .progress import Progress
from .secrets import secret_addresses, with_secrets, without_secrets
from .settings import Settings

RUN_CONFIG: dict[str, Any] = {"loggers": {"progress": {}}}
POLL_S = 0.2
ENDING_S = 10.0
"""So long may runs take to end when they are interrupted."""
type Events = Sequence[dg.DagsterEvent]

_events: Any = None
"""In a process of the pool: where the events of its run go."""


class Launcher:
    """Executes runs: in processes of their own, or in this one what goes alone while these have not loaded.

    Dagster cannot execute two runs in one process at a time. The processes are started when they are first
    needed, and stay until the end: what was loaded and compiled in one serves its next run.

    Parameters
    ----------
    defs : dagster.Definitions
    instance : dagster.DagsterInstance
        Other processes cannot open one that is not kept: then runs go one after the other.
    progress : Progress
        Hears how the runs go.
    tags : mapping of str to str
        Tags of the runs.

    Attributes
    ----------
    n : int
        So many runs at a time: the settings' `processes`; for Dask, whose steps run elsewhere, as many as
        there are archetypes.
    running : dict of Future to Run
        What was begun and not yet waited for.
    """

    def __init__(
        self, defs: dg.Definitions, instance: dg.DagsterInstance, progress: Progress, tags: Mapping[str, str]
    ) -> None:
        self.settings: Settings = (defs.resources or {})["settings"]
        self.defs, self.instance, self.progress, self.tags = defs, instance, progress, dict(tags)
        n = len(ARCHETYPES) if self.settings.executor == "dask" else self.settings.processes
        self.n = n if instance.is_persistent else 1
        self._started: tuple[ProcessPoolExecutor, Any] | None = None
        self._starter = ThreadPoolExecutor(1)
        self._loading: list[Future[Future[None]]] = []
        self.running: dict[Future[Events], Run] = {}

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._started is None:
            return
        self._starter.shutdown()
        pool = self._started[0]
        processes = list(pool._processes.values())
        pool.shutdown(wait=False, cancel_futures=True)
        if error is not None and issubclass(error, KeyboardInterrupt):  # the terminal interrupts them as well
            wait(self.running, timeout=ENDING_S)
        # What still runs would wait for ever to tell of it; what does not would take a second to leave.
        # Dagster holds a SIGTERM back, and files are written whole or not at all.
        for process in processes:
            process.kill()

    def start(self, n_runs: int) -> None:
        """Start the processes that so many runs at a time need; they load what runs need before these come.

        Those that are started already count.

        Parameters
        ----------
        n_runs : int
        """
        n = min(n_runs, self.n)
        while 1 < n > len(self._loading):  # runs that go alone may need none
            pool, told = self._pool()[0], json.dumps(without_secrets(self.settings))
            # The first has to wait until the server has loaded; who submits it to the pool waits for that.
            self._loading.append(self._starter.submit(pool.submit, _load, told))

    def submit(self, run: Run, *, alone: bool) -> None:
        """Begin a run; one that was executed in this process has ended then.

        Parameters
        ----------
        run : Run
        alone : bool
            Whether nothing is made meanwhile; executor multiprocess then has several processes for its steps.
        """
        settings = self.settings
        if settings.executor == "in_process" and alone and not self._has_loaded():
            self.running[self._run_here(run)] = run
            return
        if settings.executor == "multiprocess" and not alone:
            settings = settings.model_copy(update={"processes": 1})
        told = json.dumps(without_secrets(settings)), serialize_value(self.instance.get_ref())
        for one in self._loading:
            one.result()
        self.running[self._pool()[0].submit(_run, *told, run, self.tags)] = run

    def wait(self) -> list[tuple[Run, Events]]:
        """Return the runs that have ended with their events, or none after a moment; hear how they go.

        Raises
        ------
        concurrent.futures.process.BrokenProcessPool
            If a process died.
        """
        done, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
        while self._started and not self._started[1].empty():
            _tell(self._started[1].get(), self.progress)
        return [(self.running.pop(one), one.result()) for one in done]

    def _has_loaded(self) -> bool:
        return bool(self._loading) and all(one.done() and one.result().done() for one in self._loading)

    def _run_here(self, run: Run) -> Future[Events]:
        self.progress.partition = run.partition
        with self.progress.listening():
            result = self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
                run_config=RUN_CONFIG,
                instance=self.instance,
                partition_key=run.partition,
                asset_selection=list(run.keys),
                raise_on_error=False,
                tags=self.tags,
            )
        ended: Future[Events] = Future()
        ended.set_result(result.all_events)
        return ended

    def _pool(self) -> tuple[ProcessPoolExecutor, Any]:
        if self._started is None:
            context = start_server(Path(self.instance.root_directory))
            queue = context.SimpleQueue()
            known = (queue, secret_addresses(self.settings))
            pool = ProcessPoolExecutor(self.n, mp_context=context, initializer=_keep, initargs=known)
            self._started = pool, queue
        return self._started


def _tell(told: tuple[dg.DagsterEvent, str | None] | logging.LogRecord, progress: Progress) -> None:
    if isinstance(told, logging.LogRecord):
        logging.getLogger(told.name).handle(told)
    else:
        progress.hear(*told)


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


def _run(settings: str, instance_ref: str, what: Run, tags: Mapping[str, str]) -> Events:
    """Execute one run and return its events. This is what a process of the pool does."""
    job, instance = _job(settings), _instance(instance_ref)
    selection, partition = what
    events = []
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


@functools.cache
def _instance(instance_ref: str) -> dg.DagsterInstance:
    """Return the command's instance, which this process opens once."""
    return dg.DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef))


def has_succeeded(events: Events) -> bool:
    """Tell whether the run with these events came to a good end."""
    return any(event.is_job_success for event in events)


def was_interrupted(events: Events) -> bool:
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
    from .definitions import build_defs

    prepare_process()
    return build_defs(with_secrets(json.loads(settings)))


def _load(settings: str) -> None:
    """Load what a run needs, before there is one."""
    definitions_from(settings)


def _job(settings: str) -> ReconstructableJob:
    pointer = ModuleCodePointer(__name__, definitions_from.__name__, working_directory=None)
    repository = ReconstructableRepository(CustomPointer(pointer, [settings], []))
    return repository.get_reconstructable_job(IMPLICIT_ASSET_JOB_NAME)
