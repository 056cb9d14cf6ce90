"""Verdicts: each rule, and the error rates on histories with known truth."""

from typing import get_args

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from benchmarks.intervals import history, make_template
from benchmarks.simulated_forecasts import make_forecast, make_world, metric_rows
from benchmarks.simulated_races import LAWS
from benchmarks.verdict_errors import CASES, HEADER, draw, markdown, simulate
from calibration_pipeline.schemas.frames import RULINGS, VerdictTable
from calibration_pipeline.stats.intervals import clustered_mean, clustered_ratio
from calibration_pipeline.verification.scores import head_to_head_slope
from calibration_pipeline.verification.verdicts import LIMITS, Ruling, judge, read_verdict, verdict_table


def made_up(n_races=60, slope=(1.0, 0.05), coverage=0.0, half=0.01, skill=(0.1, 0.05), forecast="raw"):
    """Return rows with the estimates asked for, (estimate, half width) or coverage error and half width."""
    estimates = [slope, *((nominal + coverage, half) for nominal in (0.5, 0.8, 0.95)), skill]
    return pl.DataFrame(
        {
            "archetype": ["road_course"] * 5,
            "forecast": [forecast] * 5,
            "quantity": [quantity for quantity, _ in LIMITS],
            "level": [level for _, level in LIMITS],
            "reference": ["", "", "", "", "climatology"],
            "estimate": [centre for centre, _ in estimates],
            "lower": [centre - width for centre, width in estimates],
            "upper": [centre + width for centre, width in estimates],
            "n_races": [n_races] * 5,
        }
    )


def events(p_together=0.5, p_independent=0.001, about_dependence=True, power=0.9):
    """Return joint events, alike for raw and recalibrated: the first decides, the second does not."""
    return pl.DataFrame(
        {
            "archetype": "road_course",
            "forecast": forecast,
            "event": event,
            "z": z,
            "p_value": p_value,
            "p_together": p_together,
            "about_dependence": about,
            "p_independent": independent,
            "power_independent": power,
            "n_races": 60,
        }
        for forecast in ("raw", "recalibrated")
        for event, z, p_value, about, independent in (
            ("top(5) & running", None, 0.9, False, 1.0),
            ("count(dnf) >= 8", -2.0, p_together / 2, about_dependence, p_independent),
        )
    )


def ruling(raw, recalibrated, joint_events=None, n_calibrated_races=20):
    rows = pl.concat([made_up(**raw), made_up(**recalibrated, forecast="recalibrated")])
    return judge("road_course", rows, events() if joint_events is None else joint_events, n_calibrated_races)


# --- the rules ---


def test_good_raw_forecasts_are_trusted():
    verdict = ruling({}, {})
    assert verdict.verdict == "trust"
    assert len(verdict.evidence) == 7
    assert (
        "Raw: coverage of the 95 % intervals is 0.950 [0.940, 0.960] over 60 races, within"
        in (verdict.evidence[3])
    )
    assert "smallest p-value: count(dnf) >= 8, |z| 2.0" in verdict.evidence[5]
    assert "independent cars have p = 0.001 (smallest p-value: count(dnf) >= 8)" in verdict.evidence[6]


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
    verdict = ruling({}, {}, events(p_together=0.0005))
    assert verdict.verdict == "do not trust"
    assert "count(dnf) >= 8" in verdict.evidence[0]
    assert ruling({}, {}, events(p_together=0.03)).verdict == "cannot tell yet"


def test_dependence_that_results_do_not_show_is_undecided():
    """With p = .2 for independent cars, z is 0.84; 1.645 takes 3.8 times the races."""
    verdict = ruling({}, {}, events(p_independent=0.2))
    assert verdict.verdict == "cannot tell yet"
    assert "dependence between cars does not show in the results yet" in verdict.evidence[1]
    assert verdict.races_needed == pytest.approx(60 * ((1.6449 / 0.8416) ** 2 - 1), abs=1)
    silent = ruling({}, {}, events(about_dependence=False))
    assert (silent.verdict, silent.races_needed) == ("cannot tell yet", None)
    assert "cannot show in any joint event yet" in silent.evidence[1]


def test_chance_differences_from_independent_cars_do_not_count():
    """A forecast of independent cars has no power against them, whatever the p-value."""
    assert ruling({}, {}, events(p_independent=0.001, power=0.05)).verdict == "cannot tell yet"


def test_dependence_is_looked_for_in_several_events_at_once():
    """One of two events with p = .04 is not enough; with p = .02 it is."""
    for p_value, expected in ((0.04, "cannot tell yet"), (0.02, "trust")):
        other = events(p_independent=0.9).with_columns(event=pl.lit("same_make(top(3))"))
        both = pl.concat([events(p_independent=p_value), other.filter("about_dependence")])
        assert ruling({}, {}, both).verdict == expected


def test_skill_over_other_baselines_is_not_read():
    rows = pl.concat([made_up(), made_up(forecast="recalibrated")])
    others = made_up(skill=(-0.5, 0.05)).filter(quantity="crps_skill")
    others = others.with_columns(reference=pl.lit("start_order"))
    assert judge("road_course", pl.concat([others, rows]), events(), 20).verdict == "trust"


def test_wide_intervals_are_undecided_and_give_the_races_needed():
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
    assert verdict.races_needed < 60


def test_verdict_is_undecided_without_a_calibration_or_an_interval():
    assert ruling({}, {}, n_calibrated_races=0).verdict == "cannot tell yet"
    no_bounds = pl.concat([made_up(), made_up(forecast="recalibrated")]).with_columns(
        lower=pl.lit(None, pl.Float64), upper=pl.lit(None, pl.Float64)
    )
    verdict = judge("road_course", no_bounds, events(), 1)
    assert verdict.verdict == "cannot tell yet"
    assert verdict.races_needed is None
    assert ruling({}, {}, events().clear()).verdict == "cannot tell yet"
    assert judge("road_course", no_bounds.clear(), events().clear(), 1).verdict == "cannot tell yet"


def test_verdicts_survive_a_table():
    for verdict in (ruling({}, {}), ruling({"half": 0.04}, {"half": 0.04})):
        frame = VerdictTable.validate(verdict_table(verdict), lazy=True)
        assert read_verdict(frame.sample(fraction=1, shuffle=True, seed=0)) == verdict
    with pytest.raises(ValueError, match="one verdict, got 0"):
        read_verdict(frame.clear())
    assert get_args(Ruling) == RULINGS


def test_an_unknown_archetype_is_refused():
    with pytest.raises(ValueError, match="must be one of superspeedway"):
        judge("dirt", made_up(), events(), 1)


# --- how often they are wrong ---


def test_the_benchmark_scores_as_the_library_does():
    """Sums by race give the estimates and intervals of all cars and pairs."""
    rng = np.random.default_rng(3)
    world = make_world(rng, LAWS["short track"], 6)
    forecast = make_forecast(rng, world, world.truth)
    chosen, result = np.array([0, 3, 3, 5, 1]), np.array([7, 1, 2, 190, 40])
    found = {(row["quantity"], row["level"]): row for row in metric_rows(world, forecast, chosen, result)}
    templates = [make_template(*race) for race in zip(world.fields, world.truth, world.truth, strict=True)]
    h = history(templates, chosen, result)
    expected = {("coverage", level): clustered_mean(h.cars[f"raw coverage {level}"], h.race)
                for level in ("50 %", "80 %", "95 %")}  # fmt: skip
    uniform = h.cars["climatology CRPS"]
    expected["crps_skill", ""] = clustered_ratio(uniform - h.cars["raw CRPS"], uniform, h.race)
    expected["head_to_head_slope", ""] = head_to_head_slope(h.pairs["raw"], h.won, h.pair_race)
    assert set(found) == set(expected) == set(LIMITS)
    for key, estimate in expected.items():
        bounds = [found[key][name] for name in ("estimate", "lower", "upper")]
        assert bounds == pytest.approx([estimate.estimate, estimate.lower, estimate.upper], abs=2e-4)


def test_the_benchmark_shows_every_ruling(tmp_path):
    rulings, raw = simulate(CASES[0], [5], 4, n_templates=6)
    assert rulings["ruling"].to_list() == list(RULINGS)
    assert rulings["share"].sum() == pytest.approx(1)
    (line,) = markdown(rulings, raw)
    assert line.count("|") == HEADER[0].count("|")
    draw(rulings, tmp_path / "verdicts.png")
    assert (tmp_path / "verdicts.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.name.startswith(("calibrated", "cars independent", "slope"))],
    ids=lambda case: case.name,
)
def test_errors_of_verdicts_are_rare(case):
    """At most 5 %: of 200 histories no more than the 99 % quantile of that rate."""
    rulings, _ = simulate(case, [36], 200, n_templates=40)
    wrong = rulings.filter("wrong")["share"].sum()
    assert round(200 * wrong) <= binom.ppf(0.99, 200, 0.05), rulings
