"""DuckDB views of every stored table, and SQL queries over them.

Views read the Parquet files, so they are always up to date and hold no data.
"""

import glob
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb
import polars as pl
from duckdb import StatementType
from upath import UPath

from calibration_pipeline.io.addresses import is_local
from calibration_pipeline.schemas.contracts import (
    BOUNDARIES,
    BY_FORECASTER,
    BY_FORECASTER_AND_SEASON,
    value_type,
)

TABLE_SUFFIX = ".parquet"
NONE_DAMAGED: Mapping[str, str] = MappingProxyType({})
TABLES = tuple(asset for asset in BOUNDARIES if value_type(asset) is pl.DataFrame)


class QueryResult(NamedTuple):
    """Result of a query: the names of its columns, and its first rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class Column(NamedTuple):
    """Column of a view: the type in its contract, and its description."""

    dtype: str
    description: str


def create_views(
    connection: duckdb.DuckDBPyConnection, store: UPath, damaged: Mapping[str, str] = NONE_DAMAGED
) -> dict[str, str]:
    """Create a view of every stored table, with the column descriptions of the contracts.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    store : UPath
        Folder or object-store address of a source's and series' assets.
    damaged : mapping
        Tables that must not be read → the reason.

    Returns
    -------
    dict[str, str]
        The tables that cannot be read → the reason.
    """
    if not is_local(store):
        connection.register_filesystem(store.fs)
    unreadable = dict(damaged)
    for asset, files in stored_tables(store).items():
        if asset in damaged:
            continue
        try:
            connection.execute(
                f"CREATE OR REPLACE VIEW {asset} AS "  # noqa: S608
                f"SELECT {_columns(asset)} FROM read_parquet({_quoted(files)}, union_by_name = true)"
            )
            _describe(connection, asset)
        except duckdb.Error as error:
            unreadable[asset] = " ".join(str(error).split())[:300]
    return unreadable


def build_catalogue(store: UPath) -> tuple[bytes, pl.DataFrame]:
    """Return a DuckDB file of views over all stored tables, and the rows of each view.

    Parameters
    ----------
    store : UPath
        Folder or object-store address of a source's and series' assets.

    Raises
    ------
    ValueError
        If a table cannot be read; names each.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.duckdb"
        with duckdb.connect(path) as connection:
            if unreadable := create_views(connection, store):
                reasons = "; ".join(f"{name}: {why}" for name, why in unreadable.items())
                raise ValueError(f"Tables that cannot be read must be materialized again: {reasons}")
            names = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
            rows = [connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in names]  # noqa: S608
        views = pl.DataFrame({"view": names, "rows": rows}, schema={"view": pl.String, "rows": pl.Int64})
        return path.read_bytes(), views


def run_query(
    store: UPath, query: str, most_rows: int, damaged: Mapping[str, str] = NONE_DAMAGED
) -> QueryResult:
    """Run a SQL query over the stored tables.

    Only queries are allowed, and only the store's files can be read.

    Parameters
    ----------
    store : UPath
        Folder or object-store address of a source's assets.
    query : str
        One SQL query; the views have the names of the assets.
    most_rows : int
        Largest number of rows returned.
    damaged : mapping
        Tables that must not be read → the reason.

    Raises
    ------
    ValueError
        If `query` is not one query, or DuckDB refuses it; the message lists the stored tables.
    """
    with duckdb.connect() as connection:
        unreadable = create_views(connection, store, damaged)
        _lock(connection, store)
        try:
            _refuse_commands(connection.extract_statements(query))
            result = connection.execute(query)
            columns = tuple(column[0] for column in result.description or ())
            return QueryResult(columns, result.fetchmany(most_rows))
        except duckdb.Error as error:
            problem = str(error).strip()
            named = "".join(f"\n{table} cannot be read: {why}" for table, why in unreadable.items())
            known = ", ".join(sorted(stored_tables(store))) or "none yet"
            raise ValueError(f"{problem}\nTables: {known}.{named}") from error


def _lock(connection: duckdb.DuckDBPyConnection, store: UPath) -> None:
    """Restrict the connection to reading the store: no other file, no network and no writing."""
    connection.execute("SET temp_directory = ''")
    address = _address(store)  # patterns of files begin with its escaped form
    connection.execute(f"SET allowed_directories = [{_quoted(address)}, {_quoted(glob.escape(address))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _refuse_commands(statements: Sequence[duckdb.Statement]) -> None:
    if len(statements) != 1:
        raise ValueError(f"Run one query at a time; got {len(statements)}.")
    if statements[0].type != StatementType.SELECT:
        raise ValueError(f"Only queries are answered; got a statement {statements[0].type.name}.")


def _describe(connection: duckdb.DuckDBPyConnection, asset: str) -> None:
    """Describe the columns of a view; files of an earlier contract may lack some of today's."""
    columns = view_columns(asset)
    for name in connection.view(asset).columns:
        if name in columns:
            connection.execute(f'COMMENT ON COLUMN {asset}."{name}" IS {_quoted(columns[name].description)}')


def _columns(asset: str) -> str:
    """Return the columns of a view: those of the table, and the forecaster that a file or folder names."""
    if asset in BY_FORECASTER:
        return "parse_filename(filename, true) AS forecaster, *"
    if asset in BY_FORECASTER_AND_SEASON:
        return "parse_path(filename)[-2] AS forecaster, *"
    return "*"


def view_columns(asset: str) -> dict[str, Column]:
    """Return the columns of an asset's view by name: those of its contract, and the files' forecaster."""
    declared = {
        name: Column(str(column.dtype), column.description or "")
        for name, column in BOUNDARIES[asset].to_schema().columns.items()
    }
    if asset in BY_FORECASTER + BY_FORECASTER_AND_SEASON:
        return {"forecaster": Column("String", "Issuer of the forecasts"), **declared}
    return declared


def stored_tables(store: UPath) -> dict[str, str]:
    """Return the stored tables, each with a glob pattern of its files."""
    tables = {}
    for asset in TABLES:
        single = store / f"{asset}{TABLE_SUFFIX}"
        if single.exists():
            tables[asset] = glob.escape(_address(single))
        elif any((store / asset).rglob(f"[!.]*{TABLE_SUFFIX}")):
            tables[asset] = f"{glob.escape(_address(store / asset))}/**/*{TABLE_SUFFIX}"
    return tables


def _address(path: UPath) -> str:
    """Return `path` in the form that DuckDB reads."""
    return str(path.absolute()) if is_local(path) else str(path.fs.unstrip_protocol(path.path))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
