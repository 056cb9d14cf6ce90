"""Equal settings give equal files to the bit, in any process and at any time; files record their origin."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
import xarray as xr

from calibration_pipeline.analysis.provenance import LIBRARIES
from calibration_pipeline.io.netcdf import STAMP
from calibration_pipeline.tracks import compile_constraints
from helpers.clusters import command

WHOLE = ["run", "--seasons", "2024,2025", "--scenarios", "100"]
SMALL = ["run", "--seasons", "2025", "--select", "+driver_features,simulated_truth"]


def stored_twice(folder: Path, arguments: list[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Run in two fresh processes, each with a hash seed, a store and an instance of its own."""
    first, second = (
        stored(
            folder / seed,
            arguments,
            {
                "PYTHONHASHSEED": seed,
                "CALIBRATION_STORE": str(folder / seed / "store"),
                "DAGSTER_HOME": str(folder / seed / "home"),
            },
        )
        for seed in ("1", "2")
    )
    return first, second


def stored(folder: Path, arguments: list[str], env: Mapping[str, str]) -> dict[str, bytes]:
    command(arguments, env)
    store = folder / "store" / "simulated" / "cup"
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.*"))}


def different(first: Mapping[str, bytes], second: Mapping[str, bytes]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if first[name] != second[name]]


@pytest.mark.soak
def test_two_fresh_processes_store_the_same_files_to_the_bit(tmp_path: Path) -> None:
    """All that a run makes, fits included. The catalogue's views alone hold the store's own path."""
    first, second = stored_twice(tmp_path, WHOLE)
    assert different(first, second) == ["catalogue.duckdb"]
    assert len(first) > 50


@pytest.mark.soak
def test_arrays_record_settings_and_versions_and_not_time_or_place(tmp_path: Path) -> None:
    first, second = stored_twice(tmp_path, SMALL)
    assert different(first, second) == []
    with xr.open_dataset(
        tmp_path / "1" / "store" / "simulated" / "cup" / "simulated_truth" / "2025.nc"
    ) as file:
        recorded = {name: file.attrs[name] for name in STAMP}
    settings = {"fold_races": None, "network": "full", "scenarios": 2000, "seed": 42}
    settings |= {"series": "cup", "source": "simulated"}
    assert json.loads(recorded.pop("settings")) == settings
    assert recorded == {
        "project_version": version("calibration-pipeline"),
        "library_versions": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "tracks_hash": compile_constraints().content_hash,
        "code_version": "1",
    }
