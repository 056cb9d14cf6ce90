"""The tasks of a wave: which assets one run materializes for which partition."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from .jobs import WAVES, Job
from .staleness import Lineage, Partition


class Task(NamedTuple):
    """Assets of a job that one run materializes for one partition."""

    job: Job
    assets: tuple[str, ...]
    partition: str | None


def all_tasks(lineage: Lineage, wave: Sequence[Job], wanted: Collection[Partition]) -> list[Task]:
    """Return a task for each partition of the wave's jobs, with the wanted assets."""
    tasks = []
    for job in wave:
        assets = [name for name in job.assets if name in lineage.keys]
        for partition in lineage.partitions(assets[0]):
            names = [name for name in assets if (name, partition) in wanted]
            tasks += [Task(job, with_inseparable(lineage, names), partition)] if names else []
    return tasks


def with_missing_inputs(lineage: Lineage, wanted: Collection[Partition]) -> set[Partition]:
    """Return partitions and everything upstream that they need and that is not stored."""
    needed, unseen = set(wanted), list(wanted)
    while unseen:
        missing = set(lineage.missing_inputs(*unseen.pop())) - needed
        needed |= missing
        unseen += missing
    return needed


def lacks_inputs(lineage: Lineage, task: Task) -> bool:
    """Return whether a run would need an input that is neither stored nor materialized by the run itself."""
    own = {(asset, task.partition) for asset in task.assets}
    return any(set(lineage.missing_inputs(asset, task.partition)) - own for asset in task.assets)


def stale_tasks(
    lineage: Lineage, wave: Sequence[Job], selected: Collection[Partition] | None = None
) -> dict[Task, dict[str, str]]:
    """Return the runs of a wave that stale partitions need, each with asset → reason.

    Parameters
    ----------
    lineage : Lineage
    wave : sequence of Job
    selected : collection of Partition, optional
        Partitions to look at; all by default.
    """
    tasks: dict[Task, dict[str, str]] = {}
    unchecked = lineage.unfinished_checks([name for job in wave for name in job.assets])
    for job in wave:
        by_partition: dict[str | None, dict[str, str]] = {}
        for asset in (name for name in job.assets if name in lineage.keys):
            for partition in lineage.partitions(asset):
                if selected is not None and (asset, partition) not in selected:
                    continue
                part = (asset, partition)
                if reason := lineage.stale_reason(*part) or unchecked.get(part):
                    by_partition.setdefault(partition, {})[asset] = reason
        for partition, reasons in by_partition.items():
            tasks[Task(job, with_inseparable(lineage, reasons), partition)] = reasons
    return tasks


def with_inseparable(lineage: Lineage, assets: Collection[str]) -> tuple[str, ...]:
    """Return assets and those that their step materializes with them and cannot leave out, in graph order."""
    together = {
        key.path[-1]
        for asset in assets
        for key in lineage.graph.get(lineage.keys[asset]).execution_set_asset_keys
    }
    return tuple(name for name in lineage.keys if name in together)


def blocked_tasks(lineage: Lineage, tasks: Collection[Task]) -> dict[Task, str]:
    """Return the tasks that would load a partition whose blocking check failed, each with its message."""
    loaded = {task: _loaded(lineage, task) for task in tasks}
    failed = lineage.failed_checks({asset for reads in loaded.values() for asset, _ in reads})
    return {task: failed[read] for task, reads in loaded.items() for read in reads if read in failed}


def in_order_of_jobs(lineage: Lineage, tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks of a wave in the order of its jobs, and those of a job by bytes read.

    A wave ought to end with its shortest runs.
    """
    order = [job.name for wave in WAVES for job in wave]

    def size(task: Task) -> tuple[int, int]:
        paths = (path for read in _loaded(lineage, task) if (path := lineage.path(*read)).exists())
        return -order.index(task.job.name), sum(path.stat().st_size for path in paths)

    return sorted(tasks, key=size, reverse=True)


def _loaded(lineage: Lineage, task: Task) -> list[Partition]:
    """Return the partitions that a run loads and does not materialize itself, in order and each once."""
    own = {(asset, task.partition) for asset in task.assets}
    reads = (read for asset in task.assets for read, _ in lineage.inputs(asset, task.partition))
    return list(dict.fromkeys(read for read in reads if read not in own))
