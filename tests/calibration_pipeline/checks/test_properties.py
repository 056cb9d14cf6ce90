"""Findings on values of which a part is unknown."""

import polars as pl
import pytest

from calibration_pipeline.checks import properties


def test_laps_led_are_summed_over_races_where_those_of_all_cars_are_known() -> None:
    """A car of the first race has no laps led; those of the second race add up."""
    results = pl.DataFrame(
        {"race_id": [1, 1, 2, 2], "laps_led": [6, None, 6, 4], "race_laps": [10, 10, 10, 10]}
    )
    finding = properties.results_laps_led_add_up(results)
    assert finding.passed
    assert finding.metadata["n"] == 1
    short = results.with_columns(laps_led=pl.Series([6, None, 6, 3]))
    assert properties.results_laps_led_add_up(short).metadata["estimate"] == 1


@pytest.mark.parametrize("column", ["ess_bulk", "ess_tail"])
def test_an_effective_sample_size_that_cannot_be_computed_does_not_pass(column: str) -> None:
    convergence = pl.DataFrame(
        {
            "fold": ["2021", "2021"],
            "parameter": ["slope", "fixed"],
            "ess_bulk": [900.0, 900.0],
            "ess_tail": [900.0, 900.0],
        }
    )
    assert properties.ess_is_high(convergence).passed
    unknown = convergence.with_columns(pl.when(parameter="slope").then(column).alias(column))
    finding = properties.ess_is_high(unknown)
    assert not finding.passed
    assert "fixed, fold 2021: not computable" in finding.sentence
