"""How many scenarios a second the sampler draws, and how far that is from drawing the random numbers alone.

    python -m benchmarks.sampler --cars 40 --scenarios 200000

Everything runs in one process, interleaved and repeated; the floor draws as many random numbers as the
sampler, with the same generator and batches, in the distributions that the sampler needs.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, Field
from calibration_pipeline.scenarios.draw.ensemble import SCENARIO_BATCH, draw_race
from calibration_pipeline.scenarios.fit.by_fold import DRAWN, NETWORK_COORDINATES, PARAMETER_DIMS
from calibration_pipeline.scenarios.network.model import NOTHING_CHANGED, Parameters, race_model

REPEATS = 7


def example_race(n_cars: int) -> tuple[Field, Parameters]:
    """Return a field of cars and parameters of about the size that real races give."""
    rng = np.random.default_rng(0)
    sizes = {name: len(values) for name, values in NETWORK_COORDINATES.items()}
    values = {
        "incident_intercept": -2.0, "damage_intercept": -3.0, "chaos_scale": 0.6, "caution_intercept": 1.9,
        "caution_chaos_weight": 0.2, "team_scale": 0.2, "laps_per_caution": 5.5, "lead_dispersion": 1.5,
        "fastest_dispersion": 1.5, "luck_sign": -1.0, "damage_chaos_weight": 0.3, "caution_track_weight": 0.5,
    }  # fmt: skip
    parameters = {}
    for name, dims in PARAMETER_DIMS.items():
        shape = [sizes[dim] for dim in dims]
        filled = np.full(shape, values.get(name, 0.1), np.float32)
        parameters[name] = np.sort(rng.uniform(0, 0.9, shape)) if "quantile" in dims else filled
        if name in DRAWN:
            parameters[name] = filled + 0.01 * rng.standard_normal(shape).astype(np.float32)
    field = Field(
        pace=rng.standard_normal((n_cars, len(PACE_COVARIATES))).astype(np.float32),
        incident=rng.standard_normal((n_cars, len(INCIDENT_COVARIATES))).astype(np.float32),
        start_score=np.linspace(2, -2, n_cars, dtype=np.float32),
        car=np.ones(n_cars, bool),
        team=(np.arange(n_cars) // 3).astype(np.int32),
        archetype=np.int32(1),
        scheduled_laps=np.int32(267),
        caution=np.float32(0.0),
    )
    return field, Parameters(**parameters)


def floor(field: Field, parameters: Parameters) -> Callable[[jax.Array, int], jax.Array]:
    """Return what draws the sampler's random numbers and nothing else."""
    model = handlers.trace(handlers.seed(race_model, 0))
    sites = model.get_trace(field, parameters, jnp.arange(SCENARIO_BATCH), NOTHING_CHANGED)
    sampled = {name: site for name, site in sites.items() if site["type"] == "sample"}
    n = sum(site["value"].size for site in sampled.values())
    print(f"random numbers a scenario: {n / SCENARIO_BATCH:.0f}")

    @jax.jit
    def draw(key: jax.Array, batch: int) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, batch), len(sampled))
        drawn = (site["fn"].sample(k) for site, k in zip(sampled.values(), keys, strict=True))
        return jnp.stack([jnp.sum(values, dtype=jnp.float32) for values in drawn])

    return draw


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cars", type=int, default=40, help="cars in the field, 40")
    parser.add_argument("--scenarios", type=int, default=200_000, help="scenarios a repeat, 200000")
    options = parser.parse_args()
    field, parameters = jax.tree.map(jnp.asarray, example_race(options.cars))
    n_batches = -(-options.scenarios // SCENARIO_BATCH)
    n_scenarios = n_batches * SCENARIO_BATCH
    threads = os.cpu_count() or 1
    draw_numbers, key = floor(field, parameters), jax.random.key(0)

    def numbers() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda batch: jax.block_until_ready(draw_numbers(key, batch)), range(n_batches)))

    def scenarios() -> None:
        share = n_scenarios // threads
        with ThreadPoolExecutor(threads) as pool:
            keys = jax.random.split(key, threads)
            list(pool.map(lambda k: draw_race(field, parameters, NOTHING_CHANGED, share, k), keys))

    taken: dict[str, list[float]] = {"numbers": [], "scenarios": []}
    for repeat in range(REPEATS + 1):
        for name, run in (("numbers", numbers), ("scenarios", scenarios)):
            started = time.perf_counter()
            run()
            if repeat:  # the first compiles
                taken[name].append(time.perf_counter() - started)
    ratios = [s / n for s, n in zip(taken["scenarios"], taken["numbers"], strict=True)]
    for name, seconds in taken.items():
        print(f"{name}: {n_scenarios / statistics.median(seconds):,.0f} scenarios a second")
    print(f"ratio to the floor: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"device: {jax.devices()[0].device_kind}, {threads} threads, batches of {SCENARIO_BATCH}")


if __name__ == "__main__":
    main()
