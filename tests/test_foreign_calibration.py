"""A user's ensemble through the whole calibration: what 1 means, and what recalibration wins back."""

from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import xarray as xr
from scipy.special import ndtri

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.race_curves import observe, scenario_running_order, tabulate
from calibration_pipeline.calibration.recalibration import build_backtest, draw_recalibrations
from calibration_pipeline.calibration.reranking import rerank, rerank_races
from calibration_pipeline.calibration.walk_forward import fit_archetype
from calibration_pipeline.scenarios.probabilities import finish_probabilities
from calibration_pipeline.scenarios.recovery import (
    NO_INCIDENT_LOGIT,
    recover_incidents,
    recover_utilities,
    running_order,
)
from calibration_pipeline.schemas.datasets import Backtest

N_CARS, N_SCENARIOS, SEASONS = 32, 1000, [2021, 2022]
TEAM = np.arange(N_CARS) // 4
LAWS = {
    "reverse Plackett-Luce": lambda rng, shape: -rng.gumbel(size=shape),
    "ordinary Plackett-Luce": lambda rng, shape: rng.gumbel(size=shape),
    "normal": lambda rng, shape: 1.28 * rng.standard_normal(shape),
    "team effects": lambda rng, shape: (
        0.8 * rng.standard_normal((*shape[:-1], TEAM[-1] + 1))[..., TEAM] - rng.gumbel(size=shape)
    ),
}


class World(NamedTuple):
    """An ensemble of a distorted sharpness, the results, and finishes drawn from the true law.

    `ideal` is as large as the ensemble, `truth` four times as large.
    """

    ensemble: xr.Dataset
    results: pl.DataFrame
    ideal: np.ndarray
    truth: np.ndarray


def ranks(score: np.ndarray) -> np.ndarray:
    return (-score).argsort(axis=-1).argsort(axis=-1) + 1


def label(finish: np.ndarray, running: np.ndarray) -> xr.Dataset:
    """A user's ensemble of races of two seasons, a fold each."""
    n_races = len(finish)
    season = np.repeat(SEASONS, n_races // 2).astype(np.int32)
    round_ = np.tile(np.arange(1, n_races // 2 + 1), 2).astype(np.int32)
    order = 100 * season + round_
    incidents = [recover_incidents(one) for one in running]
    utility = [recover_utilities(order) for order in running_order(finish, running)]
    race, car, outcome = ("race",), ("race", "driver"), ("race", "scenario", "driver")
    drivers = np.tile([f"d{i:02d}" for i in range(N_CARS)], (n_races, 1))
    return xr.Dataset(
        {
            "finish_position": (outcome, finish.astype(np.int16)),
            "running": (outcome, running),
            "utility": (car, np.array(utility, np.float32)),
            "incident_logit": (car, np.array([logit for logit, _ in incidents], np.float32)),
            "chaos_scale": (race, np.array([scale for _, scale in incidents], np.float32)),
        },
        {
            "race": order.astype(np.int64),
            **{name: (race, values) for name, values in {"season": season, "round": round_}.items()},
            "race_order": (race, order),
            "track_id": (race, np.full(n_races, "kansas")),
            "archetype": (race, np.full(n_races, "intermediate")),
            "fold": (race, season.astype(str)),
            "field_size": (race, np.full(n_races, N_CARS, np.int16)),
            "network_as_of": (race, np.zeros(n_races, np.int32)),
            **dict.fromkeys(("driver_id", "name", "team", "make"), (car, drivers)),
            "start_position": (car, np.tile(np.arange(1, N_CARS + 1, dtype=np.int16), (n_races, 1))),
        },
    )


def world(law: str, distortion: float, n_races: int = 96, seed: int = 0) -> World:
    """Races of a law, and a simulator of it that multiplies utilities by `distortion`."""
    rng = np.random.default_rng(seed)
    utility = rng.normal(0, 1.0, (n_races, 1, N_CARS))

    def draw(n: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
        score = factor * utility + LAWS[law](rng, (n_races, n, N_CARS))
        at = -2 + 0.5 * rng.standard_normal((n_races, n, 1))
        running = rng.random(score.shape) >= 1 / (1 + np.exp(-at))
        return ranks(np.where(running, score, score - 100)), running

    ensemble = label(*draw(N_SCENARIOS, distortion))
    ideal, truth = draw(N_SCENARIOS, 1.0)[0], draw(4 * N_SCENARIOS, 1.0)[0]
    finish, running = draw(1, 1.0)
    results = pl.DataFrame(
        {
            "race_id": np.repeat(ensemble["race"].values, N_CARS),
            "driver_id": ensemble["driver_id"].values.ravel().tolist(),
            "finish_position": finish.ravel(),
            "running": running.ravel(),
        }
    )
    return World(ensemble, results, ideal, truth)


def expected_log_score(forecast: np.ndarray, truth: np.ndarray) -> float:
    """Log score of the second season's races, nats a car, expected over what may happen in them."""
    late = slice(len(truth) // 2, None)
    sizes = np.full(len(truth), N_CARS)[late]
    truly, said = (finish_probabilities(finish[late], sizes) for finish in (truth, forecast))
    return float((truly * np.log(said)).sum(axis=2).mean())


def recalibrate(one: World, seed: int = 3) -> tuple[xr.DataTree, xr.Dataset]:
    """Fit on each fold's past and rank anew."""
    fit = fit_archetype(one.ensemble, one.results, Archetype.INTERMEDIATE, SEASONS, seed=1)
    changes = draw_recalibrations(fit, one.ensemble, one.ensemble.sizes["scenario"], seed)
    return fit, rerank_races(one.ensemble, changes, seed)


def slope_interval(fit: xr.DataTree) -> tuple[float, float]:
    mean = np.exp(fit["posterior"]["log_slope"].sel(season=SEASONS).mean("season").values)
    lower, upper = np.quantile(mean, (0.025, 0.975))
    return float(lower), float(upper)


def won_back(law: str, distortion: float) -> tuple[tuple[float, float], float]:
    """Slope interval, and the share of the log-score loss that recalibration wins back out of sample."""
    one = world(law, distortion)
    fit, recalibrated = recalibrate(one)
    raw, now, best = (
        expected_log_score(finish, one.truth)
        for finish in (
            one.ensemble["finish_position"].values,
            recalibrated["finish_position"].values,
            one.ideal,
        )
    )
    return slope_interval(fit), (now - raw) / (best - raw)


def test_an_overconfident_normal_simulator_is_repaired() -> None:
    """A simulator with 0.6 of the luck: the slope is found, 4/5 of the loss won back, on later races."""
    (lower, upper), share = won_back("normal", 1 / 0.6)
    assert lower < 0.6 < upper < 0.8
    assert share > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_calibrated_ensembles_have_slope_one_and_lose_next_to_nothing(law: str) -> None:
    """Whatever the law of the luck: at most 0.003 nats a car, after 48 races of calibration."""
    one = world(law, 1.0)
    fit, recalibrated = recalibrate(one)
    lower, upper = slope_interval(fit)
    assert lower < 1 < upper
    assert fit.attrs["reference_slope"] == pytest.approx(1, abs=0.05)
    now, raw = (
        expected_log_score(forecast["finish_position"].values, one.truth)
        for forecast in (recalibrated, one.ensemble)
    )
    assert now - raw > -0.003


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("distortion", "least"), [(1 / 0.6, 0.9), (0.6, 0.8)])
def test_distorted_ensembles_are_repaired_out_of_sample(law: str, distortion: float, least: float) -> None:
    (lower, upper), share = won_back(law, distortion)
    assert lower < 1 / distortion < upper
    assert share > least


@pytest.mark.parametrize("law", LAWS)
def test_ranking_anew_beats_order_statistic_scores(law: str) -> None:
    """At the known slope, against scores of places whose slope is the best of many, on the same race."""
    rng = np.random.default_rng(4)
    utility = rng.normal(0, 1, N_CARS)
    place_score = ndtri((N_CARS - np.arange(1, N_CARS + 1) + 0.625) / (N_CARS + 0.25))
    n = 4000
    for factor in (1 / 0.6, 0.6):
        truly, raw = (ranks(f * utility + LAWS[law](rng, (n, N_CARS))) for f in (1.0, factor))

        def miss(finish: np.ndarray, truly: np.ndarray = truly) -> float:
            one, other = (finish_probabilities(x[None], np.array([N_CARS])) for x in (truly, finish))
            return float((one * np.log(one / other)).sum())

        everyone = np.ones(raw.shape, bool)
        anew = rerank(raw, everyone, everyone, recover_utilities(raw), np.full(n, 1 / factor), rng)
        score = place_score[raw - 1]
        mean = score.mean(axis=0)
        by_score = [ranks(score + (slope - 1) * mean) for slope in np.exp(np.linspace(-0.8, 0.8, 17))]
        assert miss(anew) < 1.1 * min(miss(finish) for finish in by_score)
        assert miss(anew) < 0.35 * miss(raw)


def test_without_running_all_classified_cars_count() -> None:
    """In what is observed and in the reference; incidents weigh nothing, and the rest works."""
    one = world("reverse Plackett-Luce", 1 / 0.6, n_races=24)
    blind = one.ensemble.drop_vars("running")
    blind["incident_logit"][:] = NO_INCIDENT_LOGIT
    blind["chaos_scale"][:] = 0
    observed = observe(blind, one.results)
    np.testing.assert_array_equal(observed.running_order, observed.finish_position)
    np.testing.assert_array_equal(
        scenario_running_order(blind, 32), blind["finish_position"].values[:, : 31 * 32 : 31]
    )
    assert np.abs(tabulate(blind, observed).incident).max() < 1e-6
    fit = fit_archetype(blind, one.results, Archetype.INTERMEDIATE, SEASONS, seed=1)
    assert float(fit["posterior"]["intercept"].std()) == pytest.approx(0.5, abs=0.05)
    new = rerank_races(blind, draw_recalibrations(fit, blind, N_SCENARIOS, 1), 1)
    backtest = build_backtest(blind, new, one.results, fit)
    Backtest.validate(backtest, lazy=True)
    late = backtest["season"].values == SEASONS[1]
    assert (backtest["raw"].values[late] != backtest["recalibrated"].values[late]).any()
    np.testing.assert_array_equal(backtest["raw"].values[~late], backtest["recalibrated"].values[~late])


def test_nearly_certain_ensembles_have_finite_curves() -> None:
    """A simulator ten times too sure: utilities far apart, and still no number is infinite."""
    one = world("reverse Plackett-Luce", 10.0, n_races=4)
    curves = tabulate(one.ensemble, observe(one.ensemble, one.results))
    for values in curves:
        assert np.isfinite(values).all()
