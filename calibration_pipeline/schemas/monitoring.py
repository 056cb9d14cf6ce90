"""Contract of sequential monitoring: ranks of results among their scenarios, and e-values after each race."""

import pandera.polars as pa

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS
from calibration_pipeline.schemas.frames import Table


class CalibrationMonitoring(Table):
    """Evidence against calibration, one row for each forecast, market and race, in the order of the races.

    The rows of `all markets` hold the mean of the e-values of the markets.
    """

    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")
    forecast: str = pa.Field(isin=["raw", "recalibrated"], description="Monitored forecast")
    market: str = pa.Field(isin=[*RACE_MARKETS, ALL_MARKETS], description="Market")
    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")
    season: int = pa.Field(ge=1949, le=2200, description="Season, year")
    race_order: int = pa.Field(description="100 * season + round: the order of races in time")
    rank: float = pa.Field(
        gt=0,
        lt=1,
        nullable=True,
        description="Share of scenarios with a smaller statistic than the result, ties randomised; uniform "
        "if calibrated; null for all markets",
    )
    log10_e_season: float = pa.Field(
        description="log10 of the e-value since the season's first race; 1.3 (an e-value of 20) is an alarm"
    )
    log10_e_start: float = pa.Field(description="log10 of the e-value since the first scored race")

    class Config:
        """Pandera options."""

        unique = ["archetype", "forecast", "market", "race_id"]
