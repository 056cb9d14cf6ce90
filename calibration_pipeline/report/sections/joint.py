"""Report blocks on the joint events of one archetype: statements, chart and table."""

import polars as pl

from calibration_pipeline.events.independence import SIGNIFICANCE
from calibration_pipeline.plots.series import count
from calibration_pipeline.report.blocks import Block, Bullets, Cell, Gallery, Table
from calibration_pipeline.report.numbers import UNKNOWN, estimate, number, p_value, percent
from calibration_pipeline.report.pictures import joint_event_picture
from calibration_pipeline.report.sections.scores import FORECAST_LABELS

POWER_ENOUGH = 0.8
"""Least power at which a test that does not reject independence is evidence for it."""
LEAST_LOSS = 0.001
"""Least loss, nats a race, that the report mentions."""
NOT_ABOUT_DEPENDENCE = "not tested *"


def joint_event_blocks(joint_events: pl.DataFrame) -> list[Block]:
    """Return the blocks on joint events; none if there are no events.

    Parameters
    ----------
    joint_events : polars.DataFrame
        `JointEventTable` rows of one archetype.
    """
    if joint_events.is_empty():
        return []
    statements = [*_together(joint_events), *_dependence(joint_events), *_against_raw(joint_events)]
    chart = Gallery([joint_event_picture(joint_events)])
    return [Bullets(statements), chart, joint_event_table(joint_events)]


def joint_event_table(joint_events: pl.DataFrame) -> Table:
    """Return the table of observed shares and forecast probabilities of joint events.

    Parameters
    ----------
    joint_events : polars.DataFrame
        `JointEventTable` rows of one archetype.
    """
    forecasts = _forecasts(joint_events)
    rows = []
    for (event,), part in joint_events.group_by("event", maintain_order=True):
        by_forecast = {row["forecast"]: row for row in part.iter_rows(named=True)}
        last = by_forecast[max(by_forecast, key=forecasts.index)]
        observed = estimate(last["observed"], last["lower"], last["upper"], as_percent=True, digits=1)
        predicted = [_predicted_cell(by_forecast.get(name)) for name in forecasts]
        gains = [_gain_cell(last, name) for name in ("gain", "gain_over_raw")]
        depends = Cell(_depends(last), _power(last))
        rows.append([Cell(str(event)), observed, *predicted, depends, *gains, Cell(f"{last['n_races']:,}")])
    columns = [
        "Event",
        "Observed",
        *(f"{FORECAST_LABELS[name]} forecast" for name in forecasts),
        "Dependence between cars",
        "Gain over independent cars",
        "Gain over raw",
        "Races",
    ]
    caption = "Joint events in numbers: gains are of the log score, nats a race, with 95 % intervals"
    return Table(caption, columns, rows, folded=True)


def _forecasts(joint_events: pl.DataFrame) -> list[str]:
    return [name for name in ("raw", "recalibrated") if name in joint_events["forecast"]]


def _together(joint_events: pl.DataFrame) -> list[str]:
    """Return a statement for each forecast on the joint test of all events."""
    lines = []
    for forecast in _forecasts(joint_events):
        part = joint_events.filter(forecast=forecast)
        p = part["p_together"][0]
        label, n = FORECAST_LABELS[forecast], count(part.height, "joint event")
        if p is None:
            lines.append(f"{label}: agreement of {n} with the results is unknown.")
        elif p > SIGNIFICANCE:
            lines.append(f"{label}: {n} together agree with the results (p {p_value(p)}).")
        else:
            worst = part.sort("p_value", nulls_last=True)["event"][0]
            lines.append(
                f"{label}: {n} together contradict the forecast (p {p_value(p)}), {worst} most of all."
            )
    return lines


def _dependence(joint_events: pl.DataFrame) -> list[str]:
    """Return statements on the events that show dependence between cars, and on those without power."""
    last = joint_events.filter(forecast=_forecasts(joint_events)[-1])
    tested = [row for row in last.iter_rows(named=True) if row["about_dependence"]]
    shown = [row["event"] for row in tested if _depends(row) == "yes"]
    overdone = [_gain(row, "gain") for row in tested if _depends(row) == "less than forecast"]
    unclear = [row["event"] for row in tested if _depends(row) == "unclear"]
    lines = []
    if shown:
        lines.append(f"The results reject independent cars: {', '.join(shown)}.")
    if overdone:
        lines.append(f"Independent cars forecast better, gain in nats a race: {', '.join(overdone)}.")
    if unclear:
        lines.append(f"Too few races to separate dependence from independence: {', '.join(unclear)}.")
    if last.height > len(tested):
        lines.append("Events marked * have almost no information about dependence between cars.")
    return lines


def _against_raw(joint_events: pl.DataFrame) -> list[str]:
    """Return a statement on joint events that recalibration made worse."""
    gains = joint_events.filter(pl.col("forecast") == "recalibrated", pl.col("gain_over_raw").is_not_null())
    if gains.is_empty():
        return []
    worse = gains.filter(pl.col("gain_over_raw_upper") < 0, pl.col("gain_over_raw") <= -LEAST_LOSS)
    if worse.is_empty():
        least = gains.sort("gain_over_raw").row(0, named=True)
        gain = _gain(least, "gain_over_raw")
        return [f"Recalibrated is noticeably worse than raw on no event; least gain, nats a race: {gain}."]
    losses = ", ".join(_gain(row, "gain_over_raw") for row in worse.iter_rows(named=True))
    return [f"Recalibrated is worse than raw, gain in nats a race: {losses}. One event in 40 is by chance."]


def _gain(row: dict, name: str) -> str:
    """Return a gain with its event and interval."""
    cell = _gain_cell(row, name)
    return f"{row['event']} {cell.text}" + (f" [{cell.small}]" if cell.small else "")


def _gain_cell(row: dict, name: str) -> Cell:
    return estimate(row[name], row[f"{name}_lower"], row[f"{name}_upper"])


def _depends(row: dict) -> str:
    """Return the result of the test of independent cars."""
    if not row["about_dependence"]:
        return NOT_ABOUT_DEPENDENCE
    if row["p_independent"] is None:
        return "unclear"
    if row["p_independent"] <= SIGNIFICANCE:
        return "yes"
    if row["gain_upper"] is not None and row["gain_upper"] < 0:
        return "less than forecast"
    return "no sign of it" if (row["power_independent"] or 0) >= POWER_ENOUGH else "unclear"


def _power(row: dict) -> str:
    if not row["about_dependence"] or row["p_independent"] is None:
        return ""
    power = percent(row["power_independent"], 0)
    return f"independent: p {p_value(row['p_independent'])}, power {power}"


def _predicted_cell(row: dict | None) -> Cell:
    if row is None:
        return Cell(UNKNOWN)
    error = f"off by {number(100 * row['calibration_error'], 1)} points"
    p = "" if row["p_value"] is None else f", p {p_value(row['p_value'])}"
    return Cell(percent(row["predicted"]), error + p)
