"""Reranked scenarios: unchanged at slope 1, valid races at other slopes, and the wanted distribution."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration_pipeline.calibration.reranking import draw_scores, rerank, rerank_races, shift_incidents
from calibration_pipeline.scenarios.log_strengths import recover_log_strengths, running_order
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.scenarios.network.structure import FRONT_CARS
from helpers.planted_races import race_order


@st.composite
def races(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Any scenarios at all of one race: finish, running (some car in each), utilities; and a seed."""
    n_scenarios, n_cars = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    finish = rng.random((n_scenarios, n_cars)).argsort(axis=1).argsort(axis=1) + 1
    running = rng.random(finish.shape) < draw(st.sampled_from([0.1, 0.5, 0.9, 1.0]))
    running[np.arange(n_scenarios), rng.integers(n_cars, size=n_scenarios)] = True
    utility = draw(st.sampled_from([0.0, 1.0, 30.0])) * rng.standard_normal(n_cars)
    return finish, running, utility, draw(st.integers(0, 2**32))


@settings(max_examples=200)
@given(races())
def test_at_slope_one_the_scenarios_are_the_users_own(race) -> None:
    """Also where retired cars stand among the running ones, and utilities contradict the order."""
    finish, running, utility, seed = race
    rng = np.random.default_rng(seed)
    same = rerank(finish, running, running, utility, np.ones(len(finish)), np.ones(len(finish)), rng)
    np.testing.assert_array_equal(same, finish)
    logit = np.linspace(-3, 1, finish.shape[1])
    np.testing.assert_array_equal(shift_incidents(running, logit, 0.7, np.zeros(len(finish)), rng), running)


@settings(max_examples=200)
@given(races(), st.floats(0.05, 20), st.floats(-3, 3), st.sampled_from([0.0, -2.0, 0.5]))
def test_at_any_slope_shift_and_tilt_a_scenario_is_a_race(race, slope: float, shift: float, tilt) -> None:
    """A permutation; cars that stay out keep their place; the newly out are behind all who run."""
    finish, before, utility, seed = race
    rng = np.random.default_rng(seed)
    logit = np.linspace(-3, 1, finish.shape[1])
    after = shift_incidents(before, logit, 0.7, np.full(len(finish), shift), rng)
    assert after.any(axis=1).all()
    assert (after | ~before).all() if shift < 0 else (before | ~after).all()
    new = rerank(finish, before, after, utility, *np.full((2, len(finish)), [[slope], [np.exp(tilt)]]), rng)
    np.testing.assert_array_equal(np.sort(new, axis=1), np.sort(finish, axis=1))
    if (before == after).all():
        np.testing.assert_array_equal(new[~after], finish[~before])
    last_running = np.where(after, new, 0).max(axis=1, keepdims=True)
    newly_out = before & ~after
    untouched = (before | after).all(axis=1)
    assert (new > last_running)[newly_out & untouched[:, None]].all()


def test_scores_given_the_order_have_the_law_of_the_model() -> None:
    """Over scenarios of a reverse Plackett-Luce race every residual is a negated standard Gumbel variable."""
    rng = np.random.default_rng(1)
    utility = np.array([2.0, 0.5, 0.0, -1.5])
    score = utility - rng.gumbel(size=(40_000, 4))
    order = (-score).argsort(axis=1).argsort(axis=1) + 1
    order[rng.random(40_000) < 0.3, 1] = 0  # a car that may be out
    order = running_order(order, order > 0)
    drawn = draw_scores(order, utility, rng)
    assert ((-drawn).argsort(axis=1) == (-np.where(order, -order, -9)).argsort(axis=1))[
        (order > 0).all(1)
    ].all()
    residual = drawn - utility
    np.testing.assert_allclose(residual.mean(axis=0), -np.euler_gamma, atol=0.03)
    np.testing.assert_allclose(residual.std(axis=0), np.pi / np.sqrt(6), atol=0.03)
    assert np.abs(np.corrcoef(residual.T) - np.eye(4)).max() < 0.02


@pytest.mark.parametrize("slope", [0.6, 1 / 0.6])
def test_a_reverse_plackett_luce_race_becomes_one_of_the_other_sharpness(slope: float) -> None:
    """Finish probabilities are those of scenarios drawn with slope * utility from the start."""
    rng = np.random.default_rng(2)
    utility, n = rng.normal(0, 1.2, 12), 20_000

    def draw(u: np.ndarray) -> np.ndarray:
        return (-(u - rng.gumbel(size=(n, 12)))).argsort(axis=1).argsort(axis=1) + 1

    raw, wanted = draw(utility), draw(slope * utility)
    everyone = np.ones(raw.shape, bool)
    new = rerank(raw, everyone, everyone, recover_log_strengths(raw), np.full(n, slope), np.ones(n), rng)
    shares = [[(finish == place).mean(axis=0) for place in range(1, 13)] for finish in (new, wanted)]
    np.testing.assert_allclose(*shares, atol=0.02)


@pytest.mark.parametrize(("slope", "tilt"), [(1.0, -0.7), (0.7, 0.5)])
def test_the_front_group_gets_the_planted_law(slope: float, tilt: float) -> None:
    """Finish probabilities are those of scenarios whose front group has sharpness slope * exp(tilt)."""
    rng = np.random.default_rng(6)
    utility, n = rng.normal(0, 1.0, 16), 20_000
    everyone = np.ones((n, 16), bool)
    raw, wanted = (
        race_order(np.tile(factor * utility, (n, 1)), ~everyone, rng, front_tilt)
        for factor, front_tilt in ((1.0, 0.0), (slope, tilt))
    )
    change = np.full(n, slope), np.full(n, np.exp(tilt))
    new = rerank(raw, everyone, everyone, utility, *change, rng)
    shares = [[(finish == place).mean(axis=0) for place in range(1, 17)] for finish in (new, wanted)]
    np.testing.assert_allclose(*shares, atol=0.02)
    best = utility.argmax()
    without = (race_order(np.tile(slope * utility, (n, 1)), ~everyone, rng)[:, best] == 1).mean()
    assert abs((wanted[:, best] == 1).mean() - without) > 0.04


def test_a_tilt_keeps_the_front_group() -> None:
    rng = np.random.default_rng(7)
    utility, everyone = rng.normal(size=20), np.ones((500, 20), bool)
    raw = race_order(np.tile(utility, (500, 1)), ~everyone, rng)
    new = rerank(raw, everyone, everyone, utility, np.ones(500), np.full(500, 3.0), rng)
    np.testing.assert_array_equal(new[raw > FRONT_CARS], raw[raw > FRONT_CARS])
    assert (new[raw <= FRONT_CARS] != raw[raw <= FRONT_CARS]).mean() > 0.3


@pytest.mark.parametrize(
    ("logit", "chaos_scale"),
    [(np.linspace(-3, -1, 30), 0.8), pytest.param(np.full(40, -0.5), 1.5, id="many retire")],
)
@pytest.mark.parametrize("shift", [-0.8, 0.8])
def test_shifted_incidents_are_those_of_the_shifted_law(logit, chaos_scale: float, shift: float) -> None:
    """Chances, their spread over races and the number that runs, as if drawn with the other logit."""
    rng = np.random.default_rng(3)
    n = 20_000

    def draw(shift: float) -> np.ndarray:
        at = logit + shift + chaos_scale * rng.standard_normal((n, 1))
        return rng.random(at.shape) >= 1 / (1 + np.exp(-at))

    moved, wanted = shift_incidents(draw(0.0), logit, chaos_scale, np.full(n, shift), rng), draw(shift)
    np.testing.assert_allclose(moved.mean(axis=0), wanted.mean(axis=0), atol=0.015)
    assert moved.sum(axis=1).std() == pytest.approx(wanted.sum(axis=1).std(), rel=0.05)
    shares = [np.bincount(who.sum(axis=1), minlength=len(logit) + 1) / n for who in (moved, wanted)]
    assert 0.5 * np.abs(np.subtract(*shares)).sum() < 0.04  # of chance alone: about .02


def ensemble(*, running: bool = True) -> xr.Dataset:
    """Two races of 6 and 8 cars, with laps."""
    rng = np.random.default_rng(5)
    sizes = np.array([6, 8], np.int16)
    finish = np.zeros((2, 300, 8), np.int16)
    for r, n in enumerate(sizes):
        score = np.linspace(1, -1, 8)[:n] - rng.gumbel(size=(300, n))
        finish[r, :, :n] = (-score).argsort(axis=1).argsort(axis=1) + 1
    outcome, car = ("race", "scenario", "driver"), ("race", "driver")
    slot = np.arange(8) < sizes[:, None]
    variables = {
        "finish_position": (outcome, finish),
        "laps_led": (outcome, finish),
        "n_cautions": (("race", "scenario"), np.full((2, 300), 3, np.int16)),
        "utility": (car, np.where(slot, np.linspace(1, -1, 8), 0).astype(np.float32)),
        "incident_logit": (car, np.where(slot, -2.0, 0).astype(np.float32)),
        "chaos_scale": ("race", np.full(2, 0.5, np.float32)),
    }
    if running:
        variables["running"] = (outcome, (finish > 0) & (finish < 6))
    return xr.Dataset(variables, {"race": [202101, 202102], "field_size": ("race", sizes)})


def test_races_are_ranked_one_by_one_and_laps_are_dropped() -> None:
    raw = ensemble()
    change = Recalibration(np.full(300, -0.5), np.full(300, 0.3))
    both = rerank_races(raw, {202101: change, 202102: change}, seed=1)
    second = rerank_races(raw, {202102: change}, seed=1)
    assert "laps_led" not in both
    xr.testing.assert_identical(both["n_cautions"], raw["n_cautions"])
    xr.testing.assert_identical(both.isel(race=1), second.isel(race=1))
    np.testing.assert_array_equal(second["finish_position"].values[0], raw["finish_position"].values[0])
    assert (both["finish_position"].values[0] != raw["finish_position"].values[0]).any()
    assert both["finish_position"].dtype == np.int16
    assert both["running"].dtype == bool
    assert not both["finish_position"].values[0, :, 6:].any()
    assert int(both["running"].sum()) < int(raw["running"].sum())
    other = rerank_races(raw, {202101: change, 202102: change}, seed=2)
    assert (other["finish_position"].values != both["finish_position"].values).any()


def test_garbage_in_padding_changes_nothing() -> None:
    raw = ensemble()
    dirty = raw.copy(deep=True)
    dirty["utility"][0, 6:] = np.nan
    dirty["incident_logit"][0, 6:] = 1e20
    change = {202101: Recalibration(np.full(300, 0.5), np.full(300, -0.3))}
    for name in ("finish_position", "running"):
        xr.testing.assert_identical(
            rerank_races(dirty, change, seed=1)[name], rerank_races(raw, change, seed=1)[name]
        )


def test_without_running_only_the_order_changes() -> None:
    raw = ensemble(running=False)
    new = rerank_races(raw, {202102: Recalibration(np.full(300, 0.9), np.full(300, 2.0))}, seed=1)
    assert "running" not in new
    mean = new["finish_position"].values[1].mean(axis=0)
    assert mean[0] < raw["finish_position"].values[1].mean(axis=0)[0] - 0.5
    assert mean[-1] > raw["finish_position"].values[1].mean(axis=0)[-1] + 0.5
