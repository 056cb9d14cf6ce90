"""The command `run` in a process of its own, as a user starts it."""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.worktree import ROOT


def run_pipeline(folder: Path, *options: str) -> tuple[float, str]:
    """Run the pipeline with store and DAGSTER_HOME below a folder; return the seconds and the printed text.

    Nothing is compiled in an empty folder; a later run in it has the programs of those before.

    Raises
    ------
    RuntimeError
        If the command fails, with what it printed.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    words = ["run", "--store", str(folder / "store"), *options]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "assets.cli", *words],
        cwd=ROOT,
        env={**environment, "DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started, done.stdout
