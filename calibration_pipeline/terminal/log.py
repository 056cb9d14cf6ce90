"""The log of the command line: a file, and the terminal on request; the output of its processes."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.io.escaping import plain_text

LOG_FILE = "calibration.log"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
OWN_LOGGERS = ("assets", "calibration_pipeline")
"""Packages of the project, whose loggers have level INFO."""


class _Discreet(logging.Formatter):
    """Leaves out the credentials of every address, whoever logs it, and control characters."""

    def format(self, record: logging.LogRecord) -> str:
        lines = without_credentials(super().format(record)).split("\n")
        return "\n".join(map(plain_text, lines))


class _LogFile(logging.FileHandler):
    """Drops lines that a full disk has no room for; the command prints the error on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Handle an error on writing."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            super().close()


def hand_to(*handlers: logging.Handler) -> None:
    """Let handlers have what is logged in this process, and its warnings."""
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    logging.captureWarnings(capture=True)


def file_handler(path: Path) -> logging.Handler:
    """Return a handler that appends log lines to a file, addresses without credentials."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(_Discreet(FORMAT))
    return handler


@contextmanager
def log_to(path: Path, *, verbose: bool) -> Iterator[None]:
    """Context manager: log lines and warnings go to a file, and with `verbose` to the terminal too."""
    handlers = [file_handler(path)]
    if verbose:
        handlers.append(logging.StreamHandler())
        handlers[-1].setFormatter(_Discreet(FORMAT))
    hand_to(*handlers)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for handler in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


@contextmanager
def output_into(path: Path) -> Iterator[None]:
    """Let processes that are started meanwhile write their stdout and stderr into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        kept = {stream: os.dup(stream) for stream in (1, 2)}
        try:
            for stream in kept:
                os.dup2(file.fileno(), stream)
            yield
        finally:
            for stream, own in kept.items():
                os.dup2(own, stream)
                os.close(own)
