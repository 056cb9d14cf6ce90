"""Stored NetCDF files, read from memory.

The files are written with h5netcdf, which can write to memory. They are read with netCDF4, which takes a
fraction of the time: h5netcdf looks up every variable's shape and dimensions at each of many steps.
"""

import threading
from collections.abc import Collection, Iterator, Mapping

import netCDF4
import xarray as xr
from xarray.backends import NetCDF4DataStore

from calibration_pipeline.schemas.datasets import races_of

STAMP = ("project_version", "library_versions", "settings", "tracks_hash", "code_version")
"""Attributes on the origin of a file. They are not part of the value, and `unstamp` removes them."""

_lock = threading.Lock()
"""The C library is not thread-safe, even for different files."""


def read_netcdf(content: bytes, archetype: str | None = None, left_out: Collection[str] = ()) -> xr.DataTree:
    """Return the content of a NetCDF 4 file, fully loaded.

    Parameters
    ----------
    content : bytes
        The whole file.
    archetype : str, optional
        Read only the races of this archetype.
    left_out : collection of str
        Variables that are not read.

    Raises
    ------
    OSError
        If `content` is not a whole NetCDF file.
    """
    with _lock, netCDF4.Dataset("in memory", memory=content) as file:
        groups = {group.path: _loaded(group, archetype, left_out) for group in _with_descendants(file)}
    return xr.DataTree.from_dict(groups)


def _with_descendants(group: netCDF4.Dataset | netCDF4.Group) -> Iterator[netCDF4.Dataset | netCDF4.Group]:
    yield group
    for child in group.groups.values():
        yield from _with_descendants(child)


def _loaded(
    group: netCDF4.Dataset | netCDF4.Group, archetype: str | None, left_out: Collection[str]
) -> xr.Dataset:
    dataset = xr.open_dataset(NetCDF4DataStore(group), drop_variables=left_out)
    if archetype is not None:
        dataset = races_of(dataset, archetype)
    return dataset.load().drop_encoding()


def stamped(value: xr.Dataset | xr.DataTree, attributes: Mapping[str, str]) -> xr.Dataset | xr.DataTree:
    """Return a shallow copy of `value` with further attributes, those of `STAMP`."""
    copy = value.copy(deep=False)
    copy.attrs = {**value.attrs, **attributes}
    return copy


def unstamp(value: xr.Dataset | xr.DataTree) -> None:
    """Remove the attributes of `STAMP`, in place."""
    for name in STAMP:
        value.attrs.pop(name, None)
