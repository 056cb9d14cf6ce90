"""The filter of a moving quantity: agreement with exact filters, coverage, and planted jumps."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from benchmarks.state_laws import cumulative_probability, summarise_state
from calibration_pipeline.stats.state_filter import (
    LEVELS,
    POINTS,
    STEP,
    Dynamics,
    draw_values,
    filter_races,
    gaussian_kernel,
    smooth_by_draw,
    smooth_likelihood,
)

N_CARS, N_GROUPS, RACES_A_SEASON = 36, 4, 36
INFORMATION = 12.0
"""Information of a race of 36 cars about its log slope."""
SKEWNESS = 1.5


def dynamics(walk: list[float], deviation: list[float], **changes: float) -> Dynamics:
    """Return the movement of the log slope, with one value for each draw."""
    jumps = {"jump_sigma": 0.3, "jump_probability": 0.005, "season_jump_probability": 0.2}
    rest = {"initial_sigma": 0.3, "deviation_half_life": 80.0} | jumps | changes
    return Dynamics(np.array(walk), np.array(deviation), **rest)


def normal_curves(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """Return log-likelihoods (..., point) of races whose estimate is normal around the truth."""
    estimate = truth + rng.normal(size=truth.shape) / np.sqrt(INFORMATION)
    return -0.5 * INFORMATION * (POINTS - estimate[..., None]) ** 2


def calendar(n_races: int) -> tuple[np.ndarray, np.ndarray]:
    """Return groups and starts of seasons."""
    return np.random.default_rng(3).integers(N_GROUPS, size=n_races), np.arange(n_races) % RACES_A_SEASON == 0


def simulate(rng: np.random.Generator, law: Dynamics, group: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Draw the quantity of each race from the law: (race, draw)."""
    n = len(law.walk_sigma)
    level, deviation = (
        law.initial_sigma * rng.normal(size=n),
        law.deviation_sigma * rng.normal(size=(N_GROUPS, n)),
    )
    kept, truth = 0.5 ** (1 / law.deviation_half_life), np.zeros((len(group), n))
    for race, (own, start) in enumerate(zip(group, first, strict=True)):
        if race:
            jumps = rng.random(n) < (law.season_jump_probability if start else law.jump_probability)
            level = level + np.where(jumps, law.jump_sigma, law.walk_sigma) * rng.normal(size=n)
            new = np.sqrt(1 - kept**2) * law.deviation_sigma
            deviation = kept * deviation + new * rng.normal(size=deviation.shape)
        truth[race] = level + deviation[own]
    return truth


def particle_filter(
    rng: np.random.Generator, law: Dynamics, curves: np.ndarray, group: np.ndarray, first: np.ndarray, n: int
) -> np.ndarray:
    """Return the log predictive likelihood of each race by a bootstrap particle filter."""
    (walk,), (spread,) = law.walk_sigma, law.deviation_sigma
    level, deviation = law.initial_sigma * rng.normal(size=n), spread * rng.normal(size=(N_GROUPS, n))
    kept, evidence = 0.5 ** (1 / law.deviation_half_life), np.zeros(len(curves))
    for race, (own, start) in enumerate(zip(group, first, strict=True)):
        if race:
            jumps = rng.random(n) < (law.season_jump_probability if start else law.jump_probability)
            level = level + np.where(jumps, law.jump_sigma, walk) * rng.normal(size=n)
            deviation = kept * deviation + np.sqrt(1 - kept**2) * spread * rng.normal(size=(N_GROUPS, n))
        weight = np.interp(level + deviation[own], POINTS, curves[race])
        evidence[race] = logsumexp(weight) - np.log(n)
        share = np.exp(weight - weight.max())
        positions = (np.arange(n) + rng.random()) / n * share.sum()
        chosen = np.searchsorted(np.cumsum(share), positions).clip(max=n - 1)
        level, deviation = level[chosen], deviation[:, chosen]
    return evidence


@pytest.mark.slow
def test_log_score_agrees_with_a_particle_filter():
    """Skewed likelihoods, four groups and a jump between seasons: within .0001 nats a car, limit .001.

    Single races after the jump may differ more.
    """
    rng = np.random.default_rng(0)
    group, first = calendar(72)
    law = dynamics([0.03, 0.06], [0.1, 0.25])
    truth = simulate(rng, law, group, first)[:, 0] - np.where(np.arange(72) < 36, 0.0, 0.5)
    estimate = truth + rng.normal(size=72) / np.sqrt(INFORMATION)
    distance = np.clip(POINTS - estimate[:, None], -1.0, 1.0)
    plain = -0.5 * INFORMATION * (POINTS - estimate[:, None]) ** 2 - SKEWNESS * distance**3
    curves = smooth_likelihood(plain, np.array([0.1, 0.3]))
    filtered = filter_races(curves, group, first, law, N_GROUPS).log_evidence
    for draw in range(2):
        own = law._replace(
            walk_sigma=law.walk_sigma[draw : draw + 1], deviation_sigma=law.deviation_sigma[draw : draw + 1]
        )
        runs = [
            particle_filter(np.random.default_rng(seed), own, curves[:, draw], group, first, 30_000)
            for seed in range(2)
        ]
        by_race = (filtered[:, draw] - np.mean(runs, axis=0)) / N_CARS
        assert abs(by_race.mean()) < 1e-4
        assert np.quantile(np.abs(by_race), 0.9) < 1e-3
        assert np.abs(by_race).max() < 2e-3


def test_without_jumps_and_deviations_it_is_the_kalman_filter():
    rng = np.random.default_rng(1)
    group, first = np.zeros(60, int), np.arange(60) == 0
    law = dynamics([0.04], [0.0], jump_probability=0.0, season_jump_probability=0.0)
    estimate = 0.3 + rng.normal(size=60) / np.sqrt(INFORMATION)
    curves = -0.5 * INFORMATION * (POINTS - estimate[:, None]) ** 2
    filtered = filter_races(curves[:, None], group, first, law, 1)
    mean, variance = 0.0, 0.3**2
    for race, state in enumerate(filtered.before):
        variance += 0.04**2 if race else 0.0
        known, (lower, upper) = summarise_state(state, 0, np.array([0.025, 0.975]))
        assert known == pytest.approx(mean, abs=1e-3)
        assert upper - lower == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.03)
        predicted = norm.logpdf(estimate[race], mean, np.sqrt(variance + 1 / INFORMATION))
        exact = predicted + 0.5 * np.log(2 * np.pi / INFORMATION)
        assert filtered.log_evidence[race, 0] == pytest.approx(exact, abs=1e-4 * N_CARS)
        gain = variance / (variance + 1 / INFORMATION)
        mean, variance = mean + gain * (estimate[race] - mean), (1 - gain) * variance


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """95 % intervals before each race, over histories drawn from the law with its jumps."""
    rng = np.random.default_rng(2)
    group, first = calendar(108)
    law = dynamics([0.02] * 200, [0.12] * 200)
    truth = simulate(rng, law, group, first)
    filtered = filter_races(normal_curves(rng, truth), group, first, law, N_GROUPS)
    below = np.array(
        [
            cumulative_probability(state, int(own), x[:, None])[:, 0]
            for state, own, x in zip(filtered.before, group, truth, strict=True)
        ]
    )
    covered = (below > 0.025) & (below < 0.975)
    assert 0.93 < covered.mean() < 0.97
    assert 0.93 < covered[72:].mean() < 0.97


@pytest.mark.parametrize(("at", "most"), [(72, 8), (54, 16)], ids=["between seasons", "within a season"])
@pytest.mark.slow
def test_planted_jumps_are_found(at, most):
    """Half of a jump of -.4 is found within few races, in the median history."""
    rng = np.random.default_rng(at)
    group, first = calendar(108)
    law = dynamics([0.015] * 60, [0.07] * 60)
    truth = np.repeat(np.where(np.arange(108) < at, 0.0, -0.4)[:, None], 60, axis=1)
    filtered = filter_races(normal_curves(rng, truth), group, first, law, N_GROUPS)
    mean = np.array([(state.probability * LEVELS).sum(axis=1) for state in filtered.before])
    found = (mean[at:] < -0.2).argmax(axis=0)
    assert (mean[at:] < -0.2).any(axis=0).all()
    assert np.median(found) <= most
    assert np.abs(mean[at - 1]).mean() < 0.1


def test_little_is_lost_without_a_jump():
    """Against knowing that the level is 0: at most .003 nats a car."""
    rng = np.random.default_rng(4)
    group, first = calendar(108)
    law = dynamics([0.015] * 60, [0.07] * 60)
    curves = normal_curves(rng, np.zeros((108, 60)))
    filtered = filter_races(curves, group, first, law, N_GROUPS)
    known = curves[..., np.argmin(np.abs(POINTS))]
    lost = (known - filtered.log_evidence) / N_CARS
    assert 0 < lost.mean() < 0.003
    assert lost[36:].mean() < 0.0015


def test_a_later_race_changes_no_earlier_state():
    rng = np.random.default_rng(5)
    group, first = calendar(40)
    law = dynamics([0.03], [0.2])
    curves = normal_curves(rng, simulate(rng, law, group, first))
    whole = filter_races(curves, group, first, law, N_GROUPS)
    part = filter_races(curves[:30], group[:30], first[:30], law, N_GROUPS)
    for early, late in zip(part.before, whole.before[:30], strict=True):
        for a, b in zip(early, late, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_race_of_one_group_informs_about_the_others():
    group, first = np.array([0] * 20 + [1]), np.arange(21) == 0
    law = dynamics([0.01], [0.1])
    curves = -0.5 * INFORMATION * (POINTS + 0.5) ** 2 * np.ones((21, 1, 1))
    state = filter_races(curves, group, first, law, N_GROUPS).before[-1]
    own, other = (summarise_state(state, g, np.array([0.025, 0.975])) for g in (0, 1))
    assert own[0] < other[0] < -0.3
    assert np.ptp(own[1]) < np.ptp(other[1])


def test_draws_have_the_law_of_the_state():
    rng = np.random.default_rng(6)
    group, first = calendar(50)
    law = dynamics([0.02, 0.04], [0.1, 0.2])
    curves = normal_curves(rng, simulate(rng, law, group, first))
    state = filter_races(curves, group, first, law, N_GROUPS).before[-1]
    values = draw_values(state, 2, 4000, rng)
    assert values.shape == (2, 4000)
    probability = cumulative_probability(state, 2, values)
    for draw in range(2):
        assert np.abs(np.sort(probability[draw]) - (np.arange(4000) + 0.5) / 4000).max() < 0.03
    mean, quantiles = summarise_state(state, 2, np.array([0.1, 0.9]))
    assert values.mean() == pytest.approx(mean, abs=0.01)
    np.testing.assert_allclose(np.quantile(values, [0.1, 0.9]), quantiles, atol=0.02)


@pytest.mark.parametrize("sigma", [0.001, 0.02, 0.05, 0.3])
def test_steps_have_the_exact_variance(sigma):
    """Also where the standard deviation is smaller than the distance of the grid."""
    kernel = gaussian_kernel(np.array([sigma]), 113)[0]
    step = STEP * (np.arange(113) - 56)
    np.testing.assert_allclose(kernel.sum(axis=1), 1.0)
    assert kernel[56] @ step**2 == pytest.approx(sigma**2, rel=1e-6)


def test_likelihoods_that_differ_by_draw_are_smoothed_alike():
    """Each draw's own likelihood with its own noise, as one likelihood with all noises."""
    log_likelihood = -0.5 * ((POINTS - np.array([[-0.4], [0.1], [1.2]])) / 0.2) ** 2
    noise = np.array([0.0, 0.1, 0.7])
    expected = smooth_likelihood(log_likelihood, noise)
    got = smooth_by_draw(np.broadcast_to(log_likelihood, (2, 3, *log_likelihood.shape)), noise)
    near = expected > -300
    for part in got:
        np.testing.assert_allclose(part.swapaxes(0, 1)[near], expected[near], atol=1e-9)
