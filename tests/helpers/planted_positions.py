"""Position probabilities with a planted calibration slope, and results drawn from the truth."""

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios.covariates import race_slots
from calibration_pipeline.scenarios.probabilities import finish_probabilities
from calibration_pipeline.scenarios.races import race_coordinates
from calibration_pipeline.schemas.forecasters import PositionProbabilities
from calibration_pipeline.stats.ranking import rank

N_SCENARIOS = 2000


def planted_positions(
    slope: float,
    *,
    n_seasons: int = 2,
    season_races: int = 24,
    n_cars: int = 16,
    fold_races: int = 12,
    seed: int = 0,
) -> tuple[xr.Dataset, pl.DataFrame, NDArray[np.float64]]:
    """Make `PositionProbabilities`, results, and the true probabilities (race, driver, position).

    Archetypes take turns. Finishes have the ordinary Plackett-Luce law; the slope is the power to which a
    car's forecast is raised to give its true probabilities.
    """
    rng = np.random.default_rng(seed)
    n = n_seasons * season_races
    log_strength = rng.normal(0, 1, (n, 1, n_cars))
    finish = rank(-(log_strength + rng.gumbel(size=(n, N_SCENARIOS + 1, n_cars))))
    truth = finish_probabilities(finish[:, 1:], np.full(n, n_cars))
    forecast = truth ** (1 / slope)
    forecast /= forecast.sum(axis=2, keepdims=True)
    season, round_ = 2020 + np.arange(n) // season_races, 1 + np.arange(n) % season_races
    race = 100 * season + round_
    driver = [f"d{car:02d}" for car in range(n_cars)] * n
    entries = pl.DataFrame(
        {
            "race_id": race,
            "season": season,
            "round": round_,
            "race_order": race,
            "track_id": ["kansas"] * n,
            "archetype": [str(ARCHETYPES[k % 4]) for k in range(n)],
        }
    ).select(pl.all().repeat_by(n_cars).explode(empty_as_null=True))
    entries = entries.with_columns(
        race_date=pl.lit(None, pl.Date),
        driver_id=pl.Series(driver),
        driver=pl.Series(driver),
        **dict.fromkeys(("car_number", "team", "make"), pl.lit("1")),
        start_position=pl.Series(np.tile(np.arange(1, n_cars + 1), n)),
    )
    labels = race_coordinates(race_slots(entries), n_cars, fold_races)
    forecasts = xr.Dataset({"probability": (("race", "driver", "position"), forecast)}, labels)
    results = entries.with_columns(finish_position=pl.Series(finish[:, 0].ravel().astype(np.int64)))
    return PositionProbabilities.validate(forecasts), results, truth
