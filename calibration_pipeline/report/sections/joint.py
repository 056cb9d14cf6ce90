"""The report's part on joint events of one kind of track: what they say in words, the chart, the numbers."""

import polars as pl

from calibration_pipeline.events.independence import SIGNIFICANCE
from calibration_pipeline.plots.series import count
from calibration_pipeline.report.blocks import Block, Bullets, Cell, Gallery, Table
from calibration_pipeline.report.numbers import UNKNOWN, estimate, number, p_value, percent
from calibration_pipeline.report.pictures import joint_event_picture
from calibration_pipeline.report.sections.scores import FORECAST_LABELS

POWER_ENOUGH = 0.8
"""Below this chance of noticing dependence, its absence says nothing."""
WORTH_A_WORD = 0.001
"""A smaller loss, nats a race, is not worth a word, however sure."""
NOT_ABOUT_DEPENDENCE = "not what it asks *"


def joint_event_blocks(joint_events: pl.DataFrame) -> list[Block]:
    """Return what is shown of joint events; nothing if there are none.

    Parameters
    ----------
    joint_events : polars.DataFrame
        `JointEventTable` rows of one archetype.
    """
    if joint_events.is_empty():
        return []
    said = [*_together(joint_events), *_dependence(joint_events), *_against_raw(joint_events)]
    return [Bullets(said), Gallery([joint_event_picture(joint_events)]), joint_event_table(joint_events)]


def joint_event_table(joint_events: pl.DataFrame) -> Table:
    """Return how often joint events happened, and how often the forecasts said they would.

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
        "Happened",
        *(f"{FORECAST_LABELS[name]} forecast" for name in forecasts),
        "Do cars depend on each other?",
        "Gain over independent cars",
        "Gain over raw",
        "Races",
    ]
    caption = "Joint events in numbers: gains are of the log score, nats a race, with 95 % intervals"
    return Table(caption, columns, rows, folded=True)


def _forecasts(joint_events: pl.DataFrame) -> list[str]:
    return [name for name in ("raw", "recalibrated") if name in joint_events["forecast"]]


def _together(joint_events: pl.DataFrame) -> list[str]:
    """Say of each forecast whether all events together speak against it."""
    lines = []
    for forecast in _forecasts(joint_events):
        part = joint_events.filter(forecast=forecast)
        p = part["p_together"][0]
        label, n = FORECAST_LABELS[forecast], count(part.height, "joint event")
        if p is None:
            lines.append(f"{label}: whether {n} agree with the results cannot be told.")
        elif p > SIGNIFICANCE:
            lines.append(f"{label}: {n} together agree with the results (p {p_value(p)}).")
        else:
            worst = part.sort("p_value", nulls_last=True)["event"][0]
            lines.append(
                f"{label}: {n} together speak against the forecast (p {p_value(p)}), {worst} most of all."
            )
    return lines


def _dependence(joint_events: pl.DataFrame) -> list[str]:
    """Say where the results show that cars depend on each other, and where nothing can be told."""
    last = joint_events.filter(forecast=_forecasts(joint_events)[-1])
    asked = [row for row in last.iter_rows(named=True) if row["about_dependence"]]
    shown = [row["event"] for row in asked if _depends(row) == "yes"]
    overdone = [_gain(row, "gain") for row in asked if _depends(row) == "less than forecast"]
    silent = [row["event"] for row in asked if _depends(row) == "cannot tell"]
    lines = []
    if shown:
        lines.append(f"Results of independent cars would look different: {', '.join(shown)}.")
    if overdone:
        lines.append(
            f"Independent cars would have forecast better, gain in nats a race: {', '.join(overdone)}."
        )
    if silent:
        lines.append(f"Too few races to tell dependence from independence: {', '.join(silent)}.")
    if last.height > len(asked):
        lines.append("Events marked * say next to nothing about how cars depend on each other.")
    return lines


def _against_raw(joint_events: pl.DataFrame) -> list[str]:
    """Say whether recalibrating made any joint event worse."""
    gains = joint_events.filter(pl.col("forecast") == "recalibrated", pl.col("gain_over_raw").is_not_null())
    if gains.is_empty():
        return []
    worse = gains.filter(pl.col("gain_over_raw_upper") < 0, pl.col("gain_over_raw") <= -WORTH_A_WORD)
    if worse.is_empty():
        least = gains.sort("gain_over_raw").row(0, named=True)
        said = _gain(least, "gain_over_raw")
        return [f"Recalibrated is noticeably worse than raw on no event; least gain, nats a race: {said}."]
    said = ", ".join(_gain(row, "gain_over_raw") for row in worse.iter_rows(named=True))
    return [f"Recalibrated is worse than raw, gain in nats a race: {said}. One event in forty is by chance."]


def _gain(row: dict, name: str) -> str:
    """Write a gain with its event and interval."""
    cell = _gain_cell(row, name)
    return f"{row['event']} {cell.text}" + (f" [{cell.small}]" if cell.small else "")


def _gain_cell(row: dict, name: str) -> Cell:
    return estimate(row[name], row[f"{name}_lower"], row[f"{name}_upper"])


def _depends(row: dict) -> str:
    """Say whether the results rule out that cars are independent."""
    if not row["about_dependence"]:
        return NOT_ABOUT_DEPENDENCE
    if row["p_independent"] is None:
        return "cannot tell"
    if row["p_independent"] <= SIGNIFICANCE:
        return "yes"
    if row["gain_upper"] is not None and row["gain_upper"] < 0:
        return "less than forecast"
    return "no sign of it" if (row["power_independent"] or 0) >= POWER_ENOUGH else "cannot tell"


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
