"""The folder of compiled JAX programs: a name for each kind of processor, and entries that are not whole."""

import contextlib
import platform
from hashlib import sha256
from pathlib import Path


def remove_empty_entries(folder: Path) -> None:
    """Remove the entries that a killed process had begun: JAX never writes an entry that exists."""
    for entry in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if entry.stat().st_size == 0:
                entry.unlink()


def processor_name() -> str:
    """Return a name of this processor's kind, the same for all that can run the same programs."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else [platform.processor()]
    features = {line for line in lines if line.startswith(("flags", "Features", "vendor_id"))} or set(lines)
    return f"{platform.machine()}-{sha256(' '.join(sorted(features)).encode()).hexdigest()[:8]}"
