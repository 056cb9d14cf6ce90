"""Report section on what the source's data lacked: races, entries, laps and values that were left out."""

from pathlib import PurePath

import polars as pl

from calibration_pipeline.plots.series import count
from calibration_pipeline.report.blocks import Block, Cell, Section, Table, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.sources.quarantine import QUERY, worst_first

HEADING = "What was left out, and why"
MOST_ROWS = 200
ENTITY_COUNTS = {"race": "Races", "entry": "Entries", "laps": "Laps of cars", "value": "Values"}


def quarantine_section(content: ReportContent) -> Section:
    """Return the section on the quarantine: counts by season, and every defect with its rule."""
    rows = content.quarantine
    if rows.is_empty():
        return Section("quarantine", HEADING, [Text("All data of the seasons could be used.")])
    seasons = [
        [Cell(str(season)), *(Cell(str(own.filter(entity=name).height)) for name in ENTITY_COUNTS)]
        for (season,), own in rows.sort("season").partition_by("season", as_dict=True).items()
    ]
    blocks: list[Block] = [
        Text(
            "A defect costs as little as is honest: a value, else an entry or its laps, else the race. "
            "Entries that did not start are listed last."
        ),
        Table("Rows of the quarantine by season", ["Season", *ENTITY_COUNTS.values()], seasons),
        _defects(rows),
    ]
    return Section("quarantine", HEADING, blocks)


def quarantine_note(content: ReportContent) -> list[str]:
    """Return a note for the first screen, if races were left out."""
    n = content.quarantine.filter(entity="race", consequence="left out").height
    return [f"{count(n, 'race')} left out of the data; the section “{HEADING}” names them."] if n else []


def _defects(rows: pl.DataFrame) -> Table:
    shown = worst_first(rows.sort("season", maintain_order=True)).head(MOST_ROWS)
    # Folders of the machine are no matter of the page's readers.
    names = {place: PurePath(place).name for place in shown["place"].unique()}
    cells = [
        [
            Cell(row["race"] or names[row["place"]]),
            Cell(row["subject"] or ""),
            Cell(
                row["rule"].replace(row["place"], names[row["place"]]),
                f"got {row['value']}" if row["value"] else "",
            ),
            Cell(f"{row['entity']} {row['consequence']}"),
        ]
        for row in shown.iter_rows(named=True)
    ]
    more = f"; the first {MOST_ROWS} of {rows.height}, all with {QUERY}" if rows.height > MOST_ROWS else ""
    columns = ["Race", "Driver, car or column", "Rule", "Consequence"]
    return Table(f"Defects{more}", columns, cells, folded=True, n_text=4)
