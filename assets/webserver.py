"""Dagster's web server, daemon and code servers, as `calibration-pipeline ui` starts and stops them.

`dagster dev` starts them all.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from calibration_pipeline.analysis.settings import ADDRESSES
from calibration_pipeline.terminal.errors import CommandError
from calibration_pipeline.terminal.process_group import run_group

from .settings import ENV_PREFIX, TABLES, Settings, project_folder

HOST = "127.0.0.1"
# Dagster advises `dg dev`, which leads to the same function and hides the options that are needed here.
SUPERSEDED = "ignore:Function `dev_command` is superseded"


def open_ui(settings: Settings, given: Iterable[str], port: int) -> int:
    """Serve Dagster's UI on loopback until a signal stops it, and return the exit code.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the web server, the daemon, the code servers and their runs.

    Parameters
    ----------
    settings : Settings
    given : iterable of str
        Names of the settings that are options of the command: the processes get them as variables of
        the environment, as they get the paths of inputs: theirs is another current folder. All other
        settings the processes read themselves.
    port : int
        Port on 127.0.0.1.

    Raises
    ------
    CommandError
        If dagster-webserver is not installed.
    """
    if importlib.util.find_spec("dagster_webserver") is None:
        raise CommandError(
            'The UI needs packages that are not installed: pip install "calibration-pipeline[ui]"', code=2
        )
    variables = {name: f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    inherited = {name for name in ADDRESSES if os.environ.get(variables[name])}
    options = {variables[name]: str(getattr(settings, name)) for name in {*given, *inherited}}
    if settings.source != "tables":
        options |= {variables[name]: "" for name in TABLES}
    target, environment = _code_location(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-W", SUPERSEDED, "-m", "dagster", "dev", *target, "-h", HOST, "-p", str(port)]
    return run_group(command, project_folder(), {**os.environ, **options, **environment})


def _code_location(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment that make Dagster load this package, and no other `assets`.

    Python and Dagster put the current folder first on the module path. In a clone that is the project's
    folder. With an installed wheel it is the user's, which may have a package `assets` of its own.
    """
    workspace = folder / "workspace.yaml"
    if workspace.exists():
        return ["-w", str(workspace)], {}
    return ["-m", "assets.definitions", "-d", str(folder)], {"PYTHONSAFEPATH": "1"}
