"""The terminal's table: one row an archetype and forecast, and where the report lies."""

import polars as pl
from rich.console import Console

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.terminal.summary import print_summary, summary_rows
from calibration_pipeline.verification.verdicts import Verdict

METRICS = pl.DataFrame(
    {
        "archetype": ["road_course"] * 4,
        "forecast": ["raw"] * 4,
        "quantity": ["crps", "coverage", "coverage", "log_score"],
        "level": ["", "50 %", "80 %", ""],
        "estimate": [4.938, 0.513, 0.809, None],
    }
)
CONVERGENCE = pl.DataFrame({"archetype": ["road_course", "road_course"], "r_hat": [1.001, 1.004]})


def test_rows_hold_scores_worst_r_hat_and_verdict() -> None:
    verdict = Verdict(Archetype.ROAD_COURSE, "cannot tell yet", ["Few races."])
    raw, recalibrated = summary_rows([verdict], METRICS, CONVERGENCE)
    assert list(raw.values()) == ["Road course", "raw", "4.94", "-", ".51 .81 -", "-", "cannot tell yet"]
    assert (recalibrated["CRPS"], recalibrated["R-hat"]) == ("-", "1.004")


def test_table_fits_a_terminal_and_names_the_report() -> None:
    verdict = Verdict(Archetype.SUPERSPEEDWAY, "trust after recalibration", ["Within the limits."])
    rows = summary_rows([verdict], METRICS, CONVERGENCE)
    console = Console(width=80, record=True, quiet=False)
    print_summary(console, rows, "store/report.html")
    text = console.export_text()
    assert "Superspeedway" in text
    assert "recalibrated" in text
    assert "Report: store/report.html" in text
    assert "…" not in text
