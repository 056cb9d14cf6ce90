"""Metadata: the numbers that the UI plots over materializations, and tables and lists of escaped text."""

import math

import numpy as np
import polars as pl
import pytest

from assets.flow.metadata import bullets, number, numbers, table
from calibration_pipeline.calibration.summaries import worst_convergence
from calibration_pipeline.verification.metric_table import headline_scores
from helpers.rendered import HOSTILE, ORDINARY, RenderedMarkdown, on_one_line


def test_scores_are_named_by_quantity_level_and_forecast() -> None:
    metrics = pl.DataFrame(
        [
            ("crps", "", "", "raw", 5.012345),
            ("crps", "", "", "recalibrated", 4.9),
            ("crps", "", "", "climatology", 6.0),
            ("crps_skill", "", "climatology", "raw", 0.2),
            ("coverage", "80 %", "", "raw", 0.78),
            ("head_to_head_slope", "", "", "raw", None),
        ],
        schema=["quantity", "level", "reference", "forecast", "estimate"],
        orient="row",
    )
    assert numbers(headline_scores(metrics)) == {
        "crps_raw": 5.012,
        "crps_recalibrated": 4.9,
        "coverage_80_raw": 0.78,
    }
    assert headline_scores(metrics.clear()) == {}


def test_convergence_is_the_worst_of_all_fits() -> None:
    convergence = pl.DataFrame(
        {
            "fold": ["2023", "2023", "latest"],
            "parameter": ["a", "b", "a"],
            "r_hat": [1.001, 1.0204321, 1.0],
            "ess_bulk": [900.0, 800.0123, 1200.0],
            "ess_tail": [700.0, 950.0, 1100.0],
            "divergences": [3, 3, 1],
        }
    )
    assert numbers(worst_convergence(convergence)) == {
        "worst_r_hat": 1.02,
        "least_ess_bulk": 800.0,
        "least_ess_tail": 700.0,
        "divergences": 4.0,
    }
    assert worst_convergence(convergence.clear()) == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, 0.1235),
        (-1234567.8, -1235000.0),
        (1.23456e-7, 1.235e-7),
        (0.5, 0.5),
        (0.0, 0.0),
        (math.inf, math.inf),
        (np.float32(0.1), 0.1),
        (123456789, 123456789),
        (np.int64(123456), 123456),
    ],
)
def test_numbers_have_at_most_four_significant_digits(value: float, shown: float) -> None:
    assert number(value) == shown
    assert type(number(value)) is type(shown)
    assert math.isnan(number(math.nan))


def test_a_table_keeps_texts_numbers_and_nulls_and_shows_the_first_rows_only() -> None:
    texts = HOSTILE + ORDINARY
    frame = pl.DataFrame({"driver": [*texts, None], "win": 0.123456, "n": 1})
    shown = table(frame, len(texts))
    assert [column.name for column in shown.schema.columns] == ["driver", "win", "n"]
    assert [record.data for record in shown.records] == [
        {"driver": text, "win": 0.1235, "n": 1} for text in texts
    ]
    assert table(frame, len(texts) + 1).records[-1].data["driver"] is None


def test_texts_in_lists_are_displayed_as_they_are_written() -> None:
    texts = HOSTILE + ORDINARY
    shown = RenderedMarkdown(bullets(texts).value)
    assert shown.elements <= {"ul", "li", "code"}
    assert (shown.addresses, shown.bare_links) == ([], [])
    assert [line for line in shown.text.split("\n") if line] == [on_one_line(text) for text in texts]
    assert bullets([]).value == "nothing"
