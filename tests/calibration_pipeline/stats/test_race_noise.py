"""Noise tables of races against normal likelihoods, whose noise has a closed form."""

import numpy as np
import pytest

from calibration_pipeline.stats.race_noise import (
    INTERCEPT_BOX,
    Surfaces,
    even_normals,
    fit_surfaces,
    read_tables,
    sampler_tables,
    spread_noise,
    tabulate_noise,
)

BOX, WIDTH, N_RACES = (-2.2, 2.2), 0.15, 70
BEST = np.random.default_rng(0).normal(-0.3, 0.2, N_RACES)


def surfaces() -> Surfaces:
    """Normal likelihoods of informative races, with a further factor of the intercept."""

    def log_likelihood(points: np.ndarray) -> np.ndarray:
        x, b = points[:, :1], points[:, 1:]
        return -0.5 * ((x - BEST) / WIDTH) ** 2 - 0.5 * ((b - 0.2) / 0.4) ** 2

    return fit_surfaces(log_likelihood, (24, 16), BOX)


@pytest.fixture(scope="module")
def tables():
    own = tabulate_noise(surfaces())
    sums = np.stack([own[:40].sum(axis=0), own[40:].sum(axis=0)])
    return sampler_tables(sums, BOX, 0.3)


@pytest.mark.parametrize("noise", [0.0, 0.015, 0.06, 0.14, 0.4, 1.0])
def test_tables_are_the_integrated_likelihood(tables, noise):
    """Between the grid's points, within .02 nats of 40 and 30 races, relative to slope 1 and intercept 0."""
    log_slope, intercept = np.array([-0.33, 0.18], np.float32), 0.43
    variance = WIDTH**2 + noise**2
    by_race = 0.5 * np.log(WIDTH**2 / variance) - 0.5 * (log_slope[:, None] - BEST) ** 2 / variance
    by_race += 0.5 * (BEST / WIDTH) ** 2 - 0.5 * ((intercept - 0.2) / 0.4) ** 2 + 0.5 * (0.2 / 0.4) ** 2
    expected = [by_race[0, :40].sum(), by_race[1, 40:].sum()]
    np.testing.assert_allclose(read_tables(tables, log_slope, noise, intercept), expected, atol=0.02)


def test_the_normal_summary_is_that_of_the_races(tables):
    """Information and estimate of each group, at a noise of 0.2 and intercept 0."""
    information = 1 / (WIDTH**2 + 0.205**2)
    np.testing.assert_allclose(tables.information, [40 * information, 30 * information], rtol=0.01)
    estimate = np.asarray(tables.weighted_estimate) / np.asarray(tables.information)
    np.testing.assert_allclose(estimate, [BEST[:40].mean(), BEST[40:].mean()], atol=0.01)


def test_a_race_has_the_same_table_whatever_the_others():
    """Bitwise."""
    known = surfaces()
    few = Surfaces(known.coefficients[:3], known.at_zero[:3], known.box)
    np.testing.assert_array_equal(tabulate_noise(few), tabulate_noise(known)[:3])
    assert tabulate_noise(Surfaces(known.coefficients[:0], known.at_zero[:0], known.box)).shape[0] == 0


def test_spread_noise_has_the_law_of_a_race():
    """Even quantiles of a normal mixture, with the draws that they belong to."""
    rng = np.random.default_rng(1)
    log_slope, noise = rng.normal(-0.2, 0.1, (2, 4000)), np.full((2, 4000), 0.3)
    for eps in (even_normals(64), rng.permutation(even_normals(4000))[:, None]):
        points, draw = spread_noise(log_slope, noise, eps, 512)
        assert points.shape == draw.shape == (2, 512)
        assert (np.diff(points) >= 0).all()
        np.testing.assert_allclose(points.mean(axis=1), -0.2, atol=0.01)
        np.testing.assert_allclose(points.std(axis=1), np.hypot(0.1, 0.3), rtol=0.03)
        own = (points[0] - log_slope[0, draw[0]]) / 0.3
        assert np.abs(own).max() <= eps.max() + 1e-9


def test_intercepts_beyond_the_box_continue_linearly(tables):
    edge = INTERCEPT_BOX[1]
    x = np.zeros(2, np.float32)
    values = [np.asarray(read_tables(tables, x, 0.1, b)) for b in (edge, edge + 1, edge + 2)]
    np.testing.assert_allclose(values[2] - values[1], values[1] - values[0], rtol=1e-3)
