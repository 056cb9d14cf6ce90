"""Pandera contracts of the tables, except the next race's and the fold history.

Column names and units here are the project's vocabulary.

`race_order` is `100 * season + round`. It orders the races; dates never do.
"""

import datetime

import pandera.polars as pa
import polars as pl
from pandera.polars import PolarsData

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.schemas.results import finish_is_permuted

FLAGS = ("green", "yellow", "red", "checkered", "warm_up")
FORECASTS = ("raw", "recalibrated", "climatology", "start_order", "bradley_terry")
ORIENTATIONS = ("smaller is better", "larger is better", "nominal is best", "for comparison")
RULINGS = ("trust", "trust after recalibration", "do not trust", "cannot tell yet")
EFFECTS = ("helps", "costs", "no difference")


class Table(pa.DataFrameModel):
    """Base of the table contracts: exactly the declared columns, in any order."""

    class Config:
        """Pandera options."""

        strict = True


class RaceKeys(Table):
    """Columns that identify the race of a row."""

    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")
    season: int = pa.Field(ge=1949, le=2200, description="Season, year")
    round: int = pa.Field(ge=1, le=99, description="Points race of the season, from 1")
    race_order: int = pa.Field(description="100 * season + round: the order of races in time")
    track_id: str = pa.Field(description="Track and layout, as in the track catalogue")
    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")


class CarKeys(Table):
    """Columns that identify the car of a row within its race."""

    driver_id: str = pa.Field(str_length={"min_value": 1}, description="Driver, stable over races")
    driver: str = pa.Field(description="Driver's name")
    car_number: str = pa.Field(
        nullable=True, description="Car number, e.g. '07', null where the source lacks it"
    )
    team: str = pa.Field(nullable=True, description="Team, null where the source lacks it")
    make: str = pa.Field(nullable=True, description="Manufacturer, null where the source lacks it")


class TrackTable(Table):
    """One row a track and era: facts that are known without racing."""

    track_id: str = pa.Field(str_length={"min_value": 1}, description="Track and layout")
    name: str = pa.Field(str_length={"min_value": 1}, description="Common name")
    archetype: str = pa.Field(
        isin=list(ARCHETYPES), nullable=True, description="Archetype of the track, null if it fits none"
    )
    first_season: int = pa.Field(ge=1949, le=2200, description="First season of the era")
    last_season: int = pa.Field(
        ge=1949, le=2200, nullable=True, description="Last season of the era, null if open"
    )
    length_miles: float = pa.Field(gt=0, description="Length of a lap, miles")
    scheduled_laps: int = pa.Field(ge=1, description="Laps of a usual race")

    class Config:
        """Pandera options."""

        unique = ["track_id", "first_season"]


class LapTelemetry(Table):
    """One row a car and lap."""

    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")
    season: int = pa.Field(ge=1949, le=2200, description="Season, year")
    track_id: str = pa.Field(description="Track and layout, as in the track catalogue")
    driver_id: str = pa.Field(str_length={"min_value": 1}, description="Driver, stable over races")
    car_number: str = pa.Field(nullable=True, description="Car number, null where the source lacks it")
    lap: int = pa.Field(ge=0, description="Lap, 0 is the grid")
    position: int = pa.Field(ge=1, description="Running position at the end of the lap")
    lap_time_s: float = pa.Field(gt=0, nullable=True, description="Lap time, s; null if not timed")
    flag: str = pa.Field(isin=list(FLAGS), nullable=True, description="Flag over the lap")

    class Config:
        """Pandera options."""

        unique = ["race_id", "driver_id", "lap"]

    @pa.dataframe_check(error="lap_time_s must be finite, or null where a lap was not timed; NaN is refused")
    def lap_time_is_finite(cls, data: PolarsData) -> pl.LazyFrame:
        """NaN is not a lap time."""
        return data.lazyframe.select(pl.col("lap_time_s").is_finite().fill_null(True))


class RaceResults(RaceKeys, CarKeys):
    """One row a starter and race."""

    race_date: datetime.date = pa.Field(nullable=True, description="Day of the race")
    start_position: int = pa.Field(ge=1, description="Grid position")
    finish_position: int = pa.Field(ge=1, description="Official finish, 1..n within a race")
    laps_completed: int = pa.Field(ge=0, description="Laps completed by the car")
    laps_led: int = pa.Field(ge=0, nullable=True, description="Laps led by the car, null if not known")
    running: bool = pa.Field(description="Whether the car was running at the finish")
    status: str = pa.Field(description="'running' or the cause of retirement")
    race_laps: int = pa.Field(ge=1, nullable=True, description="Laps run in the race")
    scheduled_laps: int = pa.Field(ge=1, nullable=True, description="Laps that were scheduled")
    green_laps: int = pa.Field(ge=0, nullable=True, description="Laps of the race under green")
    n_cautions: int = pa.Field(ge=0, nullable=True, description="Caution periods of the race")
    fastest_laps: int = pa.Field(
        ge=0, nullable=True, description="Green laps on which the car was fastest; ties go to the car ahead"
    )
    rating: float = pa.Field(
        ge=0, le=150, nullable=True, description="NASCAR's driver rating of the race, null if not known"
    )

    class Config:
        """Pandera options."""

        unique = ["race_id", "driver_id"]

    @pa.dataframe_check(error="finish_position must be a permutation of 1..n within a race")
    def finish_is_a_permutation(cls, data: PolarsData) -> pl.LazyFrame:
        """Each position is taken once."""
        return data.lazyframe.select(finish_is_permuted("race_id"))

    @pa.dataframe_check(error="start_position must be unique within a race")
    def start_is_unique(cls, data: PolarsData) -> pl.LazyFrame:
        """No two cars share a grid position."""
        return data.lazyframe.select(pl.struct("race_id", "start_position").is_unique())

    @pa.dataframe_check(error="a car number must be unique within a race")
    def car_is_unique(cls, data: PolarsData) -> pl.LazyFrame:
        """No car is entered twice."""
        entered_once = pl.struct("race_id", "car_number").is_unique()
        return data.lazyframe.select(entered_once | pl.col("car_number").is_null())


class EntryList(RaceKeys, CarKeys):
    """Entries known before the start: the race results without the outcomes."""

    race_date: datetime.date = pa.Field(nullable=True, description="Day of the race")
    scheduled_laps: int = pa.Field(ge=1, nullable=True, description="Laps that are scheduled")
    start_position: int = pa.Field(ge=1, nullable=True, description="Grid position, null if not set yet")

    class Config:
        """Pandera options."""

        unique = ["race_id", "driver_id"]


class LapAggregates(Table):
    """Facts of one car's race, aggregated from its laps; known only after that race."""

    race_id: int = pa.Field(ge=0, description="Race, unique over seasons")
    driver_id: str = pa.Field(str_length={"min_value": 1}, description="Driver, stable over races")
    laps_timed: int = pa.Field(ge=0, description="Laps with a lap time")
    average_position: float = pa.Field(ge=1, description="Mean running position")
    top15_share: float = pa.Field(ge=0, le=1, description="Share of laps run in the top 15")
    fastest_lap_share: float = pa.Field(
        ge=0, le=1, nullable=True, description="Share of the race's green laps on which fastest"
    )
    green_pace: float = pa.Field(
        nullable=True,
        description="Median over green laps of (lap time / field's median of that lap) - 1; negative is fast",
    )
    average_position_50l: float = pa.Field(
        ge=1, description="Mean running position over the last 50 laps run"
    )
    green_pace_50l: float = pa.Field(
        nullable=True, description="Mean relative green lap time over the last 50 laps run"
    )
    falloff_50l: float = pa.Field(
        nullable=True, description="Slope of relative green lap time over the last 50 laps run, 1/lap"
    )

    class Config:
        """Pandera options."""

        unique = ["race_id", "driver_id"]


class DriverFeatures(RaceKeys, CarKeys):
    """Features of a car before its race. Larger is better unless the description states otherwise.

    Forms are normal scores of a position within its field: 0 is mid-field, +2 about the winner.
    """

    race_date: datetime.date = pa.Field(nullable=True, description="Day of the race")
    scheduled_laps: int = pa.Field(ge=1, nullable=True, description="Laps that are scheduled")
    feature_as_of: int = pa.Field(
        ge=0, description="race_order of the last race that any feature of the row used, 0 for none"
    )
    start_position: int = pa.Field(ge=1, description="Grid position")
    finish_form: float = pa.Field(description="Exponentially weighted finish, shrunk to a newcomer's")
    running_form: float = pa.Field(
        description="Exponentially weighted position by rating, else running position, else finish"
    )
    recent_form: float = pa.Field(description="As running_form, over the last races")
    start_form: float = pa.Field(description="Exponentially weighted grid position")
    pace_form: float = pa.Field(
        nullable=True, description="Exponentially weighted -100 * green_pace within +-2, %; null without laps"
    )
    archetype_form: float = pa.Field(description="Deviation from running_form on this archetype, shrunk")
    track_form: float = pa.Field(description="Deviation from running_form on this track, shrunk")
    team_form: float = pa.Field(description="Exponentially weighted finish of the team's cars, shrunk")
    team_archetype_form: float = pa.Field(
        description="Deviation from running_form of the team's drivers on this archetype, shrunk"
    )
    car_form: float = pa.Field(description="As running_form, of the car with any driver, shrunk to team_form")
    led_form: float = pa.Field(ge=0, description="Exponentially weighted share of laps led")
    experience: float = pa.Field(ge=0, description="log(1 + earlier races)")
    incident_form: float = pa.Field(
        description="Logit of the retirement rate minus that of the driver's fields; smaller is better"
    )
    track_incident_rate: float = pa.Field(
        ge=0, le=1, description="Share of cars retired on this track, shrunk to the archetype"
    )
    track_caution_rate: float = pa.Field(
        ge=0,
        nullable=True,
        description="Cautions a race on this track, shrunk to the archetype; null if never counted",
    )
    track_passing: float = pa.Field(
        description="1 - rank correlation of start and finish on this track, shrunk to the archetype"
    )

    class Config:
        """Pandera options."""

        unique = ["race_id", "driver_id"]

    @pa.dataframe_check(error="feature_as_of must be before the race (race_order)")
    def nothing_from_the_future(cls, data: PolarsData) -> pl.LazyFrame:
        """No feature uses the race itself or a later race."""
        return data.lazyframe.select(pl.col("feature_as_of") < pl.col("race_order"))


class MetricTable(Table):
    """Scores in long form, one estimate a row, with the race-clustered 95 % interval."""

    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")
    forecast: str = pa.Field(isin=list(FORECASTS), description="Scored forecast")
    quantity: str = pa.Field(description="Estimated quantity, e.g. crps")
    level: str = pa.Field(description="Interval level or event, empty where there is none")
    reference: str = pa.Field(
        isin=["", *FORECASTS],
        description="Forecast that a skill or gain is measured against, empty where none",
    )
    estimate: float = pa.Field(nullable=True, description="The estimate")
    lower: float = pa.Field(
        nullable=True, description="Lower end of the 95 % interval, null if it cannot be estimated"
    )
    upper: float = pa.Field(nullable=True, description="Upper end of the 95 % interval")
    error_ratio: float = pa.Field(
        ge=0,
        nullable=True,
        description="Race-clustered standard error over that of independent cases, null where there is none",
    )
    monte_carlo_error: float = pa.Field(
        ge=0,
        nullable=True,
        description="Standard error from the finite number of scenarios, null where it does not apply",
    )
    n_races: int = pa.Field(ge=0, description="Races scored")
    n_cars: int = pa.Field(ge=0, description="Cars scored, over all races")
    orientation: str = pa.Field(isin=list(ORIENTATIONS), description="Orientation of the estimate")
    estimator: str = pa.Field(description="Estimator")

    class Config:
        """Pandera options."""

        unique = ["archetype", "forecast", "quantity", "level", "reference"]


class JointEventTable(Table):
    """Predicted and observed joint events, and the gain from the dependence between cars."""

    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")
    era: str = pa.Field(description="Seasons of the races verified, 'all races' for all")
    forecast: str = pa.Field(isin=["raw", "recalibrated"], description="Verified forecast")
    event: str = pa.Field(description="The event, as an expression")
    predicted: float = pa.Field(ge=0, le=1, description="Mean predicted probability")
    observed: float = pa.Field(ge=0, le=1, description="Observed share")
    lower: float = pa.Field(nullable=True, description="Lower end of the observed share's 95 % interval")
    upper: float = pa.Field(nullable=True, description="Upper end of the observed share's 95 % interval")
    calibration_error: float = pa.Field(ge=0, le=1, description="|predicted - observed|")
    z: float = pa.Field(
        nullable=True, description="(observed - predicted) over its race-level standard error"
    )
    p_value: float = pa.Field(
        gt=0, le=1, description="Probability of a deviation as large if the forecast is calibrated"
    )
    p_together: float = pa.Field(
        gt=0, le=1, description="The same for the smallest p-value of all events of the forecast (min-p)"
    )
    gain: float = pa.Field(
        description="Log-score gain over the same cars if independent, nats a race; larger is better"
    )
    gain_lower: float = pa.Field(nullable=True, description="Lower end of the gain's 95 % interval")
    gain_upper: float = pa.Field(nullable=True, description="Upper end of the gain's 95 % interval")
    about_dependence: bool = pa.Field(
        description="Whether a strong dependence between cars would show in the event"
    )
    p_independent: float = pa.Field(
        gt=0, le=1, description="Probability of a gain as large if cars were independent"
    )
    power_independent: float = pa.Field(
        ge=0,
        le=1,
        description="Probability that independence is rejected at 5 % if the forecast is calibrated",
    )
    gain_over_raw: float = pa.Field(
        nullable=True, description="Log-score gain over the raw forecast, nats a race; null for raw itself"
    )
    gain_over_raw_lower: float = pa.Field(
        nullable=True, description="Lower end of that gain's 95 % interval, paired by race"
    )
    gain_over_raw_upper: float = pa.Field(
        nullable=True, description="Upper end of that gain's 95 % interval, paired by race"
    )
    gain_together: float = pa.Field(
        nullable=True, description="Mean of gain_over_raw over the events; null for raw itself"
    )
    gain_together_lower: float = pa.Field(
        nullable=True, description="Lower end of that mean's 95 % interval, paired by race"
    )
    gain_together_upper: float = pa.Field(
        nullable=True, description="Upper end of that mean's 95 % interval, paired by race"
    )
    n_races: int = pa.Field(ge=1, description="Races verified")
    n_cases: int = pa.Field(ge=1, description="Cases of the event")


class CalibrationCurves(Table):
    """Reliability of binary events (CORP): predicted against recalibrated probability, a row a block.

    Ascending in `predicted` within forecast and event.
    """

    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")
    forecast: str = pa.Field(isin=["raw", "recalibrated"], description="Verified forecast")
    event: str = pa.Field(description="'win', 'top 5', 'head to head' or another market")
    predicted: float = pa.Field(ge=0, le=1, description="Mean predicted probability of the block")
    predicted_from: float = pa.Field(ge=0, le=1, description="Smallest predicted probability of the block")
    predicted_to: float = pa.Field(ge=0, le=1, description="Largest predicted probability of the block")
    observed: float = pa.Field(ge=0, le=1, description="Observed share: the recalibrated probability")
    lower: float = pa.Field(
        nullable=True,
        description="Lower end of the 95 % consistency band, where observed lies if calibrated",
    )
    upper: float = pa.Field(nullable=True, description="Upper end of the 95 % consistency band")
    n_cases: int = pa.Field(ge=1, description="Cases in the block")
    n_races: int = pa.Field(ge=1, description="Races in the block")


class ReportPictures(Table):
    """Pictures in the report, one row a picture of an archetype."""

    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")
    picture: str = pa.Field(unique=True, description="Name, unique in the report")
    png: pl.Binary = pa.Field(description="The image, PNG")


class VerdictTable(Table):
    """Verdicts by era and market: one row a line of evidence, the deciding line first.

    The market `all markets` is the summary of an era.
    """

    forecaster: str = pa.Field(description="Issuer of the forecasts")
    archetype: str = pa.Field(isin=list(ARCHETYPES), description="Archetype of the track")
    era: str = pa.Field(description="Seasons of the scored races, 'all races' for all")
    market: str = pa.Field(description="Market, 'all markets' for the summary")
    verdict: str = pa.Field(isin=list(RULINGS), description="Verdict")
    recalibration: str = pa.Field(
        isin=list(EFFECTS),
        nullable=True,
        description="Effect of recalibration on the market's score, null without an interval",
    )
    races_needed: int = pa.Field(
        ge=1, nullable=True, description="Races still needed where the verdict is open, null if not known"
    )
    line: int = pa.Field(ge=1, description="Number of the line of evidence, from 1")
    forecast: str = pa.Field(isin=["", "raw", "recalibrated"], description="Forecast, empty for a note")
    quantity: str = pa.Field(description="Estimated quantity or test, empty for a note")
    level: str = pa.Field(description="Interval level, empty where there is none")
    estimate: float = pa.Field(nullable=True, description="The estimate, or the p-value of a test")
    lower: float = pa.Field(nullable=True, description="Lower end of the 95 % interval, null where none")
    upper: float = pa.Field(nullable=True, description="Upper end of the 95 % interval")
    n_races: int = pa.Field(ge=0, description="Races of the estimate, 0 for a note")
    p_inside: float = pa.Field(
        ge=0, le=1, description="p-value of a true value outside the limits: small shows that it is inside"
    )
    p_outside: float = pa.Field(
        ge=0, le=1, description="p-value of a true value inside the limits: small shows that it is outside"
    )
    evidence: str = pa.Field(description="The line of evidence")

    class Config:
        """Pandera options."""

        unique = ["forecaster", "archetype", "era", "market", "line"]


class ModelComparison(Table):
    """Calibrations compared by leave-one-out log score, races as the units; the best first."""

    model: str = pa.Field(unique=True, description="raw, per archetype or pooled")
    rank: int = pa.Field(ge=0, description="0 is the best")
    elpd: float = pa.Field(description="Expected log score over the races, nats; larger is better")
    se: float = pa.Field(ge=0, description="Standard error of elpd")
    elpd_diff: float = pa.Field(le=0, description="elpd minus the largest elpd")
    dse: float = pa.Field(ge=0, description="Standard error of elpd_diff")
    p: float = pa.Field(description="Effective number of parameters")
    weight: float = pa.Field(ge=0, le=1, description="Stacking weight")
    n_races: int = pa.Field(ge=0, description="Races")
    worst_pareto_k: float = pa.Field(description="Largest Pareto k; above 0.7 the estimate is unreliable")
