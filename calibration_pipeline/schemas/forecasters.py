"""Contracts of users' forecasts that are no scenarios: event and position probabilities, and their maps."""

from typing import Any

import numpy as np
import pandera.polars as pa
import pandera.xarray
import polars as pl
import xarray as xr
from pandera import check
from pandera.polars import PolarsData

from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.schemas.datasets import (
    POSITION,
    SUM_TOLERANCE,
    FitConvergence,
    FoldParameters,
    MapStates,
    NextMapStates,
    PooledParameters,
    Races,
    SampleStats,
    car_mask,
)
from calibration_pipeline.schemas.frames import Table


class EventProbabilities(Table):
    """One row a race, car and market: the probability that the event occurs for the car.

    A market of a race has all cars entered. The probabilities of a forecaster are as issued, and need not sum
    to the number of winners. Those from odds are without the bookmaker's margin, and do.
    """

    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")
    driver_id: str = pa.Field(str_length={"min_value": 1}, description="Driver, stable over races")
    market: str = pa.Field(isin=list(EVENT_MARKETS), description="Event: a win, or a finish in the top n")
    probability: float = pa.Field(ge=0, le=1, description="Probability of the event")

    class Config:
        """Pandera options."""

        unique = ["race_id", "driver_id", "market"]

    @pa.dataframe_check(error="probability must be finite; NaN is refused")
    def probability_is_finite(cls, data: PolarsData) -> pl.LazyFrame:
        """NaN is not a probability."""
        return data.lazyframe.select(pl.col("probability").is_finite())


class Overrounds(Table):
    """One row a race and market: how far the raw probabilities sum above the number of winners."""

    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")
    market: str = pa.Field(isin=list(EVENT_MARKETS), description="Event: a win, or a finish in the top n")
    source: str = pa.Field(
        isin=["probabilities", "american odds", "decimal odds", "fractional odds"],
        description="Form of the file's values",
    )
    overround: float = pa.Field(
        gt=-1, description="Sum of the raw probabilities of all cars in the file over winners, minus 1"
    )

    class Config:
        """Pandera options."""

        unique = ["race_id", "market"]


class PositionProbabilities(Races):
    """Finish probabilities by race, car and position: each car's probabilities sum to 1.

    A position's probabilities over the cars need not sum to 1.
    """

    probability: np.float64 = pandera.xarray.Field(
        dims=POSITION, ge=0, le=1, description="P(finish = position), 0 beyond the field"
    )

    class Config:
        """Pandera options."""

        strict = True

    @check(
        "probability", error=f"each car's probabilities must sum to 1 within {SUM_TOLERANCE}, padding to 0"
    )
    def rows_sum_to_one(cls, probability: xr.DataArray) -> bool:
        """Every car has a position within its field."""
        car = car_mask(probability.to_dataset(name="probability")).values
        width = probability.sizes["position"]
        inside = np.arange(width) < probability["field_size"].values[:, None]
        if (probability.values * ~inside[:, None, :]).any():
            return False
        return bool(np.abs(probability.values.sum(axis=2) - car).max(initial=0) <= SUM_TOLERANCE)


class MapParameters(FoldParameters):
    """Draws of the parameters of a map with one intercept an archetype, one fit a fold, and `latest`."""

    intercept: np.float64 = pandera.xarray.Field(
        dims=("fold", "draw", "archetype"), description="Shift of the logit"
    )


class MarketPosterior(pandera.xarray.DataTreeModel):
    """The fits of the event map to one market: a child of what `walk_forward.events.fit_events` returns."""

    posterior: PooledParameters
    sample_stats: SampleStats
    slow: MapParameters
    convergence: FitConvergence


class ArchetypeFit(pandera.xarray.DataTreeModel):
    """Fits of the marginal map to the races of one archetype."""

    sample_stats: SampleStats
    convergence: FitConvergence


class PositionPosterior(pandera.xarray.DataTreeModel):
    """Fits of a forecaster's marginal maps: an `ArchetypeFit` by archetype, and what the state needs."""

    slow: MapParameters

    @classmethod
    def validate(cls, value: xr.DataTree, *args: Any, **options: Any) -> xr.DataTree:
        """Return the tree after a check of the parameters and of every archetype."""
        checked: xr.DataTree = super().validate(value, *args, **options)
        for name, child in value.children.items():
            if name != "slow":
                ArchetypeFit.validate(child, *args, **options)
        return checked


class MapState(pandera.xarray.DataTreeModel):
    """State of a map of event or position probabilities before every race, and before the next race."""

    races: MapStates
    next: NextMapStates


class EventPosterior(MarketPosterior):
    """Fits of the event maps of a forecaster: a `MarketPosterior` for each market."""

    @classmethod
    def validate(cls, value: xr.DataTree, *args: Any, **options: Any) -> xr.DataTree:
        """Return the tree after a check of every market."""
        return _validate_markets(MarketPosterior, value, *args, **options)


class EventState(MapState):
    """States of the event maps of a forecaster: a `MapState` for each market."""

    @classmethod
    def validate(cls, value: xr.DataTree, *args: Any, **options: Any) -> xr.DataTree:
        """Return the tree after a check of every market."""
        return _validate_markets(MapState, value, *args, **options)


def _validate_markets(
    model: type[pandera.xarray.DataTreeModel], tree: xr.DataTree, *args: Any, **options: Any
) -> xr.DataTree:
    for market, child in tree.children.items():
        if market not in EVENT_MARKETS:
            raise ValueError(f"Groups must be markets of {', '.join(EVENT_MARKETS)}; got {market!r}.")
        model.validate(child, *args, **options)
    return tree
