"""Cases of wins and finishes in the top n: forecast probabilities of cars, and whether they were inside.

They come from probabilities of positions (`position_events`), or from frames of event probabilities
(`scored_events`, `market_events`).
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.markets import EVENT_MARKETS, TOP_EVENTS
from calibration_pipeline.schemas.results import join_results
from calibration_pipeline.verification.cases import JUDGED, Cases

CAR = ["race_id", "driver_id", "market"]


class EventCases(NamedTuple):
    """Cases of one market: the cars of all races that have more cars than winners.

    Attributes
    ----------
    market : str
        Key of `markets.EVENT_MARKETS`.
    predicted : dict
        raw, recalibrated and climatology (every car equal) to P(inside), (cases,).
    inside : ndarray
        Whether the car finished inside, (cases,) bool.
    race : ndarray
        Index or id of the case's race, (cases,).
    """

    market: str
    predicted: dict[str, NDArray[np.float64]]
    inside: NDArray[np.bool_]
    race: NDArray[np.int64]


def position_events(cases: Cases) -> Iterator[EventCases]:
    """Yield the markets of `TOP_EVENTS` that have cases, from probabilities of positions."""
    for market, top in TOP_EVENTS.items():
        used = cases.field_size > top
        if used.any():
            predicted = {
                name: cases.probability[name][used, :top].sum(axis=1) for name in (*JUDGED, "climatology")
            }
            yield EventCases(market, predicted, cases.position[used] <= top, cases.race[used])


def scored_events(
    forecasts: Mapping[str, pl.DataFrame], results: pl.DataFrame, states: Mapping[str, xr.Dataset]
) -> pl.DataFrame:
    """Join event probabilities with results, for the races that are scored.

    As in `backtest.scored_races`, an archetype's first season with forecasts is not scored.

    Parameters
    ----------
    forecasts : mapping of str to polars.DataFrame
        'raw' and 'recalibrated' to `EventProbabilities` with the same rows.
    results : polars.DataFrame
        `RaceResults`; races without results are left out.
    states : mapping
        Market to `MapStates`; races without a state have no earlier races of calibration.

    Returns
    -------
    polars.DataFrame
        race_id, driver_id, market, raw, recalibrated, season, race_order, archetype, finish_position,
        field_size and n_calibration_races, in order of time. Races with as many cars as winners are left out.

    Raises
    ------
    ValueError
        If a car of a race with results has none.
    """
    raw, recalibrated = (forecasts[name].rename({"probability": name}) for name in JUDGED)
    played = results["race_id"].unique().implode()
    rows = raw.join(recalibrated, on=CAR, maintain_order="left").filter(pl.col("race_id").is_in(played))
    keys = results.select("race_id", "driver_id", "season", "race_order", "archetype", "finish_position")
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "race_id": rows.schema["race_id"],
        "market": pl.String,
        "n_calibration_races": pl.Int64,
    }
    calibrated = [pl.DataFrame(schema=schema)]
    for market, state in states.items():
        n_calibration_races = state["n_calibration_races"].values.astype(np.int64)
        markets = [market] * len(n_calibration_races)
        calibrated.append(pl.DataFrame([state["race"].values, markets, n_calibration_races], schema))
    scored = join_results(rows, keys, "event probabilities").with_columns(
        field_size=pl.len().over("race_id", "market")
    )
    scored = scored.filter(
        pl.col("season") > pl.col("season").min().over("archetype"),
        pl.col("field_size") > pl.col("market").replace_strict(EVENT_MARKETS),
    )
    return (
        scored.join(pl.concat(calibrated), on=["race_id", "market"], how="left", maintain_order="left")
        .with_columns(pl.col("n_calibration_races").fill_null(0))
        .sort("race_order", maintain_order=True)
    )


def market_events(scored: pl.DataFrame) -> Iterator[EventCases]:
    """Yield the markets of event probabilities that have cases, in the order of `EVENT_MARKETS`.

    Parameters
    ----------
    scored : polars.DataFrame
        As `scored_events` returns it, of one archetype.
    """
    for market, top in EVENT_MARKETS.items():
        own = scored.filter(market=market)
        if own.height:
            predicted = {name: own[name].to_numpy() for name in JUDGED}
            predicted["climatology"] = top / own["field_size"].to_numpy()
            inside = own["finish_position"].to_numpy() <= top
            yield EventCases(market, predicted, inside, own["race_id"].to_numpy().astype(np.int64))
