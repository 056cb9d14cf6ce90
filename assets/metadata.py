"""What the UI shows beside a value: plots, small tables, counts. Nothing is computed here."""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl
from matplotlib.figure import Figure

from assets.contracts import column_schema
from calibration_pipeline import figures

OWNERS = ["team:calibration"]
SHOWN_ROWS = 12


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


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
