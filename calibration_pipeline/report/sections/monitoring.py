"""Report section on sequential monitoring: e-values of the last season and of all races, and all alarms."""

import polars as pl

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS
from calibration_pipeline.report.blocks import Block, Cell, Gallery, Section, Table, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.numbers import UNKNOWN, e_value
from calibration_pipeline.report.pictures import evidence_picture, rank_picture
from calibration_pipeline.report.sections.scores import FORECAST_LABELS
from calibration_pipeline.verification.cases import JUDGED
from calibration_pipeline.verification.monitoring import ALARM, LOG10_ALARM, list_alarms, pool_archetypes

HEADING = "Evidence against calibration over time"
SPANS = {"log10_e_season": "in {season}", "log10_e_start": "since the start"}
COLUMNS = [(forecast, span) for span in SPANS for forecast in JUDGED]


def monitoring_section(content: ReportContent) -> Section:
    """Return the section on monitoring: e-values, pictures over time, rank histograms and alarms."""
    monitoring = content.monitoring
    if monitoring.is_empty():
        return Section("monitoring", HEADING, [Text("No race has been monitored yet.")])
    own = [monitoring.filter(archetype=name) for name in content.archetypes]
    present = [rows for rows in own if not rows.is_empty()]
    season = _last_season(monitoring)
    heads = [f"{FORECAST_LABELS[name]}, {SPANS[span].format(season=season)}" for name, span in COLUMNS]
    by_market: list[list[Cell]] = []
    for rows in present:
        by_market.append([Cell(_label(rows))])
        by_market += [
            _row(market.capitalize(), of_market, season)
            for market in RACE_MARKETS
            if not (of_market := rows.filter(market=market)).is_empty()
        ]
    together = [_row(_label(rows), rows.filter(market=ALL_MARKETS), season) for rows in present]
    together.append(_row("All archetypes", pool_archetypes(monitoring), season))
    blocks: list[Block] = [
        Text(
            "The e-value grows where results contradict the forecast. It is valid after every race: a "
            f"calibrated forecast reaches {ALARM:g} in at most 5 of 100 seasons, and since the start in at "
            "most 5 of 100 histories. This holds for each entry of the table alone; the row of all "
            "archetypes judges the whole report."
        ),
        Table("Largest e-value of all markets together", ["", *heads], together),
        Gallery([evidence_picture(rows) for rows in present]),
        _alarm_table(content),
        Table("Largest e-value by market", ["", *heads], by_market, folded=True),
        Gallery([rank_picture(rows) for rows in present], summary="Rank histograms"),
    ]
    return Section("monitoring", HEADING, blocks)


def monitoring_note(content: ReportContent) -> list[str]:
    """Return a note for the first screen on the alarms of the last season, if races are monitored."""
    if content.monitoring.is_empty():
        return []
    season = _last_season(content.monitoring)
    alarms = list_alarms(content.monitoring.filter(season=season, market=ALL_MARKETS)).filter(span="season")
    found = [
        f"{parse_archetype(row['archetype']).label} ({row['forecast']}, race {row['race']})"
        for row in alarms.iter_rows(named=True)
    ]
    shown = f"alarms at {', '.join(found)}" if found else "no alarm"
    return [f"Sequential monitoring of season {season}: {shown}; see “{HEADING}”."]


def _last_season(monitoring: pl.DataFrame) -> int:
    return int(monitoring["season"].to_numpy().max())


def _row(label: str, rows: pl.DataFrame, season: int) -> list[Cell]:
    """Return the largest e-values of the last season, and of all races, with the newest in small print."""
    cells = []
    for forecast, span in COLUMNS:
        own = rows.filter(forecast=forecast).sort("race_order")
        values = (own.filter(season=season) if span == "log10_e_season" else own)[span].to_list()
        if values:
            alarm = "alarm; " if max(values) >= LOG10_ALARM else ""
            cells.append(Cell(e_value(max(values)), f"{alarm}now {e_value(values[-1])}"))
        else:
            cells.append(Cell(UNKNOWN))
    return [Cell(label), *cells]


def _alarm_table(content: ReportContent) -> Table:
    """Return all alarms of all markets together, season by season."""
    alarms = list_alarms(content.monitoring.filter(market=ALL_MARKETS)).filter(span="season")
    rows = [
        [
            Cell(str(row["season"])),
            Cell(parse_archetype(row["archetype"]).label),
            Cell(FORECAST_LABELS[row["forecast"]]),
            Cell(str(row["race"])),
            Cell(e_value(row["log10_e"])),
        ]
        for row in alarms.sort("season", maintain_order=True).iter_rows(named=True)
    ]
    columns = ["Season", "Archetype", "Forecast", "Race of the archetype's season", "Largest e-value"]
    return Table("Alarms by season, all markets together", columns, rows, folded=True, n_text=3)


def _label(rows: pl.DataFrame) -> str:
    return parse_archetype(rows["archetype"][0]).label
