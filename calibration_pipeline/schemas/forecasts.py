"""Pandera contracts of the tables on the next race; the tables are empty where none is announced."""

import pandera.polars as pa
import polars as pl
from pandera.polars import PolarsData

from calibration_pipeline.schemas.frames import Table
from calibration_pipeline.schemas.results import finish_is_permuted

RACE_ID = "Race, unique over seasons"
DRIVER_ID = "Driver, stable over races"


def _chance(event: str) -> float:
    return pa.Field(ge=0, le=1, nullable=True, description=f"Probability of {event}, null if not known")


def _end(end: str) -> float:
    description = f"{end} end of its 90 % interval, over the uncertainty of the calibration; null without it"
    return pa.Field(ge=0, le=1, nullable=True, description=description)


def _error() -> float:
    return pa.Field(ge=0, nullable=True, description="Its Monte Carlo standard error, from finite scenarios")


class ForecastChances(Table):
    """One row a car of the next race: probabilities of a win, a top 5, a top 10 and a retirement."""

    race_id: int = pa.Field(ge=0, description=RACE_ID)
    driver_id: str = pa.Field(str_length={"min_value": 1}, unique=True, description=DRIVER_ID)
    driver: str = pa.Field(description="Driver's name")
    car_number: str = pa.Field(nullable=True, description="Car number, null where not known")
    start_position: int = pa.Field(ge=1, description="Grid position, or the expected one if none is set")
    win: float = _chance("winning")
    win_lower: float = _end("Lower")
    win_upper: float = _end("Upper")
    win_error: float = _error()
    top5: float = _chance("finishing in the first five")
    top5_lower: float = _end("Lower")
    top5_upper: float = _end("Upper")
    top5_error: float = _error()
    top10: float = _chance("finishing in the first ten")
    top10_lower: float = _end("Lower")
    top10_upper: float = _end("Upper")
    top10_error: float = _error()
    dnf: float = _chance("not running at the finish")
    dnf_lower: float = _end("Lower")
    dnf_upper: float = _end("Upper")
    dnf_error: float = _error()
    finish_median: int = pa.Field(ge=1, description="Median finish")
    finish_lower: int = pa.Field(ge=1, description="Lower end of the central 80 % of finishes")
    finish_upper: int = pa.Field(ge=1, description="Upper end of the central 80 % of finishes")

    @pa.dataframe_check(error="the chances of a win must add up to 1")
    def wins_add_up(cls, data: PolarsData) -> pl.LazyFrame:
        """The win probabilities add up to 1 over the cars of a race."""
        return data.lazyframe.select((pl.col("win").sum().over("race_id") - 1).abs() < 1e-6)


class ForecastEvents(Table):
    """One row a joint event of the next race."""

    race_id: int = pa.Field(ge=0, description=RACE_ID)
    event: str = pa.Field(unique=True, description="The event, as an expression")
    about: str = pa.Field(isin=["car", "pair", "race"], description="Unit of a case")
    n_cases: int = pa.Field(ge=1, description="Number of cases in the race")
    predicted: float = pa.Field(ge=0, le=1, description="Mean probability of a case")
    lower: float = _end("Lower")
    upper: float = _end("Upper")
    monte_carlo_error: float = _error()


class ForecastScenarios(Table):
    """One row a recalibrated scenario and car of the next race."""

    race_id: int = pa.Field(ge=0, description=RACE_ID)
    scenario: int = pa.Field(ge=0, description="Scenario, from 0; all are equally likely")
    driver_id: str = pa.Field(str_length={"min_value": 1}, description=DRIVER_ID)
    finish_position: int = pa.Field(ge=1, description="Finish, 1..n within a scenario")
    running: bool = pa.Field(nullable=True, description="Whether running at the finish, null if not known")
    laps_led: int = pa.Field(ge=0, nullable=True, description="Laps led, null if not known")
    fastest_laps: int = pa.Field(
        ge=0, nullable=True, description="Green laps on which the car is fastest, null if not known"
    )

    class Config:
        """Pandera options."""

        unique = ["scenario", "driver_id"]

    @pa.dataframe_check(error="finish_position must be a permutation of 1..n within a scenario")
    def finish_is_a_permutation(cls, data: PolarsData) -> pl.LazyFrame:
        """Each position is taken once."""
        return data.lazyframe.select(finish_is_permuted("scenario"))
