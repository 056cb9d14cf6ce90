"""Scores on arrays: of finish probabilities, of scenarios counted by place, of whole races."""

import logging

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.metrics import compute_coverage, compute_crps, compute_log_score
from calibration_pipeline.verification.cases import (
    car_pairs,
    independent_head_to_head,
    start_order_probabilities,
    start_order_table,
)
from calibration_pipeline.verification.finite import jackknife_error
from calibration_pipeline.verification.multivariate import (
    JOINT_SCENARIOS,
    _choose_scenarios,
    energy_score,
    variogram_score,
)
from calibration_pipeline.verification.scores import (
    coverage_probability,
    discrete_crps,
    discrete_log_score,
    fair_crps,
    interval_width,
    kernel_log_score,
    pit_bounds,
)


@pytest.fixture
def rng():
    return np.random.default_rng(20210214)


def permutations(rng, n_scenarios, n_cars, spread=1.0):
    """Return finishes of cars of different strength, (scenario, car)."""
    pace = spread * np.linspace(2, -2, n_cars) - rng.gumbel(size=(n_scenarios, n_cars))
    return (1 + np.argsort(np.argsort(-pace, axis=1), axis=1)).astype(np.int16)


def counted(scenarios, n_places):
    """Return scenarios (scenario, car) counted by place, (car, place)."""
    return (scenarios[..., None] == np.arange(1, n_places + 1)).sum(axis=0)


# --- finish probabilities ---


def test_discrete_crps_is_the_ensemble_crps_of_its_scenarios(rng):
    scenarios, position = rng.integers(1, 11, size=(500, 30)), rng.integers(1, 11, size=30)
    probability = (scenarios[..., None] == np.arange(1, 11)).mean(axis=0)
    reference = scoringrules.crps_ensemble(position.astype(float), scenarios.astype(float), m_axis=0)
    assert discrete_crps(probability, position) == pytest.approx(reference, abs=1e-6)


def test_discrete_crps_over_places_is_the_rps(rng):
    """The RPS of scoringrules takes probabilities of categories, from 1."""
    probability, position = rng.dirichlet(np.ones(7), size=20), rng.integers(1, 8, size=20)
    reference = scoringrules.rps_score(position, probability, k_axis=-1)
    assert discrete_crps(probability, position) == pytest.approx(reference)


def test_certainty_about_the_truth_scores_best():
    certain = np.eye(5)
    position = np.arange(1, 6)
    assert (discrete_crps(certain, position) == 0).all()
    assert (discrete_log_score(certain, position) == 0).all()


def test_discrete_scores_are_proper(rng):
    """In expectation under p, exactly computed, no other forecast beats p."""
    p = rng.dirichlet(np.ones(8), size=50)
    q = rng.dirichlet(np.ones(8), size=50)
    places = np.broadcast_to(np.arange(1, 9), (50, 8))

    def expected(score, forecast):
        rows = np.broadcast_to(forecast[:, None], (50, 8, 8))
        return (p * score(rows, places)).sum(axis=1)

    assert (expected(discrete_crps, p) < expected(discrete_crps, q)).all()
    assert (expected(discrete_log_score, p) > expected(discrete_log_score, q)).all()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_discrete_coverage_is_nominal_in_expectation_for_every_forecast(rng, level):
    """Sum over places of p_k times the coverage at k is the level, exactly."""
    p = np.concatenate([rng.dirichlet(np.full(6, 0.3), size=40), np.eye(6)])
    rows = np.broadcast_to(p[:, None], (46, 6, 6))
    places = np.broadcast_to(np.arange(1, 7), (46, 6))
    expected = (p * coverage_probability(rows, places, level)).sum(axis=1)
    assert expected == pytest.approx(level, abs=1e-12)


def test_discrete_coverage_equals_that_of_random_draws(rng):
    p = rng.dirichlet(np.ones(6))
    low, high = pit_bounds(p, 3)
    drawn = rng.uniform(low, high, 200_000)
    assert float(coverage_probability(p, 3, 0.4)) == pytest.approx(
        np.mean(np.abs(drawn - 0.5) <= 0.2), abs=5e-3
    )


def test_an_impossible_position_scores_the_floor_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert discrete_log_score([[1.0, 0.0], [0.5, 0.5]], [2, 1])[0] < -700
    assert "1 of 2 predictions is at its floor" in caplog.text


def test_zeros_behind_the_field_change_nothing(rng):
    p, y = rng.dirichlet(np.ones(5), size=9), rng.integers(1, 6, size=9)
    padded = np.pad(p, ((0, 0), (0, 3)))
    assert discrete_crps(padded, y) == pytest.approx(discrete_crps(p, y))
    assert coverage_probability(padded, y, 0.8) == pytest.approx(coverage_probability(p, y, 0.8))


@pytest.mark.parametrize(
    ("probability", "position", "message"),
    [
        ([0.5, 0.5], 3, r"must lie in 1\.\.2, got 3 to 3"),
        ([0.5, 0.5], 0, r"must lie in 1\.\.2, got 0 to 0"),
        ([0.5, 0.5], [1, 2], r"got \(2,\) and \(2,\)"),
    ],
)
def test_bad_positions_are_refused(probability, position, message):
    with pytest.raises(ValueError, match=message):
        discrete_crps(probability, position)


# --- scenarios counted by place ---


def test_fair_crps_is_that_of_the_scenarios(rng):
    scenarios, position = rng.integers(1, 11, size=(25, 40)), rng.integers(1, 11, size=40)
    counts = counted(scenarios, 10)
    reference = scoringrules.crps_ensemble(position * 1.0, scenarios * 1.0, m_axis=0, estimator="fair")
    assert fair_crps(counts, position) == pytest.approx(reference, abs=1e-6)
    assert fair_crps(counts, position).mean() == pytest.approx(compute_crps(scenarios, position, fair=True))
    assert discrete_crps(counts / 25, position).mean() == pytest.approx(compute_crps(scenarios, position))


def test_fair_crps_does_not_depend_on_the_number_of_scenarios(rng):
    p = np.array([0.1, 0.2, 0.4, 0.3])
    few = rng.multinomial(3, p, size=100_000)
    expected = float(discrete_crps(p, 2))
    assert fair_crps(few, np.full(100_000, 2)).mean() == pytest.approx(expected, abs=0.01)
    assert discrete_crps(few / 3, np.full(100_000, 2)).mean() > expected + 0.05


def test_fair_crps_needs_two_scenarios():
    with pytest.raises(ValueError, match="at least 2 scenarios, got 1"):
        fair_crps([0, 1, 0], 2)


def test_kernel_log_score_is_the_log_score_of_the_scenarios(rng):
    scenarios, position = rng.integers(1, 11, size=(60, 15)), rng.integers(1, 11, size=15)
    scenarios[:, 3] = 4
    scores = kernel_log_score(counted(scenarios, 10), position)
    for car in range(15):
        expected = compute_log_score(scenarios[:, [car]], position[[car]])
        assert scores[car] == pytest.approx(expected, rel=1e-9)


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_empty_places_behind_the_field_change_no_count_score(n_places, seed):
    rng = np.random.default_rng(seed)
    scenarios = rng.integers(1, n_places + 1, size=(20, 6))
    position = rng.integers(1, n_places + 1, size=6)
    counts = counted(scenarios, n_places)
    padded = np.pad(counts, ((0, 0), (0, 4)))
    assert fair_crps(padded, position) == pytest.approx(fair_crps(counts, position))
    assert kernel_log_score(padded, position) == pytest.approx(kernel_log_score(counts, position))


# --- sharpness ---


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_a_uniform_forecast_is_as_wide_as_its_level(level):
    assert interval_width(np.full((3, 20), 1 / 20), level) == pytest.approx(20 * level)


def test_width_is_the_difference_of_quantiles(rng):
    p = rng.dirichlet(np.ones(12), size=30)
    cdf = np.pad(np.cumsum(p, axis=1), ((0, 0), (1, 0)))
    quantiles = np.array([np.interp([0.1, 0.9], row, np.arange(13)) for row in cdf])
    assert interval_width(p, 0.8) == pytest.approx(quantiles[:, 1] - quantiles[:, 0])
    assert interval_width(np.pad(p, ((0, 0), (0, 5))), 0.8) == pytest.approx(interval_width(p, 0.8))


# --- whole races ---


@pytest.mark.parametrize("n_cars", [2, 7, 40])
def test_joint_scores_agree_with_scoringrules(rng, n_cars):
    x, y = permutations(rng, 120, n_cars), permutations(rng, 1, n_cars)[0]
    members, observed = x.astype(float), y.astype(float)
    energy = scoringrules.es_ensemble(observed, members, m_axis=0, v_axis=1, estimator="fair")
    assert energy_score(x, y).score == pytest.approx(energy / np.sqrt(n_cars), rel=1e-5)
    variogram = scoringrules.vs_ensemble(observed, members, m_axis=0, v_axis=1, p=0.5)
    n_ordered_pairs = n_cars * (n_cars - 1)
    assert variogram_score(x, y).score == pytest.approx(variogram / n_ordered_pairs, rel=1e-5)


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_joint_scores_are_proper(rng, score):
    """Scenarios from the truth score better than sharper and flatter ones, and than the cars shuffled."""
    truth = permutations(rng, 200, 12)
    results = permutations(rng, 150, 12)
    shuffled = np.column_stack([rng.permutation(column) for column in permutations(rng, 200, 12, 0.2).T])
    right = np.mean([score(truth, y).score for y in results])
    for wrong in (permutations(rng, 200, 12, 3.0), permutations(rng, 200, 12, 0.2), shuffled):
        assert right < np.mean([score(wrong, y).score for y in results])


def test_only_the_variogram_score_needs_the_dependence(rng):
    """Two cars that finish together or apart, with the same chances each."""
    coin = rng.random((4000, 1)) < 0.5
    together = np.where(coin, [[1, 2, 3, 4]], [[3, 4, 1, 2]])
    alone = np.column_stack([rng.permutation(column) for column in together.T])
    y = np.array([3, 4, 1, 2])
    assert variogram_score(together, y).score < 0.6 * variogram_score(alone, y).score


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_joint_scores_do_not_depend_on_the_order_of_cars(rng, score):
    x, y, order = permutations(rng, 50, 9), permutations(rng, 1, 9)[0], rng.permutation(9)
    assert score(x[:, order], y[order]) == pytest.approx(score(x, y), rel=1e-5)


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_their_error_is_how_much_they_vary_with_the_scenarios(rng, score):
    y = permutations(rng, 1, 10)[0]
    repeated = [score(permutations(rng, 100, 10), y) for _ in range(300)]
    spread = np.std([estimate.score for estimate in repeated], ddof=1)
    assert np.mean([estimate.error for estimate in repeated]) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_of_many_scenarios_some_are_chosen_at_random(rng, score):
    x, y = permutations(rng, 3 * JOINT_SCENARIOS, 5), np.arange(1, 6)
    assert score(x, y).score == pytest.approx(score(x[:JOINT_SCENARIOS], y).score, abs=0.2)
    assert score(np.repeat(x[:1], 5000, axis=0), x[0]).score == pytest.approx(0, abs=1e-6)


def test_the_scores_of_races_see_all_parameter_draws():
    """Scenario k of the network has parameter draw k mod 64: of 2,000 the scores see each draw."""
    draw = np.arange(2000)[:, None] % 64
    assert set(_choose_scenarios(draw).ravel().tolist()) == set(range(64))


def test_a_race_of_one_car_has_no_joint_score():
    lonely = np.ones((10, 1), np.int16)
    assert energy_score(lonely, np.array([1])) == (0, 0)
    assert variogram_score(lonely, np.array([1])) == (0, 0)


# --- baselines, pairs, errors ---


def test_each_two_cars_of_a_race_are_one_pair():
    mask = np.arange(40) < np.array([[36], [40], [1]])
    race, first, second = car_pairs(mask)
    assert np.bincount(race, minlength=3).tolist() == [36 * 35 // 2, 40 * 39 // 2, 0]
    assert (first < second).all()
    assert mask[race, second].all()


def test_start_order_forecasts_know_nothing_but_the_order():
    start = np.array([[3, 1, 2, 0], [40, 7, 12, 9]])
    probability = start_order_probabilities(start, np.array([3, 4]))
    assert probability[0, [1, 2, 0], :3] == pytest.approx(start_order_table(3))
    assert probability[1, [1, 3, 2, 0]] == pytest.approx(start_order_table(4))
    assert not probability[0, 3].any()
    ahead = independent_head_to_head(probability)
    assert ahead[1, 1, 0] > ahead[1, 3, 0] > 0.5


def test_the_start_order_table_is_coherent_and_prefers_the_start():
    for n_cars in (1, 2, 36, 40):
        table = start_order_table(n_cars)
        assert table.sum(axis=0) == pytest.approx(1, abs=1e-12)
        assert table.sum(axis=1) == pytest.approx(1, abs=1e-12)
        assert (table.argmax(axis=1) == np.arange(n_cars)).all()


@pytest.mark.parametrize("n_scenarios", [50, 400])
def test_the_jackknife_error_of_a_mean_is_its_standard_error(rng, n_scenarios):
    draws = rng.normal(size=(500, n_scenarios))
    groups = draws.reshape(500, 10, -1).mean(axis=2)
    without = (groups.sum(axis=1, keepdims=True) - groups) / 9
    errors = np.array([jackknife_error(row) for row in without])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(1 / np.sqrt(n_scenarios), rel=0.1)


def test_public_scores_by_case_are_those_of_counted_scenarios() -> None:
    """The backtest scores counts of scenarios by position; each equals the public score of the sample."""
    rng = np.random.default_rng(11)
    scenarios = rng.integers(1, 21, size=(200, 30))
    finish = rng.integers(1, 21, size=30)
    counts = np.stack([(scenarios == position).sum(axis=0) for position in range(1, 21)], axis=-1)
    crps = compute_crps(scenarios, finish, reduce=False)
    np.testing.assert_allclose(crps, discrete_crps(counts / 200, finish), rtol=1e-12)
    fair = compute_crps(scenarios, finish, fair=True, reduce=False)
    np.testing.assert_allclose(fair, fair_crps(counts, finish), rtol=1e-9)
    log_score = compute_log_score(scenarios, finish, reduce=False)
    np.testing.assert_allclose(log_score, kernel_log_score(counts, finish), rtol=1e-9)
    inside = compute_coverage(scenarios, finish, reduce=False)
    assert [values.shape for values in inside.values()] == [(30,)] * 3
    assert compute_coverage(scenarios, finish) == {level: values.mean() for level, values in inside.items()}
    assert compute_crps(scenarios, finish) == pytest.approx(crps.mean())
    assert compute_log_score(scenarios, finish) == pytest.approx(log_score.mean())
