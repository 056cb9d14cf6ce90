"""The terminal's tables: verdicts by archetype and era, scores by forecast, and the path of the report."""

import json

import polars as pl
from rich.console import Console

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.markets import ALL_MARKETS, EVENT_MARKETS, MARKETS
from calibration_pipeline.terminal.summary import MARKET_HEADS, print_summary, score_rows, verdict_rows
from helpers.example_report import ERAS, verdict_frame

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


def test_rows_hold_scores_and_worst_r_hat() -> None:
    raw, recalibrated = score_rows([Archetype.ROAD_COURSE], METRICS, CONVERGENCE)
    assert list(raw.values()) == ["Road course", "raw", "4.94", "-", ".51 .81 -", "-"]
    assert (recalibrated["CRPS"], recalibrated["R-hat"]) == ("-", "1.004")


def test_rows_hold_the_verdict_of_every_market() -> None:
    rows = verdict_rows(verdict_frame())
    assert len(rows) == 4 * len(ERAS)
    cells = ["trust", "recal-", "no", "open+", "trust-", "recal", "no+", "open-", "trust"]
    assert list(rows[0].values()) == ["Superspeedway", "from 2022", *cells]
    assert [market for market in MARKET_HEADS if market not in EVENT_MARKETS or market in MARKETS] == [
        ALL_MARKETS,
        *MARKETS,
    ]
    assert set(EVENT_MARKETS) <= set(MARKET_HEADS)


def test_tables_fit_a_terminal_and_name_the_report() -> None:
    scores = score_rows([Archetype.SUPERSPEEDWAY], METRICS, CONVERGENCE)
    console = Console(width=80, record=True, quiet=False)
    summary = json.dumps({"verdicts": verdict_rows(verdict_frame()), "scores": scores}, sort_keys=True)
    print_summary(console, json.loads(summary), "store/report.html")
    text = console.export_text()
    assert "Superspeedway trust recal- no open+" in " ".join(text.split())
    assert text.index("Verdicts, from 2022") < text.index("Verdicts, all races")
    assert "Archetype Forecast CRPS Log score 50/80/95 % R-hat" in " ".join(text.split())
    assert "Report: store/report.html" in text
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
