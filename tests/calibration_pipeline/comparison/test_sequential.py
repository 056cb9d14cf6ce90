"""Tests of the e-process of a difference: reference values, error rates, power."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration_pipeline.comparison.sequential import STAKES, log_e_better

ALARM = np.log(20)


def exponential_process(gain, bound):
    """Choe & Ramdas (2024), theorem 3, with centres 0 and the stakes of the bets."""
    x = gain / np.maximum.accumulate(bound)
    psi = -np.log1p(-STAKES) - STAKES
    log_e = STAKES[:, None] * x.cumsum() - psi[:, None] * (x**2).cumsum()
    return np.log(np.exp(log_e).mean(axis=0))


def test_the_process_is_the_mean_capital_of_the_bets():
    gain, bound = np.array([0.1, -0.2, 0.3]), np.array([0.2, 0.4, 0.1])
    x = gain / np.array([0.2, 0.4, 0.4])
    capital = [np.mean([np.prod(1 + stake * x[: t + 1]) for stake in STAKES]) for t in range(3)]
    np.testing.assert_allclose(np.exp(log_e_better(gain, bound)), capital)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 1)), min_size=1, max_size=30))
def test_it_is_never_below_the_exponential_process(races):
    bound = np.array([width for _, width in races])
    gain = np.array([share for share, _ in races]) * bound
    assert (log_e_better(gain, bound) >= exponential_process(gain, bound) - 1e-9).all()


def test_the_expectation_is_at_most_one_under_the_weak_null():
    """All paths of five races: the conditional mean is below 0 first, then above, the sum never above 0."""
    mean, bound = np.array([-0.08, -0.02, 0.05, 0.03, 0.02]), np.array([0.1, 0.3, 0.2, 0.1, 0.4])
    up = bound * 0.6
    probability = (mean + bound) / (up + bound)
    expectation = np.zeros(5)
    for path in product([True, False], repeat=5):
        chance = np.prod(np.where(path, probability, 1 - probability))
        expectation += chance * np.exp(log_e_better(np.where(path, up, -bound), bound))
    assert np.cumsum(mean).max() <= 1e-12
    assert expectation.max() <= 1 + 1e-12


def test_a_certain_gain_is_evidence_and_equal_forecasts_are_none():
    assert log_e_better([0.1] * 30, [0.1] * 30)[-1] > ALARM
    assert log_e_better([0.0] * 30, [0.0] * 30).tolist() == [0.0] * 30
    assert log_e_better([-0.1] * 30, [0.1] * 30)[-1] < 0


def test_units_of_the_score_do_not_matter():
    rng = np.random.default_rng(1)
    bound = rng.uniform(0.1, 0.3, 20)
    gain = bound * rng.uniform(-1, 1, 20)
    np.testing.assert_allclose(log_e_better(gain, bound), log_e_better(0.01 * gain, 0.01 * bound))


def test_earlier_values_do_not_depend_on_later_races():
    rng = np.random.default_rng(2)
    bound = rng.uniform(0.1, 0.3, 20)
    gain = bound * rng.uniform(-1, 1, 20)
    np.testing.assert_array_equal(log_e_better(gain, bound)[:12], log_e_better(gain[:12], bound[:12]))


@pytest.mark.parametrize(
    ("gain", "bound", "message"),
    [
        ([0.1, 0.2], [0.1], r"must be \(race,\), got \(2,\) and \(1,\)"),
        ([0.1, np.nan], [0.1, 0.1], "must be finite"),
        ([0.1, -0.2], [0.1, 0.1], "must bound every loss, got 0.1 at race 1 with a loss of 0.2"),
    ],
)
def test_values_that_do_not_fit_are_refused(gain, bound, message):
    with pytest.raises(ValueError, match=message):
        log_e_better(gain, bound)


@pytest.mark.slow
@pytest.mark.parametrize("drift", ["none", "worse, then better"])
@pytest.mark.parametrize("up", [0.1, 0.5, 1.0])
def test_false_alarms_within_200_races_are_at_most_5_percent(up, drift):
    """Alarms at any of 200 races, with wins that are rare and large, or frequent and small."""
    rng = np.random.default_rng([7, int(10 * up)])
    n_histories, n_races = 4_000, 200
    mean = np.zeros(n_races) if drift == "none" else np.repeat([-0.02, 0.02], n_races // 2)
    alarms = 0
    for _ in range(n_histories):
        bound = rng.uniform(0.05, 0.3, n_races)
        probability = (1 + mean) / (1 + up)
        gain = bound * np.where(rng.random(n_races) < probability, up, -1.0)
        alarms += log_e_better(gain, bound).max() >= ALARM
    error = np.sqrt(0.05 * 0.95 / n_histories)
    assert alarms / n_histories <= 0.05 + 2 * error


@pytest.mark.slow
def test_a_planted_difference_is_found():
    """A mean gain of a third of its standard deviation raises an alarm within 150 races nine times in ten."""
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(400):
        gain = np.clip(rng.normal(0.1, 0.3, 150), -1, 1)
        found += log_e_better(gain, np.ones(150)).max() >= ALARM
    assert found / 400 >= 0.9
