"""Terminal summary of a run: scores and verdict per archetype, and the path of the report."""

from collections.abc import Mapping, Sequence

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from calibration_pipeline.verification.cases import JUDGED
from calibration_pipeline.verification.verdicts import Verdict

LEVELS = ("50 %", "80 %", "95 %")
COLUMNS = ("Archetype", "Forecast", "CRPS", "Log score", "50/80/95 %", "R-hat", "Verdict")


def summary_rows(
    verdicts: Sequence[Verdict], metrics: pl.DataFrame, convergence: pl.DataFrame
) -> list[dict[str, str]]:
    """Return the table's rows: one for each archetype and forecast.

    Parameters
    ----------
    verdicts : sequence of Verdict
    metrics : polars.DataFrame
        `MetricTable` of all archetypes.
    convergence : polars.DataFrame
        archetype, r_hat.
    """
    estimates = {
        tuple(key): estimate
        for *key, estimate in metrics.select("archetype", "forecast", "quantity", "level", "estimate").rows()
    }
    worst = dict(convergence.group_by("archetype").agg(pl.col("r_hat").max()).rows())

    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        {
            "Archetype": verdict.archetype.label,
            "Forecast": forecast,
            "CRPS": shown(estimates.get((verdict.archetype, forecast, "crps", "")), 2),
            "Log score": shown(estimates.get((verdict.archetype, forecast, "log_score", "")), 3),
            "50/80/95 %": " ".join(
                shown(estimates.get((verdict.archetype, forecast, "coverage", level)), 2).removeprefix("0")
                for level in LEVELS
            ),
            "R-hat": shown(worst.get(verdict.archetype), 3) if forecast == "recalibrated" else "-",
            "Verdict": verdict.verdict if forecast == JUDGED[0] else "",
        }
        for verdict in verdicts
        for forecast in JUDGED
    ]


def print_summary(console: Console, rows: Sequence[Mapping[str, str]], report: str) -> None:
    """Print the scores and verdicts of a report, and its path.

    Parameters
    ----------
    console : rich.console.Console
    rows : sequence of mapping
        As `summary_rows` returns them.
    report : str
        Path or address.
    """
    table = Table(
        title="Races that no fit had seen: scores, share of finishes inside the intervals",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for column in COLUMNS:
        table.add_column(column, no_wrap=column != "Verdict")
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    console.print()
    console.print(table)
    console.print()
    console.print(f"Report: {report}", highlight=False)
