"""The log of the command line: a file, and the terminal on request."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN_LOGGERS = ("assets", "calibration_pipeline")


@contextmanager
def log_to(path: Path, *, verbose: bool) -> Iterator[None]:
    """Send log lines and warnings to a file, and to the terminal only on request."""
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    if verbose:
        handlers.append(logging.StreamHandler())
    root = logging.getLogger()
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
