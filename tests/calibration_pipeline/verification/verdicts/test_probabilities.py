"""Verdicts on planted event and position probabilities: over-confident ones are ruled as such."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from polars.testing import assert_frame_equal

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.markets import ALL_MARKETS, EVENT_MARKETS, POSITION_MARKETS
from calibration_pipeline.schemas.frames import VerdictTable
from calibration_pipeline.seasons import ALL_RACES
from calibration_pipeline.verification.backtest import backtest_positions, scored_races
from calibration_pipeline.verification.cases import backtest_cases
from calibration_pipeline.verification.event_cases import market_events, position_events, scored_events
from calibration_pipeline.verification.metric_table import score_backtest, score_events
from calibration_pipeline.verification.reliability import calibration_curves, event_curves
from calibration_pipeline.verification.verdicts.estimates import event_estimates
from calibration_pipeline.verification.verdicts.probabilities import judge_events, judge_positions
from helpers.planted_events import planted_frames
from helpers.planted_positions import planted_positions

MARKETS = ("win", "top 10")
N_SEASONS = 11
KEYS = ["race_id", "driver_id", "market"]


def states_of(results: pl.DataFrame, known: bool = True) -> xr.Dataset:
    """States of all races, of which the verdicts read how many races the fits had seen."""
    races = results.unique("race_id", maintain_order=True)["race_id"].to_numpy()
    number = ("race", np.full(races.size, 1, np.int32))
    variables = {"calibration_as_of": number, "n_calibration_races": number}
    return xr.Dataset(variables, {"race": races}).isel(race=slice(None if known else 0))


def event_rulings(slope: float, market: str, **options: bool) -> dict[tuple[str, str], dict]:
    """Verdicts on forecasts of a planted slope, recalibrated to the truth, of all seasons but the first."""
    forecasts, results, truth = planted_frames(slope, (market,), n_seasons=N_SEASONS, seed=3)
    frames = {"raw": forecasts, "recalibrated": truth.rename({"truth": "probability"})}
    scored = scored_events(frames, results, {market: states_of(results, **options)})
    verdicts = judge_events("book", scored, [market], ())
    VerdictTable.validate(verdicts, lazy=True)
    first = verdicts.filter(line=1, era=ALL_RACES)
    return {(row["archetype"], row["market"]): row for row in first.iter_rows(named=True)}


@pytest.mark.slow
def test_overconfident_events_need_recalibration():
    rulings = event_rulings(0.6, "top 10")
    assert set(rulings) == {(str(a), market) for a in ARCHETYPES for market in (ALL_MARKETS, "top 10")}
    found = [row["verdict"] for row in rulings.values()]
    assert set(found) <= {"trust after recalibration", "cannot tell yet"}
    assert found.count("trust after recalibration") >= 6  # summary and market of three of four archetypes
    assert {row["recalibration"] for (_, market), row in rulings.items() if market == "top 10"} == {"helps"}


@pytest.mark.parametrize(("market", "fewest_trusted"), [("top 10", 6), ("win", 0)])
def test_right_events_are_not_ruled_against(market, fewest_trusted):
    found = [row["verdict"] for row in event_rulings(1.0, market).values()]
    assert set(found) <= {"trust", "cannot tell yet"}
    assert found.count("trust") >= fewest_trusted


def test_the_gain_of_recalibration_is_not_that_of_a_sum_above_one():
    """Probabilities that a file states may sum to more than the one winner."""
    _, results, truth = planted_frames(1.0, ("win",), n_seasons=N_SEASONS, seed=3)
    right = truth.rename({"truth": "probability"})
    frames = {"raw": right.with_columns(pl.col("probability") * 1.3), "recalibrated": right}
    scored = scored_events(frames, results, {"win": states_of(results)})
    verdicts = judge_events("book", scored, ["win"], ())
    own = verdicts.filter(line=1, era=ALL_RACES, market="win")
    assert own.height == len(ARCHETYPES)
    assert not own["recalibration"].is_in(["helps", "costs"]).any(), own["recalibration"]


def test_nothing_is_ruled_without_a_fit_on_earlier_races():
    rulings = event_rulings(0.6, "top 10", known=False)
    assert {row["verdict"] for row in rulings.values()} == {"cannot tell yet"}
    evidence = {row["evidence"] for (_, market), row in rulings.items() if market == "top 10"}
    assert evidence == {"No race was forecast after a calibration fit on earlier races."}


@pytest.mark.slow
def test_overconfident_events_that_stay_so_are_not_trusted():
    forecasts, results, _ = planted_frames(0.5, ("top 10",), n_seasons=N_SEASONS, seed=3)
    frames = {"raw": forecasts, "recalibrated": forecasts}
    scored = scored_events(frames, results, {"top 10": states_of(results)})
    verdicts = judge_events("book", scored, ["top 10"], ()).filter(line=1)
    assert set(verdicts["verdict"]) == {"do not trust"}


def test_an_archetypes_first_season_is_not_scored_and_races_without_results_are_left_out():
    forecasts, results, _ = planted_frames(1.0, MARKETS, n_seasons=3)
    unknown = results["race_id"].unique().sort()[-1]
    results = results.filter(pl.col("race_id") != unknown)
    frames = {"raw": forecasts, "recalibrated": forecasts}
    scored = scored_events(frames, results, dict.fromkeys(MARKETS, states_of(results)))
    assert scored["season"].min() == 2021
    assert unknown not in scored["race_id"]
    assert scored.select(KEYS).is_unique().all()


def test_forecasts_without_a_race_that_ran_are_scored_nowhere():
    forecasts, results, _ = planted_frames(1.0, MARKETS, n_seasons=3)
    scored = scored_events({"raw": forecasts, "recalibrated": forecasts}, results.clear(), {})
    assert scored.is_empty()


def test_eras_have_verdicts_of_their_own():
    forecasts, results, _ = planted_frames(1.0, MARKETS, n_seasons=4)
    frames = {"raw": forecasts, "recalibrated": forecasts}
    scored = scored_events(frames, results, dict.fromkeys(MARKETS, states_of(results)))
    verdicts = judge_events("book", scored, MARKETS, (2022,))
    assert verdicts["era"].unique(maintain_order=True).to_list() == ["from 2022", ALL_RACES]
    late = scored.filter(pl.col("season") >= 2022, archetype=str(ARCHETYPES[0]))
    expected = next(iter(event_estimates(market_events(late)))).estimate
    own = verdicts.filter(
        era="from 2022", archetype=str(ARCHETYPES[0]), market="win", forecast="raw", quantity="slope"
    )
    assert own["estimate"].item() == pytest.approx(expected.estimate)


def test_a_market_of_which_no_race_is_scored_has_its_cells():
    forecasts, results, _ = planted_frames(1.0, MARKETS, n_seasons=1)
    frames = {"raw": forecasts, "recalibrated": forecasts}
    scored = scored_events(frames, results, dict.fromkeys(MARKETS, states_of(results)))
    verdicts = judge_events("book", scored, [*MARKETS, "top 3"], ())
    assert scored.is_empty()
    assert verdicts["market"].unique(maintain_order=True).to_list() == [ALL_MARKETS, "win", "top 3", "top 10"]
    assert set(verdicts["verdict"]) == {"cannot tell yet"}


@pytest.fixture(scope="module")
def positions() -> tuple[xr.Dataset, pl.DataFrame, np.ndarray]:
    """Over-confident positions of eight seasons, their results and the truth."""
    return planted_positions(0.6, n_seasons=8, season_races=32, seed=4)


def position_backtests(positions, recalibrated: xr.Dataset) -> dict[str, xr.Dataset]:
    forecasts, results, _ = positions
    frames = {"raw": forecasts, "recalibrated": recalibrated}
    races = results["race_id"].unique().to_list()
    found = backtest_positions(frames, results, states_of(results), races)
    return {name: scored_races(backtest) for name, backtest in found.items()}


def test_overconfident_positions_need_recalibration(positions):
    forecasts, results, truth = positions
    backtests = position_backtests(
        positions, forecasts.assign(probability=(forecasts["probability"].dims, truth))
    )
    verdicts = judge_positions("flat", backtests, results, ())
    VerdictTable.validate(verdicts, lazy=True)
    first = verdicts.filter(line=1)
    assert first["market"].unique(maintain_order=True).to_list() == [ALL_MARKETS, *POSITION_MARKETS]
    assert first["archetype"].unique(maintain_order=True).to_list() == [str(a) for a in ARCHETYPES]
    assert "trust" not in set(first["verdict"])
    assert "do not trust" not in set(first["verdict"])
    helped = first.filter(pl.col("market").is_in(["top 10", "finish distribution"]))
    assert set(helped["recalibration"]) == {"helps"}


def test_positions_have_the_markets_of_their_events(positions):
    """The rows of event probabilities summed from positions give the same estimates."""
    forecasts, results, _ = positions
    backtest = position_backtests(positions, forecasts)[str(ARCHETYPES[0])]
    cases = list(position_events(backtest_cases(backtest)))
    frame = pl.concat(
        pl.DataFrame(
            {
                "race_id": np.repeat(forecasts["race"].values, forecasts.sizes["driver"]),
                "driver_id": forecasts["driver_id"].values.ravel().tolist(),
                "market": market,
                "probability": forecasts["probability"]
                .values[..., : EVENT_MARKETS[market]]
                .sum(axis=2)
                .ravel(),
            }
        )
        for market in ("win", "top 5", "top 10")
    )
    scored = scored_events({"raw": frame, "recalibrated": frame}, results, {"win": states_of(results)})
    events = list(market_events(scored.filter(archetype=str(ARCHETYPES[0]))))
    for own, expected in zip(event_estimates(events), event_estimates(cases), strict=True):
        assert own[:4] == expected[:4]
        assert_allclose(own.estimate.estimate, expected.estimate.estimate, atol=1e-9)
        assert own.estimate.n_races == expected.estimate.n_races
    scores, curves = score_events(str(ARCHETYPES[0]), events), event_curves(str(ARCHETYPES[0]), events)
    keys = ["forecast", "quantity", "level", "reference"]
    same = scores.join(score_backtest(backtest), on=keys, suffix="_of_positions")
    assert same.height == scores.height
    assert_allclose(same["estimate"], same["estimate_of_positions"], atol=1e-9)
    assert (same["n_cars"] == same["n_cars_of_positions"]).all()
    assert_frame_equal(curves, calibration_curves(backtest), abs_tol=1e-9)


def test_later_results_change_no_earlier_row():
    forecasts, results, _ = planted_frames(1.0, MARKETS, n_seasons=3)
    frames = {"raw": forecasts, "recalibrated": forecasts}
    states = dict.fromkeys(MARKETS, states_of(results))
    scored = scored_events(frames, results, states)
    early = scored_events(frames, results.filter(pl.col("season") < 2022), states)
    assert_frame_equal(early, scored.filter(pl.col("season") < 2022))
