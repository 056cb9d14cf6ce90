"""Report as a list of sections in their order, independent of HTML and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.report import words
from calibration_pipeline.report.blocks import Cell, Definitions, Gallery, Picture, Section, Table
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.numbers import UNKNOWN, estimate, number
from calibration_pipeline.report.sections.fits import (
    closing_sections,
    comparison_section,
    convergence_section,
    skipped_section,
    slope_section,
    state_section,
)
from calibration_pipeline.report.sections.leaderboard import has_others, leaderboard_section
from calibration_pipeline.report.sections.monitoring import monitoring_note, monitoring_section
from calibration_pipeline.report.sections.next_race import forecast_section
from calibration_pipeline.report.sections.parameters import identification_section
from calibration_pipeline.report.sections.quarantine import quarantine_note, quarantine_section
from calibration_pipeline.report.sections.tracks import track_section
from calibration_pipeline.report.sections.verdicts import LEGEND, verdict_matrix
from calibration_pipeline.verification.cases import JUDGED


@dataclass(frozen=True)
class Document:
    """The whole report, ready for any renderer."""

    title: str
    question: str
    notes: Sequence[str]
    matrix: Table
    legend: Definitions
    summary: Table
    sections: Sequence[Section]

    @property
    def pictures(self) -> list[Picture]:
        """Every figure, in order."""
        galleries = (
            block for section in self.sections for block in section.blocks if isinstance(block, Gallery)
        )
        return [picture for gallery in galleries for picture in gallery.pictures]

    def drawn(self, existing: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """Return the figures by key as PNG images; figures in `existing` are not drawn again."""
        known = existing or {}
        return {
            picture.key: known[picture.key] if picture.key in known else picture.draw()
            for picture in self.pictures
        }


def build_document(content: ReportContent) -> Document:
    """Arrange a report's content.

    Parameters
    ----------
    content : ReportContent
        Verdicts, tables and provenance.
    """
    notes = [words.SIMULATED_NOTE] if content.source == "simulated" else []
    of_scenarios = content.form is Form.SCENARIOS
    fitted = words.FITTED_BEFORE if content.is_of_network else words.FITTED_UNKNOWN
    judged = f"{fitted} {words.HOW_JUDGED}"
    notes += [] if of_scenarios else [words.MARKETS_OF_FORM[content.form]]
    sections = [
        *([leaderboard_section(content.leaderboard)] if has_others(content.leaderboard) else []),
        *(track_section(content, archetype) for archetype in content.archetypes),
        *skipped_section(content),
        state_section(content),
        *([slope_section(content), monitoring_section(content)] if of_scenarios else []),
        forecast_section(content),
        convergence_section(content),
        *([identification_section(content)] if of_scenarios else []),
        *comparison_section(content),
        quarantine_section(content),
        *closing_sections(content),
    ]
    return Document(
        content.title,
        words.QUESTION,
        [judged, *notes, *content.warnings, *monitoring_note(content), *quarantine_note(content)],
        verdict_matrix(content),
        Definitions(LEGEND),
        _summary_table(content),
        sections,
    )


def report_pictures(content: ReportContent, drawn: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Return the report's figures as PNG images, for either form of it.

    Parameters
    ----------
    content : ReportContent
        Verdicts, tables and provenance.
    drawn : mapping of str to bytes, optional
        Figures that exist already, as from `archetype_pictures`.

    Returns
    -------
    dict of str to bytes
        By key; `render_markdown` links to `<key>.png`.
    """
    return build_document(content).drawn(drawn)


def _summary_table(content: ReportContent) -> Table:
    """Return the main numbers, one row an archetype."""
    if content.form is Form.EVENTS:
        return _event_summary(content)
    rows = []
    for archetype in content.archetypes:
        metrics = content.metrics.filter(archetype=archetype)
        r_hat = content.convergence.filter(archetype=archetype)["r_hat"].cast(pl.Float64).max()
        n_races = metrics["n_races"].max()
        rows.append(
            [
                Cell(parse_archetype(archetype).label),
                Cell(str(n_races or 0)),
                _metric(metrics, "raw", "crps", "", 2),
                _metric(metrics, "recalibrated", "crps", "", 2),
                _metric(metrics, "raw", "coverage", "80 %", 1),
                _metric(metrics, "recalibrated", "coverage", "80 %", 1),
                Cell(number(r_hat) if isinstance(r_hat, float) else UNKNOWN),
            ]
        )
    columns = [
        "Archetype",
        "Races",
        "CRPS, raw",
        "CRPS, recalibrated",
        "In 80 % interval, raw",
        "In 80 % interval, recalibrated",
        "Worst R-hat",
    ]
    caption = (
        "Summary. CRPS measures the error of a forecast in positions: smaller is better. "
        "The 80 % interval should contain 80 % of the finishes."
    )
    return Table(caption, columns, rows)


def _event_summary(content: ReportContent) -> Table:
    """Return the skill of event probabilities, one row an archetype."""
    markets = [market for market in EVENT_MARKETS if market in set(content.verdicts["market"])]
    rows = []
    for archetype in content.archetypes:
        metrics = content.metrics.filter(archetype=archetype)
        skill = metrics.filter(quantity="brier_skill", reference="climatology")
        cells = [_metric(skill, name, "brier_skill", market, 3) for market in markets for name in JUDGED]
        rows.append([Cell(archetype.label), Cell(str(metrics["n_races"].max() or 0)), *cells])
    names = [f"{market.capitalize()}, {name}" for market in markets for name in JUDGED]
    caption = (
        "Summary. Brier skill is the share of the error of equal chances that the forecast removes: larger "
        "is better, and 0 is no better than equal chances."
    )
    return Table(caption, ["Archetype", "Races", *names], rows)


def _metric(metrics: pl.DataFrame, forecast: str, quantity: str, level: str, digits: int) -> Cell:
    found = metrics.filter(forecast=forecast, quantity=quantity, level=level)
    if found.is_empty():
        return Cell(UNKNOWN)
    value, lower, upper = found.select("estimate", "lower", "upper").row(0)
    return estimate(value, lower, upper, digits, as_percent=quantity == "coverage")
