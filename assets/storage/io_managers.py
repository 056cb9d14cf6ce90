"""IO managers: how assets are stored under one root, a folder or an object store.

All share one base: the value is validated against its contract when it is written and when it is read. It is
written beside the target and renamed, and never pickled. A killed writer leaves a dot-file that no reader
looks at.
Each materialization records the versions of the inputs that its step loaded, and the settings that its asset
depends on: `staleness` compares them with what is there.
"""

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

import dagster as dg
import polars as pl
import xarray as xr
from upath import UPath

from calibration_pipeline.io.netcdf import read_netcdf, stamped, unstamp
from calibration_pipeline.io.stored_files import content_version, file_version, seal, unseal, write_atomically
from calibration_pipeline.schemas.contracts import ContractError, place, validate, value_type
from calibration_pipeline.schemas.datasets import races_of

from ..partitions import archetype_of
from .cache import ValueCache
from .provenance import DEPENDS_ON

SCHEMA_VERSION = "2"
COMPRESSION = {"zlib": True, "complevel": 1, "shuffle": True}
LEFT_OUT = "left_out"
"""Metadata key of an input, a dataset: the variables that are not read."""
OWN_ARCHETYPE = "own_archetype"
"""Metadata key of an input of which only the races of the consuming partition's archetype are read."""
ALLOW_MISSING = "allow_missing_partitions"
"""Metadata key of an input whose partitions need not all be there."""
READ, SETTINGS, PATH, SCHEMA = "read", "settings", "path", "schema_version"
"""Metadata keys of a materialization: version by input, value by setting, the file, its schema version."""

_cache = ValueCache()


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
    """Base of the managers; a subclass turns a value into bytes and back.

    Parameters
    ----------
    root : UPath
        Folder or object-store address of one source's and series' assets.
    inputs : InputVersions, optional
        Shared by the managers of a run.
    settings : mapping, optional
        Setting → value, of which each materialization records those that its asset depends on.
    """

    extension = ""
    has_contract = True
    """Whether values have a contract that validates them."""

    def __init__(
        self,
        root: UPath | None = None,
        inputs: InputVersions | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = root if root is not None else UPath()
        self.inputs = inputs or InputVersions()
        self.settings = dict(settings or {})

    def path_of(self, asset: str, partition: str | None) -> UPath:
        """Return where a partition of an asset is stored."""
        parts = (asset,) if partition is None else (asset, *partition.split("|"))
        return self.root.joinpath(*parts[:-1], f"{parts[-1]}{self.extension}")

    def files_of(self, path: UPath) -> tuple[UPath, ...]:
        """Return the files of a stored value."""
        return (path,)

    def stored_bytes(self, path: UPath) -> bytes:
        """Return the content that a stored value's version is computed from."""
        return b"".join(file.read_bytes() for file in self.files_of(path))

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
        """Return the stored value of an asset's partition, validated.

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
        return self._read(path, asset, partition, archetype, left_out)[0]

    def _read(
        self, path: UPath, asset: str, partition: str | None, archetype: str | None, left_out: Collection[str]
    ) -> tuple[Any, str]:
        """Return the value and its version."""
        _refuse_missing(path, asset, partition)
        with _named_where_unreadable(path, asset, partition):
            data = self.stored_bytes(path)
            version = content_version(data)
            if not self.has_contract:
                return self.deserialise(data, asset, None, ())[0], version
            key = (asset, version, archetype, frozenset(left_out))
            if (cached := _cache.get(key)) is not None:
                return cached, version
            value, schema_version = self.deserialise(data, asset, archetype, left_out)
        if schema_version != SCHEMA_VERSION:
            raise ContractError(
                f"{place(asset, partition)} is stored with schema version {schema_version}, this program "
                f"reads {SCHEMA_VERSION}: materialize it again."
            )
        valid = validate(value, asset, partition)
        _cache.put(key, valid)
        return valid, version

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
        data = self.serialise(validate(value, context.asset_key.path[-1], _partition(context)))
        write_atomically(path, data)
        return data

    def load_input(self, context: dg.InputContext) -> Any:
        """Return a value, a dict by partition where the input is annotated as one, or paths of the files."""
        asset, metadata = context.asset_key.path[-1], context.definition_metadata or {}
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        partitions: list[str | None] = [None] if keys is None else [*keys]
        if metadata.get(ALLOW_MISSING):
            partitions = [one for one in partitions if self.path_of(asset, one).exists()]
        archetype = archetype_of(context.partition_key) if metadata.get(OWN_ARCHETYPE) else None
        values = {}
        for partition in partitions:
            path = self.path_of(asset, partition)
            if _wants_path(context):
                _refuse_missing(path, asset, partition)
                values[partition], version = path, str(file_version(self.files_of(path)))
            else:
                values[partition], version = self._read(
                    path, asset, partition, archetype, metadata.get(LEFT_OUT, ())
                )
            source = place(asset, partition)
            self.inputs.add(context.step_context.run_id, context.op_def.name, source, version)
        return values if _wants_dict(context) else next(iter(values.values()))


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
        schema_version = pl.read_parquet_metadata(io.BytesIO(data)).get("schema_version")
        return frame if archetype is None else races_of(frame, archetype), schema_version


class NetCDFIOManager(StoredManager):
    """Datasets and trees as NetCDF 4, compressed, readable with xarray alone.

    Parameters
    ----------
    root, inputs, settings
        As in `StoredManager`.
    made_with : mapping of str to str
        What `provenance` returns; attributes of every file.
    """

    extension = ".nc"

    def __init__(
        self,
        root: UPath | None = None,
        inputs: InputVersions | None = None,
        settings: Mapping[str, Any] | None = None,
        made_with: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(root, inputs, settings)
        self.made_with = dict(made_with or {})

    def write(self, value: xr.Dataset | xr.DataTree, context: dg.OutputContext, path: UPath) -> bytes:
        """Validate and store a value, with its provenance."""
        own = {"code_version": context.asset_spec.code_version or ""}
        return super().write(stamped(value, {**self.made_with, **own}), context, path)

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


class Report(NamedTuple):
    """The calibration report in its two forms."""

    html: str
    markdown: str


class ReportIOManager(StoredManager):
    """The report as a page (.html) and, beside it, its Markdown twin (.md)."""

    extension = ".html"
    has_contract = False

    def write(self, value: Report, context: dg.OutputContext, path: UPath) -> bytes:  # noqa: ARG002
        """Store both forms."""
        write_atomically(path.with_suffix(".md"), value.markdown.encode())
        write_atomically(path, value.html.encode())
        return value.html.encode() + value.markdown.encode()

    def files_of(self, path: UPath) -> tuple[UPath, ...]:
        """Return the files of both forms."""
        return path, path.with_suffix(".md")

    def deserialise(self, data: bytes, *_: object) -> tuple[str, None]:
        """Return both forms as one text."""
        return data.decode(), None


class CatalogueIOManager(StoredManager):
    """The catalogue of views, a DuckDB file."""

    extension = ".duckdb"
    has_contract = False

    def write(self, value: bytes, context: dg.OutputContext, path: UPath) -> bytes:  # noqa: ARG002
        """Store the file."""
        write_atomically(path, value)
        return value

    def deserialise(self, data: bytes, *_: object) -> tuple[bytes, None]:
        """Return the file's content."""
        return data, None


def io_managers(
    root: UPath, made_with: Mapping[str, str] | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, StoredManager]:
    """Return the managers by the key under which assets ask for them; parameters as in `NetCDFIOManager`."""
    inputs = InputVersions()
    return {
        "parquet": ParquetIOManager(root, inputs, settings),
        "netcdf": NetCDFIOManager(root, inputs, settings, made_with),
        "report": ReportIOManager(root, inputs, settings),
        "catalogue": CatalogueIOManager(root, inputs, settings),
    }


def stored_partitions(folder: UPath) -> dict[str, UPath]:
    """Return the files of an asset's partitions by key, in order; none where the folder does not exist."""
    depth = len(folder.parts)
    paths = sorted([*folder.glob("[!.]*.*"), *folder.glob("*/[!.]*.*")])
    return {"|".join(path.with_suffix("").parts[depth:]): path for path in paths}


def stored_value(path: UPath, asset: str, partition: str | None, archetype: str | None = None) -> Any:
    """Return the value stored at `path`, its contract checked, or only an archetype's races of it."""
    manager = ParquetIOManager() if path.suffix == ParquetIOManager.extension else NetCDFIOManager()
    return manager.read(path, asset, partition, archetype)


@contextlib.contextmanager
def _named_where_unreadable(path: UPath, asset: str, partition: str | None) -> Iterator[None]:
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


def _refuse_missing(path: UPath, asset: str, partition: str | None) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{place(asset, partition)} has not been materialized: no {path}")


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
