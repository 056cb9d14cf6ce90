"""Tables of docs/state.md from the result file of `forecast_changes`."""

from collections.abc import Mapping, Sequence

from benchmarks.evaluation import EVERYTHING, OVALS
from benchmarks.forecast_changes import COMPARISONS, NEW_CAR
from benchmarks.result_files import markdown_table, read_results, shown_estimate

Quantities = Mapping[tuple[str, str], Mapping[str, str]]
"""Quantity and forecast, or difference of two forecasts -> row of the result file."""
ALL_SEASONS = "2016-2023"
NEW_CAR_SEASONS = f"{NEW_CAR[0]}-{NEW_CAR[-1]}"
FORECASTS = ("old raw", "old recalibrated", "new raw", "new recalibrated")
SCORE_COLUMNS = {f"{first} - {second}": ("log_score", f"{first} - {second}") for first, second in COMPARISONS}
"""Column -> quantity and difference of forecasts."""
RACE_COLUMNS = {
    "winner: new raw - old raw": ("winner_log_score", "new raw - old raw"),
    "winner: new recalibrated - new raw": ("winner_log_score", "new recalibrated - new raw"),
    "winner: new recalibrated - old recalibrated": (
        "winner_log_score",
        "new recalibrated - old recalibrated",
    ),
    "retirements: new recalibrated - new raw": ("retirements_log_score", "new recalibrated - new raw"),
}
SLOPES = {
    "win_temperature": "temperature of the win",
    "head_to_head_slope": "H2H slope",
    "retirement_slope": "slope of retirements",
}


def _read() -> dict[tuple[str, str], dict[tuple[str, str], dict[str, str]]]:
    """Return the rows by seasons and races."""
    found: dict[tuple[str, str], dict[tuple[str, str], dict[str, str]]] = {}
    for row in read_results("forecast_changes"):
        found.setdefault((row["seasons"], row["races"]), {})[row["quantity"], row["forecast"]] = row
    return found


def score_table() -> str:
    """Return the differences in log score of finish positions, nats a car."""
    return _difference_table(SCORE_COLUMNS)


def race_score_table() -> str:
    """Return the differences in log score of the winner and of the number of retirements, nats a race."""
    return _difference_table(RACE_COLUMNS)


def _difference_table(columns: Mapping[str, tuple[str, str]]) -> str:
    rows = []
    for (seasons, races), quantities in _read().items():
        differences = {label: quantities[key] for label, key in columns.items()}
        n_races = next(iter(differences.values()))["n_races"]
        cells = {label: shown_estimate(row, "value") for label, row in differences.items()}
        rows.append({"seasons": seasons, "races": races, "n": n_races, **cells})
    return markdown_table(rows)


def slope_table() -> str:
    """Return the slopes of each forecast; for the new car, those without superspeedways alone."""
    shown = [
        (key, quantities)
        for key, quantities in _read().items()
        if key[0] == ALL_SEASONS or key == (NEW_CAR_SEASONS, OVALS)
    ]
    rows = [
        {
            "slope": label,
            "seasons": seasons,
            "races": races,
            **{name: _show_slope(quantities[quantity, name]) for name in FORECASTS},
        }
        for quantity, label in SLOPES.items()
        for (seasons, races), quantities in shown
    ]
    return markdown_table(rows)


def _show_slope(row: Mapping[str, str]) -> str:
    if not row["value"]:
        return "none"
    value, *ends = (f"{float(row[name]):.2f}" for name in ("value", "value_lower", "value_upper"))
    return f"{value} [{', '.join(ends)}]"


def retirement_table() -> str:
    """Return the mean number of retirements of a race, with its z, and the largest z over archetypes."""
    rows = []
    for (seasons, races), quantities in _read().items():
        if seasons in (ALL_SEASONS, NEW_CAR_SEASONS):
            observed = _values(quantities, "retirements", ["observed"])
            cells = [
                f"{mean:.2f} ({z:+.1f})"
                for mean, z in zip(
                    _values(quantities, "retirements", FORECASTS),
                    _values(quantities, "retirements_z", FORECASTS),
                    strict=True,
                )
            ]
            rows.append([seasons, races, f"{observed[0]:.2f}", *cells])
    for seasons in (ALL_SEASONS, NEW_CAR_SEASONS):
        quantities = _read()[seasons, EVERYTHING]
        largest = zip(
            _values(quantities, "largest_retirements_z", FORECASTS),
            _values(quantities, "largest_retirements_z_p", FORECASTS),
            strict=True,
        )
        rows.append([seasons, "largest z over archetypes", "", *(f"{z:.1f} (p {p:.3f})" for z, p in largest)])
    columns = ("seasons", "races", "observed", *FORECASTS)
    return markdown_table([dict(zip(columns, row, strict=True)) for row in rows])


def _values(quantities: Quantities, quantity: str, forecasts: Sequence[str]) -> list[float]:
    return [float(quantities[quantity, name]["value"]) for name in forecasts]
