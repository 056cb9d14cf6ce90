"""Properties that metrics and models must have, whatever the data."""

import arviz as az
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from calibration_pipeline.metrics import compute_coverage, compute_crps, compute_log_score
from calibration_pipeline.models import (
    compute_calibration_summary,
    predict_with_calibrated_model,
    run_mcmc_calibration,
)

NUMBERS = st.floats(-100, 100, allow_subnormal=False)


@st.composite
def forecasts(draw: st.DrawFn) -> tuple[NDArray, NDArray]:
    n_samples, n_predictions = draw(st.integers(2, 12)), draw(st.integers(1, 6))
    predictions = draw(arrays(float, (n_samples, n_predictions), elements=NUMBERS))
    return predictions, draw(arrays(float, n_predictions, elements=NUMBERS))


@given(forecasts(), st.floats(-50, 50), st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_crps_properties(forecast, shift, scale, random):
    """CRPS is never negative, 0 for certainty about the truth, and equivariant."""
    predictions, observations = forecast
    score = compute_crps(predictions, observations)
    assert score >= -1e-12
    assert compute_crps(np.broadcast_to(observations, predictions.shape), observations) == 0

    order = random.sample(range(len(predictions)), len(predictions))
    assert compute_crps(predictions[order], observations) == pytest.approx(score, abs=1e-10)
    assert compute_crps(predictions + shift, observations + shift) == pytest.approx(score, abs=1e-10)
    assert compute_crps(-scale * predictions, -scale * observations) == pytest.approx(scale * score, abs=1e-9)
    absolute_error = np.abs(predictions - observations).mean()
    assert score <= absolute_error + 1e-10
    assert compute_crps(predictions[:1], observations) == pytest.approx(
        np.abs(predictions[0] - observations).mean(), abs=1e-10
    )


@given(forecasts())
def test_crps_is_its_definition(forecast):
    """The sorted form equals E|X - y| - E|X - X'| / 2 over all pairs."""
    predictions, observations = forecast
    error = np.abs(predictions - observations).mean(axis=0)
    spread = np.abs(predictions[:, None] - predictions[None]).mean(axis=(0, 1))
    assert compute_crps(predictions, observations) == pytest.approx(np.mean(error - spread / 2), abs=1e-9)


@given(forecasts(), st.floats(0.05, 0.9))
def test_coverage_properties(forecast, level):
    """Coverage is a share, and wider intervals cover no less."""
    predictions, observations = forecast
    coverage = compute_coverage(predictions, observations, [level, level + 0.05])
    assert 0 <= coverage[level] <= coverage[level + 0.05] + 1e-12 <= 1 + 1e-9


@given(forecasts())
def test_log_score_is_finite(forecast):
    """No ensemble, constant or far off, makes the log score infinite."""
    assert np.isfinite(compute_log_score(*forecast))


def simulated_finishes(slope, n_races, n_cars, noise_sigma=0.0, seed=11):
    """Bell-shaped forecasts, and positions drawn car by car from the map's own distortion of them.

    `slope` is one number, or one for each race.
    """
    rng = np.random.default_rng(seed)
    strength = rng.permuted(np.tile(np.arange(n_cars), (n_races, 1)), axis=1)[..., None]
    bell = np.exp(-0.5 * ((np.arange(n_cars) - strength) / (0.2 * n_cars)) ** 2) + 0.01
    probabilities = bell / bell.sum(axis=-1, keepdims=True)
    race_slope = np.broadcast_to(slope, n_races) * np.exp(noise_sigma * rng.normal(size=n_races))
    w = 1 / (1 + (probabilities / (1 - probabilities)) ** -race_slope[:, None, None])
    cumulative = np.cumsum(w / w.sum(axis=-1, keepdims=True), axis=-1)
    position = 1 + (rng.uniform(size=(n_races, n_cars, 1)) > cumulative).sum(axis=-1)
    return position.clip(1, n_cars), probabilities


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.6, 1.6])
def test_planted_slope_dominates_the_prior(slope):
    """The 95 % interval holds the truth and excludes 1, and the data dominate the prior."""
    position, probabilities = simulated_finishes(slope, n_races=30, n_cars=20, noise_sigma=0.1)
    samples, _ = run_mcmc_calibration(position, probabilities, "intermediate")
    summary = compute_calibration_summary(samples, "intermediate")
    assert summary["slope_lower"] < slope < summary["slope_upper"]
    assert (summary["slope_upper"] < 1) if slope < 1 else (summary["slope_lower"] > 1)
    assert summary["slope_mean"] == pytest.approx(slope, rel=0.12)
    assert summary["slope_contraction"] > 0.9
    assert abs(summary["intercept_contraction"]) < 0.5


@pytest.mark.slow
def test_mcmc_convergence():
    """Four chains of the default length agree: R-hat < 1.01, ESS > 400, no divergences."""
    position, probabilities = simulated_finishes(0.8, n_races=30, n_cars=20, noise_sigma=0.2)
    samples, mcmc = run_mcmc_calibration(position, probabilities, "short_track")
    assert samples["slope"].shape == (4000,)
    chains = {name: np.asarray(draws) for name, draws in mcmc.get_samples(group_by_chain=True).items()}
    table = az.summary(az.from_dict({"posterior": chains}))
    assert float(table["r_hat"].astype(float).max()) < 1.01
    assert float(table["ess_bulk"].astype(float).min()) > 400
    assert float(table["ess_tail"].astype(float).min()) > 400
    assert int(mcmc.get_extra_fields()["diverging"].sum()) == 0


@pytest.mark.slow
def test_seasons_have_their_own_slopes():
    """The fit separates the slopes of seasons; the slope of an unseen season is less certain."""
    truth = np.repeat([0.7, 1.3], 15)
    position, probabilities = simulated_finishes(truth, n_races=30, n_cars=20)
    season = np.repeat([2024, 2025], 15)
    samples, _ = run_mcmc_calibration(position, probabilities, "short_track", season=season)
    assert samples["slope"].shape == (4000, 2)
    summary = compute_calibration_summary(samples, "short_track")
    for i, slope in enumerate([0.7, 1.3]):
        assert summary[f"slope_season_{i}_lower"] < slope < summary[f"slope_season_{i}_upper"]
        assert summary[f"slope_season_{i}_sd"] < summary["slope_sd"]
    assert len(summary["notes"]) == 1
    assert "intercept" in summary["notes"][0]
    assert "slope_season" not in summary["notes"][0]


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.6, 1.5])
def test_recalibration_gains_on_new_races(slope):
    """Races that the fit has not seen: a better log score, and at slope 1 nothing is lost."""
    position, probabilities = simulated_finishes(slope, n_races=60, n_cars=20)
    samples, _ = run_mcmc_calibration(position[:30], probabilities[:30], "intermediate")
    repaired = predict_with_calibrated_model(samples, probabilities[30:], "intermediate")
    chosen = position[30:, :, None] - 1
    gain = np.log(
        np.take_along_axis(repaired, chosen, -1) / np.take_along_axis(probabilities[30:], chosen, -1)
    )
    race_means = gain[..., 0].mean(axis=1)
    assert race_means.mean() > 3 * race_means.std() / np.sqrt(30)


@pytest.mark.soak
def test_intervals_cover_the_truth():
    """Truths drawn from the prior lie within their 80 % intervals 80 % of the time."""
    rng = np.random.default_rng(1)
    inside = []
    for seed in range(60):
        log_slope = rng.normal(0, 0.3) + np.abs(rng.normal(0, 0.25)) * rng.normal()
        noise = np.abs(rng.normal(0, 0.5))
        finishes = simulated_finishes(np.exp(log_slope), 12, 12, noise_sigma=noise, seed=seed)
        samples, _ = run_mcmc_calibration(*finishes, "short_track", n_samples=500)
        lower, upper = np.quantile(np.log(samples["slope"]), [0.1, 0.9])
        inside.append(lower < log_slope < upper)
    assert abs(np.mean(inside) - 0.8) < 3 * np.sqrt(0.8 * 0.2 / 60)
