"""Runs by the command line into a folder of their own, and copies of what they left."""

import shutil
from pathlib import Path

import pytest

from assets.cli import main

SMALL = ["run", "--seasons", "2024,2025", "--select", "+driver_features,simulated_truth"]
"""Two seasons, their features and their truth."""


def make(folder: Path, command: list[str]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        point_at(folder, patch)
        assert main(command) == 0
    return folder


def point_at(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for module in ("settings", "instance", "resources"):
        patch.setattr(f"assets.{module}.project_folder", lambda: folder)
    patch.setenv("CALIBRATION_EXECUTOR", "in_process")  # worker processes know of no patch
    patch.setenv("CALIBRATION_STORE", str(folder / "data" / "store"))
    patch.setenv("DAGSTER_HOME", str(folder / "home"))


def copied(made: Path, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, folder, dirs_exist_ok=True)
    point_at(folder, patch)
    return folder / "data" / "store" / "simulated" / "cup"
