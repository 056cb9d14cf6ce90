"""The command's run: materialize everything, or the stale partitions, wave by wave through an executor.

The executor is one of `concurrent.futures`: a pool of processes on this machine, a thread of this process, or
a Dask cluster. Each task is one Dagster run of one partition, recorded in the instance.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import dagster as dg
from rich.console import Console

from calibration_pipeline.forecasters.folder import find_forecasters
from calibration_pipeline.schemas.contracts import place
from calibration_pipeline.schemas.partition_keys import is_chosen
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.news import News, entry_version, read_news

from ..instance import COMMAND_TAG, home_folder
from ..orchestration.commands import UNFINISHED, end_dead_runs, living_command
from ..orchestration.jobs import WAVES, Job
from ..orchestration.staleness import OF_NEXT_RACE, OF_SOURCE, Lineage, Partition
from ..orchestration.tasks import (
    Task,
    all_tasks,
    blocked_tasks,
    in_order_of_jobs,
    stale_tasks,
    with_missing_inputs,
)
from ..resources import build_source, run_tags
from ..settings import Settings, to_public_json
from .executors import open_executor
from .progress import Progress
from .selection import select_assets
from .worker import Work, load, materialize

POLL_S, ENDING_S = 1.0, 10.0
"""Seconds between two looks at the runs, and that they may take to end when they are interrupted."""


class RunError(RuntimeError):
    """An asset could not be materialized; the message names it, its partition and the cause."""


def run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    console: Console,
    selection: str | None = None,
    archetypes: Sequence[str] = (),
    *,
    update: bool = False,
    refreshed: Sequence[int] = (),
) -> set[str]:
    """Materialize the selected assets and the inputs that they lack, and stop after the first failure.

    Parameters
    ----------
    defs : dagster.Definitions
    instance : dagster.DagsterInstance
        The one in DAGSTER_HOME, where workers record their runs.
    console : rich.console.Console
        Gets a line for each asset and partition.
    selection : str, optional
        Names or expressions, separated by commas; all assets by default.
    archetypes : sequence of str
        Archetype partitions to materialize; all where it is empty.
    update : bool
        Materialize only stale partitions.
    refreshed : sequence of int
        Seasons that the source is asked for although they are not recent.

    Returns
    -------
    set of str
        The assets that were materialized.

    Raises
    ------
    RunError
        After the first asset that fails, or blocking check that does not pass.
    SelectionError
        If a selection fits no asset.
    """
    settings: Settings = (defs.resources or {})["settings"]
    with console.status("") as status, living_command(instance) as command:
        end_dead_runs(instance)
        tags = {**run_tags(settings), **command}
        progress = Progress(console, status, instance, command, defs.resolve_asset_graph())
        selected = select_assets(defs, selection)
        news: Mapping[int, News] = {}
        entries = None
        if update and {*OF_SOURCE, *OF_NEXT_RACE} & set(selected):
            source = build_source(settings)
            try:
                news, _ = read_news(source, settings.store_path, settings.season_list, refreshed=refreshed)
                entries = entry_version(source.next_race(settings.season_list[-1]))
            except SourceError as error:  # stored partitions can be brought up to date all the same
                progress.note(f"Not known whether the source has changed: {error}")
        for name, why in find_forecasters(settings.forecasters).refused.items():
            progress.note(f"{name} is no forecaster: {why}")
        lineage = Lineage(defs.resolve_asset_graph(), settings, instance, news, entries)
        wanted = {
            (asset, partition)
            for asset in selected
            for partition in lineage.partitions(asset)
            if not archetypes or is_chosen(partition, archetypes)
        }
        if selection or archetypes:
            needed = with_missing_inputs(lineage, wanted)
            for asset, partition in sorted(needed - wanted, key=str):
                progress.note(f"{place(asset, partition)} is an input that is missing, and is materialized")
            wanted = needed
        with open_executor(settings) as executor:
            runs = _Runs(executor, to_public_json(settings), instance, tags, progress)
            for _ in range(settings.processes if settings.executor == "process_pool" else 0):
                executor.submit(load, runs.settings, tags[COMMAND_TAG])
            for wave in WAVES:
                if update:
                    _update_wave(lineage, wave, wanted, runs)
                else:
                    runs.execute(lineage, all_tasks(lineage, wave, wanted))
            return runs.materialized


@dataclass
class _Runs:
    """Executes the tasks of a wave and shows their progress."""

    executor: Executor
    settings: str
    instance: dg.DagsterInstance
    tags: Mapping[str, str]
    progress: Progress
    materialized: set[str] = field(default_factory=set)

    def execute(self, lineage: Lineage, tasks: Collection[Task]) -> None:
        """Execute tasks side by side; after a failure, end those that have begun and raise."""
        if not tasks:
            return
        if blocked := blocked_tasks(lineage, tasks):
            raise RunError(next(iter(blocked.values())))
        futures: dict[Future[bool], Task] = {}
        try:
            futures |= {self._submit(task): task for task in in_order_of_jobs(lineage, tasks)}
            self._watch(futures)
        except BrokenProcessPool as error:
            raise RunError(f"A worker process died: {error}") from error
        finally:
            for future in futures:
                future.cancel()
            self._end(futures)
        if self.progress.failure:
            raise RunError(self.progress.failure)

    def _submit(self, task: Task) -> Future[bool]:
        self.materialized |= set(task.assets)
        home = str(home_folder())
        work = Work(self.settings, home, task.job.name, task.assets, task.partition, self.tags)
        return self.executor.submit(materialize, work)

    def _watch(self, futures: Mapping[Future[bool], Task]) -> None:
        """Return when all tasks have ended, or one has failed and those that had begun have ended."""
        left = set(futures)
        while left:
            done, left = wait(left, timeout=POLL_S)
            self.progress.follow()
            for future in done:
                of_assets = f"The run of {', '.join(futures[future].assets)}"
                if future.cancelled() and not self.progress.failure:
                    self.progress.fail("The executor cancelled its runs, as if its scheduler were lost.")
                elif not future.cancelled() and isinstance(error := future.exception(), ValueError):
                    self.progress.fail(
                        f"{of_assets} found other settings or files where it ran: {error}", error
                    )
                elif not future.cancelled() and not future.result():
                    self.progress.fail(f"{of_assets} failed; see the log.")
            if self.progress.failure:
                for future in left:
                    future.cancel()

    def _end(self, futures: Mapping[Future[bool], Task]) -> None:
        """Record as failed the runs that did not end: interrupted ones, and those of a worker that died."""
        if any(not future.done() for future in futures):
            wait(futures, timeout=ENDING_S)
        filters = dg.RunsFilter(statuses=UNFINISHED, tags=self.progress.tags)
        for unfinished in self.instance.get_runs(filters):
            self.instance.report_run_failed(unfinished, "The process of this run was interrupted or died.")


def _update_wave(lineage: Lineage, wave: Sequence[Job], wanted: Collection[Partition], runs: _Runs) -> None:
    """Materialize the stale partitions of a wave until none is left.

    An asset that a run left out may become stale by what the run made. A partition that stays stale for the
    same reason, as a season whose newest race has no results yet, is not repeated.
    """
    done: set[tuple[str, str | None, str]] = set()
    while True:
        stale = stale_tasks(lineage, wave, wanted)
        new = {
            task: reasons
            for task, reasons in stale.items()
            if {(asset, task.partition, reason) for asset, reason in reasons.items()} - done
        }
        if not new:
            return
        for task, reasons in new.items():
            done |= {(asset, task.partition, reason) for asset, reason in reasons.items()}
            for reason in reasons.values():
                runs.progress.note(reason)
        runs.execute(lineage, new)
        left_out = ((name, task.partition) for task in new for name in {*task.job.assets} - {*task.assets})
        wanted = set(left_out) & set(wanted)
