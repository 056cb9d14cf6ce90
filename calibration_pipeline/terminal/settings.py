"""The settings on the terminal, and where each value comes from."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def print_settings(console: Console, rows: Iterable[tuple[str, str, str]]) -> None:
    """Print settings.

    Parameters
    ----------
    console : rich.console.Console
    rows : iterable of tuple
        Variable, value without credentials, and origin: option, environment, .env or default.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
