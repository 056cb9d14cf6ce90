"""Intervals over races: known cases, invariances, and coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.intervals import simulate
from benchmarks.simulated_races import LAWS
from calibration_pipeline.stats.intervals import (
    clustered_mean,
    clustered_ratio,
    clustered_share,
    jackknife_interval,
    student_t,
)

RACE_MEANS = hnp.arrays(float, st.integers(2, 12), elements=st.floats(-100, 100).map(lambda x: round(x, 3)))


@pytest.fixture
def rng():
    return np.random.default_rng(20210214)


def mean_interval(means):
    """The interval of a mean over races of one size."""
    return jackknife_interval(means.mean(), means - means.mean(), np.ones(means.size))


def test_a_mean_without_skewness_has_the_t_interval_of_race_means():
    """Reference: scipy.stats.t, on races - 2 degrees of freedom."""
    means = np.array([-3.0, -1.0, 0.0, 0.0, 1.0, 3.0]) + 7
    values = np.repeat(means, 4) + np.tile([-1.0, 1.0, -2.0, 2.0], 6)
    result = clustered_mean(values, np.repeat(np.arange(6), 4))
    half = 2.7764451 * means.std(ddof=1) / np.sqrt(6)
    assert (result.estimate, result.n_races, result.n_cases) == (pytest.approx(7), 6, 24)
    assert (result.lower, result.upper) == pytest.approx((7 - half, 7 + half))


def test_two_races_have_the_t_interval_on_one_degree_of_freedom():
    result = clustered_mean(np.array([1.0, 3.0]), np.array([0, 1]))
    assert (result.lower, result.upper) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)


def test_the_bounds_solve_halls_equation(rng):
    """Reference: Hall (1992), T + g/sqrt(n) (T^2/3 + 1/6) + g^2/n T^3/27 is +-t at the bounds T."""
    means = rng.gamma(1.0, size=9)
    n, error = means.size, means.std(ddof=1) / 3
    skewness = n / ((n - 1) * (n - 2)) * np.sum(((means - means.mean()) / means.std(ddof=1)) ** 3)
    studentised = (means.mean() - np.array(mean_interval(means))) / error
    g = skewness / np.sqrt(n)
    transformed = studentised + g * (studentised**2 / 3 + 1 / 6) + g**2 * studentised**3 / 27
    assert transformed == pytest.approx([student_t(9), -student_t(9)])


@given(RACE_MEANS)
def test_the_interval_holds_the_estimate_and_mirrors(means):
    lower, upper = mean_interval(means)
    assert lower <= means.mean() + 1e-9
    assert means.mean() <= upper + 1e-9
    assert mean_interval(-means) == pytest.approx((-upper, -lower), abs=1e-6)
    assert mean_interval(3 * means + 5) == pytest.approx((3 * lower + 5, 3 * upper + 5), abs=1e-5)


def test_the_interval_reaches_farther_into_the_long_tail():
    lower, upper = mean_interval(np.array([0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 2.0]))
    assert upper - 2.9 / 7 > 2 * (2.9 / 7 - lower)


def test_a_race_weighs_as_many_cases_as_it_has():
    result = clustered_mean(np.array([0.0, 1.0, 1.0, 1.0]), np.array([5, 9, 9, 9]))
    assert result.estimate == 0.75


def test_one_race_has_an_estimate_but_no_interval():
    result = clustered_mean(np.array([1.0, 2.0]), np.array([3, 3]))
    assert (result.estimate, result.lower, result.upper, result.n_races) == (1.5, None, None, 1)
    assert clustered_share(np.array([1]), np.array([2])).lower is None


def test_order_of_cases_and_names_of_races_do_not_matter(rng):
    values, race = rng.normal(size=40), rng.integers(5, size=40)
    order = rng.permutation(40)
    expected = clustered_mean(values, race)
    shuffled = clustered_mean(values[order], np.array(list("vwxyz"))[race][order])
    assert shuffled.lower == pytest.approx(expected.lower)
    assert shuffled.upper == pytest.approx(expected.upper)
    assert shuffled.error_ratio == pytest.approx(expected.error_ratio)


def test_the_error_ratio_is_the_design_effect(rng):
    """Ten cases that are alike count once a race: the ratio is about the square root of ten."""
    race = np.repeat(np.arange(400), 10)
    alike = clustered_mean(rng.normal(size=400)[race], race)
    alone = clustered_mean(rng.normal(size=4000), race)
    assert alike.error_ratio == pytest.approx(np.sqrt(10), rel=0.01)
    assert alone.error_ratio == pytest.approx(1, abs=0.1)
    successes = 10 * rng.integers(2, size=400)
    assert clustered_share(successes, np.full(400, 10)).error_ratio == pytest.approx(np.sqrt(10), rel=0.01)


def test_a_share_of_one_case_a_race_has_wilsons_interval():
    """Reference: 3 of 20 has the Wilson interval [0.0524, 0.3604] (Newcombe 1998, formula 3)."""
    result = clustered_share(np.repeat([1, 0], [3, 17]), np.ones(20, int))
    assert (result.lower, result.upper) == pytest.approx((0.0524, 0.3604), abs=1e-4)


@pytest.mark.parametrize("share", [0, 1])
def test_a_share_that_never_varies_still_has_an_interval(share):
    result = clustered_share(np.full(6, 8 * share), np.full(6, 8))
    assert result.lower <= result.estimate <= result.upper
    assert 0.3 < result.upper - result.lower < 0.7


def test_a_share_that_hardly_varies_has_a_narrow_interval():
    """Five of the field are in the top five, whatever happens: only the size of the field varies."""
    size = np.array([36, 37, 38, 39, 40] * 4)
    result = clustered_share(np.full(20, 5), size)
    assert result.upper - result.lower < 0.01


@pytest.mark.parametrize(
    ("values", "race", "message"),
    [
        ([], [], "at least one case"),
        ([1.0, 2.0], [1], "one shape"),
        ([1.0, np.nan], [1, 2], "must be finite"),
    ],
)
def test_bad_cases_are_refused(values, race, message):
    with pytest.raises(ValueError, match=message):
        clustered_mean(np.array(values), np.array(race))


def test_empty_denominators_are_refused():
    with pytest.raises(ValueError, match="not add to 0"):
        clustered_ratio(np.ones(2), np.zeros(2), np.arange(2))
    with pytest.raises(ValueError, match="at least one trial"):
        clustered_share(np.zeros(2), np.zeros(2))


@pytest.mark.slow
@pytest.mark.parametrize("n_races", [5, 36])
def test_intervals_hold_the_truth_at_their_nominal_rate(n_races):
    """Between 93 and 97 % of the time, for every score: of 400, within three Monte-Carlo standard errors."""
    found = simulate(LAWS["superspeedway"], [n_races], 400, n_templates=60)
    assert found["with_interval"].min() == 1
    margin = 3 * np.sqrt(0.95 * 0.05 / 400)
    assert found["covered"].min() >= 0.93 - margin, found
    assert found["covered"].max() <= 0.97 + margin
    assert 0.93 <= found["covered"].mean() <= 0.97
