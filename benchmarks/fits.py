"""Time of a fit of one archetype at the default settings, with compilation: benchmarks/results/fits.csv.

    python -m benchmarks.fits

Each map and number of races runs in a separate process, with four host devices and without a persistent
compilation cache. The fit of the first archetype includes compilation; the second reuses the compiled
programs. The fit of the latent map has curves, NUTS, log-likelihoods, prior and
predictive groups. The fit of the marginal map is `run_mcmc_calibration`. On a busy machine, `cpu_s` (the CPU
time of all cores) is the reliable column.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.result_files import Row, output_parser, write_results
from benchmarks.simulators import SEASONS, World, finish_table, world
from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.archetype_fit import fit_archetype
from calibration_pipeline.calibration.race_curves import observe, tabulate_races
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.models import run_mcmc_calibration

RACES = (12, 36, 108)
COMPILING = "/jax/core/compile/"


def fit_latent(races: World) -> None:
    """Fit the latent map to all races."""
    curves = tabulate_races(races.ensemble, races.results, seed=42)
    fit_archetype(races.ensemble, races.results, curves, Archetype.INTERMEDIATE, SEASONS)


def fit_marginal(races: World) -> None:
    """Fit the marginal map to all races."""
    finish = observe(races.ensemble, races.results).finish_position
    table = finish_table(races.ensemble["finish_position"].values)
    season = races.ensemble["season"].values
    samples, _ = run_mcmc_calibration(finish, table, Archetype.INTERMEDIATE, season=season)
    jax.block_until_ready(samples)


FITS: dict[str, Callable[[World], None]] = {"latent": fit_latent, "marginal": fit_marginal}


def measure(name: str, n_races: int) -> list[dict[str, float]]:
    """Fit two archetypes: seconds, seconds of CPU and of compilation, and the number of compiled programs."""
    compiled: list[tuple[str, float]] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.append((event, duration_secs))

    jax.monitoring.register_event_duration_secs_listener(note)
    rows = []
    for seed in range(2):
        races = world("team effects", 1.2, n_races, seed)
        races.ensemble["fold"] = ("race", np.full(n_races, "one"))
        compiled.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        FITS[name](races)
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
    parser = output_parser(__doc__)
    parser.add_argument("--maps", default=",".join(FITS), help="maps, separated by commas")
    parser.add_argument(
        "--races", type=int, help="measure one map in this process, with this number of races"
    )
    options = parser.parse_args()
    if options.races:
        use_host_devices()
        print(json.dumps(measure(options.maps, options.races)))
        return
    rows: list[Row] = []
    for name in options.maps.split(","):
        for n_races in RACES:
            command = [sys.executable, "-m", "benchmarks.fits", "--maps", name, "--races", str(n_races)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
            for archetype, row in zip(("first", "second"), json.loads(out), strict=True):
                rows.append(
                    {
                        "map": name,
                        "races": n_races,
                        "archetype": archetype,
                        "s": f"{row['wall']:.1f}",
                        "cpu_s": f"{row['cpu']:.1f}",
                        "compiling_s": f"{row['compiling']:.1f}",
                        "programs": f"{row['programs']:.0f}",
                    }
                )
                print(rows[-1], flush=True)
    write_results("fits", rows, options.output)


if __name__ == "__main__":
    main()
