"""Metadata: the numbers that the UI plots over materializations."""

import polars as pl

from assets.metadata import plotted_convergence, plotted_scores


def test_scores_are_named_by_quantity_level_and_forecast() -> None:
    metrics = pl.DataFrame(
        [
            ("crps", "", "", "raw", 5.0),
            ("crps", "", "", "recalibrated", 4.9),
            ("crps", "", "", "climatology", 6.0),
            ("crps_skill", "", "climatology", "raw", 0.2),
            ("coverage", "80 %", "", "raw", 0.78),
            ("head_to_head_slope", "", "", "raw", None),
        ],
        schema=["quantity", "level", "reference", "forecast", "estimate"],
        orient="row",
    )
    assert plotted_scores(metrics) == {"crps_raw": 5.0, "crps_recalibrated": 4.9, "coverage_80_raw": 0.78}
    assert plotted_scores(metrics.clear()) == {}


def test_convergence_is_the_worst_of_all_fits() -> None:
    convergence = pl.DataFrame(
        {
            "fold": ["2023", "2023", "latest"],
            "parameter": ["a", "b", "a"],
            "r_hat": [1.001, 1.02, 1.0],
            "ess_bulk": [900.0, 800.0, 1200.0],
            "ess_tail": [700.0, 950.0, 1100.0],
            "divergences": [3, 3, 1],
        }
    )
    assert plotted_convergence(convergence) == {
        "worst_r_hat": 1.02,
        "least_ess_bulk": 800.0,
        "least_ess_tail": 700.0,
        "divergences": 4.0,
    }
    assert plotted_convergence(convergence.clear()) == {}
