"""The Dagster instance: its home folder, with our defaults, inside the project folder.

Dagster's own records (runs, events, ticks) are SQLite files in it, or in Postgres where a variable names the
database. The address holds a password and is never written to a file.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from calibration_pipeline.io.addresses import storage_errors
from calibration_pipeline.io.files import write_atomically
from calibration_pipeline.terminal.errors import CommandError
from calibration_pipeline.terminal.log import LOG_FILE

from .settings import ENV_PREFIX, SettingsError, project_folder

if TYPE_CHECKING:
    import dagster as dg

COMMAND_TAG = "calibration/command"
"""Tag of the runs of a command: the name of that command."""
DEFAULT_CONFIG = Path(__file__).with_name("dagster.yaml")
POSTGRES_VARIABLE = f"{ENV_PREFIX}POSTGRES_URL"
POSTGRES_SCHEME = "postgresql+psycopg2://"
POSTGRES_STORAGE = f"""
# Dagster's records are kept in the database that the variable names.
storage:
  postgres:
    postgres_url:
      env: {POSTGRES_VARIABLE}
"""
UNREACHABLE = "A file cannot be read or written"
OPENING = "opening.lock"
"""Locked in DAGSTER_HOME while an instance is opened: Dagster fails where two make its records at once."""

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # a command without a log prints its last line alone


class RecordsError(CommandError):
    """Dagster's records cannot be read or written; the message is one line."""


def home_folder() -> Path:
    """Return DAGSTER_HOME, or where it is by default."""
    return Path(os.environ.get("DAGSTER_HOME") or project_folder() / ".dagster_home").expanduser().resolve()


def prepare_home() -> Path:
    """Return DAGSTER_HOME, made and configured where it is not yet, and set in the environment.

    Raises
    ------
    SettingsError
        If a database is named but a configuration of the user's own does not use it, or the other way round,
        or its address has another scheme, or its package is missing.
    RecordsError
        If the folder cannot be written.
    """
    home = home_folder()
    config = home / "dagster.yaml"
    on_files = DEFAULT_CONFIG.read_text(encoding="utf-8")
    on_postgres = on_files + POSTGRES_STORAGE
    wanted = on_postgres if _names_postgres() else on_files
    try:
        home.mkdir(parents=True, exist_ok=True)
        found = config.read_text(encoding="utf-8") if config.exists() else None
        if found is None or (found != wanted and found in (on_files, on_postgres)):
            write_atomically(config, wanted.encode())
            found = wanted
        (home / LOG_FILE).touch()
    except OSError as error:
        raise RecordsError(f"DAGSTER_HOME cannot be written: {error}") from error
    if (POSTGRES_VARIABLE in found) != _names_postgres():
        contradiction = "set, but {} does not use it" if _names_postgres() else "not set, but {} reads it"
        raise SettingsError(
            f"{POSTGRES_VARIABLE} is {contradiction.format(config)}: see Postgres in docs/operations.md."
        )
    os.environ["DAGSTER_HOME"] = str(home)
    return home


@contextmanager
def open_records() -> Iterator["dg.DagsterInstance"]:
    """Open the instance that `prepare_home` prepared.

    Raises
    ------
    RecordsError
        If its disk is full or cannot be written, or its database does not answer, at whatever moment; or if
        a file of the store can be neither read nor written.
    """
    try:
        with open_instance() as instance:
            yield instance
    except Exception as error:
        of_records = type(error).__module__.partition(".")[0] in ("sqlalchemy", "dagster_postgres")
        if not (of_records or isinstance(error, storage_errors())):
            raise
        log.exception("The command was given up.")
        of_records |= str(getattr(error, "filename", "")).startswith(str(home_folder()))
        what = f"Dagster's records in {home_folder()} cannot be kept" if of_records else UNREACHABLE
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise RecordsError(f"{what}, the command was given up: {type(error).__name__} {reason}") from error


def open_instance() -> "dg.DagsterInstance":
    """Return the instance in DAGSTER_HOME. Processes open it in turn: two would both create its tables."""
    import dagster as dg

    with FileLock(home_folder() / OPENING):
        return dg.DagsterInstance.get()


def _names_postgres() -> bool:
    """Whether the environment names a database; its address must have the scheme that works."""
    address = os.environ.get(POSTGRES_VARIABLE)
    if address and not address.startswith(POSTGRES_SCHEME):
        raise SettingsError(
            f"Variable {POSTGRES_VARIABLE} must begin with {POSTGRES_SCHEME}; it has another scheme."
        )
    if address and find_spec("dagster_postgres") is None:
        raise SettingsError(
            f"Variable {POSTGRES_VARIABLE} needs a package: pip install 'calibration-pipeline[postgres]'"
        )
    return bool(address)
