"""Report section on the next race: probabilities of the cars, joint events, verdict on the archetype."""

import polars as pl

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.comparison.next_race import side_by_side
from calibration_pipeline.markets import ALL_MARKETS
from calibration_pipeline.report.blocks import Block, Bullets, Cell, Gallery, Section, Table, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.numbers import UNKNOWN, percent
from calibration_pipeline.report.pictures import forecast_picture
from calibration_pipeline.report.sections.verdicts import era_label

NOTHING = "No race is announced, so there is no forecast."
CHANCES = {"win": "Win", "top5": "Top 5", "top10": "Top 10", "dnf": "Out before the end"}


def forecast_section(content: ReportContent) -> Section:
    """Return the section on the next race."""
    forecast = content.forecast
    if forecast is None or forecast.is_empty():
        if content.forecast_title and not content.forecaster_chances.is_empty():
            tables = _side_by_side(content.forecaster_chances)
            return Section(
                "next-race", "Next race", [Text(content.forecast_title), Bullets(_ruling(content)), *tables]
            )
        notes = [note for note in content.forecast_notes if note]
        return Section("next-race", "Next race", [Text(notes[0] if notes else NOTHING)])
    forecast = forecast.sort("win", descending=True, maintain_order=True)
    picture = forecast_picture(forecast, content.forecast_title)
    blocks: list[Block] = [
        Text(content.forecast_title),
        Bullets([*_ruling(content), *content.forecast_notes]),
        Gallery([picture]),
        _car_table(forecast),
    ]
    blocks += _side_by_side(content.forecaster_chances)
    if content.forecast_events is not None and content.forecast_events.height:
        blocks.append(_event_table(content))
    return Section("next-race", "Next race", blocks)


def _ruling(content: ReportContent) -> list[str]:
    """Return the verdicts on the race's archetype in the newest era, as statements."""
    own = content.verdicts.filter(archetype=content.forecast_archetype, market=ALL_MARKETS)
    label = parse_archetype(content.forecast_archetype).label
    if own.is_empty():
        return [f"{label}: not judged in this report, since its verdicts are not stored."]
    newest = own.filter(era=own["era"].first())
    return [
        f"{label}, {era_label(era).lower()}: {evidence}"
        for era, evidence in newest.select("era", "evidence").iter_rows()
    ]


def _car_table(forecast: pl.DataFrame) -> Table:
    rows = [
        [
            Cell(f"{car['driver']} ({car['car_number']})" if car["car_number"] else car["driver"]),
            Cell(UNKNOWN if car["start_position"] is None else str(car["start_position"])),
            *(_chance(car[name], car[f"{name}_lower"], car[f"{name}_upper"]) for name in CHANCES),
            Cell(str(car["finish_median"]), f"{car['finish_lower']} to {car['finish_upper']}"),
        ]
        for car in forecast.iter_rows(named=True)
    ]
    columns = ["Driver (car)", "Start", *CHANCES.values(), "Finish"]
    title = (
        "Probabilities of every car, with 90 % intervals from the uncertainty of the calibration; finish: "
        "median and central 80 %"
    )
    return Table(title, columns, rows, folded=True)


def _side_by_side(chances: pl.DataFrame) -> list[Table]:
    """Return a table for each market with a column for each forecaster, where there are several."""
    wide = [
        (str(market), side_by_side(own)) for (market,), own in chances.group_by("market", maintain_order=True)
    ]
    return [_market_table(market, own) for market, own in wide if own.width > 2]


def _market_table(market: str, chances: pl.DataFrame) -> Table:
    names = chances.columns[1:]
    rows = [
        [
            Cell(str(car["driver"])),
            *(Cell(UNKNOWN if car[name] is None else percent(car[name])) for name in names),
        ]
        for car in chances.sort(names[-1], descending=True).iter_rows(named=True)
    ]
    title = f"{market.capitalize()}: recalibrated probabilities of every forecaster"
    return Table(title, ["Driver", *names], rows, folded=True)


def _event_table(content: ReportContent) -> Table:
    """Return the joint events with their forecast and observed shares in earlier races of the archetype."""
    events = content.forecast_events
    if events is None:
        raise ValueError("Argument content must have forecast_events, got None.")
    judged = content.joint_events.filter(
        (pl.col("archetype") == content.forecast_archetype) & (pl.col("forecast") == "recalibrated")
    )
    earlier = judged.select("event", "observed", before="predicted")
    rows = [
        [
            Cell(row["event"]),
            _chance(row["predicted"], row["lower"], row["upper"]),
            Cell(UNKNOWN if row["before"] is None else percent(row["before"])),
            Cell(UNKNOWN if row["observed"] is None else percent(row["observed"])),
        ]
        for row in events.join(earlier, on="event", how="left", maintain_order="left").iter_rows(named=True)
    ]
    columns = ["Event", "Next race", "Forecast in earlier races", "Observed in earlier races"]
    return Table("Joint events, per car, pair or race", columns, rows, folded=True)


def _chance(estimate: float | None, lower: float | None, upper: float | None) -> Cell:
    if estimate is None:
        return Cell(UNKNOWN)
    interval = "" if lower is None or upper is None else f"{percent(lower)} to {percent(upper)}"
    return Cell(percent(estimate), interval)
