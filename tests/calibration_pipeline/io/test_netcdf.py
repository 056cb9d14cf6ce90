"""Reading stored files: the same as xarray reads them."""

import io

import numpy as np
import pytest
import xarray as xr

from calibration_pipeline.calibration.archetype_races import all_seasons
from calibration_pipeline.io.netcdf import read_netcdf

EVERYTHING = xr.Dataset(
    {
        "share": (("race", "driver"), np.array([[0.5, np.nan], [1.0, 0.0]], np.float32)),
        "running": (("race", "driver"), np.array([[True, False], [False, True]])),
        "places": (("race", "driver", "place"), np.arange(12, dtype=np.int16).reshape(2, 2, 3)),
        "laps": ("race", np.array([200, 160]), {"units_of": "laps", "limits": [1.0, 2.0]}),
        "seed": ((), np.int64(3)),
        "note": ((), "é"),
        "nothing": (("race", "none"), np.zeros((2, 0), np.float32)),
    },
    {
        "race": [7, 9],
        "fold": ("race", ["2021-1", ""]),
        "driver_id": (("race", "driver"), np.array([["4", "é"], ["5", ""]])),
        "only_here": ("place", np.array([1.5, 2.5, 3.5])),
    },
    {"schema_version": "2", "share": 0.25, "n": 3, "names": ["a", "b"], "one": [4]},
)


def written(value: xr.Dataset | xr.DataTree) -> bytes:
    return bytes(value.to_netcdf(engine="h5netcdf"))


def as_read(dataset: xr.Dataset) -> dict[str, tuple[object, ...]]:
    return {str(name): (v.dtype, v.dims, type(v.values)) for name, v in dataset.variables.items()}


def test_dataset_equals_that_of_xarray() -> None:
    """Test values, types, order, coordinates and attributes of everything that is stored."""
    content = written(EVERYTHING)
    with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as file:
        expected = file.load()
    found = read_netcdf(content).to_dataset()
    xr.testing.assert_identical(found, expected)
    assert as_read(found) == as_read(expected)
    assert list(found.variables) == list(expected.variables)
    assert {name: type(value) for name, value in found.attrs.items()} == {
        name: type(value) for name, value in expected.attrs.items()
    }


def test_tree_equals_that_of_xarray() -> None:
    """Test groups in groups, empty ones, and coordinates that a child has from its parent."""
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(coords={"race": [7, 9]}, attrs={"archetype": "short_track"}),
            "posterior": xr.Dataset({"slope": (("chain", "draw"), np.ones((2, 3)))}),
            "checks": xr.Dataset(),
            "checks/inner": xr.Dataset({"laps": ("race", [1, 2])}),
        }
    )
    content = written(tree)
    with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as file:
        expected = file.load()
    found = read_netcdf(content)
    xr.testing.assert_identical(found, expected)
    assert [node.path for node in found.subtree] == [node.path for node in expected.subtree]
    assert found["checks/inner"].to_dataset().identical(expected["checks/inner"].to_dataset())


def test_only_the_races_of_an_archetype_are_read() -> None:
    """Test that they are what picking them afterwards gives."""
    several = EVERYTHING.assign_coords(archetype=("race", ["short_track", "road_course"]))
    found = read_netcdf(written(several), "road_course").to_dataset()
    xr.testing.assert_identical(found, read_netcdf(written(several)).to_dataset().isel(race=[1]))
    assert found["laps"].values.tolist() == [160]


def test_only_an_archetype_is_read_of_each_group() -> None:
    """Test races, a dimension of archetypes, and a group without them."""
    names = ["short_track", "road_course", "short_track"]
    tree = xr.DataTree.from_dict(
        {
            "races": xr.Dataset({"slope": ("race", [1.0, 2.0, 3.0])}, {"archetype": ("race", names)}),
            "next": xr.Dataset({"slope": ("archetype", [4.0, 5.0])}, {"archetype": names[:2]}),
            "other": xr.Dataset({"slope": ("race", [6.0, 7.0])}),
        }
    )
    found = read_netcdf(written(tree), "short_track")
    values = {name: group["slope"].values.tolist() for name, group in found.children.items()}
    assert values == {"races": [1.0, 3.0], "next": [4.0], "other": [6.0, 7.0]}


def test_omitted_variables_are_not_read() -> None:
    """Test that the other variables are all there."""
    content, left_out = written(EVERYTHING), ["places", "driver_id"]
    with xr.open_dataset(io.BytesIO(content), engine="h5netcdf", drop_variables=left_out) as file:
        xr.testing.assert_identical(read_netcdf(content, left_out=left_out).to_dataset(), file.load())


@pytest.mark.parametrize("content", [b"", b"no file", written(EVERYTHING)[:1000]])
def test_bytes_that_are_no_netcdf_are_refused(content: bytes) -> None:
    """Test that nothing, something else and half a file are errors and not values."""
    with pytest.raises(OSError, match="NetCDF"):
        read_netcdf(content)


@pytest.mark.parametrize("seasons", [[2022], [2022, 2023]])
def test_seasons_of_an_archetype_survive_storage(seasons: list[int]) -> None:
    """NetCDF returns an attribute of length one as a scalar; a single season stays a list."""
    races = xr.DataTree()
    races.attrs = {"seasons": np.array(seasons)}
    stored = read_netcdf(bytes(races.to_netcdf(engine="h5netcdf")))
    assert all_seasons(stored) == seasons
