"""Simulators of known truth, right and wrong on purpose: what recalibration makes of a user's ensemble.

    python -m benchmarks.simulators

Two seasons of 48 races, 32 cars and 1,000 scenarios: the maps are fitted on the first and applied to the
second. Log scores are expected over what may happen in it, so that only the fit has luck.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from benchmarks.evaluation import publish
from benchmarks.recalibration import map_tables
from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.recalibration import draw_recalibrations
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.calibration.walk_forward import fit_archetype
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.log_strengths import recover_incidents, recover_utilities, running_order
from calibration_pipeline.scenarios.probabilities import finish_probabilities
from calibration_pipeline.stats.ranking import rank

N_CARS, N_SCENARIOS, SEASONS = 32, 1000, [2021, 2022]
TEAM = np.arange(N_CARS) // 4
FAR_BEHIND = 100.0
LAWS = {
    "reverse Plackett-Luce": lambda rng, shape: -rng.gumbel(size=shape),
    "ordinary Plackett-Luce": lambda rng, shape: rng.gumbel(size=shape),
    "normal": lambda rng, shape: 1.28 * rng.standard_normal(shape),
    "team effects": lambda rng, shape: (
        0.8 * rng.standard_normal((*shape[:-1], TEAM[-1] + 1))[..., TEAM] - rng.gumbel(size=shape)
    ),
    "damage": lambda rng, shape: -rng.gumbel(size=shape) - FAR_BEHIND / 2 * (rng.random(shape) < 0.1),
}
"""Law of the luck -> (generator, shape (race, scenario, car)) -> luck, added to the utilities."""
DISTORTIONS = {"right": 1.0, "too sure (utilities / 0.6)": 1 / 0.6, "too cautious (x 0.6)": 0.6}


class World(NamedTuple):
    """An ensemble of a distorted sharpness, the results, and finishes drawn from the true law.

    `ideal` is as large as the ensemble, `truth` four times as large.
    """

    ensemble: xr.Dataset
    results: pl.DataFrame
    ideal: NDArray[np.int64]
    truth: NDArray[np.int64]


def world(law: str, distortion: float, n_races: int = 96, seed: int = 0) -> World:
    """Races of a law, and a simulator of it that multiplies utilities by `distortion`."""
    rng = np.random.default_rng(seed)
    utility = rng.normal(0, 1.0, (n_races, 1, N_CARS))

    def draw(n: int, factor: float) -> tuple[NDArray, NDArray]:
        score = factor * utility + LAWS[law](rng, (n_races, n, N_CARS))
        at = -2 + 0.5 * rng.standard_normal((n_races, n, 1))
        running = rng.random(score.shape) >= 1 / (1 + np.exp(-at))
        return rank(-np.where(running, score, score - FAR_BEHIND)), running

    ensemble = label(*draw(N_SCENARIOS, distortion))
    ideal, truth = draw(N_SCENARIOS, 1.0)[0], draw(4 * N_SCENARIOS, 1.0)[0]
    finish, running = draw(1, 1.0)
    results = pl.DataFrame(
        {
            "race_id": np.repeat(ensemble["race"].values, N_CARS),
            "race_order": np.repeat(ensemble["race_order"].values, N_CARS),
            "driver_id": ensemble["driver_id"].values.ravel().tolist(),
            "finish_position": finish.ravel(),
            "running": running.ravel(),
        }
    )
    return World(ensemble, results, ideal, truth)


def label(finish: NDArray, running: NDArray) -> xr.Dataset:
    """Make a user's ensemble of races of two seasons, a fold each."""
    n_races = len(finish)
    season = np.repeat(SEASONS, n_races // 2).astype(np.int32)
    round_ = np.tile(np.arange(1, n_races // 2 + 1), 2).astype(np.int32)
    order = 100 * season + round_
    incidents = [recover_incidents(one) for one in running]
    utility = [recover_utilities(order) for order in running_order(finish, running)]
    race, car, outcome = ("race",), ("race", "driver"), ("race", "scenario", "driver")
    drivers = np.tile([f"d{i:02d}" for i in range(N_CARS)], (n_races, 1))
    return xr.Dataset(
        {
            "finish_position": (outcome, finish.astype(np.int16)),
            "running": (outcome, running),
            "utility": (car, np.array(utility, np.float32)),
            "incident_logit": (car, np.array([logit for logit, _ in incidents], np.float32)),
            "chaos_scale": (race, np.array([scale for _, scale in incidents], np.float32)),
        },
        {
            "race": order.astype(np.int64),
            **{name: (race, values) for name, values in {"season": season, "round": round_}.items()},
            "race_order": (race, order),
            "track_id": (race, np.full(n_races, "kansas")),
            "archetype": (race, np.full(n_races, "intermediate")),
            "fold": (race, season.astype(str)),
            "field_size": (race, np.full(n_races, N_CARS, np.int16)),
            "network_as_of": (race, np.zeros(n_races, np.int32)),
            **dict.fromkeys(("driver_id", "name", "team", "make"), (car, drivers)),
            "start_position": (car, np.tile(np.arange(1, N_CARS + 1, dtype=np.int16), (n_races, 1))),
        },
    )


def finish_table(finish: NDArray) -> NDArray[np.float64]:
    """Finish probabilities of scenarios: (race, car, place)."""
    return finish_probabilities(finish, np.full(len(finish), N_CARS))


def expected_log_score(table: NDArray, truth: NDArray) -> float:
    """Log score of the second season's races, nats a car, expected over what may happen in them."""
    late = slice(len(truth) // 2, None)
    return float((finish_table(truth[late]) * np.log(table[late])).sum(axis=2).mean())


def recalibrate(one: World, seed: int = 3) -> tuple[xr.DataTree, xr.Dataset]:
    """Fit the latent map on each fold's past and rank anew."""
    fit = fit_archetype(one.ensemble, one.results, Archetype.INTERMEDIATE, SEASONS, seed=1)
    changes = draw_recalibrations(fit, one.ensemble, one.ensemble.sizes["scenario"], seed)
    return fit, rerank_races(one.ensemble, changes, seed)


def gains(one: World) -> dict[str, float]:
    """Gain in log score over the raw ensemble, nats a car: of the true law, and of the maps."""
    tables = {
        "truth": finish_table(one.ideal),
        "latent": finish_table(recalibrate(one)[1]["finish_position"].values),
        "marginal": map_tables(one.ensemble, one.results, SEASONS[1:]),
    }
    raw = expected_log_score(finish_table(one.ensemble["finish_position"].values), one.truth)
    return {name: expected_log_score(table, one.truth) - raw for name, table in tables.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    use_host_devices()
    lines = [
        "| law of the luck | simulator | lost | latent gains | won back | marginal gains | won back |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for law in LAWS:
        for name, factor in DISTORTIONS.items():
            gained = gains(world(law, factor))
            lost = 0.0 if factor == 1 else gained["truth"]
            cells = [
                f"{gained[kind]:+.4f} | {f'{gained[kind] / lost:.0%}' if lost else ''}"
                for kind in ("latent", "marginal")
            ]
            lines.append(f"| {law} | {name} | {lost:.4f} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    publish("\n".join([*lines, ""]), options.output)


if __name__ == "__main__":
    main()
