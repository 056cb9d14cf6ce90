"""Contracts of the comparison of forecasters: scores of races, the leaderboard, weights of the blend."""

import pandera.polars as pa
import polars as pl
from pandera.polars import PolarsData

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.markets import EVENT_MARKETS, FINISH, HEAD_TO_HEAD
from calibration_pipeline.schemas.frames import Table

COMPARED_MARKETS = (*EVENT_MARKETS, HEAD_TO_HEAD, FINISH)
"""Markets in which forecasters are compared, in the order of tables and plots."""
POOLED_MARKETS = (*EVENT_MARKETS, FINISH)
"""Markets with weights of their own in the blend; `FINISH` serves all forecasts of the whole field."""
ALL_ARCHETYPES = "all archetypes"
"""Name of the comparison over the races of all archetypes."""
COMPARISON_VERDICTS = (
    "reference",
    "better than network",
    "worse than network",
    "no difference shown",
    "too few races",
)
SUM_TOLERANCE = 1e-9


class ForecasterRows(Table):
    """Columns that name a forecaster and its forecast."""

    forecaster: str = pa.Field(str_length={"min_value": 1}, description="Issuer of the forecasts")
    forecast: str = pa.Field(isin=["raw", "recalibrated"], description="Before or after recalibration")


class RaceRows(Table):
    """Columns that place a race in time."""

    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")
    season: int = pa.Field(ge=1949, le=2200, description="Season, year")
    race_order: int = pa.Field(description="100 * season + round: the order of races in time")
    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")


class MarketScores(ForecasterRows, RaceRows):
    """Scores of forecasters, one row a forecaster, forecast, race and market."""

    market: str = pa.Field(isin=list(COMPARED_MARKETS), description="Market")
    score: float = pa.Field(
        ge=0, le=1, description="Brier score, or RPS of the finish distribution; smaller is better"
    )
    log_score: float = pa.Field(
        le=0, description="Mean log probability of a case's outcome, nats; larger is better"
    )
    n_cases: int = pa.Field(ge=1, description="Cars, pairs of cars, or the winner: cases of the log score")
    largest_gain: float = pa.Field(
        nullable=True,
        description="Largest value, over all possible results, of the network's score minus the score; null "
        "where the network lacks the race",
    )
    largest_loss: float = pa.Field(
        nullable=True,
        description="Largest value, over all possible results, of the score minus the network's score; null "
        "where the network lacks the race",
    )

    class Config:
        """Pandera options."""

        unique = ["forecaster", "forecast", "race_id", "market"]


def _gain(reference: str) -> float:
    return pa.Field(
        nullable=True,
        description=f"Mean score of {reference} minus that of the forecaster, on the races of both; above 0 "
        "is better",
    )


def _end(end: str) -> float:
    return pa.Field(
        nullable=True, description=f"{end} end of its 95 % interval, null with fewer than two races"
    )


def _evidence(when: str, side: str) -> float:
    return pa.Field(
        nullable=True,
        description=f"log10 of the e-value{when} against “on average not {side} than the network”; 1.3 (an "
        "e-value of 20) is an alarm; null without races of both",
    )


class Leaderboard(ForecasterRows):
    """Forecasters compared, one row an archetype, market, forecast and forecaster; the best first.

    Raw forecasts are compared with raw ones, recalibrated with recalibrated ones.
    """

    archetype: str = pa.Field(
        isin=[*map(str, ARCHETYPES), ALL_ARCHETYPES], description="Archetype of the races, or all archetypes"
    )
    market: str = pa.Field(isin=list(COMPARED_MARKETS), description="Market")
    rank: int = pa.Field(
        ge=1, nullable=True, description="Order by gain_over_network, null where too few races are shared"
    )
    ties: str = pa.Field(
        nullable=True,
        description="Letters: two forecasters without a common letter differ; null without a rank",
    )
    n_races: int = pa.Field(ge=1, description="Races of the forecaster")
    score: float = pa.Field(ge=0, le=1, description="Mean score of its races; smaller is better")
    score_lower: float = _end("Lower")
    score_upper: float = _end("Upper")
    n_shared: int = pa.Field(ge=0, description="Races that the network has, too")
    gain_over_network: float = _gain("the network")
    gain_over_network_lower: float = _end("Lower")
    gain_over_network_upper: float = _end("Upper")
    gain_over_climatology: float = _gain("equal probabilities")
    gain_over_climatology_lower: float = _end("Lower")
    gain_over_climatology_upper: float = _end("Upper")
    log10_e_better: float = _evidence("", "better")
    log10_e_better_max: float = _evidence(", its largest so far,", "better")
    log10_e_worse: float = _evidence("", "worse")
    log10_e_worse_max: float = _evidence(", its largest so far,", "worse")
    verdict: str = pa.Field(isin=list(COMPARISON_VERDICTS), description="Verdict against the network")
    not_compared: str = pa.Field(
        description="Ranked forecasters with which it shares too few races, separated by commas"
    )

    class Config:
        """Pandera options."""

        unique = ["archetype", "market", "forecast", "forecaster"]


class BlendWeights(ForecasterRows, RaceRows):
    """Weights of the members of the blend before each race; they sum to 1 in a race, market and forecast."""

    market: str = pa.Field(
        isin=list(POOLED_MARKETS),
        description="Market; those of the finish distribution serve all forecasts of the whole field",
    )
    weight: float = pa.Field(ge=0, le=1, description="Weight of the forecaster")
    n_races: float = pa.Field(
        ge=0, description="Earlier races that the weights come from, discounted; 0 is equal weights"
    )

    class Config:
        """Pandera options."""

        unique = ["forecaster", "forecast", "race_id", "market"]

    @pa.dataframe_check(error=f"weight must sum to 1 within {SUM_TOLERANCE} in a race, market and forecast")
    def weights_sum_to_one(cls, data: PolarsData) -> pl.LazyFrame:
        """The members share one whole."""
        total = pl.col("weight").sum().over("race_id", "market", "forecast")
        return data.lazyframe.select((total - 1).abs() < SUM_TOLERANCE)


class ForecasterChances(Table):
    """Recalibrated probabilities of the next race, one row a forecaster, car and market; the blend too."""

    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")
    driver_id: str = pa.Field(str_length={"min_value": 1}, description="Driver, stable over races")
    driver: str = pa.Field(description="Driver's name")
    forecaster: str = pa.Field(str_length={"min_value": 1}, description="Issuer of the forecasts")
    market: str = pa.Field(isin=list(EVENT_MARKETS), description="Event: a win, or a finish in the top n")
    probability: float = pa.Field(ge=0, le=1, description="Probability of the event, recalibrated")

    class Config:
        """Pandera options."""

        unique = ["forecaster", "driver_id", "market"]
