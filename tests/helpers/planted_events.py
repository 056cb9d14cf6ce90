"""Event probabilities with a planted calibration slope, and results with the fixed number of winners."""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import logit

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.event_map.predictive import renormalise
from calibration_pipeline.event_map.races import EventRaces, as_event_races
from calibration_pipeline.markets import EVENT_MARKETS


def planted_probabilities(
    slope: float | NDArray, log_strength: NDArray[np.float64], n_winners: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return forecasts and the true probabilities that the map of the slope makes of them: (race, car)."""
    cars = np.ones(log_strength.shape, bool)
    truth = renormalise(log_strength, cars, n_winners)
    slopes = np.broadcast_to(slope, len(cars))[:, None]
    return renormalise(logit(truth) / slopes, cars, n_winners), truth


def draw_winners(truth: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the winners of races, as many as the probabilities sum to, by systematic sampling.

    Each car wins with its own probability (Madow 1949, doi:10.1214/aoms/1177729988).
    """
    won = np.zeros(truth.shape, bool)
    for race, p in enumerate(truth):
        order = rng.permutation(len(p))
        ends = np.cumsum(p[order])
        won[race, order] = np.diff(np.floor(ends - rng.random() + 1e-9), prepend=-1.0) > 0
    return won


def planted_events(
    slope: float | NDArray, n_races: int, market: str, *, n_cars: int = 36, seed: int = 0
) -> tuple[EventRaces, NDArray[np.float64]]:
    """Make races of one market and their true probabilities."""
    rng = np.random.default_rng(seed)
    log_strength = rng.normal(0, 1, (n_races, n_cars))
    probability, truth = planted_probabilities(slope, log_strength, EVENT_MARKETS[market])
    return as_event_races(probability, np.ones(truth.shape, bool), draw_winners(truth, rng)), truth


def planted_frames(
    slope: float | NDArray,
    markets: tuple[str, ...] = ("win", "top 10"),
    *,
    n_seasons: int = 2,
    season_races: int = 36,
    n_cars: int = 36,
    seed: int = 0,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Make the forecasts of a calendar in which archetypes take turns, its results, and the truth.

    Of several markets, the results are drawn for the last one. Its winners are ranked by the ordinary
    Plackett-Luce law, so that the slopes of the other markets are near the planted one.
    """
    rng = np.random.default_rng(seed)
    n = n_seasons * season_races
    season, round_ = 2020 + np.arange(n) // season_races, 1 + np.arange(n) % season_races
    order = np.repeat(100 * season + round_, n_cars)
    driver = [f"d{car:02d}" for car in range(n_cars)] * n
    log_strength = rng.normal(0, 1, (n, n_cars))
    frames, truths = [], []
    for market in markets:
        probability, truth = planted_probabilities(slope, log_strength, EVENT_MARKETS[market])
        frame = {"race_id": order, "driver_id": driver, "market": [market] * len(order)}
        frames.append(pl.DataFrame({**frame, "probability": probability.ravel()}))
        truths.append(pl.DataFrame({**frame, "truth": truth.ravel()}))
    ahead = 1e3 * draw_winners(truth, rng) + log_strength + rng.gumbel(size=truth.shape)
    results = pl.DataFrame(
        {
            "race_id": order,
            "driver_id": driver,
            "season": np.repeat(season, n_cars),
            "round": np.repeat(round_, n_cars),
            "race_order": order,
            "archetype": np.repeat([str(ARCHETYPES[k % 4]) for k in range(n)], n_cars),
            "finish_position": (1 + np.argsort(np.argsort(-ahead, axis=1), axis=1)).ravel(),
        }
    )
    return pl.concat(frames), results, pl.concat(truths)
