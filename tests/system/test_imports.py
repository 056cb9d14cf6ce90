"""Test that modules which only read and show values load without the libraries that compute and draw."""

import os
import subprocess
import sys
from pathlib import Path

HEAVY = {"arviz", "jax", "jaxlib", "matplotlib", "numpyro", "scipy.signal", "scipy.stats"}
"""Each of them takes half a second or more to import, in every process of a run."""
LIGHT_MODULES = [
    "assets.asset_checks.stored_values",
    "assets.flow.metadata",
    "calibration_pipeline.checks.properties",
    "calibration_pipeline.mcmc.convergence",
    "calibration_pipeline.calibration.summaries",
    "calibration_pipeline.schemas.contracts",
]


def test_modules_that_read_and_show_values_load_fast(tmp_path: Path) -> None:
    """The UI, the daemon and the command load the definitions first."""
    program = (
        "import importlib, sys\n"
        f"for name in {LIGHT_MODULES}:\n"
        "    importlib.import_module(name)\n"
        f"    if loaded := {HEAVY} & set(sys.modules): sys.exit(f'{{name}} imports {{loaded}}')\n"
        "from assets.definitions import build_defs\n"
        "from assets.settings import Settings\n"
        "build_defs(Settings()).get_repository_def()\n"
        f"if loaded := {HEAVY} & set(sys.modules): sys.exit(f'the definitions import {{loaded}}')\n"
    )
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
