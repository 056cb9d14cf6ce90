"""The calibration's state on races with exact likelihood curves: planted slopes, shifts and jumps."""

import numpy as np

from calibration_pipeline.calibration.race_curves import (
    LOG_SHARPNESS_BOX,
    Reference,
    tabulate_incidents,
    tabulate_orders,
)
from calibration_pipeline.calibration.state import (
    Calendar,
    Fold,
    SlowParameters,
    draw_changes,
    filter_folds,
    thin_slow_parameters,
)
from calibration_pipeline.mcmc.priors import PRIOR_SLOPE_MU
from calibration_pipeline.stats.chebyshev import evaluate
from calibration_pipeline.stats.state_filter import summarise_state

N_CARS, RACES_A_SEASON = 36, 36
ENDS = np.array([0.025, 0.975])


def races(log_slope: np.ndarray, shift: np.ndarray, seed: int = 0) -> Calendar:
    """Draw results of races, with the curves of an ensemble of slope 1 and shift 0."""
    rng = np.random.default_rng(seed)
    n = len(log_slope)
    utility = rng.normal(0, 1.0, (n, N_CARS))
    logit = np.full((n, N_CARS), -2.0)
    chaos = rng.normal(size=(n, 1))
    retired = rng.random((n, N_CARS)) < 1 / (1 + np.exp(-(logit + 0.5 * chaos + shift[:, None])))
    score = np.exp(log_slope)[:, None] * utility - rng.gumbel(size=utility.shape)
    rank = 1 + np.argsort(np.argsort(-np.where(retired, -1e6, score), axis=1), axis=1)
    order = np.where(retired, 0, rank).astype(np.int16)
    return Calendar(
        archetype=rng.integers(4, size=n),
        season=2020 + np.arange(n) // RACES_A_SEASON,
        order=tabulate_orders(utility.astype(np.float32), order[:, None])[:, 0],
        incident=tabulate_incidents(logit, np.full(n, 0.5), retired, np.ones_like(retired)),
    )


def slow(n_draws: int = 16, seed: int = 1) -> SlowParameters:
    """Draw slow parameters like those that seasons give."""
    rng = np.random.default_rng(seed)
    posterior = {
        "slope_sigma": 0.1 * np.abs(rng.normal(size=200)),
        "archetype_sigma": 0.07 * np.abs(rng.normal(size=200)),
        "noise_sigma": 0.1 * np.abs(rng.normal(size=(200, 4))),
    }
    return thin_slow_parameters(posterior, [Reference(0.0, 0.0)] * 4, n_draws)


def test_planted_slope_and_shift_are_found():
    calendar = races(np.full(108, np.log(0.7)), np.full(108, 0.5))
    (fold,) = filter_folds(calendar, [Fold(range(107, 108), slow())])
    own = int(calendar.archetype[107])
    slope, (lower, upper) = summarise_state(fold.slope.before[0], own, ENDS)
    assert lower < np.log(0.7) < upper
    assert abs(slope - np.log(0.7)) < 0.15
    shift, (lower, upper) = summarise_state(fold.shift.before[0], own, ENDS)
    assert lower < 0.5 < upper
    assert abs(shift - 0.5) < 0.2
    assert fold.noise_sigma.shape == (1, 16)


def test_a_jump_of_exact_likelihoods_is_found():
    """Log slope -.4 from a season's start: half of it within a third of the season."""
    calendar = races(np.where(np.arange(108) < 72, 0.0, -0.4), np.zeros(108), seed=2)
    (fold,) = filter_folds(calendar, [Fold(range(72, 108), slow())])
    mean = [
        summarise_state(state, int(own), ENDS)[0]
        for state, own in zip(fold.slope.before, calendar.archetype[72:], strict=True)
    ]
    assert abs(mean[0]) < 0.15
    assert np.argmax(np.array(mean) < -0.2) <= 12
    assert min(mean) < -0.2


def test_reference_moves_the_slope():
    """With log reference .3, results of slope 1 have the calibration slope exp(-.3)."""
    calendar = races(np.zeros(72), np.zeros(72), seed=3)
    (plain,) = filter_folds(calendar, [Fold(range(71, 72), slow())])
    moved = slow()._replace(references=[Reference(0.3, 0.0)] * 4)
    (relative,) = filter_folds(calendar, [Fold(range(71, 72), moved)])
    own = int(calendar.archetype[71])
    means = [summarise_state(fold.slope.before[0], own, ENDS)[0] for fold in (plain, relative)]
    assert abs(means[0] - means[1] - 0.3) < 0.05


def test_a_fold_reads_no_later_race_and_no_other_fold():
    """Later races and other folds change no state; each fold has its own slow parameters."""
    calendar = races(np.zeros(60), np.zeros(60), seed=4)
    folds = [Fold(range(20, 40), slow(seed=5)), Fold(range(40, 60), slow(seed=6))]
    both = list(filter_folds(calendar, folds))
    changed = calendar._replace(order=np.r_[calendar.order[:40], -calendar.order[40:]])
    (alone,) = filter_folds(changed, folds[:1])
    np.testing.assert_array_equal(both[0].slope.log_evidence, alone.slope.log_evidence)
    np.testing.assert_array_equal(both[0].noise_sigma, folds[0].slow.noise_sigma[calendar.archetype[20:40]])
    np.testing.assert_array_equal(both[1].noise_sigma, folds[1].slow.noise_sigma[calendar.archetype[40:]])
    for early, late in zip(both[0].shift.before, alone.shift.before, strict=True):
        np.testing.assert_array_equal(early.probability, late.probability)


def test_evidence_is_the_integrated_likelihood():
    """The evidence of the first race is its likelihood, integrated over the prior of the level."""
    calendar = races(np.zeros(1), np.zeros(1), seed=7)
    sure = SlowParameters(np.array([0.0]), np.array([0.0]), np.zeros((4, 1)), [Reference(0.0, 0.0)] * 4)
    (fold,) = filter_folds(calendar, [Fold(range(1), sure)])
    x = np.linspace(-1.5, 1.5, 601)
    prior = np.exp(-0.5 * (x / PRIOR_SLOPE_MU) ** 2)
    curve = np.asarray(evaluate(calendar.order, x[None], *LOG_SHARPNESS_BOX))[0]
    expected = np.log((prior * np.exp(curve)).sum() / prior.sum())
    np.testing.assert_allclose(fold.slope.log_evidence[0, 0], expected, atol=2e-3)


def test_changes_have_the_law_of_the_state():
    """Mean and spread are those of the state with race noise; slow parameters stand in random order."""
    calendar = races(np.full(40, -0.3), np.full(40, 0.4), seed=8)
    (fold,) = filter_folds(calendar, [Fold(range(38, 40), slow())])
    own = int(calendar.archetype[39])
    changes = draw_changes(fold, 1, own, 4001, np.random.default_rng(1))
    assert changes.log_sharpness.shape == changes.incident_shift.shape == (4001,)
    slope, (lower, upper) = summarise_state(fold.slope.before[1], own, ENDS)
    assert abs(changes.log_sharpness.mean() - slope) < 0.01
    spread = np.sqrt(((upper - lower) / 3.92) ** 2 + (fold.noise_sigma[1] ** 2).mean())
    np.testing.assert_allclose(changes.log_sharpness.std(), spread, rtol=0.1)
    shift, ends = summarise_state(fold.shift.before[1], own, ENDS)
    np.testing.assert_allclose(np.quantile(changes.incident_shift, ENDS), ends, atol=0.05)
    assert abs(changes.incident_shift.mean() - shift) < 0.01
    by_draw = [changes.log_sharpness[k::16].mean() for k in range(16)]
    assert np.std(by_draw) < 3 * spread / np.sqrt(4001 / 16)
