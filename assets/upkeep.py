"""What is to be made again: partitions whose file is missing or broken, or older than what they depend on.

Each file's SHA-256 is the data version of its materialization, and each materialization's tags hold the
versions that went in. So what was made again with the same content makes nothing else stale. Nor does a race
of another kind of track, where only its own races are read, or one of the last fold, where only earlier ones
are. A season is read again where the source has finished races that are not in it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
)

from calibration_pipeline.scenarios.folds import coming_fold_start

from .contracts import ContractError, place
from .own_races import BEFORE_LAST_FOLD, OWN_ARCHETYPE, RUN_SO_FAR, VERSIONS, VERSIONS_BY_RACE
from .partitions import partitions_read
from .scenarios import fold_length
from .settings import Settings
from .storage import StoredManager, io_managers

PATH = "path"
"""Where Dagster's managers of stored files tell, in a materialization's metadata, where its file is."""
RECORDS_AT_A_TIME = 5
RESULTS, LAPS = dg.AssetKey("race_results"), dg.AssetKey("lap_telemetry")

type Part = tuple[dg.AssetKey, str | None]
type Seen = Callable[[Sequence["Made"], str], list[str | None]]


class Made(NamedTuple):
    """What was recorded when a partition was made; before it ever was, nothing."""

    record: int = 0
    tags: Mapping[str, str] = {}
    by_archetype: Mapping[str, str] = {}
    by_race: Mapping[str, Sequence[str]] = {}

    @property
    def version(self) -> str | None:
        """The data version."""
        return self.tags.get(DATA_VERSION_TAG)


class Upkeep:
    """Tells of each stored partition whether it is to be made again, and why.

    Parameters
    ----------
    defs : dagster.Definitions
    instance : dagster.DagsterInstance
        Where earlier runs are recorded. What no run recorded is taken as it is, if it can be read.
    finished : mapping, optional
        season → race_id → what people call the race, as the source told; other seasons are taken as complete.
    """

    def __init__(
        self,
        defs: dg.Definitions,
        instance: dg.DagsterInstance,
        finished: Mapping[int, Mapping[int, str]] | None = None,
    ) -> None:
        self.graph = defs.resolve_asset_graph()
        self.instance = instance
        self.finished = {str(season): races for season, races in (finished or {}).items()}
        settings: Settings = (defs.resources or {})["settings"]
        self.managers = io_managers(settings.store_path)
        self.fold_races = fold_length(settings)
        self.recorded: dict[Part, Made] = {}

    def reason(self, key: dg.AssetKey, partition: str | None) -> str | None:
        """Return why a partition is to be made again, None if it is not.

        Parameters
        ----------
        key : dagster.AssetKey
        partition : str or None
        """
        return self.fault(key, partition) or self.outdated(key, partition) or self.lacking(key, partition)

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
        tags = self.tags(key, partition)
        if tags and manager.holds(path, tags.get(DATA_VERSION_TAG, "")):
            return None
        try:
            manager.read(path, name, partition)
        except FileNotFoundError:
            return f"{place(name, partition)} is missing"
        except ContractError as error:
            return str(error)
        if not tags:
            return None
        return f"{place(name, partition)} is not what was stored: its content has changed since"

    def manager_of(self, key: dg.AssetKey) -> StoredManager:
        """Return what stores and reads the asset."""
        return self.managers[self.graph.get(key).assets_def.get_io_manager_key_for_asset_key(key)]

    def tags(self, key: dg.AssetKey, partition: str | None) -> Mapping[str, str]:
        """Return the tags of a partition's last materialization of this source, none if there is none."""
        return self._made(key, partition).tags

    def forget(self, keys: Collection[dg.AssetKey], partition: str | None) -> None:
        """Look at the records of a partition anew: it was made.

        Parameters
        ----------
        keys : collection of dagster.AssetKey
        partition : str or None
        """
        for key in keys:
            self.recorded.pop((key, partition), None)

    def outdated(self, key: dg.AssetKey, partition: str | None) -> str | None:
        """Return why a partition that is whole is out of date, None if it is not or no run recorded it.

        Parameters
        ----------
        key : dagster.AssetKey
        partition : str or None
        """
        tags = self.tags(key, partition)
        if not tags:
            return None
        where = place(key.to_user_string(), partition)
        if tags.get(CODE_VERSION_TAG, "") != (self.graph.get(key).code_version or ""):
            return f"{where} was made by an earlier version of its code"
        changed = [
            parent.to_user_string()
            for parent in sorted(self.graph.get(key).parent_keys)
            if self._has_changed(parent, key, partition)
        ]
        return f"{where} is older than {', '.join(changed)}" if changed else None

    def lacking(self, key: dg.AssetKey, partition: str | None) -> str | None:
        """Return which finished races a season lacks as it was read, None if it lacks none.

        What has results may have no laps: the results tell what was read, and only where they are spoilt
        the laps themselves.

        Parameters
        ----------
        key : dagster.AssetKey
        partition : str or None
        """
        finished = self.finished.get(str(partition), {})
        if key not in (RESULTS, LAPS) or not finished:
            return None
        whole = next(one for one in (RESULTS, key) if not self.fault(one, partition))
        name, manager = whole.to_user_string(), self.manager_of(whole)
        read = set(manager.read(manager.path_of(name, partition), name, partition)["race_id"])
        labels = [label for race, label in finished.items() if race not in read]
        return f"{place(key.to_user_string(), partition)} lacks {', '.join(labels)}" if labels else None

    def _has_changed(self, parent: dg.AssetKey, child: dg.AssetKey, partition: str | None) -> bool:
        """Whether what a partition read of a parent is not what it would read now."""
        made = self._made(child, partition)
        used = made.tags.get(get_input_data_version_tag(parent))
        read = partitions_read(self.graph, parent, child, partition)
        now = [self._made(parent, one) for one in read]
        if not used or not any(one.version for one in now) or used == self._version(parent, now):
            return False
        seen = self._seen(parent, child)
        if partition is None or seen is None:
            return True
        then = [
            last if last.record < made.record else self._look_up(parent, one, before=made.record)
            for one, last in zip(read, now, strict=True)
        ]
        own = [seen(parts, partition) for parts in (then, now)]
        return used != self._version(parent, then) or None in own[0] or own[0] != own[1]

    def _seen(self, parent: dg.AssetKey, child: dg.AssetKey) -> "Seen | None":
        """Return what tells which part of a parent a partition uses; None if it uses all."""
        asset = self.graph.get(child).assets_def
        names = [name for name, key in asset.keys_by_input_name.items() if key == parent]
        told = {mark for name in names for mark in asset.op.input_dict[name].metadata or {}}
        parts: dict[str, Seen] = {
            OWN_ARCHETYPE: _own_races,
            RUN_SO_FAR: _run_so_far,
            BEFORE_LAST_FOLD: self._before_last_fold,
        }
        return next((part for mark, part in parts.items() if mark in told), None)

    def _before_last_fold(self, seasons: Sequence[Made], _: str) -> list[str | None]:
        """Return versions of what was run before a season's last fold: of seasons, whole but for its own."""
        *earlier, own = seasons
        if not own.by_race:
            return [None]
        start = coming_fold_start(max(map(int, own.by_race)), self.fold_races)
        before = [version for race, (_, version) in own.by_race.items() if int(race) < start]
        return [*(one.version for one in earlier), *before[-1:]]

    def _made(self, key: dg.AssetKey, partition: str | None) -> Made:
        """Return what was last recorded of a partition of this source."""
        part = (key, partition)
        if part not in self.recorded:
            self.recorded[part] = self._look_up(key, partition)
        return self.recorded[part]

    def _look_up(self, key: dg.AssetKey, partition: str | None, before: int | None = None) -> Made:
        return next(self._materializations(key, partition, before), Made())

    def _materializations(
        self, key: dg.AssetKey, partition: str | None, before: int | None
    ) -> Iterator[Made]:
        """Yield what was recorded of a partition of this source, before a record, the last first.

        Sources share an instance. Their files are told apart by the path's last parts, for a store may be
        moved.
        """
        path = self.manager_of(key).path_of(key.to_user_string(), partition)
        end = "/".join(["", *path.parts[-3 if partition else -2 :]])
        which = dg.AssetRecordsFilter(
            asset_key=key,
            asset_partitions=None if partition is None else [partition],
            before_storage_id=before,
        )
        cursor, has_more = None, True
        while has_more:
            found = self.instance.fetch_materializations(which, limit=RECORDS_AT_A_TIME, cursor=cursor)
            cursor, has_more = found.cursor, found.has_more
            for record in found.records:
                made = record.asset_materialization
                if made and PATH in made.metadata and str(made.metadata[PATH].value).endswith(end):
                    own, by_race = (
                        _mapping(made.metadata.get(name)) for name in (VERSIONS, VERSIONS_BY_RACE)
                    )
                    yield Made(record.storage_id, made.tags or {}, own, by_race)

    def _version(self, parent: dg.AssetKey, read: Sequence[Made]) -> str | None:
        """Return the version of what is read of a parent, put together as Dagster does."""
        versions = [one.version for one in read if one.version]
        if self.graph.get(parent).partitions_def is None:
            return versions[0] if versions else None
        return sha256("".join(versions).encode()).hexdigest()


def _mapping(told: Any) -> dict[str, str]:
    return dict(told.value) if isinstance(told, dg.JsonMetadataValue) and isinstance(told.value, dict) else {}


def _own_races(seasons: Sequence[Made], archetype: str) -> list[str | None]:
    """Return the versions of an archetype's own races; None where they were not recorded."""
    return [one.by_archetype.get(archetype) for one in seasons]


def _run_so_far(seasons: Sequence[Made], archetype: str) -> list[str | None]:
    """Return versions of what was run up to an archetype's last race: of seasons, whole but for the last."""
    if not all(one.by_race for one in seasons):
        return [None]
    so_far = [[version for kind, version in one.by_race.values() if kind == archetype] for one in seasons]
    last = max((n for n, versions in enumerate(so_far) if versions), default=-1)
    return [*(one.version for one in seasons[:last]), so_far[last][-1]] if last >= 0 else []
