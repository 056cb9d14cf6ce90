"""Time and effective samples of the marginal map by number of races, tables included."""

import time
from typing import NamedTuple

from benchmarks.performance.jax_samplers import public
from benchmarks.performance.problems import ARCHETYPE, marginal_problem
from benchmarks.performance.sampling import effective
from benchmarks.performance.timing import measured_on
from benchmarks.result_files import Row
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.models import run_mcmc_calibration

N_CHAINS, N_WARMUP = 4, 500


class Sizes(NamedTuple):
    """Numbers of races, and of draws a chain."""

    fits: tuple[tuple[int, int], ...]


FULL, SMALL = Sizes(((360, 1000), (3600, 1000), (3600, 10000))), Sizes(((8, 1000),))


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Make each fit twice; the second is compiled."""
    use_host_devices(N_CHAINS)
    machine = measured_on(["numpyro", "jax"])
    rows: list[Row] = []
    for n_races, n_samples in sizes.fits:
        finish, probabilities, season = marginal_problem(n_races)
        for fit in ("first", "second"):
            started = time.perf_counter()
            _, mcmc = run_mcmc_calibration(
                finish, probabilities, ARCHETYPE, N_WARMUP, n_samples, 1, N_CHAINS, season=season
            )
            draws = public(mcmc.get_samples(group_by_chain=True))
            seconds = time.perf_counter() - started
            n_effective = effective(draws)
            rows.append(
                {
                    "races": n_races,
                    "draws": n_samples,
                    "fit": fit,
                    "s": f"{seconds:.1f}",
                    "ess": f"{n_effective:.0f}",
                    "ess_per_s": f"{n_effective / seconds:.0f}",
                    "measured_on": machine,
                }
            )
    return {"marginal": rows}
