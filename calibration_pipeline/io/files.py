"""Atomic writing of files: a reader sees the old content or the new, never a part."""

import errno
import glob
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

SUFFIX = ".tmp"
LEFTOVER = re.compile(rf"\..+\.[0-9a-f]{{32}}{re.escape(SUFFIX)}")
"""Name of a temporary file, which a killed writer leaves."""
LEFTOVER_AGE_S = 3600.0
FREE = "free some space there and try again"
PERMIT = "make it writable and try again"
REMEDIES = {
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.EROFS: PERMIT,
    errno.EACCES: PERMIT,
    errno.EPERM: PERMIT,
}


def checked_target(output_path: str | os.PathLike[str]) -> Path:
    """Return `output_path` as the path of a file in an existing folder.

    Raises
    ------
    ValueError
        If it is a folder, or its folder does not exist.
    """
    path = Path(output_path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"Argument output_path must be a file in an existing folder, got {str(path)!r}.")
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, even after a power failure.

    The content is written to a temporary file beside `path`, synced and renamed; folders are created.
    Leftovers of killed writers of the same path are removed once they are an hour old.

    Raises
    ------
    OSError
        If the file or its folder cannot be written; the message names it and the remedy. `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            _remove_leftovers(path, os.fstat(file.fileno()).st_mtime)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        folder = error.filename if error.filename != str(temporary) else None
        raise unwritable(folder or path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def unwritable(path: str | os.PathLike[str], error: OSError) -> OSError:
    """Return an error of the same type and number that names the file and the remedy in one line.

    >>> str(unwritable("a.csv", OSError(errno.ENOSPC, "No space left on device")))
    "[Errno 28] No space left on device (free some space there and try again): 'a.csv'"
    """
    if error.errno is None:
        return type(error)(f"{error}: {str(path)!r}")
    remedy = REMEDIES.get(error.errno)
    reason = f"{error.strerror} ({remedy})" if remedy else error.strerror
    return OSError(error.errno, reason, str(path))


def _remove_leftovers(path: Path, now: float) -> None:
    """Remove old leftovers; `now` comes from the clock of the file system, as their times do."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{SUFFIX}"):
        with suppress(FileNotFoundError):
            if now - leftover.stat().st_mtime > LEFTOVER_AGE_S:
                leftover.unlink()
