"""The state of the calibration: planted slopes, shifts and jumps, and the stored states of a whole fit."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

from benchmarks.state_laws import summarise_state
from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.pooling import fit_pooled
from calibration_pipeline.calibration.race_curves import (
    LOG_SHARPNESS_BOX,
    Reference,
    front_group,
    join_curves,
    tabulate_incidents,
    tabulate_orders,
    tabulate_races,
)
from calibration_pipeline.calibration.recalibration import (
    draw_recalibration,
    draw_recalibrations,
    next_race_state,
)
from calibration_pipeline.calibration.state import (
    DRAWN,
    STORED_DRAWS,
    Calendar,
    SlowParameters,
    draw_state,
    filter_orders,
    filter_shifts,
    filter_state,
    read_calendar,
    thin_slow_parameters,
)
from calibration_pipeline.calibration.summaries import convergence_by_fold, state_by_race
from calibration_pipeline.mcmc.convergence import LATEST
from calibration_pipeline.mcmc.priors import PRIOR_SLOPE_MU
from calibration_pipeline.schemas.contracts import validate
from calibration_pipeline.telemetry.baselines import shares_beaten
from calibration_pipeline.verification.backtest import build_backtest, scored_races
from helpers.jitted import evaluate
from helpers.planted_races import QUICK, SEASONS, planted_calendar
from helpers.programs import compiled_programs

N_CARS, RACES_A_SEASON = 36, 36
ENDS = np.array([0.025, 0.975])


def races(log_slope: np.ndarray, shift: np.ndarray, seed: int = 0) -> Calendar:
    """Draw results of races, with the curves of an ensemble of slope 1 and shift 0."""
    rng = np.random.default_rng(seed)
    n = len(log_slope)
    utility = rng.normal(0, 1.0, (n, N_CARS))
    logit = np.full((n, N_CARS), -2.0)
    chaos = rng.normal(size=(n, 1))
    retired = rng.random((n, N_CARS)) < 1 / (1 + np.exp(-(logit + 0.5 * chaos + shift[:, None])))
    score = np.exp(log_slope)[:, None] * utility - rng.gumbel(size=utility.shape)
    rank = 1 + np.argsort(np.argsort(-np.where(retired, -1e6, score), axis=1), axis=1)
    order = np.where(retired, 0, rank).astype(np.int16)
    race_order = 100 * (2020 + np.arange(n) // RACES_A_SEASON) + 1 + np.arange(n) % RACES_A_SEASON
    return Calendar(
        race=race_order,
        race_order=race_order,
        fold=(race_order // 100).astype(str),
        archetype=rng.integers(4, size=n),
        curves={
            "order": tabulate_orders(utility.astype(np.float32), order[:, None])[:, 0],
            "incident": tabulate_incidents(logit, np.full(n, 0.5), retired, np.ones_like(retired)),
            "front": tabulate_orders(utility.astype(np.float32), front_group(order)[:, None])[:, 0],
        },
    )


def slow(n_draws: int = 16, seed: int = 1) -> SlowParameters:
    """Draw slow parameters like those that seasons give."""
    rng = np.random.default_rng(seed)
    posterior = {
        "slope_sigma": 0.1 * np.abs(rng.normal(size=200)),
        "archetype_sigma": 0.07 * np.abs(rng.normal(size=200)),
        "noise_sigma": 0.1 * np.abs(rng.normal(size=(200, 4))),
    }
    return thin_slow_parameters(posterior, [Reference(0.0, 0.0)] * 4, n_draws)


def test_planted_slope_and_shift_are_found():
    calendar = races(np.full(108, np.log(0.7)), np.full(108, 0.5))
    own = int(calendar.archetype[107])
    slope, (lower, upper) = summarise_state(filter_orders(calendar, slow())[0].before[107], own, ENDS)
    assert lower < np.log(0.7) < upper
    assert abs(slope - np.log(0.7)) < 0.15
    shift, (lower, upper) = summarise_state(filter_shifts(calendar).before[107], own, ENDS)
    assert lower < 0.5 < upper
    assert abs(shift - 0.5) < 0.2


def test_filters_compile_no_program():
    calendar = races(np.zeros(12), np.zeros(12))
    with compiled_programs() as compiled:
        filter_orders(calendar, slow())
        filter_shifts(calendar)
    assert compiled == []


def test_a_jump_of_exact_likelihoods_is_found():
    """Log slope -.4 from a season's start: half of it within a third of the season."""
    calendar = races(np.where(np.arange(108) < 72, 0.0, -0.4), np.zeros(108), seed=2)
    before = filter_orders(calendar, slow(), first_kept=72)[0].before
    mean = [
        summarise_state(state, int(own), ENDS)[0]
        for state, own in zip(before, calendar.archetype[72:], strict=True)
    ]
    assert abs(mean[0]) < 0.15
    assert np.argmax(np.array(mean) < -0.2) <= 12
    assert min(mean) < -0.2


def test_reference_moves_the_slope():
    """With log reference .3, results of slope 1 have the calibration slope exp(-.3)."""
    calendar = races(np.zeros(72), np.zeros(72), seed=3)
    moved = slow()._replace(references=[Reference(0.3, 0.0)] * 4)
    own = int(calendar.archetype[71])
    means = [
        summarise_state(filter_orders(calendar, parameters)[0].before[71], own, ENDS)[0]
        for parameters in (slow(), moved)
    ]
    assert abs(means[0] - means[1] - 0.3) < 0.05


def test_more_races_change_no_earlier_state():
    """Bitwise, whatever the number of later races and their results."""
    calendar = races(np.zeros(60), np.zeros(60), seed=4)
    later = {name: values.copy() for name, values in calendar.curves.items()}
    for values in later.values():
        values[31:] *= -1
    few, many = (
        [*filter_orders(part, slow()), filter_shifts(part)]
        for part in (calendar.until(32), calendar._replace(curves=later))
    )
    for known, whole in zip(few, many, strict=True):
        for early, late in zip(known.before, whole.before[:32], strict=True):
            for a, b in zip(early, late, strict=True):
                assert_array_equal(a, b)


def test_evidence_is_the_integrated_likelihood():
    """The evidence of the first race is its likelihood, integrated over the prior of the level."""
    calendar = races(np.zeros(1), np.zeros(1), seed=7)
    sure = SlowParameters(np.array([0.0]), np.array([0.0]), np.zeros((4, 1)), [Reference(0.0, 0.0)] * 4)
    filtered, _ = filter_orders(calendar, sure)
    x = np.linspace(-1.5, 1.5, 601)
    prior = np.exp(-0.5 * (x / PRIOR_SLOPE_MU) ** 2)
    curve = np.asarray(evaluate(calendar.curves["order"], x[None], *LOG_SHARPNESS_BOX))[0]
    expected = np.log((prior * np.exp(curve)).sum() / prior.sum())
    np.testing.assert_allclose(filtered.log_evidence[0, 0], expected, atol=2e-3)


def test_draws_have_the_law_of_the_state():
    """Log slopes stand beside the noise of their slow parameters, the others in random order."""
    calendar = races(np.full(40, -0.3), np.full(40, 0.4), seed=8)
    parameters, own = slow(), int(calendar.archetype[39])
    before, tilts = (filtered.before[39] for filtered in filter_orders(calendar, parameters))
    shifts = filter_shifts(calendar).before[39]
    log_slope, noise_sigma, shift, tilt = draw_state(
        [before, shifts, tilts], own, np.random.default_rng(1), parameters
    )
    mean, ends = summarise_state(before, own, ENDS)
    assert abs(log_slope.mean() - mean) < 0.01
    np.testing.assert_allclose(np.quantile(log_slope, ENDS), ends, atol=0.05)
    assert_array_equal(noise_sigma[:: STORED_DRAWS // 16], parameters.noise_sigma[own])
    for drawn, state in ((shift, shifts), (tilt, tilts)):
        mean, ends = summarise_state(state, own, ENDS)
        np.testing.assert_allclose(np.quantile(drawn, ENDS), ends, atol=0.05)
        assert abs(drawn.mean() - mean) < 0.01
    assert np.abs(np.corrcoef([log_slope, shift, tilt]) - np.eye(3)).max() < 0.1


def fit_all(ensembles: dict[Archetype, xr.Dataset], results: pl.DataFrame) -> tuple[xr.Dataset, xr.DataTree]:
    """Return the curves of all races, and the pooled fits to them."""
    curves = join_curves(tabulate_races(ensembles[a], results, seed=1) for a in ARCHETYPES)
    return curves, fit_pooled(curves, SEASONS, seed=1, **QUICK)


@pytest.fixture(scope="module")
def planted() -> tuple[dict[Archetype, xr.Dataset], pl.DataFrame]:
    """Two seasons of 48 races, two folds each; slope .7 and shift .6 in every archetype."""
    return planted_calendar(0.7, incident_shift=0.6)


@pytest.fixture(scope="module")
def fitted(planted) -> tuple[xr.Dataset, xr.DataTree, xr.DataTree]:
    curves, pooled = fit_all(*planted)
    validate(curves, "race_curves")
    return curves, pooled, validate(filter_state(curves, pooled, seed=3), "calibration_state")


@pytest.mark.slow
def test_slow_parameters_are_those_of_races_before_the_fold(fitted):
    _, pooled, _ = fitted
    slow_group = validate(pooled, "pooled_posterior")["slow"].to_dataset()
    assert slow_group["fold"].values.tolist() == ["2021-2", "2022-1", "2022-2", LATEST]
    assert slow_group["as_of"].values.tolist() == [202124, 202148, 202224, 202248]
    assert slow_group["n_races"].values.tolist() == [[6] * 4, [12] * 4, [18] * 4, [24] * 4]


@pytest.mark.slow
def test_every_pooled_fit_has_its_convergence(fitted):
    convergence = convergence_by_fold(fitted[1])
    assert convergence["fold"].unique(maintain_order=True).to_list() == ["2021-2", "2022-1", "2022-2", LATEST]
    assert convergence["divergences"].sum() == 0
    assert convergence["r_hat"].max() < 1.05


@pytest.mark.slow
def test_races_know_the_race_before_and_their_archetypes_races(fitted):
    states = fitted[2]["races"].to_dataset()
    order = states["race_order"].values
    assert order.tolist() == [*range(202125, 202149), *range(202201, 202249)]
    before = np.where(order == 202201, 202148, order - 1)
    assert_array_equal(states["calibration_as_of"].values, before)
    assert states["n_calibration_races"].values[:5].tolist() == [6, 6, 6, 6, 7]
    assert states["archetype"].values[:4].tolist() == [str(a) for a in ARCHETYPES]


@pytest.mark.slow
def test_planted_slope_and_shift_are_found_by_the_whole_fit(fitted):
    """With the default draws: two short chains move an end of an interval by .03."""
    curves = fitted[0]
    table = state_by_race(filter_state(curves, fit_pooled(curves, SEASONS, seed=1), seed=3))
    last = table.filter(pl.col("race_order") > 202244)
    assert last.height == 4
    assert last["slope_lower"].max() < 0.7 < last["slope_upper"].min()
    assert (last["slope"] - 0.7).abs().max() < 0.15
    assert last["slope_upper"].max() < 1
    assert last["shift_lower"].max() < 0.6 < last["shift_upper"].min()
    assert last["tilt_lower"].max() < 1 < last["tilt_upper"].min()
    first = table.filter(pl.col("race_order") <= 202128)
    width = pl.col("slope_upper") - pl.col("slope_lower")
    assert first.select(width).min().item() > last.select(width).max().item()


@pytest.mark.slow
def test_later_results_change_no_earlier_state(planted, fitted):
    """Shuffling all results from a race on leaves the states up to that race bit for bit as they were."""
    ensembles, results = planted
    other = planted_calendar(1.2)[1]
    later = pl.col("race_id") >= 202230
    known = fit_all(ensembles, pl.concat([results.filter(~later), other.filter(later)]))
    again, states = filter_state(*known, seed=3)["races"].to_dataset(), fitted[2]["races"].to_dataset()
    early = states["race_order"].values <= 202230
    for name in DRAWN:
        assert_array_equal(again[name].values[early], states[name].values[early])
    assert not np.array_equal(again["log_slope"].values[~early], states["log_slope"].values[~early])


@pytest.mark.slow
@pytest.mark.parametrize(("n_known", "opening"), [(80, "same_fold"), (72, "new_fold"), (48, "new_season")])
def test_the_next_race_has_the_state_that_the_backtest_had(planted, fitted, n_known, opening):
    """With the races before it alone, a race gets to the bit the draws that the whole history gives it."""
    ensembles, results = planted
    calendar = read_calendar(fitted[0])
    race, before = int(calendar.race[n_known]), int(calendar.race_order[n_known])
    known = {a: part.isel(race=part["race_order"].values < before) for a, part in ensembles.items()}
    state = filter_state(*fit_all(known, results), seed=3)
    archetype = str(ARCHETYPES[calendar.archetype[n_known]])
    following = next_race_state(state, archetype, str(calendar.fold[n_known]), before // 100)
    assert str(following["opening"].values) == opening
    scored = fitted[2]["races"].to_dataset().sel(race=race)
    for name in (*DRAWN, "n_calibration_races"):
        assert_array_equal(following[name].values, scored[name].values)
    (change,) = draw_recalibrations(
        fitted[2]["races"].to_dataset(), ensembles[Archetype(archetype)].sel(race=[race]), 50, 4
    ).values()
    again = draw_recalibration(following, race, 50, 4)
    assert_array_equal(change.log_sharpness, again.log_sharpness)
    assert_array_equal(change.incident_shift, again.incident_shift)
    assert_array_equal(change.front_tilt, again.front_tilt)


@pytest.mark.slow
def test_recalibration_leaves_races_without_a_state_alone(planted, fitted):
    ensemble, states = planted[0][Archetype.INTERMEDIATE], fitted[2]["races"].to_dataset()
    changes = draw_recalibrations(states, ensemble, 500, seed=4)
    assert sorted(changes) == ensemble["race"].values[ensemble["fold"].values != "2021-1"].tolist()
    late = changes[max(changes)]
    assert late.log_sharpness.shape == late.incident_shift.shape == (500,)
    assert np.exp(np.median(late.log_sharpness)) == pytest.approx(0.7, abs=0.15)
    again = draw_recalibrations(states, ensemble.isel(race=[-1]), 500, seed=4)[max(changes)]
    assert_array_equal(again.log_sharpness, late.log_sharpness)


@pytest.mark.slow
def test_a_backtest_knows_what_each_state_had_seen(planted, fitted):
    """It meets its contract; races without a state have seen no race, and keep the raw forecast."""
    ensembles, results = planted
    own = results.join(shares_beaten(results), on=["race_id", "driver_id"])
    ensemble = ensembles[Archetype.INTERMEDIATE]
    backtest = validate(build_backtest(ensemble, ensemble, own, fitted[2]["races"].to_dataset()), "backtest")
    assert_array_equal(backtest["raw"].values, backtest["recalibrated"].values)
    early = backtest["fold"].values == "2021-1"
    assert not backtest["calibration_as_of"].values[early].any()
    assert not backtest["n_calibration_races"].values[early].any()
    assert_array_equal(backtest["n_calibration_races"].values[~early], np.arange(6, 24))
    assert_array_equal(backtest["calibration_as_of"].values[-2:], backtest["race_order"].values[-2:] - 1)
    assert set(scored_races(backtest)["season"].values.tolist()) == {2022}


@pytest.mark.slow
def test_too_few_races_make_no_state(planted):
    """Of an archetype, and of all: two races before a fold change no forecast."""
    ensembles, results = planted
    few = {a: part.isel(race=slice(0, 12)) for a, part in ensembles.items()}
    few[Archetype.SHORT_TRACK] = few[Archetype.SHORT_TRACK].isel(race=[0, 1, 6])
    few[Archetype.ROAD_COURSE] = few[Archetype.ROAD_COURSE].isel(race=[])
    state = validate(filter_state(*fit_all(few, results), seed=3), "calibration_state")
    assert set(state["races"]["archetype"].values) == {"superspeedway", "intermediate"}
    assert next_race_state(state, "short_track", "2021-2", 2021) is None
    assert int(next_race_state(state, "short_track", "2022-1", 2022)["n_calibration_races"]) == 3
    assert next_race_state(state, "road_course", "2022-1", 2022) is None
    two = {a: part.isel(race=slice(0, 2 * (a == Archetype.INTERMEDIATE))) for a, part in ensembles.items()}
    none = validate(filter_state(*fit_all(two, results), seed=3), "calibration_state")
    assert none["races"].sizes["race"] == 0
    assert next_race_state(none, "intermediate", "2022-1", 2022) is None
    empty = {a: part.isel(race=[]) for a, part in ensembles.items()}
    nothing = validate(filter_state(*fit_all(empty, results), seed=3), "calibration_state")
    assert next_race_state(nothing, "intermediate", "2021-1", 2021) is None
