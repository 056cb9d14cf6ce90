"""Materialize everything, or what is out of date, and tell how it goes.

Each run is started as soon as all that it reads was made, as many at a time as the settings say.
"""

from collections.abc import Mapping, Sequence, Set
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import dagster as dg
from rich.console import Console

from calibration_pipeline.sources.base import SourceError

from .contracts import place
from .launch import Launcher, has_succeeded, was_interrupted
from .neighbours import end_dead_runs, is_full, living, wait_for_pools
from .plan import needing_more, plan, select_assets
from .progress import Progress
from .schedule import Schedule
from .upkeep import LAPS, RESULTS, Upkeep

EXPECTED_ERRORS = ("assets.", "calibration_pipeline.", "ValueError", "FileNotFoundError")


class RunError(RuntimeError):
    """An asset could not be made; the message names it, its partition and the cause."""


def run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    console: Console,
    selection: str | None = None,
    archetypes: Sequence[str] = (),
    *,
    update: bool = False,
) -> dict[str, dict[str, Any]]:
    """Materialize the selected assets, and stop at the first failure.

    Parameters
    ----------
    defs : dagster.Definitions
    instance : dagster.DagsterInstance
        Where the runs are recorded.
    console : rich.console.Console
        Gets a line for each asset and partition.
    selection : str, optional
        Names or expressions, separated by commas; all assets by default.
    archetypes : sequence of str
        Archetype partitions to materialize; all where it is empty.
    update : bool
        Make only what is missing, broken or older than what it depends on.

    Returns
    -------
    dict
        asset → its metadata at the last materialization of this run.

    Raises
    ------
    RunError
        At the first asset that fails, or blocking check that does not pass.
    """
    with console.status("") as status, living(instance) as tags:
        end_dead_runs(instance)
        progress = Progress(console, status)
        selected = select_assets(defs, selection)
        lacking = {key: what for key, what in needing_more(defs, archetypes).items() if key in selected}
        for what in dict.fromkeys(lacking.values()):
            names = ", ".join(key.to_user_string() for key in lacking if lacking[key] == what)
            progress.say(f"skipped: {names}; there is no {what}")
        planned = plan(defs, selected - lacking.keys(), archetypes, apart=update)
        upkeep = Upkeep(defs, instance, _finished_races(defs, selected, progress)) if update else None
        schedule = Schedule(defs, planned, upkeep, progress.say)
        try:
            with Launcher(defs, instance, progress, tags) as launcher:
                return _make(defs, instance, schedule, launcher, progress)
        except BrokenProcessPool as error:
            raise RunError(f"A run's process died: {error}") from error


def _make(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    schedule: Schedule,
    launcher: Launcher,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Make what is planned, and return the metadata of each asset; raise at the first run that failed.

    After a failure no more is started, and what runs comes to its end.
    """
    steps = _assets_by_step(defs)
    metadata: dict[str, dict[str, Any]] = {}
    failure: RunError | None = None
    while launcher.running or not (failure or schedule.is_done()):
        n_free = 0 if failure else launcher.n - len(launcher.running)
        runs = schedule.start(n_free, partial(is_full, instance))
        if runs:
            launcher.start(schedule.most_at_a_time(runs))
        alone = not launcher.running and len(runs) == 1
        for run in runs:
            launcher.submit(run, alone=alone)
        if not launcher.running:
            wait_for_pools(instance, schedule.pools(), progress.say)
        for run, events in launcher.wait():
            if was_interrupted(events):
                raise KeyboardInterrupt
            if not has_succeeded(events):
                failure = failure or RunError(_first_failure(events, steps, run.partition))
            schedule.finish(run)
            metadata |= _metadata(events)
    if failure:
        raise failure
    return metadata


def _finished_races(
    defs: dg.Definitions, selected: Set[dg.AssetKey], progress: Progress
) -> dict[int, dict[int, str]]:
    """Return the finished races of the last season, fresh from the source; none where that cannot tell."""
    if not selected & {RESULTS, LAPS}:
        return {}
    resources = defs.resources or {}
    last = resources["settings"].season_list[-1]
    progress.status.update(f"which races of {last} have finished")
    try:
        return {last: resources["source"].finished_races(last)}
    except SourceError as error:  # what is stored can still be kept up
        progress.say(f"whether races of {last} have finished since cannot be told: {error}")
        return {}


def _metadata(events: Sequence[dg.DagsterEvent]) -> dict[str, dict[str, Any]]:
    """Return asset → metadata, of the assets that a run made."""
    made = [
        event.step_materialization_data.materialization
        for event in events
        if event.event_type_value == "ASSET_MATERIALIZATION"
    ]
    return {
        one.asset_key.to_user_string(): {name: value.value for name, value in one.metadata.items()}
        for one in made
    }


def _assets_by_step(defs: dg.Definitions) -> dict[str, str]:
    graph = defs.resolve_asset_graph()
    return {
        asset.op.name: ", ".join(sorted(key.to_user_string() for key in asset.keys))
        for asset in graph.assets_defs
        if asset.keys
    }


def _first_failure(
    events: Sequence[dg.DagsterEvent], assets: Mapping[str, str], partition: str | None
) -> str:
    """Return asset, partition and cause of the first thing that went wrong."""
    for event in events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            evaluation = event.asset_check_evaluation_data
            if evaluation.blocking and not evaluation.passed:
                where = place(evaluation.asset_key.to_user_string(), partition)
                return f"{where}: check {evaluation.check_name} failed: {evaluation.description}"
        if event.event_type_value == "STEP_FAILURE" and event.step_failure_data.error:
            step = str(event.step_key)
            return f"{place(assets.get(step, step), partition)}: {_cause(event.step_failure_data.error)}"
        if event.is_job_failure and event.job_failure_data.error:
            return f"{_cause(event.job_failure_data.error)}"
    return f"The run of partition {partition} failed without saying why; see the log."


def _cause(error: Any) -> str:
    """Return the message of the error beneath Dagster's; its type is told where it is not one of ours."""
    while error.cause is not None and error.cls_name.startswith("Dagster"):
        error = error.cause
    message = str(error.message).strip()
    name, _, text = message.partition(": ")
    return text if text and name.startswith(EXPECTED_ERRORS) else message
