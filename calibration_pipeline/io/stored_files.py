"""Files of the store: written whole or not at all, sealed, and told apart by what they hold."""

import contextlib
import errno
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from upath import UPath

from calibration_pipeline.io.addresses import is_local
from calibration_pipeline.io.files import unwritable
from calibration_pipeline.io.files import write_atomically as write_local_file

SEAL = b"\nSHA-256 of what precedes: "
"""What a stored NetCDF file ends with, and 64 digits. HDF5 reads no further than its own end."""


def write_atomically(path: UPath, data: bytes) -> None:
    """Store `data` at `path` so that a reader sees the old file or the new one, never a part.

    On a local disk it is written beside the target and renamed; an object store puts whole objects.
    """
    if is_local(path):
        write_local_file(Path(path.path), data)
    else:
        path.write_bytes(data)


def content_version(data: bytes) -> str:
    """Return the data version of a file with this content, its SHA-256."""
    return sha256(data).hexdigest()


def file_version(files: Sequence[UPath]) -> str | None:
    """Return the data version of a value stored in `files`, None if one is missing.

    Files with the size and the time of an earlier call are not read again.
    """
    try:
        stats = tuple((stat.st_mtime, stat.st_size) for stat in (file.stat() for file in files))
    except FileNotFoundError:
        return None
    return _version_as_of(tuple(files), stats)


@lru_cache(maxsize=4096)
def _version_as_of(files: tuple[UPath, ...], stats: tuple[tuple[float, int], ...]) -> str:  # noqa: ARG001
    return content_version(b"".join(file.read_bytes() for file in files))


def seal(data: bytes) -> bytes:
    """Return a NetCDF file with its checksum behind it; HDF5 may read a broken one wrongly, or for ever."""
    return data + SEAL + content_version(data).encode()


def unseal(data: bytes) -> bytes:
    """Return a sealed file's content; one without a seal is taken as it is.

    Raises
    ------
    ValueError
        If it is not what was sealed.
    """
    content, seal_, digest = data.rpartition(SEAL)
    if not seal_:
        return data
    if digest != content_version(content).encode():
        raise ValueError("the file is damaged, its checksum is not that of its content")
    return content


@contextlib.contextmanager
def local_file(path: UPath) -> Iterator[str]:
    """Yield the path on this machine's disk, of a copy while it is needed if `path` is in an object store."""
    if is_local(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            path.fs.get_file(path.path, str(copy))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise unwritable(copy, error) from error
            raise
        yield str(copy)
