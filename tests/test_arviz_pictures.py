"""What ArviZ draws of a fit: the right data, on figures of our own, with nothing left behind."""

import sys

import numpy as np
import pytest
import xarray as xr
from made_up_report import made_up_fit
from matplotlib.figure import Figure

from calibration_pipeline.calibration.walk_forward import thin
from calibration_pipeline.plots import figures
from calibration_pipeline.plots import posteriors as arviz_pictures

OF_RACES = [
    arviz_pictures.draw_predictive_distribution,
    arviz_pictures.draw_predictive_pit,
    arviz_pictures.draw_loo_pit,
    arviz_pictures.draw_predictive_pava,
]
OF_FITS = [arviz_pictures.draw_ranks, arviz_pictures.draw_energy]


@pytest.fixture(scope="module")
def fit() -> xr.DataTree:
    return made_up_fit(0)


def test_checked_races_lie_along_one_dimension(fit):
    races = arviz_pictures.checkable(fit)
    predicted, observed = races["posterior_predictive"], races["observed_data"]
    assert dict(predicted.sizes) == {"chain": 2, "draw": 30, "obs": 12}
    assert set(observed.dims) == {"obs"}
    np.testing.assert_array_equal(predicted["rank_correlation"], fit["posterior_predictive/rank_correlation"])
    usual = np.median(fit["observed_data/n_incidents"])
    np.testing.assert_array_equal(observed["many_incidents"], fit["observed_data/n_incidents"] > usual)


def test_likelihood_stands_at_the_predictive_draws(fit):
    races = arviz_pictures.checkable(fit)
    expected = thin(fit["log_likelihood/result"].values, 30)
    np.testing.assert_array_equal(races["log_likelihood/rank_correlation"], expected)


@pytest.mark.parametrize("draw", OF_RACES)
def test_checks_of_races_are_drawn(draw, fit):
    figure = draw(arviz_pictures.checkable(fit))
    (ax,) = figure.axes
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.lines or ax.collections
    assert figures.figure_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", OF_FITS)
def test_chains_are_drawn(draw, fit):
    figure = draw(fit)
    assert isinstance(figure, Figure)
    assert all(ax.has_data() for ax in figure.axes)


def test_observed_races_stand_out_from_the_predicted(fit):
    races = arviz_pictures.checkable(fit)
    (ax,) = arviz_pictures.draw_predictive_distribution(races).axes
    strong = [line for line in ax.lines if line.get_alpha() is None]
    assert len(strong) == 1
    observed = np.sort(races["observed_data/rank_correlation"].values)
    drawn = np.asarray(strong[0].get_xdata())
    assert (drawn.min(), drawn.max()) == pytest.approx((observed[0], observed[-1]), abs=0.02)


def test_forest_has_a_row_for_every_kind_of_track_and_season(fit):
    figure = arviz_pictures.draw_slope_forest({"superspeedway": fit, "road_course": made_up_fit(1)})
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


def test_one_kind_of_track_has_a_forest_too(fit):
    assert len(arviz_pictures.draw_slope_forest({"short_track": fit}).axes) == 2


def test_nothing_is_left_behind(fit):
    arviz_pictures.draw_ranks(fit)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
