"""Files of the store: atomic writing, checksums and data versions by content."""

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
"""End of a stored NetCDF file, before 64 digits. HDF5 does not read beyond its own content."""


def write_atomically(path: UPath, data: bytes) -> None:
    """Store `data` at `path` so that a reader sees the old file or the new one, never a part.

    On a local disk a temporary file is renamed; an object store writes whole objects.
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

    Files whose size and time are those of an earlier call are not read again.
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
    """Append a checksum to a NetCDF file: HDF5 may misread a damaged file, or never return."""
    return data + SEAL + content_version(data).encode()


def unseal(data: bytes) -> bytes:
    """Return the content of a sealed file; a file without a seal is returned unchanged.

    Raises
    ------
    ValueError
        If the content does not match the checksum.
    """
    content, seal_, digest = data.rpartition(SEAL)
    if not seal_:
        return data
    if digest != content_version(content).encode():
        raise ValueError("the file is damaged, its checksum is not that of its content")
    return content


def local_copy(path: UPath) -> Path:
    """Return `path` itself, or a copy in a temporary folder where it lies in an object store."""
    if is_local(path):
        return Path(path.path)
    copy = Path(tempfile.mkdtemp(prefix="calibration-")) / path.name
    copy.write_bytes(path.read_bytes())
    return copy


@contextlib.contextmanager
def local_file(path: UPath) -> Iterator[str]:
    """Yield a path on a local disk; for a file in an object store, that of a temporary copy."""
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
