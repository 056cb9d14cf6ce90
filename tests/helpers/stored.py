"""Stored files in tests: their content, ways to spoil them, and whether two stores hold the same values."""

import io
from pathlib import Path

import duckdb
import numpy as np
import xarray as xr
from upath import UPath

from calibration_pipeline.io.stored_files import content_version


def content(folder: Path) -> dict[str, str]:
    """Return the version of every file but the catalogue: DuckDB never writes the same views alike."""
    return {
        str(path.relative_to(folder)): content_version(path.read_bytes())
        for path in folder.rglob("*.*")
        if path.is_file() and path.suffix != ".duckdb"
    }


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 64]) + data[middle + 64 :]


def empty(_data: bytes) -> bytes:
    return b""


def assert_same_values(there: UPath | Path, here: Path) -> None:
    """Tables and reports are the same to the bit, arrays to 1e-6; the catalogue has the same views."""
    expected = {str(path.relative_to(here)) for path in here.rglob("*.*")}
    found = {str(path.relative_to(there)) for path in there.rglob("*.*") if path.is_file()}
    assert expected == found
    assert expected
    for name in sorted(expected):
        mine, theirs = (here / name).read_bytes(), (there / name).read_bytes()
        if name.endswith(".nc"):
            _assert_same_arrays(mine, theirs)
        elif name.endswith(".duckdb"):
            assert views(here / name) == views(Path(str(there / name)))
        else:
            assert mine == theirs, name


def views(catalogue: Path) -> list[str]:
    """Return the views of a catalogue."""
    with duckdb.connect(catalogue, read_only=True) as connection:
        return [name for (name,) in connection.execute("SHOW TABLES").fetchall()]


def _assert_same_arrays(mine: bytes, theirs: bytes) -> None:
    groups = [xr.open_datatree(io.BytesIO(data), engine="h5netcdf").load() for data in (mine, theirs)]
    assert {node.path for node in groups[0].subtree} == {node.path for node in groups[1].subtree}
    for node in groups[0].subtree:
        other = groups[1][node.path]
        assert set(node.variables) == set(other.variables)
        for variable, values in node.variables.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values, other[variable], rtol=0, atol=1e-6, err_msg=str(variable))
            else:
                np.testing.assert_array_equal(values, other[variable], err_msg=str(variable))
