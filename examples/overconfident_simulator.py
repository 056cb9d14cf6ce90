"""Overconfident simulator of the simulated seasons: it keeps only 40 % of the luck.

    python examples/overconfident_simulator.py overconfident.nc
    calibration-pipeline run --forecasters overconfident.nc

`docs/ensembles.md` explains the report. `write` shows the form of the file for your own simulator.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit, logit

from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

LUCK_KEPT = 0.4


def simulate(
    ability: NDArray, law: xr.Dataset, n_scenarios: int, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Draw scenarios of one race: finish and running, both (scenario, car).

    Running cars rank by ability plus luck. Any car may retire; chaos makes retirements more frequent in some
    scenarios. Retired cars fill the last positions in random order.
    """
    shape = (n_scenarios, len(ability))
    luck = LUCK_KEPT * law["luck_scale"].item() * rng.standard_t(4, shape)
    chaos = law["chaos_scale"].item() * rng.standard_normal((n_scenarios, 1))
    running = rng.random(shape) >= expit(logit(law["incident_rate"].item()) + chaos)
    score = np.where(running, ability + luck, -1e3 - rng.random(shape))
    return (-score).argsort(axis=1).argsort(axis=1) + 1, running


def simulate_entries(
    entries: pl.DataFrame, truth: xr.Dataset, n_scenarios: int, seed: int
) -> dict[int, tuple[list[str], NDArray, NDArray]]:
    """Draw scenarios of every race of an entry list; return race_id -> drivers, finish and running."""
    races = {}
    for (race_id,), cars in entries.group_by("race_id", maintain_order=True):
        law = truth.sel(archetype=cars["archetype"][0])
        drivers = cars["driver_id"].to_list()
        strength = law["sharpness"] * (law["skill"] + law["team_strength"])
        ability = strength.sel(driver=drivers).values
        rng = np.random.default_rng([seed, race_id])
        races[race_id] = drivers, *simulate(ability, law, n_scenarios, rng)
    return races


def write(races: dict[int, tuple[list[str], NDArray, NDArray]], path: Path) -> None:
    """Write scenarios as NetCDF: finish_position and running by race, scenario and driver.

    The `driver` axis is as wide as the widest field. Free slots of a smaller field hold '', 0 and False.
    """
    width = max(len(drivers) for drivers, _, _ in races.values())
    n_scenarios = len(next(iter(races.values()))[1])
    driver_id = np.full((len(races), width), "", dtype="<U32")
    finish = np.zeros((len(races), n_scenarios, width), np.int16)
    running = np.zeros(finish.shape, bool)
    for r, (drivers, positions, still_running) in enumerate(races.values()):
        driver_id[r, : len(drivers)] = drivers
        finish[r, :, : len(drivers)] = positions
        running[r, :, : len(drivers)] = still_running
    outcome = ("race", "scenario", "driver")
    xr.Dataset(
        {"finish_position": (outcome, finish), "running": (outcome, running)},
        {"race": list(races), "driver_id": (("race", "driver"), driver_id)},
    ).to_netcdf(
        path, engine="h5netcdf", encoding={"finish_position": {"zlib": True}, "running": {"zlib": True}}
    )


def main(arguments: list[str] | None = None) -> None:
    """Simulate the races of the seasons, and the next race."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="file to write, .nc")
    parser.add_argument("--first", type=int, default=2022, help="first season")
    parser.add_argument("--last", type=int, default=2025, help="last season")
    parser.add_argument("--scenarios", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=42, help="seed of the simulated source")
    options = parser.parse_args(arguments)
    seasons = range(options.first, options.last + 1)
    # One more season, so that the next race has scenarios and a forecast.
    source = SimulatedSource([*seasons, options.last + 1], compile_constraints(), seed=options.seed)
    entries = {season: source.load_season(season).race_results for season in seasons}
    entries[options.last + 1] = source.next_race(options.last).entries
    races = {
        race_id: scenarios
        for season, cars in entries.items()
        for race_id, scenarios in simulate_entries(
            cars, source.truth(season), options.scenarios, options.seed
        ).items()
    }
    write(races, options.path)
    print(f"{options.scenarios} scenarios of {len(races)} races are in {options.path}.")  # noqa: T201


if __name__ == "__main__":
    main()
