"""The settings in force on the terminal, and where each value came from."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from calibration_pipeline.addresses import without_credentials

from .settings import ENV_PREFIX, Settings


def print_settings(console: Console, settings: Settings, came_from: Mapping[str, str]) -> None:
    """Print the settings in force, addresses without credentials.

    Parameters
    ----------
    console : rich.console.Console
    settings : Settings
    came_from : mapping of str to str
        Setting → option, environment, .env or default.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for name, value in settings:
        unset = "by rule" if name == "fold_races" else "none"
        shown = span(settings.season_list) if name == "seasons" else unset if value is None else str(value)
        table.add_row(f"{ENV_PREFIX}{name.upper()}", without_credentials(shown), came_from[name])
    console.print(table)


def span(seasons: Sequence[int]) -> str:
    """Return first and last of consecutive seasons.

    Examples
    --------
    >>> span([2020, 2021, 2022]), span([2020])
    ('2020-2022', '2020')
    """
    return f"{seasons[0]}-{seasons[-1]}" if len(seasons) > 1 else str(seasons[0])
