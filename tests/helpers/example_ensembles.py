"""Example ensembles of a user's forecaster in both file forms, and the entries of their races."""

import numpy as np
import polars as pl
import xarray as xr

N_SCENARIOS = 120
FIELDS = {202101: 36, 202102: 43, 202103: 38}


def entry_list(fields: dict[int, int] = FIELDS) -> pl.DataFrame:
    """Entries of races of the given field sizes, not in order."""
    rows = [
        {
            "race_id": race,
            "season": race // 100,
            "round": race % 100,
            "race_order": race,
            "track_id": "kansas",
            "archetype": "intermediate",
            "race_date": None,
            "driver_id": f"d{i:02d}",
            "driver": f"Driver {i}",
            "car_number": f"{i:02d}",
            "team": None,
            "make": "Ford",
            "start_position": n - i,
        }
        for race, n in fields.items()
        for i in range(n)
    ]
    return pl.DataFrame(rows, schema_overrides={"race_date": pl.Date, "team": pl.String})


def draw(n_cars: int, seed: int, n_scenarios: int = N_SCENARIOS) -> tuple[np.ndarray, np.ndarray]:
    """Finish and running of a race in which lower numbers are faster."""
    rng = np.random.default_rng(seed)
    utility = np.linspace(1.5, -1.5, n_cars)
    running = rng.random((n_scenarios, n_cars)) >= 0.1
    score = np.where(running, utility - rng.gumbel(size=running.shape), -50 - rng.random(running.shape))
    return (-score).argsort(axis=1).argsort(axis=1) + 1, running


def netcdf(fields: dict[int, int] = FIELDS, *, n_scenarios: int = N_SCENARIOS) -> xr.Dataset:
    """The documented NetCDF form, the cars in another order than the entries."""
    width = max(fields.values())
    outcome = ("race", "scenario", "driver")
    finish = np.zeros((len(fields), n_scenarios, width), np.int32)
    running = np.zeros(finish.shape, bool)
    driver = np.full((len(fields), width), "", "<U8")
    for r, (race, n) in enumerate(fields.items()):
        driver[r, :n] = [f"d{i:02d}" for i in range(n)]
        finish[r, :, :n], running[r, :, :n] = draw(n, race, n_scenarios)
    return xr.Dataset(
        {"finish_position": (outcome, finish), "running": (outcome, running)},
        {"race": list(fields), "driver_id": (("race", "driver"), driver)},
    )


def parquet(fields: dict[int, int] = FIELDS) -> pl.DataFrame:
    """The documented Parquet form of the same scenarios, shuffled."""
    frames = []
    for race, n in fields.items():
        finish, running = draw(n, race)
        scenario, car = np.indices(finish.shape)
        frames.append(
            pl.DataFrame(
                {
                    "season": race // 100,
                    "round": race % 100,
                    "scenario": scenario.ravel() + 500,
                    "driver": pl.Series([f"Driver {i}" for i in range(n)]).gather(car.ravel()),
                    "finish_position": finish.ravel(),
                    "running": running.ravel(),
                }
            )
        )
    return pl.concat(frames).sample(fraction=1.0, shuffle=True, seed=1)
