"""Tests of e-processes: their values, their restarts, and how often they reach 20 by chance."""

import numpy as np
import pytest
from scipy.stats import beta

from calibration_pipeline.stats.e_processes import SHAPES, log_e_process, log_mean

ALARM = np.log(20)
N_HISTORIES, N_RACES = 2_000, 200
ONE_BLOCK = np.zeros(N_RACES)


@pytest.fixture(scope="module")
def by_chance():
    """E-processes of uniform ranks, (history, race)."""
    ranks = np.random.default_rng(1939).random((N_HISTORIES, N_RACES))
    return log_e_process(ranks, ONE_BLOCK)


def test_process_is_the_mean_over_the_beta_densities_of_their_products():
    ranks = [0.3, 0.9, 0.05]
    products = [np.prod(beta.pdf(ranks, a, b)) for a in SHAPES for b in SHAPES]
    np.testing.assert_allclose(np.exp(log_e_process(ranks, [0, 0, 0])[-1]), np.mean(products), rtol=1e-12)


def test_mean_at_a_fixed_race_is_one(by_chance):
    """The mean of e-values is 1 under the null hypothesis; four standard errors."""
    e = np.exp(by_chance[:, 4])
    assert abs(e.mean() - 1) < 4 * e.std() / np.sqrt(e.size)


def test_at_most_5_percent_of_calibrated_forecasts_raise_an_alarm_in_200_races(by_chance):
    rate = (by_chance.max(axis=1) >= ALARM).mean()
    assert 0.005 < rate <= 0.05


def test_restart_gives_every_season_a_process_of_its_own():
    ranks = np.random.default_rng(3).random((2, 12))
    season = np.repeat([2021, 2022, 2024], [3, 5, 4])
    parts = [
        log_e_process(ranks[:, season == year], np.zeros((season == year).sum()))
        for year in (2021, 2022, 2024)
    ]
    np.testing.assert_allclose(log_e_process(ranks, season), np.concatenate(parts, axis=1), atol=1e-12)


def test_later_races_change_no_earlier_value():
    ranks = np.random.default_rng(4).random(20)
    whole = log_e_process(ranks, np.zeros(20))
    np.testing.assert_array_equal(log_e_process(ranks[:7], np.zeros(7)), whole[:7])


@pytest.mark.parametrize(
    ("a", "b"), [(0.6, 1.4), (1.4, 0.6), (0.6, 0.6), (1.8, 1.8)], ids=["low", "high", "ends", "middle"]
)
def test_every_kind_of_deviation_is_found(a, b):
    """Ranks that are too low, too high, too often at both ends, or too often in the middle."""
    ranks = np.random.default_rng(5).beta(a, b, (400, 120))
    assert (log_e_process(ranks, np.zeros(120)).max(axis=1) >= ALARM).mean() > 0.8


def test_evidence_never_falls_below_its_floor():
    """After races without evidence, a sudden deviation needs a bounded number of races."""
    assert (log_e_process(np.full(500, 0.5), np.zeros(500)) >= -np.log(25)).all()


def test_mean_of_e_values_keeps_the_rate_for_any_dependence(by_chance):
    """Ten processes that are the same, and ten that are independent."""
    same = log_mean(np.stack([by_chance[:200]] * 10))
    np.testing.assert_allclose(same, by_chance[:200], atol=1e-12)
    independent = log_mean(by_chance.reshape(10, 200, N_RACES))
    assert (independent.max(axis=1) >= ALARM).mean() <= 0.05


@pytest.mark.parametrize("rank", [0.0, 1.0, -0.1, np.nan])
def test_ranks_outside_the_unit_interval_are_refused(rank):
    with pytest.raises(ValueError, match=r"rank must lie in \(0, 1\)"):
        log_e_process([0.5, rank], [0, 0])


def test_labels_that_return_are_refused():
    with pytest.raises(ValueError, match="one after another"):
        log_e_process([0.5, 0.5, 0.5], [2021, 2022, 2021])
