"""Errors that end a command: a message for the user, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager


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
