"""How a run goes, told line by line: its events come through a logger of their own, or from its processes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from .contracts import place

EVENTS = "assets.progress.events"

log = logging.getLogger(__name__)


@dg.logger(None, "Hands the run's events to the program that started the run.")
def progress_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    """Return the logger whose handler the runner is; in other processes nobody listens."""
    logger = logging.getLogger(EVENTS)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


class Progress(logging.Handler):
    """Turns the events of a run into lines: what was made, for which partition, in how many seconds.

    Parameters
    ----------
    console : rich.console.Console
    status : rich.status.Status
        Shows what is being made.
    """

    def __init__(self, console: Console, status: Status) -> None:
        super().__init__(logging.DEBUG)
        self.console = console
        self.status = status
        self.partition: str | None = None
        self.started: dict[tuple[str, str | None], float] = {}
        self.made: dict[tuple[str, str | None], list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Handle one event of a run in this process."""
        event: dg.DagsterEvent | None = getattr(record, "dagster_event", None)
        if event is not None:
            self.hear(event, self.partition)

    def hear(self, event: dg.DagsterEvent, partition: str | None) -> None:
        """Handle one event of a partition's run."""
        if event.step_key is None:
            return
        step = (event.step_key, partition)
        where = place(*step)
        match event.event_type_value:
            case "STEP_START":
                self.started[step] = time.monotonic()
                self.status.update(where)
            case "ASSET_MATERIALIZATION" if event.asset_key:
                self.made.setdefault(step, []).append(event.asset_key.to_user_string())
            case "ASSET_CHECK_EVALUATION" if not event.asset_check_evaluation_data.passed:
                self._warn(event.asset_check_evaluation_data, partition)
            case "STEP_SUCCESS" if step in self.made:
                seconds = time.monotonic() - self.started[step]
                names = place(", ".join(self.made.pop(step)), partition)
                self.console.print(f"  [green]✓[/] {escape(names):<58} {seconds:6.1f} s", highlight=False)
            case "STEP_FAILURE" if event.step_failure_data.error:
                log.error("%s\n%s", where, event.step_failure_data.error.to_string())

    def say(self, text: str) -> None:
        """Print a line about the run itself."""
        self.console.print(f"  [yellow]–[/] {escape(text)}", highlight=False)

    def _warn(self, evaluation: dg.AssetCheckEvaluation, partition: str | None) -> None:
        where = place(evaluation.asset_key.to_user_string(), partition)
        text = f"{where}: {evaluation.description or evaluation.check_name}"
        self.console.print(f"  [yellow]![/] {escape(text)}", highlight=False)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the events of runs in this process meanwhile."""
        events = logging.getLogger(EVENTS)
        events.setLevel(logging.DEBUG)
        events.propagate = False
        events.addHandler(self)
        try:
            yield
        finally:
            events.removeHandler(self)
