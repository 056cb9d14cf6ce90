"""The environment that JAX reads when it is imported."""

import os

from calibration_pipeline.io.compile_cache import processor_name, remove_empty_entries

from .instance import home_folder

COMPILED = "compiled"
LEAST_COMPILE_TIME_S = 0.2
"""Programs that compile faster are not cached."""
N_DEVICES = 4
"""CPU devices of JAX: one for each chain of a fit."""


def prepare_jax() -> None:
    """Set the environment that JAX reads when it is imported: devices, and the cache of compiled programs.

    The cache is in DAGSTER_HOME, unless JAX_COMPILATION_CACHE_DIR names another folder, and apart by kind of
    processor: a program compiled for one may not run on another.
    """
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(N_DEVICES))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = home_folder() / COMPILED / processor_name()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(LEAST_COMPILE_TIME_S)
        remove_empty_entries(folder)
