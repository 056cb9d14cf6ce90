"""Comparison of all forecasters of a run, and the next race side by side."""

import io

import numpy as np
import polars as pl
import pytest
import xarray as xr
from rich.console import Console

from calibration_pipeline.comparison.all_forecasters import read_forecasters, weigh_and_score
from calibration_pipeline.comparison.leaderboard import rank_forecasters
from calibration_pipeline.comparison.next_race import compare_next_race, side_by_side
from calibration_pipeline.schemas.comparison import (
    BlendWeights,
    ForecasterChances,
    Leaderboard,
    MarketScores,
)
from calibration_pipeline.schemas.forecasters import EventProbabilities
from calibration_pipeline.schemas.forecasts import ForecastChances
from calibration_pipeline.terminal.next_race import print_side_by_side
from helpers.compared_forecasters import ARCHETYPES, event_frame, make_backtests, results_of

Backtests = dict[str, list[xr.Dataset]]


@pytest.fixture(scope="module")
def backtests() -> Backtests:
    return make_backtests({"network": 1.0, "sharp": 4.0}, n_races=48, noise={"sharp": 1.0})


def compare(
    backtests: Backtests, events: dict[str, pl.DataFrame], next_race: xr.Dataset
) -> tuple[dict, pl.DataFrame, pl.DataFrame]:
    results = results_of(backtests["network"])
    by_form = {
        name: {
            forecast: frame.filter(forecast=forecast).drop("forecast") for forecast in ("raw", "recalibrated")
        }
        for name, frame in events.items()
    }
    forecasts = read_forecasters(backtests, by_form, results)
    by_archetype = {
        archetype: {name: own[place] for name, own in backtests.items()}
        for place, archetype in enumerate(ARCHETYPES)
    }
    return forecasts, *weigh_and_score(forecasts, by_archetype, results, next_race)


def next_race(backtests: Backtests) -> xr.Dataset:
    """A race after the last one, as an ensemble names it."""
    last = backtests["network"][1].isel(race=[-1])
    return last.assign_coords(race=[2000], race_order=last["race_order"] + 1)


def test_every_form_the_blend_and_climatology_are_scored_and_ranked(backtests: Backtests) -> None:
    book = event_frame(backtests["sharp"]).filter(pl.col("market").is_in(["win", "top 5"]))
    forecasts, weights, scores = compare(backtests, {"book": book}, next_race(backtests))
    assert list(forecasts) == ["network", "sharp", "book"]
    MarketScores.validate(scores)
    BlendWeights.validate(weights)
    board = rank_forecasters(scores)
    Leaderboard.validate(board)
    assert set(board["forecaster"]) == {"network", "sharp", "book", "blend", "climatology"}
    assert set(board.filter(forecaster="book")["market"]) == {"win", "top 5"}
    raw = board.filter(archetype="all archetypes", forecast="raw", market="top 5")
    assert raw["forecaster"][0] in ("network", "blend")
    verdicts = dict(raw.select("forecaster", "verdict").iter_rows())
    assert verdicts["sharp"] == verdicts["book"] == "worse than network"


@pytest.mark.slow
def test_the_weights_before_the_next_race_come_last_and_sum_to_1(backtests: Backtests) -> None:
    _, weights, _ = compare(backtests, {}, next_race(backtests))
    own = weights.filter(race_id=2000)
    assert own["race_order"].unique().to_list() == [weights["race_order"].max()]
    totals = own.group_by("market", "forecast").agg(pl.sum("weight"))["weight"]
    np.testing.assert_allclose(totals, 1.0, rtol=1e-9)
    _, without, _ = compare(backtests, {}, next_race(backtests).isel(race=[]))
    assert without.equals(weights.filter(pl.col("race_id") != 2000))


def test_the_network_alone_has_no_blend(backtests: Backtests) -> None:
    alone = {"network": backtests["network"]}
    _, weights, scores = compare(alone, {}, next_race(backtests))
    assert weights.is_empty()
    assert set(scores["forecaster"]) == {"network", "climatology"}


def test_events_of_races_that_no_backtest_has_are_not_read(backtests: Backtests) -> None:
    fewer = {name: [part.isel(race=slice(10)) for part in own] for name, own in backtests.items()}
    results, events = results_of(backtests["network"]), event_frame(backtests["network"])
    forecasts = read_forecasters(
        fewer, {"book": {"raw": events.filter(forecast="raw").drop("forecast")}}, results
    )
    assert forecasts["book"]["raw"].keys() == forecasts["network"]["raw"].keys()


def chances(n_cars: int = 12) -> pl.DataFrame:
    """Chances of the cars of a race that decrease from the first to the last."""
    win = np.arange(n_cars, 0, -1) / np.arange(1, n_cars + 1).sum()
    return pl.concat(
        [
            ForecastChances.empty(),
            pl.DataFrame(
                {
                    "race_id": [2000] * n_cars,
                    "driver_id": [f"d{i:02d}" for i in range(n_cars)],
                    "driver": [f"Driver {i}" for i in range(n_cars)],
                    "win": win,
                    "top5": np.minimum(5 * win, 1.0),
                    "top10": np.minimum(10 * win, 1.0),
                }
            ),
        ],
        how="diagonal",
    )


def equal_odds(n_cars: int = 12) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "race_id": [2000] * n_cars,
            "driver_id": [f"d{i:02d}" for i in range(n_cars)],
            "market": ["win"] * n_cars,
            "probability": [1 / n_cars] * n_cars,
        }
    )


def weights_of_next_race() -> pl.DataFrame:
    rows = [("network", 0.75), ("book", 0.25)]
    own = pl.DataFrame(rows, schema=["forecaster", "weight"], orient="row").with_columns(
        race_id=pl.lit(2000), market=pl.lit("win"), forecast=pl.lit("recalibrated")
    )
    return pl.concat([BlendWeights.empty(), own], how="diagonal_relaxed")


def test_the_next_race_has_every_forecaster_and_the_blend() -> None:
    compared = compare_next_race(
        {"network": chances(), "absent": ForecastChances.empty()},
        {"book": equal_odds(), "late": EventProbabilities.empty()},
        weights_of_next_race(),
    )
    ForecasterChances.validate(compared)
    assert compared["forecaster"].unique(maintain_order=True).to_list() == ["network", "book", "blend"]
    win = compared.filter(market="win").pivot("forecaster", index="driver", values="probability")
    np.testing.assert_allclose(win["blend"], 0.75 * win["network"] + 0.25 * win["book"], rtol=1e-12)
    assert set(compared.filter(forecaster="blend")["market"]) == {"win"}, "the others have one member"


def test_the_next_race_of_the_network_alone_has_no_blend() -> None:
    compared = compare_next_race({"network": chances()}, {}, BlendWeights.empty())
    assert set(compared["forecaster"]) == {"network"}
    nothing = compare_next_race({"network": ForecastChances.empty()}, {}, BlendWeights.empty())
    assert nothing.equals(ForecasterChances.empty())


def test_cars_with_one_name_have_a_row_each() -> None:
    """Drivers who are to be announced have one name."""
    unnamed = chances().with_columns(driver=pl.lit("TBA"))
    compared = compare_next_race({"network": unnamed}, {"book": equal_odds()}, weights_of_next_race())
    wide = side_by_side(compared.filter(market="win"))
    assert wide.columns == ["driver", "network", "book", "blend"]
    assert wide["network"].to_list() == unnamed["win"].to_list()


def test_the_terminal_shows_the_forecasters_in_columns() -> None:
    compared = compare_next_race({"network": chances()}, {"book": equal_odds()}, weights_of_next_race())
    console = Console(file=io.StringIO(), width=80)
    print_side_by_side(console, compared)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Win %, recalibrated, by forecaster" in printed
    first = next(line for line in printed.splitlines() if "Driver 0" in line)
    assert first.split()[-3:] == ["15", "8.3", "14"]
    alone = Console(file=io.StringIO())
    print_side_by_side(alone, compared.filter(forecaster="network"))
    assert not alone.file.getvalue()  # type: ignore[attr-defined]
