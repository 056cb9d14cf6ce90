"""Comparison of two commits' forecasts: reference values of its slopes, and pairing by race."""

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from benchmarks.forecast_changes import change_rows
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.stats.intervals import Estimate
from calibration_pipeline.verification.scores import head_to_head_slope
from calibration_pipeline.verification.verdicts.slopes import retirement_slope, win_slope

N_RACES, N_CARS = 60, 8


def simulated_cars(rng: np.random.Generator, power: float) -> pl.DataFrame:
    """Cars whose winner is drawn from `power` times the log of their win probabilities."""
    win = rng.dirichlet(np.full(N_CARS, 0.7), N_RACES).clip(1e-4)
    true = win**power / (win**power).sum(axis=1, keepdims=True)
    winner = [rng.choice(N_CARS, p=p) for p in true]
    retire = rng.uniform(0.02, 0.5, (N_RACES, N_CARS))
    archetype = np.array([str(kind) for kind in ARCHETYPES])[np.arange(N_RACES) % len(ARCHETYPES)]
    return pl.DataFrame(
        {
            "race": np.repeat(np.arange(N_RACES), N_CARS),
            "archetype": np.repeat(archetype, N_CARS),
            "log_score": rng.normal(-3, 0.5, N_RACES * N_CARS),
            "win": win.ravel(),
            "won": (np.arange(N_CARS) == np.array(winner)[:, None]).ravel(),
            "retire": retire.ravel(),
            "retired": (rng.random(retire.shape) < retire).ravel(),
        }
    )


def win_temperature(cars: pl.DataFrame) -> Estimate | None:
    return win_slope(*(cars[name].to_numpy() for name in ("win", "won", "race")))


def simulated_pairs(cars: pl.DataFrame) -> pl.DataFrame:
    """Pairs of the first two cars of each race, one of which is ahead."""
    first = cars.filter(pl.int_range(pl.len()).over("race") == 0)
    return first.select("race", "archetype", ahead="retire", won="retired")


def test_the_temperature_of_two_cars_is_the_head_to_head_slope():
    """With two cars, conditional logistic regression is the regression on the logit."""
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.95, 200)
    first_won = rng.random(200) < p
    cars = pl.DataFrame(
        {
            "race": np.repeat(np.arange(200), 2),
            "win": np.stack([p, 1 - p], axis=1).ravel(),
            "won": np.stack([first_won, ~first_won], axis=1).ravel(),
        }
    )
    found, expected = win_temperature(cars), head_to_head_slope(p, first_won, np.arange(200))
    for end in ("estimate", "lower", "upper"):
        assert getattr(found, end) == pytest.approx(getattr(expected, end), rel=1e-6)


@pytest.mark.parametrize("power", [0.6, 1.0])
def test_the_temperature_is_recovered(power):
    found = [win_temperature(simulated_cars(np.random.default_rng(seed), power)) for seed in range(20)]
    inside = sum(estimate.lower < power < estimate.upper for estimate in found)
    assert inside >= 16
    assert np.mean([estimate.estimate for estimate in found]) == pytest.approx(power, abs=0.1)


def test_there_is_no_temperature_where_every_favourite_wins():
    cars = simulated_cars(np.random.default_rng(3), 1.0)
    sure = cars.with_columns(won=pl.col("win") == pl.col("win").max().over("race"))
    assert win_temperature(sure) is None


def test_the_retirement_slope_is_that_of_a_logistic_regression():
    cars = simulated_cars(np.random.default_rng(4), 1.0)
    x, y = logit(cars["retire"].to_numpy()), cars["retired"].to_numpy()

    def loss(at: np.ndarray) -> float:
        p = expit(at[0] + at[1] * x)
        return float(-np.where(y, np.log(p), np.log1p(-p)).sum())

    found = retirement_slope(cars["retire"].to_numpy(), y, cars["race"].to_numpy())
    assert found.estimate == pytest.approx(minimize(loss, np.zeros(2)).x[1], abs=1e-4)
    assert found.lower < found.estimate < found.upper
    assert found.n_races == N_RACES


def test_changes_are_paired_by_race():
    cars = simulated_cars(np.random.default_rng(5), 1.0)
    pairs = simulated_pairs(cars)
    better = cars.with_columns(pl.col("log_score") + 0.25, win=pl.col("win") * np.exp(0.5))
    rows = {(row["races"], row["quantity"]): row for row in change_rows((cars, pairs), (better, pairs))}
    pooled = rows["all", "log_score"]
    assert (pooled["change"], pooled["change_lower"], pooled["change_upper"]) == ("0.2500",) * 3
    assert rows["short_track", "winner_log_score"]["change"] == "0.5000"
    assert rows["all", "win_temperature"]["before"] == rows["all", "win_temperature"]["after"]
    assert rows["all", "head_to_head_slope"]["change"] == ""
    assert len(rows) == 5 * (2 + len(ARCHETYPES))


def test_other_results_are_refused():
    cars = simulated_cars(np.random.default_rng(6), 1.0)
    pairs = simulated_pairs(cars)
    with pytest.raises(ValueError, match="must hold the same races and results"):
        change_rows((cars, pairs), (cars.with_columns(won=~pl.col("won")), pairs))
