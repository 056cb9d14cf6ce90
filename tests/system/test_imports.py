"""Test that modules which only read and show values load without the libraries that compute and draw."""

import subprocess
import sys

HEAVY = {"arviz", "jax", "matplotlib", "numpyro"}
"""Each of them takes a second or more to import, in every process of a run."""
LIGHT_MODULES = [
    "assets.asset_checks.stored_values",
    "assets.flow.metadata",
    "calibration_pipeline.checks.properties",
    "calibration_pipeline.mcmc.convergence",
    "calibration_pipeline.calibration.summaries",
    "calibration_pipeline.schemas.contracts",
]


def test_modules_that_read_and_show_values_load_fast() -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {LIGHT_MODULES}:\n"
        "    importlib.import_module(name)\n"
        f"    if loaded := {HEAVY} & set(sys.modules): sys.exit(f'{{name}} imports {{loaded}}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
