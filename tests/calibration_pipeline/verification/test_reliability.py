"""Reliability: isotonic fits, calibration curves, bins and the PIT."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration_pipeline.schemas.frames import CalibrationCurves
from calibration_pipeline.verification.corp import (
    corp_terms,
    count_successes,
    curve_rows,
    fit_corp,
    refit_corp,
    refitted_miscalibration,
)
from calibration_pipeline.verification.reliability import calibration_curves, pit_ecdf, reliability_bins
from helpers.simulated_races import Races


@pytest.fixture
def rng():
    return np.random.default_rng(20210214)


@pytest.fixture(scope="module")
def races():
    return Races(np.random.default_rng(1), [36, 40, 38, 37, 40, 39] * 6)


@pytest.fixture(scope="module")
def drawn(races):
    return races.draw(np.random.default_rng(2))


@pytest.fixture(scope="module")
def backtest(drawn):
    return drawn[0]


@pytest.fixture(scope="module")
def curves(drawn):
    return calibration_curves(*drawn)


ROUND = hnp.arrays(float, st.integers(1, 60), elements=st.integers(0, 8).map(lambda k: k / 8))
"""Forecasts with many ties."""


def outcomes_of(forecast, seed):
    return np.random.default_rng(seed).random(forecast.size) < forecast


def brier_parts(forecast, outcome):
    return [float(part.mean()) for part in corp_terms(fit_corp(forecast, outcome), forecast, outcome)]


# --- isotonic fits ---


@given(ROUND, st.integers(0, 2**32 - 1))
def test_the_parts_add_up_and_are_not_negative(forecast, seed):
    outcome = outcomes_of(forecast, seed)
    miscalibration, discrimination, uncertainty = brier_parts(forecast, outcome)
    brier = np.mean((forecast - outcome) ** 2)
    assert miscalibration - discrimination + uncertainty == pytest.approx(brier, abs=1e-12)
    assert min(miscalibration, discrimination, uncertainty) >= -1e-12


@given(ROUND, st.integers(0, 2**32 - 1))
def test_the_order_of_tied_cases_does_not_matter(forecast, seed):
    outcome = outcomes_of(forecast, seed)
    corp, order = fit_corp(forecast, outcome), np.random.default_rng(seed + 1).permutation(forecast.size)
    shuffled = fit_corp(forecast[order], outcome[order])
    assert np.array_equal(shuffled.recalibrated, corp.recalibrated)
    assert np.array_equal(shuffled.block, corp.block)
    assert brier_parts(forecast[order], outcome[order]) == pytest.approx(brier_parts(forecast, outcome))


@given(ROUND, st.integers(0, 2**32 - 1))
def test_blocks_lose_no_case(forecast, seed):
    outcome = outcomes_of(forecast, seed)
    rows = pl.DataFrame(curve_rows(fit_corp(forecast, outcome), np.arange(forecast.size)), strict=False)
    assert rows["n_cases"].sum() == forecast.size
    assert rows["n_races"].to_list() == rows["n_cases"].to_list()
    assert (rows["observed"] * rows["n_cases"]).sum() == pytest.approx(outcome.sum())
    assert (rows["predicted"] * rows["n_cases"]).sum() == pytest.approx(forecast.sum())
    for column in ("predicted", "observed"):
        assert (np.diff(rows[column].to_numpy()) > 0).all()
    assert rows.select(pl.col("predicted").is_between("predicted_from", "predicted_to").all()).item()


@given(ROUND.filter(lambda p: p.size > 1), st.integers(0, 2**32 - 1))
def test_the_decomposition_agrees_with_model_diagnostics(forecast, seed):
    from model_diagnostics.scoring import SquaredError, decompose  # takes seconds to load

    outcome = outcomes_of(forecast, seed)
    theirs = decompose(outcome.astype(float), forecast, scoring_function=SquaredError()).row(0, named=True)
    names = ("miscalibration", "discrimination", "uncertainty")
    assert brier_parts(forecast, outcome) == pytest.approx([theirs[name] for name in names], abs=1e-10)


def test_forecasts_that_differ_by_rounding_are_tied():
    forecast = np.array([0.1 + 0.2, 0.3, 0.3 - 1e-15])
    corp = fit_corp(forecast, np.array([1, 0, 1]))
    assert corp.forecast.size == 1
    assert corp.recalibrated == pytest.approx(2 / 3)


def test_a_calibrated_forecast_keeps_its_values():
    forecast = np.repeat([0.25, 0.5], 4)
    outcome = np.array([1, 0, 0, 0, 1, 1, 0, 0])
    assert fit_corp(forecast, outcome).recalibrated == pytest.approx([0.25, 0.5])
    assert brier_parts(forecast, outcome)[0] == pytest.approx(0, abs=1e-15)


def test_refits_are_the_fits_of_their_outcomes(rng):
    forecast, outcomes = rng.integers(0, 30, 500) / 30, rng.random((6, 500)) < 0.4
    corp = fit_corp(forecast, outcomes[0])
    successes = count_successes(corp, outcomes.T)
    refitted = refit_corp(corp, successes)
    shown = refitted_miscalibration(corp, successes, refitted)
    for outcome, row, miscalibration in zip(outcomes, refitted, shown, strict=True):
        assert row == pytest.approx(fit_corp(forecast, outcome).recalibrated)
        assert miscalibration == pytest.approx(brier_parts(forecast, outcome)[0], abs=1e-12)


# --- calibration curves ---


def test_curves_hold_predicted_against_observed(curves, backtest):
    CalibrationCurves.validate(curves, lazy=True)
    assert set(curves["event"]) == {"win", "top 5", "top 10", "head to head"}
    top = curves.filter(forecast="raw", event="top 5")
    assert top["n_cases"].sum() == int(backtest["field_size"].sum())
    assert top["predicted"].is_sorted()
    mean = (top["observed"] * top["n_cases"]).sum() / top["n_cases"].sum()
    assert mean == pytest.approx(5 * 36 / int(backtest["field_size"].sum()))
    assert (curves["lower"] <= curves["upper"]).all()


def test_curves_without_scenarios_have_no_band(backtest, curves):
    bare = calibration_curves(backtest)
    assert bare["lower"].null_count() == bare["upper"].null_count() == bare.height
    assert bare.drop("lower", "upper").equals(curves.drop("lower", "upper"))


def test_head_to_head_curves_are_antisymmetric(curves):
    curve = curves.filter(forecast="raw", event="head to head")
    flipped = curve.reverse()
    assert (curve["predicted"] + flipped["predicted"]).to_numpy() == pytest.approx(1)
    assert (curve["observed"] + flipped["observed"]).to_numpy() == pytest.approx(1)


@pytest.mark.parametrize(("sharpness", "low", "high"), [(1.0, 0.85, 1.0), (2.5, 0.0, 0.6)])
def test_the_band_holds_calibrated_curves_and_not_others(sharpness, low, high):
    """Over histories the blocks of a calibrated forecast lie inside about 95 % of the time."""
    pool = Races(np.random.default_rng(5), [16, 20] * 12, sharpness=sharpness, n_scenarios=500)
    rng, inside = np.random.default_rng(6), []
    for seed in range(10):
        curve = calibration_curves(*pool.draw(rng), seed=seed).filter(forecast="raw", event="top 10")
        inside.append(np.average(curve["observed"].is_between(curve["lower"], curve["upper"]),
                                 weights=curve["n_cases"]))  # fmt: skip
    assert low <= np.mean(inside) <= high


def test_the_band_knows_that_cars_of_a_race_depend_on_each_other(rng):
    """Races in which favourites do well or badly together scatter more than independent cars would."""
    chaotic = Races(np.random.default_rng(7), [36] * 12, strength=1.5, chaos=1.5)
    backtest, ensembles = chaotic.draw(rng)
    alone = ensembles["raw"].copy(deep=True)
    alone["finish_position"].values[:] = rng.permuted(alone["finish_position"].values, axis=1)
    width = {
        name: (curve["upper"] - curve["lower"]).dot(curve["n_cases"])
        for name, scenarios in (("together", ensembles["raw"]), ("alone", alone))
        for curve in [
            calibration_curves(backtest, {"raw": scenarios, "recalibrated": scenarios}).filter(
                forecast="raw", event="head to head"
            )
        ]
    }
    assert width["together"] > 1.3 * width["alone"]


# --- bins ---


def test_equal_probabilities_share_a_bin(rng):
    forecast = rng.choice([0.1, 0.3, 0.6], 2000)
    bins = reliability_bins(forecast, rng.random(2000) < forecast, np.arange(2000) % 20)
    assert [row["predicted"] for row in bins] == pytest.approx([0.1, 0.3, 0.6])
    assert sum(row["n_cases"] for row in bins) == 2000
    assert all(row["n_races"] == 20 for row in bins)


# --- the PIT ---


def test_the_pit_of_a_calibrated_forecast_is_the_diagonal(backtest):
    pit = pit_ecdf(backtest).filter(forecast="raw")
    assert pit["ecdf"].is_sorted()
    assert pit.row(0, named=True)["ecdf"] == 0
    assert pit.row(-1, named=True)["ecdf"] == 1
    assert (pit["ecdf"] - pit["u"]).abs().max() < 0.03
    assert (pit["lower"] <= pit["ecdf"]).all()
    assert (pit["ecdf"] <= pit["upper"]).all()


@pytest.mark.parametrize(
    "n_races", [pytest.param(12, marks=pytest.mark.slow), pytest.param(36, marks=pytest.mark.soak)]
)
def test_the_pit_band_holds_everywhere_at_once(rng, races, n_races):
    held = []
    for _ in range(200):
        pit = pit_ecdf(races.backtest(rng, n_races)).filter(forecast="raw")
        held.append(pit.select(pl.col("u").is_between("lower", "upper").all()).item())
    assert np.mean(held) > 0.88, np.mean(held)
