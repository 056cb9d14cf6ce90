"""Writing files: whole or not at all, and a disk that is full or cannot be written is named."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

from calibration_pipeline.io import files, stored_files
from calibration_pipeline.io.stored_values import encode
from calibration_pipeline.sources.nascar_feed.cache import FeedCache, KeptDocument

WRITERS: dict[str, Callable[[Path, bytes], None]] = {
    "library": files.write_atomically,
    "store": lambda path, content: stored_files.write_atomically(UPath(path), content),
    "store, as an address": lambda path, content: stored_files.write_atomically(
        UPath(f"file://{path}"), content
    ),
}
MIB = 2**20


@pytest.fixture(params=list(WRITERS))
def write(request: pytest.FixtureRequest) -> Callable[[Path, bytes], None]:
    return WRITERS[request.param]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of one MiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MIB}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


def test_content_is_replaced_and_folders_are_created(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    target = tmp_path / "a" / "b" / "c.json"
    write(target, b"old")
    write(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_content_is_synced_before_it_is_renamed(
    tmp_path: Path, write: Callable[[Path, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.json"
    sync, synced = os.fsync, []

    def record(file: int) -> None:
        assert not target.exists()
        synced.append(os.fstat(file).st_size)
        sync(file)

    monkeypatch.setattr(os, "fsync", record)
    write(target, b"content")
    assert synced == [7]


def test_leftovers_are_removed_once_they_are_old(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    """Those of the same target alone, whatever its name means as a pattern."""
    target = tmp_path / "[a].json"
    names = (".[a].json.1.tmp", ".[a].json.2.tmp", ".a.json.3.tmp")
    killed, running, other = [tmp_path / name for name in names]
    for leftover in (killed, running, other):
        leftover.write_bytes(b"half")
    for leftover in (killed, other):
        os.utime(leftover, (time.time() - 7200,) * 2)
    write(target, b"new")
    assert sorted(tmp_path.iterdir()) == sorted([running, other, target])


def test_a_full_disk_is_named_with_the_path_and_the_remedy(
    disk: Path, write: Callable[[Path, bytes], None]
) -> None:
    target = disk / "season" / "2021.parquet"
    write(target, b"old")
    with pytest.raises(OSError, match="free some space there and try again") as error:
        write(target, bytes(2 * MIB))
    assert type(error.value) is OSError
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(target)
    assert str(error.value) == (
        "[Errno 28] No space left on device (free some space there and try again): " + repr(str(target))
    )
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_a_disk_that_cannot_be_written_is_named(disk: Path, write: Callable[[Path, bytes], None]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)  # noqa: S607
    with pytest.raises(OSError, match=r"Read-only file system \(make it writable and try again\)") as error:
        write(disk / "season" / "2021.parquet", b"new")
    assert error.value.errno == errno.EROFS
    assert error.value.filename == str(disk / "season")


def test_a_file_that_cannot_be_replaced_is_named(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    target = tmp_path / "a.json"
    target.mkdir()
    with pytest.raises(IsADirectoryError, match=r"Is a directory: '.*/a\.json'"):
        write(target, b"new")
    assert list(tmp_path.iterdir()) == [target]


def test_a_path_that_is_no_folder_is_named(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    (tmp_path / "a").write_text("no folder")
    with pytest.raises(FileExistsError, match=r"File exists: '.*/a'"):
        write(tmp_path / "a" / "b.json", b"new")


def test_a_full_disk_of_the_feed_s_cache_is_a_warning_that_names_it(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeedCache(disk)
    cache.keep("2021/a.json", KeptDocument(bytes(2 * MIB), final=True))
    assert cache.load("2021/a.json") is None
    (line,) = caplog.messages
    assert "\n" not in line
    assert "No space left on device (free some space there and try again)" in line
    assert str(disk / "2021" / "a.json") in line


def test_a_full_disk_of_the_store_is_named_by_its_manager(disk: Path) -> None:
    """Bytes that cannot be compressed, so that the table does not fit."""
    table = pl.DataFrame({"a": [os.urandom(2 * MIB)]})
    target = UPath(disk) / "2021.parquet"
    with pytest.raises(OSError, match="No space left on device") as error:
        stored_files.write_atomically(target, encode(table))
    assert error.value.filename == str(disk / "2021.parquet")
