"""Materialize everything, in the order of the graph, and tell how it goes.

Assets that are cut alike and follow each other are made together; each partition of them is one Dagster run.
Runs that do not read each other go side by side, as many as the settings say: archetypes, assets without
partitions, and the networks and scenarios of seasons. What reads earlier seasons of what is made with it,
as features do of results, is made season by season.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from rich.console import Console
from upath import UPath

from assets.contracts import place
from assets.launch import Processes, Run, has_succeeded, run_here, was_interrupted
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


def plan(
    defs: dg.Definitions, selected: Collection[dg.AssetKey], archetypes: Sequence[str] = ()
) -> list[list[Run]]:
    """Return the runs that materialize the selected assets, in order; those in a list do not read each other.

    Parameters
    ----------
    defs : dagster.Definitions
    selected : collection of dagster.AssetKey
    archetypes : sequence of str
        Archetype partitions to materialize; all where it is empty.
    """
    graph = defs.resolve_asset_graph()
    waiting = [key for key in graph.toposorted_asset_keys if key in selected]
    planned: list[list[Run]] = []
    while waiting:
        cut = graph.get(waiting[0]).partitions_def
        alike: list[dg.AssetKey] = []
        blocked: set[dg.AssetKey] = set()
        chained: set[dg.AssetKey] = set()  # read other partitions of what is made with them
        for key in waiting:
            node = graph.get(key)
            other_partitions = {parent for parent in alike if node.partition_mappings.get(parent)}
            if node.partitions_def != cut or node.parent_keys & blocked or other_partitions & chained:
                blocked.add(key)
                continue
            alike.append(key)
            if other_partitions:
                chained.add(key)
        if cut is None:
            planned += _side_by_side(graph, alike)
        else:
            runs = [Run(frozenset(alike), partition) for partition in _partitions(cut, archetypes)]
            planned += [[run] for run in runs] if chained else [runs]
        waiting = [key for key in waiting if key in blocked]
    return planned


def _side_by_side(graph: AssetGraph, ordered: Sequence[dg.AssetKey]) -> list[list[Run]]:
    """Return runs of assets without partitions; what reads two runs of a list begins the next list."""
    planned: list[list[frozenset[dg.AssetKey]]] = [[]]
    for key in ordered:
        together = frozenset(graph.get(key).execution_set_asset_keys)
        parents = {parent for one in together for parent in graph.get(one).parent_keys}
        read = [keys for keys in planned[-1] if keys & (parents | together)]
        if len(read) > 1:
            planned.append([together])
        elif read:
            planned[-1][planned[-1].index(read[0])] |= together
        else:
            planned[-1].append(together)
    return [[Run(keys, None) for keys in alike] for alike in planned]


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
    settings: Settings = (defs.resources or {})["settings"]
    with console.status("") as status, living(instance) as tags, Processes(settings, instance) as processes:
        end_dead_runs(instance)
        progress = Progress(console, status)
        selected = select_assets(defs, selection)
        lacking = {key: what for key, what in needing_more(defs, archetypes).items() if key in selected}
        for what in dict.fromkeys(lacking.values()):
            names = ", ".join(key.to_user_string() for key in lacking if lacking[key] == what)
            progress.say(f"skipped: {names}; there is no {what}")
        planned = plan(defs, selected - lacking.keys(), archetypes)
        if not update:
            elsewhere = [len(runs) for runs in planned if _are_elsewhere(settings, instance, runs)]
            processes.start(max(elsewhere, default=0))
        upkeep = Upkeep(defs, instance)
        for runs in planned:
            for needed in _needed(defs, upkeep, runs, progress) if update else [runs]:
                for events in _execute(defs, instance, needed, processes, progress, tags):
                    metadata |= _metadata(events)
    return metadata


def _needed(
    defs: dg.Definitions, upkeep: Upkeep, runs: Sequence[Run], progress: Progress
) -> Iterator[list[Run]]:
    """Yield what of the runs is to be made again, each list after the one before it was made."""
    left = {run: run.keys for run in runs}
    while True:
        needed = []
        for run, keys in left.items():
            reasons = {key: upkeep.reason(key, run.partition) for key in sorted(keys)}
            broken = {key: reason for key, reason in reasons.items() if reason}
            for reason in broken.values():
                progress.say(reason)
            if broken:
                together = _with_inseparable(defs, broken)
                left[run] -= together
                needed.append(Run(together, run.partition))
        if not needed:
            return
        yield needed
        upkeep.forget()


def _execute(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    runs: Sequence[Run],
    processes: Processes,
    progress: Progress,
    tags: Mapping[str, str],
) -> Iterator[Sequence[dg.DagsterEvent]]:
    """Yield the events of each run, in order; raise at the first that failed or was interrupted."""
    settings: Settings = (defs.resources or {})["settings"]
    assets = _assets_by_step(defs)

    def checked(events: Sequence[dg.DagsterEvent], run: Run) -> Sequence[dg.DagsterEvent]:
        if was_interrupted(events):
            raise KeyboardInterrupt
        if not has_succeeded(events):
            raise RunError(_first_failure(events, assets, run.partition))
        return events

    graph = defs.resolve_asset_graph()
    pools = {pool for run in runs for key in run.keys for pool in graph.get(key).pools or ()}
    if not _are_elsewhere(settings, instance, runs):
        job = defs.resolve_implicit_global_asset_job_def()
        for run in runs:
            progress.partition = run.partition
            wait_for_pools(instance, pools, progress.say)
            with progress.listening():
                events = run_here(job, instance, run, tags)
            yield checked(events, run)
        return
    if len(runs) > 1 and settings.executor == "multiprocess":
        settings = settings.model_copy(update={"processes": 1})
    wait_for_pools(instance, pools, progress.say)
    try:
        executed = processes.execute(settings, runs, progress.hear, tags)
    except BrokenProcessPool as error:
        raise RunError(f"A run's process died: {error}") from error
    for run, events in executed.items():
        yield checked(events, run)


def _are_elsewhere(settings: Settings, instance: dg.DagsterInstance, runs: Sequence[Run]) -> bool:
    """Whether runs are executed in other processes, which cannot open an instance that is not kept."""
    several = len(runs) > 1 and settings.processes > 1 and instance.is_persistent
    return several or settings.executor != "in_process"


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
