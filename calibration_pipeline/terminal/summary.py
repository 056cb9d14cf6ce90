"""Terminal summary of a run: matrix of verdicts, scores per archetype, and the path of the report."""

from collections.abc import Mapping, Sequence

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from calibration_pipeline.archetypes import Archetype, parse_archetype
from calibration_pipeline.verification.cases import JUDGED

LEVELS = ("50 %", "80 %", "95 %")
MARKET_HEADS = {
    "all markets": "All",
    "win": "Win",
    "top 3": "Top3",
    "top 5": "Top5",
    "top 10": "Top10",
    "top 20": "Top20",
    "head to head": "H2H",
    "finish distribution": "Finish",
    "who retires": "Who",
    "how many retire": "Many",
    "joint events": "Joint",
}
SCORE_COLUMNS = ("Archetype", "Forecast", "CRPS", "Log score", "50/80/95 %", "R-hat")
SHORT_RULINGS = {
    "trust": "trust",
    "trust after recalibration": "recal",
    "do not trust": "no",
    "cannot tell yet": "open",
}
EFFECT_SIGNS = {"helps": "+", "costs": "-"}
SHOWN = ("market", "verdict", "recalibration")
LEGEND = (
    "recal: trust after recalibration. no: do not trust. open: cannot tell yet.\n"
    "+ recalibration helps, - it costs. Who, Many: who retires, and how many.\n"
    "The report has the evidence."
)


def verdict_rows(verdicts: pl.DataFrame) -> list[dict[str, str]]:
    """Return the rows of the matrix of verdicts: one for each archetype and era.

    Parameters
    ----------
    verdicts : polars.DataFrame
        `VerdictTable` of all archetypes.
    """
    rows = []
    for (archetype, era), own in verdicts.filter(line=1).group_by("archetype", "era", maintain_order=True):
        rulings = {market: (ruling, effect) for market, ruling, effect in own.select(SHOWN).iter_rows()}
        cells = {head: _short(*rulings[market]) for market, head in MARKET_HEADS.items() if market in rulings}
        rows.append({"Archetype": parse_archetype(str(archetype)).label, "Era": str(era), **cells})
    return rows


def _short(ruling: str, effect: str | None) -> str:
    return SHORT_RULINGS[ruling] + EFFECT_SIGNS.get(effect or "", "")


def score_rows(
    archetypes: Sequence[Archetype], metrics: pl.DataFrame, convergence: pl.DataFrame
) -> list[dict[str, str]]:
    """Return the rows of the scores: one for each archetype and forecast; none for event probabilities.

    Parameters
    ----------
    archetypes : sequence of Archetype
    metrics : polars.DataFrame
        `MetricTable` of all archetypes.
    convergence : polars.DataFrame
        archetype, r_hat.
    """
    estimates = {
        tuple(key): estimate
        for *key, estimate in metrics.select("archetype", "forecast", "quantity", "level", "estimate").rows()
    }
    if metrics.height and "crps" not in metrics["quantity"]:
        return []
    worst = dict(convergence.group_by("archetype").agg(pl.col("r_hat").max()).rows())

    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        {
            "Archetype": archetype.label,
            "Forecast": forecast,
            "CRPS": shown(estimates.get((archetype, forecast, "crps", "")), 2),
            "Log score": shown(estimates.get((archetype, forecast, "log_score", "")), 3),
            "50/80/95 %": " ".join(
                shown(estimates.get((archetype, forecast, "coverage", level)), 2).removeprefix("0")
                for level in LEVELS
            ),
            "R-hat": shown(worst.get(archetype), 3) if forecast == "recalibrated" else "-",
        }
        for archetype in archetypes
        for forecast in JUDGED
    ]


def print_summary(console: Console, summary: Mapping[str, Sequence[Mapping[str, str]]], report: str) -> None:
    """Print the verdicts and scores of a report, and its path.

    Parameters
    ----------
    console : rich.console.Console
    summary : mapping
        'verdicts' and 'scores' to rows, as `verdict_rows` and `score_rows` return them.
    report : str
        Path or address.
    """
    title = "Races that no recalibration had seen: scores, share of finishes inside the intervals"
    console.print()
    for era in dict.fromkeys(row["Era"] for row in summary["verdicts"]):
        rows = [row for row in summary["verdicts"] if row["Era"] == era]
        verdicts = f"Can the forecasts be trusted? Verdicts, {era}"
        columns = ["Archetype", *(head for head in MARKET_HEADS.values() if head in rows[0])]
        console.print(_table(verdicts, columns, rows, gap=0))
        console.print()
    console.print(LEGEND, highlight=False)
    console.print()
    if summary["scores"]:
        console.print(_table(title, SCORE_COLUMNS, summary["scores"]))
        console.print()
    console.print(f"Report: {report}", highlight=False, markup=False)


def _table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, str]], gap: int = 1) -> Table:
    """Return a table whose columns are `gap` + 1 spaces apart."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    return table
