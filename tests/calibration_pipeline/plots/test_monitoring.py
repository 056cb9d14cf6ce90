"""Tests of the charts of sequential monitoring: artists have the values of their frames."""

import itertools

import numpy as np
import polars as pl
import pytest
from matplotlib.patches import StepPatch

from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS
from calibration_pipeline.plots.figures import figure_axes
from calibration_pipeline.plots.monitoring import draw_evidence, draw_rank_histograms
from calibration_pipeline.verification.monitoring import LOG10_ALARM, rank_histograms
from helpers.example_report import monitoring_table
from helpers.images import assert_on_paper


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
    """Test that each market has a row, in which the height of a step is the share of its ranks."""
    histograms = rank_histograms(monitoring)
    ax = draw_rank_histograms(figure_axes()[1], histograms)
    assert [text.get_text() for text in ax.texts] == [market.capitalize() for market in RACE_MARKETS]
    steps = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
    drawn = iter(steps)
    for market in RACE_MARKETS:
        for forecast in ("raw", "recalibrated"):
            own = histograms.filter(market=market, forecast=forecast).sort("bin")
            values, _, baseline = next(drawn)
            np.testing.assert_allclose(values - baseline, own["share"])
    baselines = [float(step.baseline) for step in steps]
    assert baselines == sorted(baselines, reverse=True)
    assert len(set(baselines)) == len(RACE_MARKETS)
    pitch = baselines[0] - baselines[2]
    assert max(float(step.values.max() - step.baseline) for step in steps) < pitch
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Calibrated, 95 %", "Raw", "Recalibrated"]


def test_the_band_of_calibrated_ranks_lies_in_its_row(monitoring: pl.DataFrame) -> None:
    histograms = rank_histograms(monitoring)
    ax = draw_rank_histograms(figure_axes()[1], histograms)
    first = histograms.filter(market=RACE_MARKETS[0])
    baseline = next(patch for patch in ax.patches if isinstance(patch, StepPatch)).get_data().baseline
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.ymin - baseline, band.ymax - baseline) == pytest.approx(
        (first["lower"][0], first["upper"][0])
    )


def test_markets_without_ranks_stay_empty(monitoring: pl.DataFrame) -> None:
    without = monitoring.filter(~pl.col("market").is_in(["who retires", "how many retire"]))
    ax = draw_rank_histograms(figure_axes()[1], rank_histograms(without))
    assert len(ax.texts) == len(RACE_MARKETS)
    assert len(ax.patches) == 2 * (len(RACE_MARKETS) - 2)


def test_labels_of_seasons_stand_apart(monitoring: pl.DataFrame) -> None:
    """Test that a season of few races gives way to the label of the season before."""
    first_season = monitoring.filter(season=2023)
    many = [
        first_season.with_columns(
            season=pl.col("season") + later, race_order=pl.col("race_order") + 100 * later
        )
        for later in range(20)
    ]
    figure, ax = figure_axes()
    draw_evidence(ax, pl.concat(many))
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert len(labels) > 5
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(labels))


def test_everything_stays_on_the_paper(monitoring: pl.DataFrame) -> None:
    """No label, title or legend is cut at the figure's edge, for the longest name of an archetype."""
    longest = monitoring.with_columns(archetype=pl.lit("superspeedway"))
    for draw, frame in ((draw_evidence, longest), (draw_rank_histograms, rank_histograms(longest))):
        figure, ax = figure_axes(height=5.7)
        draw(ax, frame)
        assert_on_paper(figure)


def test_no_races_are_written_on_the_axes(monitoring: pl.DataFrame) -> None:
    none = monitoring.clear()
    assert draw_evidence(figure_axes()[1], none).texts[0].get_text() == "no races yet"
    empty = draw_rank_histograms(figure_axes()[1], rank_histograms(none))
    assert empty.texts[0].get_text() == "no races yet"


def test_several_archetypes_are_refused() -> None:
    with pytest.raises(ValueError, match="A plot shows one archetype"):
        draw_evidence(figure_axes()[1], monitoring_table())
