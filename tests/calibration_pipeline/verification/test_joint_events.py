"""Events as expressions, counted in scenarios and results whose dependence is known."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import xarray as xr

from calibration_pipeline.events.counts import Counts, count_cases, read_races
from calibration_pipeline.events.files import DEFAULT_EVENTS
from calibration_pipeline.events.independence import (
    count_recoupled,
    dependent_cars,
    independent_cars,
    judge_independence,
    log_probabilities,
    log_scores,
)
from calibration_pipeline.events.language import (
    Outcomes,
    at_least,
    both_teammates,
    count,
    dnf,
    favourites,
    led,
    running,
    same_make,
    top,
)
from calibration_pipeline.scenarios.draw.ensemble import simulate_races
from calibration_pipeline.scenarios.fit.by_fold import fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.schemas.frames import JointEventTable, LapAggregates
from calibration_pipeline.seasons import ALL_RACES
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.telemetry.features import build_driver_features, entry_list
from calibration_pipeline.tracks import compile_constraints
from calibration_pipeline.verification.joint_events import N_REPLICATES, p_values, validate_events
from helpers.paths import REAL_DATA

REAL_RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
FIVE_CARS = Outcomes(
    finish_position=np.array([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]),
    favourite_rank=np.array([2, 1, 3, 4, 5]),
    running=np.array([[True, True, True, True, False], [False, False, True, True, True]]),
    laps_led=np.array([[0, 10, 0, 0, 0], [3, 0, 0, 0, 7]]),
    team=np.array(["a", "a", "a", "b", ""]),
    make=np.array(["x", "x", "y", "y", ""]),
)


@pytest.fixture
def rng():
    return np.random.default_rng(20210606)


def finishes(rng, n_scenarios, n_cars, chaos):
    """Return finishes and who runs at the end: with `chaos` cars retire together."""
    shock = chaos * rng.normal(size=(n_scenarios, 1))
    retired = rng.random((n_scenarios, n_cars)) < 1 / (1 + np.exp(1.8 - shock))
    pace = np.linspace(1.5, -1.5, n_cars) + rng.normal(size=(n_scenarios, n_cars)) - 10 * retired
    return 1 + np.argsort(np.argsort(-pace, axis=1), axis=1), ~retired


def make_ensemble(rng, sizes=(36, 40, 38), n_scenarios=400, chaos=1.0):
    """Return an ensemble, padded, and a function that takes one more draw of each race for its result."""
    width, shape = max(sizes), (len(sizes), n_scenarios, max(sizes))
    place, runs, led_laps = np.zeros(shape, np.int16), np.zeros(shape, bool), np.zeros(shape, np.int16)
    ids = np.full((len(sizes), width), "", dtype="<U8")
    team, make = ids.copy(), ids.copy()
    for r, n in enumerate(sizes):
        place[r, :, :n], runs[r, :, :n] = finishes(rng, n_scenarios, n, chaos)
        led_laps[r, :, :n] = (place[r, :, :n] <= 3) * 30
        ids[r, :n] = [f"d{i}" for i in range(n)]
        team[r, :n] = [f"t{i // 3}" for i in range(n)]
        make[r, :n] = [("Ford", "Chevrolet", "Toyota")[i % 3] for i in range(n)]
    outcome, car = ("race", "scenario", "driver"), ("race", "driver")
    dataset = xr.Dataset(
        {"finish_position": (outcome, place), "running": (outcome, runs), "laps_led": (outcome, led_laps)},
        coords={
            "race": 100 + np.arange(len(sizes)),
            "season": ("race", 2021 + np.arange(len(sizes)) * 2 // len(sizes)),
            "archetype": ("race", ["superspeedway"] * len(sizes)),
            "field_size": ("race", np.array(sizes, np.int16)),
            "driver_id": (car, ids),
            "team": (car, team),
            "make": (car, make),
        },
    )

    def results(rng, chaos=chaos):
        frames = []
        for r, n in enumerate(sizes):
            finish, runs = finishes(rng, 1, n, chaos)
            frame = {"race_id": [100 + r] * n, "driver_id": ids[r, :n].tolist()}
            frame |= {"finish_position": finish[0], "running": runs[0], "laps_led": (finish[0] <= 3) * 30}
            frames.append(pl.DataFrame(frame))
        return pl.concat(frames).sample(fraction=1, shuffle=True, seed=1)

    return dataset, results


# --- expressions ---


def test_events_are_written_as_they_are_read():
    assert [str(event) for event in DEFAULT_EVENTS] == [
        "top(5) & running",
        "led(1) & top(10)",
        "both_teammates(top(10))",
        "at_least(2, favourites(3), top(10))",
        "count(dnf) >= 8",
        "same_make(top(3))",
    ]
    assert str(~(top(5) | led(1)) & running) == "~(top(5) | led(1)) & running"
    assert str(both_teammates(top(10) & running)) == "both_teammates(top(10) & running)"
    assert top(5) & running == top(5) & running
    assert top(5) != top(6)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (top(2), [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]),
        (led(5), [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]),
        (dnf, [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]]),
        (top(2) & running, [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]),
        (top(4) & ~running, [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]),
        (led(1) | dnf, [[0, 1, 0, 0, 1], [1, 1, 0, 0, 1]]),
        (count(dnf) >= 2, [[0], [1]]),
        (at_least(2, favourites(2), top(3)), [[1], [0]]),
        (at_least(1, favourites(1), led(1)), [[1], [0]]),
        (both_teammates(top(3)), [[1, 1, 1], [0, 0, 0]]),
        (both_teammates(running), [[1, 1, 1], [0, 0, 0]]),
        (same_make(top(2)), [[1], [0]]),
        (same_make(led(99)), [[0], [0]]),
        (~same_make(top(2)) & (count(dnf) >= 1), [[0], [1]]),
    ],
)
def test_events_happen_where_they_should(event, expected):
    assert event.evaluate(FIVE_CARS).astype(int).tolist() == expected


@pytest.mark.parametrize("event", [*DEFAULT_EVENTS, ~(top(3) | dnf), count(top(5) & running) >= 5])
def test_scenarios_and_results_are_read_alike(event):
    """A scenario taken alone, without the scenario axis, gives its own row."""
    second = Outcomes(
        FIVE_CARS.finish_position[1],
        FIVE_CARS.favourite_rank,
        FIVE_CARS.running[1],
        FIVE_CARS.laps_led[1],
        FIVE_CARS.team,
        FIVE_CARS.make,
    )
    assert event.evaluate(second).tolist() == event.evaluate(FIVE_CARS)[1].tolist()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: top(0), "positions must be at least 1, got 0"),
        (lambda: led(0), "laps must be at least 1"),
        (lambda: favourites(0), "number must be at least 1"),
        (lambda: at_least(4, favourites(3), top(5)), r"in 1\.\.3 \(of favourites\(3\)\), got 4"),
        (lambda: top(5) & (count(dnf) >= 8), "about a car, count"),
        (lambda: count(both_teammates(top(5))), "which is about a pair"),
        (lambda: led(1).evaluate(Outcomes(np.array([1]), np.array([1]))), "needs an outcome"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --- the table ---


def test_the_table_counts_observed_events(rng):
    ensemble, results = make_ensemble(rng)
    result = results(rng)
    table, skipped = validate_events({"raw": ensemble, "recalibrated": ensemble}, result)
    JointEventTable.validate(table, lazy=True)
    assert not skipped
    assert table.height == 2 * len(DEFAULT_EVENTS)
    rows = {row["event"]: row for row in table.filter(forecast="raw").iter_rows(named=True)}

    row = rows["top(5) & running"]
    assert row["n_cases"] == 36 + 40 + 38
    happened = result.filter(pl.col("finish_position") <= 5, pl.col("running")).height
    assert row["observed"] == pytest.approx(happened / 114)
    inside = (ensemble["finish_position"] <= 5) & (ensemble["finish_position"] > 0) & ensemble["running"]
    assert row["predicted"] == pytest.approx(float(inside.sum()) / (400 * 114))
    assert row["calibration_error"] == pytest.approx(abs(row["predicted"] - row["observed"]))

    assert rows["both_teammates(top(10))"]["n_cases"] == 36 + 39 + 37
    out = ((~ensemble["running"]) & (ensemble["driver_id"] != "")).sum("driver")
    assert rows["count(dnf) >= 8"]["predicted"] == pytest.approx(float((out >= 8).mean()))
    share = (out >= 8).mean("scenario").values
    seen = result.filter(~pl.col("running")).group_by("race_id").len()["len"] >= 8
    variance = (out >= 8).var("scenario", ddof=1).sum().item() * (1 + 1 / 400)
    assert rows["count(dnf) >= 8"]["z"] == pytest.approx((seen.sum() - share.sum()) / np.sqrt(variance))


def test_padding_is_never_read(rng):
    ensemble, results = make_ensemble(rng)
    result = results(rng)
    spoilt = ensemble.copy(deep=True)
    padding = np.arange(40) >= ensemble["field_size"].values[:, None]
    for name, value in (("finish_position", 1), ("running", True), ("laps_led", 99)):
        spoilt[name].values.swapaxes(1, 2)[padding] = value
    spoilt["team"].values[padding] = "t0"
    spoilt["make"].values[padding] = "Ford"
    spoilt["driver_id"].values[padding] = "d0"
    clean = validate_events({"raw": ensemble, "recalibrated": ensemble}, result)
    assert validate_events({"raw": spoilt, "recalibrated": spoilt}, result)[0].equals(clean[0])


def test_favourites_are_those_of_the_raw_ensemble(rng):
    ensemble, results = make_ensemble(rng)
    reversed_order = ensemble.copy(deep=True)
    place, size = reversed_order["finish_position"], reversed_order["field_size"]
    reversed_order["finish_position"] = xr.where(place > 0, size + 1 - place, 0).transpose(*place.dims)
    event = at_least(2, favourites(3), top(10))
    table, _ = validate_events({"raw": ensemble, "recalibrated": reversed_order}, results(rng), [event])
    raw, recalibrated = table["predicted"]
    assert raw > 0.5
    assert recalibrated < 0.2
    assert table["observed"][0] == table["observed"][1]


def test_events_without_their_variables_are_skipped_by_name(rng):
    ensemble, results = make_ensemble(rng)
    result = results(rng).with_columns(running=pl.lit(None, pl.Boolean)).drop("laps_led")
    ensemble["make"] = xr.full_like(ensemble["make"], "")
    raw = {"raw": ensemble, "recalibrated": ensemble.drop_vars("laps_led")}
    table, skipped = validate_events(raw, result)
    assert skipped == {
        "top(5) & running": "running is unknown for some car of every race",
        "count(dnf) >= 8": "running is unknown for some car of every race",
        "led(1) & top(10)": "laps_led is absent from the results",
        "same_make(top(3))": "make is not known",
    }
    assert set(table["event"]) == {"both_teammates(top(10))", "at_least(2, favourites(3), top(10))"}
    ensemble["team"].values[:] = ensemble["driver_id"].values
    _, skipped = validate_events({"raw": ensemble, "recalibrated": ensemble}, result)
    assert skipped["both_teammates(top(10))"] == "no two cars share a team"


def test_an_unknown_outcome_of_a_race_costs_its_events_that_race_alone(rng):
    ensemble, results = make_ensemble(rng)
    result = results(rng)
    both = {"raw": ensemble, "recalibrated": ensemble}
    car = (pl.col("race_id") == 101) & (pl.col("driver_id") == "d3")
    unknown = result.with_columns(laps_led=pl.when(~car).then("laps_led"))
    table, skipped = validate_events(both, unknown)
    assert not skipped
    led = pl.col("event") == "led(1) & top(10)"
    assert table.filter(~led).equals(validate_events(both, result)[0].filter(~led))
    others = ensemble.sel(race=[100, 102])
    alone, _ = validate_events({"raw": others, "recalibrated": others}, result)
    shown = ["predicted", "observed", "n_races", "n_cases"]
    assert table.filter(led).select(shown).equals(alone.filter(led).select(shown))
    # The shuffles of the two tables have other random numbers.
    np.testing.assert_allclose(table.filter(led)["gain"], alone.filter(led)["gain"], rtol=0.1)


def test_a_race_without_makes_is_no_case_of_events_about_makes(rng):
    ensemble, results = make_ensemble(rng)
    ensemble["make"].values[1] = ""
    result = results(rng)
    table, skipped = validate_events({"raw": ensemble, "recalibrated": ensemble}, result)
    assert not skipped
    others = ensemble.sel(race=[100, 102])
    alone, _ = validate_events({"raw": others, "recalibrated": others}, result)
    shown = ["predicted", "observed", "n_races", "n_cases"]
    make = pl.col("event") == "same_make(top(3))"
    assert table.filter(make).select(shown).equals(alone.filter(make).select(shown))


def test_no_races_make_an_empty_table(rng):
    ensemble, results = make_ensemble(rng)
    none = ensemble.isel(race=[])
    table, skipped = validate_events({"raw": none, "recalibrated": none}, results(rng))
    JointEventTable.validate(table, lazy=True)
    assert table.is_empty()
    assert skipped["count(dnf) >= 8"] == "there are no races"


def test_one_race_has_no_interval(rng):
    ensemble, results = make_ensemble(rng)
    single = ensemble.isel(race=[0])
    table, _ = validate_events({"raw": single, "recalibrated": single}, results(rng))
    JointEventTable.validate(table, lazy=True)
    assert table["lower"].null_count() == table.height


def test_broken_input_is_refused(rng):
    ensemble, results = make_ensemble(rng)
    result = results(rng)
    both = {"raw": ensemble, "recalibrated": ensemble}
    missing = (pl.col("race_id") == 101) & pl.col("driver_id").is_in(["d3", "d5"])
    with pytest.raises(ValueError, match="2 are missing, the first is driver_id 'd3' in race_id 101"):
        validate_events(both, result.filter(~missing))
    with pytest.raises(ValueError, match=r"must be 1\.\.n over the ensemble's cars; it is not in race 10"):
        validate_events(both, result.with_columns(pl.col("finish_position") + 1))
    with pytest.raises(ValueError, match=r"is in race 10[0-2] more than once"):
        validate_events(both, pl.concat([result, result.head(1)]))
    with pytest.raises(ValueError, match="must hold raw and recalibrated, got raw"):
        validate_events({"raw": ensemble}, result)
    with pytest.raises(ValueError, match="same races"):
        validate_events({"raw": ensemble, "recalibrated": ensemble.isel(race=[0, 1])}, result)
    with pytest.raises(ValueError, match="at least 2 scenarios, got 1"):
        read_races(ensemble.isel(scenario=[0]), result, DEFAULT_EVENTS)


# --- all events together ---


def joint_test(ensemble, result, events=DEFAULT_EVENTS, seed=0):
    """Return the p-value of each event, and of all together, without the rest of the table."""
    races, _ = read_races(ensemble, result, events)
    uniforms = np.random.default_rng(seed).random((N_REPLICATES, len(races)))
    return p_values(count_cases(races, events), uniforms)


def test_certain_events_are_confirmed_or_contradicted(rng):
    """An event in no scenario is improbable, in proportion to the number of scenarios, and not impossible."""
    ensemble, results = make_ensemble(rng)
    assert joint_test(ensemble, results(rng), [count(top(5)) >= 5]) == (1, 1)
    never_out = ensemble.assign(running=ensemble["running"] | True)
    assert joint_test(never_out, results(rng, chaos=3.0), [count(dnf) >= 1])[1] < 0.01
    table, _ = validate_events({"raw": never_out, "recalibrated": never_out}, results(rng), [count(dnf) >= 1])
    assert table["z"].null_count() == 2


def test_events_are_judged_together_by_the_smallest_p_value(rng):
    ensemble, results = make_ensemble(rng)
    result = results(rng)
    table, _ = validate_events({"raw": ensemble, "recalibrated": ensemble}, result, seed=5)
    alone, together = joint_test(ensemble, result, seed=5)
    assert set(table["p_together"]) == {together}
    raw = table.filter(forecast="raw")
    assert dict(raw.select("event", "p_value").iter_rows()) == dict(
        zip(map(str, DEFAULT_EVENTS), alone.tolist(), strict=True)
    )
    assert together >= alone.min()
    surest = raw.sort(pl.col("z").abs(), descending=True, nulls_last=True)
    assert surest["p_value"][0] == alone.min()


def test_an_event_named_twice_is_judged_once(rng):
    ensemble, results = make_ensemble(rng)
    both = {"raw": ensemble, "recalibrated": ensemble}
    table, _ = validate_events(both, results(rng), [top(5) & running, led(1), top(5) & running])
    assert table.filter(forecast="raw")["event"].to_list() == ["top(5) & running", "led(1)"]


@pytest.mark.slow
def test_a_calibrated_ensemble_is_rejected_at_the_nominal_rate(rng):
    """P-values are about uniform under the ensemble's own law."""
    ensemble, results = make_ensemble(rng, sizes=(36, 38) * 4, n_scenarios=300)
    p_values = np.array([joint_test(ensemble, results(rng), seed=s)[1] for s in range(100)])
    assert np.mean(p_values <= 0.05) <= 0.12
    assert np.mean(p_values <= 0.5) == pytest.approx(0.5, abs=0.17)


def test_independent_retirements_are_rejected_where_cars_crash_together(rng):
    """Power: 36 races whose retirements come together, against an ensemble in which they do not."""
    ensemble, results = make_ensemble(rng, sizes=(36, 38, 40) * 12, n_scenarios=300, chaos=0.0)
    alone, together = joint_test(ensemble, results(rng, chaos=1.2), [count(dnf) >= 8, count(dnf) >= 12])
    assert together < 0.01
    assert alone[1] <= alone[0]


# --- dependence ---


def recoupled(rng, recouple, n_scenarios=4000):
    ensemble, results = make_ensemble(rng, sizes=(38,), n_scenarios=n_scenarios)
    (race,), _ = read_races(ensemble, results(rng), DEFAULT_EVENTS)
    return race.scenarios, recouple(race.scenarios, rng)


@pytest.mark.parametrize("recouple", [independent_cars, dependent_cars])
def test_recoupled_cars_keep_their_chances_and_races_stay_races(rng, recouple):
    before, after = recoupled(rng, recouple)
    assert (np.sort(after.finish_position, axis=1) == np.arange(1, 39)).all()
    np.testing.assert_array_equal(after.running.sum(axis=0), before.running.sum(axis=0))
    np.testing.assert_array_equal(np.sort(after.laps_led, axis=0), np.sort(before.laps_led, axis=0))
    for places in (1, 5, 10, 20):
        shares = [(o.finish_position <= places).mean(axis=0) for o in (before, after)]
        # Taking part in a crash of many costs fewer places than being out alone.
        np.testing.assert_allclose(*shares, atol=0.06)


def test_retirements_of_independent_cars_are_poisson_binomial(rng):
    before, after = recoupled(rng, independent_cars)
    chance = 1 - before.running.mean(axis=0)
    exact = np.ones(1)
    for p in chance:
        exact = np.convolve(exact, [1 - p, p])
    number = np.bincount((~after.running).sum(axis=1), minlength=exact.size) / 4000
    # Four standard errors of a share of 4,000.
    assert (np.abs(number - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000) + 1e-3).all()
    assert (~before.running).sum(axis=1).var() > 1.5 * (~after.running).sum(axis=1).var()


def test_dependent_cars_share_their_days(rng):
    _, independent = recoupled(rng, independent_cars)
    _, dependent = recoupled(rng, dependent_cars)
    teammates = [np.corrcoef(o.finish_position[:, :3].T)[0, 1] for o in (independent, dependent)]
    assert abs(teammates[0]) < 0.06
    assert teammates[1] > 0.08
    out = [(~o.running).sum(axis=1).var() for o in (independent, dependent)]
    assert out[1] > 2 * out[0]


def test_log_scores_are_those_of_smoothed_shares():
    predicted = np.array([[0, 0, 1, 3], [2, 2, 2, 2]])[..., None]
    counts = Counts(predicted, np.array([[1], [2]]), np.array([[3], [3]]), (count(dnf) >= 1,))
    np.testing.assert_allclose(log_scores(counts)[:, 0], np.log([1.5 / 6, 4.5 / 6]))
    chances = log_probabilities(np.array([[0, 0, 1], [0, 1, 2]]), np.array([1, 2]), 3)
    np.testing.assert_allclose(np.exp(chances[0, :2]).sum(), 1)
    np.testing.assert_allclose(np.exp(chances[1]).sum(), 1)


MARKED = {
    top(5): False,
    top(5) & running: False,
    at_least(1, favourites(1), top(10)): False,
    count(top(5)) >= 5: False,
    both_teammates(top(10)): True,
    count(dnf) >= 12: True,
    same_make(top(3)): True,
}


@pytest.mark.parametrize("chaos", [0.0, 1.2])
def test_events_without_information_on_dependence_are_marked(rng, chaos):
    """Whatever the dependence of the ensemble itself; and the mark is the same for both forecasts."""
    ensemble, results = make_ensemble(rng, chaos=chaos)
    table, _ = validate_events({"raw": ensemble, "recalibrated": ensemble}, results(rng), list(MARKED))
    marks = dict(table.select("event", "about_dependence").iter_rows())
    assert marks == {str(event): mark for event, mark in MARKED.items()}
    assert table.group_by("event").agg(pl.col("about_dependence").n_unique())["about_dependence"].max() == 1


def test_dependence_that_is_there_is_gain_and_independence_is_rejected(rng):
    ensemble, results = make_ensemble(rng, sizes=(36, 38, 40) * 12, n_scenarios=1000, chaos=1.2)
    event = count(dnf) >= 14
    table, _ = validate_events({"raw": ensemble, "recalibrated": ensemble}, results(rng), [event])
    row = table.row(0, named=True)
    assert row["gain"] > row["gain_lower"] > 0
    assert row["p_independent"] < 0.01
    assert row["power_independent"] > 0.8
    assert row["p_value"] > 0.05


def test_without_dependence_the_test_has_no_power(rng):
    """An ensemble of independent cars gains nothing over itself, and has no power to show that it does."""
    ensemble, results = make_ensemble(rng, sizes=(36, 38, 40) * 12, n_scenarios=1000, chaos=0.0)
    events = [count(dnf) >= 8, both_teammates(running)]
    table, _ = validate_events({"raw": ensemble, "recalibrated": ensemble}, results(rng), events)
    assert table["gain"].abs().max() < 0.05
    assert table["power_independent"].max() < 0.2


@pytest.fixture
def chaotic(rng):
    """Counts of twelve races whose cars crash together, of the same cars made independent, and histories."""
    ensemble, results = make_ensemble(rng, sizes=(38,) * 12, n_scenarios=1000, chaos=0.8)
    races, _ = read_races(ensemble, results(rng), [count(dnf) >= 12, dnf])
    counts = count_cases(races, [count(dnf) >= 12, dnf])
    independent = count_recoupled(races, counts.events, independent_cars, 4, rng)
    new, _ = make_ensemble(rng, sizes=(38,) * 12, n_scenarios=300, chaos=0.8)
    histories = count_cases(read_races(new, results(rng), counts.events)[0], counts.events).predicted
    return counts, independent, histories


def judged(counts, independent, histories, rng):
    """P-values of each history, (history, event), and the power."""
    uniforms = rng.random((2000, 12))
    found = [
        judge_independence(replace(counts, observed=histories[:, h]), independent, uniforms)
        for h in range(histories.shape[1])
    ]
    return np.array([verdict.p_value for verdict in found]), found[0].power


def test_power_is_how_often_results_of_the_ensemble_reject_independence(rng, chaotic):
    counts, independent, histories = chaotic
    p_values, power = judged(counts, independent, histories, rng)
    assert (power > 0.3).all()
    # Four standard errors of a share of 300; scenarios of half the ensemble know a little less.
    assert (np.abs((p_values <= 0.05).mean(axis=0) - power) < 0.12).all()


def test_independent_results_are_rejected_as_often_as_they_should(rng, chaotic):
    counts, independent, _ = chaotic
    ensemble, results = make_ensemble(rng, sizes=(38,) * 12, n_scenarios=1000, chaos=0.8)
    races, _ = read_races(ensemble, results(rng), counts.events)
    histories = count_recoupled(races, counts.events, independent_cars, 1, rng)[:, :300]
    p_values, _ = judged(counts, independent, histories, rng)
    # Four standard errors of a share of 300.
    assert ((p_values <= 0.05).mean(axis=0) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)).all()


def test_recalibration_is_compared_with_raw_race_by_race(rng):
    blind, results = make_ensemble(rng, sizes=(36, 38, 40) * 12, n_scenarios=500, chaos=0.0)
    seeing, _ = make_ensemble(rng, sizes=(36, 38, 40) * 12, n_scenarios=500, chaos=1.2)
    result = results(rng, chaos=1.2)
    table, _ = validate_events({"raw": blind, "recalibrated": seeing}, result, [count(dnf) >= 14])
    raw, recalibrated = table.iter_rows(named=True)
    assert raw["gain_over_raw"] is None
    assert recalibrated["gain_over_raw"] > recalibrated["gain_over_raw_lower"] > 0
    same, _ = validate_events({"raw": blind, "recalibrated": blind}, result, [count(dnf) >= 10])
    assert same["gain_over_raw"].to_list() == [None, 0.0]


def test_eras_are_judged_by_their_own_races(rng):
    """The rows of an era have the shares, z and gain of its races alone; those of all races do not change."""
    blind, results = make_ensemble(rng, sizes=(36, 38, 40) * 8, n_scenarios=400, chaos=0.0)
    seeing, _ = make_ensemble(rng, sizes=(36, 38, 40) * 8, n_scenarios=400, chaos=1.2)
    ensembles, result, events = (
        {"raw": blind, "recalibrated": seeing},
        results(rng),
        [count(dnf) >= 8, top(5)],
    )
    table, _ = validate_events(ensembles, result, events, era_starts=(2022,))
    assert table["era"].unique(maintain_order=True).to_list() == ["from 2022", ALL_RACES]
    everything, _ = validate_events(ensembles, result, events)
    assert table.filter(era=ALL_RACES).equals(everything)
    later = {
        name: ensemble.isel(race=ensemble["season"].values >= 2022) for name, ensemble in ensembles.items()
    }
    alone, _ = validate_events(later, result, events)
    columns = ["event", "forecast", "predicted", "observed", "lower", "upper", "z", "p_value", "p_together",
               "gain_over_raw", "gain_together", "gain_together_lower", "n_races", "n_cases"]  # fmt: skip
    own = table.filter(era="from 2022")
    assert own.select(columns).equals(alone.select(columns))
    mean = own.filter(forecast="recalibrated")["gain_over_raw"].mean()
    assert own["gain_together"].to_list() == [None, None, pytest.approx(mean), pytest.approx(mean)]


@pytest.mark.soak
@pytest.mark.skipif(not REAL_RESULTS.exists(), reason=f"optional real results are absent: {REAL_RESULTS}")
def test_real_retirements_come_together_and_the_network_knows():
    """Eight or more out, in three seasons after earlier ones: no independent cars, but the network's.

    Teammates finished together more often in these seasons than the network has it: by less than .03.
    """
    source = TablesSource(str(REAL_RESULTS), None, compile_constraints())
    results = pl.concat([source.load_season(season).race_results for season in range(2013, 2021)])
    features = build_driver_features(entry_list(results), results, LapAggregates.empty())
    seasons = []
    for season in (2018, 2019, 2020):
        past = pl.col("season") <= season
        history = fold_history(features.filter(past), results.filter(past), season, None)
        network = fit_networks(history, None, seed=1)
        drawn = simulate_races(features.filter(season=season), network, None, 2000, 1)
        seasons.append(drawn.assign_coords(archetype=("race", ["intermediate"] * drawn.sizes["race"])))
    ensemble = join_seasons(seasons, "intermediate")
    table, _ = validate_events({"raw": ensemble, "recalibrated": ensemble}, results)
    row = table.filter(forecast="raw", event="count(dnf) >= 8").row(0, named=True)
    assert row["n_races"] > 100
    assert row["p_value"] > 0.05
    assert joint_test(ensemble, results, [count(dnf) >= n for n in (4, 6, 8, 12)])[1] > 0.05
    assert row["p_independent"] < 0.01
    assert row["power_independent"] > 0.9
    teammates = table.filter(forecast="raw", event="both_teammates(top(10))").row(0, named=True)
    assert teammates["predicted"] == pytest.approx(teammates["observed"], abs=0.03)
