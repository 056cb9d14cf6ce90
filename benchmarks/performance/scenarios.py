"""Scenarios a second: against the floor of drawing the random numbers, and against plain NumPy.

The floor and the example race are those of `benchmarks.sampler`. Plain NumPy draws pace, chaos, incidents and
luck and ranks by `argsort`: a part of what the network draws (no cautions, damage, teams, laps led).
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.timing import in_turn, ratios, shown, spread
from benchmarks.sampler import example_race, floor
from calibration_pipeline.plots.figures import BLUE, GREY, VERMILION, figure_axes
from calibration_pipeline.scenarios.draw import ensemble
from calibration_pipeline.scenarios.network.model import NOTHING_CHANGED

CONTESTANTS = {"the network": BLUE, "its random numbers": GREY, "NumPy, `argsort`": VERMILION}


class Sizes(NamedTuple):
    """Cars of a field, scenarios of a batch, scenarios of a turn, and turns."""

    cars: tuple[int, ...]
    batches: tuple[int, ...]
    n_scenarios: int
    n_turns: int


FULL = Sizes((20, 30, 40), (256, 1024, 4096), 2**16, 5)
SMALL = Sizes((8,), (64,), 256, 1)


def side_by_side(run: Callable[[int], object], n: int) -> Callable[[], None]:
    """Return what runs n parts, as many at a time as there are cores."""

    def every() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, range(n)))

    return every


def numpy_batch(n_cars: int, n_scenarios: int, seed: int) -> np.ndarray:
    """Draw finish positions as one does in NumPy."""
    rng = np.random.default_rng(seed)
    pace = np.linspace(2, -2, n_cars)
    chaos = rng.standard_normal((n_scenarios, 1))
    out = rng.random((n_scenarios, n_cars)) < 1 / (1 + np.exp(2.0 - 0.6 * chaos))
    score = pace - rng.gumbel(size=(n_scenarios, n_cars)) - 100.0 * out
    return np.argsort(np.argsort(-score, axis=1), axis=1) + 1


def measure_cell(n_cars: int, batch: int, sizes: Sizes) -> dict[str, list[float]]:
    """Seconds of each contestant by turn, for one field and batch size."""
    field, parameters = jax.tree.map(jnp.asarray, example_race(n_cars))
    n_batches, key = sizes.n_scenarios // batch, jax.random.key(0)
    with patch.object(ensemble, "SCENARIO_BATCH", batch), patch("benchmarks.sampler.SCENARIO_BATCH", batch):
        ensemble._draw_batch.clear_cache()
        draw_numbers = floor(field, parameters)

        def network(part: int) -> None:
            ensemble.draw_race(field, parameters, NOTHING_CHANGED, batch, jax.random.fold_in(key, part))

        runs = {
            "the network": side_by_side(network, n_batches),
            "its random numbers": side_by_side(
                lambda part: jax.block_until_ready(draw_numbers(key, part)), n_batches
            ),
            "NumPy, `argsort`": side_by_side(lambda part: numpy_batch(n_cars, batch, part), n_batches),
        }
        taken = in_turn(runs, sizes.n_turns)
        ensemble._draw_batch.clear_cache()
    return taken


def measure(sizes: Sizes) -> Section:
    """Measure every field and batch size."""
    found = {
        (n_cars, batch): measure_cell(n_cars, batch, sizes)
        for n_cars in sizes.cars
        for batch in sizes.batches
    }
    rows = []
    for (n_cars, batch), taken in found.items():
        network = taken["the network"]
        rates = [shown([sizes.n_scenarios / s / 1000 for s in seconds]) for seconds in taken.values()]
        slower = shown(ratios(network, taken["its random numbers"]))
        faster = shown(ratios(taken["NumPy, `argsort`"], network))
        rows.append([str(n_cars), f"{batch:,}", *rates, slower, faster])
    columns = ["cars", "batch", *(f"{name}, thousand a second" for name in CONTESTANTS)]
    text = "\n\n".join(
        [
            machine(["jax", "numpyro", "numpy"]),
            f"{sizes.n_scenarios:,} scenarios a turn, {sizes.n_turns} turns; the pipeline's batch is "
            f"{ensemble.SCENARIO_BATCH:,}.",
            table([*columns, "time ÷ that of its random numbers", "times as fast as NumPy"], rows),
            "![Scenarios a second](images/performance_scenarios.png)",
        ]
    )
    return Section(text, {"performance_scenarios": draw(found, sizes)})


def draw(found: dict[tuple[int, int], dict[str, list[float]]], sizes: Sizes) -> Figure:
    """Draw scenarios a second by field size, at the batch that the pipeline uses or the largest."""
    batch = ensemble.SCENARIO_BATCH if ensemble.SCENARIO_BATCH in sizes.batches else max(sizes.batches)
    figure, ax = figure_axes(5.2, 3.4)
    for name, color in CONTESTANTS.items():
        rates = [spread([sizes.n_scenarios / s for s in found[cars, batch][name]]) for cars in sizes.cars]
        middle = np.array([rate.median for rate in rates]) / 1000
        error = np.abs(np.array([(rate.lowest, rate.highest) for rate in rates]).T / 1000 - middle)
        ax.errorbar(sizes.cars, middle, error, fmt="o-", color=color, label=name.replace("`", ""))
    ax.set(xlabel="Cars", ylabel="Thousand scenarios a second", ylim=(0, None), xticks=sizes.cars)
    ax.legend()
    return figure
