"""The command line `calibration-pipeline`.

What is slow to import is imported where it is needed, so that `--help` answers at once.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_examples import EVENT_EXAMPLES, RUN_EXAMPLES, SQL_EXAMPLES, VERIFY_EXAMPLES, VERIFY_TEXT

if TYPE_CHECKING:
    from rich.console import Console
    from upath import UPath

    from .settings import Settings

SETTING_OPTIONS = {
    "source": "simulated, nascar_feed or tables (your own results)",
    "feed-url": "with source nascar_feed: https:// address, folder or zip of the timing feed's files",
    "results": "with source tables: your results, a row a car and race, as .parquet, .csv or .csv.gz (a path "
    "or an address); columns: docs/tables.md",
    "laps": "with source tables, optional: your laps, a row a car and lap, in the same forms",
    "network": "full, or a baseline: ordinary, no_incidents, ordinary_no_incidents",
    "ensembles": "your own scenarios (NetCDF or Parquet) in place of the network's",
    "events": "your own joint events (TOML), judged beside the default ones; see calibration-pipeline events",
    "seasons": "consecutive seasons: 2020,2021 or 2020-2023 or 2020- (open); what the files hold by default",
    "scenarios": "scenarios simulated per race",
    "fold-races": "races per fold; by default a season where history is long enough",
    "store": "folder or object-store address that holds the assets",
    "seed": "seed of every random draw",
    "automation": "true: schedule and sensors run without being switched on in the UI",
    "executor": "where steps are executed: in_process, multiprocess or dask",
    "processes": "runs made side by side; with executor multiprocess: steps",
    "dask-address": "with executor dask: address of the scheduler, e.g. tcp://10.0.0.5:8786",
}
INTERRUPTED = 130


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
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except KeyboardInterrupt:
        print("Interrupted; what was finished is kept.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="calibration-pipeline",
        description="Are simulated NASCAR races to be trusted? Calibration by kind of track.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="materialize everything, or a selection",
        epilog=RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--select", metavar="A,B", help="assets by name or expression, e.g. +causal_network")
    run.add_argument("--archetypes", metavar="A,B", help="archetypes to materialize; all by default")
    run.add_argument(
        "--update",
        action="store_true",
        help="only races that have finished since, and what is missing, broken or older than what it reads",
    )
    run.add_argument("--verbose", action="store_true", help="show log lines on the terminal as well")
    run.set_defaults(command=_run)

    ui = commands.add_parser("ui", help="open the Dagster UI on the same instance, on loopback")
    ui.add_argument("--port", type=int, default=3000, help="port, 3000 by default")
    ui.set_defaults(command=_ui)

    report = commands.add_parser("report", help="print or open the newest report")
    report.add_argument("--open", action="store_true", help="open the page in a browser")
    report.set_defaults(command=_report)

    events = commands.add_parser(
        "events",
        help="tell what joint events are made of, or judge one on what is stored",
        epilog=EVENT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    events.add_argument("expression", nargs="?", metavar="EVENT", help="an event in quotes; see examples")
    events.set_defaults(command=_events)

    forecast = commands.add_parser("forecast", help="print the forecast of the next race")
    forecast.set_defaults(command=_forecast)

    sql = commands.add_parser(
        "sql",
        help="ask the stored tables in SQL, or list them with their columns",
        epilog=SQL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sql.add_argument("question", nargs="?", metavar="QUERY", help="one query in quotes; see examples")
    sql.set_defaults(command=_sql)

    verify = commands.add_parser(
        "verify",
        help="hold what is stored against what the runs recorded",
        description=VERIFY_TEXT,
        epilog=VERIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.set_defaults(command=_verify)

    settings = commands.add_parser("settings", help="show what is in force and where it came from")
    settings.set_defaults(command=_settings)

    for command in (run, ui, report, forecast, events, sql, verify, settings):
        group = command.add_argument_group("settings", "override environment and .env")
        for name, text in SETTING_OPTIONS.items():
            group.add_argument(f"--{name}", metavar="VALUE", help=text)
    return parser


def _given(options: argparse.Namespace) -> dict[str, Any]:
    names = [name.replace("-", "_") for name in SETTING_OPTIONS]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _load(options: argparse.Namespace, *, seasons: bool = True) -> "Settings | None":
    """Return the settings, or tell what is wrong with them and return None.

    With `seasons`, those that nobody set are looked up in the source's files.
    """
    from .settings import SettingsError, load_settings

    try:
        settings = load_settings(_given(options))
        if not seasons or settings.seasons or settings.default_seasons:
            return settings
        from .resources import with_seasons

        return with_seasons(settings)
    except SettingsError as error:
        _fail(str(error))
        return None


def _fail(message: str) -> None:
    from calibration_pipeline.addresses import without_credentials

    print(without_credentials(message), file=sys.stderr)  # noqa: T201


def _console() -> "Console":
    from rich.console import Console

    return Console(soft_wrap=True)


def _run(options: argparse.Namespace) -> int:
    settings = _load(options)
    if settings is None:
        return 2
    archetypes = [name for name in (options.archetypes or "").split(",") if name]
    from calibration_pipeline.archetypes import parse_archetype

    from .instance import prepare_home
    from .pool import start_server

    try:
        for name in archetypes:
            parse_archetype(name)
        home = prepare_home()
        log_file = home / "calibration.log"
        log_file.touch()
        if settings.processes > 1 and not options.select:  # a selection may need no other process
            start_server(home)
    except ValueError as error:
        _fail(str(error))
        return 2
    except OSError as error:
        _fail(f"DAGSTER_HOME cannot be written: {error}")
        return 1

    from .log import log_to

    with log_to(log_file, verbose=options.verbose):
        from .instance import RecordsError
        from .plan import SelectionError
        from .runner import RunError

        try:
            _materialize(settings, options.select, archetypes, update=options.update)
        except (RunError, SelectionError, RecordsError) as error:
            _fail(f"{error}\nDetails: {log_file}")
            return 1
    return 0


def _materialize(
    settings: "Settings", selection: str | None, archetypes: Sequence[str], *, update: bool
) -> None:
    from .settings_table import span

    console = _console()
    console.print(f"Seasons {span(settings.season_list)} of {settings.source} into {settings.store_path}")

    from .definitions import build_defs
    from .instance import open_records
    from .process import prepare_process
    from .runner import run
    from .summary import print_summary

    prepare_process()
    with open_records() as instance:
        made = run(build_defs(settings), instance, console, selection, archetypes, update=update)
        if update and not made:
            console.print("Everything is there, and up to date.")
        print_summary(console, made)


def _ui(options: argparse.Namespace) -> int:
    settings = _load(options)
    if settings is None:
        return 2
    from .instance import prepare_home
    from .settings import ENV_PREFIX, SettingsError, project_folder

    try:
        prepare_home()
    except SettingsError as error:
        _fail(str(error))
        return 2
    given = {f"{ENV_PREFIX}{name.upper()}": str(getattr(settings, name)) for name in _given(options)}
    workspace = project_folder() / "workspace.yaml"
    target = ["-w", str(workspace)] if workspace.exists() else ["-m", "assets.definitions"]
    command = [sys.executable, "-m", "dagster", "dev", *target, "-h", "127.0.0.1", "-p", str(options.port)]
    return subprocess.call(command, cwd=project_folder(), env={**os.environ, **given})  # noqa: S603


def _report(options: argparse.Namespace) -> int:
    settings = _load(options, seasons=False)
    if settings is None:
        return 2
    from .settings import store_root

    root = store_root(settings.store)
    pages = sorted(root.glob("*/calibration_report.html"), key=lambda page: page.stat().st_mtime)
    if not pages:
        _fail(f"There is no report in {root} yet: calibration-pipeline run makes one.")
        return 1
    newest = pages[-1]
    console = _console()
    if options.open:
        webbrowser.open(_local_copy(newest).as_uri())
    else:
        console.print(newest.with_suffix(".md").read_text(encoding="utf-8"), markup=False, highlight=False)
    console.print(f"Report: {newest}", highlight=False)
    return 0


def _local_copy(page: "UPath") -> Path:
    """Return the page itself, or a copy of it where it lies in an object store: browsers open files."""
    from .stored_files import is_local

    if is_local(page):
        return Path(str(page))
    copy = Path(tempfile.mkdtemp(prefix="calibration-report-")) / page.name
    copy.write_bytes(page.read_bytes())
    return copy


def _events(options: argparse.Namespace) -> int:
    settings = _load(options, seasons=False)
    if settings is None:
        return 2
    if options.expression is None:
        from .events import print_language

        print_language(_console(), settings.events)
        return 0
    from calibration_pipeline.verification.event_text import parse_event

    try:
        event = parse_event(options.expression)
    except ValueError as error:
        _fail(str(error))
        return 2
    from .event_tables import has_scenarios, print_judged

    if not has_scenarios(settings.store_path):
        _fail(f"There are no scenarios in {settings.store_path} yet: calibration-pipeline run makes them.")
        return 1
    try:
        print_judged(_console(), settings.store_path, event, settings.seed)
    except ValueError as error:
        _fail(str(error))
        return 1
    return 0


def _forecast(options: argparse.Namespace) -> int:
    settings = _load(options, seasons=False)
    if settings is None:
        return 2
    from .contracts import ContractError
    from .forecast_table import is_stored, print_forecast

    store = settings.store_path
    if not is_stored(store):
        _fail(f"There is no forecast in {store} yet: calibration-pipeline run makes one.")
        return 1
    try:
        print_forecast(_console(), store)
    except ContractError as error:
        _fail(str(error))
        return 1
    return 0


def _sql(options: argparse.Namespace) -> int:
    settings = _load(options, seasons=False)
    if settings is None:
        return 2
    from .answers import print_answer, print_tables
    from .catalogue import stored_tables

    store = settings.store_path
    if not stored_tables(store):
        _fail(f"There are no tables in {store} yet: calibration-pipeline run makes them.")
        return 1
    if options.question is None:
        print_tables(_console(), store)
        return 0
    try:
        print_answer(_console(), store, options.question)
    except ValueError as error:
        _fail(str(error))
        return 1
    return 0


def _verify(options: argparse.Namespace) -> int:
    settings = _load(options)
    if settings is None:
        return 2
    from .instance import prepare_home
    from .settings import SettingsError

    try:
        prepare_home()
    except SettingsError as error:
        _fail(str(error))
        return 2
    import dagster as dg

    from .definitions import build_defs
    from .verify import print_findings, verify_store

    with dg.DagsterInstance.get() as instance:
        findings = verify_store(build_defs(settings), instance)
    if not findings.n_files and not findings.differences:
        _fail(f"There is nothing in {settings.store_path} yet: calibration-pipeline run fills it.")
        return 1
    print_findings(_console(), settings.store_path, findings)
    return 1 if findings.differences else 0


def _settings(options: argparse.Namespace) -> int:
    settings = _load(options)
    if settings is None:
        return 2
    from .settings import origins
    from .settings_table import print_settings

    print_settings(_console(), settings, origins(_given(options)))
    return 0


if __name__ == "__main__":
    command()
