"""Column of names in a table of the terminal: a name that has no room is folded, and never cut."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

NARROWEST = 16
"""Width of a column of longer names on a narrow terminal."""
UNLIMITED = 10_000
"""Characters of a line that holds any table."""


def fit_names(console: Console, table: Table) -> Table:
    """Widen the first column to its longest name, as far as the terminal is wide, and return the table.

    Names that differ at their ends stay different, since longer names are folded.

    Parameters
    ----------
    console : rich.console.Console
    table : rich.table.Table
        A table with all its rows.
    """
    names = table.columns[0]
    unlimited = console.options.update(max_width=UNLIMITED)
    cells = [Measurement.get(console, unlimited, cell).maximum for cell in (names.header, *names.cells)]
    others = Measurement.get(console, unlimited, table).maximum - max(cells)
    names.no_wrap, names.overflow = False, "fold"
    names.width = min(max(cells), max(NARROWEST, console.width - others))
    return table
