"""The report's section on one kind of track: verdict, scores, calibration, joint events."""

from typing import NamedTuple

import polars as pl

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.report.blocks import Block, Bullets, Cell, Gallery, Section, Table, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.numbers import UNKNOWN, count, estimate, number, percent
from calibration_pipeline.report.pictures import joint_event_picture, track_pictures
from calibration_pipeline.report.words import VERDICTS
from calibration_pipeline.verification.verdicts import Verdict

FORECAST_LABELS = {
    "raw": "Raw",
    "recalibrated": "Recalibrated",
    "start_order": "Start order",
    "climatology": "Every car equal",
}


class MetricWords(NamedTuple):
    """How a quantity is written: its name, its decimals, and whether it is a share."""

    label: str
    digits: int = 3
    as_percent: bool = False


METRICS = {
    "crps": MetricWords("CRPS, places", 2),
    "crps_skill": MetricWords("CRPS skill against every car equal"),
    "log_score": MetricWords("Log score, nats a car"),
    "log_gain": MetricWords("Log gain over every car equal, nats a car"),
    "coverage": MetricWords("Coverage of the interval of", 1, as_percent=True),
    "head_to_head_slope": MetricWords("Head-to-head slope", 2),
    "brier": MetricWords("Brier score,"),
    "rps": MetricWords("RPS"),
}
GOALS = {"coverage": "{level}", "head_to_head_slope": "1"}


def track_section(content: ReportContent, verdict: Verdict) -> Section:
    """Return the section on one kind of track.

    Parameters
    ----------
    content : ReportContent
        The whole report's content.
    verdict : Verdict
        Whose kind of track the section is about.
    """
    archetype = parse_archetype(verdict.archetype)
    words = VERDICTS[verdict.verdict]
    blocks: list[Block] = [Text(words.meaning), Bullets(verdict.evidence)]
    metrics = content.metrics.filter(archetype=archetype)
    if metrics.is_empty():
        blocks.append(Text("No race of this kind has been judged yet."))
    else:
        blocks += [metric_table(metrics), Gallery(track_pictures(content, archetype))]
    joint_events = content.joint_events.filter(archetype=archetype)
    if not joint_events.is_empty():
        blocks += [Gallery([joint_event_picture(joint_events, archetype)]), joint_event_table(joint_events)]
    return Section(archetype.value.replace("_", "-"), archetype.label, blocks, verdict.verdict)


def metric_table(metrics: pl.DataFrame) -> Table:
    """Return the scores of one kind of track, one a row, the forecasts side by side.

    Parameters
    ----------
    metrics : polars.DataFrame
        `MetricTable` rows of one archetype.
    """
    forecasts = [name for name in FORECAST_LABELS if name in metrics["forecast"]]
    cells = {(row["quantity"], row["level"], row["forecast"]): row for row in metrics.iter_rows(named=True)}
    order = list(METRICS)
    names = sorted({(q, level): None for q, level, _ in cells}, key=lambda name: _rank(name[0], order))
    rows = []
    for quantity, level in names:
        values = [cells.get((quantity, level, forecast)) for forecast in forecasts]
        better = next(row["orientation"] for row in values if row is not None)
        goal = GOALS[quantity].format(level=level) if quantity in GOALS else better.split(" ")[0]
        rows.append([Cell(_metric_label(quantity, level)), *map(_metric_cell, values), Cell(goal)])
    n_races, n_cars = metrics.select(pl.max("n_races"), pl.max("n_cars")).row(0)
    n_scored = f"{count(n_races, 'race')} ({count(n_cars, 'car')})"
    caption = f"Scores on {n_scored} that no fit had seen, with 95 % intervals"
    columns = ["", *(FORECAST_LABELS[forecast] for forecast in forecasts), "Better is"]
    return Table(caption, columns, rows)


def joint_event_table(joint_events: pl.DataFrame) -> Table:
    """Return how often joint events happened, and how often the forecasts said they would.

    Parameters
    ----------
    joint_events : polars.DataFrame
        `JointEventTable` rows of one archetype.
    """
    forecasts = [name for name in ("raw", "recalibrated") if name in joint_events["forecast"]]
    rows = []
    for (event,), part in joint_events.group_by("event", maintain_order=True):
        by_forecast = {row["forecast"]: row for row in part.iter_rows(named=True)}
        first = next(iter(by_forecast.values()))
        observed = estimate(first["observed"], first["lower"], first["upper"], as_percent=True, digits=1)
        predicted = [_predicted_cell(by_forecast.get(name)) for name in forecasts]
        rows.append([Cell(str(event)), observed, *predicted, Cell(f"{first['n_races']:,}")])
    columns = ["Event", "Happened", *(f"{FORECAST_LABELS[name]} forecast" for name in forecasts), "Races"]
    caption = "Joint events: how often they happened and how often they were forecast to"
    return Table(caption, columns, rows, folded=True)


def _rank(quantity: str, order: list[str]) -> int:
    return order.index(quantity) if quantity in order else len(order)


def _metric_label(quantity: str, level: str) -> str:
    label = METRICS[quantity].label if quantity in METRICS else quantity.replace("_", " ")
    return f"{label} {level}".strip()


def _metric_cell(row: dict | None) -> Cell:
    if row is None:
        return Cell("")
    words = METRICS.get(row["quantity"], MetricWords(""))
    return estimate(row["estimate"], row["lower"], row["upper"], words.digits, as_percent=words.as_percent)


def _predicted_cell(row: dict | None) -> Cell:
    if row is None:
        return Cell(UNKNOWN)
    error = f"off by {number(100 * row['calibration_error'], 1)} points, z {number(row['z'], 1)}"
    return Cell(percent(row["predicted"]), error)
