"""What a command makes: assets that are made together, each partition of them in one run, in which order."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from upath import UPath

from .partitions import ARCHETYPE_PARTITIONS, partitions_read
from .storage import stored_partitions

ALLOW_MISSING = "allow_missing_partitions"


class SelectionError(ValueError):
    """No asset is called so, or fits such an expression; the message lists those that there are."""


class Run(NamedTuple):
    """Assets that are made together, of one partition, or of none where they have none."""

    keys: frozenset[dg.AssetKey]
    partition: str | None


def plan(
    defs: dg.Definitions,
    selected: Collection[dg.AssetKey],
    archetypes: Sequence[str] = (),
    *,
    apart: bool = False,
) -> dict[Run, frozenset[Run]]:
    """Return the runs that materialize the selected assets, in order, each with those that it waits for.

    Parameters
    ----------
    defs : dagster.Definitions
    selected : collection of dagster.AssetKey
    archetypes : sequence of str
        Archetype partitions to materialize; all where it is empty.
    apart : bool
        Make in several runs what can be made side by side of one partition, for there may be no other to make
        meanwhile; each run costs half a second.
    """
    graph = defs.resolve_asset_graph()
    planned: dict[Run, frozenset[Run]] = {}
    makes: dict[tuple[dg.AssetKey, str | None], Run] = {}
    for keys in _made_together(graph, selected, apart=apart):
        for partition in _partitions(graph.get(next(iter(keys))).partitions_def, archetypes):
            run = Run(keys, partition)
            makes |= {(key, partition): run for key in keys}
            read = {makes[part] for key in keys for part in _read(graph, key, partition) if part in makes}
            planned[run] = frozenset(read - {run})
    return planned


def _read(
    graph: AssetGraph, key: dg.AssetKey, partition: str | None
) -> Iterator[tuple[dg.AssetKey, str | None]]:
    """Yield the parts that one of an asset reads."""
    for parent in graph.get(key).parent_keys:
        for read in partitions_read(graph, parent, key, partition):
            yield parent, read


def _made_together(
    graph: AssetGraph, selected: Collection[dg.AssetKey], *, apart: bool
) -> list[frozenset[dg.AssetKey]]:
    """Return the selected assets by the run that makes them, in order.

    An asset is made with one that it reads where that makes nothing wait: it reads none of its other
    partitions, all else that it reads is there before, and nobody waits for the other one alone (nobody of
    other partitions, unless `apart`).
    """
    ordered = [key for key in graph.toposorted_asset_keys if key in selected]
    above: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    for key in ordered:
        parents = set(graph.get(key).parent_keys & above.keys())
        above[key] = parents.union(*(above[parent] for parent in parents))
    groups: list[set[dg.AssetKey]] = []
    for key in ordered:
        if any(key in group for group in groups):
            continue
        together = {one for one in graph.get(key).assets_def.keys if one in above}
        fitting = (group for group in groups if _fits(graph, together, group, above, apart=apart))
        if (found := next(fitting, None)) is not None:
            found |= together
        else:
            groups.append(together)
    return [frozenset(group) for group in groups]


def _fits(
    graph: AssetGraph,
    together: Collection[dg.AssetKey],
    group: Collection[dg.AssetKey],
    above: Mapping[dg.AssetKey, set[dg.AssetKey]],
    *,
    apart: bool,
) -> bool:
    """Whether assets are best made in the run of a group."""
    cut = graph.get(next(iter(group))).partitions_def
    if any(graph.get(key).partitions_def != cut for key in together):
        return False
    parents = {parent for key in together for parent in graph.get(key).parent_keys} & above.keys()
    others = {parent for key in together for parent in _other_partitions(graph, key)}
    if not parents & set(group) or others & set(group):
        return False
    there = {one for key in group for one in above[key]} | set(group) | set(together)
    kept_waiting = [
        key
        for key in above
        if (apart or graph.get(key).partitions_def != cut)
        and key not in group
        and key not in together
        and graph.get(key).parent_keys & set(group)
        and not above[key] & set(together)
    ]
    return parents <= there and not kept_waiting


def _other_partitions(graph: AssetGraph, key: dg.AssetKey) -> list[dg.AssetKey]:
    """Return what is cut as an asset is, and of which it reads other partitions beside its own."""
    node = graph.get(key)
    return [
        parent
        for parent, mapping in node.partition_mappings.items()
        if mapping and graph.get(parent).partitions_def == node.partitions_def
    ]


def _partitions(cut: dg.PartitionsDefinition | None, archetypes: Sequence[str]) -> tuple[str | None, ...]:
    if cut is None:
        return (None,)
    keys = cut.get_partition_keys()
    if cut == ARCHETYPE_PARTITIONS and archetypes:
        return tuple(key for key in keys if key in archetypes)
    return tuple(keys)


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
    SelectionError
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
                raise SelectionError(
                    f"No asset is called {name[2]!r}; there are: {', '.join(sorted(known))}."
                )
            text = f'{name[1]}key:"{name[2]}"{name[3]}'
        found = dg.AssetSelection.from_string(text).resolve(graph)
        if not found:
            raise SelectionError(f"No asset fits the selection {text!r}.")
        keys |= found
    return with_inseparable(defs, keys)


def with_inseparable(defs: dg.Definitions, keys: Collection[dg.AssetKey]) -> frozenset[dg.AssetKey]:
    """Add the assets that a step makes with one of these, and cannot leave out.

    Parameters
    ----------
    defs : dagster.Definitions
    keys : collection of dagster.AssetKey
    """
    graph = defs.resolve_asset_graph()
    return frozenset(one for key in keys for one in graph.get(key).execution_set_asset_keys)
