"""What is to be made again: partitions whose file is missing or broken, or older than what they depend on.

Each file's SHA-256 is the data version of its materialization, and each materialization's tags hold the
versions that went in. So what was made again with the same content makes nothing else stale.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
)

from assets.contracts import ContractError, place
from assets.settings import Settings
from assets.storage import StoredManager, content_version, io_managers

PATH = "path"
"""Where Dagster's managers of stored files tell, in a materialization's metadata, where its file is."""
RECORDS_AT_A_TIME = 5

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
        return self.fault(key, partition) or self._outdated(key, partition)

    def fault(self, key: dg.AssetKey, partition: str | None) -> str | None:
        """Return what is wrong with a partition's file, None if nothing is.

        It is missing, cannot be read, breaks its contract, has another schema version, or its content is not
        what the last run recorded.

        Parameters
        ----------
        key : dagster.AssetKey
        partition : str or None
        """
        name, manager = key.to_user_string(), self.manager_of(key)
        path = manager.path_of(name, partition)
        try:
            manager.read(path, name, partition)
        except FileNotFoundError:
            return f"{place(name, partition)} is missing"
        except ContractError as error:
            return str(error)
        tags = self.tags(key, partition)
        if tags and tags.get(DATA_VERSION_TAG) != content_version(manager.stored_bytes(path)):
            return f"{place(name, partition)} is not what was stored: its content has changed since"
        return None

    def manager_of(self, key: dg.AssetKey) -> StoredManager:
        """Return what stores and reads the asset."""
        return self.managers[self.graph.get(key).assets_def.get_io_manager_key_for_asset_key(key)]

    def tags(self, key: dg.AssetKey, partition: str | None) -> Mapping[str, str]:
        """Return the tags of a partition's last materialization of this source, none if there is none."""
        part = (key, partition)
        if part not in self.recorded:
            made = next(self._materializations(key, partition), None)
            self.recorded[part] = dict(made.tags or {}) if made else {}
        return self.recorded[part]

    def forget(self) -> None:
        """Look at the records anew: something was made."""
        self.recorded.clear()

    def _outdated(self, key: dg.AssetKey, partition: str | None) -> str | None:
        """Return why a partition that is whole is out of date, None if it is not or no run recorded it."""
        tags = self.tags(key, partition)
        if not tags:
            return None
        where = place(key.to_user_string(), partition)
        if tags.get(CODE_VERSION_TAG, "") != (self.graph.get(key).code_version or ""):
            return f"{where} was made by an earlier version of its code"
        changed = [
            parent.to_user_string()
            for parent in sorted(self.graph.get(key).parent_keys)
            if (used := tags.get(get_input_data_version_tag(parent)))
            and (now := self._version(parent, key, partition))
            and used != now
        ]
        return f"{where} is older than {', '.join(changed)}" if changed else None

    def _materializations(self, key: dg.AssetKey, partition: str | None) -> Iterator[dg.AssetMaterialization]:
        """Yield what was recorded of a partition of this source, the last first.

        Sources share an instance. Their files are told apart by the path's last parts, for a store may be
        moved.
        """
        path = self.manager_of(key).path_of(key.to_user_string(), partition)
        own = "/".join(["", *path.parts[-3 if partition else -2 :]])
        which = dg.AssetRecordsFilter(
            asset_key=key, asset_partitions=None if partition is None else [partition]
        )
        cursor, has_more = None, True
        while has_more:
            found = self.instance.fetch_materializations(which, limit=RECORDS_AT_A_TIME, cursor=cursor)
            cursor, has_more = found.cursor, found.has_more
            for record in found.records:
                made = record.asset_materialization
                if made and PATH in made.metadata and str(made.metadata[PATH].value).endswith(own):
                    yield made

    def _version(self, parent: dg.AssetKey, child: dg.AssetKey, partition: str | None) -> str | None:
        """Return the version of what `child` now reads of `parent`, put together as Dagster does."""
        if self.graph.get(parent).partitions_def is None:
            return self.tags(parent, None).get(DATA_VERSION_TAG)
        read = self.graph.get_parent_partition_keys_for_child(partition, parent, child).partitions_subset
        tags = [self.tags(parent, one) for one in sorted(read.get_partition_keys())]
        versions = [one[DATA_VERSION_TAG] for one in tags if DATA_VERSION_TAG in one]
        return sha256("".join(versions).encode()).hexdigest() if versions else None
