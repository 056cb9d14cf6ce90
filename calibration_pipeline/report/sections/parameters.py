"""Report section on the identification of the parameters, and predictive checks."""

import polars as pl

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.report import words
from calibration_pipeline.report.blocks import Block, Bullets, Cell, Definitions, Section, Table, Text
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.numbers import UNKNOWN, estimate, number, percent

HEADING = "Information in the data"
SUSPICIOUS = 0.05
"""Tail probabilities below this are reported as doubts."""


def identification_section(content: ReportContent) -> Section:
    """Return the section on the information of the data on each parameter, and on the predictive checks.

    Parameters
    ----------
    content : ReportContent
        The whole report's content.
    """
    parameters = content.identification
    if parameters.is_empty():
        return Section("identification", HEADING, [Text("Nothing has been fitted yet.")])
    blocks: list[Block] = [
        Text(
            "Contraction is 1 - posterior variance / prior variance, for each parameter. Near 0 the estimate "
            "rests on the prior, near 1 on the data."
        ),
        Bullets([_informed(part) for _, part in parameters.group_by("archetype", maintain_order=True)]),
        _contraction_table(parameters),
        _parameter_table(parameters),
        Definitions(words.PARAMETERS),
    ]
    checks = content.predictive_checks
    if not checks.is_empty():
        blocks += [_check_table(checks), Bullets(_doubts(checks))]
    return Section("identification", HEADING, blocks)


def _informed(parameters: pl.DataFrame) -> str:
    """Return a statement on the parameters of one archetype that the data do not inform."""
    label = parse_archetype(parameters["archetype"][0]).label
    assumed = parameters.filter(~pl.col("informed"))["parameter"].to_list()
    if not assumed:
        return f"{label}: the data inform every parameter."
    if len(assumed) == parameters.height:
        return f"{label}: the data inform no parameter; all rest on the prior."
    return f"{label}: the data do not inform {', '.join(assumed)}; these rest on the prior."


def _contraction_table(parameters: pl.DataFrame) -> Table:
    archetypes = parameters["archetype"].unique(maintain_order=True).to_list()
    cells = {(row["archetype"], row["parameter"]): row for row in parameters.iter_rows(named=True)}
    rows = [
        [Cell(name), *(_contraction(cells.get((archetype, name))) for archetype in archetypes)]
        for name in parameters["parameter"].unique(maintain_order=True)
    ]
    columns = ["Contraction", *(parse_archetype(archetype).label for archetype in archetypes)]
    return Table("Share of each parameter's prior variance that the data removed", columns, rows)


def _contraction(row: dict | None) -> Cell:
    if row is None:
        return Cell(UNKNOWN)
    return Cell(number(row["contraction"], 2), "" if row["informed"] else "assumed")


def _parameter_table(parameters: pl.DataFrame) -> Table:
    rows = [
        [
            Cell(parse_archetype(row["archetype"]).label),
            Cell(row["parameter"]),
            estimate(row["mean"], row["lower"], row["upper"]),
            Cell(number(row["contraction"], 2)),
        ]
        for row in parameters.iter_rows(named=True)
    ]
    columns = ["Archetype", "Parameter", "Mean and interval", "Contraction"]
    return Table("Every parameter with its 95 % interval", columns, rows, n_text=2, folded=True)


def _doubts(checks: pl.DataFrame) -> list[str]:
    """Return statements on the statistics that the fits do not reproduce."""
    missed = checks.filter(pl.col("group") == "posterior", pl.col("tail_probability") < SUSPICIOUS)
    if missed.is_empty():
        return ["The fits reproduce the observed statistics."]
    return [
        f"{parse_archetype(row['archetype']).label}: the fit does not reproduce the observed "
        f"{_statistic(row['statistic'])} (tail probability {percent(row['tail_probability'], 0)})."
        for row in missed.iter_rows(named=True)
    ]


def _statistic(name: str) -> str:
    return words.STATISTICS.get(name, name)


def _check_table(checks: pl.DataFrame) -> Table:
    rows = []
    for (archetype, statistic), part in checks.group_by("archetype", "statistic", maintain_order=True):
        groups = {row["group"]: row for row in part.iter_rows(named=True)}
        after = groups["posterior"]
        rows.append(
            [
                Cell(parse_archetype(str(archetype)).label),
                Cell(_statistic(str(statistic))),
                Cell(number(after["observed"], 2)),
                *(
                    estimate(groups[group]["mean"], groups[group]["lower"], groups[group]["upper"], 2)
                    for group in ("prior", "posterior")
                ),
                Cell(percent(after["tail_probability"], 0)),
            ]
        )
    columns = [
        "Archetype",
        "Mean over races of",
        "Observed",
        "Before the fit",
        "After the fit",
        "Tail probability",
    ]
    caption = (
        "Prior and posterior predictive checks: predictions of the model before and after the fit, with 95 % "
        "intervals, and the observed values"
    )
    return Table(caption, columns, rows, n_text=2)
