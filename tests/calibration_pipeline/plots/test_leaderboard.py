"""Tests of the chart of the leaderboard: artists have the values of their frame."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes

from calibration_pipeline.comparison.leaderboard import rank_forecasters
from calibration_pipeline.plots.leaderboard import leaderboard_figure
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, COMPARED_MARKETS
from helpers.compared_forecasters import make_backtests, scores_of
from helpers.images import assert_on_paper


@pytest.fixture(scope="module")
def leaderboard() -> pl.DataFrame:
    backtests = make_backtests({"network": 1.0, "mine": 2.0, "flat": 0.4}, n_races=30)
    backtests["new"] = [part.isel(race=slice(0, 3)) for part in backtests["mine"]]
    return rank_forecasters(scores_of(backtests))


def drawn(frame: pl.DataFrame) -> list[Axes]:
    return leaderboard_figure(frame).axes


def test_each_market_shows_the_gains_of_ranked_forecasters(leaderboard: pl.DataFrame) -> None:
    whole = leaderboard.filter(archetype=ALL_ARCHETYPES)
    *of_markets, legend = drawn(whole)
    assert [ax.get_title() for ax in of_markets] == [market.capitalize() for market in COMPARED_MARKETS]
    for ax, market in zip(of_markets, COMPARED_MARKETS, strict=True):
        if market == "top 20":  # fields of 16 cars
            assert [text.get_text() for text in ax.texts] == ["no comparison"]
            continue
        zero, raw, recalibrated = ax.lines
        assert list(zero.get_xdata()) == [0, 0]
        for line, forecast in ((raw, "raw"), (recalibrated, "recalibrated")):
            own = whole.filter(market=market, forecast=forecast)
            gains = dict(own.select("forecaster", "gain_over_network").iter_rows())
            expected = [1000 * gains[name] for name in ("flat", "mine")]
            found = sorted(zip(np.round(line.get_ydata()), line.get_xdata(), strict=True))
            np.testing.assert_allclose([gain for _, gain in found], expected)
    assert [tick.get_text() for tick in of_markets[0].get_yticklabels()] == ["flat", "mine"]
    assert [text.get_text() for text in legend.get_legend().get_texts()] == ["Raw", "Recalibrated"]


def test_long_names_stay_on_the_paper(leaderboard: pl.DataFrame) -> None:
    names = {"mine": "a-forecaster-with-a-long-name"}
    renamed = leaderboard.with_columns(pl.col("forecaster").replace(names))
    assert_on_paper(leaderboard_figure(renamed.filter(archetype=ALL_ARCHETYPES)))


@pytest.mark.parametrize("n_forecasters", [3, 8, 40])
@pytest.mark.slow
def test_names_of_many_forecasters_do_not_overlap(leaderboard: pl.DataFrame, n_forecasters: int) -> None:
    own = leaderboard.filter(archetype=ALL_ARCHETYPES, forecaster="mine")
    many = pl.concat(own.with_columns(forecaster=pl.lit(f"model-{k:02d}")) for k in range(n_forecasters))
    figure = leaderboard_figure(many)
    assert_on_paper(figure)
    names = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == n_forecasters
    assert not any(name.overlaps(following) for name, following in pairwise(names))
    title = figure.texts[0].get_window_extent()
    assert not title.overlaps(figure.axes[0].title.get_window_extent())


def test_the_title_names_the_archetype(leaderboard: pl.DataFrame) -> None:
    ax, *_ = drawn(leaderboard.filter(archetype="short_track"))
    assert ax.figure.get_suptitle() == "Short track: gain over the network, thousandths"


def test_without_ranked_forecasters_nothing_is_compared(leaderboard: pl.DataFrame) -> None:
    *of_markets, _ = drawn(leaderboard.filter(archetype=ALL_ARCHETYPES, forecaster="new"))
    assert all(ax.texts[0].get_text() == "no comparison" for ax in of_markets)


def test_several_archetypes_are_refused(leaderboard: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="A plot shows one archetype"):
        drawn(leaderboard)
