"""Folder of compiled JAX programs: its name by processor type, and removal of incomplete entries."""

import contextlib
import platform
from hashlib import sha256
from pathlib import Path


def remove_empty_entries(folder: Path) -> None:
    """Remove the empty entries of killed processes: JAX never overwrites an existing entry."""
    for entry in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if entry.stat().st_size == 0:
                entry.unlink()


def processor_name() -> str:
    """Return a name of the processor type, equal for processors that can run the same programs."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else [platform.processor()]
    features = {line for line in lines if line.startswith(("flags", "Features", "vendor_id"))} or set(lines)
    return f"{platform.machine()}-{sha256(' '.join(sorted(features)).encode()).hexdigest()[:8]}"
