"""Verdict rules: each ruling, the correction for several markets, and the number of races needed."""

from typing import get_args

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm, t

from calibration_pipeline.markets import (
    ALL_MARKETS,
    FINISH,
    HOW_MANY_RETIRE,
    JOINT_EVENTS,
    MARKETS,
    WHO_RETIRES,
)
from calibration_pipeline.schemas.frames import EFFECTS, RULINGS, VerdictTable
from calibration_pipeline.stats.intervals import Estimate
from calibration_pipeline.verification.verdicts.estimates import MarketEstimate
from calibration_pipeline.verification.verdicts.matrix import verdict_table
from calibration_pipeline.verification.verdicts.rules import (
    ALPHA,
    DEFAULT_TESTS,
    LARGEST_EXTRAPOLATION,
    TESTED,
    Effect,
    Ruling,
    judge_markets,
    reject_by_holm,
)

GOOD = {"slope": 1.0, "number ratio": 1.0, "spread ratio": 1.0, "skill": 0.2}
NOMINAL = {"50 %": 0.5, "80 %": 0.8, "95 %": 0.95}


def estimate(value, half, n_races=60):
    return Estimate(value, value - half, value + half, n_races, 40 * n_races)


def estimates(changes=None, gain=(0.0, 0.1), n_races=60):
    """Return estimates well inside the limits; `changes` are (market, forecast, quantity) → (value, half)."""
    changes = changes or {}
    found = []
    for market in MARKETS[:-1]:
        for forecast in ("raw", "recalibrated"):
            for quantity, level in TESTED.get(market, DEFAULT_TESTS):
                good = (GOOD.get(quantity) or NOMINAL[level], 0.005)
                value, half = changes.get((market, forecast, quantity), good)
                found.append(
                    MarketEstimate(market, forecast, quantity, level, estimate(value, half, n_races))
                )
        found.append(MarketEstimate(market, "recalibrated", "gain", "", estimate(*gain, n_races)))
    return found


def events(p_together=0.5, p_independent=0.0005, about_dependence=True, power=0.9):
    """Return joint events, alike for raw and recalibrated: the first decides, the second does not."""
    return pl.DataFrame(
        {
            "forecast": forecast,
            "event": event,
            "z": z,
            "p_value": p_value,
            "p_together": p_together,
            "about_dependence": about,
            "p_independent": independent,
            "power_independent": power,
            "gain_together": None if forecast == "raw" else 0.02,
            "gain_together_lower": None if forecast == "raw" else 0.01,
            "gain_together_upper": None if forecast == "raw" else 0.03,
            "n_races": 60,
        }
        for forecast in ("raw", "recalibrated")
        for event, z, p_value, about, independent in (
            ("top(5) & running", None, 0.9, False, 1.0),
            ("count(dnf) >= 8", -2.0, p_together / 2, about_dependence, p_independent),
        )
    )


def judge(changes=None, joint_events=None, calibrated=MARKETS, **options):
    found = judge_markets(
        estimates(changes, **options), events() if joint_events is None else joint_events, calibrated
    )
    return {verdict.market: verdict for verdict in found}


def test_good_raw_forecasts_are_trusted_in_every_market() -> None:
    verdicts = judge()
    assert list(verdicts) == [ALL_MARKETS, *MARKETS]
    assert {verdict.verdict for verdict in verdicts.values()} == {"trust"}
    finish = verdicts[FINISH].evidence
    assert [line.forecast for line in finish] == ["raw"] * 4 + ["recalibrated"] * 5
    text = (
        "Raw: finish distribution, coverage of 95 % intervals is 0.950 [0.945, 0.955] over 60 races, inside"
    )
    assert text in finish[0].text
    joint = verdicts[JOINT_EVENTS].evidence
    assert "independent cars have p = 0.001 (smallest p-value: count(dnf) >= 8)" in joint[0].text
    assert "agree with joint events together, p = 0.500 (smallest p-value: count(dnf) >= 8, |z| 2.0)" in (
        joint[1].text
    )


def test_a_repaired_market_is_trusted_after_recalibration() -> None:
    verdicts = judge({("win", "raw", "slope"): (0.6, 0.05)})
    assert verdicts["win"].verdict == verdicts[ALL_MARKETS].verdict == "trust after recalibration"
    assert verdicts["top 5"].verdict == "trust"
    assert "Raw: win, slope is 0.600 [0.550, 0.650] over 60 races, wholly outside the limits" in " ".join(
        line.text for line in verdicts["win"].evidence
    )


@pytest.mark.parametrize(
    ("market", "quantity", "bad"),
    [
        ("win", "slope", (0.6, 0.05)),
        ("top 10", "skill", (-0.2, 0.05)),
        (FINISH, "coverage", (0.4, 0.01)),
        (WHO_RETIRES, "slope", (-0.3, 0.2)),
        (HOW_MANY_RETIRE, "number ratio", (1.5, 0.05)),
        (HOW_MANY_RETIRE, "spread ratio", (1.9, 0.1)),
    ],
)
def test_a_market_outside_the_limits_is_not_trusted_and_others_are(market, quantity, bad) -> None:
    verdicts = judge({(market, forecast, quantity): bad for forecast in ("raw", "recalibrated")})
    assert verdicts[market].verdict == verdicts[ALL_MARKETS].verdict == "do not trust"
    assert "wholly outside the limits" in verdicts[market].evidence[0].text
    assert ("The slope is negative" in verdicts[market].evidence[0].text) == (
        bad[0] < 0 and quantity == "slope"
    )
    assert {verdicts[other].verdict for other in MARKETS if other != market} == {"trust"}
    assert verdicts[ALL_MARKETS].evidence[0].text == f"Do not trust: {market}."


def test_rejected_joint_events_are_not_trusted() -> None:
    rejected = judge(joint_events=events(p_together=0.0005))[JOINT_EVENTS]
    assert rejected.verdict == "do not trust"
    assert "contradict joint events together" in rejected.evidence[0].text
    assert judge(joint_events=events(p_together=0.03))[JOINT_EVENTS].verdict == "cannot tell yet"


@pytest.mark.parametrize(
    "change", [{"p_independent": 0.2}, {"about_dependence": False}, {"power": 0.05}], ids=lambda c: str(c)
)
def test_dependence_that_results_do_not_show_is_undecided(change) -> None:
    verdict = judge(joint_events=events(**change))[JOINT_EVENTS]
    assert verdict.verdict == "cannot tell yet"
    assert "dependence between cars" in verdict.evidence[0].text


def test_one_market_that_is_undecided_leaves_the_summary_undecided() -> None:
    wide = {("win", forecast, "slope"): (1.0, 0.4) for forecast in ("raw", "recalibrated")}
    summary = judge(wide)[ALL_MARKETS]
    assert (summary.verdict, summary.recalibration) == ("cannot tell yet", None)
    assert [line.text for line in summary.evidence[:2]] == [
        "Cannot tell yet: win.",
        f"Trust: {', '.join(market for market in MARKETS if market != 'win')}.",
    ]


def test_an_interval_just_outside_is_not_enough_to_reject() -> None:
    """Of 18 tests the smallest p-value must be at most .025 / 18; [1.26, 1.5] has a larger one."""
    change = {("win", forecast, "slope"): (1.38, 0.12) for forecast in ("raw", "recalibrated")}
    verdict = judge(change)["win"]
    line = verdict.evidence[0]
    assert line.p_outside == pytest.approx(t.sf(0.13 / 0.12 * t.ppf(0.975, 58), 58))
    assert ALPHA / 18 < line.p_outside < ALPHA
    assert verdict.verdict == "cannot tell yet"


def test_claims_are_corrected_for_the_number_of_markets() -> None:
    """An interval inside its limits earns trust where the other markets are trusted, not where none is."""
    edge = {("win", forecast, "slope"): (1.0, 0.17) for forecast in ("raw", "recalibrated")}
    assert judge(edge)["win"].verdict == "trust"
    open_ones = {
        (market, forecast, "skill"): (0.0, 0.2)
        for market in MARKETS[1:]
        for forecast in ("raw", "recalibrated")
    }
    assert judge(edge | open_ones)["win"].verdict == "cannot tell yet"


def test_holm_rejects_in_steps() -> None:
    """As in the adjusted p-values of R's p.adjust(c(.01, .02, .03, .005), "holm"): .03, .04, .04, .02."""
    p = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.005}
    assert reject_by_holm(p, 0.0399) == ({"a", "d"}, pytest.approx(0.0399 / 2))
    assert reject_by_holm(p, 0.0401) == ({"a", "b", "c", "d"}, pytest.approx(0.0401))
    assert reject_by_holm(p, 0.0199) == (set(), pytest.approx(0.0199 / 4))
    assert reject_by_holm({}, 0.05) == (set(), 0.05)


def test_races_needed_are_given_where_estimates_lie_inside() -> None:
    """With n times as many races the test statistic grows by root n."""
    half = 0.3
    wide = {("win", forecast, "slope"): (1.0, half) for forecast in ("raw", "recalibrated")}
    verdict = judge(wide)["win"]
    now = norm.isf(t.sf(0.2 / half * t.ppf(0.975, 58), 58))
    level = ALPHA / 2
    assert verdict.verdict == "cannot tell yet"
    assert verdict.races_needed == pytest.approx(60 * ((norm.isf(level) / now) ** 2 - 1), abs=1)


@pytest.mark.parametrize("slope", [(1.0, 2.0), (1.24, 0.3), (1.3, 0.4), (0.7, 0.4)])
def test_races_needed_are_not_given_where_they_mean_nothing(slope) -> None:
    """An estimate outside its limits, or an extrapolation to more than four times the races."""
    verdict = judge({("win", forecast, "slope"): slope for forecast in ("raw", "recalibrated")})["win"]
    assert (verdict.verdict, verdict.races_needed) == ("cannot tell yet", None)


def test_races_needed_are_a_moderate_extrapolation() -> None:
    for half in np.geomspace(0.2, 3, 40):
        wide = {("win", forecast, "slope"): (1.0, half) for forecast in ("raw", "recalibrated")}
        needed = judge(wide)["win"].races_needed
        assert needed is None or 1 <= needed <= LARGEST_EXTRAPOLATION * 60


@pytest.mark.parametrize(
    ("gain", "effect"),
    [
        ((0.2, 0.1), "helps"),
        ((-0.2, 0.1), "costs"),
        ((0.05, 0.1), "no difference"),
        ((0.0, 0.0), "no difference"),
    ],
)
def test_the_paired_interval_states_the_effect_of_recalibration(gain, effect) -> None:
    verdicts = judge(gain=gain)
    assert {verdicts[market].recalibration for market in MARKETS[:-1]} == {effect}
    assert verdicts[JOINT_EVENTS].recalibration == "helps"
    assert (f"Recalibration {effect}: win, " in verdicts[ALL_MARKETS].evidence[-1].text) == (
        effect != "no difference"
    )


def test_everything_is_undecided_without_a_calibration() -> None:
    verdicts = judge(calibrated=())
    assert {verdict.verdict for verdict in verdicts.values()} == {"cannot tell yet"}
    assert "No race was forecast after a calibration" in verdicts["win"].evidence[0].text
    assert {verdict.races_needed for verdict in verdicts.values()} == {None}


def test_estimates_without_interval_decide_nothing() -> None:
    """With one race no estimate has an interval."""
    single = [each._replace(estimate=Estimate(1.0, None, None, 1, 40)) for each in estimates()]
    for verdict in judge_markets(single, events().clear(), MARKETS):
        assert (verdict.verdict, verdict.recalibration, verdict.races_needed) == (
            "cannot tell yet",
            None,
            None,
        )


@pytest.mark.parametrize("quantity", ["number ratio", "spread ratio", "skill"])
def test_races_that_agree_exactly_contradict_nothing(quantity: str) -> None:
    """Two races without a retirement have a ratio of 0 and no error: that is no evidence for either side."""
    changes = {(HOW_MANY_RETIRE, "recalibrated", quantity): (-0.5 if quantity == "skill" else 0.0, 0.0)}
    changes |= {(HOW_MANY_RETIRE, "raw", quantity): (0.5 * (quantity != "skill"), 0.5)}
    assert judge(changes, n_races=2)[HOW_MANY_RETIRE].verdict == "cannot tell yet"


def test_joint_evidence_states_the_races_of_its_events() -> None:
    """The joint test is over the races of all events, the test of independent cars over those of one."""
    fewer = pl.when(event="count(dnf) >= 8").then(40).otherwise(60)
    found = judge_markets(estimates(), events().with_columns(n_races=fewer), MARKETS)
    (joint,) = [verdict for verdict in found if verdict.market == JOINT_EVENTS]
    lines = {(line.forecast, line.quantity): line for line in joint.evidence}
    for forecast in ("raw", "recalibrated"):
        assert lines[forecast, "p of joint events"].n_races == 60
        assert lines[forecast, "p of independent cars"].n_races == 40
    assert lines["recalibrated", "gain"].n_races == 60
    assert lines["recalibrated", "gain"].text.endswith("over 60 races.")


def test_a_missing_estimate_leaves_its_market_undecided() -> None:
    """Where no slope fits, as when each favourite won, the skill alone earns no trust."""
    found = [each for each in estimates() if (each.market, each.quantity) != ("win", "slope")]
    verdicts = {verdict.market: verdict for verdict in judge_markets(found, events(), MARKETS)}
    assert (verdicts["win"].verdict, verdicts["win"].races_needed) == ("cannot tell yet", None)
    assert verdicts["win"].evidence[0].text == "Recalibrated: win, slope cannot be estimated yet."
    assert verdicts["top 5"].verdict == "trust"


def test_markets_without_forecast_are_left_out_of_the_summary() -> None:
    """Scenarios without retirements, and no event that can be judged."""
    kept = [each for each in estimates() if "retire" not in each.market]
    verdicts = {verdict.market: verdict for verdict in judge_markets(kept, events().clear(), MARKETS)}
    assert verdicts[ALL_MARKETS].verdict == "trust"
    for market in (WHO_RETIRES, HOW_MANY_RETIRE, JOINT_EVENTS):
        assert verdicts[market].verdict == "cannot tell yet"
        assert verdicts[market].evidence[0].quantity == ""
    nothing = judge_markets([], events().clear(), MARKETS)[0]
    assert (nothing.verdict, nothing.evidence[0].text) == ("cannot tell yet", "No market can be judged yet.")


def test_the_table_holds_every_line_of_evidence() -> None:
    found = judge_markets(estimates(), events(), MARKETS)
    frame = VerdictTable.validate(verdict_table("network", "road_course", {"all races": found}), lazy=True)
    assert frame.height == sum(len(verdict.evidence) for verdict in found)
    first = frame.filter(market="win", line=1).row(0, named=True)
    assert (first["forecaster"], first["archetype"], first["verdict"]) == ("network", "road_course", "trust")
    assert (first["quantity"], first["estimate"], first["n_races"]) == ("slope", 1.0, 60)
    assert get_args(Ruling) == RULINGS
    assert get_args(Effect) == EFFECTS
    with pytest.raises(ValueError, match="must be one of superspeedway"):
        verdict_table("network", "dirt", {"all races": found})
