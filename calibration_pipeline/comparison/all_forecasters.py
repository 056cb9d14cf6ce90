"""Comparison of all forecasters of a run: their forecasts, the blend's weights, and the scores of all."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import polars as pl
import xarray as xr

from calibration_pipeline.comparison.blend import blend_backtest, blend_events
from calibration_pipeline.comparison.market_scores import score_markets
from calibration_pipeline.comparison.pool_weights import (
    BLEND,
    next_race_weights,
    pool_cases,
    walk_forward_weights,
)
from calibration_pipeline.comparison.race_probabilities import (
    CLIMATOLOGY,
    COORDINATES,
    RACE_KEYS,
    Forecasts,
    add_events,
    add_independent_pairs,
    climatology_of,
    list_events,
    read_backtests,
    read_events,
)
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.schemas.comparison import BlendWeights, MarketScores
from calibration_pipeline.schemas.partition_keys import split_key
from calibration_pipeline.verification.backtest import backtest_positions


class Comparison(NamedTuple):
    """Comparison of all forecasters.

    Attributes
    ----------
    forecasters : list of str
        Those that are compared, the network first.
    weights : polars.DataFrame
        `BlendWeights`, those before the next race last.
    scores : polars.DataFrame
        `MarketScores`.
    """

    forecasters: list[str]
    weights: pl.DataFrame
    scores: pl.DataFrame


def compare_forecasters(
    backtests: Mapping[str, xr.Dataset],
    events: Mapping[str, Mapping[str, pl.DataFrame]],
    positions: Mapping[str, Mapping[str, xr.Dataset]],
    position_states: Mapping[str, xr.DataTree],
    results: pl.DataFrame,
    next_race: xr.Dataset,
) -> Comparison:
    """Compare the forecasters of scenarios, of event probabilities and of position probabilities.

    Parameters
    ----------
    backtests : mapping
        Partition key, archetype and forecaster, to `Backtest`.
    events : mapping
        Forecaster to raw and recalibrated to `EventProbabilities`.
    positions : mapping
        Forecaster to raw and recalibrated to `PositionProbabilities`. Only races of the backtests are read.
    position_states : mapping
        Forecaster of position probabilities to its `MapState`.
    results : polars.DataFrame
        `RaceResults`.
    next_race : xarray.Dataset
        `ScenarioEnsemble` of the next race by the network, or of no race.
    """
    scored = {int(race) for races in backtests.values() for race in races["race"].values}
    by_forecaster: dict[str, dict[str, xr.Dataset]] = {}
    for key, races in backtests.items():
        archetype, forecaster = split_key(key)
        by_forecaster.setdefault(forecaster, {})[archetype] = races
    for name, forms in positions.items():
        own = backtest_positions(forms, results, position_states[name]["races"].to_dataset(), scored)
        by_forecaster[name] = {archetype: add_independent_pairs(races) for archetype, races in own.items()}
    forecasts = read_forecasters({name: own.values() for name, own in by_forecaster.items()}, events, results)
    by_archetype = {
        archetype: {name: own[archetype] for name, own in by_forecaster.items() if archetype in own}
        for archetype in by_forecaster.get(NETWORK, {})
    }
    return Comparison(list(forecasts), *weigh_and_score(forecasts, by_archetype, results, next_race))


def read_forecasters(
    backtests: Mapping[str, Iterable[xr.Dataset]],
    events: Mapping[str, Mapping[str, pl.DataFrame]],
    results: pl.DataFrame,
) -> dict[str, Forecasts]:
    """Read the forecasts of all forecasters, the network first.

    Parameters
    ----------
    backtests : mapping
        Forecaster to `Backtest` of each archetype; the network is one of them.
    events : mapping
        Forecaster to raw and recalibrated to `EventProbabilities`. Only races of the backtests are read.
    results : polars.DataFrame
        `RaceResults` of at least these races.

    Returns
    -------
    dict
        Forecaster to its forecasts; without those that share no race with the backtests.
    """
    forecasts = {name: read_backtests(own) for name, own in backtests.items()}
    scored = sorted({race_id for own in forecasts.values() for races in own.values() for race_id in races})
    for name, own in events.items():
        rows = pl.concat(
            frame.filter(pl.col("race_id").is_in(scored)).with_columns(forecast=pl.lit(forecast))
            for forecast, frame in own.items()
        )
        forecasts[name] = read_events(rows, results)
    names = sorted(forecasts, key=lambda name: name != NETWORK)
    return {name: forecasts[name] for name in names if any(forecasts[name].values())}


def weigh_and_score(
    forecasts: Mapping[str, Forecasts],
    backtests: Mapping[str, Mapping[str, xr.Dataset]],
    results: pl.DataFrame,
    next_race: xr.Dataset,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Weigh the members of the blend before each race, and score all forecasters, blend and climatology.

    Parameters
    ----------
    forecasts : mapping
        As `read_forecasters` returns them. With fewer than two forecasters there is no blend.
    backtests : mapping
        Archetype to forecaster to `Backtest`.
    results : polars.DataFrame
        `RaceResults`.
    next_race : xarray.Dataset
        `ScenarioEnsemble` of the next race, or of no race.

    Returns
    -------
    weights : polars.DataFrame
        `BlendWeights`, those before the next race last.
    scores : polars.DataFrame
        `MarketScores`.
    """
    compared = dict(forecasts)
    weights = BlendWeights.empty()
    if len(forecasts) > 1:
        cases = pool_cases(forecasts)
        weights = walk_forward_weights(cases)
        fields = [blend_backtest(own, weights) for own in backtests.values() if own[NETWORK].sizes["race"]]
        events = blend_events({name: list_events(own) for name, own in forecasts.items()}, weights)
        compared[BLEND] = add_events(read_backtests(fields), read_events(events, results))
        keys = {name: next_race[COORDINATES.get(name, name)].values.tolist() for name in RACE_KEYS}
        races = [dict(zip(keys, values, strict=True)) for values in zip(*keys.values(), strict=True)]
        weights = pl.concat([weights, *(next_race_weights(cases, race) for race in races)])
    compared[CLIMATOLOGY] = climatology_of(forecasts.values())
    network = forecasts.get(NETWORK, {})
    scores = [score_markets(name, own, network) for name, own in compared.items()]
    return weights, pl.concat([MarketScores.empty(), *scores])
