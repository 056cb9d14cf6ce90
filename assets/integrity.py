"""Verification of the store against what the runs recorded. It reads, and changes nothing."""

from collections.abc import Iterable, Sequence

import dagster as dg
from upath import UPath

from calibration_pipeline.analysis.records import file_fault
from calibration_pipeline.io.files import LEFTOVER
from calibration_pipeline.io.stored_files import file_version
from calibration_pipeline.io.stored_values import files_of, path_of, stored_partitions
from calibration_pipeline.schemas.contracts import place

from .instance import home_folder, open_records, prepare_home
from .orchestration.staleness import Lineage, latest_record
from .settings import Settings


def verify_store(
    defs: dg.Definitions, settings: Settings, instance: dg.DagsterInstance
) -> tuple[int, list[str]]:
    """Compare every file of the source's store with what the runs recorded, and name what is stale.

    Parameters
    ----------
    defs : dagster.Definitions
    settings : Settings
        Their `store` says where the files are.
    instance : dagster.DagsterInstance
        Where the runs are recorded.

    Returns
    -------
    n_files : int
        Files that are there.
    differences : list of str
        One line for each stored value and file that is not as recorded.
    """
    lineage = Lineage(defs.resolve_asset_graph(), settings, instance)
    store = settings.store_path
    found = {str(path): path for path in sorted(store.rglob("*")) if path.is_file()}
    differences: list[str] = []
    faulty: set[str] = set()
    of_assets: set[str] = set()
    for asset in lineage.keys:
        current = set(lineage.partitions(asset))
        for partition in _partitions(lineage, asset, store):
            files = {str(file) for file in files_of(lineage.path(asset, partition), asset)}
            record = lineage.record(asset, partition)
            if not files & found.keys() and (record is None or partition not in current):
                continue
            of_assets |= files
            fault = file_fault(lineage.path(asset, partition), asset, partition, record)
            faulty |= {place(asset, partition)} if fault else set()
            stale = partition in current and lineage.stale_reason(asset, partition, except_for=faulty)
            if reason := fault or stale:
                differences.append(reason)
            elif record is None:
                differences.append(f"{place(asset, partition)} is recorded by no run")
    differences += [_stranger(found[name]) for name in sorted(found.keys() - of_assets)]
    return len(found), differences


def check_digests(
    store: UPath, prefix: Sequence[str], assets: Iterable[str]
) -> tuple[dict[str, str], list[str]]:
    """Compare stored files with the SHA-256 that the runs recorded.

    Parameters
    ----------
    store : UPath
        Folder or address of a source's and series' assets.
    prefix : sequence of str
        Source and series.
    assets : iterable of str

    Returns
    -------
    damaged : dict
        Asset → a message, of those with a file that differs.
    unknown : list of str
        Assets with a file that no run in DAGSTER_HOME recorded.
    """
    damaged: dict[str, str] = {}
    unknown: list[str] = []
    if not (home_folder() / "dagster.yaml").exists():
        return {}, list(assets)
    prepare_home()
    with open_records() as instance:
        for asset in assets:
            for partition in stored_partitions(store / asset) or [None]:
                record = latest_record(instance, dg.AssetKey([*prefix, asset]), partition)
                version = file_version(files_of(path_of(store, asset, partition), asset))
                if record is None:
                    unknown.append(asset)
                elif record.data_version != version:
                    damaged[asset] = (
                        f"{place(asset, partition)} is not what was stored: run --update repairs it"
                    )
    return damaged, sorted(set(unknown))


def _partitions(lineage: Lineage, asset: str, store: UPath) -> list[str] | list[None]:
    """Return the partitions that are stored or were recorded, also those of earlier settings."""
    if lineage.graph.get(lineage.keys[asset]).partitions_def is None:
        return [None]
    recorded = lineage.instance.get_materialized_partitions(lineage.keys[asset])
    return sorted(stored_partitions(store / asset).keys() | recorded)


def _stranger(path: UPath) -> str:
    if LEFTOVER.fullmatch(path.name):
        return f"{path} is left over from a run that was killed, or is being written"
    return f"{path} is of no asset"
