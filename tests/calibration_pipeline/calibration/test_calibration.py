"""A user's ensemble through the whole calibration: a slope of 1, and the gain by recalibration."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtri

from benchmarks.recalibration import fit_state
from benchmarks.simulators import (
    LAWS,
    N_CARS,
    N_SCENARIOS,
    SEASONS,
    expected_log_score,
    finish_table,
    recalibrate,
    world,
)
from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.archetype_fit import fit_archetype
from calibration_pipeline.calibration.race_curves import observe, scenario_running_order, tabulate
from calibration_pipeline.calibration.recalibration import draw_recalibrations
from calibration_pipeline.calibration.reranking import rerank, rerank_races
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT, recover_log_strengths
from calibration_pipeline.scenarios.probabilities import finish_probabilities
from calibration_pipeline.schemas.datasets import Backtest
from calibration_pipeline.stats.ranking import rank
from calibration_pipeline.telemetry.baselines import shares_beaten
from calibration_pipeline.verification.backtest import build_backtest

MARKED_LAWS = [
    pytest.param(law, marks=pytest.mark.slow if law == "team effects" else pytest.mark.soak) for law in LAWS
]


def slope_interval(fit: xr.DataTree) -> tuple[float, float]:
    """Interval of 99.7 %: sixteen of them hold the truth together with 95 %."""
    mean = np.exp(fit["posterior"]["log_slope"].sel(season=SEASONS).mean("season").values)
    lower, upper = np.quantile(mean, (0.0015, 0.9985))
    return float(lower), float(upper)


def won_back(law: str, distortion: float) -> tuple[tuple[float, float], float]:
    """Slope interval, and the share of the log-score loss that recalibration wins back out of sample."""
    simulated = world(law, distortion)
    fit, recalibrated = recalibrate(simulated)
    raw, now, best = (
        expected_log_score(finish_table(finish), simulated.truth)
        for finish in (
            simulated.ensemble["finish_position"].values,
            recalibrated["finish_position"].values,
            simulated.ideal,
        )
    )
    return slope_interval(fit), (now - raw) / (best - raw)


@pytest.mark.soak
def test_an_overconfident_normal_simulator_is_repaired() -> None:
    """A simulator with 0.6 of the luck: the slope is found, 4/5 of the loss won back, on later races."""
    (lower, upper), share = won_back("normal", 1 / 0.6)
    assert lower < 0.6 < upper < 0.8
    assert share > 0.8


@pytest.mark.parametrize("law", MARKED_LAWS)
def test_calibrated_ensembles_have_slope_one_and_lose_next_to_nothing(law: str) -> None:
    """Whatever the law of the luck: at most 0.003 nats a car, after 48 races of calibration."""
    simulated = world(law, 1.0)
    fit, recalibrated = recalibrate(simulated)
    lower, upper = slope_interval(fit)
    assert lower < 1 < upper
    assert fit.attrs["reference_slope"] == pytest.approx(1, abs=0.05)
    now, raw = (
        expected_log_score(finish_table(forecast["finish_position"].values), simulated.truth)
        for forecast in (recalibrated, simulated.ensemble)
    )
    assert now - raw > -0.003


@pytest.mark.parametrize("law", MARKED_LAWS)
@pytest.mark.parametrize(
    ("distortion", "least"), [(1 / 0.6, 0.9), pytest.param(0.6, 0.75, marks=pytest.mark.soak)]
)
def test_distorted_ensembles_are_repaired_out_of_sample(law: str, distortion: float, least: float) -> None:
    (lower, upper), share = won_back(law, distortion)
    if law != "damage":  # which hides more of the utilities, the sharper they are: no one slope mends it
        assert lower < 1 / distortion < upper
    assert share > least


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.slow
def test_reranking_beats_order_statistic_scores(law: str) -> None:
    """At the known slope, against scores of places whose slope is the best of many, on the same race."""
    rng = np.random.default_rng(4)
    utility = rng.normal(0, 1, N_CARS)
    place_score = ndtri((N_CARS - np.arange(1, N_CARS + 1) + 0.625) / (N_CARS + 0.25))
    n = 4000
    for factor in (1 / 0.6, 0.6):
        truly, raw = (rank(-f * utility - LAWS[law](rng, (n, N_CARS))) for f in (1.0, factor))

        def miss(finish: np.ndarray, truly: np.ndarray = truly) -> float:
            true, other = (finish_probabilities(x[None], np.array([N_CARS])) for x in (truly, finish))
            return float((true * np.log(true / other)).sum())

        everyone = np.ones(raw.shape, bool)
        change = np.full(n, 1 / factor), np.ones(n)
        reranked = rerank(raw, everyone, everyone, recover_log_strengths(raw), *change, rng)
        score = place_score[raw - 1]
        mean = score.mean(axis=0)
        by_score = [rank(-score - (slope - 1) * mean) for slope in np.exp(np.linspace(-0.8, 0.8, 17))]
        assert miss(reranked) < 1.1 * min(miss(finish) for finish in by_score)
        assert miss(reranked) < 0.35 * miss(raw)


@pytest.mark.slow
def test_without_running_all_classified_cars_count() -> None:
    """In the observation and in the reference; incidents have no weight, and the rest works."""
    simulated = world("reverse Plackett-Luce", 1 / 0.6, n_races=24)
    blind = simulated.ensemble.drop_vars("running")
    blind["incident_logit"][:] = NO_INCIDENT_LOGIT
    blind["chaos_scale"][:] = 0
    observed = observe(blind, simulated.results)
    np.testing.assert_array_equal(observed.running_order, observed.finish_position)
    some = np.tile(np.arange(0, 64, 2), (24, 1))
    np.testing.assert_array_equal(
        scenario_running_order(blind, some), blind["finish_position"].values[:, :64:2]
    )
    assert np.abs(tabulate(blind, observed, seed=1).incident).max() < 1e-6
    curves, _, state = fit_state([blind], simulated.results, SEASONS)
    fit = fit_archetype(blind, simulated.results, curves, Archetype.INTERMEDIATE, SEASONS)
    intercept = fit["posterior"]["intercept"]
    assert float(intercept.std()) == pytest.approx(0.5, abs=0.05)
    states = state["races"].to_dataset()
    new = rerank_races(blind, draw_recalibrations(states, blind, N_SCENARIOS, 1), 1)
    results = simulated.results.join(shares_beaten(simulated.results), on=["race_id", "driver_id"])
    backtest = build_backtest(blind, new, results, states)
    Backtest.validate(backtest, lazy=True)
    late = backtest["season"].values == SEASONS[1]
    assert (backtest["raw"].values[late] != backtest["recalibrated"].values[late]).any()
    np.testing.assert_array_equal(backtest["raw"].values[~late], backtest["recalibrated"].values[~late])


def test_nearly_certain_ensembles_have_finite_curves() -> None:
    """A simulator ten times too sure: utilities far apart, and still no number is infinite."""
    simulated = world("reverse Plackett-Luce", 10.0, n_races=4)
    curves = tabulate(simulated.ensemble, observe(simulated.ensemble, simulated.results), seed=1)
    for values in curves:
        assert np.isfinite(values).all()
