"""Calculations of the benchmark of alarms: shares of seasons, means over archetypes that race in turn."""

import numpy as np
import pytest
from scipy.special import ndtr

from benchmarks.monitoring_errors import LOG_ALARM, N_RACES, ONE_BLOCK, SEASONS, alarm_share, pool_report
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.stats.e_processes import log_e_process, log_mean

N_REPORTS, N_MARKETS = 100, 7


def test_alarms_are_counted_by_season_and_by_history() -> None:
    log_e = np.zeros((2, N_RACES))
    log_e[0, [3, 5, 12]] = LOG_ALARM
    assert alarm_share(log_e, "season") == 2 / (2 * 20)
    assert alarm_share(log_e, "start") == 1 / 2


def test_archetypes_that_have_not_raced_keep_their_e_value() -> None:
    """Two rounds of one season and the first of the next; the second archetype alone has evidence."""
    log_e = np.zeros((1, len(ARCHETYPES), 3))
    log_e[0, 1] = np.log([5.0, 9.0, 1.0])
    pooled = np.exp(pool_report(log_e, np.array([0, 0, 1])))
    np.testing.assert_allclose(pooled[0], [1, 2, 2, 2, 2, 3, 3, 3, 1, 1, 1, 1])


@pytest.fixture(scope="module")
def dependent_ranks() -> np.ndarray:
    """Uniform ranks of calibrated forecasts whose markets depend on each other strongly."""
    rng = np.random.default_rng(21)
    shape = (N_REPORTS, len(ARCHETYPES), N_MARKETS, N_RACES)
    common = rng.normal(size=(N_REPORTS, len(ARCHETYPES), 1, N_RACES))
    return ndtr(np.sqrt(0.8) * common + np.sqrt(0.2) * rng.normal(size=shape))


@pytest.mark.parametrize(("span", "restart"), [("season", SEASONS), ("start", ONE_BLOCK)])
def test_at_most_5_percent_of_whole_reports_raise_an_alarm(
    dependent_ranks: np.ndarray, span: str, restart: np.ndarray
) -> None:
    """The mean over markets and archetypes holds the rate, for any dependence between markets."""
    of_archetypes = np.stack([log_mean(log_e_process(report, restart), axis=1) for report in dependent_ranks])
    assert alarm_share(of_archetypes, span) <= 0.05
    assert alarm_share(pool_report(of_archetypes, restart), span) <= 0.05
