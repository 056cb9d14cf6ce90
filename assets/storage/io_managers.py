"""IO managers: how assets are stored under one root, a folder or an object store.

All share one base: the value is validated against its contract when it is written and when it is read. It is
written beside the target and renamed, and never pickled. A killed writer leaves a dot-file that no reader
looks at.
Each materialization records the versions of the inputs that its step loaded, and the settings that its asset
depends on: `staleness` compares them with what is there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args, get_origin

import dagster as dg
import polars as pl
from upath import UPath

from calibration_pipeline.io.netcdf import stamped
from calibration_pipeline.io.stored_files import content_version, file_version, write_atomically
from calibration_pipeline.io.stored_values import (
    SCHEMA_VERSION,
    encode,
    path_of,
    read_value,
    read_with_version,
    refuse_missing,
)
from calibration_pipeline.schemas.contracts import ContractError, place, validate

from ..partitions import archetype_of
from .provenance import DEPENDS_ON

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


class InputVersions:
    """Versions of the inputs that the steps of the present run loaded, shared by a process's managers."""

    def __init__(self) -> None:
        self._run_id = ""
        self._by_step: dict[str, dict[str, str]] = {}

    def add(self, run_id: str, step: str, source: str, version: str) -> None:
        """Record the version of an input's partition that a step loaded."""
        if run_id != self._run_id:
            self._run_id, self._by_step = run_id, {}
        self._by_step.setdefault(step, {})[source] = version

    def of_step(self, run_id: str, step: str) -> dict[str, str]:
        """Return what a step loaded: input partition → version."""
        return dict(self._by_step.get(step, {})) if run_id == self._run_id else {}


class StoredManager(dg.IOManager):
    """Frames as Parquet, datasets and trees as NetCDF with their provenance, below a root.

    Parameters
    ----------
    root : UPath
        Folder or object-store address of one source's and series' assets.
    inputs : InputVersions, optional
        Shared by the managers of a run.
    settings : mapping, optional
        Setting → value, of which each materialization records those that its asset depends on.
    made_with : mapping of str to str, optional
        What `provenance` returns; attributes of every NetCDF file.
    """

    extension: str | None = None

    def __init__(
        self,
        root: UPath,
        inputs: InputVersions | None = None,
        settings: Mapping[str, Any] | None = None,
        made_with: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self.inputs = root, inputs or InputVersions()
        self.settings, self.made_with = dict(settings or {}), dict(made_with or {})

    def path_of(self, asset: str, partition: str | None) -> UPath:
        """Return the path of a partition of an asset."""
        return path_of(self.root, asset, partition, self.extension)

    def files_of(self, path: UPath) -> tuple[UPath, ...]:
        """Return the files of a stored value."""
        return (path,)

    def read(self, path: UPath, asset: str, partition: str | None) -> Any:
        """Return a stored value, as `stored_values.read_value` does."""
        return read_value(path, asset, partition)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Validate and store a value, and record what it was computed from."""
        asset, partition = context.asset_key.path[-1], _partition(context)
        path = self.path_of(asset, partition)
        data = self.write(obj, context, path)
        context.step_context.set_data_version(context.asset_key, dg.DataVersion(content_version(data)))
        depends_on = (context.definition_metadata or {}).get(DEPENDS_ON, ())
        read = self.inputs.of_step(context.run_id, context.op_def.name)
        context.add_output_metadata(
            {
                PATH: dg.MetadataValue.path(str(path)),
                SCHEMA: SCHEMA_VERSION,
                READ: dg.MetadataValue.json(read),
                SETTINGS: dg.MetadataValue.json({name: self.settings.get(name) for name in depends_on}),
            }
        )

    def write(self, value: Any, context: dg.OutputContext, path: UPath) -> bytes:
        """Validate and store a value; return the content that its version is computed from."""
        if not isinstance(value, pl.DataFrame):
            own = {"code_version": context.asset_spec.code_version or ""}
            value = stamped(value, {**self.made_with, **own})
        data = encode(validate(value, context.asset_key.path[-1], _partition(context)))
        write_atomically(path, data)
        return data

    def load_input(self, context: dg.InputContext) -> Any:
        """Return a value, a dict by partition where the input is annotated as one, or paths of the files."""
        asset, metadata = context.asset_key.path[-1], context.definition_metadata or {}
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        partitions: list[str | None] = [None] if keys is None else [*keys]
        if metadata.get(ALLOW_MISSING):
            partitions = [key for key in partitions if self.path_of(asset, key).exists()]
        archetype = archetype_of(context.partition_key) if metadata.get(OWN_ARCHETYPE) else None
        values = {}
        for partition in partitions:
            path = self.path_of(asset, partition)
            if _wants_path(context):
                refuse_missing(path, asset, partition)
                values[partition], version = path, str(file_version(self.files_of(path)))
            else:
                values[partition], version = read_with_version(
                    path, asset, partition, archetype, metadata.get(LEFT_OUT, ())
                )
            source = place(asset, partition)
            self.inputs.add(context.step_context.run_id, context.op_def.name, source, version)
        return values if _wants_dict(context) else next(iter(values.values()))


class Report(NamedTuple):
    """The calibration report in its two forms."""

    html: str
    markdown: str


class ReportManager(StoredManager):
    """The report as a page (.html) and, beside it, its Markdown twin (.md)."""

    extension = ".html"

    def write(self, value: Report, context: dg.OutputContext, path: UPath) -> bytes:  # noqa: ARG002
        """Store both forms."""
        write_atomically(path.with_suffix(".md"), value.markdown.encode())
        write_atomically(path, value.html.encode())
        return value.html.encode() + value.markdown.encode()

    def files_of(self, path: UPath) -> tuple[UPath, ...]:
        """Return the files of both forms."""
        return path, path.with_suffix(".md")

    def read(self, path: UPath, asset: str, partition: str | None) -> str:
        """Return both forms as one text."""
        refuse_missing(path, asset, partition)
        try:
            return "".join(file.read_text(encoding="utf-8") for file in self.files_of(path))
        except UnicodeDecodeError as error:
            raise ContractError(f"{place(asset, partition)} cannot be read from {path}: {error}") from error


class CatalogueManager(StoredManager):
    """The catalogue of views, a DuckDB file."""

    extension = ".duckdb"

    def write(self, value: bytes, context: dg.OutputContext, path: UPath) -> bytes:  # noqa: ARG002
        """Store the file."""
        write_atomically(path, value)
        return value

    def read(self, path: UPath, asset: str, partition: str | None) -> bytes:
        """Return the file's content."""
        refuse_missing(path, asset, partition)
        return path.read_bytes()


def io_managers(
    root: UPath, made_with: Mapping[str, str] | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, StoredManager]:
    """Return the managers by the key under which assets ask for them; parameters as in `StoredManager`."""
    managers = {"io_manager": StoredManager, "report": ReportManager, "catalogue": CatalogueManager}
    inputs = InputVersions()
    return {key: manager(root, inputs, settings, made_with) for key, manager in managers.items()}


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
