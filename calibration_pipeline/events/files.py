"""Sets of joint events to judge: the default ones, and those of a user's file."""

from upath import UPath

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
from calibration_pipeline.io.addresses import without_credentials

DEFAULT_EVENTS: tuple[Event, ...] = (
    top(5) & running,
    led(1) & top(10),
    both_teammates(top(10)),
    at_least(2, favourites(3), top(10)),
    count(dnf) >= 8,
    same_make(top(3)),
)
MAX_BYTES = 1_000_000


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
    try:
        with UPath(address).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except Exception as error:  # file systems raise many types
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"it cannot be read: {without_credentials(reason)}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"it must have at most {MAX_BYTES:,} bytes")
    return parse_events(text)


def judged_events(address: str | None) -> tuple[Event, ...]:
    """Return the default events and those of the setting `events`, each once."""
    configured = read_events(address) if address else {}
    return tuple(dict.fromkeys([*DEFAULT_EVENTS, *configured.values()]))
