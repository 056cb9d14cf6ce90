"""The catalogue: every stored table as a view in one DuckDB file. It is rebuilt at will and holds no data."""

import tempfile
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
from upath import UPath

from calibration_pipeline.io.sql import create_views

from ..settings import Settings
from .metadata import OWNERS, table


@dg.asset(
    group_name="report",
    kinds={"duckdb"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="catalogue",
)
def catalogue(
    settings: dg.ResourceParam[Settings],
    calibration_report: UPath,  # noqa: ARG001  # the tables that the report was written from are all there
) -> dg.Output[bytes]:
    """DuckDB file of views over all tables, for any DuckDB client."""
    store = settings.store_path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.duckdb"
        with duckdb.connect(path) as connection:
            if unreadable := create_views(connection, store):
                reasons = "; ".join(f"{name}: {why}" for name, why in unreadable.items())
                raise ValueError(f"Tables that cannot be read must be materialized again: {reasons}")
            views = _count_rows(connection)
        return dg.Output(path.read_bytes(), metadata={"views": table(views, 40)})


def _count_rows(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    names = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
    counted = [connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in names]  # noqa: S608
    return pl.DataFrame({"view": names, "rows": counted}, schema={"view": pl.String, "rows": pl.Int64})
