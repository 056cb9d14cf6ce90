"""Paths of addresses: what others write to an object store is seen."""

from pathlib import Path

import pytest
from upath import UPath

from calibration_pipeline.io.addresses import fresh_path
from helpers.clusters import BUCKET, object_store


@pytest.mark.server
def test_a_file_that_another_process_wrote_after_a_listing_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store(tmp_path) as reach:
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
        others = UPath(f"s3://{BUCKET}/store", skip_instance_cache=True)  # as another process has it
        others.joinpath("season", "2024.nc").write_bytes(b"1")
        mine = fresh_path(f"s3://{BUCKET}/store")
        assert [path.name for path in mine.rglob("*.nc")] == ["2024.nc"]
        others.joinpath("season", "2025.nc").write_bytes(b"2")
        assert mine.joinpath("season", "2025.nc").exists()
        assert mine.joinpath("season", "2025.nc").read_bytes() == b"2"
        assert sorted(path.name for path in mine.joinpath("season").iterdir()) == ["2024.nc", "2025.nc"]


def test_a_local_path_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert fresh_path(str(tmp_path / "a")).read_text() == "x"
    assert fresh_path(f"file://{tmp_path}/a").read_text() == "x"
