"""The incident intercept of ensembles in which cars hardly ever retire: exact modes, and sensible scenarios.

Of 30 races with 38 cars, 140 cars retired. The ensemble's share of retired cars is 0, 0.5 % or 1 %.
"""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, logsumexp

from benchmarks.recalibration import fit_state
from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.latent import (
    INTERCEPT_REACH,
    MASS_OUTSIDE_LIMIT,
    Evidence,
    find_incident_mode,
)
from calibration_pipeline.calibration.race_curves import (
    INCIDENT_SHIFT_BOX,
    Reference,
    tabulate_incidents,
)
from calibration_pipeline.calibration.recalibration import draw_recalibration, next_race_state
from calibration_pipeline.calibration.reranking import rerank_races, shift_incidents
from calibration_pipeline.mcmc.priors import PRIOR_INTERCEPT
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT, recover_incidents
from helpers.jitted import evaluate
from helpers.planted_races import SEASONS, fit_races

N_RACES, N_CARS, N_SCENARIOS = 30, 38, 1200
N_RETIRED = 140
MODES = {0.0: 5.6, 0.005: 3.2, 0.01: 2.6}
"""Share of retired cars in the ensemble -> mode of the exact posterior."""


def spread_evenly(n_true: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Booleans with `n_true` true, as evenly over the rows as they can be, anywhere in a row."""
    n_in_row = np.diff(np.linspace(0, n_true, shape[0] + 1).astype(int))
    return rng.random(shape).argsort(axis=1) < n_in_row[:, None]


def simulate(share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return retired cars (scenario, car), incident logits (car), chaos scale (), observed (race, car)."""
    rng = np.random.default_rng(5)
    in_scenarios = spread_evenly(round(share * N_SCENARIOS * N_CARS), (N_CARS, N_SCENARIOS), rng).T
    logit, scale = recover_incidents(~in_scenarios)
    return in_scenarios, logit, np.asarray(scale), spread_evenly(N_RETIRED, (N_RACES, N_CARS), rng)


def exact_log_likelihood(shift: float, logit: np.ndarray, scale: float, retired: np.ndarray) -> float:
    """Bernoulli likelihood of all races, chaos integrated by a fine sum."""
    chaos = np.linspace(-8, 8, 2001)
    at = logit[:, None] + scale * chaos + shift
    by_race = retired @ log_expit(at) + ~retired @ log_expit(-at)
    log_weight = -0.5 * chaos**2 - logsumexp(-0.5 * chaos**2)
    return float(logsumexp(by_race + log_weight, axis=1).sum())


def exact_mode(logit: np.ndarray, scale: float, retired: np.ndarray) -> float:
    def loss(shift: float) -> float:
        return 0.5 * (shift / PRIOR_INTERCEPT) ** 2 - exact_log_likelihood(shift, logit, scale, retired)

    return float(minimize_scalar(loss, bracket=(0.0, 1.0)).x)


def gather(logit: np.ndarray, scale: np.ndarray, retired: np.ndarray) -> Evidence:
    shape = retired.shape
    incident = tabulate_incidents(
        np.broadcast_to(logit, shape), np.full(shape[0], scale), retired, np.ones(shape, bool)
    )
    season, weight = np.zeros(shape[0], np.int32), np.ones(shape[0], np.float32)
    return Evidence(np.zeros((shape[0], 2)), incident, season, weight, Reference(0.0, 0.0))


@pytest.mark.parametrize("share", MODES)
def test_the_mode_is_that_of_the_exact_likelihood(share):
    in_scenarios, logit, scale, retired = simulate(share)
    evidence = gather(logit, scale, retired)
    mode = find_incident_mode(evidence)
    assert mode == pytest.approx(exact_mode(logit, float(scale), retired), abs=2e-3)
    assert mode == pytest.approx(MODES[share], abs=0.15)
    for shift in mode + np.linspace(-INTERCEPT_REACH, INTERCEPT_REACH, 9):
        exact = exact_log_likelihood(shift, logit, float(scale), retired)
        exact -= exact_log_likelihood(0.0, logit, float(scale), retired)
        curves = np.asarray(evaluate(evidence.incident, np.full(N_RACES, shift), *INCIDENT_SHIFT_BOX))
        assert curves.sum() == pytest.approx(exact, abs=0.02, rel=1e-5)

    rng = np.random.default_rng(1)
    after = shift_incidents(~in_scenarios, logit, float(scale), np.full(N_SCENARIOS, mode), rng)
    n_out = (~after).sum(axis=1)
    assert 3 < n_out.mean() < N_RETIRED / N_RACES
    assert n_out.max() < 15


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_curves_are_exact_under_strong_chaos(scale):
    """A quarter of the field is out, and the likelihood narrow in chaos: 0.005 nats from a fine sum."""
    rng = np.random.default_rng(2)
    logit = rng.normal(-3, 0.5, N_CARS)
    retired = spread_evenly(N_CARS // 4, (1, N_CARS), rng)
    evidence = gather(logit, np.asarray(scale), retired)
    for shift in np.linspace(-2.5, 3, 21):
        exact = exact_log_likelihood(shift, logit, scale, retired)
        exact -= exact_log_likelihood(0.0, logit, scale, retired)
        curve = np.asarray(evaluate(evidence.incident, np.full(1, shift), *INCIDENT_SHIFT_BOX))
        assert curve.item() == pytest.approx(exact, abs=5e-3)


@pytest.mark.soak
def test_an_ensemble_without_retirements_is_recalibrated_to_sensible_fields():
    """`running` all true: the posterior is at the exact mode; scenarios retire as many cars as happened."""
    rng = np.random.default_rng(9)
    _, logit, _, retired = simulate(0.0)
    utility = rng.normal(0, 1, (N_RACES, N_CARS)).astype(np.float32)
    luck = rng.gumbel(size=(N_RACES, N_SCENARIOS + 1, N_CARS))
    luck[:, -1] += np.where(retired, 1e6, 0.0)
    finish = (luck - utility[:, None]).argsort(axis=2).argsort(axis=2) + 1
    order = np.arange(202101, 202101 + N_RACES)
    drivers = np.array([f"d{i:02d}" for i in range(N_CARS)])
    race, car, outcome = ("race",), ("race", "driver"), ("race", "scenario", "driver")
    ensemble = xr.Dataset(
        {
            "finish_position": (outcome, finish[:, :-1].astype(np.int16)),
            "running": (outcome, np.ones(finish[:, :-1].shape, bool)),
            "utility": (car, utility),
            "incident_logit": (car, np.broadcast_to(logit, utility.shape).astype(np.float32)),
            "chaos_scale": (race, np.zeros(N_RACES, np.float32)),
        },
        {
            "race": order.astype(np.int64),
            "season": (race, np.full(N_RACES, 2021, np.int32)),
            "race_order": (race, order.astype(np.int32)),
            "fold": (race, np.full(N_RACES, "2021-1")),
            "archetype": (race, np.full(N_RACES, "superspeedway")),
            "field_size": (race, np.full(N_RACES, N_CARS, np.int16)),
            "driver_id": (car, np.tile(drivers, (N_RACES, 1))),
        },
    )
    results = pl.DataFrame(
        {
            "race_id": np.repeat(order, N_CARS).astype(np.int64),
            "driver_id": np.tile(drivers, N_RACES).tolist(),
            "finish_position": finish[:, -1].ravel().astype(np.int64),
            "running": ~retired.ravel(),
        }
    )
    _, _, state = fit_state([ensemble], results, SEASONS)
    fit = fit_races(ensemble, results, Archetype.SUPERSPEEDWAY)
    intercept = fit["posterior"]["intercept"].values
    mode = exact_mode(logit, 0.0, retired)
    assert intercept.mean() == pytest.approx(mode, abs=0.05)
    assert intercept.std() < 0.2
    assert fit.attrs["mass_outside_table"] < MASS_OUTSIDE_LIMIT
    assert int(fit["sample_stats"]["diverging"].sum()) == 0

    following = next_race_state(state, "superspeedway", "2021-2", 2021)
    assert float(following["intercept"].mean()) == pytest.approx(mode, abs=0.3)
    changes = {int(r): draw_recalibration(following, int(r), N_SCENARIOS, 1) for r in order[:4]}
    new = rerank_races(ensemble.isel(race=slice(4)), changes, seed=1)
    n_out = (~new["running"]).sum("driver")
    assert 3 < float(n_out.mean()) < N_RETIRED / N_RACES
    assert int(n_out.max()) < 16


def test_scenarios_without_running_leave_the_curves_flat():
    """Where retirements are unknown no shift changes an incident, over the whole box of shifts."""
    retired = np.zeros((1, N_CARS), bool)
    evidence = gather(np.full(N_CARS, NO_INCIDENT_LOGIT), np.asarray(0.0), retired)
    ends = evaluate(evidence.incident[0], np.array(INCIDENT_SHIFT_BOX), *INCIDENT_SHIFT_BOX)
    np.testing.assert_allclose(ends, 0.0, atol=1e-6)
    assert find_incident_mode(evidence) == pytest.approx(0.0, abs=1e-4)
