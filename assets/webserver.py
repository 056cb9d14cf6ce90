"""Dagster's web server, daemon and code servers, as `calibration-pipeline ui` starts and stops them.

`dagster dev` starts them all. It runs in a process group of its own, so that one signal stops them all.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType

from .settings import ENV_PREFIX, Settings, project_folder

HOST = "127.0.0.1"
# Dagster advises `dg dev`, which leads to the same function and hides the options that are needed here.
SUPERSEDED = "ignore:Function `dev_command` is superseded"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_STOP_S = 30.0
"""Seconds that processes have to end after `dagster dev` has ended; then they are killed."""
POLL_S = 0.1


class WebserverMissingError(ImportError):
    """The packages of the extra `ui` are not installed; the message is one line."""


def open_ui(settings: Settings, given: Iterable[str], port: int) -> int:
    """Serve Dagster's UI on loopback until a signal stops it, and return the exit code.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the web server, the daemon, the code servers and their runs.

    Parameters
    ----------
    settings : Settings
    given : iterable of str
        Names of the settings that are options of the command: the processes get them as variables of
        the environment. All other settings the processes read themselves.
    port : int
        Port on 127.0.0.1.

    Raises
    ------
    WebserverMissingError
        If dagster-webserver is not installed.
    """
    if importlib.util.find_spec("dagster_webserver") is None:
        raise WebserverMissingError(
            'The UI needs packages that are not installed: pip install "calibration-pipeline[ui]"'
        )
    options = {f"{ENV_PREFIX}{name.upper()}": str(getattr(settings, name)) for name in given}
    target, environment = _code_location(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-W", SUPERSEDED, "-m", "dagster", "dev", *target, "-h", HOST, "-p", str(port)]
    return _serve(command, {**os.environ, **options, **environment})


def _code_location(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment that make Dagster load this package, and no other `assets`.

    Python and Dagster put the current folder first on the module path. In a clone that is the project's
    folder. With an installed wheel it is the user's, which may have a package `assets` of its own.
    """
    workspace = folder / "workspace.yaml"
    if workspace.exists():
        return ["-w", str(workspace)], {}
    return ["-m", "assets.definitions", "-d", str(folder)], {"PYTHONSAFEPATH": "1"}


def _serve(command: list[str], environment: Mapping[str, str]) -> int:
    """Run the command in a process group of its own; return its exit code when the whole group has ended."""
    ignored = {number for number in STOP_SIGNALS if signal.getsignal(number) is signal.SIG_IGN}
    stopped = False
    server: subprocess.Popen[bytes] | None = None

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        if number not in ignored:
            stopped = True
            if server is not None:
                _send(server.pid, signal.SIGINT)

    # A shell script starts its background commands with SIGINT ignored, and processes inherit that: with a
    # handler here, the processes start with SIGINT's default.
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        server = subprocess.Popen(command, cwd=project_folder(), env=dict(environment), process_group=0)  # noqa: S603
        if stopped:  # before `server` was known
            _send(server.pid, signal.SIGINT)
        code = server.wait()
        _end_group(server.pid)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _end_group(group: int) -> None:
    """Wait for what `dagster dev` has left in its process group, as a run that is being interrupted."""
    _send(group, signal.SIGINT)
    deadline = time.monotonic() + LONGEST_STOP_S
    while _send(group, 0):
        if time.monotonic() > deadline:
            _send(group, signal.SIGKILL)
            return
        with contextlib.suppress(ChildProcessError):  # process 1 of a container inherits them and must wait
            os.waitpid(-group, os.WNOHANG)
        time.sleep(POLL_S)


def _send(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether there is such a group."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
