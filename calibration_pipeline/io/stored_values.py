"""Files of stored values: paths, encoding, and reading with a check of the contract.

A file names the contracts that its value passed when it was written; a reader with the same contracts does
not repeat the check.

Frames are Parquet files. Datasets and trees are NetCDF 4 files, compressed, readable with xarray alone.
The report and the catalogue are files without a contract.
"""

import contextlib
import functools
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pandera
import polars as pl
import xarray as xr
from upath import UPath

from calibration_pipeline.io.netcdf import read_netcdf, unstamp
from calibration_pipeline.io.stored_files import content_version, seal, unseal
from calibration_pipeline.io.value_cache import ValueCache
from calibration_pipeline.schemas import contracts
from calibration_pipeline.schemas.contracts import ContractError, place, validate, value_type
from calibration_pipeline.schemas.datasets import races_of

SCHEMA_VERSION = "4"
COMPRESSION = {"zlib": True, "complevel": 1, "shuffle": True}
PARQUET, NETCDF = ".parquet", ".nc"
DOCUMENTS = {"calibration_report": (".html", ".md"), "catalogue": (".duckdb",)}
"""Files of the assets without a contract."""

STORED_SCHEMA, CHECKED_BY = "schema_version", "checked_by"
"""Attributes of a file: version of its schema, and of the contracts that its value has passed."""

_cache = ValueCache()


@functools.cache
def contracts_version() -> str:
    """Return the version of all contracts: a hash of their modules, and the release of Pandera."""
    modules = sorted(Path(contracts.__file__).parent.glob("*.py"))
    return content_version(b"".join(module.read_bytes() for module in modules) + pandera.__version__.encode())


def path_of(root: UPath, asset: str, partition: str | None) -> UPath:
    """Return the path of a stored partition, of the first of its files where it has several.

    Parameters
    ----------
    root : UPath
        Folder or object-store address of one source's and series' assets.
    asset : str
    partition : str or None
        Partition key; its dimensions, as in 'short_track|network', are folders.
    """
    if asset in DOCUMENTS:
        extension = DOCUMENTS[asset][0]
    else:
        extension = PARQUET if value_type(asset) is pl.DataFrame else NETCDF
    parts = (asset,) if partition is None else (asset, *partition.split("|"))
    return root.joinpath(*parts[:-1], f"{parts[-1]}{extension}")


def files_of(path: UPath, asset: str) -> tuple[UPath, ...]:
    """Return the files of a stored partition whose path is `path`."""
    return tuple(path.with_suffix(extension) for extension in DOCUMENTS.get(asset, (path.suffix,)))


def stored_partitions(folder: UPath) -> dict[str, UPath]:
    """Return the files of an asset's partitions by key, in order; none where the folder does not exist."""
    depth = len(folder.parts)
    paths = sorted([*folder.glob("[!.]*.*"), *folder.glob("*/[!.]*.*")])
    return {"|".join(path.with_suffix("").parts[depth:]): path for path in paths}


def encode(value: pl.DataFrame | xr.Dataset | xr.DataTree, checked_by: str = "") -> bytes:
    """Return the content of a value's file, with the schema version and, for NetCDF, a checksum.

    Parameters
    ----------
    value : polars.DataFrame, xarray.Dataset or xarray.DataTree
    checked_by : str
        `contracts_version()` if the value has passed its contract; else a reader checks it.
    """
    attributes = {STORED_SCHEMA: SCHEMA_VERSION, CHECKED_BY: checked_by}
    if isinstance(value, pl.DataFrame):
        buffer = io.BytesIO()
        value.write_parquet(buffer, metadata=attributes)
        return buffer.getvalue()
    stamped = value.copy(deep=False)
    stamped.attrs = {**value.attrs, **attributes}
    if isinstance(stamped, xr.DataTree):
        encoding = {node.path: _compressed(node.dataset) for node in stamped.subtree}
        return seal(bytes(stamped.to_netcdf(engine="h5netcdf", encoding=encoding)))
    return seal(bytes(stamped.to_netcdf(engine="h5netcdf", encoding=_compressed(stamped))))


def read_asset(root: UPath, asset: str, partition: str | None = None) -> Any:
    """Return the stored value of an asset's partition; errors as in `read_value`."""
    return read_value(path_of(root, asset, partition), asset, partition)


def read_value(
    path: UPath,
    asset: str,
    partition: str | None,
    archetype: str | None = None,
    left_out: Collection[str] = (),
) -> Any:
    """Return a stored value after a check of its contract; of the report and the catalogue, the content.

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
    return read_with_version(path, asset, partition, archetype, left_out)[0]


def read_with_version(
    path: UPath,
    asset: str,
    partition: str | None,
    archetype: str | None = None,
    left_out: Collection[str] = (),
) -> tuple[Any, str]:
    """Return a stored value as `read_value` does, and its data version."""
    refuse_missing(path, asset, partition)
    with _named_where_unreadable(path, asset, partition):
        if asset in DOCUMENTS:
            return _read_document(path, asset)
        data = path.read_bytes()
        version = content_version(data)
        key = (asset, version, archetype, frozenset(left_out))
        if (cached := _cache.get(key)) is not None:
            return cached, version
        value, schema_version, checked_by = _decode(data, asset, archetype, left_out)
    if schema_version != SCHEMA_VERSION:
        raise ContractError(
            f"{place(asset, partition)} is stored with schema version {schema_version}, this program "
            f"reads {SCHEMA_VERSION}: materialize it again."
        )
    is_checked = checked_by == contracts_version() and not left_out
    valid = value if is_checked else validate(value, asset, partition)
    _cache.put(key, valid)
    return valid, version


def _read_document(path: UPath, asset: str) -> tuple[bytes, str]:
    """Return the content of a document's files, which must be text but for the catalogue, and its version."""
    content = b"".join(file.read_bytes() for file in files_of(path, asset))
    if path.suffix == ".html":
        content.decode()
    return content, content_version(content)


def refuse_missing(path: UPath, asset: str, partition: str | None) -> None:
    """Raise FileNotFoundError, naming asset and partition, where there is no file."""
    if not path.exists():
        raise FileNotFoundError(f"{place(asset, partition)} has not been materialized: no {path}")


def _decode(
    data: bytes, asset: str, archetype: str | None, left_out: Collection[str]
) -> tuple[Any, str | None, str | None]:
    """Return a file's value, its schema version, and the version of the contracts that it has passed."""
    if value_type(asset) is pl.DataFrame:
        frame = pl.read_parquet(data)
        attributes = pl.read_parquet_metadata(io.BytesIO(data))
        part = frame if archetype is None else races_of(frame, archetype)
        return part, attributes.get(STORED_SCHEMA), attributes.get(CHECKED_BY)
    tree = read_netcdf(unseal(data), archetype, left_out)
    value = tree if value_type(asset) is xr.DataTree else tree.to_dataset()
    schema_version, checked_by = (value.attrs.pop(name, None) for name in (STORED_SCHEMA, CHECKED_BY))
    unstamp(value)
    return value, schema_version, checked_by


@contextlib.contextmanager
def _named_where_unreadable(path: UPath, asset: str, partition: str | None) -> Iterator[None]:
    """Name the file, its asset and its partition in the error of a file that cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders raise any type on a broken file
        raise ContractError(
            f"{place(asset, partition)} cannot be read from {path}: {' '.join(str(error).split())}"
        ) from error


def _compressed(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return the NetCDF encoding: numbers compressed, one chunk a race (or chain, or fold)."""
    return {
        str(name): COMPRESSION | ({"chunksizes": (1, *variable.shape[1:])} if variable.ndim > 2 else {})
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind in "biuf" and variable.size and variable.ndim
    }
