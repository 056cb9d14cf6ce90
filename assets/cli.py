"""The command line `calibration-pipeline`.

Slow modules are imported inside the functions that need them, so that `--help` answers at once.
"""

import argparse
import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from calibration_pipeline.io.addresses import storage_errors
from calibration_pipeline.seasons import span
from calibration_pipeline.terminal.errors import CommandError, reported, warn
from calibration_pipeline.terminal.parser import build_parser

if TYPE_CHECKING:
    from rich.console import Console

    from .settings import Settings

INTERRUPTED = 130

type Command = Callable[["Settings", argparse.Namespace], int | None]


def command() -> None:
    """Run the command line and leave at once: taking apart what was loaded would take three seconds more."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more: rich ends a command with 1 then, too
        code = 1
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 (failed), 2 (wrong usage), 130 (interrupted)."""
    from .settings import Settings

    descriptions = {name: field.description for name, field in Settings.model_fields.items()}
    options = build_parser(descriptions).parse_args(arguments)
    try:
        return COMMANDS[options.command](_load(options), options) or 0
    except CommandError as error:
        warn(str(error))
        return error.code
    except KeyboardInterrupt:
        warn("Interrupted; what was finished is kept.")
        return INTERRUPTED
    except storage_errors() as error:
        from .instance import UNREACHABLE

        if isinstance(error, BrokenPipeError) or getattr(error, "name", None):  # a module's name
            raise
        warn(f"{UNREACHABLE}: {type(error).__name__} {str(error).partition('\n')[0]}")
        return 1


def _given(options: argparse.Namespace) -> dict[str, Any]:
    from .settings import Settings

    given = {name: getattr(options, name) for name in Settings.model_fields}
    return {name: value for name, value in given.items() if value is not None}


def _load(options: argparse.Namespace) -> "Settings":
    """Return the settings; seasons that nobody set are looked up in the source's files where they matter."""
    from .settings import load_settings

    settings = load_settings(_given(options))
    if settings.seasons or settings.default_seasons or options.command in WITHOUT_SEASONS:
        return settings
    from .resources import with_seasons

    return with_seasons(settings)


def _console() -> "Console":
    from rich.console import Console

    return Console(soft_wrap=True)


def _run(settings: "Settings", options: argparse.Namespace) -> None:
    archetypes = [name for name in (options.archetypes or "").split(",") if name]
    from calibration_pipeline.archetypes import parse_archetype
    from calibration_pipeline.terminal.log import LOG_FILE, log_to

    from .instance import RecordsError, prepare_home
    from .runner.executors import ExecutorError
    from .runner.worker import start_fork_server
    from .settings import export_credentials

    with reported(ValueError, code=2):
        for name in archetypes:
            parse_archetype(name)
    log_file = (home := prepare_home()) / LOG_FILE
    if settings.executor == "process_pool":
        export_credentials(settings)
        start_fork_server(home)  # it loads the assets while this process does
    with log_to(log_file, verbose=options.verbose):
        from .runner.run import RunError
        from .runner.selection import SelectionError

        try:
            _materialize(settings, options, archetypes)
        except (RunError, ExecutorError, SelectionError, RecordsError) as error:
            raise CommandError(f"{error}\nDetails: {log_file}") from error


def _refresh(settings: "Settings", race: str) -> int:
    """Have the documents of a race requested again; return its season."""
    from calibration_pipeline.sources.base import SourceError

    from .resources import build_source

    season, _, number = race.partition("-")
    if not (season.isdecimal() and number.isdecimal()):
        raise CommandError(f"Option --refresh must be a season and a round, as in 2025-5; got {race!r}.", 2)
    if int(season) not in settings.season_list:
        rule = f"Option --refresh must be a race of the seasons in force, {span(settings.season_list)}"
        raise CommandError(f"{rule}; got {race!r}. Option --seasons sets the seasons.", 2)
    with reported(SourceError):
        build_source(settings).refresh(int(season), int(number))
    return int(season)


def _materialize(settings: "Settings", options: argparse.Namespace, archetypes: Sequence[str]) -> None:
    refreshed = [_refresh(settings, options.refresh)] if options.refresh else []
    update = options.update or bool(refreshed)
    console = _console()
    where = f"{settings.source} into {settings.store_path}"
    console.print(f"Seasons {span(settings.season_list)} of {where}", markup=False)

    from calibration_pipeline.terminal.summary import print_summary

    from .definitions import build_defs
    from .flow.report import stored_summary
    from .instance import open_records
    from .orchestration.jobs import REPORT
    from .runner.run import run

    with reported(ValueError, code=2):
        defs = build_defs(settings)
    with open_records() as instance:
        materialized = run(
            defs, instance, console, options.select, archetypes, update=update, refreshed=refreshed
        )
        if update and not materialized:
            console.print("Everything is there, and up to date.")
        if REPORT in materialized:
            print_summary(console, *stored_summary(instance, settings))


def _ui(settings: "Settings", options: argparse.Namespace) -> int:
    from .instance import prepare_home
    from .webserver import open_ui

    prepare_home()
    return open_ui(settings, _given(options), options.port)


def _report(settings: "Settings", options: argparse.Namespace) -> None:
    from .integrity import check_digests
    from .orchestration.jobs import REPORT
    from .settings import store_root

    root = store_root(settings.store)
    pages = sorted(root.glob(f"*/*/{REPORT}.html"), key=lambda page: page.stat().st_mtime)
    if not pages:
        raise CommandError(f"There is no report in {root} yet: calibration-pipeline run writes one.")
    newest = pages[-1]
    damaged, unknown = check_digests(newest.parent, newest.parent.parts[-2:], [REPORT])
    if damaged:
        raise CommandError(f"{damaged[REPORT]}.")
    if unknown:
        warn(f"{newest.name} was not verified: no run in DAGSTER_HOME recorded it.")
    console = _console()
    if options.open:
        from calibration_pipeline.io.stored_files import local_copy

        webbrowser.open(local_copy(newest).as_uri())
    else:
        console.print(newest.with_suffix(".md").read_text(encoding="utf-8"), markup=False, highlight=False)
    console.print(f"Report: {newest}", highlight=False, markup=False)


def _events(settings: "Settings", options: argparse.Namespace) -> None:
    from calibration_pipeline.terminal.joint_events import print_language, print_stored

    if options.expression is None:
        print_language(_console(), settings.events)
    else:
        print_stored(_console(), settings.store_path, options.expression, settings.seed)


def _forecast(settings: "Settings", _options: argparse.Namespace) -> None:
    from calibration_pipeline.forecasters.folder import NETWORK, Form, find_forecasters
    from calibration_pipeline.terminal.next_race import print_stored

    shown = settings.shown_forecaster
    if shown not in find_forecasters(settings.forecasters).by_form[Form.SCENARIOS]:
        shown = NETWORK  # probabilities stand in the table of all forecasters
    print_stored(_console(), settings.store_path, shown)


def _leaderboard(settings: "Settings", options: argparse.Namespace) -> None:
    from calibration_pipeline.terminal.leaderboard import print_stored

    print_stored(_console(), settings.store_path, options.archetype)


def _sql(settings: "Settings", options: argparse.Namespace) -> None:
    from calibration_pipeline.io.sql import stored_tables
    from calibration_pipeline.terminal.answers import print_answer, print_tables

    store = settings.store_path
    tables = list(stored_tables(store))
    if not tables:
        raise CommandError(f"There are no tables in {store} yet: calibration-pipeline run stores them.")
    if options.question is None:
        print_tables(_console(), store)
        return
    from .integrity import check_digests

    damaged, unknown = check_digests(store, settings.key_prefix, tables)
    if unknown:
        warn(f"Not verified, no run in DAGSTER_HOME recorded them: {', '.join(unknown)}.")
    with reported(ValueError):
        print_answer(_console(), store, options.question, damaged)


def _verify(settings: "Settings", _options: argparse.Namespace) -> int:
    from calibration_pipeline.terminal.differences import print_differences

    from .definitions import build_defs
    from .instance import open_records, prepare_home
    from .integrity import verify_store

    prepare_home()
    with reported(ValueError, code=2):
        defs = build_defs(settings)
    with open_records() as instance:
        n_files, differences = verify_store(defs, settings, instance)
    if not n_files and not differences:
        raise CommandError(
            f"There is nothing in {settings.store_path} yet: calibration-pipeline run fills it."
        )
    print_differences(_console(), settings.store_path, n_files, differences)
    return 1 if differences else 0


def _settings(settings: "Settings", options: argparse.Namespace) -> None:
    from calibration_pipeline.terminal.settings import print_settings

    from .settings import ENV_PREFIX, origins

    values = dict(settings) | {"seasons": span(settings.season_list)}
    print_settings(_console(), ENV_PREFIX, values, origins(_given(options)))


COMMANDS: dict[str, Command] = {
    "run": _run,
    "ui": _ui,
    "report": _report,
    "events": _events,
    "forecast": _forecast,
    "leaderboard": _leaderboard,
    "sql": _sql,
    "verify": _verify,
    "settings": _settings,
}
WITHOUT_SEASONS = ("report", "events", "forecast", "leaderboard", "sql")
"""Commands that read what is stored: the seasons of the source do not matter."""

if __name__ == "__main__":
    command()
