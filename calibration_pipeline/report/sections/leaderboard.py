"""Report section on the comparison of forecasters: ranks by market, a picture, and every comparison."""

import polars as pl

from calibration_pipeline.comparison.leaderboard import FEWEST_SHARED, archetype_label, order_forecasters
from calibration_pipeline.comparison.race_probabilities import CLIMATOLOGY
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.report.blocks import Block, Cell, Gallery, Section, Table, Text
from calibration_pipeline.report.numbers import UNKNOWN, e_value, estimate, number
from calibration_pipeline.report.pictures import leaderboard_picture
from calibration_pipeline.report.sections.scores import FORECAST_LABELS
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, COMPARED_MARKETS
from calibration_pipeline.verification.cases import JUDGED

HEADING = "Leaderboard"
COLUMNS = (
    "Forecaster",
    "Rank and ties",
    "Verdict",
    "Races with the network",
    "Score, all its races",
    "Gain over the network, thousandths",
    "Gain over every car equal, thousandths",
    "Largest e-value: better",
    "Largest e-value: worse",
)
VERDICT_STYLES = {"better than network": "trust", "worse than network": "do not trust"}
"""Verdict to the verdict whose colour its cell has."""


def has_others(leaderboard: pl.DataFrame) -> bool:
    """Return whether a leaderboard has forecasters beside the network and climatology."""
    return not leaderboard.filter(_is_other()).is_empty()


def leaderboard_section(leaderboard: pl.DataFrame) -> Section:
    """Return the section on the comparison of forecasters.

    Parameters
    ----------
    leaderboard : polars.DataFrame
        `Leaderboard`.
    """
    whole = leaderboard.filter(archetype=ALL_ARCHETYPES)
    blocks: list[Block] = [
        Text(
            "Each forecaster is compared with the network on the races of both. The gain is the network's "
            "score less its own: above 0 it is better. Forecasters with a common letter do not differ in any "
            "way that the races show; the letters and verdicts of a market are wrong in at most 5 of 100 "
            f"cases. Forecasters with fewer than {FEWEST_SHARED} races are not ranked."
        ),
        *(_rank_table(whole, forecast) for forecast in reversed(JUDGED)),
        *([Gallery([leaderboard_picture(whole)])] if whole.filter(_is_other())["rank"].count() else []),
        Text(
            "The verdicts hold for one look at the races so far. The e-values hold however often one looks: "
            "of forecasters that are on average not better than the network, at most 5 of 100 ever reach 20."
        ),
        *(
            _comparison_table(own)
            for archetype in leaderboard["archetype"].unique(maintain_order=True)
            if not (own := leaderboard.filter(archetype=archetype)).is_empty()
        ),
    ]
    return Section("leaderboard", HEADING, blocks)


def _is_other() -> pl.Expr:
    return ~pl.col("forecaster").is_in([NETWORK, CLIMATOLOGY])


def _rank_table(leaderboard: pl.DataFrame, forecast: str) -> Table:
    """Return the ranks of all forecasters in all markets, over all archetypes."""
    own = leaderboard.filter(forecast=forecast)
    markets = [market for market in COMPARED_MARKETS if market in own["market"]]
    rows = []
    for name in order_forecasters(own):
        found = {row["market"]: row for row in own.filter(forecaster=name).iter_rows(named=True)}
        rows.append([Cell(name), *(_rank_cell(found.get(market)) for market in markets)])
    caption = f"Ranks of the {forecast} forecasts, all archetypes; in small print the gain over the network"
    return Table(caption, ["", *(market.capitalize() for market in markets)], rows)


def _rank_cell(row: dict | None) -> Cell:
    if row is None:
        return Cell("")
    gain = row["gain_over_network"]
    small = "" if gain is None else number(1000 * gain, 2)
    text = "too few races" if row["rank"] is None else f"{row['rank']} {row['ties']}"
    return Cell(text, small, VERDICT_STYLES.get(row["verdict"], ""))


def _comparison_table(leaderboard: pl.DataFrame) -> Table:
    """Return every comparison of one archetype, or of all."""
    rows: list[list[Cell]] = []
    for market in COMPARED_MARKETS:
        for forecast in JUDGED:
            own = leaderboard.filter(market=market, forecast=forecast)
            if own.height:
                rows.append([Cell(f"{market.capitalize()}, {FORECAST_LABELS[forecast].lower()}")])
                rows += [_comparison(row) for row in own.iter_rows(named=True)]
    label = archetype_label(leaderboard["archetype"][0])
    return Table(f"{label}: every comparison, with 95 % intervals", COLUMNS, rows, folded=True, n_text=3)


def _comparison(row: dict) -> list[Cell]:
    few = f"fewer than {FEWEST_SHARED} races with {row['not_compared']}" if row["not_compared"] else ""
    return [
        Cell(row["forecaster"]),
        Cell(UNKNOWN if row["rank"] is None else f"{row['rank']} {row['ties']}", few),
        Cell(row["verdict"]),
        Cell(str(row["n_shared"])),
        estimate(row["score"], row["score_lower"], row["score_upper"], 4),
        _gain(row, "gain_over_network"),
        _gain(row, "gain_over_climatology"),
        _evidence(row, "log10_e_better"),
        _evidence(row, "log10_e_worse"),
    ]


def _gain(row: dict, quantity: str) -> Cell:
    value, lower, upper = (
        None if row[f"{quantity}{end}"] is None else 1000 * row[f"{quantity}{end}"]
        for end in ("", "_lower", "_upper")
    )
    return estimate(value, lower, upper, 2)


def _evidence(row: dict, side: str) -> Cell:
    if row[side] is None:
        return Cell(UNKNOWN)
    return Cell(e_value(row[f"{side}_max"]), f"now {e_value(row[side])}")
