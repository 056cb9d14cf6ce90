"""Verdicts on forecasters of event and of position probabilities, by the rules of scenarios.

A form has the markets that it gives: position probabilities those of `markets.POSITION_MARKETS`, event
probabilities those of the file.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.markets import EVENT_MARKETS, POSITION_MARKETS
from calibration_pipeline.schemas.frames import JointEventTable, VerdictTable
from calibration_pipeline.seasons import split_eras
from calibration_pipeline.verification.backtest import scored_positions
from calibration_pipeline.verification.event_cases import market_events, scored_events
from calibration_pipeline.verification.verdicts.estimates import event_estimates
from calibration_pipeline.verification.verdicts.matrix import judge_eras, verdict_table
from calibration_pipeline.verification.verdicts.rules import Verdict, judge_markets
from calibration_pipeline.walk_forward.events import race_states


def judge_forecaster(
    forecaster: str,
    form: Form,
    forecasts: Mapping[str, Any],
    results: pl.DataFrame,
    state: xr.DataTree,
    era_starts: Sequence[int],
) -> pl.DataFrame:
    """Rule on every archetype, era and market of a forecaster of probabilities.

    Parameters
    ----------
    forecaster : str
    form : Form
        Event or position probabilities.
    forecasts : mapping
        'raw' and 'recalibrated' to `EventProbabilities` or `PositionProbabilities`, as the form is.
    results : polars.DataFrame
        `RaceResults`; races without results are left out.
    state : xarray.DataTree
        `EventState`, or the `MapState` of positions.
    era_starts : sequence of int
        First season of each declared era.

    Returns
    -------
    polars.DataFrame
        `VerdictTable`.
    """
    if form is Form.EVENTS:
        states = race_states(state)
        return judge_events(forecaster, scored_events(forecasts, results, states), states, era_starts)
    backtests = scored_positions(forecasts, results, state["races"].to_dataset())
    return judge_positions(forecaster, backtests, results, era_starts)


def judge_events(
    forecaster: str, scored: pl.DataFrame, markets: Collection[str], era_starts: Sequence[int]
) -> pl.DataFrame:
    """Rule on every market of a forecaster of event probabilities.

    Parameters
    ----------
    forecaster : str
    scored : polars.DataFrame
        As `event_cases.scored_events` returns it.
    markets : collection of str
        Markets of the forecaster.
    era_starts : sequence of int
        First season of each declared era.

    Returns
    -------
    polars.DataFrame
        `VerdictTable` of every archetype.
    """
    ordered = [market for market in EVENT_MARKETS if market in markets]
    verdicts = {
        str(archetype): _judge_archetype(scored.filter(archetype=str(archetype)), ordered, era_starts)
        for archetype in ARCHETYPES
    }
    return _table(forecaster, verdicts)


def judge_positions(
    forecaster: str, backtests: Mapping[str, xr.Dataset], results: pl.DataFrame, era_starts: Sequence[int]
) -> pl.DataFrame:
    """Rule on every market of a forecaster of position probabilities.

    Parameters
    ----------
    forecaster : str
    backtests : mapping
        As `backtest.scored_positions` returns them.
    results : polars.DataFrame
        `RaceResults` of these races.
    era_starts : sequence of int
        First season of each declared era.

    Returns
    -------
    polars.DataFrame
        `VerdictTable` of every archetype.
    """
    no_events = JointEventTable.empty()
    verdicts = {
        str(archetype): judge_eras(backtests[archetype], {}, results, no_events, era_starts, POSITION_MARKETS)
        for archetype in ARCHETYPES
    }
    return _table(forecaster, verdicts)


def _judge_archetype(
    scored: pl.DataFrame, markets: Sequence[str], era_starts: Sequence[int]
) -> dict[str, list[Verdict]]:
    races = scored.unique("race_id", maintain_order=True)
    verdicts = {}
    for era, of_era in split_eras(era_starts, races["season"].to_list()).items():
        ids = races.filter(pl.Series(of_era, dtype=pl.Boolean))["race_id"]
        own = scored.filter(pl.col("race_id").is_in(ids.implode()))
        calibrated = set(own.filter(pl.col("n_calibration_races") > 0)["market"])
        estimates = list(event_estimates(market_events(own)))
        verdicts[era] = judge_markets(estimates, JointEventTable.empty(), calibrated, markets)
    return verdicts


def _table(forecaster: str, verdicts: Mapping[str, dict[str, list[Verdict]]]) -> pl.DataFrame:
    frames = [verdict_table(forecaster, archetype, own) for archetype, own in verdicts.items()]
    return pl.concat([VerdictTable.empty(), *frames])
