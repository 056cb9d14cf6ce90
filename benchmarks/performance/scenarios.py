"""Scenarios a second, beside the time of the random numbers alone and beside plain NumPy.

The lower bound draws as many random numbers as the network, with the same generator, batches and
distributions. Plain NumPy draws pace, chaos, incidents and luck and ranks by `argsort`; it omits cautions,
damage, teams, laps led and fastest laps.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from benchmarks.performance.timing import in_turn, measured_on, ratios
from benchmarks.result_files import Row, repeated
from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, Field
from calibration_pipeline.scenarios.draw import ensemble
from calibration_pipeline.scenarios.fit.by_fold import DRAWN, NETWORK_COORDINATES, PARAMETER_DIMS
from calibration_pipeline.scenarios.network.model import NOTHING_CHANGED, Parameters, race_model


class Sizes(NamedTuple):
    """Cars of a field, scenarios of a batch, scenarios of a turn, and number of turns."""

    cars: tuple[int, ...]
    batches: tuple[int, ...]
    n_scenarios: int
    n_turns: int


FULL = Sizes((20, 30, 40), (256, 1024, 4096), 2**16, 5)
SMALL = Sizes((8,), (64,), 256, 1)


def example_race(n_cars: int) -> tuple[Field, Parameters]:
    """Return a field of cars, and network parameters with values close to those of real races."""
    rng = np.random.default_rng(0)
    sizes = {name: len(values) for name, values in NETWORK_COORDINATES.items()}
    values = {
        "incident_intercept": -2.0, "damage_intercept": -3.0, "chaos_scale": 0.6, "caution_intercept": 1.9,
        "caution_chaos_weight": 0.2, "team_scale": 0.2, "laps_per_caution": 5.5, "lead_dispersion": 1.5,
        "fastest_dispersion": 1.5, "luck_sign": -1.0, "damage_chaos_weight": 0.3, "caution_track_weight": 0.5,
        "front_cars": 12, "front_sharpness": 0.8,
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


def random_numbers(field: Field, parameters: Parameters, batch: int) -> Callable[[jax.Array, int], jax.Array]:
    """Return a compiled function that draws the random numbers of a batch of scenarios and nothing else."""
    model = handlers.trace(handlers.seed(race_model, 0))
    sites = model.get_trace(field, parameters, jnp.arange(batch), NOTHING_CHANGED)
    sampled = {name: site for name, site in sites.items() if site["type"] == "sample"}

    @jax.jit
    def draw(key: jax.Array, number: int) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, number), len(sampled))
        drawn = (site["fn"].sample(k) for site, k in zip(sampled.values(), keys, strict=True))
        return jnp.stack([jnp.sum(values, dtype=jnp.float32) for values in drawn])

    return draw


def run_parallel(run: Callable[[int], object], n: int) -> Callable[[], None]:
    """Return a function that runs n parts in as many threads as there are cores."""

    def run_parts() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, range(n)))

    return run_parts


def numpy_batch(n_cars: int, n_scenarios: int, seed: int) -> np.ndarray:
    """Draw finish positions in plain NumPy: (scenario, car)."""
    rng = np.random.default_rng(seed)
    pace = np.linspace(2, -2, n_cars)
    chaos = rng.standard_normal((n_scenarios, 1))
    out = rng.random((n_scenarios, n_cars)) < 1 / (1 + np.exp(2.0 - 0.6 * chaos))
    score = pace - rng.gumbel(size=(n_scenarios, n_cars)) - 100.0 * out
    return np.argsort(np.argsort(-score, axis=1), axis=1) + 1


def measure_cell(n_cars: int, batch: int, sizes: Sizes) -> dict[str, list[float]]:
    """Return the seconds of each sampler by turn, for one field size and batch size."""
    field, parameters = jax.tree.map(jnp.asarray, example_race(n_cars))
    n_batches, key = sizes.n_scenarios // batch, jax.random.key(0)
    with patch.object(ensemble, "SCENARIO_BATCH", batch):
        ensemble._draw_batch.clear_cache()
        draw_numbers = random_numbers(field, parameters, batch)

        def network(part: int) -> None:
            ensemble.draw_race(field, parameters, NOTHING_CHANGED, batch, np.array([0, part]))

        def numbers(part: int) -> None:
            jax.block_until_ready(draw_numbers(key, part))

        runs = {
            "network": run_parallel(network, n_batches),
            "random_numbers": run_parallel(numbers, n_batches),
            "numpy": run_parallel(lambda part: numpy_batch(n_cars, batch, part), n_batches),
        }
        taken = in_turn(runs, sizes.n_turns)
        ensemble._draw_batch.clear_cache()
    return taken


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Measure every field size and batch size."""
    machine = measured_on(["jax", "numpyro", "numpy"])
    rows: list[Row] = []
    for n_cars in sizes.cars:
        for batch in sizes.batches:
            taken = measure_cell(n_cars, batch, sizes)
            row: dict[str, object] = {"cars": n_cars, "batch": batch}
            for name, seconds in taken.items():
                rates = [sizes.n_scenarios / s / 1000 for s in seconds]
                row |= repeated(f"{name}_thousand_per_s", rates)
            row |= repeated("time_ratio_to_random_numbers", ratios(taken["network"], taken["random_numbers"]))
            row |= repeated("speed_ratio_to_numpy", ratios(taken["numpy"], taken["network"]))
            rows.append({**row, "measured_on": machine})
    return {"scenarios": rows}
