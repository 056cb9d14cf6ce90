"""Writing files so that nobody ever reads half of one."""

import os
import threading
from pathlib import Path


def checked_target(output_path: str | os.PathLike[str]) -> Path:
    """Return `output_path` as a path that can be written.

    Raises
    ------
    ValueError
        If it is a folder, or not in an existing one.
    """
    path = Path(output_path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"Argument output_path must be a file in an existing folder, got {str(path)!r}.")
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path` and rename, replacing what is there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
