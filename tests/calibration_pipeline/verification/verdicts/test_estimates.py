"""Estimates of markets from a backtest: against direct computation, and their climatologies."""

import numpy as np
import polars as pl
import pytest
import scoringrules
import xarray as xr

from calibration_pipeline.markets import HOW_MANY_RETIRE, JOINT_EVENTS, MARKETS, WHO_RETIRES
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.stats.intervals import clustered_mean
from calibration_pipeline.verification.joint_events import validate_events
from calibration_pipeline.verification.scores import discrete_crps
from calibration_pipeline.verification.verdicts.estimates import market_estimates, spread_ratio
from calibration_pipeline.verification.verdicts.matrix import judge_eras
from calibration_pipeline.verification.verdicts.retirements import read_retirements
from calibration_pipeline.verification.verdicts.slopes import win_slope

SIZES = (12, 14, 13, 14, 12, 14, 13, 12)
N_SCENARIOS = 300


def draw(rng, sharpness, n_scenarios):
    """Return finishes and running cars of every race, (race, scenario, driver), padded."""
    shape = (len(SIZES), n_scenarios, max(SIZES))
    finish, running = np.zeros(shape, np.int16), np.zeros(shape, bool)
    for r, n in enumerate(SIZES):
        out = rng.random((n_scenarios, n)) < np.linspace(0.05, 0.35, n)
        pace = -sharpness * np.linspace(2, -2, n) + rng.gumbel(size=(n_scenarios, n)) + 100 * out
        finish[r, :, :n] = 1 + np.argsort(np.argsort(pace, axis=1), axis=1)
        running[r, :, :n] = ~out
    return finish, running


@pytest.fixture(scope="module")
def history():
    """Backtest, ensembles and results: two races before the backtest's eight."""
    rng = np.random.default_rng(8)
    car = ("race", "driver")
    ids = np.full((len(SIZES), max(SIZES)), "", dtype="<U4")
    for r, n in enumerate(SIZES):
        ids[r, :n] = [f"d{i}" for i in range(n)]
    coordinates = {
        "race": 100 + np.arange(len(SIZES)),
        "season": ("race", np.repeat([2021, 2022], 4)),
        "archetype": ("race", ["road_course"] * len(SIZES)),
        "field_size": ("race", np.array(SIZES, np.int16)),
        "driver_id": (car, ids),
        "start_position": (car, np.where(ids != "", np.arange(1, max(SIZES) + 1), 0)),
        "n_calibration_races": ("race", np.full(len(SIZES), 9)),
    }
    outcome = ("race", "scenario", "driver")
    drawn = {
        name: draw(rng, sharpness, N_SCENARIOS) for name, sharpness in (("raw", 2.0), ("recalibrated", 1.0))
    }
    ensembles = {
        name: xr.Dataset({"finish_position": (outcome, finish), "running": (outcome, running)}, coordinates)
        for name, (finish, running) in drawn.items()
    }
    finish, running = (values[:, 0] for values in draw(rng, 1.0, 1))
    variables = {"finish_position": (car, finish), "share_beaten": (car, np.full(finish.shape, 0.5))}
    sizes = np.array(SIZES)
    for name, (position, _) in drawn.items():
        variables[name] = (("race", "driver", "position"), finish_probabilities(position, sizes))
        variables[f"{name}_head_to_head"] = (("race", "driver", "opponent"), head_to_head(position, sizes))
    backtest = xr.Dataset(variables, coordinates)
    earlier = pl.concat(
        pl.DataFrame(
            {
                "race_id": [race] * 10,
                "driver_id": [f"d{i}" for i in range(10)],
                "finish_position": range(1, 11),
                "running": [i < 10 - n_out for i in range(10)],
            }
        )
        for race, n_out in ((98, 1), (99, 3))
    )
    own = pl.concat(
        pl.DataFrame(
            {
                "race_id": [100 + r] * n,
                "driver_id": ids[r, :n],
                "finish_position": finish[r, :n].astype(int),
                "running": running[r, :n],
            }
        )
        for r, n in enumerate(SIZES)
    )
    return backtest, ensembles, pl.concat([earlier, own])


def by_key(found):
    return {each[:4]: each.estimate for each in found}


def test_every_market_has_calibration_skill_and_gain(history) -> None:
    found = by_key(market_estimates(*history))
    for market in MARKETS[:-1]:
        assert (market, "recalibrated", "gain", "") in found
        for forecast in ("raw", "recalibrated"):
            own = {
                (quantity, level) for name, of, quantity, level in found if (name, of) == (market, forecast)
            }
            assert ("skill", "") in own
            assert len(own - {("gain", "")}) == {"finish distribution": 4, HOW_MANY_RETIRE: 3}.get(market, 2)
    assert {estimate.n_races for estimate in found.values()} == {len(SIZES)}


def test_estimates_agree_with_direct_computation(history) -> None:
    backtest = history[0]
    found = by_key(market_estimates(*history))
    mask = backtest["driver_id"].values != ""
    race = np.nonzero(mask)[0]
    finish = backtest["finish_position"].values[mask]
    p = {name: backtest[name].values[mask] for name in ("raw", "recalibrated")}
    win = win_slope(p["raw"][:, 0], finish == 1, race)
    assert found["win", "raw", "slope", ""] == win
    gained = np.log(p["recalibrated"][finish == 1, 0] / p["raw"][finish == 1, 0])
    assert found["win", "recalibrated", "gain", ""].estimate == pytest.approx(gained.mean())
    brier = {name: scoringrules.brier_score(finish <= 5, p[name][:, :5].sum(axis=1)) for name in p}
    gain = found["top 5", "recalibrated", "gain", ""]
    assert gain == clustered_mean(brier["raw"] - brier["recalibrated"], race)
    equal = (5 / np.array(SIZES)[race] - (finish <= 5)) ** 2
    assert found["top 5", "raw", "skill", ""].estimate == pytest.approx(1 - brier["raw"].sum() / equal.sum())
    crps = {name: discrete_crps(p[name], finish) for name in p}
    gain = found["finish distribution", "recalibrated", "gain", ""]
    assert gain.estimate == pytest.approx((crps["raw"] - crps["recalibrated"]).mean())
    pairs = [
        (backtest["raw_head_to_head"].values[r, i, j], result[i] < result[j])
        for r, result in enumerate(backtest["finish_position"].values)
        for i in range(SIZES[r])
        for j in range(i)
    ]
    chance, won = np.array(pairs).T
    skill = found["head to head", "raw", "skill", ""].estimate
    assert skill == pytest.approx(1 - ((chance - won) ** 2).mean() / 0.25)


def test_an_over_confident_forecast_has_slopes_below_one(history) -> None:
    found = by_key(market_estimates(*history))
    for market in ("win", "top 5", "top 10", "head to head"):
        raw, recalibrated = (found[market, name, "slope", ""].estimate for name in ("raw", "recalibrated"))
        assert raw < 0.9 * recalibrated


def test_retirements_are_compared_with_earlier_races(history) -> None:
    """The climatology of a race is the archetype's races before it: 4 of 20 cars before the first."""
    _, ensembles, results = history
    found = read_retirements(ensembles, results)
    retired = results.group_by("race_id", maintain_order=True).agg(
        (~pl.col("running")).sum(), pl.len().alias("n")
    )
    number, cars = retired["running"].to_list(), retired["n"].to_list()
    assert found.observed.tolist() == number[2:]
    for r, n in enumerate(SIZES):
        share = (sum(number[: r + 2]) + 0.5) / (sum(cars[: r + 2]) + 1)
        assert found.share[found.race == r] == pytest.approx(share)
        assert found.distribution[r].sum() == pytest.approx(1)
        expected = (number[: r + 2].count(3) + 1 / (n + 1)) / (r + 3)
        assert found.distribution[r, 3] == pytest.approx(expected)
    out = ~ensembles["raw"]["running"].values[0, :, : SIZES[0]]
    assert found.probability["raw"][: SIZES[0]] == pytest.approx((out.sum(axis=0) + 0.5) / (N_SCENARIOS + 1))
    assert np.array_equal(found.numbers["raw"][0], out.sum(axis=1))
    estimates = by_key(market_estimates(*history))
    ratio = estimates[HOW_MANY_RETIRE, "raw", "number ratio", ""].estimate
    assert ratio == pytest.approx(sum(number[2:]) / found.numbers["raw"].mean(axis=1).sum())
    crps = [
        scoringrules.crps_ensemble(y, x.astype(float))
        for y, x in zip(number[2:], found.numbers["raw"], strict=True)
    ]
    equal = discrete_crps(found.distribution, found.observed + 1)
    skill = estimates[HOW_MANY_RETIRE, "raw", "skill", ""].estimate
    assert skill == pytest.approx(1 - np.sum(crps) / equal.sum())


def test_scenarios_without_retirements_have_no_estimates_of_them(history) -> None:
    backtest, ensembles, results = history
    without = {name: ensemble.drop_vars("running") for name, ensemble in ensembles.items()}
    assert read_retirements(without, results) is None
    markets = {each.market for each in market_estimates(backtest, without, results)}
    assert markets == set(MARKETS) - {WHO_RETIRES, HOW_MANY_RETIRE, JOINT_EVENTS}


def test_spread_ratio_is_one_for_calibrated_counts() -> None:
    """Also with few scenarios, whose mean has a Monte-Carlo error; half the spread gives 2."""
    rng = np.random.default_rng(9)
    counts = rng.binomial(38, 0.15, size=(4000, 6))
    observed = rng.binomial(38, 0.15, size=4000)
    found = spread_ratio(observed, counts)
    assert found.lower < 1 < found.upper
    assert found.upper - found.lower < 0.06
    narrow = counts.mean() + (counts - counts.mean()) / 2
    assert spread_ratio(observed, narrow).estimate == pytest.approx(2, abs=0.2)
    assert spread_ratio(observed, np.full((4000, 6), 5)) is None


def test_eras_are_judged_by_their_own_races(history) -> None:
    backtest, ensembles, results = history
    team = {"team": (("race", "driver"), np.full(backtest["driver_id"].shape, ""))}
    joint, _ = validate_events(
        {name: ensemble.assign_coords(team) for name, ensemble in ensembles.items()},
        results,
        era_starts=(2022,),
    )
    verdicts = judge_eras(backtest, ensembles, results, joint, (2022,))
    assert list(verdicts) == ["from 2022", "all races"]
    later = backtest["season"].values == 2022
    own = {name: ensemble.isel(race=later) for name, ensemble in ensembles.items()}
    expected = by_key(market_estimates(backtest.isel(race=later), own, results))
    for verdict in verdicts["from 2022"][1:-1]:
        for line in verdict.evidence:
            found = expected[verdict.market, line.forecast, line.quantity, line.level]
            assert (line.estimate, line.n_races) == (found.estimate, 4)
    assert {line.n_races for line in verdicts["all races"][-1].evidence} == {8}


def test_an_archetype_without_races_is_undecided(history) -> None:
    backtest, ensembles, results = history
    nothing = [False] * len(SIZES)
    own = {name: ensemble.isel(race=nothing) for name, ensemble in ensembles.items()}
    joint, _ = validate_events(own, results)
    verdicts = judge_eras(backtest.isel(race=nothing), own, results, joint, (2022,))
    assert list(verdicts) == ["all races"]
    assert {verdict.verdict for verdict in verdicts["all races"]} == {"cannot tell yet"}
