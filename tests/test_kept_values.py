"""Kept values: what was read a moment ago is not decoded again, is never stale, and nobody changes it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from test_storage import LAPS, ensemble
from upath import UPath

from assets import storage
from assets.kept_values import KeptValues
from assets.storage import NetCDFIOManager, ParquetIOManager


class Counting(NetCDFIOManager):
    """Counts what it decodes."""

    decoded = 0

    def deserialise(self, *arguments: object) -> tuple[xr.Dataset | xr.DataTree, str | None]:
        self.decoded += 1
        return super().deserialise(*arguments)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_kept", KeptValues())


def stored(folder: Path, value: xr.Dataset) -> UPath:
    path = UPath(folder / "2021.nc")
    path.write_bytes(NetCDFIOManager().serialise(value))
    return path


def test_a_file_is_decoded_once_and_anew_when_its_content_is_another(tmp_path: Path) -> None:
    manager = Counting()
    path = stored(tmp_path, ensemble(1))
    first, again = (manager.read(path, "scenario_ensemble", "2021") for _ in range(2))
    assert manager.decoded == 1
    xr.testing.assert_identical(first, again)
    stored(tmp_path, ensemble(2))
    assert manager.read(path, "scenario_ensemble", "2021").sizes["race"] == 2
    assert manager.decoded == 2


def test_what_one_reader_does_to_a_value_the_next_does_not_see(tmp_path: Path) -> None:
    path = stored(tmp_path, ensemble())
    manager = Counting()
    for _ in range(2):
        value = manager.read(path, "scenario_ensemble", "2021")
        assert "mine" not in value.attrs
        assert "mine" not in value.coords
        value.attrs["mine"] = value.coords["mine"] = 1
        with pytest.raises(ValueError, match="read-only"):
            value["laps_led"].values[:] = 0
    assert manager.decoded == 1


def test_what_leaves_something_out_is_a_value_of_its_own(tmp_path: Path) -> None:
    """Its contract is checked, which the whole one fulfils: what it needs cannot be left out."""
    path = stored(tmp_path, ensemble())
    manager = Counting()
    for _ in range(2):
        without = manager.read(path, "scenario_ensemble", "2021", left_out=["race_laps", "green_laps"])
        assert "race_laps" not in without
        assert "race_laps" in manager.read(path, "scenario_ensemble", "2021")
    assert manager.decoded == 2
    with pytest.raises(storage.ContractError, match="utility"):
        manager.read(path, "scenario_ensemble", "2021", left_out=["utility"])


def test_an_archetype_s_races_are_not_those_of_all(tmp_path: Path) -> None:
    races = ensemble(2).assign_coords(archetype=("race", ["intermediate", "superspeedway"]))
    path = stored(tmp_path, races)
    assert Counting().read(path, "scenario_ensemble", "2021").sizes["race"] == 2
    for archetype in ("intermediate", "superspeedway"):
        own = Counting().read(path, "scenario_ensemble", "2021", archetype)
        assert own["archetype"].values.tolist() == [archetype]


def test_no_more_is_kept_than_fits_and_what_was_asked_for_least_lately_goes() -> None:
    def value(n: int) -> xr.Dataset:
        return xr.Dataset({"x": ("i", np.zeros(n, np.uint8))})

    kept = KeptValues(limit=100)
    kept.keep(value(60), "a", "1", None, ())
    kept.keep(value(40), "b", "1", None, ())
    assert kept.find("a", "1", None, ()) is not None
    kept.keep(value(30), "c", "1", None, ())
    assert kept.find("b", "1", None, ()) is None
    assert kept.find("a", "1", None, ()) is not None
    kept.keep(value(101), "d", "1", None, ())
    assert kept.find("d", "1", None, ()) is None
    assert kept.find("c", "1", None, ()) is not None


def test_trees_and_frames_are_kept_too(tmp_path: Path) -> None:
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), "/posterior": xr.Dataset({"x": ("i", np.zeros(3))})})
    kept = KeptValues()
    kept.keep(tree, "calibration_posterior", "1", None, ())
    found = kept.find("calibration_posterior", "1", None, ())
    xr.testing.assert_identical(found, tree)
    assert not found["posterior/x"].values.flags.writeable

    path = UPath(tmp_path / "2021.parquet")
    path.write_bytes(ParquetIOManager().serialise(LAPS))
    first, again = (ParquetIOManager().read(path, "lap_telemetry", "2021") for _ in range(2))
    assert first is again
    assert isinstance(first, pl.DataFrame)


def test_a_value_that_breaks_its_contract_is_not_kept(tmp_path: Path) -> None:
    path = stored(tmp_path, ensemble().drop_vars("finish_position"))
    manager = Counting()
    for _ in range(2):
        with pytest.raises(storage.ContractError, match="finish_position"):
            manager.read(path, "scenario_ensemble", "2021")
    assert manager.decoded == 2
