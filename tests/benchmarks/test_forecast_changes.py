"""Comparison of two commits' forecasts: cases, slopes, number of retirements, and pairing by race."""

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit, ndtr

from benchmarks.forecast_cases import Cases, list_cases, read_cases, write_cases
from benchmarks.forecast_changes import (
    COMPARISONS,
    change_rows,
    largest_retirement_z,
    retirement_moments,
    retirement_z,
    score_counts,
)
from benchmarks.result_files import read_results
from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.stats.intervals import Estimate
from calibration_pipeline.verification.verdicts.slopes import head_to_head_slope, retirement_slope, win_slope
from helpers import planted_races
from helpers.planted_races import planted, planted_calendar

N_RACES, N_CARS = 60, 8


def simulated_cars(rng: np.random.Generator, power: float) -> pl.DataFrame:
    """Cars whose winner is drawn from `power` times the log of their win probabilities."""
    win = rng.dirichlet(np.full(N_CARS, 0.7), N_RACES).clip(1e-4)
    true = win**power / (win**power).sum(axis=1, keepdims=True)
    winner = [rng.choice(N_CARS, p=p) for p in true]
    retire = rng.uniform(0.02, 0.5, (N_RACES, N_CARS))
    return pl.DataFrame(
        {
            "race": np.repeat(np.arange(N_RACES), N_CARS),
            "win": win.ravel(),
            "won": (np.arange(N_CARS) == np.array(winner)[:, None]).ravel(),
            "retire": retire.ravel(),
            "retired": (rng.random(retire.shape) < retire).ravel(),
        }
    )


def win_temperature(cars: pl.DataFrame) -> Estimate | None:
    return win_slope(*(cars[name].to_numpy() for name in ("win", "won", "race")))


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


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Races of 2021 and 2022 of all archetypes."""
    ensembles, results = planted_calendar(1.0, races_each=8)
    return list_cases(list(ensembles.values()), results)


def four_forecasts(cases: Cases, **changed: Cases) -> dict[str, Cases]:
    names = ("old raw", "old recalibrated", "new raw", "new recalibrated")
    return {name: changed.get(name.replace(" ", "_"), cases) for name in names}


def by_name(rows: list) -> dict[tuple[str, str, str, str], dict]:
    return {
        tuple(row[column] for column in ("seasons", "races", "quantity", "forecast")): row for row in rows
    }


def test_cases_are_those_of_scenarios_and_results():
    ensemble, results = planted(1.0, n_races=4)
    found = list_cases([ensemble], results)
    n_cars, n_scenarios = planted_races.N_CARS, planted_races.N_SCENARIOS
    out = ~ensemble["running"].values
    assert found.cars["race"].to_list() == results["race_id"].to_list()
    assert found.cars["won"].to_list() == (results["finish_position"] == 1).to_list()
    assert found.cars["retired"].to_list() == (~results["running"]).to_list()
    wins = (ensemble["finish_position"].values == 1).sum(axis=1)
    np.testing.assert_allclose(found.cars["win"], (wins.ravel() + 0.5) / (n_scenarios + n_cars / 2))
    np.testing.assert_allclose(found.cars["retire"], (out.sum(axis=1).ravel() + 0.5) / (n_scenarios + 1))
    assert found.pairs.height == 4 * n_cars * (n_cars - 1) // 2
    mean, variance = retirement_moments(found.races)
    np.testing.assert_allclose(mean, out.sum(axis=2).mean(axis=1))
    np.testing.assert_allclose(variance, out.sum(axis=2).var(axis=1))
    assert found.races["retired"].to_list() == (~results["running"]).to_numpy().reshape(4, -1).sum(1).tolist()
    assert {len(numbers) for numbers in found.races["scenarios"]} == {n_cars + 1}


def test_cases_are_read_as_written(cases, tmp_path):
    write_cases({"raw": cases}, tmp_path)
    for written, read in zip(cases, read_cases("raw", tmp_path), strict=True):
        assert read.equals(written)


def test_probabilities_of_numbers_of_retirements_add_to_1(cases):
    race = cases.races.head(1)
    every = pl.concat(race.with_columns(retired=pl.lit(k)) for k in range(planted_races.N_CARS + 1))
    assert np.exp(score_counts(every)).sum() == pytest.approx(1)
    numbers = race["scenarios"][0].to_list()
    expected = (np.array(numbers) + 0.5) / (planted_races.N_SCENARIOS + (planted_races.N_CARS + 1) / 2)
    np.testing.assert_allclose(np.exp(score_counts(every)), expected)


def test_the_largest_z_has_the_p_value_of_independent_normal_archetypes():
    """Sums over many races are nearly normal."""
    ensembles, results = planted_calendar(1.0, races_each=48)
    races = list_cases(list(ensembles.values()), results).races
    z = {str(a): abs(retirement_z(races.filter(archetype=str(a)))) for a in ARCHETYPES}
    largest, p_value = largest_retirement_z(races)
    assert largest == max(z.values())
    assert p_value == pytest.approx(1 - (1 - 2 * ndtr(-largest)) ** len(ARCHETYPES), abs=0.02)


def test_too_few_forecast_retirements_give_a_large_z():
    ensemble, results = planted(1.0, incident_shift=0.8, archetype=Archetype.SHORT_TRACK)
    races = list_cases([ensemble], results).races
    assert retirement_z(races) > 3
    assert largest_retirement_z(races)[1] < 0.001


def test_changes_are_paired_by_race(cases):
    better = cases._replace(
        cars=cases.cars.with_columns(pl.col("log_score") + 0.25, win=pl.col("win") * np.exp(0.5))
    )
    found = by_name(change_rows(four_forecasts(cases, new_recalibrated=better), range(2021, 2023)))
    for first, second in COMPARISONS:
        gain = 0.25 * (first == "new recalibrated")
        row = found["2021-2022", "all", "log_score", f"{first} - {second}"]
        assert [row[f"value{end}"] for end in ("", "_lower", "_upper")] == [f"{gain:.4f}"] * 3
    row = found["2021-2022", "short_track", "winner_log_score", "new recalibrated - old raw"]
    assert row["value"] == "0.5000"
    temperatures = {
        found["2021-2022", "all", "win_temperature", name]["value"] for name in four_forecasts(cases)
    }
    assert len(temperatures) == 1


def test_the_new_car_is_listed_by_archetype_and_other_eras_are_pooled(cases):
    """The cases hold no race of 2020, and those of 2022 stand for 2023 too."""
    later = [
        frame.filter(season=2022).with_columns(season=pl.lit(2023, pl.Int32), race=pl.col("race") + 100)
        for frame in cases
    ]
    longer = Cases(*(pl.concat(pair) for pair in zip(cases, later, strict=True)))
    rows = change_rows(four_forecasts(longer), range(2020, 2024))
    found = by_name(rows)
    assert len(found) == len(rows)
    seen = {(seasons, races) for seasons, races, *_ in found}
    pooled, archetypes = {"all", "without superspeedways"}, {str(kind) for kind in ARCHETYPES}
    assert {races for seasons, races in seen if seasons == "2021-2023"} == pooled
    for era in ("2020-2023", "2022-2023"):
        assert {races for seasons, races in seen if seasons == era} == pooled | archetypes
    assert {seasons for seasons, _ in seen} == {"2020-2023", "2021-2023", "2022-2023"}
    assert found["2022-2023", "all", "retirements", "observed"]["n_races"] == 32
    labels = {"scenarios", "before_commit"}
    assert labels | rows[0].keys() == read_results("forecast_changes")[0].keys()


def test_other_results_are_refused(cases):
    other = cases._replace(races=cases.races.with_columns(pl.col("retired") + 1))
    with pytest.raises(ValueError, match="must hold the same races and results"):
        change_rows(four_forecasts(cases, old_raw=other), range(2021, 2023))
