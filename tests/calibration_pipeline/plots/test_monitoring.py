"""Tests of the charts of sequential monitoring: artists have the values of their frames."""

import numpy as np
import polars as pl
import pytest

from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS
from calibration_pipeline.plots.figures import figure_axes, figure_grid
from calibration_pipeline.plots.monitoring import draw_evidence, draw_rank_histograms
from calibration_pipeline.verification.monitoring import LOG10_ALARM, rank_histograms
from helpers.example_report import monitoring_table


@pytest.fixture(scope="module")
def monitoring() -> pl.DataFrame:
    return monitoring_table().filter(archetype="intermediate")


def test_evidence_restarts_at_each_season_and_runs_since_the_start(monitoring: pl.DataFrame) -> None:
    ax = draw_evidence(figure_axes()[1], monitoring)
    lines = {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.lines}
    assert list(lines) == [
        "Alarm: 20",
        "Raw, by season",
        "Raw, since start",
        "Recalibrated, by season",
        "Recalibrated, since start",
    ]
    raw = monitoring.filter(forecast="raw", market=ALL_MARKETS)
    by_season = lines["Raw, by season"]
    assert np.flatnonzero(np.isnan(by_season)).tolist() == [0, 4]
    np.testing.assert_allclose(by_season[~np.isnan(by_season)], raw["log10_e_season"])
    np.testing.assert_allclose(lines["Raw, since start"], raw["log10_e_start"])
    np.testing.assert_allclose(lines["Alarm: 20"], LOG10_ALARM)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2023", "2024"]
    assert ax.get_ylim()[1] > LOG10_ALARM


def test_histograms_show_each_market_once(monitoring: pl.DataFrame) -> None:
    _, panels = figure_grid(4, 2)
    histograms = rank_histograms(monitoring)
    *of_markets, legend = draw_rank_histograms(panels, histograms)
    assert [ax.get_title() for ax in of_markets] == [market.capitalize() for market in RACE_MARKETS]
    raw, recalibrated = (patch for patch in of_markets[0].patches if hasattr(patch, "get_data"))
    for stairs, forecast in ((raw, "raw"), (recalibrated, "recalibrated")):
        own = histograms.filter(market="win", forecast=forecast).sort("bin")
        np.testing.assert_allclose(stairs.get_data().values, own["share"])
    assert [text.get_text() for text in legend.get_legend().get_texts()] == [
        "Calibrated, 95 %",
        "Raw",
        "Recalibrated",
    ]


def test_markets_without_ranks_stay_empty(monitoring: pl.DataFrame) -> None:
    _, panels = figure_grid(4, 2)
    without = monitoring.filter(~pl.col("market").is_in(["who retires", "how many retire"]))
    draw_rank_histograms(panels, rank_histograms(without))
    assert not panels[5].patches


def test_no_races_are_written_on_the_axes(monitoring: pl.DataFrame) -> None:
    none = monitoring.clear()
    assert draw_evidence(figure_axes()[1], none).texts[0].get_text() == "no races yet"
    _, panels = figure_grid(4, 2)
    draw_rank_histograms(panels, rank_histograms(none))
    assert panels[0].texts[0].get_text() == "no races yet"


def test_several_archetypes_are_refused() -> None:
    with pytest.raises(ValueError, match="A plot shows one archetype"):
        draw_evidence(figure_axes()[1], monitoring_table())
