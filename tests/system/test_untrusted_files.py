"""Hostile files: no path from a file is written, and the unpacked size is bounded."""

import gzip
import json
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
import xarray as xr

from calibration_pipeline.forecasters.folder import ForecasterFiles
from calibration_pipeline.forecasters.season_scenarios import read_season_scenarios
from calibration_pipeline.io import netcdf_probe
from calibration_pipeline.io.netcdf_probe import refuse_unreadable
from calibration_pipeline.sources import SourceError
from calibration_pipeline.sources.base import MissingDocumentError
from calibration_pipeline.sources.nascar_feed.reader import FeedReader
from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.sources.web import WebLimits
from calibration_pipeline.tracks import compile_constraints
from helpers.example_ensembles import entry_list, netcdf, parquet

RACES = "2021/race_list_basic.json"
HOSTILE_NAMES = (
    "../../escaped.json",
    "/tmp/absolute.json",  # noqa: S108
    "2021/../../escaped.json",
    "2021/1/..\\..\\escaped.json",
    "C:/escaped.json",
    "2022/" + "a" * 5000,
    "2023/\x00null",
    "20é4/ünïcode.json",
)


def read_own(path: Path) -> xr.Dataset:
    return read_season_scenarios(
        ForecasterFiles(path.name, (str(path),)), entry_list(), None, fold_races=None, seed=1
    )[0]


def archive(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_names_in_a_zip_are_looked_up_and_never_unpacked(tmp_path: Path) -> None:
    members = {RACES: b'{"series_1": []}'} | dict.fromkeys(HOSTILE_NAMES, b"{}")
    folder = tmp_path / "inner"
    folder.mkdir()
    path = archive(folder / "feed.zip", members)
    before = sorted(tmp_path.rglob("*"))
    source = NascarFeedSource(str(path), compile_constraints())
    assert {2021, 2022, 2023} <= set(source.seasons)
    assert source.finished_races(2021) == {}
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/absolute.json").exists()  # noqa: S108


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    link = zipfile.ZipInfo(RACES)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    secret = tmp_path / "secret.json"
    secret.write_text('{"series_1": []}')
    with zipfile.ZipFile(tmp_path / "feed.zip", "w") as file:
        file.writestr(link, str(secret))
    with pytest.raises(SourceError, match="is not valid JSON"):
        FeedReader(str(tmp_path / "feed.zip")).read_json(RACES)


def test_documents_name_no_paths(tmp_path: Path) -> None:
    """Paths contain numbers only: no text of a document becomes a path."""
    race = {
        "race_id": "../../../secret",
        "race_season": 2021,
        "race_type_id": 1,
        "race_name": "x",
        "race_date": "2021-02-01",
    }
    (tmp_path / "2021").mkdir()
    (tmp_path / RACES).write_text(json.dumps({"series_1": [race]}))
    (tmp_path / "secret").write_text("{}")
    source = NascarFeedSource(str(tmp_path), compile_constraints())
    assert source.finished_races(2021) == {}
    (row,) = source.load_season(2021).quarantine.rows(named=True)
    assert (row["entity"], row["consequence"]) == ("race", "left out")
    assert "race_id: Input should be a valid integer" in row["rule"]


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_unpacked_no_further_than_the_limit(tmp_path: Path, kind: int) -> None:
    path = archive(tmp_path / "feed.zip", {RACES: b" " * 30_000_000}, kind)
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceError, match="is too large: the limit is 1,000,000 bytes"):
        FeedReader(str(path), limits=WebLimits(max_bytes=1_000_000)).read_json(RACES)


def test_an_entry_that_lies_about_its_size_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "feed.zip", {RACES: b'{"series_1": []}' * 100})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SourceError):
        FeedReader(str(path)).read_json(RACES)
    with pytest.raises(MissingDocumentError):
        FeedReader(str(path)).read_json("2020/race_list_basic.json")


def test_a_table_of_commas_is_refused_before_it_takes_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibration_pipeline.sources.tables.reader.MAX_CELLS", 100_000)
    header = b",".join(b"c%d" % i for i in range(900)) + b"\n"
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(header + b"\n" * 1_000))
    with pytest.raises(SourceError, match="at most 50,000,000 rows and 100,000 cells"):
        _ = TableFile(str(bomb)).schema
    bomb.write_bytes(gzip.compress(b"," * 100_000))
    with pytest.raises(SourceError, match="at most 1,000 columns"):
        _ = TableFile(str(bomb)).schema
    few = pl.DataFrame({"a": np.zeros(60_000, np.int8), "b": np.zeros(60_000, np.int8)})
    few.write_parquet(tmp_path / "bomb.parquet")
    assert TableFile(str(tmp_path / "bomb.parquet")).read(["a"]).height == 60_000
    with pytest.raises(SourceError, match="at most 100,000 cells at a time"):
        TableFile(str(tmp_path / "bomb.parquet")).read(["a", "b"])


def test_a_gzip_bomb_is_unpacked_no_further_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibration_pipeline.sources.tables.reader.MAX_BYTES", 3_000_000)
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"0" * 30_000_000))
    with pytest.raises(SourceError, match="at most 3,000,000 bytes"):
        _ = TableFile(str(bomb)).schema


def test_a_text_of_megabytes_is_refused(tmp_path: Path) -> None:
    """A few bytes of Parquet can repeat a long text in every row."""
    table = pl.DataFrame(
        {
            "season": 2024,
            "round": 1,
            "track": "daytona",
            "driver": ["A", "B" * 2_000_000],
            "start_position": [1, 2],
            "finish_position": [1, 2],
            "laps_completed": 200,
        }
    )
    table.write_parquet(tmp_path / "mine.parquet")
    with pytest.raises(SourceError, match="column driver must hold texts of at most 1000 bytes"):
        TablesSource(str(tmp_path / "mine.parquet"), None, compile_constraints()).load_season(2024)


def test_netcdf_that_claims_more_than_there_can_be_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.nc"
    with h5py.File(path, "w") as file:
        dims = {"race": 10**9, "scenario": 10**6, "driver": 40}
        for name, size in dims.items():
            scale = file.create_dataset(name, shape=(size,), dtype="i8", chunks=(40,))
            scale.make_scale(name)
        finish = file.create_dataset(
            "finish_position", shape=tuple(dims.values()), dtype="i4", chunks=(1, 100, 40)
        )
        for axis, name in enumerate(dims):
            finish.dims[axis].attach_scale(file[name])
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ValueError, match=r"huge\.nc cannot be read as NetCDF 4: MemoryError"):
        read_own(path)
    many = netcdf({202101: 2}, n_scenarios=1).drop_vars("race").isel(race=[0] * 10_001)
    many.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"huge\.nc must have at most 10,000 races"):
        read_own(path)


@pytest.mark.slow
def test_a_file_at_which_the_reader_hangs_or_dies_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process in which files are tried is stood for by one that sleeps, and one that is killed."""
    path = tmp_path / "mine.nc"
    netcdf().to_netcdf(path, engine="h5netcdf")
    run = subprocess.run

    def stand_in(code: str) -> None:
        def runs(_command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
            return run([sys.executable, "-c", code], **options)  # type: ignore[call-overload, no-any-return]

        monkeypatch.setattr(netcdf_probe.subprocess, "run", runs)

    with path.open("rb") as file:
        refuse_unreadable([file], ["mine.nc"])
        stand_in("import time; print('read', flush=True); time.sleep(60)")
        with pytest.raises(
            ValueError, match=r"second\.nc cannot be read as NetCDF 4: that takes more than 2 s"
        ):
            refuse_unreadable([file, file], ["mine.nc", "second.nc"], wall_s=2)
        stand_in("import os; os.kill(os.getpid(), 11)")
        with pytest.raises(ValueError, match=r"mine\.nc cannot .*: its reader ended with exit code -11"):
            refuse_unreadable([file], ["mine.nc"])


def test_a_damaged_netcdf_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.nc"
    netcdf().to_netcdf(path, engine="h5netcdf")
    whole = path.read_bytes()
    read_own(path)
    of_its_size = whole[:200] + bytes(len(whole) - 200)
    for damaged in (
        b"",
        whole[:100],
        whole[: len(whole) // 2],
        b"\x89HDF\r\n\x1a\n" + bytes(500),
        of_its_size,
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"mine\.nc cannot be read as NetCDF 4: \w+Error") as refusal:
            read_own(path)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pl.lit(None, pl.Int64).alias("round"), "no race of it is in force; it holds no race by whole"),
        (pl.lit(2**63, pl.UInt64).alias("season"), "no race of it is in force"),
        (pl.lit(None, pl.Int64).alias("scenario"), "no race of it is in force; it holds no race by whole"),
    ],
)
def test_columns_of_scenarios_that_hold_no_usable_integers_are_named(
    tmp_path: Path, column: pl.Expr, problem: str
) -> None:
    """Findings of a fuzzer: each ended in an error or a warning of polars."""
    parquet({202101: 36}).with_columns(column).write_parquet(tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match=rf"mine\.parquet.*{problem}"):
        read_own(tmp_path / "mine.parquet")


def test_scenarios_may_have_integers_of_any_width(tmp_path: Path) -> None:
    rows = parquet({202101: 36, 202102: 43, 202103: 38})
    rows.with_columns(pl.col("scenario").cast(pl.Int128)).write_parquet(tmp_path / "mine.parquet")
    assert read_own(tmp_path / "mine.parquet").sizes == {"race": 3, "scenario": 120, "driver": 43}


def test_many_copies_of_a_car_are_counted_quickly(tmp_path: Path) -> None:
    """Labels that stand twice were counted once for each of them, which took hours for a million."""
    n = 50_000
    wide = netcdf({202101: 36}, n_scenarios=1)
    finish = np.ones((1, 1, n), np.int32)
    labels = np.full((1, n), "d00")
    many = wide.drop_dims("driver").assign(
        finish_position=(("race", "scenario", "driver"), finish), driver_id=(("race", "driver"), labels)
    )
    many.to_netcdf(tmp_path / "mine.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="a driver occurs twice, got d00"):
        read_own(tmp_path / "mine.nc")
