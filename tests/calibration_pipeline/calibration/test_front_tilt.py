"""The front tilt: curves, reference, agreement with an exact filter, recovery and coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from benchmarks.state_laws import cumulative_probability, summarise_state
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.race_curves import (
    LOG_SHARPNESS_BOX,
    CurveArrays,
    Reference,
    front_group,
    observe,
    reference_sharpness,
    tabulate,
    tabulate_orders,
)
from calibration_pipeline.calibration.state import (
    Calendar,
    SlowParameters,
    filter_orders,
    slope_dynamics,
    tilt_dynamics,
)
from calibration_pipeline.scenarios.network.structure import FRONT_CARS
from calibration_pipeline.stats.state_filter import POINTS, STEP, Dynamics, State, grid
from helpers.jitted import evaluate
from helpers.planted_races import planted, race_order

N_CARS, RACES_A_SEASON = 36, 36
NOISE = 0.1
ENDS = np.array([0.025, 0.975])


def front_stages(log_strength: np.ndarray, rank: np.ndarray, log_sharpness: float) -> float:
    """Sum the stages with at most `FRONT_CARS` running cars left, stage by stage."""
    running = np.flatnonzero(rank)
    cars = running[np.argsort(rank[running])]
    slowness = -np.exp(log_sharpness) * log_strength[cars].astype(float)
    stages = [slowness[k] - logsumexp(slowness[: k + 1]) for k in range(len(cars))]
    return float(np.sum(stages[:FRONT_CARS]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32), st.floats(-2, 1.5))
def test_the_front_curve_is_the_sum_of_its_stages(n_running, seed, log_sharpness):
    """Relative to log sharpness 0; with few running cars it is the whole curve."""
    rng = np.random.default_rng(seed)
    log_strength = rng.normal(size=(1, 30)).astype(np.float32)
    rank = np.zeros(30, np.int16)
    rank[rng.permutation(30)[:n_running]] = rng.permutation(n_running) + 1
    curve = tabulate_orders(log_strength, front_group(rank)[None, None])[0, 0]
    got = float(evaluate(curve, np.float32(log_sharpness), *LOG_SHARPNESS_BOX))
    expected = front_stages(log_strength[0], rank, log_sharpness) - front_stages(log_strength[0], rank, 0.0)
    assert got == pytest.approx(expected, abs=1e-3)
    if n_running <= FRONT_CARS:
        np.testing.assert_array_equal(curve, tabulate_orders(log_strength, rank[None, None])[0, 0])


def slow(noise_sigma: float = NOISE, references: list[Reference] | None = None) -> SlowParameters:
    """Return slow parameters like those of real seasons, with one draw."""
    known = references or [Reference(0.0, 0.0)] * len(ARCHETYPES)
    return SlowParameters(np.array([0.08]), np.array([0.07]), np.full((4, 1), noise_sigma), known)


def draw_law(rng: np.random.Generator, law: Dynamics, calendar: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Draw a quantity at each race from its law."""
    level, deviation = law.initial_sigma * rng.normal(), law.deviation_sigma[0] * rng.normal(size=4)
    kept, values = 0.5 ** (1 / law.deviation_half_life), []
    for own, first in zip(*calendar, strict=True):
        values.append(level + deviation[own])
        jumps = rng.random() < (law.season_jump_probability if first else law.jump_probability)
        level += (law.jump_sigma if jumps else law.walk_sigma[0]) * rng.normal()
        deviation = kept * deviation + np.sqrt(1 - kept**2) * law.deviation_sigma[0] * rng.normal(size=4)
    return np.array(values)


def races(rng: np.random.Generator, log_slope: np.ndarray, tilt: np.ndarray) -> Calendar:
    """Draw results of races whose front group has log sharpness log_slope + tilt, race noise included."""
    n = len(log_slope)
    log_strength = rng.normal(size=(n, N_CARS)).astype(np.float32)
    sharpness = np.exp(log_slope + NOISE * rng.normal(size=n))[:, None]
    nobody = np.zeros((1, N_CARS), bool)
    rank = np.stack(
        [
            race_order(row[None], nobody, rng, own)
            for row, own in zip(sharpness * log_strength, tilt, strict=True)
        ]
    ).astype(np.int16)
    order = 100 * (2020 + np.arange(n) // RACES_A_SEASON) + 1 + np.arange(n) % RACES_A_SEASON
    return Calendar(
        race=order,
        race_order=order,
        fold=(order // 100).astype(str),
        archetype=rng.integers(4, size=n),
        curves={
            "order": tabulate_orders(log_strength, rank)[:, 0],
            "front": tabulate_orders(log_strength, front_group(rank))[:, 0],
        },
    )


REACH = grid(2 * len(POINTS) - 1)
"""Sums of a log slope and a front tilt."""


def parts(calendar: Calendar) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-likelihoods (race, point) of back and front on `REACH`."""
    order, front = (
        np.asarray(evaluate(curve[:, None], REACH, *LOG_SHARPNESS_BOX), np.float64)
        for curve in (calendar.curves["order"], calendar.curves["front"])
    )
    return order - front, front


def particle_filter(calendar: Calendar, seed: int, n: int = 40_000) -> np.ndarray:
    """Return the log predictive likelihood of each race, log slope and front tilt filtered together."""
    rng = np.random.default_rng(seed)
    laws = slope_dynamics(slow()), tilt_dynamics()
    level = [law.initial_sigma * rng.normal(size=n) for law in laws]
    deviation = [law.deviation_sigma[0] * rng.normal(size=(4, n)) for law in laws]
    back, front = parts(calendar)
    evidence = np.zeros(len(back))
    for race, (own, first) in enumerate(zip(calendar.archetype, calendar.starts_season, strict=True)):
        for k, law in enumerate(laws if race else ()):
            jumps = rng.random(n) < (law.season_jump_probability if first else law.jump_probability)
            level[k] = level[k] + np.where(jumps, law.jump_sigma, law.walk_sigma[0]) * rng.normal(size=n)
            kept = 0.5 ** (1 / law.deviation_half_life)
            new = np.sqrt(1 - kept**2) * law.deviation_sigma[0] * rng.normal(size=(4, n))
            deviation[k] = kept * deviation[k] + new
        slope, tilt = (a + d[own] for a, d in zip(level, deviation, strict=True))
        slope = slope + NOISE * rng.normal(size=n)
        weight = np.interp(slope, REACH, back[race]) + np.interp(slope + tilt, REACH, front[race])
        evidence[race] = logsumexp(weight) - np.log(n)
        share = np.exp(weight - weight.max())
        at = (np.arange(n) + rng.random()) / n * share.sum()
        chosen = np.searchsorted(np.cumsum(share), at).clip(max=n - 1)
        level, deviation = [a[chosen] for a in level], [d[:, chosen] for d in deviation]
    return evidence


def cell_probability(state: State, group: int, points: np.ndarray) -> np.ndarray:
    """Return the probability of each cell of a grid, for the only draw."""
    edges = np.append(points - STEP / 2, points[-1] + STEP / 2)
    return np.diff(cumulative_probability(state, group, edges[None])[0])


def predictive(calendar: Calendar) -> np.ndarray:
    """Return the log likelihood of each race under the states before it, as forecasts draw from them."""
    slopes, tilts = filter_orders(calendar, slow())
    back, front = parts(calendar)
    pairs = np.add.outer(np.arange(len(POINTS)), np.arange(len(POINTS)))
    noise = np.exp(-0.5 * (np.subtract.outer(POINTS, POINTS) / NOISE) ** 2)
    noise /= noise.sum(axis=1, keepdims=True)
    found = []
    middle = len(POINTS) // 2
    for race, own in enumerate(calendar.archetype):
        slope = cell_probability(slopes.before[race], own, POINTS) @ noise
        tilt = cell_probability(tilts.before[race], own, POINTS)
        log_likelihood = back[race, middle : middle + len(POINTS), None] + front[race][pairs]
        largest = log_likelihood.max()
        found.append(largest + np.log(slope @ np.exp(log_likelihood - largest) @ tilt))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("planted_tilt", [None, -0.5], ids=["from the law", "a jump of -.5"])
def test_log_score_agrees_with_a_particle_filter_of_both(planted_tilt):
    """Slope from all stages and tilt at its mean: within .001 nats a car of filtering both together."""
    rng = np.random.default_rng(2)
    n = 3 * RACES_A_SEASON
    clock = rng.integers(4, size=n), np.arange(1, n + 1) % RACES_A_SEASON == 0
    slope = draw_law(rng, slope_dynamics(slow()), clock)
    jump = np.where(np.arange(n) < RACES_A_SEASON, 0.0, planted_tilt or 0.0)
    calendar = races(rng, slope, draw_law(rng, tilt_dynamics(), clock) if planted_tilt is None else jump)
    difference = (predictive(calendar) - particle_filter(calendar, seed=0)) / N_CARS
    assert abs(difference.mean()) < 1e-3


def test_a_planted_tilt_is_found():
    """The tilt is relative to the slope of all stages, which falls too."""
    n, front, ends = 3 * RACES_A_SEASON, [], []
    for seed in range(6):
        calendar = races(np.random.default_rng([seed, 3]), np.zeros(n), np.full(n, -0.5))
        slopes, tilts = filter_orders(calendar, slow())
        own = int(calendar.archetype[-1])
        slope = summarise_state(slopes.before[-1], own, ENDS)[0]
        tilt, (lower, upper) = summarise_state(tilts.before[-1], own, ENDS)
        assert -0.25 < slope < 0.1
        assert lower < -0.5 - slope < upper
        front.append(slope + tilt)
        ends.append(upper)
    assert np.mean(front) == pytest.approx(-0.5, abs=0.15)
    assert np.mean(ends) < 0


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """95 % intervals of the front group's sharpness, over histories drawn from the laws, after a season."""
    covered = []
    n = 2 * RACES_A_SEASON
    for seed in range(24):
        rng = np.random.default_rng([seed, 4])
        group = rng.integers(4, size=n)
        tilt = draw_law(rng, tilt_dynamics(), (group, np.arange(1, n + 1) % RACES_A_SEASON == 0))
        calendar = races(rng, np.zeros(n), tilt)._replace(archetype=group)
        slopes, tilts = filter_orders(calendar, slow(), first_kept=RACES_A_SEASON)
        for race in range(RACES_A_SEASON, n):
            relative = tilt[race] - slopes.mean[race, 0]
            state = tilts.before[race - RACES_A_SEASON]
            below = cumulative_probability(state, int(group[race]), np.array([[relative]]))[0, 0]
            covered.append(ENDS[0] < below < ENDS[1])
    assert 0.92 < np.mean(covered) < 0.98


def tabulated(**options: float) -> tuple[CurveArrays, np.ndarray]:
    ensemble, results = planted(1.0, n_races=64, **options)
    return tabulate(ensemble, observe(ensemble, results), seed=1), ensemble["race_order"].values


@pytest.mark.parametrize("own_tilt", [0.0, -0.6, 0.4])
@pytest.mark.slow
def test_a_calibrated_ensemble_gets_no_tilt(own_tilt):
    """Whatever the sharpness of its own front group: the reference tilt takes it up."""
    curves, order = tabulated(own_tilt=own_tilt, team_scale=0.5, seed=4)
    reference = reference_sharpness(curves, np.ones(64, np.float32))
    if own_tilt:
        assert abs(reference.front_tilt) > 0.1
        assert np.sign(reference.front_tilt) == np.sign(own_tilt)
    calendar = Calendar(
        order,
        order,
        order.astype(str),
        np.ones(64, int),
        {"order": curves.order[:64], "front": curves.front[:64]},
    )
    _, tilts = filter_orders(calendar, slow(0.0, [reference] * 4))
    lower, upper = summarise_state(tilts.after, 1, ENDS)[1]
    assert lower < 0 < upper
    assert upper - lower < 0.8


def test_bare_scenarios_have_no_reference_tilt():
    reference = reference_sharpness(tabulated()[0], np.ones(64, np.float32))
    assert reference.front_tilt == pytest.approx(0.0, abs=0.06)
