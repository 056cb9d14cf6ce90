"""Short Markdown report on arrays given by hand: one race an archetype, no verdicts."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.mcmc.convergence import Convergence
from calibration_pipeline.plots import charts, figures
from calibration_pipeline.plots.series import count
from calibration_pipeline.report.blocks import Block, Bullets, Cell, Gallery, Picture, Section, Table, Text
from calibration_pipeline.report.markdown import render_block
from calibration_pipeline.report.numbers import number, percent
from calibration_pipeline.verification.arrays import EventError


class Judged(NamedTuple):
    """Results for one archetype: `compute_all_metrics`, calibration curves by event, joint-event errors."""

    archetype: str
    n_samples: int
    n_cars: int
    metrics: dict[str, Any]
    curves: Sequence[pl.DataFrame]
    errors: Mapping[str, EventError]
    skipped: Mapping[str, str]

    @property
    def label(self) -> str:
        """The archetype's name for display."""
        return parse_archetype(self.archetype).label


def render_array_report(
    judged: Sequence[Judged], fits: Mapping[str, Convergence], stem: str
) -> tuple[str, dict[str, bytes]]:
    """Return the Markdown report on arrays and its pictures.

    Parameters
    ----------
    judged : sequence of Judged
        Results, one entry an archetype.
    fits : mapping of str to Convergence
        By archetype, or one under the name "all".
    stem : str
        Prefix of the pictures' file names.

    Returns
    -------
    text : str
        Markdown that links the pictures.
    pictures : dict
        File name to PNG.
    """
    galleries = {race.archetype: _pictures(race, stem) for race in judged}
    sections = [
        Section("scores", "Scores", [_score_table(judged)]),
        *(_archetype_section(race, galleries[race.archetype]) for race in judged),
        _fit_section(fits),
    ]
    parts = ["# Calibration report"]
    for section in sections:
        parts.append(f"## {escape_text(section.heading)}")
        parts += [text for block in section.blocks for text in render_block(block, ".")]
    pictures = {f"{picture.key}.png": picture.draw() for group in galleries.values() for picture in group}
    return "\n\n".join(parts) + "\n", pictures


def _score_table(judged: Sequence[Judged]) -> Table:
    levels = list(judged[0].metrics["coverage"])
    columns = ["Archetype", "CRPS, positions", "Log score, nats"]
    columns += [f"Coverage of {level:.0%}".replace("%", " %") for level in levels]
    rows = [
        [
            Cell(race.label),
            Cell(number(race.metrics["crps"], 2)),
            Cell(number(race.metrics["log_score"], 2)),
            *(Cell(percent(race.metrics["coverage"][level])) for level in levels),
        ]
        for race in judged
    ]
    return Table(
        "CRPS: smaller is better. Log score: larger is better. Coverage: nominal is best.", columns, rows
    )


def _archetype_section(race: Judged, pictures: Sequence[Picture]) -> Section:
    scenarios, cars = count(race.n_samples, "scenario"), count(race.n_cars, "car")
    about = Text(
        f"One race of {cars}, {scenarios}. Cars of one race are dependent: one race gives no interval."
    )
    rows = [
        [
            Cell(event),
            Cell(percent(e.predicted)),
            Cell(percent(e.observed)),
            Cell("0 by construction" if e.by_construction else number(e.error)),
        ]
        for event, e in race.errors.items()
    ]
    table = Table("Joint events", ["Event", "Predicted", "Observed", "|Predicted − observed|"], rows)
    blocks: list[Block] = [about, Gallery(pictures), table]
    if race.skipped:
        blocks.append(Bullets([f"Skipped {event}: {reason}." for event, reason in race.skipped.items()]))
    return Section(race.archetype, race.label, blocks)


def _pictures(race: Judged, stem: str) -> list[Picture]:
    pictures = []
    for curve in race.curves:
        event = curve["event"][0]
        key = f"{stem}-{race.archetype}-{event.replace(' ', '-')}"
        alt = f"Calibration curve of {race.label}, {event}: predicted probability against observed share."
        caption = "On the diagonal, events happen as often as forecast."
        pictures.append(Picture(key, alt, caption, functools.partial(_curve_png, curve)))
    return pictures


def _curve_png(curve: pl.DataFrame) -> bytes:
    figure, ax = figures.figure_axes()
    charts.draw_calibration_curve(ax, curve)
    return figures.figure_png(figure)


def _fit_section(fits: Mapping[str, Convergence]) -> Section:
    rows = [
        [
            Cell(_fit_label(name)),
            Cell(row["parameter"]),
            Cell("not computable" if row["r_hat"] is None else number(row["r_hat"])),
            Cell(number(row["ess_bulk"], 0)),
            Cell(number(row["ess_tail"], 0)),
        ]
        for name, fit in fits.items()
        for row in fit.table.iter_rows(named=True)
    ]
    table = Table("R-hat and ESS", ["Fit", "Parameter", "R-hat", "Bulk ESS", "Tail ESS"], rows)
    verdicts = [f"{_fit_label(name)}: {_fit_verdict(fit)}" for name, fit in fits.items()]
    return Section("convergence", "Did the fits converge?", [Bullets(verdicts), table])


def _fit_label(name: str) -> str:
    return "All archetypes" if name == "all" else parse_archetype(name).label


def _fit_verdict(fit: Convergence) -> str:
    divergences = (
        "divergences not recorded" if fit.divergences is None else count(fit.divergences, "divergence")
    )
    if fit.converged:
        return f"converged, {divergences}."
    return f"not shown to have converged, {divergences}. {'. '.join(fit.reasons)}."
