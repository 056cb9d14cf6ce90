"""Pictures of a fit: the right data, on separate figures, without global state."""

import re
import sys

import arviz as az
import numpy as np
import pytest
import xarray as xr

from calibration_pipeline.calibration.archetype_fit import thin
from calibration_pipeline.plots import figures, posteriors
from helpers.example_report import example_fit
from helpers.images import assert_on_paper, image_size

RACE_CHECKS = {
    posteriors.draw_predictive_distribution: (
        "Rank correlation of forecast order and finish",
        "Share of races",
    ),
    posteriors.draw_predictive_pit: ("PIT of the rank correlation", "Share of races − PIT"),
    posteriors.draw_predictive_pava: ("Predicted probability of many incidents", "Observed share"),
}


@pytest.fixture(scope="module")
def fit() -> xr.DataTree:
    return example_fit(0)


def test_checked_races_lie_along_one_dimension(fit):
    races = posteriors.checkable(fit)
    predicted, observed = races["posterior_predictive"], races["observed_data"]
    assert dict(predicted.sizes) == {"chain": 2, "draw": 30, "obs": 12}
    assert set(observed.dims) == {"obs"}
    np.testing.assert_array_equal(predicted["rank_correlation"], fit["posterior_predictive/rank_correlation"])
    usual = np.median(fit["observed_data/n_incidents"])
    np.testing.assert_array_equal(observed["many_incidents"], fit["observed_data/n_incidents"] > usual)


def test_likelihood_stands_at_the_predictive_draws(fit):
    races = posteriors.checkable(fit)
    expected = thin(fit["log_likelihood/result"].values, 30)
    np.testing.assert_array_equal(races["log_likelihood/rank_correlation"], expected)


@pytest.mark.parametrize(("draw", "labels"), RACE_CHECKS.items())
def test_checks_of_races_are_drawn(draw, labels, fit):
    figure = draw(posteriors.checkable(fit))
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == labels
    assert ax.lines
    assert_on_paper(figure)
    assert image_size(figures.figure_png(figure, dpi=100)) == (520, 340)


def test_ranks_have_a_line_for_each_chain_and_parameter(fit):
    axes = posteriors.draw_ranks(fit).axes
    assert len(axes) == 2 * len(posteriors.SHOWN_CHAINS)
    assert all(len(ax.lines) >= fit["posterior"].sizes["chain"] for ax in axes)


def test_ranks_are_tested_by_arviz(fit):
    """Test that a p-value stands beside each parameter, and falls below its level for chains apart."""
    apart = fit.copy()
    apart["posterior"] = (
        fit["posterior"]
        .to_dataset()
        .assign(intercept=fit["posterior/intercept"] + 3 * fit["posterior"].to_dataset()["chain"])
    )
    for tree, sign in ((fit, ","), (apart, "<")):
        figure = posteriors.draw_ranks(tree)
        assert_on_paper(figure)
        left, right = figure.axes[-2:]
        assert left.get_title() == "intercept"
        assert re.fullmatch(rf"p = [01]\.\d\d ?{sign} α = 0\.01", right.get_title())


def test_no_more_draws_are_ranked_than_the_test_needs(monkeypatch, fit):
    monkeypatch.setattr(posteriors, "RANKED_DRAWS", 20)
    points = {len(line.get_xdata()) for ax in posteriors.draw_ranks(fit).axes[1::2] for line in ax.lines}
    assert points == {10}


def test_pit_curves_lie_within_the_axes_and_are_tested(fit):
    (ax,) = posteriors.draw_predictive_pit(posteriors.checkable(fit)).axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label.split(": p = ")[0] for label in labels] == ["Posterior predictive", "Leave-one-out"]
    bottom, top = ax.get_ylim()
    assert bottom == -top
    curves = np.concatenate([line.get_ydata() for line in ax.lines])
    assert np.abs(curves).max() <= top


def test_pit_of_late_races_bends_upwards(fit):
    """Test that observations below all predictions put the curve above 0."""
    races = posteriors.checkable(fit)
    low = (
        races["observed_data"]
        .to_dataset()
        .assign(rank_correlation=races["posterior_predictive/rank_correlation"].min(["chain", "draw"]) - 0.1)
    )
    races["observed_data"] = low
    (ax,) = posteriors.draw_predictive_pit(races).axes
    curve = ax.lines[1].get_ydata()
    assert curve.max() > 0.9
    assert "p = 0.00 < α = 0.01" in ax.get_legend().get_texts()[0].get_text()


def test_energy_has_a_row_for_each_chain(fit):
    figure = posteriors.draw_energy(fit)
    assert_on_paper(figure)
    bfmi, energy = figure.axes
    assert list(bfmi.get_yticks()) == list(range(fit["posterior"].sizes["chain"]))
    limit, dots = bfmi.lines
    assert list(limit.get_xdata()) == [0.3, 0.3]
    np.testing.assert_allclose(dots.get_xdata(), az.bfmi(fit)["energy"])
    assert energy.get_xlabel() == "Energy, from its mean"
    assert len(energy.lines) == 2


def test_predicted_races_are_steps_of_their_shares(fit):
    races = posteriors.checkable(fit)
    (ax,) = posteriors.draw_predictive_distribution(races).axes
    (histories,) = ax.collections
    first, *others = histories.get_segments()
    assert len(others) + 1 == 2 * 15  # every second of 30 draws, of 2 chains
    drawn = np.sort(races["posterior_predictive/rank_correlation"].values[0, 0])
    np.testing.assert_allclose(first[::2, 0], drawn)
    np.testing.assert_allclose(first[1::2, 1], np.arange(1, 13) / 12)


def test_observed_races_stand_out_from_the_predicted(fit):
    races = posteriors.checkable(fit)
    (ax,) = posteriors.draw_predictive_distribution(races).axes
    strong = [line for line in ax.lines if line.get_alpha() is None]
    assert len(strong) == 1
    observed = np.sort(races["observed_data/rank_correlation"].values)
    drawn = np.asarray(strong[0].get_xdata())
    assert (drawn.min(), drawn.max()) == pytest.approx((observed[0], observed[-1]), abs=0.02)


def test_forest_has_a_row_for_every_archetype_and_season(fit):
    figure = posteriors.draw_slope_forest({"superspeedway": fit, "road_course": example_fit(1)})
    assert_on_paper(figure)
    labels, forest = figure.axes
    texts = [text.get_text() for text in labels.texts]
    assert texts.count("2021") == texts.count("2024") == 2
    assert {"Superspeedway", "Road course"} <= set(texts)
    medians = np.median(np.exp(fit["posterior/log_slope"]), axis=(0, 1))
    dots = np.concatenate([dot.get_offsets() for dot in forest.collections])
    assert len(dots) == 8
    for median in medians:
        assert np.isclose(dots[:, 0], median).any()
    assert forest.yaxis_inverted()


def test_one_archetype_has_a_forest_too(fit):
    labels, forest = posteriors.draw_slope_forest({"short_track": fit}).axes
    assert "Short track" in [text.get_text() for text in labels.texts]
    assert len(np.concatenate([dot.get_offsets() for dot in forest.collections])) == 4


def test_nothing_is_left_behind(fit):
    posteriors.draw_ranks(fit)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
