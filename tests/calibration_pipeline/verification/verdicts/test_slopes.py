"""Slopes of win, top-k and retirement probabilities: against independent fits, at the truth, and refusals."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from calibration_pipeline.stats.intervals import student_t
from calibration_pipeline.verification.verdicts.slopes import (
    head_to_head_slope,
    retirement_slope,
    top_slope,
    win_slope,
)

N_CARS = 20


def probabilities(rng, n_races):
    """Return P(win) of the cars of races, (race, car)."""
    weight = np.exp(rng.normal(0, 1, (n_races, N_CARS)))
    return weight / weight.sum(axis=1, keepdims=True)


def one_hot(rng, probability):
    """Draw one car of each race."""
    drawn = (probability.cumsum(axis=1) < rng.random((len(probability), 1))).sum(axis=1)
    return np.arange(probability.shape[1]) == drawn[:, None]


def sharpened(probability, exponent):
    weight = probability**exponent
    return weight / weight.sum(axis=1, keepdims=True)


def races(n_races):
    return np.repeat(np.arange(n_races), N_CARS)


def jackknife(estimate, n_races):
    """Return the standard error from fits without each race: `estimate` takes a mask of races."""
    left_out = np.array([estimate(np.arange(n_races) != r) for r in range(n_races)])
    return np.sqrt((n_races - 1) / n_races * np.sum((left_out - left_out.mean()) ** 2))


def logistic_slope(columns, happened, *, fit_intercept):
    """Return the coefficient of the first column in an unpenalised logistic regression."""
    from sklearn.linear_model import LogisticRegression  # takes seconds to load

    model = LogisticRegression(C=np.inf, fit_intercept=fit_intercept, tol=1e-10, max_iter=2000)
    return model.fit(columns, happened).coef_[0, 0]


def test_win_slope_maximises_the_conditional_likelihood() -> None:
    rng = np.random.default_rng(1)
    p = probabilities(rng, 60)
    won = one_hot(rng, sharpened(p, 0.7))

    def fit(used):
        loss = lambda b: -log_softmax(b[0] * np.log(p[used]), axis=1)[won[used]].sum()  # noqa: E731
        return minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11}).x[0]

    found = win_slope(p.ravel(), won.ravel(), races(60))
    assert found.estimate == pytest.approx(fit(np.full(60, True)), abs=1e-6)
    half = (found.upper - found.lower) / 2
    assert half == pytest.approx(student_t(60) * jackknife(fit, 60), rel=0.06)
    assert (found.n_races, found.n_cases) == (60, 60 * N_CARS)


def test_top_slope_maximises_the_likelihood_with_race_intercepts() -> None:
    """Dummies of races, one dropped, in an unpenalised logistic regression."""
    rng = np.random.default_rng(2)
    x = rng.normal(-1, 1.2, (40, N_CARS))
    inside = rng.random(x.shape) < expit(0.8 * x + rng.normal(0, 0.5, (40, 1)))
    inside[:, 0], inside[:, 1] = True, False
    race = races(40)
    columns = np.column_stack([x.ravel(), race[:, None] == np.arange(40)])
    reference = logistic_slope(columns, inside.ravel(), fit_intercept=False)
    found = top_slope(expit(x.ravel()), inside.ravel(), race)
    assert found.estimate == pytest.approx(reference, abs=1e-4)


def test_retirement_slope_is_that_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(-2, 0.7, 60 * N_CARS)
    retired = rng.random(x.size) < expit(0.5 * x - 0.4)

    def fit(used):
        """Newton's method: scikit-learn takes seconds for 60 fits."""
        chosen = np.repeat(used, N_CARS)
        columns, coefficients = np.column_stack([x[chosen], np.ones(chosen.sum())]), np.zeros(2)
        for _ in range(10):
            p = expit(columns @ coefficients)
            information = columns.T @ (columns * (p * (1 - p))[:, None])
            coefficients += np.linalg.solve(information, columns.T @ (retired[chosen] - p))
        return coefficients[0]

    found = retirement_slope(expit(x), retired, races(60))
    assert found.estimate == pytest.approx(logistic_slope(x[:, None], retired, fit_intercept=True), abs=1e-4)
    assert found.estimate == pytest.approx(fit(np.full(60, True)), abs=1e-6)
    half = (found.upper - found.lower) / 2
    assert half == pytest.approx(student_t(60) * jackknife(fit, 60), rel=0.06)


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """Of 300 histories of 24 races, each 95 % interval holds its slope in 93 to 97 %, up to three errors.

    Retirements of a race share its chaos, so that cars are no independent cases.
    """
    rng = np.random.default_rng(4)
    held = {"win": 0, "top": 0, "retirement": 0}
    nodes = rng.normal(size=4000)
    chance = np.linspace(-2.5, -0.5, N_CARS)
    marginal = expit(chance[:, None] + 0.7 * nodes).mean(axis=1)
    for _ in range(300):
        p = probabilities(rng, 24)
        won, race = one_hot(rng, sharpened(p, 0.7)).ravel(), races(24)
        slope = win_slope(p.ravel(), won, race)
        held["win"] += slope.lower <= 0.7 <= slope.upper
        utility = np.log(p) + rng.gumbel(size=p.shape)
        inside = (utility >= np.sort(utility, axis=1)[:, -5:-4]).ravel()
        retired = rng.random((24, N_CARS)) < expit(chance + 0.7 * rng.normal(size=(24, 1)))
        slope = retirement_slope(np.tile(marginal, 24), retired.ravel(), race)
        held["retirement"] += slope.lower <= 1 <= slope.upper
        shares = np.tile(np.linspace(0.05, 0.45, N_CARS), (24, 1))
        inside = systematic(rng, shares)
        slope = top_slope(shares.ravel(), inside.ravel(), race)
        held["top"] += slope.lower <= 1 <= slope.upper
    assert all(0.93 - 0.04 <= number / 300 <= 0.97 + 0.03 for number in held.values()), held


def systematic(rng, shares):
    """Draw a fixed number of cars a race with these inclusion probabilities (Madow 1949)."""
    order = rng.permuted(np.tile(np.arange(shares.shape[1]), (len(shares), 1)), axis=1)
    total = np.take_along_axis(shares, order, axis=1).cumsum(axis=1)
    start = rng.random((len(shares), 1))
    hits = np.floor(total - start) > np.floor(np.roll(total, 1, axis=1) * (np.arange(N_CARS) > 0) - start)
    inside = np.empty(shares.shape, bool)
    np.put_along_axis(inside, order, hits, axis=1)
    return inside


def test_slopes_do_not_depend_on_the_order_of_cases() -> None:
    rng = np.random.default_rng(5)
    p = probabilities(rng, 12)
    won, race, order = one_hot(rng, p).ravel(), races(12), rng.permutation(12 * N_CARS)
    for slope in (win_slope, top_slope, retirement_slope):
        first, again = slope(p.ravel(), won, race), slope(p.ravel()[order], won[order], race[order])
        assert again.estimate == pytest.approx(first.estimate, abs=1e-8)
        assert again.lower == pytest.approx(first.lower, abs=1e-7)


def test_a_reversed_forecast_has_a_negative_slope() -> None:
    rng = np.random.default_rng(6)
    p = probabilities(rng, 40)
    won = one_hot(rng, sharpened(p, -1.0)).ravel()
    assert win_slope(p.ravel(), won, races(40)).upper < 0
    assert top_slope(p.ravel(), won, races(40)).upper < 0
    assert retirement_slope(p.ravel(), won, races(40)).upper < 0


def test_there_is_no_slope_without_information() -> None:
    """Equal cars, or outcomes that the order of probabilities separates."""
    equal, race = np.full(60, 1 / N_CARS), races(3)
    won = np.tile(np.arange(N_CARS) == 4, 3)
    favourite = np.tile(np.where(np.arange(N_CARS) == 4, 0.5, 0.5 / (N_CARS - 1)), 3)
    for slope in (win_slope, top_slope, retirement_slope):
        assert slope(equal, won, race) is None
        assert slope(favourite, won, race) is None
    assert retirement_slope(favourite, np.zeros(60, bool), race) is None
    assert retirement_slope(favourite, np.ones(60, bool), race) is None


def test_one_race_has_a_slope_without_interval() -> None:
    single = win_slope(np.array([0.6, 0.3, 0.1]), np.array([False, True, False]), np.zeros(3, int))
    assert (single.lower, single.upper, single.n_races) == (None, None, 1)


@pytest.mark.parametrize("slope", [0.7, 1.0, 1.4])
def test_the_head_to_head_slope_is_recovered(slope):
    """The estimate is centred on the planted slope, and about 95 % of the intervals hold it."""
    rng = np.random.default_rng(20210214)
    race, results = np.repeat(np.arange(30), 50), []
    for _ in range(200):
        x = rng.normal(size=race.size)
        outcome = rng.random(x.size) < 1 / (1 + np.exp(-slope * x))
        results.append(head_to_head_slope(1 / (1 + np.exp(-x)), outcome, race))
    estimates = np.array([result.estimate for result in results])
    assert estimates.mean() == pytest.approx(slope, abs=4 * estimates.std() / np.sqrt(200) + 0.01)
    assert 0.89 <= np.mean([r.lower < slope < r.upper for r in results]) <= 0.995


def test_the_slope_does_not_depend_on_which_car_is_named_first():
    rng = np.random.default_rng(20210214)
    p, race = rng.uniform(0.01, 0.99, 500), rng.integers(5, size=500)
    outcome = rng.random(500) < p
    swap = rng.random(500) < 0.5
    swapped = head_to_head_slope(np.where(swap, 1 - p, p), outcome ^ swap, race)
    original = head_to_head_slope(p, outcome, race)
    assert swapped.estimate == pytest.approx(original.estimate)
    assert (swapped.lower, swapped.upper) == pytest.approx((original.lower, original.upper))


def test_there_is_no_slope_without_a_favourite_or_an_upset():
    race = np.arange(3)
    assert head_to_head_slope(np.full(3, 0.5), np.array([True, False, True]), race) is None
    assert head_to_head_slope(np.full(3, 0.7), np.array([True, True, True]), race) is None
