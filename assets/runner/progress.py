"""Progress of a command's runs on the terminal: their events are read from the instance while they run."""

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg
from rich.console import Console
from rich.status import Status

from calibration_pipeline.io.escaping import escape_markup, unescape_text
from calibration_pipeline.schemas.contracts import place
from calibration_pipeline.terminal.errors import cause_message

SHOWN_EVENTS = {
    dg.DagsterEventType[name]
    for name in ("STEP_START", "STEP_SUCCESS", "STEP_FAILURE", "ASSET_CHECK_EVALUATION", "RUN_FAILURE")
}

log = logging.getLogger(__name__)


class Progress:
    """Prints a line for each step that ends, and collects the first failure.

    Parameters
    ----------
    console : rich.console.Console
    status : rich.status.Status
        Shows the step that runs.
    instance : dagster.DagsterInstance
        Holds the runs' events.
    tags : mapping of str to str
        Tags of the command's runs.
    graph : dagster's asset graph
    """

    def __init__(
        self,
        console: Console,
        status: Status,
        instance: dg.DagsterInstance,
        tags: Mapping[str, str],
        graph: Any,
    ) -> None:
        self.console, self.status, self.instance, self.tags = console, status, instance, dict(tags)
        self.assets = {
            asset.op.name: sorted(key.path[-1] for key in asset.keys)
            for asset in graph.assets_defs
            if asset.keys
        }
        self.failure: str | None = None
        self._cursors: dict[str, str] = {}
        self._ended: set[str] = set()

    def follow(self) -> None:
        """Show the events since the last call."""
        for run in reversed(self.instance.get_runs(dg.RunsFilter(tags=self.tags))):
            if run.run_id in self._ended:
                continue
            cursor = self._cursors.get(run.run_id)
            events = self.instance.get_records_for_run(run.run_id, cursor, of_type=SHOWN_EVENTS)
            self._cursors[run.run_id] = events.cursor
            for record in events.records:
                if (event := record.event_log_entry.dagster_event) is not None:
                    self._show(event, run)
            if run.is_finished:
                self._ended.add(run.run_id)

    def note(self, text: str, mark: str = "–") -> None:
        """Print a line about the command itself."""
        self.console.print(f"  [yellow]{mark}[/] {escape_markup(text)}", highlight=False)

    def _show(self, event: dg.DagsterEvent, run: dg.DagsterRun) -> None:  # a dead run's failure has no data
        partition = run.tags.get("dagster/partition")
        selected = {key.path[-1] for key in run.asset_selection or ()}
        names = [name for name in self.assets.get(str(event.step_key), ()) if name in selected]
        where = place(", ".join(names) or str(event.step_key), partition)
        match event.event_type_value:
            case "STEP_START":
                self.status.update(where)
            case "STEP_SUCCESS" if names:
                seconds = event.step_success_data.duration_ms / 1000
                line = f"  [green]✓[/] {escape_markup(where):<58} {seconds:6.1f} s"
                self.console.print(line, highlight=False)
            case "STEP_FAILURE" if event.step_failure_data.error:
                log.error("%s\n%s", where, event.step_failure_data.error.to_string())
                self.fail(f"{where}: {cause_message(event.step_failure_data.error)}")
            case "ASSET_CHECK_EVALUATION" if not event.asset_check_evaluation_data.passed:
                self._show_check(event.asset_check_evaluation_data, partition)
            case "PIPELINE_FAILURE" if event.event_specific_data and event.job_failure_data.error:
                self.fail(cause_message(event.job_failure_data.error))

    def _show_check(self, evaluation: dg.AssetCheckEvaluation, partition: str | None) -> None:
        where = place(evaluation.asset_key.path[-1], partition)
        message = unescape_text(evaluation.description or evaluation.check_name)
        if evaluation.blocking:
            self.fail(f"{where}: check {evaluation.check_name} failed: {message}")
        else:
            self.note(f"{where}: {message}", "!")

    def fail(self, message: str, error: BaseException | None = None) -> None:
        """Keep the message of a failure, unless one came before; log the error's traceback."""
        if error:
            log.error(message, exc_info=error)
        self.failure = self.failure or message
