"""Features of every car before its race, from the entry list and from earlier races.

This module defines the observation behind each feature. `history` weights earlier races, and excludes the
race itself and later races.
"""

import math
from collections.abc import Iterable
from types import MappingProxyType

import polars as pl

from calibration_pipeline.schemas.frames import DriverFeatures, EntryList
from calibration_pipeline.stats.normal_scores import normal_score
from calibration_pipeline.telemetry.history import past_mean, past_sums, with_clock

# Half-lives, in races of the calendar.
FORM_HALF_LIFE = 40.0
RECENT_HALF_LIFE = 12.0
START_HALF_LIFE = 30.0
TEAM_HALF_LIFE = 60.0
TEAM_DEVIATION_HALF_LIFE = 100.0
DEVIATION_HALF_LIFE = 150.0

# Number of races that a prior counts as.
FORM_PSEUDO_COUNT = 3.0
ARCHETYPE_PSEUDO_COUNT = 5.0
TRACK_PSEUDO_COUNT = 4.0
TEAM_ARCHETYPE_PSEUDO_COUNT = 8.0
CAR_PSEUDO_COUNT = 5.0
INCIDENT_PSEUDO_COUNT = 25.0
FIELD_PSEUDO_COUNT = 1.0
TRACK_RATE_PSEUDO_COUNT = 3.0

# Priors: a newcomer runs in the lower half of the field, one car in seven
# retires, and the finish follows the grid with a rank correlation of about one half.
ROOKIE_FORM = -0.5
RETIREMENT_RATE = 0.15
PASSING = 0.5

# A race's pace is limited to so many percent off the field's median: a larger deviation comes from damage or
# pit stops, not from speed.
PACE_LIMIT = 2.0

ENTRY_COLUMNS = tuple(EntryList.to_schema().columns)
HISTORY_COLUMNS = (
    "feature_as_of",
    "finish_form",
    "running_form",
    "recent_form",
    "start_form",
    "pace_form",
    "archetype_form",
    "track_form",
    "team_form",
    "team_archetype_form",
    "car_form",
    "led_form",
    "experience",
    "incident_form",
    "track_incident_rate",
    "track_caution_rate",
    "track_passing",
)

FEATURE_AVAILABILITY = MappingProxyType(
    dict.fromkeys(ENTRY_COLUMNS, "entry") | dict.fromkeys(HISTORY_COLUMNS, "history")
)
"""Time at which each feature is known: with the entry list ('entry'), or from earlier races ('history')."""


def check_availability(columns: Iterable[str]) -> None:
    """Refuse columns that are not known before the race.

    Parameters
    ----------
    columns : iterable of str
        Columns that are to describe a car before its race.

    Raises
    ------
    ValueError
        If a column is not in `FEATURE_AVAILABILITY`; the message names all such columns.

    Examples
    --------
    >>> check_availability(["driver_id", "finish_form"])
    >>> check_availability(["driver_id", "laps_led"])
    Traceback (most recent call last):
        ...
    ValueError: Features must be known before the race; not known to be: laps_led.
    """
    if unknown := [name for name in columns if name not in FEATURE_AVAILABILITY]:
        raise ValueError(f"Features must be known before the race; not known to be: {', '.join(unknown)}.")


def entry_list(race_results: pl.DataFrame) -> pl.DataFrame:
    """Return the entries of races: their results without the outcomes.

    Parameters
    ----------
    race_results : polars.DataFrame
        `RaceResults`.

    Returns
    -------
    polars.DataFrame
        `EntryList`, rows in the same order.
    """
    return race_results.select(ENTRY_COLUMNS)


def build_driver_features(
    entries: pl.DataFrame, race_results: pl.DataFrame, lap_aggregates: pl.DataFrame
) -> pl.DataFrame:
    """Build the features of every entered car before its race.

    Every feature is a weighted mean over races before the row's own (`history.past_mean`), so results and
    laps of the race itself and of later ones may be in the tables; they are not read for it. Forms are
    means of normal scores (`normal_scores.normal_score`). A track is identified by track and archetype, so
    a track that was rebuilt into another archetype starts without a history.

    Parameters
    ----------
    entries : polars.DataFrame
        `EntryList` of any number of races. A race whose grid is not set at all gets `expected_grid`.
    race_results : polars.DataFrame
        `RaceResults` of all races that have run.
    lap_aggregates : polars.DataFrame
        `LapAggregates`; races without laps are absent.

    Returns
    -------
    polars.DataFrame
        `DriverFeatures`, one row an entry, sorted by race_order, start_position and driver_id.

    Raises
    ------
    ValueError
        If `entries` has a column that is not known before the race or lacks one that is, a driver is
        entered twice in a race, or a race's grid is set for some cars only.
    """
    _check_entries(entries)
    past = _observations(race_results, lap_aggregates)
    cars = with_clock(entries.select(ENTRY_COLUMNS), race_results)
    return (
        cars.pipe(_add_driver_forms, past)
        .pipe(_add_team_forms, past)
        .pipe(_add_deviations, past)
        .pipe(_add_incident_form, past)
        .pipe(_add_track_rates, past)
        .pipe(expected_grid)
        .select(*DriverFeatures.to_schema().columns)
        .sort("race_order", "start_position", "driver_id")
    )


def expected_grid(cars: pl.DataFrame) -> pl.DataFrame:
    """Fill the grid of races where none is set: the order of `finish_form`, the best first.

    A choice of the model for forecasts that are issued before the grid is known. Where any car of a race has
    a grid position, nothing is filled.

    Parameters
    ----------
    cars : polars.DataFrame
        At least race_id, driver_id, finish_form and start_position, null for all cars of a race or none.

    Returns
    -------
    polars.DataFrame
        The same rows, start_position without null.
    """
    expected = pl.int_range(1, pl.len() + 1).over("race_id")
    return cars.sort("race_id", "finish_form", "driver_id", descending=[False, True, False]).with_columns(
        pl.col("start_position").fill_null(expected)
    )


def _check_entries(entries: pl.DataFrame) -> None:
    """Refuse entries with outcomes, missing columns, repeated drivers or a partly set grid."""
    check_availability(entries.columns)
    if missing := [name for name in ENTRY_COLUMNS if name not in entries.columns]:
        raise ValueError(f"Argument entries must have the columns {', '.join(missing)}.")
    twice = entries.filter(pl.struct("race_id", "driver_id").is_duplicated())
    if not twice.is_empty():
        race_id, driver_id = twice.select("race_id", "driver_id").row(0)
        raise ValueError(
            f"Argument entries must have each driver once a race; driver_id {driver_id!r} is entered twice "
            f"in race_id {race_id}."
        )
    unset = pl.col("start_position").null_count()
    partial = entries.group_by("race_id").agg(unset=unset, n=pl.len()).sort("race_id")
    partial = partial.filter(pl.col("unset").is_between(1, pl.col("n") - 1))
    if not partial.is_empty():
        race_id, n_unset, n = partial.row(0)
        raise ValueError(
            f"start_position must be set for all cars of a race or for none; in race_id {race_id} it is null "
            f"for {n_unset} of {n}."
        )


def _observations(race_results: pl.DataFrame, lap_aggregates: pl.DataFrame) -> pl.DataFrame:
    """Return the observations of each car in each race, with the running form before the race."""
    n = pl.len().over("race_id")
    retired = ~pl.col("running")
    laps = lap_aggregates.select("race_id", "driver_id", "average_position", "green_pace")
    seen = with_clock(race_results, race_results).join(
        laps, on=["race_id", "driver_id"], how="left", maintain_order="left"
    )
    rated = pl.col("rating").rank("average", descending=True).over("race_id")
    past = seen.sort("race_order", "driver_id").select(
        "race_order",
        "clock",
        "driver_id",
        "car_number",
        "team",
        "track_id",
        "archetype",
        "n_cautions",
        score=normal_score(pl.col("finish_position"), n),
        ran=pl.coalesce(
            normal_score(rated, pl.col("rating").count().over("race_id")),
            normal_score(pl.col("average_position"), n),
            normal_score(pl.col("finish_position"), n),
        ),
        start=normal_score(pl.col("start_position"), n),
        pace=(-100 * pl.col("green_pace")).clip(-PACE_LIMIT, PACE_LIMIT),
        led=pl.col("laps_led") / pl.col("laps_completed").max().clip(1).over("race_id"),
        retired=retired.cast(pl.Float64),
        field_retired=retired.mean().over("race_id"),
        passing=1
        - pl.corr("start_position", "finish_position", method="spearman").over("race_id").fill_nan(None),
    )
    return _add_running_form(past, past)


def _add_running_form(cars: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Add `running_form`, the recent running positions of the driver, whatever the finish."""
    return past_mean(
        cars, past, pl.col("ran").alias("running_form"), ["driver_id"],
        half_life=FORM_HALF_LIFE, prior=ROOKIE_FORM, pseudo_count=FORM_PSEUDO_COUNT,
    )  # fmt: skip


def _add_driver_forms(cars: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Add the recent starts, running positions, laps led and finishes of the driver, and the experience."""
    cars = _add_running_form(cars, past)
    for name, value, half_life, prior in (
        ("finish_form", "score", FORM_HALF_LIFE, ROOKIE_FORM),
        ("recent_form", "ran", RECENT_HALF_LIFE, ROOKIE_FORM),
        ("start_form", "start", START_HALF_LIFE, ROOKIE_FORM),
        ("pace_form", "pace", FORM_HALF_LIFE, 0.0),
        ("led_form", "led", FORM_HALF_LIFE, 0.0),
    ):
        cars = past_mean(
            cars, past, pl.col(value).alias(name), ["driver_id"],
            half_life=half_life, prior=prior, pseudo_count=FORM_PSEUDO_COUNT,
            null_if_unseen=name == "pace_form",
        )  # fmt: skip
    races = past_sums(cars, past, pl.col("score"), ["driver_id"], math.inf)
    return races.with_columns(experience=pl.col("weight").log1p()).drop("total", "weight")


def _add_team_forms(cars: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Add the recent finishes of the team's cars, and the recent running positions of the car itself."""
    in_team = past.filter(pl.col("team").is_not_null())
    cars = past_mean(
        cars, in_team, pl.col("score").alias("team_form"), ["team"],
        half_life=TEAM_HALF_LIFE, pseudo_count=FORM_PSEUDO_COUNT,
    )  # fmt: skip
    numbered = in_team.filter(pl.col("car_number").is_not_null())
    return past_mean(
        cars, numbered, pl.col("ran").alias("car_form"), ["team", "car_number"],
        half_life=FORM_HALF_LIFE, prior="team_form", pseudo_count=CAR_PSEUDO_COUNT,
    )  # fmt: skip


def _add_deviations(cars: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Add deviations from the running form: driver and team on the archetype, the driver on the track."""
    surprise = pl.col("ran") - pl.col("running_form")
    for name, by, half_life, pseudo_count in (
        ("archetype_form", ["driver_id", "archetype"], DEVIATION_HALF_LIFE, ARCHETYPE_PSEUDO_COUNT),
        ("track_form", ["driver_id", "track_id", "archetype"], DEVIATION_HALF_LIFE, TRACK_PSEUDO_COUNT),
        (
            "team_archetype_form",
            ["team", "archetype"],
            TEAM_DEVIATION_HALF_LIFE,
            TEAM_ARCHETYPE_PSEUDO_COUNT,
        ),
    ):
        seen = past.filter(pl.col("team").is_not_null()) if "team" in by else past
        cars = past_mean(cars, seen, surprise.alias(name), by, half_life=half_life, pseudo_count=pseudo_count)
    return cars


def _add_incident_form(cars: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Add the logit of the driver's retirement rate minus that of the driver's fields."""
    for name, value, prior, pseudo_count in (
        ("field_rate", "field_retired", RETIREMENT_RATE, FIELD_PSEUDO_COUNT),
        ("own_rate", "retired", "field_rate", INCIDENT_PSEUDO_COUNT),
    ):
        cars = past_mean(
            cars, past, pl.col(value).alias(name), ["driver_id"],
            half_life=DEVIATION_HALF_LIFE, prior=prior, pseudo_count=pseudo_count,
        )  # fmt: skip
    return cars.with_columns(incident_form=_logit(pl.col("own_rate")) - _logit(pl.col("field_rate")))


def _logit(rate: pl.Expr) -> pl.Expr:
    return rate.log() - (1 - rate).log()


def _add_track_rates(cars: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Add rates of the track, shrunk to those of its archetype, these to the rate of all races."""
    for name, value, prior in (
        ("track_incident_rate", pl.col("retired"), RETIREMENT_RATE),
        ("track_caution_rate", pl.col("n_cautions"), None),
        ("track_passing", pl.col("passing"), PASSING),
    ):
        cars = past_mean(cars, past, value.alias("_overall"), half_life=DEVIATION_HALF_LIFE, prior=prior)
        for level, by, parent in (
            ("_archetype", ["archetype"], "_overall"),
            (name, ["track_id", "archetype"], "_archetype"),
        ):
            cars = past_mean(
                cars, past, value.alias(level), by,
                half_life=DEVIATION_HALF_LIFE, prior=parent, pseudo_count=TRACK_RATE_PSEUDO_COUNT,
            )  # fmt: skip
    return cars
