"""Utilities and incidents recovered from scenarios alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration_pipeline.scenarios.log_strengths import (
    recover_incidents,
    recover_log_strengths,
    running_order,
)
from calibration_pipeline.stats.plackett_luce import log_probability

N_CARS = 30


def orders(utility: np.ndarray, n: int, rng: np.random.Generator, out_chance: float = 0.0) -> np.ndarray:
    """Running orders of the reverse Plackett-Luce law, 0 for the retired."""
    score = utility - rng.gumbel(size=(n, utility.size))
    finish = (-score).argsort(axis=1).argsort(axis=1) + 1
    return running_order(finish, rng.random(finish.shape) >= out_chance)


@pytest.mark.parametrize("spread", [0.5, 1.2, 3.0])
def test_planted_utilities_are_recovered(spread: float) -> None:
    """Errors are of the size that 2,000 scenarios allow, and the scale is right within 1 %."""
    rng = np.random.default_rng(1)
    planted = rng.normal(0, spread, N_CARS)
    planted -= planted.mean()
    found = recover_log_strengths(orders(planted, 2000, rng, out_chance=0.15))
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert np.sqrt(np.mean((found - planted) ** 2)) < 0.05
    assert np.polyfit(planted, found, 1)[0] == pytest.approx(1, abs=0.01)


def test_the_fit_is_the_maximum_of_the_likelihood() -> None:
    """No small step raises the summed log-probability of the orders, by the network's likelihood."""
    rng = np.random.default_rng(2)
    order = orders(rng.normal(0, 1, 8), 400, rng, out_chance=0.2)

    sequence = np.where(order > 0, order, 99).argsort(axis=1)
    inside = np.take_along_axis(order > 0, sequence, axis=1)

    @jax.jit
    def likelihood(utility: np.ndarray) -> jax.Array:
        return log_probability(jnp.asarray(utility)[sequence], inside).sum()

    found = recover_log_strengths(order)
    best = likelihood(found)
    for step in 0.1 * np.vstack([np.eye(8), -np.eye(8)]):
        assert likelihood(found + step) < best
    # The phantom moves the maximum by far less than its standard error of 1/20.
    steps = [0.005 * (np.eye(8)[i] - np.eye(8)[j]) for i in range(8) for j in range(8) if i != j]
    assert max(likelihood(found + step) for step in steps) - best < 0.05


def test_certain_orders_have_finite_utilities() -> None:
    """A car that is always last, always first or never runs; nothing is infinite."""
    order = np.tile([1, 2, 3, 0], (500, 1))
    found = recover_log_strengths(order)
    assert np.isfinite(found).all()
    assert found[0] > found[1] > found[2]
    assert abs(found[3] - found.mean()) < 3
    assert recover_log_strengths(np.ones((100, 1), int)).tolist() == [0.0]


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_the_order_of_cars_and_scenarios_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = orders(rng.normal(0, 1, 6), 100, rng, out_chance=0.3)
    cars, scenarios = rng.permutation(6), rng.permutation(100)
    found = recover_log_strengths(order)
    np.testing.assert_allclose(recover_log_strengths(order[scenarios][:, cars]), found[cars], atol=1e-3)


def test_running_orders_leave_gaps_out() -> None:
    finish = np.array([[[3, 1, 2, 4, 0], [1, 2, 3, 4, 0]]])
    running = np.array([[[True, False, True, True, False], [True] * 4 + [False]]])
    assert running_order(finish, running).tolist() == [[[2, 0, 1, 3, 0], [1, 2, 3, 4, 0]]]
    assert running_order(finish, None).tolist() == finish.tolist()


def test_many_scenarios_are_thinned_evenly() -> None:
    """Scenarios that are sorted are represented all the same."""
    first, second = np.tile([1, 2], (10_000, 1)), np.tile([2, 1], (10_000, 1))
    found = recover_log_strengths(np.concatenate([first, second]))
    assert found == pytest.approx([0, 0], abs=0.01)


@pytest.mark.parametrize("chaos_scale", [0.0, 0.4, 0.8, 1.5])
def test_incidents_and_their_chaos_are_recovered(chaos_scale: float) -> None:
    rng = np.random.default_rng(4)
    planted = rng.normal(-2, 0.6, 38)
    at = planted + chaos_scale * rng.standard_normal((4000, 1))
    logit, found = recover_incidents(rng.random(at.shape) >= 1 / (1 + np.exp(-at)))
    assert found == pytest.approx(chaos_scale, abs=0.08)
    assert np.sqrt(np.mean((logit - planted) ** 2)) < 0.12


def test_few_scenarios_give_no_impossible_incidents() -> None:
    """Cars that never retire, and those that always do, keep a finite logit: half a case is added."""
    running = np.ones((100, 3), bool)
    running[:, 2] = False
    logit, chaos_scale = recover_incidents(running)
    assert chaos_scale == 0
    expected = np.log(0.5 / 100.5)
    np.testing.assert_allclose(logit, [expected, expected, -expected], rtol=1e-6)
