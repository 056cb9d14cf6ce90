"""Report section on defects of the source's data and of forecasters' files: what was left out."""

from pathlib import PurePath

import polars as pl

from calibration_pipeline.plots.series import count
from calibration_pipeline.report.blocks import Block, Cell, Section, Table, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.sources.quarantine import QUERY, lost_races, worst_first

HEADING = "What was left out, and why"
MOST_ROWS = 200
ENTITY_COUNTS = {"race": "Races", "entry": "Entries", "laps": "Laps of cars", "value": "Values"}


def quarantine_section(content: ReportContent) -> Section:
    """Return the section on the quarantine: counts by season, and every defect with its rule."""
    return Section(
        "quarantine",
        HEADING,
        [*_source_blocks(content.quarantine), *_file_blocks(content.forecaster_quarantine)],
    )


def _source_blocks(rows: pl.DataFrame) -> list[Block]:
    """Return the blocks on the source's data."""
    if rows.is_empty():
        return [Text("All data of the seasons could be used.")]
    seasons = [
        [Cell(str(season)), *(Cell(str(own.filter(entity=name).height)) for name in ENTITY_COUNTS)]
        for (season,), own in rows.sort("season").partition_by("season", as_dict=True).items()
    ]
    return [
        Text(
            "A defect costs as little as is honest: a value, else an entry or its laps, else the race. "
            "Entries that did not start are listed last."
        ),
        Table("Rows of the quarantine by season", ["Season", *ENTITY_COUNTS.values()], seasons),
        _defects(rows, "Defects"),
    ]


def _file_blocks(rows: pl.DataFrame) -> list[Block]:
    """Return the blocks on the files of forecasters, if there is anything; a table of defects for each."""
    if rows.is_empty():
        return []
    by_name = rows.sort("forecaster", maintain_order=True).partition_by("forecaster", as_dict=True)
    counts = [
        [Cell(str(name)), *(Cell(str(own.filter(entity=entity).height)) for entity in ENTITY_COUNTS)]
        for (name,), own in by_name.items()
    ]
    return [
        Table("Left out of the files of forecasters", ["Forecaster", *ENTITY_COUNTS.values()], counts),
        *(_defects(own, f"Defects of {name}") for (name,), own in by_name.items()),
    ]


def quarantine_note(content: ReportContent) -> list[str]:
    """Return a note for the first screen, if points races of the series were left out."""
    of_files = content.forecaster_quarantine.filter(entity="race", consequence="left out")
    lost = {"the data": lost_races(content.quarantine).height, "the files of forecasters": of_files.height}
    return [
        f"{count(n, 'race')} left out of {name}; the section “{HEADING}” names {'it' if n == 1 else 'them'}."
        for name, n in lost.items()
        if n
    ]


def _defects(rows: pl.DataFrame, caption: str) -> Table:
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
    return Table(f"{caption}{more}", columns, cells, folded=True, n_text=4)
