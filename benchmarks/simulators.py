"""Recalibration of right and distorted simulators of known truth: benchmarks/results/simulators.csv.

    python -m benchmarks.simulators

Two seasons have 48 races each, 32 cars and 1,000 scenarios. The marginal map is fitted on the first season
and applied to the second. The latent map's state before a race follows all earlier races. Log scores are
expectations under the true law, so that only the fit is random.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from benchmarks.recalibration import fit_state, map_tables
from benchmarks.result_files import Row, output_parser, write_results
from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.archetype_fit import fit_archetype
from calibration_pipeline.calibration.recalibration import draw_recalibrations
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.log_strengths import (
    recover_incidents,
    recover_log_strengths,
    running_order,
)
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
"""Law of the noise -> (generator, shape (race, scenario, car)) -> noise, added to the log strengths."""
DISTORTIONS = {"right": 1.0, "too sure (log strengths / 0.6)": 1 / 0.6, "too cautious (x 0.6)": 0.6}


class World(NamedTuple):
    """A distorted ensemble, the results, and finish positions drawn from the true law.

    `ideal` has the size of the ensemble, `truth` four times as many scenarios.
    """

    ensemble: xr.Dataset
    results: pl.DataFrame
    ideal: NDArray[np.int64]
    truth: NDArray[np.int64]


def world(law: str, distortion: float, n_races: int = 96, seed: int = 0) -> World:
    """Draw races of a law, and an ensemble of a simulator that multiplies log strengths by `distortion`."""
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
    """Return a user's ensemble of races of two seasons, a fold each."""
    n_races = len(finish)
    season = np.repeat(SEASONS, n_races // 2).astype(np.int32)
    round_ = np.tile(np.arange(1, n_races // 2 + 1), 2).astype(np.int32)
    order = 100 * season + round_
    incidents = [recover_incidents(race_running) for race_running in running]
    utility = [recover_log_strengths(order) for order in running_order(finish, running)]
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
    """Return the finish probabilities of scenarios: (race, car, position)."""
    return finish_probabilities(finish, np.full(len(finish), N_CARS))


def expected_log_score(table: NDArray, truth: NDArray) -> float:
    """Return the expected log score of the second season's races under the true law, nats a car."""
    late = slice(len(truth) // 2, None)
    return float((finish_table(truth[late]) * np.log(table[late])).sum(axis=2).mean())


def recalibrate(races: World, seed: int = 3) -> tuple[xr.DataTree, xr.Dataset]:
    """Fit the latent map and the state before each race, and re-rank the cars."""
    curves, _, state = fit_state([races.ensemble], races.results, SEASONS)
    fit = fit_archetype(races.ensemble, races.results, curves, Archetype.INTERMEDIATE, SEASONS, seed=1)
    changes = draw_recalibrations(
        state["races"].to_dataset(), races.ensemble, races.ensemble.sizes["scenario"], seed
    )
    return fit, rerank_races(races.ensemble, changes, seed)


def gains(races: World) -> dict[str, float]:
    """Return the gain in log score over the raw ensemble, nats a car, of the true law and of the maps."""
    tables = {
        "truth": finish_table(races.ideal),
        "latent": finish_table(recalibrate(races)[1]["finish_position"].values),
        "marginal": map_tables(races.ensemble, races.results, SEASONS[1:]),
    }
    raw = expected_log_score(finish_table(races.ensemble["finish_position"].values), races.truth)
    return {name: expected_log_score(table, races.truth) - raw for name, table in tables.items()}


def main() -> None:
    """Run the benchmark."""
    options = output_parser(__doc__).parse_args()
    use_host_devices()
    rows: list[Row] = []
    for law in LAWS:
        for name, factor in DISTORTIONS.items():
            gained = gains(world(law, factor))
            lost = 0.0 if factor == 1 else gained["truth"]
            row = {"law": law, "simulator": name, "lost": f"{lost:.4f}"}
            for name_of_map in ("latent", "marginal"):
                gain = gained[name_of_map]
                row[f"{name_of_map}_gained"] = f"{gain:.4f}"
                row[f"{name_of_map}_won_back_percent"] = f"{100 * gain / lost:.0f}" if lost else ""
            rows.append(row)
            print(row, flush=True)
    write_results("simulators", rows, options.output)


if __name__ == "__main__":
    main()
