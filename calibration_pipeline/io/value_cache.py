"""In-process LRU cache of asset values, keyed by file hash."""

from collections.abc import Hashable
from typing import Any

import polars as pl
import xarray as xr
from cachetools import LRUCache

MAX_BYTES = 128 * 2**20


class ValueCache:
    """LRU cache of asset values. Arrays of a cached value are read-only.

    Parameters
    ----------
    max_bytes : int
        Bytes of all values together. A larger value is not cached.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._values: LRUCache = LRUCache(max_bytes, getsizeof=_n_bytes)

    def get(self, key: Hashable) -> Any | None:
        """Return a value that shares its arrays with the cached one; None where it is not cached."""
        return _shallow_copy(self._values.get(key))

    def put(self, key: Hashable, value: Any) -> None:
        """Cache a value, and make its arrays read-only."""
        _make_read_only(value)
        if _n_bytes(value) <= self._values.maxsize:
            self._values[key] = _shallow_copy(value)


def _shallow_copy(value: Any) -> Any:
    return value.copy(deep=False) if isinstance(value, xr.Dataset | xr.DataTree) else value


def _datasets(value: xr.Dataset | xr.DataTree) -> list[Any]:
    return [node.dataset for node in value.subtree] if isinstance(value, xr.DataTree) else [value]


def _make_read_only(value: Any) -> None:
    if not isinstance(value, pl.DataFrame):
        for dataset in _datasets(value):
            for variable in dataset.variables.values():
                variable.values.flags.writeable = False


def _n_bytes(value: Any) -> int:
    if isinstance(value, pl.DataFrame):
        return int(value.estimated_size())
    return sum(dataset.nbytes for dataset in _datasets(value))
