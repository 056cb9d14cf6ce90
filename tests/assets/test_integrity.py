"""`verify` names every file that differs from its record, names no other file, and changes nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

from assets.cli import main
from calibration_pipeline.io.stored_values import SCHEMA_VERSION
from helpers.clusters import BUCKET, command, object_store, start
from helpers.stored import content
from helpers.stored_runs import SMALL, copied

pytestmark = pytest.mark.slow
VERIFY = ["verify", "--seasons", "2024,2025"]


@pytest.fixture
def store(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the store of a copy of it all, at which settings and instance point."""
    return copied(small_run, tmp_path, monkeypatch)


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return the exit code, and the lines of what differs."""
    capsys.readouterr()
    code = main(VERIFY)
    lines = capsys.readouterr().out.splitlines()
    return code, [line.removeprefix("  ! ") for line in lines if line.startswith("  ! ")]


def test_where_all_is_well_nothing_differs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(VERIFY) == 0
    assert f"13 files in {store}: all as recorded." in capsys.readouterr().out


def delete(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def age(path: Path) -> None:
    pl.read_parquet(path).write_parquet(path, metadata={"schema_version": "1"})


def change(path: Path) -> None:
    pl.read_parquet(path).reverse().write_parquet(path, metadata={"schema_version": SCHEMA_VERSION})


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("race_results/2024.parquet", delete, "race_results [2024] is missing"),
        ("track_constraints.parquet", delete, "track_constraints is missing"),
        ("race_results/2024.parquet", damage, "race_results [2024] cannot be read from"),
        ("simulated_truth/2025.nc", damage, "simulated_truth [2025] cannot be read from"),
        ("lap_aggregates/2024.parquet", age, "lap_aggregates [2024] is stored with schema version 1"),
        ("race_results/2025.parquet", change, "race_results [2025] is not what was stored"),
    ],
)
def test_a_file_that_is_not_as_recorded_is_named_alone_and_left_as_it_is(
    store: Path, capsys: pytest.CaptureFixture[str], name: str, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(store / name)
    before = content(store)
    code, (line,) = verified(capsys)
    assert code == 1
    assert line.startswith(message)
    assert content(store) == before


def test_a_deleted_season_that_is_no_longer_wanted_is_not_missing(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No update would bring it back."""
    for path in (*store.glob("*/2024.*"), *store.glob("*/*/2024.*")):
        path.unlink()
    assert len(verified(capsys)[1]) > 0
    main(["verify", "--seasons", "2025"])
    assert "is missing" not in capsys.readouterr().out


def test_unrecorded_and_leftover_files_are_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(store / "race_results" / "2025.parquet", store / "race_results" / "2023.parquet")
    (store / "notes.txt").touch()
    leftover = store / "race_results" / f".2024.parquet.{'0' * 32}.tmp"
    leftover.touch()
    code, lines = verified(capsys)
    assert code == 1
    assert sorted(lines) == sorted(
        [
            "race_results [2023] is recorded by no run",
            f"{store / 'notes.txt'} is of no asset",
            f"{leftover} is left over from a run that was killed, or is being written",
        ]
    )


def test_an_instance_without_records_vouches_for_nothing(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "another_home"))
    code, lines = verified(capsys)
    assert code == 1
    assert len(lines) == len(content(store))
    assert all(line.endswith("is recorded by no run") for line in lines)


def test_sources_share_an_instance_and_not_their_records(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another source's season of the same year is another file; the update does not mix them up either."""
    table = store.parent / "mine.csv"
    columns = "season,round,track,driver,start_position,finish_position,laps_completed"
    table.write_text(f"{columns}\n2024,1,daytona,A,1,1,200\n2024,1,daytona,B,2,2,200\n")
    tables = ["--source", "tables", "--results", str(table), "--seasons", "2024"]
    assert main(["run", *tables, "--select", "race_results"]) == 0
    assert verified(capsys) == (0, [])
    assert main(["verify", *tables]) == 0
    before = content(store)
    assert main([*SMALL, "--update"]) == 0
    assert "Everything is there" in capsys.readouterr().out
    assert content(store) == before


def test_an_empty_store_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(VERIFY) == 1
    assert "calibration-pipeline run fills it" in capsys.readouterr().err


@pytest.mark.soak
def test_an_object_store_is_verified_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    with object_store(tmp_path) as reach:
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
        env = {**reach, "DAGSTER_HOME": str(home), "CALIBRATION_STORE": f"s3://{BUCKET}/mine"}
        command(SMALL, env)
        assert "13 files in s3://calibration/mine/simulated/cup: all as recorded." in command(VERIFY, env)
        spoilt = UPath(f"s3://{BUCKET}/mine/simulated/cup/race_results/2024.parquet")
        spoilt.write_bytes(spoilt.read_bytes()[:200])
        UPath(f"s3://{BUCKET}/mine/simulated/cup/notes.txt").write_bytes(b"")
        run = start(VERIFY, env)
        out, _ = run.communicate(timeout=120)
    assert run.returncode == 1, out
    assert "race_results [2024] cannot be read from" in out
    assert "s3://calibration/mine/simulated/cup/notes.txt is of no asset" in out
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in out
