"""Records of materializations: which change makes a partition outdated, and its message."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from upath import UPath

from calibration_pipeline.analysis.records import Record, file_fault, outdated_reason, source_change
from calibration_pipeline.sources.news import News

INPUTS = {"race_results [2024]": "a", "race_results [2025]": "b"}
SETTINGS = {"seed": 42, "source": {"first_season": 2024, "seed": 42}}
RECORD = Record(7, "sha", "3", "1", INPUTS, SETTINGS, "v1")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"code_version": "2"}, "x was materialized by another version of its code"),
        ({"settings": {"seed": 7}}, "x was materialized with other settings: seed was 42, is 7"),
        (
            {"settings": {"source": {"first_season": 2023}, "eras": [2018, 2022]}},
            "x was materialized with other settings: first_season was 2024, is 2023, "
            "eras was not set, is 2018, 2022",
        ),
        ({"inputs": INPUTS | {"race_results [2025]": "c"}}, "x read another version of race_results [2025]"),
        ({"inputs": INPUTS | {"race_results [2025]": None}}, None),
        ({"inputs": {}}, "x read another version of race_results [2024], race_results [2025]"),
        ({"inputs": {}, "except_for": list(INPUTS)}, None),
        (
            {"inputs": INPUTS | {f"y [{name}]": "new" for name in "abcde"}},
            "x read another version of y [a], y [b], y [c] and 2 more",
        ),
    ],
)
def test_each_change_is_named(changed: dict[str, Any], reason: str | None) -> None:
    present = {"code_version": "1", "settings": SETTINGS, "inputs": INPUTS} | changed
    assert outdated_reason("x", RECORD, **present) == reason


def test_only_a_change_of_the_source_is_news() -> None:
    missing = {202502: "2025 race 2 (phoenix)"}
    assert source_change("x", RECORD, News("v1", missing)) is None
    assert source_change("x", RECORD, News("v2", missing)) == "x lacks 2025 race 2 (phoenix)"
    assert source_change("x", RECORD, News("v2", {})) == "x was read before the source changed"
    assert source_change("x", None, News("v2", {})) is None


def test_a_missing_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    path = UPath(tmp_path / "leaderboard.parquet")
    assert file_fault(path, "leaderboard", None, RECORD) == "leaderboard is missing"
    pl.DataFrame({"a": [1]}).write_parquet(str(path))
    assert "leaderboard" in str(file_fault(path, "leaderboard", None, None))
