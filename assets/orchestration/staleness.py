"""Staleness: why a stored partition must be materialized again.

Every materialization records its file's SHA-256 (its data version), its code version, the versions of the
inputs that it loaded and the settings that it depends on. `Lineage.stale_reason` compares these with what is
there now, and keeps no state. So content that is written again unchanged makes nothing stale, and a race
makes stale only the partitions that read something that it changed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from upath import UPath

from calibration_pipeline.analysis.provenance import setting_values, settings_of
from calibration_pipeline.analysis.records import Record, file_fault, outdated_reason, source_change
from calibration_pipeline.io.escaping import unescape_text
from calibration_pipeline.io.stored_files import file_version
from calibration_pipeline.io.stored_values import files_of, path_of
from calibration_pipeline.schemas.contracts import place
from calibration_pipeline.sources.news import News

from ..partitions import upstream_partitions
from ..settings import Settings
from ..storage.io_manager import ALLOW_MISSING, DEPENDS_ON, READ, SCHEMA, SETTINGS, SOURCE_VERSION

DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
RECENT_EVALUATIONS = 500
RECORDED = (SCHEMA, READ, SETTINGS, SOURCE_VERSION)
OF_SOURCE = ("race_results", "lap_telemetry", "quarantine")
"""Assets that a season of the source is read into."""
OF_NEXT_RACE = ("race_forecast", "next_events", "next_positions")
"""Assets that the source's next race is read for."""
OTHER_ENTRIES, UNCHECKED = "is of another entry list", "was stored by a run that ended before its checks"
"""Ends of reasons."""

type Partition = tuple[str, str | None]
"""Name of an asset and a partition key of it, None where it has no partitions."""


class Lineage:
    """The asset graph, its stored files and its records.

    Parameters
    ----------
    graph : dagster's asset graph
        As `dagster.Definitions.resolve_asset_graph` returns it.
    settings : Settings
        Say where the files are, and what values depend on.
    instance : dagster.DagsterInstance
        Holds the records of earlier materializations.
    news : mapping, optional
        Season → what the source has of it now; other seasons count as unchanged.
    entries : str, optional
        Version of the next race that the source announces now; it counts as unchanged if None.
    """

    def __init__(
        self,
        graph: Any,
        settings: Settings,
        instance: dg.DagsterInstance,
        news: Mapping[int, News] | None = None,
        entries: str | None = None,
    ) -> None:
        self.graph, self.settings, self.instance, self.entries = graph, settings, instance, entries
        self.keys = {key.path[-1]: key for key in self.graph.toposorted_asset_keys}
        self.news = {str(season): found for season, found in (news or {}).items()}
        self._values = setting_values(settings, settings.season_list)

    def path(self, asset: str, partition: str | None) -> UPath:
        """Return where a partition is stored."""
        return path_of(self.settings.store_path, asset, partition)

    def version(self, asset: str, partition: str | None) -> str | None:
        """Return the data version of a stored partition, None if there is none."""
        return file_version(files_of(self.path(asset, partition), asset))

    def partitions(self, asset: str) -> Sequence[str | None]:
        """Return the partitions of an asset; [None] where it has none."""
        definition = self.graph.get(self.keys[asset]).partitions_def
        return [None] if definition is None else [str(key) for key in definition.get_partition_keys()]

    def inputs(self, asset: str, partition: str | None) -> Iterator[tuple[Partition, bool]]:
        """Yield the input partitions that a partition loads, and whether each may be missing."""
        key = self.keys[asset]
        definition = self.graph.get(key).assets_def
        for name, parent in definition.keys_by_input_name.items():
            declared = definition.op.input_dict.get(name)  # none where an input only orders the assets
            if parent.path[-1] not in self.keys or declared is None or declared.dagster_type.is_nothing:
                continue
            may_be_missing = bool((declared.metadata or {}).get(ALLOW_MISSING))
            for read in upstream_partitions(self.graph, parent, key, partition):
                yield (parent.path[-1], read), may_be_missing

    def input_versions(self, asset: str, partition: str | None) -> dict[str, str | None]:
        """Return the versions of the partitions that a partition would load, by name; None if not stored."""
        return {place(*read): self.version(*read) for read, _ in self.inputs(asset, partition)}

    def missing_inputs(self, asset: str, partition: str | None) -> list[Partition]:
        """Return the input partitions that a partition needs and that are not stored, by name."""
        needed = (read for read, may_be_missing in self.inputs(asset, partition) if not may_be_missing)
        return sorted((read for read in needed if not self.path(*read).exists()), key=str)

    def record(self, asset: str, partition: str | None) -> Record | None:
        """Return the record of a partition's last materialization."""
        return latest_record(self.instance, self.keys[asset], partition)

    def present_settings(self, asset: str, partition: str | None) -> dict[str, Any]:
        """Return the present value of each setting that a partition depends on."""
        depends_on = self.graph.get(self.keys[asset]).metadata.get(DEPENDS_ON, ())
        return settings_of(self._values, depends_on, partition)

    def stale_reason(self, asset: str, partition: str | None, except_for: Collection[str] = ()) -> str | None:
        """Return why a partition must be materialized again, None if it is up to date.

        Parameters
        ----------
        asset : str
        partition : str or None
        except_for : collection of str
            Names of input partitions whose version does not count.
        """
        record, node = self.record(asset, partition), self.graph.get(self.keys[asset])
        if fault := file_fault(self.path(asset, partition), asset, partition, record):
            return fault
        where = place(asset, partition)
        if record:
            settings = self.present_settings(asset, partition)
            inputs = self.input_versions(asset, partition)
            if reason := outdated_reason(where, record, node.code_version, settings, inputs, except_for):
                return reason
        if record and asset in OF_NEXT_RACE and self.entries not in (None, record.source_version):
            return f"{where} {OTHER_ENTRIES}"
        news = self.news.get(str(partition)) if asset in OF_SOURCE else None
        return source_change(where, record, news) if news else None

    def failed_checks(self, assets: Collection[str]) -> dict[Partition, str]:
        """Return the partitions whose last evaluation of a blocking check failed, each with its message."""
        return {part: self._message(info) for part, info in self._checks(assets, "FAILED")}

    def unfinished_checks(self, assets: Collection[str]) -> dict[Partition, str]:
        """Return the partitions whose present value did not pass a planned blocking check, with the reason.

        A run that dies before a check leaves it planned, which hides the result of an earlier run.
        """
        found = {}
        for part, info in self._checks(assets, "PLANNED"):
            run = self.instance.get_run_by_id(info.latest_planned_run_id)
            last = next(self._evaluations(info), None)
            judged = last.target_materialization_data if last and last.passed else None
            has_passed = judged and judged.storage_id == info.latest_materialization_storage_id
            if not has_passed and (run is None or run.is_finished):
                found[part] = f"{place(*part)} {UNCHECKED}"
        return found

    def _checks(self, assets: Collection[str], status: str) -> Iterator[tuple[Partition, Any]]:
        of_assets = (key for key in self.graph.asset_check_keys if key.asset_key.path[-1] in assets)
        keys = [key for key in of_assets if self.graph.get_check_spec(key).blocking]
        for info in self.instance.event_log_storage.get_asset_check_partition_info(keys):
            if info.latest_execution_status.value == status:
                yield (info.check_key.asset_key.path[-1], info.partition_key), info

    def _evaluations(self, info: Any) -> Iterator[Any]:
        """Yield the evaluations of a check of a partition, the latest first."""
        storage = self.instance.event_log_storage
        for record in storage.get_asset_check_execution_history(info.check_key, RECENT_EVALUATIONS):
            event = record.event and record.event.dagster_event
            if event and record.partition == info.partition_key and record.status.value != "PLANNED":
                yield event.asset_check_evaluation_data

    def _message(self, info: Any) -> str:
        """Return asset, partition, name and message of a failed check."""
        where = place(info.check_key.asset_key.path[-1], info.partition_key)
        failed = (each.description for each in self._evaluations(info) if not each.passed)
        message = unescape_text(next(failed, None) or "see the UI")
        return f"{where}: check {info.check_key.name} failed: {message}"


def latest_record(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> Record | None:
    """Return the record of a partition's last materialization, None if there is none."""
    partitions = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=partitions)
    found = instance.fetch_materializations(wanted, limit=1).records
    if not found or (materialization := found[0].asset_materialization) is None:
        return None
    tags = materialization.tags or {}
    entries = materialization.metadata.items()
    values: dict[str, Any] = {name: entry.value for name, entry in entries if name in RECORDED}
    return Record(
        found[0].storage_id,
        tags.get(DATA_VERSION_TAG),
        values.get(SCHEMA),
        tags.get(CODE_VERSION_TAG),
        values.get(READ, {}),
        values.get(SETTINGS, {}),
        values.get(SOURCE_VERSION),
    )
