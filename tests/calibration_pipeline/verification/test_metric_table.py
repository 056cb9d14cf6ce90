"""The table of a backtest's scores, on races whose truth is known."""

import numpy as np
import polars as pl
import pytest

from calibration_pipeline.metrics import compute_crps, compute_log_score
from calibration_pipeline.schemas.frames import CalibrationCurves, MetricTable
from calibration_pipeline.telemetry.baselines import bradley_terry
from calibration_pipeline.verification.cases import backtest_cases
from calibration_pipeline.verification.event_cases import EventCases, position_events
from calibration_pipeline.verification.metric_table import QUANTITIES, score_backtest, score_events
from calibration_pipeline.verification.reliability import calibration_curves, pit_ecdf
from calibration_pipeline.verification.scores import discrete_crps
from calibration_pipeline.verification.verdicts.rules import LIMITS
from helpers.simulated_races import Races

EVENTS = ("win", "top 5", "top 10", "head to head")
OF_SCENARIOS = (
    "fair_crps", "log_score_kde", "energy_score", "variogram_score", "brier_miscalibration_expected",
)  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(20210214)


@pytest.fixture(scope="module")
def drawn():
    sizes = [36, 40, 38, 37, 40, 39] * 6
    pool = Races(np.random.default_rng(1), sizes, strength=1.2, n_scenarios=400)
    return pool.draw(np.random.default_rng(2))


@pytest.fixture(scope="module")
def backtest(drawn):
    return drawn[0]


@pytest.fixture(scope="module")
def metrics(drawn):
    return score_backtest(*drawn)


def estimate(metrics, forecast, quantity, level="", reference=""):
    rows = metrics.filter(forecast=forecast, quantity=quantity, level=level, reference=reference)
    assert rows.height == 1
    return rows.row(0, named=True)


def test_the_table_keeps_its_contract_and_orders_the_forecasts(metrics, backtest):
    MetricTable.validate(metrics, lazy=True)
    assert set(metrics["quantity"]) == set(QUANTITIES)
    by_forecast = {f: estimate(metrics, f, "crps")["estimate"] for f in ("raw", "start_order", "climatology")}
    assert by_forecast["raw"] < by_forecast["start_order"] < by_forecast["climatology"]
    assert (metrics["lower"] <= metrics["estimate"]).all()
    assert (metrics["estimate"] <= metrics["upper"]).all()
    assert metrics["n_races"].unique().to_list() == [36]
    assert metrics["n_cars"].unique().to_list() == [int(backtest["field_size"].sum())]


def test_markets_have_the_races_with_more_cars_than_winners(rng):
    """Every car of the race of 9 is in the top 10: it is no case, in scores, curves and verdicts alike."""
    backtest, ensembles = Races(rng, [9, 30, 31], strength=1.0, n_scenarios=200).draw(rng)
    metrics = score_backtest(backtest, ensembles)
    for quantity in ("brier", "brier_miscalibration_expected"):
        numbers = [estimate(metrics, "raw", quantity, level) for level in ("top 5", "top 10")]
        assert [(row["n_races"], row["n_cars"]) for row in numbers] == [(3, 70), (2, 61)]
    curves = calibration_curves(backtest, ensembles).filter(forecast="raw")
    assert curves.filter(event="top 10")["n_cases"].sum() == 61
    (events,) = [own for own in position_events(backtest_cases(backtest)) if own.market == "top 10"]
    score = np.mean((events.predicted["raw"] - events.inside) ** 2)
    assert estimate(metrics, "raw", "brier", "top 10")["estimate"] == pytest.approx(score)


def test_each_market_of_event_probabilities_has_its_own_numbers():
    """A win market of three races beside a top 3 market of one."""
    of_win, of_top = np.repeat([1, 2, 3], 4), np.repeat(2, 4)
    markets = [
        EventCases(
            market,
            dict.fromkeys(("raw", "recalibrated", "climatology"), np.full(race.size, top / 4)),
            np.arange(race.size) % 4 < top,
            race,
        )
        for market, top, race in (("win", 1, of_win), ("top 3", 3, of_top))
    ]
    metrics = score_events("intermediate", markets)
    shown = [
        metrics.filter(level=level).select("n_races", "n_cars").unique().rows() for level in ("win", "top 3")
    ]
    assert shown == [[(3, 12)], [(1, 4)]]


def test_every_comparison_names_its_reference(metrics):
    compared = metrics.filter(pl.col("quantity").is_in(["crps_skill", "log_gain", "brier_skill"]))
    assert (compared["reference"] != "").all()
    assert metrics.filter(pl.col("reference") != "").height == compared.height
    for reference in ("raw", "climatology", "start_order"):
        for quantity, level in [("crps_skill", ""), ("log_gain", ""), *(("brier_skill", e) for e in EVENTS)]:
            estimate(metrics, "recalibrated", quantity, level, reference)
    for forecast in ("raw", "recalibrated"):
        estimate(metrics, forecast, "brier_skill", "head to head", "bradley_terry")
    assert metrics.filter(forecast="bradley_terry")["level"].unique().sort().to_list() == ["", "head to head"]


def test_equal_forecasts_have_no_skill_over_each_other(metrics):
    paired = metrics.filter(forecast="recalibrated", reference="raw")
    assert (paired["estimate"] == 0).all()
    assert (paired["monte_carlo_error"] == 0).all()


def test_comparisons_are_paired(drawn):
    """Races differ more than forecasts do: the interval of a difference is narrow."""
    backtest = drawn[0].copy(deep=True)
    size = backtest["field_size"].values[:, None, None]
    uniform = (backtest["recalibrated"].values > 0) / size
    backtest["recalibrated"].values[:] = 0.9 * backtest["recalibrated"].values + 0.1 * uniform
    metrics = score_backtest(backtest)
    gain = estimate(metrics, "recalibrated", "log_gain", reference="raw")
    of_climatology = estimate(metrics, "recalibrated", "log_gain", reference="climatology")
    assert gain["upper"] - gain["lower"] < 0.3 * (of_climatology["upper"] - of_climatology["lower"])
    difference = gain["estimate"] - (
        of_climatology["estimate"] - estimate(metrics, "raw", "log_gain", reference="climatology")["estimate"]
    )
    assert difference == pytest.approx(0, abs=1e-12)


def test_scores_of_scenarios_are_those_of_the_ensemble_functions(metrics, drawn):
    backtest, ensembles = drawn
    finish, result = ensembles["raw"]["finish_position"].values, backtest["finish_position"].values
    sizes = backtest["field_size"].values.astype(int)
    crps = [compute_crps(f[:, :n], y[:n], fair=True) for f, y, n in zip(finish, result, sizes, strict=True)]
    log_score = [compute_log_score(f[:, :n], y[:n]) for f, y, n in zip(finish, result, sizes, strict=True)]
    by_hand = {"fair_crps": crps, "log_score_kde": log_score}
    for quantity, values in by_hand.items():
        expected = np.average(values, weights=sizes)
        assert estimate(metrics, "raw", quantity)["estimate"] == pytest.approx(expected)


def test_without_ensembles_scores_of_scenarios_are_omitted(backtest, metrics):
    bare = score_backtest(backtest)
    assert bare["monte_carlo_error"].null_count() == bare.height
    assert set(metrics["quantity"]) - set(bare["quantity"]) == set(OF_SCENARIOS)
    common = metrics.filter(~pl.col("quantity").is_in(OF_SCENARIOS)).drop("monte_carlo_error")
    assert common.equals(bare.drop("monte_carlo_error"))


def test_the_brier_score_is_the_sum_of_its_parts(metrics):
    for forecast in ("raw", "climatology", "start_order"):
        for event in EVENTS:
            part = {
                name: estimate(metrics, forecast, f"brier_{name}", event)["estimate"]
                for name in ("miscalibration", "discrimination", "uncertainty")
            }
            total = part["miscalibration"] - part["discrimination"] + part["uncertainty"]
            assert total == pytest.approx(estimate(metrics, forecast, "brier", event)["estimate"], abs=1e-12)
            assert min(part.values()) > -1e-12


def test_a_perfect_forecast_is_as_miscalibrated_as_expected(metrics):
    for event in EVENTS:
        shown = estimate(metrics, "raw", "brier_miscalibration", event)["estimate"]
        expected = estimate(metrics, "raw", "brier_miscalibration_expected", event)
        assert 0.8 * expected["lower"] <= shown <= 1.2 * expected["upper"]


def test_an_overconfident_forecast_is_more_miscalibrated_than_expected(rng):
    sharp = Races(np.random.default_rng(3), [24, 30] * 8, sharpness=2.0, n_scenarios=400)
    metrics = score_backtest(*sharp.draw(rng))
    for event in ("top 10", "head to head"):
        shown = estimate(metrics, "raw", "brier_miscalibration", event)["estimate"]
        assert shown > estimate(metrics, "raw", "brier_miscalibration_expected", event)["upper"]
    assert estimate(metrics, "raw", "head_to_head_slope")["upper"] < 1


@pytest.mark.slow
def test_monte_carlo_errors_are_how_much_scores_vary_with_the_scenarios(rng):
    """Ensembles drawn again for the same races and results."""
    pool = Races(rng, [12, 14] * 3, n_scenarios=2_400)
    backtest, ensembles = pool.draw(rng)
    tables = []
    for part in range(16):
        scenarios = ensembles["raw"].isel(scenario=slice(150 * part, 150 * (part + 1)))
        some = pool.of_scenarios(backtest, scenarios["finish_position"].values)
        tables.append(score_backtest(some, {"raw": scenarios, "recalibrated": scenarios}))
    scores = pl.concat(tables).filter(forecast="raw").group_by("quantity", "level", "reference").agg(
        spread=pl.col("estimate").std(), error=pl.col("monte_carlo_error").pow(2).mean().sqrt()
    )  # fmt: skip
    smooth = ("crps", "fair_crps", "rps", "log_score", "energy_score", "variogram_score", "sharpness",
              "head_to_head_slope", "crps_skill", "log_gain")  # fmt: skip
    judged = scores.filter(pl.col("quantity").is_in(smooth))
    ratio = (judged["error"] / judged["spread"]).to_numpy()
    assert judged.height >= 12
    assert ((ratio > 0.6) & (ratio < 1.7)).all(), judged.with_columns(ratio=ratio)
    assert ratio.mean() == pytest.approx(1, abs=0.25)


def test_few_scenarios_have_no_monte_carlo_error(rng):
    backtest, ensembles = Races(rng, [5, 6, 7], n_scenarios=12).draw(rng)
    metrics = score_backtest(backtest, ensembles)
    of_means = metrics.filter(forecast="raw", quantity="crps")
    assert of_means["monte_carlo_error"].null_count() == 1
    MetricTable.validate(metrics, lazy=True)


def test_dependent_cars_have_a_larger_error_than_independent_ones_would(metrics):
    assert estimate(metrics, "raw", "brier", "head to head")["error_ratio"] > 1.5
    assert estimate(metrics, "raw", "energy_score")["error_ratio"] == pytest.approx(1)


def test_bradley_terry_knows_the_shares_beaten(metrics, backtest):
    share, finish = backtest["share_beaten"].values, backtest["finish_position"].values
    squared = []
    for r, n in enumerate(backtest["field_size"].values):
        first, second = np.triu_indices(n, k=1)
        p = bradley_terry(share[r, first], share[r, second])
        squared.append((p - (finish[r, first] < finish[r, second])) ** 2)
    row = estimate(metrics, "bradley_terry", "brier", "head to head")
    assert row["estimate"] == pytest.approx(np.concatenate(squared).mean())
    assert row["estimate"] < estimate(metrics, "climatology", "brier", "head to head")["estimate"]


def test_a_perfect_forecast_scores_as_it_should(metrics, backtest):
    limits = {key: LIMITS[key] for key in LIMITS if key[0] == "coverage"}
    limits |= {("head_to_head_slope", ""): LIMITS["slope", ""], ("crps_skill", ""): LIMITS["skill", ""]}
    for (quantity, level), (low, high) in limits.items():
        reference = "climatology" if quantity == "crps_skill" else ""
        row = estimate(metrics, "raw", quantity, level, reference)
        assert low < row["estimate"] < high
    cases = backtest_cases(backtest)
    crps = discrete_crps(cases.probability["raw"], cases.position)
    uniform = discrete_crps(cases.probability["climatology"], cases.position)
    assert estimate(metrics, "raw", "crps")["estimate"] == pytest.approx(crps.mean())
    assert estimate(metrics, "raw", "rps")["estimate"] == pytest.approx(
        (crps / (cases.field_size - 1)).mean()
    )
    skill = estimate(metrics, "raw", "crps_skill", reference="climatology")
    assert skill["estimate"] == pytest.approx(1 - crps.sum() / uniform.sum())


def test_climatology_has_its_known_scores(metrics, backtest):
    assert estimate(metrics, "climatology", "brier", "head to head")["estimate"] == pytest.approx(0.25)
    size = backtest["field_size"].values
    assert estimate(metrics, "climatology", "log_score")["estimate"] == pytest.approx(
        -(size * np.log(size)).sum() / size.sum()
    )
    # Finishes of a race are a permutation: its cars cover the uniform intervals at exactly the nominal rate.
    assert estimate(metrics, "climatology", "coverage", "80 %")["estimate"] == pytest.approx(0.8)
    for level, share in (("50 %", 0.5), ("95 %", 0.95)):
        assert estimate(metrics, "climatology", "sharpness", level)["estimate"] == pytest.approx(
            share * (size**2).sum() / size.sum()
        )
    assert metrics.filter(forecast="climatology", quantity="crps_skill").is_empty()


@pytest.mark.parametrize("garbage", [np.nan, 1e6])
def test_padding_is_never_read(drawn, garbage):
    backtest = drawn[0].isel(race=slice(5))
    ensembles = {name: ensemble.isel(race=slice(5)) for name, ensemble in drawn[1].items()}
    spoilt = backtest.copy(deep=True)
    padding = np.arange(backtest.sizes["driver"]) >= backtest["field_size"].values[:, None]
    for name in ("raw", "recalibrated", "raw_head_to_head", "recalibrated_head_to_head"):
        values = spoilt[name].values
        values[padding] = garbage
        values.swapaxes(1, 2)[padding] = garbage
    spoilt["finish_position"].values[padding] = 99
    spoilt["start_position"].values[padding] = -7
    spoilt["share_beaten"].values[padding] = garbage
    scenarios = ensembles["raw"].copy(deep=True)
    scenarios["finish_position"].values.swapaxes(1, 2)[padding] = 77
    spoilt_ensembles = dict.fromkeys(ensembles, scenarios)
    assert score_backtest(spoilt, spoilt_ensembles).equals(score_backtest(backtest, ensembles))
    assert calibration_curves(spoilt, spoilt_ensembles).equals(calibration_curves(backtest, ensembles))
    assert pit_ecdf(spoilt).equals(pit_ecdf(backtest))


def test_one_race_has_estimates_and_no_intervals(backtest):
    single = backtest.isel(race=[0])
    metrics = score_backtest(single)
    assert metrics["estimate"].null_count() == 0
    assert metrics["lower"].null_count() == metrics.height
    assert calibration_curves(single)["lower"].null_count() == calibration_curves(single).height
    assert pit_ecdf(single)["lower"].null_count() == pit_ecdf(single).height


def test_no_interval_of_a_share_leaves_0_to_1(backtest):
    """Over few races, whose coverages are skewed, the interval of a mean would."""
    whole = backtest["field_size"].values == 40
    few = [backtest.isel(race=np.flatnonzero(whole)[start : start + 3]) for start in range(0, 9, 3)]
    shares = pl.concat(score_backtest(races).filter(quantity="coverage") for races in few)
    assert shares["upper"].max() == 1.0
    assert shares["lower"].min() >= 0.0
    assert (shares["lower"] <= shares["estimate"]).all()
    assert (shares["estimate"] <= shares["upper"]).all()


def test_no_races_make_empty_tables(backtest):
    none = backtest.isel(race=[])
    MetricTable.validate(score_backtest(none), lazy=True)
    CalibrationCurves.validate(calibration_curves(none), lazy=True)
    assert score_backtest(none).is_empty()
    assert calibration_curves(none).is_empty()
    assert pit_ecdf(none).schema == pit_ecdf(backtest.isel(race=[0])).schema


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


def test_ensembles_of_other_races_are_refused(drawn):
    backtest, ensembles = drawn
    with pytest.raises(ValueError, match="must hold raw and recalibrated, got raw"):
        score_backtest(backtest, {"raw": ensembles["raw"]})
    fewer = {name: ensemble.isel(race=slice(3)) for name, ensemble in ensembles.items()}
    with pytest.raises(ValueError, match="must hold the races of backtest; raw has others"):
        calibration_curves(backtest, fewer)
