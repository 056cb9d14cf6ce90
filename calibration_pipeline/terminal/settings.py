"""Terminal output of the settings, with the origin of each value."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def print_settings(console: Console, rows: Iterable[tuple[str, str, str]]) -> None:
    """Print settings with their values and origins.

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
