"""What is to be made again: partitions whose file is missing or broken, or older than what they depend on.

Each file's SHA-256 is the data version of its materialization, and each materialization's tags hold the
versions that went in. So what was made again with the same content makes nothing else stale.
"""

from collections.abc import Mapping
from hashlib import sha256

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
)

from assets.contracts import ContractError, place
from assets.settings import Settings
from assets.storage import content_version, io_managers

type Part = tuple[dg.AssetKey, str | None]


class Upkeep:
    """Tells of each stored partition whether it is to be made again, and why.

    Parameters
    ----------
    defs : dagster.Definitions
    instance : dagster.DagsterInstance
        Where earlier runs are recorded. What no run recorded is taken as it is, if it can be read.
    """

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.graph = defs.resolve_asset_graph()
        self.instance = instance
        settings: Settings = (defs.resources or {})["settings"]
        self.managers = io_managers(settings.store_path)
        self.recorded: dict[Part, Mapping[str, str]] = {}

    def reason(self, key: dg.AssetKey, partition: str | None) -> str | None:
        """Return why a partition is to be made again, None if it is not.

        Parameters
        ----------
        key : dagster.AssetKey
        partition : str or None
        """
        name = key.to_user_string()
        asset = self.graph.get(key).assets_def
        manager = self.managers[asset.get_io_manager_key_for_asset_key(key)]
        path = manager.path_of(name, partition)
        try:
            manager.read(path, name, partition)
        except FileNotFoundError:
            return f"{place(name, partition)} is missing"
        except ContractError as error:
            return str(error)
        tags = self._tags(key, partition)
        if not tags:
            return None
        if tags.get(DATA_VERSION_TAG) != content_version(manager.stored_bytes(path)):
            return f"{place(name, partition)} is not what was stored: its content has changed since"
        if tags.get(CODE_VERSION_TAG, "") != (self.graph.get(key).code_version or ""):
            return f"{place(name, partition)} was made by an earlier version of its code"
        changed = [
            parent.to_user_string()
            for parent in sorted(self.graph.get(key).parent_keys)
            if (used := tags.get(get_input_data_version_tag(parent)))
            and (now := self._version(parent, key, partition))
            and used != now
        ]
        return f"{place(name, partition)} is older than {', '.join(changed)}" if changed else None

    def forget(self) -> None:
        """Look at the records anew: something was made."""
        self.recorded.clear()

    def _version(self, parent: dg.AssetKey, child: dg.AssetKey, partition: str | None) -> str | None:
        """Return the version of what `child` now reads of `parent`, put together as Dagster does."""
        if self.graph.get(parent).partitions_def is None:
            return self._tags(parent, None).get(DATA_VERSION_TAG)
        read = self.graph.get_parent_partition_keys_for_child(partition, parent, child).partitions_subset
        tags = [self._tags(parent, one) for one in sorted(read.get_partition_keys())]
        versions = [one[DATA_VERSION_TAG] for one in tags if DATA_VERSION_TAG in one]
        return sha256("".join(versions).encode()).hexdigest() if versions else None

    def _tags(self, key: dg.AssetKey, partition: str | None) -> Mapping[str, str]:
        """Return the tags of a partition's last materialization, none where there is none."""
        part = (key, partition)
        if part not in self.recorded:
            which = dg.AssetRecordsFilter(
                asset_key=key, asset_partitions=None if partition is None else [partition]
            )
            records = self.instance.fetch_materializations(which, limit=1).records
            made = records[0].asset_materialization if records else None
            self.recorded[part] = dict(made.tags or {}) if made else {}
        return self.recorded[part]
