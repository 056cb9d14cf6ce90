"""The joint events that are judged: the default ones, and those of the user's file.

Nothing in this module imports Dagster; what is slow to import is imported where it is needed.
"""

from typing import TYPE_CHECKING

from upath import UPath

from calibration_pipeline.addresses import without_credentials
from calibration_pipeline.verification.event_text import LANGUAGE, parse_events
from calibration_pipeline.verification.events import Event

MAX_BYTES = 1_000_000

if TYPE_CHECKING:
    from rich.console import Console


def read_events(address: str) -> dict[str, Event]:
    """Return the named events of a TOML file.

    Parameters
    ----------
    address : str
        Path, or address of an object store.

    Raises
    ------
    ValueError
        If it cannot be read, or holds anything but events; names the event and the position in it.
    """
    try:
        with UPath(address).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except Exception as error:  # whatever a file system makes of an address
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"it cannot be read: {without_credentials(reason)}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"it must have at most {MAX_BYTES:,} bytes")
    return parse_events(text)


def judged_events(address: str | None) -> tuple[Event, ...]:
    """Return the default events and those of the setting `events`, each once."""
    from calibration_pipeline.verification.joint_events import DEFAULT_EVENTS

    configured = read_events(address) if address else {}
    return tuple(dict.fromkeys([*DEFAULT_EVENTS, *configured.values()]))


def print_language(console: "Console", address: str | None) -> None:
    """Print what events are made of, the default ones and those of the setting `events`."""
    from rich.table import Table
    from rich.text import Text

    from calibration_pipeline.verification.joint_events import DEFAULT_EVENTS

    configured = read_events(address) if address else {}
    told = without_credentials(address or "")
    sections = {
        "Events are made of (k, m: whole numbers from 1; a, b: events)": [
            (form, meaning) for form, _, meaning in LANGUAGE
        ],
        "Default events": [(str(event), "") for event in DEFAULT_EVENTS],
        f"Events of {told}" if address else "Events of your own: none, --events names their file": [
            (str(event), name) for name, event in configured.items()
        ],
    }
    for title, rows in sections.items():
        console.print(Text(title))
        table = Table.grid(padding=(0, 2))
        for expression, text in rows:
            table.add_row(Text(f"  {expression}"), Text(text))
        console.print(table)
        console.print()
