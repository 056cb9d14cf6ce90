"""The walk-forward recalibration of each form of probabilities, under common names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import xarray as xr

from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.walk_forward import events, positions
from calibration_pipeline.walk_forward.next_race import forecast_next_events, forecast_next_positions


class Walk(NamedTuple):
    """Functions of one form; the forecasts are those of `forecasters.folder.Forecasts.values`.

    Attributes
    ----------
    fit : callable
        Forecasts, results, seasons, races in a fold or None, seed → posterior.
    filter : callable
        Forecasts, results, posterior, seed → state.
    parts : callable
        State → its `MapState` by market, '' for a state of all markets.
    recalibrate : callable
        Forecasts, state → recalibrated forecasts.
    forecast_next : callable
        As `next_race.forecast_next_events`.
    """

    fit: Callable[[Any, pl.DataFrame, Sequence[int], int | None, int], xr.DataTree]
    filter: Callable[[Any, pl.DataFrame, xr.DataTree, int], xr.DataTree]
    parts: Callable[[xr.DataTree], dict[str, xr.DataTree]]
    recalibrate: Callable[[Any, xr.DataTree], Any]
    forecast_next: Callable[..., tuple[pl.DataFrame, list[str]]]


def _fit_events(
    forecasts: pl.DataFrame, results: pl.DataFrame, seasons: Sequence[int], fold_races: int | None, seed: int
) -> xr.DataTree:
    return events.fit_events(forecasts, results, seasons, fold_races=fold_races, seed=seed)


def _fit_positions(
    forecasts: xr.Dataset, results: pl.DataFrame, seasons: Sequence[int], _: int | None, seed: int
) -> xr.DataTree:
    return positions.fit_positions(forecasts, results, seasons, seed=seed)


WALKS: Mapping[Form, Walk] = {
    Form.EVENTS: Walk(
        _fit_events,
        events.filter_events,
        lambda state: dict(state.children),
        lambda forecasts, state: events.recalibrate_events(forecasts, events.race_states(state)),
        forecast_next_events,
    ),
    Form.POSITIONS: Walk(
        _fit_positions,
        positions.filter_positions,
        lambda state: {"": state},
        lambda forecasts, state: positions.recalibrate_positions(forecasts, state["races"].to_dataset()),
        forecast_next_positions,
    ),
}
"""Form of probabilities → its functions."""
