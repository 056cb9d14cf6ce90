"""A whole run compiles few programs, none of them for a single operation of JAX."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from helpers.paths import ROOT

MOST_PROGRAMS = 15
RUN = ["run", "--seasons", "2024,2025", "--scenarios", "100", "--executor", "in_process"]


@pytest.mark.soak
def test_a_run_in_one_process_compiles_few_programs(tmp_path: Path) -> None:
    """Each large function once; operations outside of jit, or shapes that differ, would add to them."""
    env = {
        **os.environ,
        "CALIBRATION_STORE": str(tmp_path / "store"),
        "DAGSTER_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }
    program = [sys.executable, "-m", "helpers.programs", *RUN]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    compiled = Counter(json.loads(done.stdout.splitlines()[-1]))
    listed = ", ".join(f"{name} {times}" for name, times in compiled.most_common())
    assert compiled.total() <= MOST_PROGRAMS, (
        f"{compiled.total()} programs, at most {MOST_PROGRAMS}: {listed}"
    )
    assert not [name for name, times in compiled.items() if times > 2], listed
