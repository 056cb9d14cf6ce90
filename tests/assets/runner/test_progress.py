"""Progress of a command: what its runs record is printed, as it was written."""

from collections.abc import Iterator

import dagster as dg
import pytest
from rich.console import Console
from rich.status import Status

from assets.runner.progress import Progress
from calibration_pipeline.io.escaping import escape_text

MESSAGE = "race_results [2025] breaks its contract: *rating* is no_number, see https://example.org/a_b"
COMMAND = {"calibration/command": "test"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def followed(instance: dg.DagsterInstance, *, blocking: bool) -> tuple[str | None, str]:
    """Return the failure and the printed lines of a run whose check does not pass."""

    @dg.asset
    def race_results() -> None: ...

    @dg.asset_check(asset=race_results, blocking=blocking)
    def contract() -> dg.AssetCheckResult:
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(passed=False, severity=severity, description=escape_text(MESSAGE))

    parts = [race_results, contract]
    dg.materialize(parts, instance=instance, tags=COMMAND, raise_on_error=False)
    console = Console(width=200)
    graph = dg.Definitions([race_results], asset_checks=[contract]).resolve_asset_graph()
    progress = Progress(console, Status("", console=console), instance, COMMAND, graph)
    with console.capture() as captured:
        progress.follow()
    return progress.failure, captured.get()


def test_a_failed_check_is_named_without_escapes(instance: dg.DagsterInstance) -> None:
    """The UI renders the description of an evaluation as Markdown; a terminal does not."""
    failure, _ = followed(instance, blocking=True)
    assert failure == f"race_results: check contract failed: {MESSAGE}"


def test_a_warning_is_printed_without_escapes(instance: dg.DagsterInstance) -> None:
    failure, lines = followed(instance, blocking=False)
    assert failure is None
    assert f"! race_results: {MESSAGE}" in lines
