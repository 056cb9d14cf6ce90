"""Files of the store: written whole or not at all, sealed, and told apart by what they hold."""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from upath import UPath

LEFTOVER_AGE_S = 3600.0
SEAL = b"\nSHA-256 of what precedes: "
"""What a stored NetCDF file ends with, and 64 digits. HDF5 reads no further than its own end."""


def write_atomically(path: UPath, data: bytes) -> None:
    """Store `data` at `path` so that a reader sees the old file or the new one, never a part.

    On a local disk it is written beside the target and renamed; an object store puts whole objects.
    Leftovers of killed writers of the same target are removed once they are an hour old.
    """
    if not is_local(path):
        path.write_bytes(data)
        return
    target = Path(str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _remove_leftovers(target: Path) -> None:
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_AGE_S:
                leftover.unlink()


def is_local(path: UPath) -> bool:
    """Tell whether a path is of this machine's disks, and not of an object store."""
    return path.protocol in ("", "file", "local")


def content_version(data: bytes) -> str:
    """Return the data version of a file with this content, its SHA-256."""
    return sha256(data).hexdigest()


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
        path.fs.get_file(path.path, str(copy))
        yield str(copy)
