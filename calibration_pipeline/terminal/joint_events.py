"""Terminal output of joint events: the event language, and an event judged on stored forecasts.

Modules that need JAX are imported inside the functions that compute.
"""

from collections.abc import Iterable, Iterator

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.events.files import read_events
from calibration_pipeline.events.language import Event
from calibration_pipeline.events.text import LANGUAGE, parse_event
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.io.escaping import escape_markup, plain_text
from calibration_pipeline.io.stored_values import read_asset, stored_partitions
from calibration_pipeline.schemas.partition_keys import split_key
from calibration_pipeline.terminal.errors import CommandError, reported

COLUMNS = ("Archetype", "Raw", "Recal.", "Observed", "95 %", "z raw, re.", "Cases", "Races")


def print_language(console: Console, address: str | None) -> None:
    """Print the elements of the language, the default events and those of the setting `events`."""
    from calibration_pipeline.events.files import DEFAULT_EVENTS

    configured = read_events(address) if address else {}
    shown = without_credentials(address or "")
    sections = {
        "Elements of events (k, m: whole numbers from 1; a, b: events)": [
            (form, meaning) for form, _, meaning in LANGUAGE
        ],
        "Default events": [(str(event), "") for event in DEFAULT_EVENTS],
        f"Events of {shown}" if address else "Events of your own: none, --events names their file": [
            (str(event), name) for name, event in configured.items()
        ],
    }
    for title, rows in sections.items():
        console.print(Text(title))
        table = Table.grid(padding=(0, 2))
        for expression, text in rows:
            table.add_row(Text(f"  {plain_text(expression)}"), Text(plain_text(text)))
        console.print(table)
        console.print()


def print_stored(console: Console, store: UPath, expression: str, seed: int) -> None:
    """Judge an event on the stored forecasts, and print its predicted and observed share.

    Parameters
    ----------
    console : rich.console.Console
    store : UPath
        Folder or object-store address of a source's and series' assets.
    expression : str
        The event, as a user writes it.
    seed : int

    Raises
    ------
    CommandError
        If the expression is no event, or no forecasts are stored or can be read.
    """
    with reported(ValueError, code=2):
        event = parse_event(expression)
    if not judged_partitions(store):
        raise CommandError(f"There are no scenarios in {store} yet: calibration-pipeline run draws them.")
    with reported(ValueError):
        print_judged(console, event, judge_stored(store, event, seed))


def print_judged(
    console: Console, event: Event, judged_events: Iterable[tuple[str, pl.DataFrame, str]]
) -> None:
    """Print the predicted and observed share of an event, by archetype.

    Parameters
    ----------
    console : rich.console.Console
    event : Event
    judged_events : iterable of tuple
        Archetype's label, its `JointEventTable`, and the reason if there are no rows.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    reasons = []
    for label, judged, reason in judged_events:
        if reason:
            reasons.append(f"{label}: not judged, {reason}.")
            continue
        raw, recalibrated = (
            judged.filter(forecast=forecast).row(0, named=True) for forecast in ("raw", "recalibrated")
        )
        interval = "-" if raw["lower"] is None else f"{raw['lower']:.2f} to {raw['upper']:.2f}"
        shares = [f"{value:.3f}" for value in (raw["predicted"], recalibrated["predicted"], raw["observed"])]
        z = ", ".join("-" if row["z"] is None else f"{row['z']:+.1f}" for row in (raw, recalibrated))
        table.add_row(escape_markup(label), *shares, interval, z, str(raw["n_cases"]), str(raw["n_races"]))
    title = f"{event}: predicted and observed share of the cases, in races that no recalibration had seen"
    console.print(title, highlight=False, markup=False)
    if table.row_count:
        console.print(table)
    for reason in reasons:
        console.print(plain_text(reason), highlight=False, markup=False)


def judge_stored(store: UPath, event: Event, seed: int) -> Iterator[tuple[str, pl.DataFrame, str]]:
    """Judge an event on the stored forecasts of each archetype.

    Yields
    ------
    tuple
        Label of the archetype and of a user's forecaster, its `JointEventTable`, and the reason if there are
        no rows.
    """
    from calibration_pipeline.calibration.archetype_races import results_table
    from calibration_pipeline.verification.backtest import scored_forecasts
    from calibration_pipeline.verification.joint_events import validate_events

    for partition in judged_partitions(store):
        races = read_asset(store, "archetype_races", partition)
        forecasts = scored_forecasts(races, read_asset(store, "recalibrated_forecast", partition))
        table, skipped = validate_events(forecasts, results_table(races), [event], seed)
        archetype, forecaster = split_key(partition)
        label = parse_archetype(archetype).label + ("" if forecaster == NETWORK else f", {forecaster}")
        yield label, table, skipped.get(str(event), "")


def judged_partitions(store: UPath) -> list[str]:
    """Return the archetype partitions with stored raw and recalibrated forecasts."""
    raw, recalibrated = (
        stored_partitions(store / asset) for asset in ("archetype_races", "recalibrated_forecast")
    )
    return [partition for partition in raw if partition in recalibrated]
