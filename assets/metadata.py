"""What the UI shows beside a value: plots, small tables, counts. Nothing is computed here."""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl
from matplotlib.figure import Figure

from calibration_pipeline import figures

from .contracts import column_schema

OWNERS = ["team:calibration"]
SHOWN_ROWS = 12
PLOTTED = ("crps", "log_score", "coverage", "head_to_head_slope")


def boundary(asset: str) -> dict[str, Any]:
    """Return an asset's static metadata: its columns or variables, from its contract."""
    return {"dagster/column_schema": column_schema(asset)}


def plot(figure: Figure) -> dg.MarkdownMetadataValue:
    """Return a figure as the UI shows it, inline."""
    encoded = base64.b64encode(figures.figure_png(figure)).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")


def table(frame: pl.DataFrame, rows: int = SHOWN_ROWS) -> dg.MarkdownMetadataValue:
    """Return the first rows of a frame as a Markdown table."""
    head = frame.head(rows)
    lines = ["| " + " | ".join(head.columns) + " |", "|" + " --- |" * head.width]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in head.iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))


def rows(frame: pl.DataFrame) -> dict[str, Any]:
    """Return the row count under the name that the UI plots over partitions."""
    return {"dagster/row_count": frame.height}


def counts(values: Mapping[str, int]) -> dict[str, dg.IntMetadataValue]:
    """Return counts as metadata, one entry each."""
    return {name: dg.MetadataValue.int(int(value)) for name, value in values.items()}


def plotted_scores(metrics: pl.DataFrame) -> dict[str, float]:
    """Return the scores that the UI plots over materializations, raw and recalibrated, by name."""
    chosen = metrics.filter(
        pl.col("quantity").is_in(PLOTTED)
        & pl.col("forecast").is_in(["raw", "recalibrated"])
        & (pl.col("reference") == "")
        & pl.col("estimate").is_not_null()
    )
    names = pl.concat_str(
        "quantity", pl.col("level").str.replace(" %", "").replace("", None), "forecast",
        separator="_", ignore_nulls=True,
    )  # fmt: skip
    return dict(chosen.select(names, "estimate").iter_rows())


def plotted_convergence(convergence: pl.DataFrame) -> dict[str, float]:
    """Return the worst diagnostics of all fits, which the UI plots over materializations."""
    worst = convergence.select(
        worst_r_hat=pl.max("r_hat"), least_ess_bulk=pl.min("ess_bulk"), least_ess_tail=pl.min("ess_tail")
    ).row(0, named=True)
    told = {name: value for name, value in worst.items() if value is not None}
    return {**told, "divergences": int(convergence.unique("fold")["divergences"].sum())} if told else {}


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
