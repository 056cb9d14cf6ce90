"""Terminal output of the settings, with the origin of each value."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from calibration_pipeline.io.addresses import without_credentials

UNSET = {"fold_races": "by rule"}
"""Meaning of a setting without a value, where it is not none."""


def print_settings(
    console: Console, prefix: str, values: Mapping[str, object], origins: Mapping[str, str]
) -> None:
    """Print the variable of each setting with its value, without credentials, and its origin.

    Parameters
    ----------
    console : rich.console.Console
    prefix : str
        Of the variables.
    values : mapping
        Value by setting, None where it has none.
    origins : mapping
        Setting → option, environment, .env or default.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for name, value in values.items():
        text = UNSET.get(name, "none") if value is None else str(value)
        table.add_row(f"{prefix}{name.upper()}", escape(without_credentials(text)), origins[name])
    console.print(table)
