"""Terminal output of SQL queries: the stored tables, and the rows of an answer."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from upath import UPath

from calibration_pipeline.io.escaping import escape_markup
from calibration_pipeline.io.sql import run_query, stored_tables, view_columns
from calibration_pipeline.schemas.contracts import BOUNDARIES

MOST_ROWS = 200
MOST_COLUMNS = 10_000
"""Characters of the longest line in a file or pipe."""


def print_tables(console: Console, store: UPath) -> None:
    """Print the stored tables with their columns."""
    for name in stored_tables(store):
        about = (BOUNDARIES[name].__doc__ or "").strip().splitlines()[0]
        console.print(f"[bold]{name}[/]: {escape(about)}", highlight=False)
        columns = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
        for column, (dtype, description) in view_columns(name).items():
            columns.add_row(f"  {column}", dtype, escape(description))
        console.print(columns)


def print_answer(console: Console, store: UPath, question: str, damaged: Mapping[str, str]) -> None:
    """Print the rows of an SQL query.

    Parameters
    ----------
    console : rich.console.Console
    store : UPath
        Folder or object-store address of a source's and series' assets.
    question : str
    damaged : mapping
        Tables that must not be read → the reason.

    Raises
    ------
    ValueError
        If the question is refused.
    """
    answer = run_query(store, question, MOST_ROWS + 1, damaged)
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in answer.columns:
        grid.add_column(escape_markup(column), overflow="fold")
    for row in answer.rows[:MOST_ROWS]:
        grid.add_row(*(_cell(value) for value in row))
    if not console.is_terminal:  # in a file or pipe each row is one line, however wide
        unlimited = console.options.update(max_width=MOST_COLUMNS)
        console.width = max(console.width, Measurement.get(console, unlimited, grid).maximum)
    console.print(grid)
    if len(answer.rows) > MOST_ROWS:
        console.print(f"Only the first {MOST_ROWS} rows are shown: add LIMIT, or aggregate.", highlight=False)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else escape_markup(str(value))
