"""Matrix of verdicts on the first screen of the report, and the evidence of an archetype's verdicts."""

import math

import polars as pl

from calibration_pipeline.archetypes import Archetype, parse_archetype
from calibration_pipeline.markets import ALL_MARKETS
from calibration_pipeline.plots.series import count
from calibration_pipeline.report.blocks import Block, Bullets, Cell, Table, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.numbers import UNKNOWN, estimate, number, p_value
from calibration_pipeline.report.words import VERDICTS
from calibration_pipeline.seasons import ALL_RACES
from calibration_pipeline.verification.verdicts.estimates import GAIN_SCORES
from calibration_pipeline.verification.verdicts.rules import ERROR_RATE, LIMITS

CAPTION = (
    "Verdict on each market, in each era. Below a verdict: whether recalibration helps, costs or makes no "
    f"difference. The probability of any wrong verdict in a row is at most {100 * ERROR_RATE:.0f} %."
)
LEGEND = [(words.badge, words.meaning) for words in VERDICTS.values()]
P_VALUES = ("p of joint events", "p of independent cars")
QUANTITIES = (*dict.fromkeys(quantity for quantity, _ in LIMITS), *P_VALUES, "gain")
"""Quantities in the order of the table of evidence."""


def section_anchor(archetype: Archetype) -> str:
    """Return the link target of an archetype's section."""
    return archetype.value.replace("_", "-")


def era_label(era: str) -> str:
    """Return the heading of an era.

    Examples
    --------
    >>> era_label("from 2022"), era_label("all races")
    ('Races from 2022', 'All scored races')
    """
    if era == ALL_RACES:
        return "All scored races"
    return f"Races {era}" if era.startswith("from") else f"Races of {era}"


def verdict_matrix(content: ReportContent) -> Table:
    """Return the matrix: an archetype a row in each era, a market of the form a column, the summary first."""
    cells = content.verdicts.filter(line=1)
    rows: list[list[Cell]] = []
    declared = [era for era in cells["era"].unique(maintain_order=True) if era != ALL_RACES]
    for era in (*declared, ALL_RACES):
        of_era = cells.filter(era=era).partition_by("archetype", maintain_order=True)
        rows += [[Cell(era_label(era))], *(_matrix_row(own, content) for own in of_era)]
    markets = cells["market"].unique(maintain_order=True).to_list()
    columns = ["Archetype", *("Summary" if own == ALL_MARKETS else own.capitalize() for own in markets)]
    return Table(CAPTION, columns, rows, n_text=len(columns))


def _matrix_row(cells: pl.DataFrame, content: ReportContent) -> list[Cell]:
    archetype, era = parse_archetype(cells["archetype"][0]), cells["era"][0]
    own = content.verdicts.filter(archetype=archetype, era=era)
    n_races = own["n_races"].max()
    label = Cell(archetype.label, count(n_races, "race"), anchor=section_anchor(archetype))
    return [label, *(_verdict_cell(row) for row in cells.iter_rows(named=True))]


def _verdict_cell(row: dict) -> Cell:
    needed = "" if row["races_needed"] is None else f"{count(row['races_needed'], 'more race')} needed"
    small = "; ".join(part for part in (row["recalibration"], needed) if part)
    return Cell(VERDICTS[row["verdict"]].badge, small, row["verdict"])


def verdict_blocks(verdicts: pl.DataFrame) -> list[Block]:
    """Return the evidence of an archetype's verdicts: summaries of all eras, and a folded table of each.

    Parameters
    ----------
    verdicts : polars.DataFrame
        `VerdictTable` rows of one archetype.
    """
    blocks: list[Block] = []
    for (era,), own in verdicts.group_by("era", maintain_order=True):
        blocks.append(Text(f"{era_label(str(era))}:"))
        blocks.append(Bullets(own.filter(market=ALL_MARKETS)["evidence"].to_list()))
        blocks.append(_evidence_table(str(era), own.filter(pl.col("market") != ALL_MARKETS)))
    return blocks


def _evidence_table(era: str, verdicts: pl.DataFrame) -> Table:
    rows: list[list[Cell]] = []
    for (market,), own in verdicts.group_by("market", maintain_order=True):
        first = own.row(0, named=True)
        cell = _verdict_cell(first)
        effect = f"; recalibration: {cell.small}" if cell.small else ""
        rows.append([Cell(f"{str(market).capitalize()}: {cell.text.lower()}{effect}")])
        rows += [[Cell(note), Cell(""), Cell(""), Cell("")] for note in own.filter(quantity="")["evidence"]]
        order = pl.col("quantity").cast(pl.Enum(QUANTITIES))
        tests = own.filter(pl.col("quantity") != "").sort(order, "level", maintain_order=True)
        for (quantity, level), test in tests.group_by("quantity", "level", maintain_order=True):
            by_forecast = {row["forecast"]: _estimate_cell(row) for row in test.iter_rows(named=True)}
            names = ("raw", "recalibrated")
            label = _test_label(str(market), str(quantity), str(level))
            wanted = Cell(_wanted(str(quantity), str(level)))
            rows.append([Cell(label), wanted, *(by_forecast.get(name, Cell("")) for name in names)])
    caption = f"Evidence: {era_label(era).lower()}"
    return Table(caption, ["Market and test", "Wanted", "Raw", "Recalibrated"], rows, folded=True)


def _test_label(market: str, quantity: str, level: str) -> str:
    if quantity == "gain":
        return f"Gain from recalibration, {GAIN_SCORES[market]}"
    if quantity in P_VALUES:
        return f"{quantity[0]}-value of {quantity.removeprefix('p of ')}"
    if (market, quantity) == ("win", "slope"):
        return "Slope (inverse temperature)"
    return f"{quantity.capitalize()}{f' of {level} intervals' if level else ''}"


def _wanted(quantity: str, level: str) -> str:
    if quantity in P_VALUES:
        return "above 0.05" if quantity == P_VALUES[0] else "at most 0.025"
    if quantity == "gain":
        return "above 0"
    low, high = LIMITS[quantity, level]
    return f"at least {number(low, 2)}" if math.isinf(high) else f"{low:g} to {high:g}"


def _estimate_cell(row: dict) -> Cell:
    if row["estimate"] is None:
        return Cell(UNKNOWN)
    if row["quantity"] in P_VALUES:
        return Cell(p_value(row["estimate"]))
    digits = 5 if row["quantity"] == "gain" else 3
    return estimate(row["estimate"], row["lower"], row["upper"], digits)
