"""Errors that end a command: a message for the user, and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.io.escaping import plain_text

EXPECTED_ERRORS = ("assets.", "calibration_pipeline.", "ValueError", "FileNotFoundError")
"""Beginnings of the names of errors whose message alone is shown."""


class CommandError(Exception):
    """A command cannot do its work; the message is for the user, `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def reported(*errors: type[Exception], code: int = 1) -> Iterator[None]:
    """Report errors by their message, and end the command.

    Raises
    ------
    CommandError
        In place of one of the errors.
    """
    try:
        yield
    except errors as error:
        raise CommandError(str(error), code) from error


def warn(message: str) -> None:
    """Print a message to stderr, without credentials and control characters."""
    lines = without_credentials(message).split("\n")
    print(*map(plain_text, lines), sep="\n", file=sys.stderr)  # noqa: T201


def cause_message(error: Any) -> str:
    """Return the message of the error beneath Dagster's; with its type where the error is not one of ours.

    Parameters
    ----------
    error : dagster's serializable error
        With `cause`, `cls_name` and `message`.
    """
    while error.cause is not None and error.cls_name.startswith("Dagster"):
        error = error.cause
    message = str(error.message).strip()
    name, _, text = message.partition(": ")
    return text if text and name.startswith(EXPECTED_ERRORS) else message
