"""How long a fit of one archetype takes at the default settings, with all that is compiled for it.

    python -m benchmarks.fits

Each row is a process of its own, with four host devices and without a persistent compilation cache. The first
archetype pays for compiling, the second finds the programs of its shapes. The latent map's fit is all that
`fit_archetype` makes of one fold: curves, NUTS, log-likelihoods, prior and predictive groups; the marginal
map's is `run_mcmc_calibration`. On a busy machine look at the seconds of CPU, of all cores together.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.evaluation import publish
from benchmarks.simulators import SEASONS, World, finish_table, world
from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.calibration.walk_forward import fit_archetype
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.models import run_mcmc_calibration

RACES = (12, 36, 108)
COMPILING = "/jax/core/compile/"


def fit_latent(one: World) -> None:
    """Fit the latent map to all races."""
    fit_archetype(one.ensemble, one.results, Archetype.INTERMEDIATE, SEASONS)


def fit_marginal(one: World) -> None:
    """Fit the marginal map to all races."""
    finish = observe(one.ensemble, one.results).finish_position
    table = finish_table(one.ensemble["finish_position"].values)
    season = one.ensemble["season"].values
    samples, _ = run_mcmc_calibration(finish, table, Archetype.INTERMEDIATE, season=season)
    jax.block_until_ready(samples)


FITS: dict[str, Callable[[World], None]] = {"latent": fit_latent, "marginal": fit_marginal}


def measure(name: str, n_races: int) -> list[dict[str, float]]:
    """Fit two archetypes in turn: seconds, seconds of CPU and of compiling, programs compiled."""
    compiled: list[tuple[str, float]] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.append((event, duration_secs))

    jax.monitoring.register_event_duration_secs_listener(note)
    rows = []
    for seed in range(2):
        one = world("team effects", 1.2, n_races, seed)
        one.ensemble["fold"] = ("race", np.full(n_races, "one"))
        compiled.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        FITS[name](one)
        rows.append(
            {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "compiling": sum(duration for event, duration in compiled if event.startswith(COMPILING)),
                "programs": sum("backend_compile" in event for event, _ in compiled),
            }
        )
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", default=",".join(FITS), help="maps, separated by commas")
    parser.add_argument("--races", type=int, help="measure one map in this process, at so many races")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    if options.races:
        use_host_devices()
        print(json.dumps(measure(options.maps, options.races)))
        return
    lines = [
        "| map | races | archetype | seconds | of CPU | tracing and compiling | programs |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for name in options.maps.split(","):
        for n_races in RACES:
            command = [sys.executable, "-m", "benchmarks.fits", "--maps", name, "--races", str(n_races)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
            for which, row in zip(("first", "second"), json.loads(out), strict=True):
                lines.append(
                    f"| {name} | {n_races} | {which} | {row['wall']:.1f} | {row['cpu']:.1f} "
                    f"| {row['compiling']:.1f} | {row['programs']:.0f} |"
                )
                print(lines[-1], flush=True)
    publish("\n".join([*lines, ""]), options.output)


if __name__ == "__main__":
    main()
