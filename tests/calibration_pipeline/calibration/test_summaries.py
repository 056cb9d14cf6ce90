"""Summaries of a fit: parameters that the data inform, and predictive checks of its races."""

import numpy as np
import pytest
import xarray as xr

from calibration_pipeline.calibration.summaries import INFORMED, identification, predictive_checks

SEASONS = [2021, 2022, 2023]


def fit_of(
    n_races: int, *, shrink: float = 1.0, observed: tuple[float, float] = (0.5, 6.0), seed: int = 0
) -> xr.DataTree:
    """A fit whose posterior is the prior; slopes of seen seasons and the intercept are `shrink` as wide."""
    rng = np.random.default_rng(seed)
    shape = (2, 1000)

    def group(scale: float) -> xr.Dataset:
        values = {name: rng.normal(0, 0.3, shape) for name in ("slope_mu", "intercept")}
        values |= {name: np.abs(rng.normal(0, 0.3, shape)) for name in ("slope_sigma", "noise_sigma")}
        values["intercept"] = values["intercept"] * scale
        log_slope = rng.normal(0, 0.3, (*shape, 3)) * np.array([scale, scale, 1.0])
        data = {name: (("chain", "draw"), array.astype(np.float32)) for name, array in values.items()}
        data["log_slope"] = (("chain", "draw", "season"), log_slope.astype(np.float32))
        return xr.Dataset(data, {"season": SEASONS})

    def predictive() -> xr.Dataset:
        size = (*shape, n_races)
        return xr.Dataset(
            {
                "rank_correlation": (("chain", "draw", "race"), rng.normal(0.5, 0.2, size)),
                "n_incidents": (("chain", "draw", "race"), rng.poisson(6.0, size)),
            }
        )

    happened = {
        "rank_correlation": ("race", np.full(n_races, observed[0])),
        "n_incidents": ("race", np.full(n_races, observed[1])),
    }
    tree = xr.DataTree.from_dict(
        {
            "posterior": group(shrink),
            "prior": group(1.0),
            "posterior_predictive": predictive(),
            "prior_predictive": predictive(),
            "observed_data": xr.Dataset(happened),
        }
    )
    tree.attrs = {"archetype": "road_course"}
    return tree


def test_identification_separates_findings_from_the_prior():
    """Every parameter and season by name; half the prior's sd is a contraction of 3/4."""
    table = identification(fit_of(8, shrink=0.5))
    scalars = ["slope_mu", "slope_sigma", "noise_sigma", "intercept"]
    assert table["parameter"].to_list() == scalars + [f"log_slope[{season}]" for season in SEASONS]
    informed = table.filter("informed")["parameter"].to_list()
    assert informed == ["intercept", "log_slope[2021]", "log_slope[2022]"]
    contraction = dict(table.select("parameter", "contraction").iter_rows())
    assert contraction["log_slope[2022]"] == pytest.approx(0.75, abs=0.05)
    assert contraction["log_slope[2023]"] == pytest.approx(0.0, abs=INFORMED)
    assert (table["lower"] <= table["mean"]).all()
    assert (table["mean"] <= table["upper"]).all()


def test_a_fit_without_information_informs_nothing():
    assert not identification(fit_of(8))["informed"].any()


def test_predictive_checks_compare_observed_and_replicated_races():
    """Means in the middle of the replicated ones raise no doubt; far off they do."""
    good = predictive_checks(fit_of(8))
    assert good.select("statistic", "group").rows() == [
        (statistic, group)
        for statistic in ("rank_correlation", "n_incidents")
        for group in ("prior", "posterior")
    ]
    assert good["archetype"].unique().to_list() == ["road_course"]
    assert (good["tail_probability"] > 0.8).all()
    assert (good["tail_probability"] <= 1).all()
    np.testing.assert_allclose(good["observed"], [0.5, 0.5, 6.0, 6.0])
    np.testing.assert_allclose(good["upper"] - good["lower"], [0.28, 0.28, 3.4, 3.4], rtol=0.1)
    bad = predictive_checks(fit_of(8, observed=(0.9, 2.0)))
    assert (bad["tail_probability"] < 0.01).all()


def test_no_races_no_checks():
    assert predictive_checks(fit_of(0)).is_empty()
    assert predictive_checks(fit_of(0)).columns == predictive_checks(fit_of(3)).columns
