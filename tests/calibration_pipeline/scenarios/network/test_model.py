"""The distribution of the causal network: exact on small fields, coherent on large ensembles."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import xarray as xr
from scipy.stats import chisquare

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, Field
from calibration_pipeline.scenarios.draw.ensemble import draw_race, simulate_races
from calibration_pipeline.scenarios.fit.by_fold import NETWORK_COORDINATES, PARAMETER_DIMS, fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT
from calibration_pipeline.scenarios.network.model import Parameters, Recalibration, reorder_front
from calibration_pipeline.scenarios.network.structure import (
    EDGES,
    FRONT_CARS,
    NO_DAMAGE,
    NO_INCIDENT,
    VARIANTS,
    Structure,
)
from helpers.jitted import log_probability
from helpers.simulated_seasons import without_laps

TEST_FAILURE_RATE = 2e-5
N = 40_000
STRENGTH = np.array([1.2, 0.1, -0.5, 0.6])
INCIDENT_LOGIT = np.array([-1.0, -0.4, -2.0, -1.5])
FRONT_SHARPNESS = 0.3
DAMAGE_LOGIT = np.array([-1.2, -0.2, -1.0, -0.7])


@pytest.fixture(scope="module")
def season() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Features and results of one simulated season, without laps."""
    return without_laps([2022])


def small_race(*, ordinary: bool, front_cars: int) -> tuple[Field, Parameters]:
    """Four cars of known strengths, incident and damage logits, without chaos and team effects."""
    sizes = {name: len(values) for name, values in NETWORK_COORDINATES.items()} | {"draw": 1}
    values = {
        name: np.zeros([sizes[dim] for dim in dims], np.float32) for name, dims in PARAMETER_DIMS.items()
    }
    values["pace_weight"][..., 0] = values["incident_weight"][..., 0] = values["damage_weight"][..., 1] = 1.0
    values["laps_lost"][:] = 0.0
    values["damage_laps_lost"][:] = np.linspace(0.3, 0.5, sizes["quantile"])
    values["retirement_share"][:] = np.linspace(0.0, 0.2, sizes["quantile"])
    values["luck_sign"] = np.float32(1.0 if ordinary else -1.0)
    values["front_cars"], values["front_sharpness"][:] = np.float32(front_cars), FRONT_SHARPNESS
    pace = np.zeros((4, len(PACE_COVARIATES)), np.float32)
    incident = np.zeros((4, len(INCIDENT_COVARIATES)), np.float32)
    pace[:, 0], incident[:, 0], incident[:, 1] = STRENGTH, INCIDENT_LOGIT, DAMAGE_LOGIT
    field = Field(
        pace=pace,
        incident=incident,
        start_score=np.zeros(4, np.float32),
        car=np.ones(4, bool),
        team=np.arange(4),
        archetype=np.int32(0),
        scheduled_laps=np.int32(1000),
        caution=np.float32(0),
    )
    return field, Parameters(**values)


@functools.cache
def order_probability(
    cars: tuple[int, ...], ahead: int, *, ordinary: bool, front_cars: int, front_tilt: float = 0.0
) -> float:
    """Probability of the order of cars that have `ahead` others ahead of them."""
    if not cars:
        return 1.0
    utility = STRENGTH[list(cars)]
    if ordinary:
        return float(np.exp(log_probability(jnp.array(-utility[::-1]), jnp.ones(len(cars), bool))))
    probability = 1.0
    for left in range(len(cars), 0, -1):  # draw the last car among those left
        sharpness = FRONT_SHARPNESS * np.exp(front_tilt) if ahead + left <= front_cars else 1.0
        weight = np.exp(-sharpness * utility[:left])
        probability *= weight[-1] / weight.sum()
    return probability


def exact_law(**law_of: int) -> dict[tuple[int, ...], float]:
    """Order of the cars that run to the end -> probability, by enumeration of incidents, damage, orders."""
    out, damaged = (1 / (1 + np.exp(-logit)) for logit in (INCIDENT_LOGIT, DAMAGE_LOGIT))
    law: dict[tuple[int, ...], float] = {}
    for incident in itertools.product([False, True], repeat=4):
        if all(incident):  # the best car is left running: none of the orders below
            continue
        p_incident = np.where(incident, out, 1 - out).prod()
        running = [car for car in range(4) if not incident[car]]
        for damage in itertools.product([False, True], repeat=len(running)):
            hit = damaged[running]
            p_damage = np.where(damage, hit, 1 - hit).prod()
            well = [car for car, hurt in zip(running, damage, strict=True) if not hurt]
            hurt = [car for car in running if car not in well]
            for front in itertools.permutations(well):
                for back in itertools.permutations(hurt):
                    p = order_probability(front, 0, **law_of) * order_probability(back, len(front), **law_of)
                    law[front + back] = law.get(front + back, 0.0) + p_incident * p_damage * p
    return law


@pytest.mark.parametrize(
    "law_of",
    [
        {"ordinary": False, "front_cars": 0},
        {"ordinary": False, "front_cars": 2},
        {"ordinary": False, "front_cars": 3},
        {"ordinary": False, "front_cars": 3, "front_tilt": 0.8},
        {"ordinary": True, "front_cars": 0},
    ],
)
def test_scenarios_of_four_cars_agree_with_enumeration(law_of):
    """Which cars run to the end and in which order, against all incidents, damages and orders."""
    field, parameters = small_race(ordinary=law_of["ordinary"], front_cars=law_of["front_cars"])
    change = Recalibration(front_tilt=law_of.get("front_tilt", 0.0))
    outcome, _ = draw_race(field, parameters, change, N, np.array([3, 0]))
    by_finish = np.argsort(np.asarray(outcome.finish_position), axis=1)
    runs = np.take_along_axis(np.asarray(outcome.running), by_finish, axis=1)
    drawn, times = np.unique(np.where(runs, by_finish, -1), axis=0, return_counts=True)
    orders = {
        tuple(car for car in order if car >= 0): n
        for order, n in zip(drawn.tolist(), times.tolist(), strict=True)
    }
    assert sum(orders.values()) == N
    law = exact_law(**law_of)
    everybody_out = np.prod(1 / (1 + np.exp(-INCIDENT_LOGIT)))
    assert sum(law.values()) == pytest.approx(1 - everybody_out, abs=1e-4)
    common = [order for order in law if len(order) > 1 and law[order] * N > 10]
    counts = np.array([orders.get(order, 0) for order in common], float)
    expected = N * np.array([law[order] for order in common])
    rest = [N - counts.sum(), N - expected.sum()]
    assert len(common) > 40
    assert chisquare([*counts, rest[0]], [*expected, rest[1]]).pvalue > TEST_FAILURE_RATE


def test_luck_at_the_front_keeps_the_front_group():
    """With other sharpness there, the same cars are in the group, and the others keep their positions."""
    rng, reorder = np.random.default_rng(0), jax.jit(reorder_front)
    running_order = np.maximum(rng.permuted(np.tile(np.arange(20) - 2, (500, 1)), axis=1).T, 0)
    strength, luck = rng.normal(size=(20, 500)), rng.gumbel(size=(12, 500))
    moved = np.asarray(reorder(running_order, strength, luck, 5))
    assert (np.sort(moved, axis=0) == np.sort(running_order, axis=0)).all()
    front = (running_order > 0) & (running_order <= 5)
    assert (moved[~front] == running_order[~front]).all()
    assert (moved[front] != running_order[front]).mean() > 0.5
    none = reorder(running_order, strength, luck, 0)
    assert (np.asarray(none) == running_order).all()


def check_races(ensemble: xr.Dataset) -> None:
    """Everything that must hold in every scenario."""
    car = (ensemble["start_position"] > 0).values[:, None, :]
    finish, running = ensemble["finish_position"].values, ensemble["running"].values
    laps, race_laps = ensemble["laps_completed"].values, ensemble["race_laps"].values[..., None]
    assert (
        np.sort(np.where(car, finish, 99), axis=-1)[..., : car.sum()] == np.arange(1, car.sum() + 1)
    ).all()
    by_finish = np.argsort(np.where(car, finish, 99), axis=-1)
    assert (np.diff(np.take_along_axis(laps, by_finish, axis=-1), axis=-1) <= 0).all()
    winner = by_finish[..., :1]
    assert np.take_along_axis(running, winner, axis=-1).all()
    assert (np.take_along_axis(laps, winner, axis=-1) == race_laps).all()
    assert (np.where(running | ~car, 0, laps) < race_laps).all()
    led, fastest = ensemble["laps_led"].values, ensemble["fastest_laps"].values
    assert (led.sum(axis=-1) == ensemble["race_laps"].values).all()
    assert (fastest.sum(axis=-1) == ensemble["green_laps"].values).all()
    assert (led <= laps).all()
    assert (np.minimum(led, fastest) >= 0).all()


@pytest.mark.soak
def test_a_hundred_thousand_scenarios_of_every_archetype_are_races(season):
    features, results = season
    network = fit_networks(fold_history(features, results, 2022, 12), 12, seed=1)
    for archetype in ARCHETYPES:
        of_kind = features.filter(pl.col("archetype") == str(archetype), pl.col("round") > 12)
        race = of_kind.filter(pl.col("race_order") == of_kind["race_order"].max())
        ensemble = simulate_races(race, network, 12, 100_000, seed=2)
        assert ensemble.sizes["scenario"] == 100_000
        check_races(ensemble)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "ordinary_no_incidents" else pytest.mark.soak)
        for name in VARIANTS
    ],
)
def test_every_variant_draws_races(season, name):
    features, results = season
    network = fit_networks(fold_history(features, results, 2022, 18), 18, seed=1, structure=VARIANTS[name])
    last = features.filter(race_order=features["race_order"].max())
    ensemble = simulate_races(last, network, 18, 2000, seed=2)
    check_races(ensemble)
    out = (~ensemble["running"].values & (ensemble["start_position"].values > 0)[:, None]).mean()
    assert (out == 0) == (NO_INCIDENT in VARIANTS[name].removed)
    if out == 0:  # then every car that is classified counts as running in the calibration
        assert (observe(ensemble, results).running_order > 0).sum() == int(ensemble["field_size"].sum())
    assert float(network["luck_sign"][0]) == (1.0 if VARIANTS[name].ordinary else -1.0)
    assert float(network["front_cars"][0]) == (0 if VARIANTS[name].ordinary else FRONT_CARS)


CUT = frozenset(
    {
        ("team_effect", "running_order"),
        ("chaos", "incident"),
        ("driver", "running_order"),
        ("archetype", "incident"),
        ("archetype", "running_order"),
        NO_DAMAGE,
    }
)


def any_parameters() -> xr.Dataset:
    """Random parameters, as a fit has them."""
    rng, dims = np.random.default_rng(0), {name: ("fold", *of) for name, of in PARAMETER_DIMS.items()}
    sizes = {name: len(values) for name, values in NETWORK_COORDINATES.items()} | {"fold": 2}
    values = {name: rng.normal(size=[sizes[dim] for dim in of]) for name, of in dims.items()}
    cut = jax.jit(Structure(CUT).apply)(values)
    return xr.Dataset({name: (of, np.asarray(cut[name])) for name, of in dims.items()}, NETWORK_COORDINATES)


def fitted(season: tuple[pl.DataFrame, pl.DataFrame]) -> xr.Dataset:
    return fit_networks(fold_history(*season, 2022, 18), 18, seed=1, structure=Structure(CUT))


@pytest.fixture(scope="module", params=["any parameters", pytest.param("fitted", marks=pytest.mark.soak)])
def sparse(request, season) -> xr.Dataset:
    """Network without many of its edges."""
    return fitted(season) if request.param == "fitted" else any_parameters()


def test_cut_edges_carry_nothing(sparse):
    assert (sparse["team_scale"] == 0).all()
    assert (sparse["chaos_scale"] == 0).all()
    weight = sparse["pace_weight"].mean(("fold", "draw", "archetype"))
    assert (weight.sel(pace_covariate=["finish_form", "running_form", "experience"]) == 0).all()
    assert (weight.sel(pace_covariate=["start_score", "team_form"]) != 0).all()


def test_archetypes_share_the_parameters_of_removed_edges(sparse):
    for name in ("incident_intercept", "incident_weight", "pace_weight", "front_sharpness"):
        mean = sparse[name].mean("archetype")
        np.testing.assert_allclose(sparse[name], mean.broadcast_like(sparse[name]), rtol=1e-4, atol=1e-6)
    assert (sparse["damage_intercept"] == NO_INCIDENT_LOGIT).all()


def test_only_fitted_edges_can_be_cut():
    assert len(set(EDGES)) == len(EDGES)
    with pytest.raises(ValueError, match=r"removed must name edges of .* got \[\('laps_led', 'chaos'\)\]"):
        Structure(frozenset({("laps_led", "chaos")}))
