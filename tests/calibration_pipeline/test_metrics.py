"""Reference values, orientation, warnings and errors of the ensemble metrics."""

import logging

import jax
import numpy as np
import pytest
import scoringrules
from scipy.stats import gaussian_kde

from calibration_pipeline.metrics import (
    DENSITY_FLOOR,
    compute_all_metrics,
    compute_coverage,
    compute_crps,
    compute_log_score,
)

METRICS = (compute_crps, compute_log_score, compute_coverage, compute_all_metrics)


@pytest.fixture
def rng():
    return np.random.default_rng(20211107)


@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
@pytest.mark.parametrize("ties", [False, True])
def test_crps_agrees_with_scoringrules(rng, fair, estimator, ties):
    predictions = rng.normal(5, 3, size=(101, 60))
    observations = rng.normal(5, 3, size=60)
    if ties:
        predictions, observations = predictions.round(), observations.round()
    reference = scoringrules.crps_ensemble(observations, predictions, m_axis=0, estimator=estimator).mean()
    assert compute_crps(predictions, observations, fair=fair) == pytest.approx(reference, abs=1e-6)


def test_crps_of_a_large_normal_ensemble_is_the_analytic_one(rng):
    observations = rng.normal(size=20)
    quantiles = rng.normal(size=(40_000, 20))
    reference = scoringrules.crps_normal(observations, 0.0, 1.0).mean()
    assert compute_crps(quantiles, observations) == pytest.approx(reference, abs=0.005)


def test_crps_far_from_zero_keeps_its_digits(rng):
    predictions, observations = rng.normal(size=(50, 10)), rng.normal(size=10)
    assert compute_crps(predictions + 2**30, observations + 2**30) == pytest.approx(
        compute_crps(predictions, observations), abs=1e-6
    )


def test_fair_crps_does_not_depend_on_the_number_of_members(rng):
    """Its expectation is that of the distribution itself: 1/sqrt(pi) for N(0, 1) against N(0, 1)."""
    observations = rng.normal(size=200_000)
    assert compute_crps(rng.normal(size=(3, 200_000)), observations, fair=True) == pytest.approx(
        1 / np.sqrt(np.pi), abs=0.006
    )


@pytest.mark.parametrize(("score", "sign"), [(compute_crps, 1), (compute_log_score, -1)])
def test_scores_are_proper(rng, score, sign):
    """Shifted, sharpened and flattened forecasts score worse than the truth."""
    n_predictions = 4_000
    members, observations = rng.normal(size=(200, n_predictions)), rng.normal(size=n_predictions)
    truth = sign * score(members, observations)
    for wrong in (members + 0.3, members * 0.7, members * 1.4):
        assert sign * score(wrong, observations) > truth


def test_log_score_agrees_with_scipy(rng):
    predictions, observations = rng.normal(size=(80, 12)), rng.normal(size=12)
    reference = [
        gaussian_kde(member).logpdf(y)[0] for member, y in zip(predictions.T, observations, strict=True)
    ]
    assert compute_log_score(predictions, observations) == pytest.approx(np.mean(reference), abs=1e-10)


def test_log_score_has_a_floor_and_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        score = compute_log_score([[0.0, 0.0], [1.0, 1.0]], [0.5, 1e6])
    assert "1 of 2 predictions is at its floor" in caplog.text
    assert score > np.log(DENSITY_FLOOR)


def test_a_constant_ensemble_is_a_point_forecast(caplog):
    hit = compute_log_score(np.full((5, 1), 7.0), [7.0])
    assert hit == pytest.approx(-np.log(7e-6 * np.sqrt(2 * np.pi)))
    with caplog.at_level(logging.WARNING):
        assert compute_log_score(np.full((5, 1), 7.0), [8.0]) == pytest.approx(np.log(DENSITY_FLOOR))
    assert "floor" in caplog.text
    assert compute_log_score([[0.1]], [0.1]) > 0


def test_coverage_of_small_and_discrete_ensembles_is_nominal(rng):
    """Nine members, continuous or whole numbers: a calibrated forecast has nominal coverage."""
    members, observations = rng.normal(size=(9, 50_000)), rng.normal(size=50_000)
    for scale in (1000, 1):
        coverage = compute_coverage((scale * members).round(), (scale * observations).round())
        assert coverage == pytest.approx({0.5: 0.5, 0.8: 0.8, 0.95: 0.95}, abs=0.008)


def test_coverage_of_a_large_ensemble_is_that_of_its_quantiles(rng):
    members, observations = rng.normal(size=(2_000, 400)), rng.normal(0, 1.5, size=400)
    lower, upper = np.quantile(members, [0.1, 0.9], axis=0)
    plain = np.mean((lower <= observations) & (observations <= upper))
    assert compute_coverage(members, observations, [0.8])[0.8] == pytest.approx(plain, abs=0.006)


def test_poor_coverage_is_logged(rng, caplog):
    members = rng.normal(size=(500, 500))
    with caplog.at_level(logging.WARNING):
        compute_coverage(members, rng.normal(size=500))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        compute_coverage(0.2 * members, rng.normal(size=500), levels=[0.8])
    assert "Coverage of the 80 % intervals" in caplog.text


def test_lists_and_jax_arrays_are_read(rng):
    predictions, observations = rng.normal(size=(20, 3)).astype(np.float32), np.float32([0.0, 1.0, 2.0])
    expected = compute_all_metrics(predictions, observations)
    assert compute_all_metrics(predictions.tolist(), observations.tolist()) == expected
    key = jax.random.key(0)
    positions = jax.random.randint(key, (50, 10), 1, 41)
    assert np.isfinite(compute_all_metrics(positions, positions[0])["log_score"])


def test_a_notebook_session(rng):
    predictions, observations = rng.normal(size=(100, 10)) + 5, rng.normal(size=10) + 5
    assert 0 < compute_crps(predictions, observations) < 10
    coverage = compute_coverage(predictions, observations, [0.5, 0.95])
    assert set(coverage) == {0.5, 0.95}
    assert 0 <= coverage[0.5] <= 1
    assert np.isfinite(compute_log_score(predictions, observations))
    assert set(compute_all_metrics(predictions, observations)) == {"crps", "log_score", "coverage"}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("predictions", "observations", "message"),
    [
        (np.zeros((10, 40)), np.zeros(10), r"axis 0 is 10 samples, axis 1 is 40 pred.*only transposed"),
        (np.zeros((10, 40)), np.zeros(7), r"axis 1 is 40 predictions, but there are 7 observations\.$"),
        (np.zeros(10), np.zeros(10), r"predictions must have shape \(n_samples, n_predictions\)"),
        (np.zeros((0, 3)), np.zeros(3), r"got \(0, 3\)"),
        (np.zeros((3, 3)), np.zeros((3, 1)), r"observations must have shape"),
        ([[np.nan, 0.0], [np.inf, np.nan]], [0.0, 0.0], r"predictions must be finite, got 2 NaN and 1 inf"),
        (np.zeros((3, 2)), [0.0, np.nan], r"observations must be finite, got 1 NaN and 0 infinite of 2"),
        (
            np.ma.masked_greater(np.eye(3), 0.5),
            np.zeros(3),
            "predictions must be an array without a mask.*leave",
        ),
        (np.eye(3), np.ma.masked_less(np.zeros(3), 1), "observations must be an array without a mask"),
        (
            [np.ma.masked_greater(np.eye(3)[0], 0.5)],
            np.zeros(3),
            "predictions must be an array without a mask",
        ),
        (
            np.eye(3) + 1j,
            np.zeros(3),
            "predictions must be real numbers, got complex ones: pass their real part",
        ),
        (np.eye(3), [0.0, 1j, 0.0], "observations must be real numbers, got complex"),
        (
            [[1e308], [-1e308]],
            [0.0],
            r"predictions must lie within ±1e\+100, got 2 of 2 values.*largest is 1e\+308",
        ),
        (
            np.eye(3),
            [0.0, -1.7e308, 0.0],
            r"observations must lie within .*got 1 of 3 values beyond.*-1.7e\+308",
        ),
    ],
)
def test_bad_input_is_refused(metric, predictions, observations, message):
    with pytest.raises(ValueError, match=message):
        metric(predictions, observations)


def test_numbers_up_to_the_limit_have_finite_scores():
    """Squares and sums stay finite for ensembles as far apart as is allowed."""
    for members in ([[1e100], [-1e100]], [[1e100], [1e100]], [[0.0], [1.1e-12]], [[-1e100], [1e-300]]):
        for observed in ([1e100], [-1e100], [0.0]):
            scores = compute_all_metrics(members, observed)
            assert np.isfinite([scores["crps"], scores["log_score"], *scores["coverage"].values()]).all()


@pytest.mark.parametrize("levels", [0.9, np.float64(0.9), np.array(0.9), "0.9", None])
def test_levels_must_be_a_sequence(levels):
    with pytest.raises(
        ValueError, match=r"levels must be a sequence of numbers .*got .*pass one level as a list"
    ):
        compute_coverage([[1.0]], [1.0], levels=levels)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="0 < level < 1, got 95"):
        compute_coverage([[1.0]], [1.0], levels=[95])
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        compute_crps([[1.0]], [1.0], fair=True)
