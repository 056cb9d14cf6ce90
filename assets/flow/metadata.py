"""Metadata of assets as the UI shows them beside a value: plots, small tables, lists, counts.

Nothing is computed here. Every text in Markdown is escaped, since names and messages come from a source.
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import polars as pl

from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.schemas.contracts import BOUNDARIES, declared_columns, value_type

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWNERS = ["team:calibration"]
SHOWN_ROWS = 12


def described(
    asset: dg.AssetsDefinition, groups: Mapping[str, str], deadline: dg.FreshnessPolicy | None
) -> dg.AssetsDefinition:
    """Return an asset with its group of the UI, its owners, and the columns or variables of its contract.

    It is overdue from the deadline on, where there is one; the track catalogue never is.
    """
    return asset.map_asset_specs(
        lambda spec: spec.replace_attributes(
            group_name=groups[spec.key.path[-1]],
            owners=OWNERS,
            freshness_policy=None if spec.key.path[-1] == "track_constraints" else deadline,
            metadata={**_column_schema(spec.key.path[-1]), **spec.metadata},
        )
    )


def plot(figure: "Figure") -> dg.MarkdownMetadataValue:
    """Return a figure as the UI shows it, inline."""
    from calibration_pipeline.plots import figures  # imported late: Matplotlib loads slowly

    encoded = base64.b64encode(figures.figure_png(figure)).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")


def chart(draw: Callable[["Axes", pl.DataFrame], object], frame: pl.DataFrame, **rows: Any) -> Any:
    """Return what `draw` draws of a frame, as the UI shows it; `rows` as in `figures.rows_height`."""
    from calibration_pipeline.plots import figures

    figure, ax = figures.figure_axes(**({"height": figures.rows_height(**rows)} if rows else {}))
    draw(ax, frame)
    return plot(figure)


def table(frame: pl.DataFrame, rows: int = SHOWN_ROWS) -> dg.TableMetadataValue:
    """Return the first rows of a frame as a table; floats with four significant digits."""
    records = [
        dg.TableRecord({name: _cell(value) for name, value in row.items()})
        for row in frame.head(rows).iter_rows(named=True)
    ]
    columns = [dg.TableColumn(name) for name in frame.columns]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def bullets(lines: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Return lines as a Markdown list; "nothing" where there are none."""
    return dg.MetadataValue.md("\n".join(f"- {escape_text(line)}" for line in lines) or "nothing")


def number(value: float) -> float:
    """Return a number with at most four significant digits; integers stay as they are."""
    return int(value) if isinstance(value, int | np.integer) else float(f"{value:.4g}")


def rows(frame: pl.DataFrame) -> dict[str, Any]:
    """Return the row count under the name that the UI plots over partitions."""
    return {"dagster/row_count": frame.height}


def numbers(values: Mapping[str, float]) -> dict[str, float]:
    """Return numbers as metadata, which the UI plots over materializations; four significant digits each."""
    return {name: number(value) for name, value in values.items()}


def column_lineage(
    asset: dg.AssetKey,
    parents: Mapping[str, Mapping[str, Iterable[str]]],
    passed_on: Mapping[str, Iterable[str]],
) -> dict[str, dg.TableColumnLineage]:
    """Return the metadata entry that draws a table's column lineage.

    Parameters
    ----------
    asset : dagster.AssetKey
        The table. Its parents have the same prefix.
    parents : mapping
        Parent asset → column → the parent's columns that it is computed from.
    passed_on : mapping
        Parent asset → columns that are the parent's own.
    """
    deps_by_column: dict[str, list[dg.TableColumnDep]] = {}
    same = {parent: {name: (name,) for name in names} for parent, names in passed_on.items()}
    for computed_from in (same, parents):
        for parent, columns in computed_from.items():
            key = dg.AssetKey([*asset.path[:-1], parent])
            for column, sources in columns.items():
                deps = [dg.TableColumnDep(key, source) for source in sources]
                deps_by_column.setdefault(column, []).extend(deps)
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps_by_column)}


def _column_schema(asset: str) -> dict[str, dg.TableSchema]:
    if asset not in BOUNDARIES:
        return {}
    is_frame = value_type(asset) is pl.DataFrame
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            column.description,
            dg.TableColumnConstraints(nullable=column.nullable) if is_frame else None,
        )
        for column in declared_columns(asset)
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}


def _cell(value: object) -> str | int | float | bool | None:
    if isinstance(value, float):
        return number(value)
    return value if value is None or isinstance(value, bool | int) else str(value)
