"""The catalogue: every stored table as a view that DuckDB can be asked in SQL.

Views read the Parquet files, so they are as new as these; the catalogue is rebuilt at will and holds no data.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import duckdb
import polars as pl
from duckdb import StatementType
from upath import UPath

from .contracts import BOUNDARIES, column_schema, value_type
from .metadata import OWNERS, table
from .settings import Settings
from .storage import ParquetIOManager, stored_partitions
from .stored_files import is_local

TABLES = tuple(asset for asset in BOUNDARIES if value_type(asset) is pl.DataFrame)


class Answer(NamedTuple):
    """The answer to a question: the names of its columns, and its first rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def create_views(connection: duckdb.DuckDBPyConnection, store: UPath) -> dict[str, str]:
    """Make a view of every table that is stored, its columns described as in the contracts.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    store : UPath
        Folder or object-store address of a source's assets.

    Returns
    -------
    dict[str, str]
        The tables whose files cannot be read, and why.
    """
    if not is_local(store):
        connection.register_filesystem(store.fs)
    unreadable = {}
    for asset, files in stored_tables(store).items():
        try:
            connection.execute(
                f"CREATE OR REPLACE VIEW {asset} AS "  # noqa: S608
                f"SELECT * FROM read_parquet({_quoted(files)}, union_by_name = true)"
            )
        except duckdb.Error as error:
            unreadable[asset] = " ".join(str(error).split())[:300]
            continue
        _describe(connection, asset)
    return unreadable


@dg.asset(
    group_name="report",
    kinds={"duckdb"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="catalogue",
    deps=["calibration_report"],
)
def catalogue(settings: dg.ResourceParam[Settings]) -> dg.Output[bytes]:
    """Put a DuckDB file of views over all tables beside them, for any DuckDB client."""
    store = settings.store_path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.duckdb"
        with duckdb.connect(path) as connection:
            if unreadable := create_views(connection, store):
                told = "; ".join(f"{name}: {why}" for name, why in unreadable.items())
                raise ValueError(f"Tables that cannot be read must be materialized again: {told}")
            views = _count_rows(connection)
        return dg.Output(path.read_bytes(), metadata={"views": table(views, 40)})


def ask(store: UPath, question: str, most_rows: int) -> Answer:
    """Answer a question in SQL from the stored tables.

    Only queries are allowed, and only the store's files can be read.

    Parameters
    ----------
    store : UPath
        Folder or object-store address of a source's assets.
    question : str
        One SQL query; the views are named as the assets.
    most_rows : int
        Rows of the answer that are returned.

    Raises
    ------
    ValueError
        If `question` is not one query, or DuckDB refuses it; the message says which tables there are.
    """
    with duckdb.connect() as connection:
        unreadable = create_views(connection, store)
        _lock(connection, store)
        try:
            _refuse_commands(connection.extract_statements(question))
            result = connection.execute(question)
            columns = tuple(column[0] for column in result.description or ())
            return Answer(columns, result.fetchmany(most_rows))
        except duckdb.Error as error:
            problem = str(error).strip()
            named = "".join(f"\n{table} cannot be read: {why}" for table, why in unreadable.items())
            known = ", ".join(sorted(stored_tables(store))) or "none yet"
            raise ValueError(f"{problem}\nTables: {known}.{named}") from error


def _lock(connection: duckdb.DuckDBPyConnection, store: UPath) -> None:
    """Let the connection read the store, and nothing else on this machine or elsewhere; it writes nowhere."""
    connection.execute("SET temp_directory = ''")
    connection.execute(f"SET allowed_directories = [{_quoted(_address(store))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _refuse_commands(statements: Sequence[duckdb.Statement]) -> None:
    if len(statements) != 1:
        raise ValueError(f"Ask one query at a time; got {len(statements)}.")
    if statements[0].type != StatementType.SELECT:
        raise ValueError(f"Only queries are answered; got a statement {statements[0].type.name}.")


def _count_rows(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    names = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
    counted = [connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in names]  # noqa: S608
    return pl.DataFrame({"view": names, "rows": counted}, schema={"view": pl.String, "rows": pl.Int64})


def _describe(connection: duckdb.DuckDBPyConnection, asset: str) -> None:
    for column in column_schema(asset).columns:
        connection.execute(
            f'COMMENT ON COLUMN {asset}."{column.name}" IS {_quoted(column.description or "")}'
        )


def stored_tables(store: UPath) -> dict[str, str]:
    """Return the tables that are stored, each with a pattern of its files."""
    tables = {}
    for asset in TABLES:
        single = store / f"{asset}{ParquetIOManager.extension}"
        if single.exists():
            tables[asset] = _address(single)
        elif stored_partitions(store / asset):
            tables[asset] = f"{_address(store / asset)}/*{ParquetIOManager.extension}"
    return tables


def _address(path: UPath) -> str:
    """Return `path` as DuckDB takes it."""
    return str(path.absolute()) if is_local(path) else str(path.fs.unstrip_protocol(path.path))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
