"""IO managers: how assets are stored under one root, a folder or an object store.

All share one base: the value is checked against its contract when it is written and when it is read,
written beside the target and renamed, and never pickled. What a killed writer leaves behind is a dot-file
that no reader looks at.
"""

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

import dagster as dg
import polars as pl
import xarray as xr
from upath import UPath

from calibration_pipeline.archetypes import ARCHETYPES

from .contracts import ContractError, place, validate, value_type
from .kept_values import KeptValues
from .netcdf import read_attributes, read_netcdf
from .own_races import (
    OWN_ARCHETYPE,
    VERSIONS,
    VERSIONS_BY_RACE,
    own_races,
    versions_by_archetype,
    versions_by_race,
)
from .provenance import stamped, unstamp
from .stored_files import content_version, seal, unseal, write_atomically

SCHEMA_VERSION = "2"
COMPRESSION = {"zlib": True, "complevel": 1, "shuffle": True}
LEFT_OUT = "left_out"
"""Metadata key of an input, a dataset: the variables that it need not hold; reading them takes its time."""

_kept = KeptValues()


class StoredManager(dg.UPathIOManager):
    """What the managers share; a child says how a value becomes bytes and comes back."""

    def path_of(self, asset: str, partition: str | None) -> UPath:
        """Return where an asset's partition is stored."""
        folder = self._base_path if partition is None else self._base_path / asset
        return folder / f"{partition or asset}{self.extension}"

    def files_of(self, path: UPath) -> tuple[UPath, ...]:
        """Return the files of a stored value."""
        return (path,)

    def stored_bytes(self, path: UPath) -> bytes:
        """Return the content that a stored value's version is made from."""
        return b"".join(file.read_bytes() for file in self.files_of(path))

    def holds(self, path: UPath, version: str) -> bool:
        """Tell whether a stored value's content is of a version, and its schema this program's.

        Its contract was checked when it was written. A file that cannot be read holds nothing.

        Parameters
        ----------
        path : UPath
        version : str
            Its data version, as recorded.
        """
        try:
            data = self.stored_bytes(path)
        except OSError:
            return False
        return content_version(data) == version and self.schema_version(data) == SCHEMA_VERSION

    def schema_version(self, data: bytes) -> str | None:  # noqa: ARG002
        """Return the schema version that a stored value tells; what has no schema is of this program's."""
        return SCHEMA_VERSION

    def serialise(self, value: Any) -> bytes:
        """Return `value` as the content of a file."""
        raise NotImplementedError

    def deserialise(
        self, data: bytes, asset: str, archetype: str | None, left_out: Collection[str]
    ) -> tuple[Any, str | None]:
        """Return a file's value, and the schema version that it was stored with."""
        raise NotImplementedError

    def read(
        self,
        path: UPath,
        asset: str,
        partition: str | None,
        archetype: str | None = None,
        left_out: Collection[str] = (),
    ) -> Any:
        """Return the stored value of an asset's partition, its contract checked.

        Parameters
        ----------
        path : UPath
        asset : str
        partition : str or None
        archetype : str, optional
            Read only the races of this archetype, where the value has races.
        left_out : collection of str
            Variables of a dataset that are not read.

        Raises
        ------
        FileNotFoundError
            If it has not been materialized.
        ContractError
            If the file breaks the contract or has another schema version.
        """
        if not path.exists():
            raise FileNotFoundError(f"{place(asset, partition)} has not been materialized: no {path}")
        with _unreadable_named(path, asset, partition):
            data = path.read_bytes()
            which = (asset, content_version(data), archetype, left_out)
            if (kept := _kept.find(*which)) is not None:
                return kept
            value, version = self.deserialise(data, asset, archetype, left_out)
        if version != SCHEMA_VERSION:
            raise ContractError(
                f"{place(asset, partition)} is stored with schema version {version}, this program reads "
                f"{SCHEMA_VERSION}: materialize it again."
            )
        valid = validate(value, asset, partition)
        _kept.keep(valid, *which)
        return valid

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        """Check and store a value."""
        partition = context.partition_key if context.has_partition_key else None
        data = self.serialise(validate(obj, _asset_name(context), partition))
        write_atomically(path, data)
        _tell_version(context, data)
        if partition not in (None, *ARCHETYPES):
            versions = {VERSIONS: versions_by_archetype(obj), VERSIONS_BY_RACE: versions_by_race(obj)}
            told = {name: dg.MetadataValue.json(one) for name, one in versions.items() if one}
            context.add_output_metadata(told)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """Return the value, or the path itself where the input is annotated as a path."""
        asset = _asset_name(context)
        partition = path.stem if context.has_asset_partitions else None
        if not _wants_path(context):
            metadata = context.definition_metadata or {}
            archetype = context.partition_key if metadata.get(OWN_ARCHETYPE) else None
            return self.read(path, asset, partition, archetype, metadata.get(LEFT_OUT, ()))
        if not path.exists():
            raise FileNotFoundError(f"{place(asset, partition)} has not been materialized: no {path}")
        return path

    def load_input(self, context: dg.InputContext) -> Any:
        """Return one value, or a dict by partition where the input is annotated as a dict."""
        value = super().load_input(context)
        if not _wants_dict(context):
            return value
        keys = list(context.asset_partition_keys)
        if not keys or value is None:
            return {}
        return {keys[0]: value} if len(keys) == 1 else value


class ParquetIOManager(StoredManager):
    """Polars frames as Parquet."""

    extension = ".parquet"

    def serialise(self, value: pl.DataFrame) -> bytes:
        """Return the frame as Parquet."""
        buffer = io.BytesIO()
        value.write_parquet(buffer, metadata={"schema_version": SCHEMA_VERSION})
        return buffer.getvalue()

    def deserialise(
        self,
        data: bytes,
        asset: str,  # noqa: ARG002
        archetype: str | None,
        left_out: Collection[str],  # noqa: ARG002
    ) -> tuple[pl.DataFrame, str | None]:
        """Return the frame, or only an archetype's races."""
        frame = pl.read_parquet(data)
        return frame if archetype is None else own_races(frame, archetype), self.schema_version(data)

    def schema_version(self, data: bytes) -> str | None:
        """Return what the file's metadata tell."""
        return pl.read_parquet_metadata(io.BytesIO(data)).get("schema_version")


class NetCDFIOManager(StoredManager):
    """Datasets and trees as NetCDF 4, compressed, readable with xarray alone.

    Parameters
    ----------
    base_path : UPath, optional
    made_with : mapping of str to str
        What `provenance` tells; attributes of every file.
    """

    extension = ".nc"

    def __init__(self, base_path: UPath | None = None, made_with: Mapping[str, str] | None = None) -> None:
        super().__init__(base_path)
        self.made_with = dict(made_with or {})

    def dump_to_path(self, context: dg.OutputContext, obj: xr.Dataset | xr.DataTree, path: UPath) -> None:
        """Check and store a value, with what it was made with."""
        own = {"code_version": context.asset_spec.code_version or ""}
        super().dump_to_path(context, stamped(obj, {**self.made_with, **own}), path)

    def serialise(self, value: xr.Dataset | xr.DataTree) -> bytes:
        """Return the dataset or tree as NetCDF."""
        stamped = value.copy(deep=False)
        stamped.attrs = {**value.attrs, "schema_version": SCHEMA_VERSION}
        if isinstance(stamped, xr.DataTree):
            encoding = {node.path: _compressed(node.dataset) for node in stamped.subtree}
            return seal(bytes(stamped.to_netcdf(engine="h5netcdf", encoding=encoding)))
        return seal(bytes(stamped.to_netcdf(engine="h5netcdf", encoding=_compressed(stamped))))

    def deserialise(
        self, data: bytes, asset: str, archetype: str | None, left_out: Collection[str]
    ) -> tuple[xr.Dataset | xr.DataTree, str | None]:
        """Return the dataset or tree, or only an archetype's races of a dataset, fully loaded."""
        tree = read_netcdf(unseal(data), archetype, left_out)
        value = tree if value_type(asset) is xr.DataTree else tree.to_dataset()
        version = value.attrs.pop("schema_version", None)
        unstamp(value)
        return value, version

    def schema_version(self, data: bytes) -> str | None:
        """Return what the file's attributes tell."""
        return read_attributes(unseal(data)).get("schema_version")


class Report(NamedTuple):
    """The calibration report in its two forms."""

    html: str
    markdown: str


class ReportIOManager(StoredManager):
    """The report as a page (.html) and, beside it, its Markdown twin (.md)."""

    extension = ".html"

    def dump_to_path(self, context: dg.OutputContext, obj: Report, path: UPath) -> None:
        """Store both forms."""
        write_atomically(path.with_suffix(".md"), obj.markdown.encode())
        write_atomically(path, obj.html.encode())
        _tell_version(context, obj.html.encode() + obj.markdown.encode())

    def files_of(self, path: UPath) -> tuple[UPath, ...]:
        """Return the files of both forms."""
        return path, path.with_suffix(".md")

    def read(
        self,
        path: UPath,
        asset: str,
        partition: str | None,
        archetype: str | None = None,  # noqa: ARG002
        left_out: Collection[str] = (),  # noqa: ARG002
    ) -> Report:
        """Return both forms."""
        with _unreadable_named(path, asset, partition):
            return Report(*(file.read_text(encoding="utf-8") for file in self.files_of(path)))


class CatalogueIOManager(StoredManager):
    """The catalogue of views as it comes, a DuckDB file."""

    extension = ".duckdb"

    def dump_to_path(self, context: dg.OutputContext, obj: bytes, path: UPath) -> None:
        """Store the file."""
        write_atomically(path, obj)
        _tell_version(context, obj)

    def read(
        self,
        path: UPath,
        asset: str,
        partition: str | None,
        archetype: str | None = None,  # noqa: ARG002
        left_out: Collection[str] = (),  # noqa: ARG002
    ) -> bytes:
        """Return the file's content."""
        with _unreadable_named(path, asset, partition):
            return path.read_bytes()


def io_managers(root: UPath, made_with: Mapping[str, str] | None = None) -> dict[str, StoredManager]:
    """Return the managers by the key under which assets ask for them."""
    return {
        "parquet": ParquetIOManager(root),
        "netcdf": NetCDFIOManager(root, made_with),
        "report": ReportIOManager(root),
        "catalogue": CatalogueIOManager(root),
    }


def stored_partitions(folder: UPath) -> dict[str, UPath]:
    """Return the files of an asset's partitions by key, in order; none where the folder does not exist."""
    return {path.stem: path for path in sorted(folder.glob("[!.]*.*"))}


def stored_value(path: UPath, asset: str, partition: str | None, archetype: str | None = None) -> Any:
    """Return the value stored at `path`, its contract checked, or only an archetype's races of it."""
    manager = ParquetIOManager() if path.suffix == ParquetIOManager.extension else NetCDFIOManager()
    return manager.read(path, asset, partition, archetype)


@contextlib.contextmanager
def _unreadable_named(path: UPath, asset: str, partition: str | None) -> Iterator[None]:
    """Name the file that is read, and whose it is, where it cannot be."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a decoder makes of a broken file
        raise ContractError(
            f"{place(asset, partition)} cannot be read from {path}: {' '.join(str(error).split())}"
        ) from error


def _compressed(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return the encoding: numbers are compressed, those of a race (or chain, or fold) as one chunk."""
    return {
        str(name): COMPRESSION | ({"chunksizes": (1, *variable.shape[1:])} if variable.ndim > 2 else {})
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind in "biuf" and variable.size and variable.ndim
    }


def _tell_version(context: dg.OutputContext, data: bytes) -> None:
    """Let Dagster know the content's version, so that it can tell what is stale."""
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(content_version(data)))


def _asset_name(context: dg.InputContext | dg.OutputContext) -> str:
    return context.asset_key.path[-1]


def _annotation(context: dg.InputContext) -> Any:
    return context.dagster_type.typing_type


def _wants_dict(context: dg.InputContext) -> bool:
    return get_origin(_annotation(context)) is dict


def _wants_path(context: dg.InputContext) -> bool:
    annotation = _annotation(context)
    value = get_args(annotation)[1] if _wants_dict(context) else annotation
    return isinstance(value, type) and issubclass(value, UPath)
