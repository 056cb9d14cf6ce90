"""Terminal output of the leaderboard: ranks by market, and the comparisons with the network."""

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from upath import UPath

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.comparison.leaderboard import FEWEST_SHARED, archetype_label, order_forecasters
from calibration_pipeline.io.escaping import escape_markup
from calibration_pipeline.io.stored_values import read_asset
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, COMPARED_MARKETS
from calibration_pipeline.schemas.contracts import ContractError
from calibration_pipeline.terminal.errors import CommandError, reported
from calibration_pipeline.terminal.names import fit_names
from calibration_pipeline.terminal.summary import MARKET_HEADS
from calibration_pipeline.verification.cases import JUDGED

HEADS = {market: MARKET_HEADS[market] for market in COMPARED_MARKETS}
SIGNS = {"better than network": "+", "worse than network": "-"}
GAIN_COLUMNS = ("Forecaster", "Rank", "Races", "Gain", "95 %", "E better", "E worse")
LEGEND = (
    "Letters: forecasters with a common letter do not differ.\n"
    f"+ better, - worse than the network; few: fewer than {FEWEST_SHARED} races with it.\n"
    "Gain: the network's score less the forecaster's own, in thousandths.\n"
    "E: largest e-value for better and for worse; 20 is an alarm at any time."
)


def rank_rows(leaderboard: pl.DataFrame, archetype: str, forecast: str) -> list[dict[str, str]]:
    """Return the rows of the matrix of ranks: one for each forecaster, in the order of their mean ranks.

    Parameters
    ----------
    leaderboard : polars.DataFrame
        `Leaderboard`.
    archetype : str
        An archetype, or `ALL_ARCHETYPES`.
    forecast : str
        raw or recalibrated.
    """
    own = leaderboard.filter(archetype=archetype, forecast=forecast)
    rows = []
    for name in order_forecasters(own):
        cells = {row["market"]: _rank(row) for row in own.filter(forecaster=name).iter_rows(named=True)}
        heads = {head: cells.get(market, "-") for market, head in HEADS.items()}
        rows.append({"Forecaster": name, **heads})
    return rows


def gain_rows(leaderboard: pl.DataFrame, archetype: str, market: str, forecast: str) -> list[dict[str, str]]:
    """Return the comparisons with the network in one market: one row a forecaster, the best first.

    Parameters
    ----------
    leaderboard : polars.DataFrame
        `Leaderboard`.
    archetype : str
        An archetype, or `ALL_ARCHETYPES`.
    market, forecast : str
    """
    own = leaderboard.filter(archetype=archetype, market=market, forecast=forecast)
    return [
        {
            "Forecaster": row["forecaster"],
            "Rank": _rank(row),
            "Races": str(row["n_shared"]),
            "Gain": _thousandths(row["gain_over_network"]),
            "95 %": " to ".join(_thousandths(row[f"gain_over_network_{end}"]) for end in ("lower", "upper")),
            "E better": _e_value(row["log10_e_better_max"]),
            "E worse": _e_value(row["log10_e_worse_max"]),
        }
        for row in own.iter_rows(named=True)
    ]


def print_stored(console: Console, store: UPath, archetype: str | None) -> None:
    """Print the stored leaderboard.

    Parameters
    ----------
    console : rich.console.Console
    store : UPath
        Folder or object-store address of a source's and series' assets.
    archetype : str or None
        An archetype, None for all of them together.

    Raises
    ------
    CommandError
        If there is no such archetype, or no leaderboard is stored or can be read.
    """
    with reported(ValueError, code=2):
        own = str(parse_archetype(archetype)) if archetype else ALL_ARCHETYPES
    try:
        with reported(ContractError):
            board = read_asset(store, "leaderboard")
    except FileNotFoundError as error:
        raise CommandError(
            f"There is no leaderboard in {store} yet: calibration-pipeline run makes one."
        ) from error
    print_leaderboard(console, board, own)


def print_leaderboard(console: Console, leaderboard: pl.DataFrame, archetype: str) -> None:
    """Print the ranks of all markets, and the recalibrated forecasts' comparisons with the network.

    Parameters
    ----------
    console : rich.console.Console
    leaderboard : polars.DataFrame
        `Leaderboard`.
    archetype : str
        An archetype, or `ALL_ARCHETYPES`.
    """
    own = leaderboard.filter(archetype=archetype)
    if own.is_empty():
        console.print(f"{archetype_label(archetype)}: no race has been scored yet.", highlight=False)
        return
    for forecast in JUDGED:
        title = f"{archetype_label(archetype)}: ranks of the {forecast} forecasts"
        columns = ("Forecaster", *HEADS.values())
        console.print(_table(console, title, columns, rank_rows(own, archetype, forecast)))
        console.print()
    for market in COMPARED_MARKETS:
        if rows := gain_rows(own, archetype, market, JUDGED[-1]):
            console.print(_table(console, f"{market.capitalize()}, recalibrated", GAIN_COLUMNS, rows))
            console.print()
    console.print(LEGEND, highlight=False)


def _table(console: Console, title: str, columns: tuple[str, ...], rows: list[dict[str, str]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, no_wrap=True, justify="right")
    for row in rows:
        table.add_row(*(escape_markup(row[column]) for column in columns))
    return fit_names(console, table)


def _rank(row: dict[str, object]) -> str:
    if row["rank"] is None:
        return "few"
    return f"{row['rank']} {row['ties']}{SIGNS.get(str(row['verdict']), '')}"


def _thousandths(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.2f}"


def _e_value(log10: float | None) -> str:
    if log10 is None:
        return "-"
    return f"{10**log10:.2g}" if log10 < 3 else f"1e{log10:.0f}"
