"""Sets of joint events to judge: the default ones, and those of a user's file."""

from calibration_pipeline.events.language import (
    Event,
    at_least,
    both_teammates,
    count,
    dnf,
    favourites,
    led,
    running,
    same_make,
    top,
)
from calibration_pipeline.events.text import parse_events
from calibration_pipeline.io.text_files import read_text_file

DEFAULT_EVENTS: tuple[Event, ...] = (
    top(5) & running,
    led(1) & top(10),
    both_teammates(top(10)),
    at_least(2, favourites(3), top(10)),
    count(dnf) >= 8,
    same_make(top(3)),
)


def read_events(address: str) -> dict[str, Event]:
    """Return the named events of a TOML file.

    Parameters
    ----------
    address : str
        Path, or address of an object store.

    Raises
    ------
    ValueError
        If the file cannot be read, or holds anything but events; the message names the event and the
        character.
    """
    return parse_events(read_text_file(address))


def judged_events(address: str | None) -> tuple[Event, ...]:
    """Return the default events and those of the setting `events`, each once."""
    configured = read_events(address) if address else {}
    return tuple(dict.fromkeys([*DEFAULT_EVENTS, *configured.values()]))
