"""Dagster's own command line on this project: `dg check defs`, `dg list defs`, `dg launch`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from assets.definitions import build_defs
from assets.instance import DEFAULT_CONFIG
from assets.settings import load_settings
from helpers.paths import ROOT


def dg(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dg` on this project with a store and an instance in `folder`."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    shutil.copy(DEFAULT_CONFIG, home / "dagster.yaml")
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "CALIBRATION_STORE": str(folder / "store"),
        "CALIBRATION_SEASONS": "2024,2025",
    }
    program = Path(sys.executable).with_name("dg")
    done = subprocess.run(
        [program, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.server
def test_definitions_are_valid_and_listed(tmp_path: Path) -> None:
    assert "All definitions loaded successfully" in dg(tmp_path, "check", "defs").stdout
    listed = json.loads(dg(tmp_path, "list", "defs", "--json").stdout)
    keys = {asset["asset_key"] for asset in listed["assets"]}
    graph = build_defs(load_settings({"seasons": "2024,2025"})).resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} <= keys


@pytest.mark.server
def test_launch_prints_what_it_materialized(tmp_path: Path) -> None:
    printed = dg(tmp_path, "launch", "--assets", "simulated/cup/track_constraints").stderr
    assert "Materialized value simulated cup track_constraints." in printed
    assert "RUN_SUCCESS" in printed


@pytest.mark.soak
def test_launch_materializes_an_assets_partition(tmp_path: Path) -> None:
    season = "simulated/cup/lap_telemetry,simulated/cup/race_results"
    dg(tmp_path, "launch", "--assets", season, "--partition", "2025")
    stored = pl.read_parquet(tmp_path / "store" / "simulated" / "cup" / "race_results" / "2025.parquet")
    assert stored["season"].unique().to_list() == [2025]
