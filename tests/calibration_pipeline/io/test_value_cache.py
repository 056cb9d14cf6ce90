"""The cache of values: shared arrays that nobody can write to, bounded in memory."""

import numpy as np
import polars as pl
import pytest
import xarray as xr

from calibration_pipeline.io.value_cache import ValueCache


def dataset(n: int = 1000) -> xr.Dataset:
    return xr.Dataset({"a": ("x", np.zeros(n))})


def tree() -> xr.DataTree:
    return xr.DataTree.from_dict({"group": dataset()})


def frame() -> pl.DataFrame:
    return pl.DataFrame({"a": np.zeros(1000)})


@pytest.mark.parametrize("make", [dataset, tree, frame])
def test_a_cached_value_comes_back_and_shares_its_arrays(make) -> None:
    cache, value = ValueCache(), make()
    cache.put("key", value)
    found = cache.get("key")
    assert found is not None
    if isinstance(value, pl.DataFrame):
        assert found.equals(value)
    else:
        assert found is not value
        found.attrs["changed"] = True
        assert "changed" not in cache.get("key").attrs


@pytest.mark.parametrize("make", [dataset, tree])
def test_arrays_of_a_cached_value_are_read_only(make) -> None:
    cache = ValueCache()
    cache.put("key", make())
    found = cache.get("key")
    array = (found["group"] if isinstance(found, xr.DataTree) else found)["a"]
    with pytest.raises(ValueError, match="read-only"):
        array.values[0] = 1.0


def test_the_values_used_least_lately_make_room() -> None:
    cache = ValueCache(max_bytes=2 * 8000)
    for key in ("first", "second"):
        cache.put(key, dataset())
    assert cache.get("first") is not None
    cache.put("third", dataset())
    assert cache.get("second") is None
    assert cache.get("first") is not None
    assert cache.get("third") is not None


def test_a_value_larger_than_the_cache_is_not_cached() -> None:
    cache = ValueCache(max_bytes=100)
    cache.put("key", dataset())
    assert cache.get("key") is None
    assert cache.get("another") is None
