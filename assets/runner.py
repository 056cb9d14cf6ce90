"""Materialize everything, in the order of the graph, and tell how it goes.

Assets that are cut alike and follow each other make a stage; each partition of a stage is one Dagster run.
That is right because a season's assets read only their own and earlier seasons, and an archetype's only
their own archetype. For the same reason the archetypes of a stage run side by side, as many as the settings
say; seasons follow each other.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import dagster as dg
from rich.console import Console
from upath import UPath

from assets.contracts import place
from assets.launch import has_succeeded, run_elsewhere, run_here
from assets.neighbours import end_dead_runs, living, wait_for_pools
from assets.partitions import ARCHETYPE_PARTITIONS
from assets.progress import Progress
from assets.settings import Settings
from assets.storage import stored_partitions
from assets.upkeep import Upkeep

ALLOW_MISSING = "allow_missing_partitions"
EXPECTED_ERRORS = ("assets.", "calibration_pipeline.", "ValueError", "FileNotFoundError")


class RunError(RuntimeError):
    """An asset could not be made; the message names it, its partition and the cause."""


@dataclass(frozen=True)
class Stage:
    """Assets that are run together, partition by partition."""

    keys: frozenset[dg.AssetKey]
    partitions: tuple[str | None, ...]


def plan(
    defs: dg.Definitions, selected: Collection[dg.AssetKey], archetypes: Sequence[str] = ()
) -> list[Stage]:
    """Return the stages that materialize the selected assets, in order.

    Parameters
    ----------
    defs : dagster.Definitions
    selected : collection of dagster.AssetKey
    archetypes : sequence of str
        Archetype partitions to materialize; all where it is empty.
    """
    graph = defs.resolve_asset_graph()
    ordered = [key for key in graph.toposorted_asset_keys if key in selected]
    waiting = list(ordered)
    stages: list[Stage] = []
    while waiting:
        cut = graph.get(waiting[0]).partitions_def
        stage: list[dg.AssetKey] = []
        blocked: set[dg.AssetKey] = set()
        for key in waiting:
            node = graph.get(key)
            if node.partitions_def != cut or node.parent_keys & blocked:
                blocked.add(key)
            else:
                stage.append(key)
        stages.append(Stage(frozenset(stage), _partitions(cut, archetypes)))
        waiting = [key for key in waiting if key in blocked]
    return stages


def needing_more(defs: dg.Definitions, archetypes: Sequence[str]) -> dict[dg.AssetKey, str]:
    """Return the assets that a run of these archetypes cannot make, each with what it lacks.

    An asset that reads all archetypes can be made where the others are stored from an earlier run. What
    reads an asset that cannot be made cannot be made either.

    Parameters
    ----------
    defs : dagster.Definitions
    archetypes : sequence of str
        Archetype partitions to materialize; all where it is empty.
    """
    graph = defs.resolve_asset_graph()
    others = set(ARCHETYPE_PARTITIONS.get_partition_keys()) - set(archetypes) if archetypes else set()
    lacking: dict[dg.AssetKey, str] = {}
    for key in graph.toposorted_asset_keys if others else ():
        asset = graph.get(key).assets_def
        for name, parent in asset.keys_by_input_name.items():
            read = (graph.get(parent).partitions_def, graph.get(key).partitions_def)
            if parent in lacking:
                lacking[key] = lacking[parent]
            elif read == (ARCHETYPE_PARTITIONS, None) and not _allows_missing(asset, name):
                folder: UPath = (defs.resources or {})["settings"].store_path / parent.to_user_string()
                if missing := sorted(others - stored_partitions(folder).keys()):
                    lacking[key] = f"{parent.to_user_string()} of {', '.join(missing)}"
    return lacking


def _allows_missing(asset: dg.AssetsDefinition, name: str) -> bool:
    return bool(asset.op.input_dict[name].metadata.get(ALLOW_MISSING))


def select_assets(defs: dg.Definitions, selection: str | None) -> frozenset[dg.AssetKey]:
    """Return the asset keys of a selection such as 'race_results,lap_telemetry' or '+causal_network'.

    A plus before a name adds all that it depends on, one after it all that depends on it. Assets that only
    come together are all selected by the name of one.

    Raises
    ------
    RunError
        If a name or expression fits no asset.
    """
    graph = defs.resolve_asset_graph()
    if not selection:
        return frozenset(graph.materializable_asset_keys)
    known = {key.to_user_string() for key in graph.materializable_asset_keys}
    keys: set[dg.AssetKey] = set()
    for part in selection.split(","):
        text = part.strip()
        if name := re.fullmatch(r"(\+?)(\w+)(\+?)", text):
            if name[2] not in known:
                raise RunError(f"No asset is called {name[2]!r}; there are: {', '.join(sorted(known))}.")
            text = f'{name[1]}key:"{name[2]}"{name[3]}'
        found = dg.AssetSelection.from_string(text).resolve(graph)
        if not found:
            raise RunError(f"No asset fits the selection {text!r}.")
        keys |= found
    return _with_inseparable(defs, keys)


def _with_inseparable(defs: dg.Definitions, keys: Collection[dg.AssetKey]) -> frozenset[dg.AssetKey]:
    """Add the assets that a step makes with one of these, and cannot leave out."""
    graph = defs.resolve_asset_graph()
    return frozenset(one for key in keys for one in graph.get(key).execution_set_asset_keys)


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
    metadata: dict[str, dict[str, Any]] = {}
    with console.status("") as status, living(instance) as tags:
        end_dead_runs(instance)
        progress = Progress(console, status)
        selected = select_assets(defs, selection)
        lacking = {key: what for key, what in needing_more(defs, archetypes).items() if key in selected}
        for what in dict.fromkeys(lacking.values()):
            names = ", ".join(key.to_user_string() for key in lacking if lacking[key] == what)
            progress.say(f"skipped: {names}; there is no {what}")
        for stage in plan(defs, selected - lacking.keys(), archetypes):
            parts = _needed(defs, instance, stage, progress) if update else [stage]
            for part in parts:
                for events in _run_stage(defs, instance, part, progress, tags):
                    metadata |= _metadata(events)
    return metadata


def _needed(
    defs: dg.Definitions, instance: dg.DagsterInstance, stage: Stage, progress: Progress
) -> Iterator[Stage]:
    """Yield the parts of a stage that are to be made again, each after the one before it was made.

    Seasons are looked at in turn, for they read what was just made of earlier ones; archetypes together.
    """
    upkeep = Upkeep(defs, instance)
    for partitions in [stage.partitions] if _are_archetypes(stage) else [(one,) for one in stage.partitions]:
        made: dict[str | None, frozenset[dg.AssetKey]] = dict.fromkeys(partitions, frozenset())
        while True:
            parts: dict[frozenset[dg.AssetKey], tuple[str | None, ...]] = {}
            for partition in partitions:
                reasons = {key: upkeep.reason(key, partition) for key in sorted(stage.keys - made[partition])}
                broken = {key: reason for key, reason in reasons.items() if reason}
                for reason in broken.values():
                    progress.say(reason)
                if broken:
                    together = _with_inseparable(defs, broken)
                    made[partition] |= together
                    parts[together] = (*parts.get(together, ()), partition)
            if not parts:
                break
            for keys, alike in parts.items():
                yield Stage(keys, alike)
            upkeep.forget()


def _run_stage(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    stage: Stage,
    progress: Progress,
    tags: Mapping[str, str],
) -> Iterator[Sequence[dg.DagsterEvent]]:
    """Yield the events of each partition's run, in order; raise at the first that failed."""
    settings: Settings = (defs.resources or {})["settings"]
    assets = _assets_by_step(defs)

    def checked(events: Sequence[dg.DagsterEvent], partition: str | None) -> Sequence[dg.DagsterEvent]:
        if not has_succeeded(events):
            raise RunError(_first_failure(events, assets, partition))
        return events

    graph = defs.resolve_asset_graph()
    pools = {pool for key in stage.keys for pool in graph.get(key).pools or ()}
    together = _together(settings, stage)
    if settings.executor == "in_process" and (together == 1 or not instance.is_persistent):
        job = defs.resolve_implicit_global_asset_job_def()
        for partition in stage.partitions:
            progress.partition = partition
            wait_for_pools(instance, pools, progress.say)
            with progress.listening():
                events = run_here(job, instance, stage.keys, partition, tags)
            yield checked(events, partition)
        return
    if together > 1 and settings.executor == "multiprocess":
        settings = settings.model_copy(update={"processes": 1})
    for partitions in [stage.partitions] if together > 1 else [(one,) for one in stage.partitions]:
        wait_for_pools(instance, pools, progress.say)
        try:
            runs = run_elsewhere(settings, instance, stage.keys, partitions, together, progress.hear, tags)
        except BrokenProcessPool as error:
            raise RunError(f"A run's process died: {error}") from error
        for partition, events in runs.items():
            yield checked(events, partition)


def _together(settings: Settings, stage: Stage) -> int:
    """Return how many partitions of a stage run at a time: archetypes do not read each other."""
    if not _are_archetypes(stage):
        return 1
    most = len(stage.partitions)
    return most if settings.executor == "dask" else min(settings.processes, most)


def _are_archetypes(stage: Stage) -> bool:
    return set(ARCHETYPE_PARTITIONS.get_partition_keys()).issuperset(stage.partitions)


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


def _partitions(cut: dg.PartitionsDefinition | None, archetypes: Sequence[str]) -> tuple[str | None, ...]:
    if cut is None:
        return (None,)
    keys = cut.get_partition_keys()
    if cut == ARCHETYPE_PARTITIONS and archetypes:
        return tuple(key for key in keys if key in archetypes)
    return tuple(keys)


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
