"""The IO manager: how assets are stored under one root, a folder or an object store.

A value is validated against its contract before it is written, and on read unless its file names the same
contracts. It is written beside the target and renamed, and never pickled. A killed writer leaves a dot-file
that no reader looks at.
Each materialization records the versions of the inputs that its step loaded, and the settings that its asset
depends on: `staleness` compares them with what is there.
"""

from collections.abc import Mapping
from typing import Any, get_args, get_origin

import dagster as dg
import polars as pl
from upath import UPath

from calibration_pipeline.analysis.provenance import settings_of
from calibration_pipeline.io.netcdf import stamped
from calibration_pipeline.io.stored_files import content_version, file_version, write_atomically
from calibration_pipeline.io.stored_values import (
    SCHEMA_VERSION,
    contracts_version,
    encode,
    files_of,
    path_of,
    read_with_version,
    refuse_missing,
)
from calibration_pipeline.schemas.contracts import place, validate
from calibration_pipeline.schemas.partition_keys import archetype_of

DEPENDS_ON = "depends_on_settings"
"""Metadata key of an asset: the names in `setting_values` that its value depends on."""
LEFT_OUT = "left_out"
"""Metadata key of an input, a dataset: the variables that are not read."""
OWN_ARCHETYPE = "own_archetype"
"""Metadata key of an input of which only the races of the consuming partition's archetype are read."""
ALLOW_MISSING = "allow_missing_partitions"
"""Metadata key of an input whose partitions need not all be there."""
SOURCE_VERSION = "source_version"
"""Metadata key of a season: the version of the source's data that it was read from."""
READ, SETTINGS, PATH, SCHEMA = "read", "settings", "path", "schema_version"
"""Metadata keys of a materialization: version by input, value by setting, the file, its schema version."""


def depends_on(*names: str) -> dict[str, list[str]]:
    """Return the metadata entry that declares which settings an asset's value depends on."""
    return {DEPENDS_ON: list(names)}


class StoredManager(dg.IOManager):
    """Frames as Parquet, datasets and trees as NetCDF with their provenance, documents as they are.

    Parameters
    ----------
    root : UPath
        Folder or object-store address of one source's and series' assets.
    settings : mapping, optional
        Setting → value, of which each materialization records those that its asset depends on.
    made_with : mapping of str to str, optional
        What `provenance` returns; attributes of every NetCDF file.
    """

    def __init__(
        self,
        root: UPath,
        settings: Mapping[str, Any] | None = None,
        made_with: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.settings, self.made_with = dict(settings or {}), dict(made_with or {})
        self._step, self._versions = ("", ""), dict[str, str]()

    def _versions_read(self, run_id: str, step: str) -> dict[str, str]:
        """Return the versions of the inputs that a step has loaded; steps run one after the other."""
        if (run_id, step) != self._step:
            self._step, self._versions = (run_id, step), {}
        return self._versions

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Validate and store a value, and record what it was computed from."""
        asset, partition = context.asset_key.path[-1], _partition(context)
        path = path_of(self.root, asset, partition)
        data = self.write(obj, context, path)
        context.step_context.set_data_version(context.asset_key, dg.DataVersion(content_version(data)))
        depends_on = (context.definition_metadata or {}).get(DEPENDS_ON, ())
        settings = settings_of(self.settings, depends_on, partition)
        read = self._versions_read(context.run_id, context.op_def.name)
        context.add_output_metadata(
            {
                PATH: dg.MetadataValue.path(str(path)),
                SCHEMA: SCHEMA_VERSION,
                READ: dg.MetadataValue.json(read),
                SETTINGS: dg.MetadataValue.json(settings),
            }
        )

    def write(self, value: Any, context: dg.OutputContext, path: UPath) -> bytes:
        """Validate and store a value; return the content that its version is computed from.

        A document comes as a dict of extension and content.
        """
        if isinstance(value, dict):
            for extension in reversed(value):  # the first one last: where it is, all are
                write_atomically(path.with_suffix(extension), value[extension])
            return b"".join(value.values())
        if not isinstance(value, pl.DataFrame):
            own = {"code_version": context.asset_spec.code_version or ""}
            value = stamped(value, {**self.made_with, **own})
        data = encode(validate(value, context.asset_key.path[-1], _partition(context)), contracts_version())
        write_atomically(path, data)
        return data

    def load_input(self, context: dg.InputContext) -> Any:
        """Return a value, a dict by partition where the input is annotated as one, or paths of the files."""
        asset, metadata = context.asset_key.path[-1], context.definition_metadata or {}
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        partitions: list[str | None] = [None] if keys is None else [*keys]
        if metadata.get(ALLOW_MISSING):
            partitions = [key for key in partitions if path_of(self.root, asset, key).exists()]
        archetype = archetype_of(context.partition_key) if metadata.get(OWN_ARCHETYPE) else None
        versions = self._versions_read(context.step_context.run_id, context.op_def.name)
        values = {}
        for partition in partitions:
            path = path_of(self.root, asset, partition)
            if _wants_path(context):
                refuse_missing(path, asset, partition)
                values[partition], version = path, str(file_version(files_of(path, asset)))
            else:
                values[partition], version = read_with_version(
                    path, asset, partition, archetype, metadata.get(LEFT_OUT, ())
                )
            versions[place(asset, partition)] = version
        return values if _wants_dict(context) else next(iter(values.values()))


def _partition(context: dg.OutputContext) -> str | None:
    return context.partition_key if context.has_partition_key else None


def _annotation(context: dg.InputContext) -> Any:
    return context.dagster_type.typing_type


def _wants_dict(context: dg.InputContext) -> bool:
    return get_origin(_annotation(context)) is dict


def _wants_path(context: dg.InputContext) -> bool:
    annotation = _annotation(context)
    value = get_args(annotation)[1] if _wants_dict(context) else annotation
    return isinstance(value, type) and issubclass(value, UPath)
