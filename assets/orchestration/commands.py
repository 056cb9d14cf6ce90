"""Commands that share an instance: each one's runs carry its name, and a dead command's runs are ended.

Only Dagster's daemon notices that a run's process died. So each command locks a file for as long as it lives:
the lock goes with the process, however it ends.
"""

import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from ..instance import COMMAND_TAG

MAX_RETRIES_TAG = "dagster/max_retries"
LOCKS = "locks"
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@contextmanager
def living_command(instance: dg.DagsterInstance) -> Iterator[Mapping[str, str]]:
    """Yield the tags of this command's runs, by which other commands find out whether it lives.

    Parameters
    ----------
    instance : dagster.DagsterInstance
        Its folder holds the lock. A daemon does not retry these runs: whoever runs the command does.
    """
    name = uuid.uuid4().hex[:12]
    path = _lock(instance, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        try:
            yield {COMMAND_TAG: f"{_place(instance)}:{name}", MAX_RETRIES_TAG: "0"}
        finally:
            path.unlink(missing_ok=True)


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """Record as failed the runs that died of this host's commands with the same DAGSTER_HOME."""
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if _is_dead(instance, run.tags.get(COMMAND_TAG, "")):
            instance.report_run_failed(run, "The process of this run died.")


def _place(instance: dg.DagsterInstance) -> str:
    """Return this host and, as a digest, DAGSTER_HOME: hosts and folders may share a database of records."""
    folder = str(Path(instance.root_directory).resolve())
    return f"{socket.gethostname()}:{uuid.uuid5(uuid.NAMESPACE_URL, folder).hex[:12]}"


def _lock(instance: dg.DagsterInstance, name: str) -> Path:
    return Path(instance.root_directory).resolve() / LOCKS / name


def _is_dead(instance: dg.DagsterInstance, command: str) -> bool:
    """Whether nobody holds the lock of a command of this place; nothing is known of other places."""
    where, _, name = command.rpartition(":")
    if where != _place(instance):
        return False
    path = _lock(instance, name)
    if path.exists():
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            return False
    return True
