"""Forecasters of simulated races with known skill, as backtests and as event probabilities."""

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.comparison.market_scores import score_markets
from calibration_pipeline.comparison.race_probabilities import climatology_of, read_backtests
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head

N_CARS = 16
ARCHETYPES = ("intermediate", "short_track")


def draw_finishes(log_strength: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Finish orders with Gumbel luck, (n, car)."""
    score = log_strength - rng.gumbel(size=(n, log_strength.size))
    return (-score).argsort(axis=1).argsort(axis=1) + 1


def make_backtests(
    sharpness: dict[str, float],
    n_races: int = 40,
    seed: int = 0,
    noise: dict[str, float] | None = None,
    n_scenarios: int = 400,
) -> dict[str, list[xr.Dataset]]:
    """Backtests by forecaster, two archetypes that take turns; sharpness 1 without noise is the truth.

    The raw forecast has the sharpness; the recalibrated one has its square root.
    """
    rng = np.random.default_rng([seed, 5])
    strength = rng.normal(0, 1.2, (n_races, N_CARS))
    result = np.array([draw_finishes(row, 1, rng)[0] for row in strength])
    backtests = {}
    for place, (name, factor) in enumerate(sharpness.items()):
        own_rng = np.random.default_rng([seed, place, 7])
        believed = strength + (noise or {}).get(name, 0.0) * own_rng.normal(size=strength.shape)
        scenarios = {
            "raw": [draw_finishes(factor * row, n_scenarios, own_rng) for row in believed],
            "recalibrated": [draw_finishes(factor**0.5 * row, n_scenarios, own_rng) for row in believed],
        }
        backtests[name] = [
            as_backtest({kind: np.array(drawn)[k::2] for kind, drawn in scenarios.items()}, result[k::2], k)
            for k in range(2)
        ]
    return backtests


def as_backtest(scenarios: dict[str, np.ndarray], result: np.ndarray, place: int) -> xr.Dataset:
    """A `Backtest` of one archetype from scenarios (race, scenario, car) and finishes (race, car)."""
    n_races, n_cars = result.shape
    size = np.full(n_races, n_cars, np.int16)
    index = 2 * np.arange(n_races) + place
    season, round_ = 2021 + index // 20, 1 + index % 20
    race, car = ("race",), ("race", "driver")
    position, pair = (*car, "position"), (*car, "opponent")
    # Not in the order of their names, and another order in each race.
    drivers = np.array([np.roll([f"d{(7 * i) % n_cars:02d}" for i in range(n_cars)], r) for r in index])
    zero = np.zeros(n_races, np.int32)
    variables = {
        "finish_position": (car, result.astype(np.int16)),
        "share_beaten": (car, np.full(result.shape, 0.5)),
    }
    for name, finish in scenarios.items():
        variables[name] = (position, finish_probabilities(finish, size))
        variables[f"{name}_head_to_head"] = (pair, head_to_head(finish, size))
    return xr.Dataset(
        variables,
        {
            "race": (1000 + index).astype(np.int64),
            "season": (race, season.astype(np.int32)),
            "round": (race, round_.astype(np.int32)),
            "race_order": (race, (100 * season + round_).astype(np.int32)),
            "archetype": (race, np.full(n_races, ARCHETYPES[place])),
            "track_id": (race, np.full(n_races, "kansas")),
            "fold": (race, season.astype(str)),
            "field_size": (race, size),
            "calibration_as_of": (race, zero),
            "network_as_of": (race, zero),
            "n_calibration_races": (race, zero),
            **dict.fromkeys(("driver_id", "name", "team", "make"), (car, drivers)),
            "start_position": (car, np.tile(np.arange(1, n_cars + 1, dtype=np.int16), (n_races, 1))),
            "position": np.arange(1, n_cars + 1),
        },
    )


def results_of(backtests: list[xr.Dataset]) -> pl.DataFrame:
    """Results of the races of backtests, a row a car."""
    return pl.concat(
        pl.DataFrame(
            {
                **{
                    name: np.repeat(part[key].values, N_CARS).astype(dtype).tolist()
                    for name, key, dtype in (
                        ("race_id", "race", int),
                        ("season", "season", int),
                        ("race_order", "race_order", int),
                        ("archetype", "archetype", str),
                    )
                },
                "driver_id": part["driver_id"].values.ravel().tolist(),
                "finish_position": part["finish_position"].values.ravel().astype(int).tolist(),
            }
        )
        for part in backtests
    )


def scores_of(backtests: dict[str, list[xr.Dataset]]) -> pl.DataFrame:
    """`MarketScores` of forecasters, one of which is the network, and of climatology."""
    forecasts = {name: read_backtests(own) for name, own in backtests.items()}
    forecasts["climatology"] = climatology_of(forecasts.values())
    return pl.concat(score_markets(name, own, forecasts[NETWORK]) for name, own in forecasts.items())


def event_frame(backtests: list[xr.Dataset]) -> pl.DataFrame:
    """Event probabilities of backtests, a row a race, car, market and forecast."""
    frames = []
    for part in backtests:
        for forecast in ("raw", "recalibrated"):
            cumulative = np.clip(part[forecast].values.cumsum(axis=2), 0, 1)
            for market, top in EVENT_MARKETS.items():
                if top < N_CARS:
                    frames.append(
                        pl.DataFrame(
                            {
                                "race_id": np.repeat(part["race"].values, N_CARS),
                                "driver_id": part["driver_id"].values.ravel().tolist(),
                                "probability": cumulative[:, :, top - 1].ravel(),
                            }
                        ).with_columns(market=pl.lit(market), forecast=pl.lit(forecast))
                    )
    return pl.concat(frames)
