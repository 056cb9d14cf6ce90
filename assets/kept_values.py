"""Stored values that this process read a moment ago: they are asked for again, by what is made next.

A value is found by the content of its file, so that none is ever stale. Its arrays cannot be written to.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import polars as pl
import xarray as xr

KEPT_BYTES = 256 * 2**20


class KeptValues:
    """The values read last, as many as fit.

    Parameters
    ----------
    limit : int
        Most bytes of all values together. A larger value is not kept.
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._values: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()

    def find(self, asset: str, version: str, archetype: str | None, left_out: Collection[str]) -> Any | None:
        """Return the value; None where it is not kept.

        Parameters
        ----------
        asset : str
            Under whose contract it was read.
        version : str
            Data version of the file.
        archetype : str or None
            Whose races alone it holds.
        left_out : collection of str
            Variables that it does not hold.
        """
        key = (asset, version, archetype, frozenset(left_out))
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return _copy(self._values[key][0])

    def keep(
        self, value: Any, asset: str, version: str, archetype: str | None, left_out: Collection[str]
    ) -> None:
        """Keep a value that was read, in place of those asked for least lately; its arrays are closed.

        Parameters
        ----------
        value : polars.DataFrame, xarray.Dataset or xarray.DataTree
        asset, version, archetype, left_out
            As in `find`.
        """
        size = _close(value)
        if size > self.limit:
            return
        self._values[asset, version, archetype, frozenset(left_out)] = _copy(value), size
        while sum(size for _, size in self._values.values()) > self.limit:
            self._values.popitem(last=False)


def _copy(value: Any) -> Any:
    """Return a value that shares its arrays, and nothing else."""
    return value.copy(deep=False) if isinstance(value, xr.Dataset | xr.DataTree) else value


def _close(value: pl.DataFrame | xr.Dataset | xr.DataTree) -> int:
    """Let nobody write to the arrays of a value, and return their bytes."""
    if isinstance(value, pl.DataFrame):
        return int(value.estimated_size())
    nodes = [node.dataset for node in value.subtree] if isinstance(value, xr.DataTree) else [value]
    for node in nodes:
        for variable in node.variables.values():
            variable.values.flags.writeable = False
    return sum(node.nbytes for node in nodes)
