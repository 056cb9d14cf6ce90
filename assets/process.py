"""What a process that computes sets up before JAX starts: devices, and where compiled functions are kept."""

import contextlib
import platform
from hashlib import sha256
from pathlib import Path

import jax

from calibration_pipeline.calibration.inference import use_host_devices

from .instance import home_folder

COMPILED = "compiled"
LEAST_COMPILE_TIME_S = 0.2
"""What compiles faster is not kept."""


def prepare_process() -> None:
    """Show JAX a device for each chain, and keep what it compiles for the processes that come after.

    It is kept in DAGSTER_HOME, unless JAX_COMPILATION_CACHE_DIR names another folder, and apart by kind of
    processor: a program compiled for one may not run on another.
    """
    use_host_devices()
    if jax.config.jax_compilation_cache_dir is None:
        folder = home_folder() / COMPILED / _processor()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_COMPILE_TIME_S)
        _forget_unwritten(folder)


def _forget_unwritten(folder: Path) -> None:
    """Remove what a killed process had begun to keep: JAX never writes an entry that is there."""
    for entry in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if entry.stat().st_size == 0:
                entry.unlink()


def _processor() -> str:
    """Return a name of this processor's kind, the same for all that can do the same."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else [platform.processor()]
    abilities = {line for line in lines if line.startswith(("flags", "Features", "vendor_id"))} or set(lines)
    return f"{platform.machine()}-{sha256(' '.join(sorted(abilities)).encode()).hexdigest()[:8]}"
