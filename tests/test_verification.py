"""Intervals, scores, reliability and verdicts, on backtests whose truth is known."""

import logging
import time
from typing import get_args

import numpy as np
import polars as pl
import pytest
import scoringrules
import xarray as xr

from calibration_pipeline.schemas.frames import RULINGS, CalibrationCurves, MetricTable, VerdictTable
from calibration_pipeline.verification.cases import backtest_cases, start_order_table
from calibration_pipeline.verification.intervals import (
    clustered_mean,
    clustered_ratio,
    clustered_share,
    student_t,
)
from calibration_pipeline.verification.joint_events import JointTest
from calibration_pipeline.verification.reliability import calibration_curves, pit_ecdf
from calibration_pipeline.verification.scores import (
    coverage_probability,
    discrete_crps,
    discrete_log_score,
    head_to_head_slope,
    pit_bounds,
    score_backtest,
)
from calibration_pipeline.verification.verdicts import LIMITS, Ruling, judge, read_verdict, verdict_table

N_SCENARIOS = 1_000
CALIBRATED = {"raw": JointTest(1.0, 0.5, "top(5)"), "recalibrated": JointTest(1.0, 0.5, "top(5)")}


class Races:
    """A pool of races with known truth, from which results are drawn; forecasts are `sharpness` as sharp."""

    def __init__(self, rng, sizes, strength=0.8, sharpness=1.0, chaos=0.0):
        self.sizes, self.width = np.asarray(sizes), max(sizes)
        shape = (len(sizes), self.width)
        padding = np.arange(self.width) >= self.sizes[:, None]
        utility = rng.normal(0, strength, shape)
        log_scale = chaos * rng.normal(size=(len(sizes), N_SCENARIOS, 1))
        self.truth = self._finishes(rng, utility, padding, log_scale=log_scale)
        self.start = self._finishes(rng, 0.7 * utility, padding, 1)[:, 0]
        forecast = self.truth if sharpness == 1 else self._finishes(rng, sharpness * utility, padding)
        self.probability = np.zeros((*shape, self.width))
        self.pairs = np.zeros_like(self.probability)
        for r, n in enumerate(self.sizes):
            finish = forecast[r, :, :n]
            for k in range(n):
                self.probability[r, :n, k] = ((finish == k + 1).sum(0) + 0.5) / (len(finish) + n / 2)
                self.pairs[r, k, :n] = (finish[:, [k]] < finish).mean(0)

    def _finishes(self, rng, utility, padding, n_scenarios=N_SCENARIOS, log_scale=0.0):
        noisy = utility[:, None] * np.exp(log_scale) - rng.gumbel(
            size=(len(utility), n_scenarios, self.width)
        )
        noisy = np.where(padding[:, None], -np.inf, noisy)
        finish = 1 + np.argsort(np.argsort(-noisy, axis=2), axis=2)
        return np.where(padding[:, None], 0, finish).astype(np.int16)

    def backtest(self, rng, n_races=None):
        """Return `n_races` of the pool with results drawn from the truth."""
        chosen = np.arange(len(self.sizes))
        if n_races is not None:
            chosen = rng.choice(len(self.sizes), n_races, replace=False)
        result = self.truth[chosen, rng.integers(N_SCENARIOS, size=chosen.size)]
        place, pair = ("race", "driver", "position"), ("race", "driver", "opponent")
        return xr.Dataset(
            {
                "raw": (place, self.probability[chosen]),
                "recalibrated": (place, self.probability[chosen]),
                "raw_head_to_head": (pair, self.pairs[chosen]),
                "recalibrated_head_to_head": (pair, self.pairs[chosen]),
                "finish_position": (("race", "driver"), result),
            },
            coords={
                "race": chosen,
                "archetype": ("race", np.full(chosen.size, "short_track")),
                "field_size": ("race", self.sizes[chosen].astype(np.int16)),
                "start_position": (("race", "driver"), self.start[chosen]),
            },
        )


@pytest.fixture
def rng():
    return np.random.default_rng(20210214)


@pytest.fixture(scope="module")
def races():
    return Races(np.random.default_rng(1), [36, 40, 38, 37, 40, 39] * 6)


@pytest.fixture(scope="module")
def backtest(races):
    return races.backtest(np.random.default_rng(2))


def estimate(metrics, forecast, quantity, level=""):
    rows = metrics.filter(forecast=forecast, quantity=quantity, level=level)
    assert rows.height == 1
    return rows.row(0, named=True)


# --- intervals ---


def test_mean_over_equal_races_has_the_t_interval_of_race_means(rng):
    values, race = rng.normal(size=(6, 4)), np.repeat(np.arange(6), 4)
    result = clustered_mean(values.ravel(), race)
    means = values.mean(axis=1)
    half = student_t(6) * means.std(ddof=1) / np.sqrt(6)
    assert (result.estimate, result.n_races, result.n_cases) == (pytest.approx(means.mean()), 6, 24)
    assert (result.lower, result.upper) == pytest.approx((means.mean() - half, means.mean() + half))


def test_a_race_weighs_as_many_cases_as_it_has():
    result = clustered_mean(np.array([0.0, 1.0, 1.0, 1.0]), np.array([5, 9, 9, 9]))
    assert result.estimate == 0.75


def test_one_race_has_an_estimate_but_no_interval():
    result = clustered_mean(np.array([1.0, 2.0]), np.array([3, 3]))
    assert (result.estimate, result.lower, result.upper, result.n_races) == (1.5, None, None, 1)
    assert clustered_share(np.array([1]), np.array([2])).lower is None


def test_order_of_cases_and_names_of_races_do_not_matter(rng):
    values, race = rng.normal(size=40), rng.integers(5, size=40)
    order = rng.permutation(40)
    expected = clustered_mean(values, race)
    shuffled = clustered_mean(values[order], np.array(list("vwxyz"))[race][order])
    assert shuffled.lower == pytest.approx(expected.lower)
    assert shuffled.upper == pytest.approx(expected.upper)


def test_a_share_of_one_case_a_race_has_wilsons_interval():
    """Reference: 3 of 20 has the Wilson interval [0.0524, 0.3604] (Newcombe 1998, formula 3)."""
    result = clustered_share(np.repeat([1, 0], [3, 17]), np.ones(20, int))
    assert (result.lower, result.upper) == pytest.approx((0.0524, 0.3604), abs=1e-4)


@pytest.mark.parametrize("share", [0, 1])
def test_a_share_that_never_varies_still_has_an_interval(share):
    result = clustered_share(np.full(6, 8 * share), np.full(6, 8))
    assert result.lower <= result.estimate <= result.upper
    assert 0.3 < result.upper - result.lower < 0.7


@pytest.mark.parametrize(
    ("values", "race", "message"),
    [
        ([], [], "at least one case"),
        ([1.0, 2.0], [1], "one shape"),
        ([1.0, np.nan], [1, 2], "must be finite"),
    ],
)
def test_bad_cases_are_refused(values, race, message):
    with pytest.raises(ValueError, match=message):
        clustered_mean(np.array(values), np.array(race))


def test_empty_denominators_are_refused():
    with pytest.raises(ValueError, match="not add to 0"):
        clustered_ratio(np.ones(2), np.zeros(2), np.arange(2))
    with pytest.raises(ValueError, match="at least one trial"):
        clustered_share(np.zeros(2), np.zeros(2))


@pytest.mark.slow
@pytest.mark.parametrize("n_races", [5, 16, 36, 108])
def test_intervals_cover(rng, n_races):
    """95 % intervals of means, skills and shares cover 95 %: skewed scores, unequal and dependent fields."""
    n_histories, width = 2_000, 40
    covered = {"mean": [], "ratio": [], "share": []}
    for _ in range(n_histories):
        size = rng.integers(30, width + 1, n_races)
        race = np.repeat(np.arange(n_races), size)
        shock = rng.normal(0, 0.3, n_races)[race]
        reference = rng.gamma(4, 1, race.size)
        score = reference * 0.8 * np.exp(shock - 0.3**2 / 2)
        happened = rng.random(race.size) < np.clip(0.3 + 0.4 * shock, 0, 1)
        mean = clustered_mean(score, race)
        ratio = clustered_ratio(reference - score, reference, race)
        share = clustered_share(np.bincount(race, weights=happened), size)
        covered["mean"].append(mean.lower <= 3.2 <= mean.upper)
        covered["ratio"].append(ratio.lower <= 0.2 <= ratio.upper)
        covered["share"].append(share.lower <= 0.3 <= share.upper)
    for kind, hits in covered.items():
        # Wilson's centre and Student's t together are a little wide for a share over five races.
        assert 0.93 <= np.mean(hits) <= 0.985, (kind, np.mean(hits))


# --- scores of finish probabilities ---


def test_discrete_crps_is_the_ensemble_crps_of_its_scenarios(rng):
    scenarios, position = rng.integers(1, 11, size=(500, 30)), rng.integers(1, 11, size=30)
    probability = (scenarios[..., None] == np.arange(1, 11)).mean(axis=0)
    reference = scoringrules.crps_ensemble(position.astype(float), scenarios.astype(float), m_axis=0)
    assert discrete_crps(probability, position) == pytest.approx(reference, abs=1e-6)


def test_discrete_crps_over_places_is_the_rps(rng):
    """The RPS of scoringrules takes probabilities of categories, from 1."""
    probability, position = rng.dirichlet(np.ones(7), size=20), rng.integers(1, 8, size=20)
    reference = scoringrules.rps_score(position, probability, k_axis=-1)
    assert discrete_crps(probability, position) == pytest.approx(reference)


def test_certainty_about_the_truth_scores_best():
    certain = np.eye(5)
    position = np.arange(1, 6)
    assert (discrete_crps(certain, position) == 0).all()
    assert (discrete_log_score(certain, position) == 0).all()


def test_discrete_scores_are_proper(rng):
    """In expectation under p, exactly computed, no other forecast beats p."""
    p = rng.dirichlet(np.ones(8), size=50)
    q = rng.dirichlet(np.ones(8), size=50)
    places = np.broadcast_to(np.arange(1, 9), (50, 8))

    def expected(score, forecast):
        rows = np.broadcast_to(forecast[:, None], (50, 8, 8))
        return (p * score(rows, places)).sum(axis=1)

    assert (expected(discrete_crps, p) < expected(discrete_crps, q)).all()
    assert (expected(discrete_log_score, p) > expected(discrete_log_score, q)).all()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_discrete_coverage_is_nominal_in_expectation_for_every_forecast(rng, level):
    """Sum over places of p_k times the coverage at k is the level, exactly."""
    p = np.concatenate([rng.dirichlet(np.full(6, 0.3), size=40), np.eye(6)])
    rows = np.broadcast_to(p[:, None], (46, 6, 6))
    places = np.broadcast_to(np.arange(1, 7), (46, 6))
    expected = (p * coverage_probability(rows, places, level)).sum(axis=1)
    assert expected == pytest.approx(level, abs=1e-12)


def test_discrete_coverage_is_what_random_draws_give(rng):
    p = rng.dirichlet(np.ones(6))
    low, high = pit_bounds(p, 3)
    drawn = rng.uniform(low, high, 200_000)
    assert float(coverage_probability(p, 3, 0.4)) == pytest.approx(
        np.mean(np.abs(drawn - 0.5) <= 0.2), abs=5e-3
    )


def test_an_impossible_place_scores_the_floor_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert discrete_log_score([[1.0, 0.0], [0.5, 0.5]], [2, 1])[0] < -700
    assert "1 of 2 predictions is at its floor" in caplog.text


def test_zeros_behind_the_field_change_nothing(rng):
    p, y = rng.dirichlet(np.ones(5), size=9), rng.integers(1, 6, size=9)
    padded = np.pad(p, ((0, 0), (0, 3)))
    assert discrete_crps(padded, y) == pytest.approx(discrete_crps(p, y))
    assert coverage_probability(padded, y, 0.8) == pytest.approx(coverage_probability(p, y, 0.8))


@pytest.mark.parametrize(
    ("probability", "position", "message"),
    [
        ([0.5, 0.5], 3, r"must lie in 1\.\.2, got 3 to 3"),
        ([0.5, 0.5], 0, r"must lie in 1\.\.2, got 0 to 0"),
        ([0.5, 0.5], [1, 2], r"got \(2,\) and \(2,\)"),
    ],
)
def test_bad_positions_are_refused(probability, position, message):
    with pytest.raises(ValueError, match=message):
        discrete_crps(probability, position)


@pytest.mark.parametrize("slope", [0.7, 1.0, 1.4])
def test_the_head_to_head_slope_is_recovered(rng, slope):
    """The estimate is centred on the planted slope, and about 95 % of the intervals hold it."""
    race, results = np.repeat(np.arange(30), 50), []
    for _ in range(200):
        x = rng.normal(size=race.size)
        outcome = rng.random(x.size) < 1 / (1 + np.exp(-slope * x))
        results.append(head_to_head_slope(1 / (1 + np.exp(-x)), outcome, race))
    estimates = np.array([result.estimate for result in results])
    assert estimates.mean() == pytest.approx(slope, abs=4 * estimates.std() / np.sqrt(200) + 0.01)
    assert 0.89 <= np.mean([r.lower < slope < r.upper for r in results]) <= 0.995


def test_the_slope_does_not_depend_on_which_car_is_named_first(rng):
    p, race = rng.uniform(0.01, 0.99, 500), rng.integers(5, size=500)
    outcome = rng.random(500) < p
    swap = rng.random(500) < 0.5
    swapped = head_to_head_slope(np.where(swap, 1 - p, p), outcome ^ swap, race)
    original = head_to_head_slope(p, outcome, race)
    assert swapped.estimate == pytest.approx(original.estimate)
    assert (swapped.lower, swapped.upper) == pytest.approx((original.lower, original.upper))


def test_there_is_no_slope_without_a_favourite_or_an_upset():
    race = np.arange(3)
    assert head_to_head_slope(np.full(3, 0.5), np.array([True, False, True]), race) is None
    assert head_to_head_slope(np.full(3, 0.7), np.array([True, True, True]), race) is None


# --- the metric table ---


def test_the_table_keeps_its_contract_and_orders_the_forecasts(backtest):
    metrics = score_backtest(backtest)
    MetricTable.validate(metrics, lazy=True)
    assert set(metrics["quantity"]) == {
        "crps", "log_score", "coverage", "rps", "brier", "head_to_head_slope", "crps_skill", "log_gain",
    }  # fmt: skip
    assert metrics.select("forecast", "quantity", "level").is_unique().all()
    by_forecast = {f: estimate(metrics, f, "crps")["estimate"] for f in metrics["forecast"].unique()}
    assert by_forecast["raw"] < by_forecast["start_order"] < by_forecast["climatology"]
    assert (metrics["lower"] <= metrics["estimate"]).all()
    assert metrics["n_races"].unique().to_list() == [36]
    assert metrics["n_cars"].unique().to_list() == [int(backtest["field_size"].sum())]


def test_a_perfect_forecast_scores_as_it_should(backtest):
    metrics = score_backtest(backtest)
    for quantity, level in LIMITS:
        row = estimate(metrics, "raw", quantity, level)
        low, high = LIMITS[quantity, level]
        assert low < row["estimate"] < high
    cases = backtest_cases(backtest)
    crps = discrete_crps(cases.probability["raw"], cases.position)
    uniform = discrete_crps(cases.probability["climatology"], cases.position)
    assert estimate(metrics, "raw", "crps")["estimate"] == pytest.approx(crps.mean())
    assert estimate(metrics, "raw", "rps")["estimate"] == pytest.approx(
        (crps / (cases.field_size - 1)).mean()
    )
    assert estimate(metrics, "raw", "crps_skill")["estimate"] == pytest.approx(1 - crps.sum() / uniform.sum())


def test_climatology_has_its_known_scores(backtest):
    metrics = score_backtest(backtest)
    assert estimate(metrics, "climatology", "brier", "head to head")["estimate"] == pytest.approx(0.25)
    size = backtest["field_size"].values
    assert estimate(metrics, "climatology", "log_score")["estimate"] == pytest.approx(
        -(size * np.log(size)).sum() / size.sum()
    )
    # Finishes of a race are a permutation: its cars cover the uniform intervals exactly as often as they say.
    assert estimate(metrics, "climatology", "coverage", "80 %")["estimate"] == pytest.approx(0.8)
    assert metrics.filter(forecast="climatology", quantity="crps_skill").is_empty()


@pytest.mark.parametrize("garbage", [np.nan, 1e6])
def test_padding_is_never_read(backtest, garbage):
    spoilt = backtest.copy(deep=True)
    padding = np.arange(backtest.sizes["driver"]) >= backtest["field_size"].values[:, None]
    for name in ("raw", "recalibrated", "raw_head_to_head", "recalibrated_head_to_head"):
        values = spoilt[name].values
        values[padding] = garbage
        values.swapaxes(1, 2)[padding] = garbage
    spoilt["finish_position"].values[padding] = 99
    spoilt["start_position"].values[padding] = -7
    assert score_backtest(spoilt).equals(score_backtest(backtest))
    assert calibration_curves(spoilt).equals(calibration_curves(backtest))
    assert pit_ecdf(spoilt).equals(pit_ecdf(backtest))


def test_one_race_has_estimates_and_no_intervals(backtest):
    one = backtest.isel(race=[0])
    metrics = score_backtest(one)
    assert metrics["estimate"].null_count() == 0
    assert metrics["lower"].null_count() == metrics.height
    assert calibration_curves(one)["lower"].null_count() == calibration_curves(one).height
    assert pit_ecdf(one)["lower"].null_count() == pit_ecdf(one).height


def test_no_races_make_empty_tables(backtest):
    none = backtest.isel(race=[])
    MetricTable.validate(score_backtest(none), lazy=True)
    CalibrationCurves.validate(calibration_curves(none), lazy=True)
    assert score_backtest(none).is_empty()
    assert calibration_curves(none).is_empty()
    assert pit_ecdf(none).schema == pit_ecdf(backtest.isel(race=[0])).schema


def test_the_start_order_table_is_coherent_and_prefers_the_start():
    for n_cars in (1, 2, 36, 40):
        table = start_order_table(n_cars)
        assert table.sum(axis=0) == pytest.approx(1, abs=1e-12)
        assert table.sum(axis=1) == pytest.approx(1, abs=1e-12)
        assert (table.argmax(axis=1) == np.arange(n_cars)).all()


def test_a_broken_backtest_is_refused(backtest):
    two = backtest.copy(deep=True)
    two["archetype"].values[0] = "road_course"
    with pytest.raises(ValueError, match="one archetype, got road_course, short_track"):
        score_backtest(two)
    outside = backtest.copy(deep=True)
    outside["finish_position"].values[0, 0] = 40
    with pytest.raises(ValueError, match=r"got 40 of 36 cars in race 0 \(1 cars"):
        score_backtest(outside)
    missing = backtest.copy(deep=True)
    missing["recalibrated"].values[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"recalibrated must be probabilities in \[0, 1\], got 1 value"):
        score_backtest(missing)


def test_scoring_is_fast(backtest):
    start = time.perf_counter()
    score_backtest(backtest)
    assert time.perf_counter() - start < 1


# --- reliability ---


def test_curves_hold_predicted_against_observed(backtest):
    curves = calibration_curves(backtest)
    CalibrationCurves.validate(curves, lazy=True)
    assert set(curves["event"]) == {"win", "top 5", "top 10", "head to head"}
    top = curves.filter(forecast="raw", event="top 5")
    assert top["n_cases"].sum() == int(backtest["field_size"].sum())
    assert top["predicted"].is_sorted()
    mean = (top["observed"] * top["n_cases"]).sum() / top["n_cases"].sum()
    assert mean == pytest.approx(5 * 36 / int(backtest["field_size"].sum()))
    inside = curves.filter(pl.col("predicted").is_between("lower", "upper")).height
    assert inside / curves.height > 0.8


def test_head_to_head_curves_are_antisymmetric(backtest):
    curve = calibration_curves(backtest).filter(forecast="raw", event="head to head")
    flipped = curve.reverse()
    assert (curve["predicted"] + flipped["predicted"]).to_numpy() == pytest.approx(1, abs=0.01)
    assert (curve["observed"] + flipped["observed"]).to_numpy() == pytest.approx(1, abs=0.02)


def test_equal_probabilities_share_a_bin(backtest):
    """Climatology says one number a field size: that many bins, no more."""
    uniform = backtest.copy(deep=True)
    size = backtest["field_size"].values[:, None, None]
    uniform["raw"].values[:] = 1 / size
    win = calibration_curves(uniform).filter(forecast="raw", event="win")
    assert win.height <= np.unique(size).size
    assert win["predicted"].is_unique().all()


def test_the_pit_of_a_calibrated_forecast_is_the_diagonal(backtest):
    pit = pit_ecdf(backtest).filter(forecast="raw")
    assert pit["ecdf"].is_sorted()
    assert pit.row(0, named=True)["ecdf"] == 0
    assert pit.row(-1, named=True)["ecdf"] == 1
    assert (pit["ecdf"] - pit["u"]).abs().max() < 0.03
    assert (pit["lower"] <= pit["ecdf"]).all()
    assert (pit["ecdf"] <= pit["upper"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("n_races", [12, 36])
def test_the_pit_band_holds_everywhere_at_once(rng, races, n_races):
    held = []
    for _ in range(200):
        pit = pit_ecdf(races.backtest(rng, n_races)).filter(forecast="raw")
        held.append(pit.select(pl.col("u").is_between("lower", "upper").all()).item())
    assert np.mean(held) > 0.88, np.mean(held)


# --- verdicts ---


def made_up(n_races=60, slope=(1.0, 0.05), coverage=0.0, half=0.01, skill=(0.1, 0.05), forecast="raw"):
    """Return rows with the estimates asked for, (estimate, half width) or coverage error and half width."""
    estimates = [slope, *((nominal + coverage, half) for nominal in (0.5, 0.8, 0.95)), skill]
    return pl.DataFrame(
        {
            "archetype": ["road_course"] * 5,
            "forecast": [forecast] * 5,
            "quantity": [quantity for quantity, _ in LIMITS],
            "level": [level for _, level in LIMITS],
            "estimate": [centre for centre, _ in estimates],
            "lower": [centre - width for centre, width in estimates],
            "upper": [centre + width for centre, width in estimates],
            "n_races": [n_races] * 5,
        }
    )


def ruling(raw, recalibrated, joint=CALIBRATED, n_calibrated_races=20):
    rows = pl.concat([made_up(**raw), made_up(**recalibrated, forecast="recalibrated")])
    return judge("road_course", rows, joint, n_calibrated_races)


def test_good_raw_forecasts_are_trusted():
    verdict = ruling({}, {})
    assert verdict.verdict == "trust"
    assert len(verdict.evidence) == 6
    assert (
        "Raw: coverage of the 95 % intervals is 0.950 [0.940, 0.960] over 60 races, within"
        in (verdict.evidence[3])
    )


def test_repaired_forecasts_are_trusted_after_recalibration():
    verdict = ruling({"slope": (0.6, 0.05)}, {})
    assert verdict.verdict == "trust after recalibration"
    assert verdict.evidence[-1].startswith("Raw: head-to-head slope is 0.600")


@pytest.mark.parametrize("bad", [{"slope": (0.6, 0.05)}, {"coverage": -0.1}, {"skill": (-0.2, 0.05)}])
def test_forecasts_outside_the_limits_are_not_trusted(bad):
    verdict = ruling(bad, bad)
    assert verdict.verdict == "do not trust"
    assert "wholly outside the limits" in verdict.evidence[0]


def test_rejected_joint_events_are_not_trusted():
    rejected = {f: JointTest(5.0, 0.0005, "count(dnf) >= 8") for f in CALIBRATED}
    verdict = ruling({}, {}, rejected)
    assert verdict.verdict == "do not trust"
    assert "count(dnf) >= 8" in verdict.evidence[0]
    doubtful = {f: JointTest(2.6, 0.03, "count(dnf) >= 8") for f in CALIBRATED}
    assert ruling({}, {}, doubtful).verdict == "cannot tell yet"


def test_wide_intervals_cannot_tell_yet_and_say_how_long():
    """Half width 0.04 must shrink to the 0.02 between 0.95 and its limits: four times the races."""
    verdict = ruling({"half": 0.04}, {"half": 0.04})
    assert verdict.verdict == "cannot tell yet"
    assert verdict.races_needed == pytest.approx(180, abs=1)
    assert "more races needed" in verdict.evidence[0]
    assert "not clearly within or outside" in verdict.evidence[1]


def test_an_interval_just_outside_is_not_enough_to_reject():
    """Six things are looked at: [1.26, 1.5] strays at 95 %, and not at the level shared among six."""
    verdict = ruling({"slope": (1.38, 0.12)}, {"slope": (1.38, 0.12)})
    assert verdict.verdict == "cannot tell yet"


def test_nothing_is_told_before_a_calibration_or_an_interval():
    assert ruling({}, {}, n_calibrated_races=0).verdict == "cannot tell yet"
    no_bounds = pl.concat([made_up(), made_up(forecast="recalibrated")]).with_columns(
        lower=pl.lit(None, pl.Float64), upper=pl.lit(None, pl.Float64)
    )
    verdict = judge("road_course", no_bounds, CALIBRATED, 1)
    assert verdict.verdict == "cannot tell yet"
    assert verdict.races_needed is None
    assert ruling({}, {}, joint={}).verdict == "cannot tell yet"
    assert judge("road_course", no_bounds.clear(), {}, 1).verdict == "cannot tell yet"


def test_verdicts_survive_a_table():
    for verdict in (ruling({}, {}), ruling({"half": 0.04}, {"half": 0.04})):
        frame = VerdictTable.validate(verdict_table(verdict), lazy=True)
        assert read_verdict(frame.sample(fraction=1, shuffle=True, seed=0)) == verdict
    with pytest.raises(ValueError, match="one verdict, got 0"):
        read_verdict(frame.clear())
    assert get_args(Ruling) == RULINGS


def test_an_unknown_archetype_is_refused():
    with pytest.raises(ValueError, match="must be one of superspeedway"):
        judge("dirt", made_up(), CALIBRATED, 1)


@pytest.mark.slow
@pytest.mark.parametrize("n_races", [12, 36, 108])
def test_errors_of_verdicts_are_rare(rng, n_races):
    """At most 5 %: a perfect forecaster called bad, with or without chaos; one outside the limits trusted.

    The joint test is tested in `test_joint_events`; here its p is uniform, as it is under calibration.
    """
    pools = {
        "perfect": Races(rng, [36, 38, 40] * 50),
        "perfect, chaos": Races(rng, [36, 38, 40] * 50, chaos=0.5),
        "just outside": Races(rng, [36, 38, 40] * 50, sharpness=1.35),
    }
    shares = {}
    for name, pool in pools.items():
        rulings = []
        for _ in range(100):
            joint = JointTest(1.0, rng.random(), "top(5)")
            metrics = score_backtest(pool.backtest(rng, n_races))
            tests = {"raw": joint, "recalibrated": joint}
            rulings.append(judge("short_track", metrics, tests, n_races).verdict)
        shares[name] = {v: float(np.mean([r == v for r in rulings])) for v in sorted(set(rulings))}
    # Of 100 histories 9 are too many for a rate of 5 % (binomial tail below .03).
    assert shares["perfect"].get("do not trust", 0.0) < 0.09, shares
    assert shares["perfect, chaos"].get("do not trust", 0.0) < 0.09, shares
    assert shares["just outside"].get("trust", 0.0) < 0.09, shares
