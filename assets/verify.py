"""What in the store is not as the runs recorded it. It reads, and changes nothing."""

import re
from typing import NamedTuple

import dagster as dg
from rich.console import Console
from rich.markup import escape
from upath import UPath

from .contracts import place
from .settings import Settings
from .storage import stored_partitions
from .upkeep import Upkeep

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


class Findings(NamedTuple):
    """What was found in a store.

    Attributes
    ----------
    n_files : int
        Files that are there.
    differences : list of str
        One line for each stored value and file that is not as recorded.
    """

    n_files: int
    differences: list[str]


def verify_store(defs: dg.Definitions, instance: dg.DagsterInstance) -> Findings:
    """Hold every file of the source's store against what the runs recorded.

    Parameters
    ----------
    defs : dagster.Definitions
        Their setting `store` says where the files are.
    instance : dagster.DagsterInstance
        Where the runs are recorded.
    """
    upkeep = Upkeep(defs, instance)
    settings: Settings = (defs.resources or {})["settings"]
    store = settings.store_path
    found = {str(path): path for path in sorted(store.rglob("*")) if path.is_file()}
    differences: list[str] = []
    of_assets: set[str] = set()
    for key in upkeep.graph.toposorted_asset_keys:
        name, manager = key.to_user_string(), upkeep.manager_of(key)
        for partition in _partitions(upkeep, key, store):
            files = {str(file) for file in manager.files_of(manager.path_of(name, partition))}
            is_recorded = bool(upkeep.tags(key, partition))
            if not is_recorded and not files & found.keys():
                continue
            of_assets |= files
            if fault := upkeep.fault(key, partition):
                differences.append(fault)
            elif not is_recorded:
                differences.append(f"{place(name, partition)} is recorded by no run")
    differences += [_stranger(found[name]) for name in sorted(found.keys() - of_assets)]
    return Findings(len(found), differences)


def print_findings(console: Console, store: UPath, findings: Findings) -> None:
    """Print a line for each difference, and how many there are."""
    for difference in findings.differences:
        console.print(f"  [yellow]![/] {escape(difference)}", highlight=False)
    n = len(findings.differences)
    told = f"{n} {'difference' if n == 1 else 'differences'}" if n else "all as recorded"
    console.print(f"{findings.n_files} files in {escape(str(store))}: {told}.", highlight=False)


def _partitions(upkeep: Upkeep, key: dg.AssetKey, store: UPath) -> list[str] | list[None]:
    """Return the partitions that are stored or were recorded, of whatever source; also earlier settings'."""
    if upkeep.graph.get(key).partitions_def is None:
        return [None]
    stored = stored_partitions(store / key.to_user_string()).keys()
    return sorted(stored | upkeep.instance.get_materialized_partitions(key))


def _stranger(path: UPath) -> str:
    if LEFTOVER.fullmatch(path.name):
        return f"{path} is left over from a run that was killed, or is being written"
    return f"{path} is of no asset"
