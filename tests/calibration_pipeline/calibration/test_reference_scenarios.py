"""Scenarios of the reference sharpness: all parameter draws of the network take part."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chisquare

from calibration_pipeline.calibration.race_curves import (
    REFERENCE_SCENARIOS,
    CurveArrays,
    choose_scenarios,
    reference_sharpness,
    scenario_running_order,
    tabulate_orders,
    tabulate_reference,
)

N_RACES, N_CARS, N_DRAWS = 24, 16, 64


def simulate(n_scenarios: int, spread: float, seed: int) -> xr.Dataset:
    """Scenario k has parameter draw k mod 64; a draw has its own sharpness, in every race."""
    rng = np.random.default_rng([seed, 3])
    log_strength = rng.normal(0, 1, (N_RACES, 1, N_CARS)).astype(np.float32)
    sharpness = np.exp(spread * rng.standard_normal(N_DRAWS))[np.arange(n_scenarios) % N_DRAWS, None]
    luck = rng.gumbel(size=(N_RACES, n_scenarios, N_CARS))
    finish = (luck - sharpness * log_strength).argsort(axis=2).argsort(axis=2) + 1
    return xr.Dataset(
        {
            "finish_position": (("race", "scenario", "driver"), finish.astype(np.int16)),
            "utility": (("race", "driver"), log_strength[:, 0]),
        },
        {"race": np.arange(202101, 202101 + N_RACES)},
    )


def evenly_spaced(n_scenarios: int) -> np.ndarray:
    step = n_scenarios // REFERENCE_SCENARIOS
    return np.tile(np.arange(0, step * REFERENCE_SCENARIOS, step), (N_RACES, 1))


def log_reference(ensemble: xr.Dataset, chosen: np.ndarray) -> float:
    drawn = scenario_running_order(ensemble, chosen)
    tables = tabulate_orders(ensemble["utility"].values, drawn)
    surface = tabulate_reference(tables)
    curves = CurveArrays(tables[:, 0], tables[:, 0], surface, tables[:, 0], surface)
    return float(reference_sharpness(curves, np.ones(N_RACES)).log_slope)


@pytest.mark.parametrize("n_scenarios", [1024, 2048, 4096, 10_000])
def test_all_parameter_draws_are_about_equally_represented(n_scenarios):
    """Evenly spaced scenarios see at most eight of the 64 draws; random ones see all."""
    ensemble = xr.Dataset(coords={"race": np.arange(202101, 202149), "scenario": np.arange(n_scenarios)})
    chosen = choose_scenarios(ensemble, REFERENCE_SCENARIOS, seed=1)
    assert chosen.shape == (48, REFERENCE_SCENARIOS)
    assert ((chosen >= 0) & (chosen < n_scenarios)).all()
    assert all(len(set(race)) == REFERENCE_SCENARIOS for race in chosen.tolist())
    n_seen = np.bincount(chosen.ravel() % N_DRAWS, minlength=N_DRAWS)
    assert n_seen.min() >= 8
    assert n_seen.max() <= 48
    assert chisquare(n_seen).pvalue > 1e-3
    assert len(np.unique(evenly_spaced(n_scenarios) % N_DRAWS)) <= 8


def test_a_choice_depends_on_seed_and_race_alone():
    ensemble = xr.Dataset(coords={"race": [202101, 202102, 202103], "scenario": np.arange(500)})
    chosen = choose_scenarios(ensemble, REFERENCE_SCENARIOS, seed=1)
    alone = choose_scenarios(ensemble.isel(race=[1]), REFERENCE_SCENARIOS, seed=1)
    np.testing.assert_array_equal(alone[0], chosen[1])
    assert (chosen[0] != chosen[1]).any()
    assert (choose_scenarios(ensemble, REFERENCE_SCENARIOS, seed=2) != chosen).any()
    few = choose_scenarios(ensemble.isel(scenario=slice(20)), REFERENCE_SCENARIOS, seed=1)
    np.testing.assert_array_equal(np.sort(few, axis=1), np.tile(np.arange(20), (3, 1)))
    assert choose_scenarios(ensemble.isel(race=[]), REFERENCE_SCENARIOS, seed=1).shape == (0, 32)


@pytest.mark.slow
def test_the_reference_varies_less_over_seeds():
    """With 2,048 scenarios the evenly spaced ones all have draw 0, and its sharpness for the ensemble's."""
    random, even = [], []
    for seed in range(10):
        ensemble = simulate(2048, 0.3, seed)
        random.append(log_reference(ensemble, choose_scenarios(ensemble, REFERENCE_SCENARIOS, seed)))
        even.append(log_reference(ensemble, evenly_spaced(2048)))
    assert np.std(even, ddof=1) > 0.15
    assert np.std(random, ddof=1) < np.std(even, ddof=1) / 3


@pytest.mark.slow
def test_the_reference_hardly_depends_on_the_seed_of_the_choice():
    ensemble = simulate(4096, 0.3, seed=4)
    found = [
        log_reference(ensemble, choose_scenarios(ensemble, REFERENCE_SCENARIOS, seed)) for seed in range(8)
    ]
    assert np.std(found, ddof=1) < 0.04
