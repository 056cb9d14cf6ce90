"""Fits and scenario sampling on one device: the process that `devices` starts."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.performance.problems import ARCHETYPE, latent_problem, marginal_problem
from benchmarks.performance.scenarios import example_race, run_parallel
from benchmarks.performance.timing import answer, in_turn
from benchmarks.sbc import gather
from calibration_pipeline.calibration.latent import latent_calibration_model, summarise
from calibration_pipeline.calibration.surfaces import tabulate_surfaces
from calibration_pipeline.mcmc.nuts import run_nuts, use_host_devices
from calibration_pipeline.models import run_mcmc_calibration
from calibration_pipeline.scenarios.draw.ensemble import draw_race
from calibration_pipeline.scenarios.network.model import NOTHING_CHANGED

PARTS = 8


def device() -> tuple[str, str]:
    """Return the platform and the name of the device that JAX finds."""
    return jax.devices()[0].platform, jax.devices()[0].device_kind


def measure(sizes: list[int] | None, on_cpu: bool = False) -> tuple[str, str] | dict[str, list[float]]:
    """Return the seconds of a fit of each map and of drawing scenarios, or, without sizes, the device."""
    if sizes is None:
        return device()
    n_races, n_scenarios, turns = sizes
    if on_cpu:
        use_host_devices()
    latent, marginal = latent_problem(n_races), marginal_problem(n_races)
    field, parameters = jax.tree.map(jnp.asarray, example_race(40))

    def fit_latent() -> None:
        evidence = gather(latent.fields, latent.retired, latent.running_order)
        likelihood = summarise(evidence, tabulate_surfaces(evidence.order), latent.n_seasons)
        mcmc = run_nuts(latent_calibration_model, (likelihood,))
        jax.block_until_ready(mcmc.get_samples())

    def fit_marginal() -> None:
        finish, probabilities, season = marginal
        jax.block_until_ready(
            run_mcmc_calibration(finish, probabilities, ARCHETYPE, season=np.asarray(season))[0]
        )

    def part(number: int) -> None:
        draw_race(field, parameters, NOTHING_CHANGED, n_scenarios // PARTS, np.array([number, 0]))

    draw = run_parallel(part, PARTS)
    return in_turn({"latent": fit_latent, "marginal": fit_marginal, "scenarios": draw}, turns)


if __name__ == "__main__":
    answer(measure)
