"""Score tables of the report: a short table, and folded tables of every score and estimator."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from calibration_pipeline.plots.series import count
from calibration_pipeline.report.blocks import Cell, Table
from calibration_pipeline.report.numbers import estimate, number

FORECAST_LABELS = {
    "raw": "Raw",
    "recalibrated": "Recalibrated",
    "start_order": "Start order",
    "bradley_terry": "Bradley-Terry",
    "climatology": "Every car equal",
}
REFERENCES = {**{name: label.lower() for name, label in FORECAST_LABELS.items()}, "raw": "the raw forecast"}
REFERENCES["bradley_terry"] = "Bradley-Terry"


class MetricWords(NamedTuple):
    """Display format of a quantity: label, decimals, and whether it is a share."""

    label: str
    digits: int = 3
    as_percent: bool = False


METRICS = {
    "crps": MetricWords("CRPS, positions", 2),
    "fair_crps": MetricWords("CRPS, fair to few scenarios, positions", 2),
    "rps": MetricWords("RPS", 4),
    "log_score": MetricWords("Log score, nats a car"),
    "log_score_kde": MetricWords("Log score by kernel density, nats a car"),
    "brier": MetricWords("Brier score,", 4),
    "energy_score": MetricWords("Energy score of whole races", 2),
    "variogram_score": MetricWords("Variogram score of whole races"),
    "coverage": MetricWords("Finishes in the interval of", 1, as_percent=True),
    "head_to_head_slope": MetricWords("Head-to-head slope", 2),
    "brier_miscalibration": MetricWords("Miscalibration of the Brier score,", 4),
    "brier_miscalibration_expected": MetricWords("Miscalibration if calibrated,", 4),
    "brier_discrimination": MetricWords("Discrimination of the Brier score,", 4),
    "brier_uncertainty": MetricWords("Uncertainty of the Brier score,", 4),
    "sharpness": MetricWords("Width of the interval, positions, of", 1),
    "crps_skill": MetricWords("CRPS skill"),
    "log_gain": MetricWords("Log gain, nats a car"),
    "brier_skill": MetricWords("Brier skill,"),
}
GOALS = {"coverage": "wanted: {level}", "head_to_head_slope": "wanted: 1"}

Key = tuple[str, str, str]
"""Quantity, level, reference."""
GROUPS: dict[str, tuple[Key, ...]] = {
    "Calibration": (
        ("coverage", "50 %", ""),
        ("coverage", "80 %", ""),
        ("coverage", "95 %", ""),
        ("head_to_head_slope", "", ""),
    ),
    "Accuracy": (
        ("crps", "", ""),
        ("log_score", "", ""),
        ("energy_score", "", ""),
    ),
    "Sharpness": (("sharpness", "80 %", ""),),
    "Skill": (
        ("crps_skill", "", "climatology"),
        ("crps_skill", "", "start_order"),
        ("brier_skill", "win", "climatology"),
        ("brier_skill", "top 10", "climatology"),
        ("brier_skill", "head to head", "bradley_terry"),
    ),
    "Gain from recalibration, race by race": (("crps_skill", "", "raw"), ("log_gain", "", "raw")),
}


def metric_tables(metrics: pl.DataFrame) -> list[Table]:
    """Return the score tables of one archetype: main scores, every score, and their estimators.

    Parameters
    ----------
    metrics : polars.DataFrame
        `MetricTable` rows of one archetype.

    Returns
    -------
    list of Table
        Forecasts side by side, one score a row; all tables but the first are folded.
    """
    cells = {
        ((row["quantity"], row["level"], row["reference"]), row["forecast"]): row
        for row in metrics.iter_rows(named=True)
    }
    present = dict.fromkeys(key for key, _ in cells)
    grouped: list[list[Cell]] = []
    for name, keys in GROUPS.items():
        if rows := _rows(cells, [key for key in keys if key in present], ("raw", "recalibrated")):
            grouped += [[Cell(name)], *rows]
    n_races, n_cars = metrics.select(pl.max("n_races"), pl.max("n_cars")).row(0)
    n_scored = f"{count(n_races, 'race')} ({count(n_cars, 'car')})"
    forecasts = [name for name in FORECAST_LABELS if name in metrics["forecast"]]
    order = sorted(
        present, key=lambda key: list(METRICS).index(key[0]) if key[0] in METRICS else len(METRICS)
    )
    short = Table(
        f"Scores on {n_scored} that no recalibration had seen, with 95 % intervals",
        ["", "Raw", "Recalibrated"],
        grouped,
    )
    columns = ["", *(FORECAST_LABELS[forecast] for forecast in forecasts)]
    every = Table("Every score, beside the baselines", columns, _rows(cells, order, forecasts), folded=True)
    return [short, every, _estimator_table(cells, order)]


def _estimator_table(cells: dict[tuple[Key, str], dict], keys: Sequence[Key]) -> Table:
    rows = []
    for key in keys:
        judged = [cells.get((key, forecast), {}) for forecast in ("raw", "recalibrated")]
        if any(judged):
            estimator = next(row["estimator"] for row in judged if row)
            errors = [Cell(number(row.get("monte_carlo_error"), 4)) for row in judged]
            ratios = [Cell(number(row.get("error_ratio"), 2)) for row in judged]
            rows.append([Cell(metric_label(*key)), Cell(estimator), *errors, *ratios])
    columns = [
        "",
        "Estimator",
        "Error from the number of scenarios: raw",
        "Recalibrated",
        "Clustered over naive standard error: raw",
        "Recalibrated",
    ]
    return Table("Estimators of the scores, and their errors", columns, rows, folded=True, n_text=2)


def metric_label(quantity: str, level: str, reference: str) -> str:
    """Return the label of a score.

    Parameters
    ----------
    quantity, level, reference : str
        As in `MetricTable`.

    Examples
    --------
    >>> metric_label("brier_skill", "top 10", "start_order")
    'Brier skill, top 10, against start order'
    """
    label = METRICS[quantity].label if quantity in METRICS else quantity.replace("_", " ")
    against = f", against {REFERENCES[reference]}" if reference else ""
    return f"{label} {level}".strip() + against


def _rows(
    cells: dict[tuple[Key, str], dict], keys: Sequence[Key], forecasts: Sequence[str]
) -> list[list[Cell]]:
    rows = []
    for key in keys:
        values = [cells.get((key, forecast)) for forecast in forecasts]
        if any(values):
            better = next(row["orientation"] for row in values if row is not None)
            goal = GOALS[key[0]].format(level=key[1]) if key[0] in GOALS else better
            rows.append([Cell(metric_label(*key), goal), *map(_cell, values)])
    return rows


def _cell(row: dict | None) -> Cell:
    if row is None:
        return Cell("")
    words = METRICS.get(row["quantity"], MetricWords(""))
    return estimate(row["estimate"], row["lower"], row["upper"], words.digits, as_percent=words.as_percent)
