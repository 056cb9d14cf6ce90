"""Other runs of the same instance: dead ones are ended, and a place in a pool is waited for.

Only Dagster's daemon notices that a run's process died, and a place in a pool that the run held stays taken.
Where no daemon runs, the next fit would wait for ever. So each command locks a file for as long as it lives,
and its runs carry the file's name: the lock goes with the process, however it ends.
"""

import fcntl
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import MAX_RETRIES_TAG

LOCK_TAG = "calibration/lock"
LOCKS = "locks"
POLL_S = 1.0
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@contextmanager
def living(instance: dg.DagsterInstance) -> Iterator[Mapping[str, str]]:
    """Yield the tags of this process's runs, by which others can tell whether it lives.

    Parameters
    ----------
    instance : dagster.DagsterInstance
        Its folder holds the lock. A daemon starts none of these runs again: whoever ran the command does.
    """
    path = Path(instance.root_directory).resolve() / LOCKS / uuid.uuid4().hex
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield {LOCK_TAG: f"{socket.gethostname()}:{path}", MAX_RETRIES_TAG: "0"}
        finally:
            path.unlink(missing_ok=True)


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """Record as failed the runs of commands on this machine that died, and free what ended runs hold.

    Parameters
    ----------
    instance : dagster.DagsterInstance
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if _is_dead(run.tags.get(LOCK_TAG, "")):
            instance.report_run_failed(run, "The process of this run died.")
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        for run_id in storage.get_concurrency_run_ids():
            holder = instance.get_run_by_id(run_id)
            if holder is None or holder.is_finished:
                storage.free_concurrency_slots_for_run(run_id)


def wait_for_pools(instance: dg.DagsterInstance, pools: Collection[str], tell: Callable[[str], None]) -> None:
    """Return once no pool is full. Within a run Dagster waits as well, but hears no interrupt meanwhile.

    Parameters
    ----------
    instance : dagster.DagsterInstance
    pools : collection of str
    tell : callable
        Gets a line if there is something to wait for.
    """
    told = False
    while full := [pool for pool in sorted(pools) if is_full(instance, pool)]:
        if not told:
            tell(f"waiting: another run holds the pool {', '.join(full)}")
            told = True
        time.sleep(POLL_S)
        end_dead_runs(instance)


def is_full(instance: dg.DagsterInstance, pool: str) -> bool:
    """Tell whether a pool has no place left.

    Parameters
    ----------
    instance : dagster.DagsterInstance
    pool : str
    """
    info = instance.event_log_storage.get_concurrency_info(pool)
    return bool(info.claimed_slots) and info.active_slot_count >= info.slot_count


def _is_dead(lock: str) -> bool:
    """Whether nobody holds a lock of this machine; of others' nothing is known."""
    host, _, path = lock.partition(":")
    if not path or host != socket.gethostname():
        return False
    try:
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(path).unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
