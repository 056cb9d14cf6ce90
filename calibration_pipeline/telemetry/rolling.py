"""Rolling columns of lap telemetry, over the laps up to each lap of a race, never later.

This module looks at the laps of one race. Aggregates of whole races are in `laps`, features over races in
`features`.
"""

import re
from collections.abc import Sequence

import polars as pl

REQUIRED = ("race_id", "driver_id", "lap", "position", "lap_time_s", "flag")
WINDOW = re.compile(r"[0-9]+l")
_ROW, _CAR_LAP, _TIME, _LAP = "_row", "_car_lap", "_relative_time", "_timed_lap"


def compute_aggregate_features(
    telemetry_df: pl.DataFrame | pl.LazyFrame, time_windows: Sequence[str] = ("10l", "20l", "50l")
) -> pl.DataFrame:
    """Add rolling columns per driver and race, over the laps up to and including each lap.

    A window `w` of `"10l"` covers the ten lap numbers that end with the row's own, so laps that are
    missing from the table leave a window with fewer laps; they do not stretch it. Lap 0 is the grid: its
    row is kept, its new columns are null, and no window counts it.

    The *relative lap time* of a green lap is the lap time over the median lap time of the cars that were
    timed under green on the lap of the same number, minus 1: negative is fast.

    Parameters
    ----------
    telemetry_df : polars.DataFrame or polars.LazyFrame
        `LapTelemetry`, or at least its columns race_id, driver_id, lap, position, lap_time_s (s) and flag.
    time_windows : sequence of str
        Windows as a number of laps and the letter l.

    Returns
    -------
    polars.DataFrame
        The rows as given and in their order, with five columns for every window `w`:

        - `average_position_{w}`, `best_position_{w}`: mean and smallest running position;
        - `laps_led_{w}`: laps ended in the lead;
        - `green_pace_{w}`: mean relative lap time, null without a timed green lap in the window;
        - `falloff_{w}`: least-squares slope of the relative lap time over the lap number, 1/lap (positive
          is a car that fades), null with fewer than two timed green laps in the window.

    Raises
    ------
    ValueError
        If a window is not of the form "10l" with at least one lap or is given twice, a column is missing,
        a lap time is not a positive number, or a car has a lap twice.

    Examples
    --------
    >>> laps = pl.DataFrame({
    ...     "race_id": 1, "driver_id": "a", "lap": [0, 1, 2, 4], "position": [3, 2, 1, 1],
    ...     "lap_time_s": [None, 30.0, 30.0, 30.0], "flag": "green",
    ... })
    >>> compute_aggregate_features(laps, ["2l"])["average_position_2l"].to_list()
    [None, 2.0, 1.5, 1.0]
    """
    widths = _window_widths(time_windows)
    frame = telemetry_df.lazy().collect()
    _check_telemetry(frame)
    laps = (
        frame.with_row_index(_ROW)
        .with_columns(relative_green_time().alias(_TIME))
        .sort("race_id", "driver_id", "lap")
        .with_columns(
            _car_lap(widest=max(widths.values(), default=0)),
            pl.when(pl.col(_TIME).is_not_null()).then("lap").cast(pl.Float64).alias(_LAP),
        )
    )
    rolled = laps.with_columns(
        column for window, width in widths.items() for column in _rolling_columns(window, width)
    )
    return rolled.sort(_ROW).drop(_ROW, _CAR_LAP, _TIME, _LAP)


def relative_green_time() -> pl.Expr:
    """Lap time over the field's median on the lap of that number, minus 1; null unless timed under green."""
    counts = (pl.col("flag") == "green") & (pl.col("lap") >= 1)
    time = pl.when(counts).then("lap_time_s").cast(pl.Float64)
    return time / time.median().over("race_id", "lap") - 1


def _window_widths(time_windows: Sequence[str]) -> dict[str, int]:
    """Return the laps of every window by its name."""
    for window in time_windows:
        if not WINDOW.fullmatch(window) or int(window[:-1]) < 1:
            raise ValueError(
                f"Argument time_windows must hold windows like '10l' with at least one lap, got {window!r}."
            )
    if len(set(time_windows)) < len(time_windows):
        raise ValueError(f"Argument time_windows must name each window once, got {list(time_windows)}.")
    return {window: int(window[:-1]) for window in time_windows}


def _check_telemetry(frame: pl.DataFrame) -> None:
    """Refuse telemetry that would silently spoil the windows."""
    if missing := [name for name in REQUIRED if name not in frame.columns]:
        raise ValueError(f"Argument telemetry_df must have the columns {', '.join(missing)}.")
    is_time = pl.col("lap_time_s").cast(pl.Float64).is_finite() & (pl.col("lap_time_s") > 0)
    if n_bad := frame.select((~is_time).sum()).item():
        raise ValueError(
            "Column lap_time_s must be finite and above 0, or null where a lap was not timed; "
            f"{n_bad} values are NaN, infinite, or not above 0."
        )
    twice = frame.filter(pl.struct("race_id", "driver_id", "lap").is_duplicated())
    if not twice.is_empty():
        race_id, driver_id, lap = twice.select("race_id", "driver_id", "lap").row(0)
        raise ValueError(
            f"Argument telemetry_df must have one row a car and lap; lap {lap} of driver_id {driver_id!r} "
            f"in race_id {race_id} is there twice."
        )


def _car_lap(widest: int) -> pl.Expr:
    """Return one index over the sorted rows: lap numbers, with gaps so that no window spans two cars."""
    car = pl.struct("race_id", "driver_id").rle_id().cast(pl.Int64)
    return (car * (pl.col("lap").max() + widest + 1) + pl.col("lap")).alias(_CAR_LAP)


def _rolling_columns(window: str, width: int) -> list[pl.Expr]:
    """Return the columns of one window, on rows sorted by `_CAR_LAP`."""
    period = f"{width}i"
    on_track = pl.col("lap") >= 1
    position = pl.when(on_track).then("position")
    led = (position == 1).cast(pl.Int64)
    columns = {
        "average_position": position.rolling_mean_by(_CAR_LAP, period),
        "best_position": position.rolling_min_by(_CAR_LAP, period),
        "laps_led": led.rolling_sum_by(_CAR_LAP, period),
        "green_pace": pl.col(_TIME).rolling_mean_by(_CAR_LAP, period),
        "falloff": _rolling_slope(pl.col(_TIME), pl.col(_LAP), period),
    }
    return [pl.when(on_track).then(column).alias(f"{name}_{window}") for name, column in columns.items()]


def _rolling_slope(y: pl.Expr, x: pl.Expr, period: str) -> pl.Expr:
    """Least-squares slope of y over x, from the window's sums; null with fewer than two points."""

    def total(values: pl.Expr) -> pl.Expr:
        return values.rolling_sum_by(_CAR_LAP, period)

    n = total(y.is_not_null().cast(pl.Float64))
    spread = n * total(x * x) - total(x) ** 2
    return pl.when(n >= 2).then((n * total(x * y) - total(x) * total(y)) / spread)
