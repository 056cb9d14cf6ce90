"""A command whose processes form a group, so that one signal stops them all."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_STOP_S = 30.0
"""Seconds that the other processes have to end after the command has ended; then they are killed."""
POLL_S = 0.1


def run_group(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run a command in a process group of its own; return its exit code when the whole group has ended.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP reach every process of the group as SIGINT.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    folder : Path
        The command's current folder.
    environment : mapping
        The command's environment.
    """
    ignored = {number for number in STOP_SIGNALS if signal.getsignal(number) is signal.SIG_IGN}
    stopped = False
    started: subprocess.Popen[bytes] | None = None

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        if number not in ignored:
            stopped = True
            if started is not None:
                _send(started.pid, signal.SIGINT)

    # A shell script starts its background commands with SIGINT ignored, and processes inherit that: with a
    # handler here, the processes start with SIGINT's default.
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        started = subprocess.Popen(command, cwd=folder, env=dict(environment), process_group=0)  # noqa: S603
        if stopped:  # before `started` was known
            _send(started.pid, signal.SIGINT)
        code = started.wait()
        _end(started.pid)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _end(group: int) -> None:
    """Wait for what the command has left in its group, as a run that is being interrupted."""
    _send(group, signal.SIGINT)
    for _ in range(round(LONGEST_STOP_S / POLL_S)):
        if not _send(group, 0):
            return
        with contextlib.suppress(ChildProcessError):  # process 1 of a container inherits them and must wait
            os.waitpid(-group, os.WNOHANG)
        time.sleep(POLL_S)
    _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether there is such a group."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
