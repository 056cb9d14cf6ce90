"""Reading stored NetCDF files, straight from memory.

They are written with h5netcdf, which can write to memory, and read with netCDF4, which takes a fraction of
the time: h5netcdf looks every variable's shape and dimensions up again at each of many steps.
"""

import threading
from collections.abc import Collection, Iterator, Mapping

import netCDF4
import xarray as xr
from xarray.backends import NetCDF4DataStore

from calibration_pipeline.schemas.datasets import races_of

STAMP = ("project_version", "library_versions", "settings", "tracks_hash", "code_version")
"""The attributes. They are no part of a value: who reads it does not see them."""

_one_at_a_time = threading.Lock()
"""The C library is not safe for threads, even of different files."""


def read_netcdf(content: bytes, archetype: str | None = None, left_out: Collection[str] = ()) -> xr.DataTree:
    """Return what a NetCDF 4 file holds, fully loaded.

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
        If it is no NetCDF file, or half of one.
    """
    with _one_at_a_time, netCDF4.Dataset("in memory", memory=content) as file:
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
    """Return `value` with attributes of `STAMP`."""
    copy = value.copy(deep=False)
    copy.attrs = {**value.attrs, **attributes}
    return copy


def unstamp(value: xr.Dataset | xr.DataTree) -> None:
    """Take the attributes of `STAMP` off."""
    for name in STAMP:
        value.attrs.pop(name, None)
