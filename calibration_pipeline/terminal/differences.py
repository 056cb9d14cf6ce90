"""Terminal output of a verification of the store."""

from collections.abc import Sequence

from rich.console import Console
from upath import UPath

from calibration_pipeline.io.escaping import escape_markup


def print_differences(console: Console, store: UPath, n_files: int, differences: Sequence[str]) -> None:
    """Print a line for each difference, and how many there are.

    Parameters
    ----------
    console : rich.console.Console
    store : UPath
    n_files : int
        Files in the store.
    differences : sequence of str
        A line for each stored value or file that is not as recorded.
    """
    for difference in differences:
        console.print(f"  [yellow]![/] {escape_markup(difference)}", highlight=False)
    n = len(differences)
    summary = f"{n} {'difference' if n == 1 else 'differences'}" if n else "all as recorded"
    console.print(f"{n_files} files in {escape_markup(str(store))}: {summary}.", highlight=False)
