"""Words for how a car ended its race: which of them mean that it was running, or that it did not start."""

from collections import Counter

import polars as pl

from calibration_pipeline.sources.base import RUNNING_SHARE
from calibration_pipeline.sources.quarantine import QuarantineLog

RUNNING = "running"
# Ran to the end and lost the position afterwards: no retirement.
DISQUALIFIED = "disqualified"
UNKNOWN_STATUS = "unknown"
RUNNING_WORDS = (
    r"^(running( at (the )?(finish|end))?|still running|run|finished|in|checkered( flag)?|on track|"
    r"completed?|classified|lead lap|flagged|(\+|-)? ?\d+ ?laps?( down| behind)?|lapped|active)$"
)
DISQUALIFIED_WORDS = r"^(disqualified|disq\.?|dsq|dq)$"
NON_STARTER_WORDS = (
    r"^(did ?n[o']?t (start|qualify)|dns|dnq|wd|w/d|withdr(a|e)wn?|withdrawal|not started|non-?starter|"
    r"failed to qualify|scratched)$"
)
CAUSES = (
    r"accident|crash|wreck|engine|brake|vibration|dvp|electric|suspension|gear|transmission|heat|steering|"
    r"pump|handling|clutch|parked|leak|axle|slow|drive|hub|battery|ignition|oil|water|fire|fuel|tire|chassis|"
    r"rear|mechanical|retired|dnf|^out$|damage|power|track bar|throttle|carburetor|radiator|valve|piston|"
    r"alternator|wheel|shock|spring|header|cooler|exhaust|fatigue|injur|did ?n[o']?t finish|"
    r"tie rod|line|hatch|pressure|hood|flat|spun|spin|quit|failure|broken|lost|contact|collision|^-$|"
    r"^unknown$"
)
"""Words of causes of retirement, which are never learned as words for running."""


def word(status: pl.Expr) -> pl.Expr:
    """Return a status in lower case without spaces around it."""
    return status.str.to_lowercase().str.strip_chars()


def is_non_starter(status: pl.Expr) -> pl.Expr:
    """Return the expression whether a status means that the car did not start."""
    return word(status).str.contains(NON_STARTER_WORDS).fill_null(value=False)


def add_running(cars: pl.DataFrame, where: str, log: QuarantineLog, counts: Counter[str]) -> pl.DataFrame:
    """Add the column `running`, and replace each word for running by `RUNNING`.

    A word that most winners of the season have means running, unless it is a cause of retirement. Without a
    status a car is running if it completed `RUNNING_SHARE` of the race's laps, else its status is 'unknown'.
    The same rule decides where no car of a race, or not its winner, is running by its word, and for words
    that are neither of running nor of a known cause. A car that is
    disqualified after the race keeps its official finish, and counts as running.

    Parameters
    ----------
    cars : polars.DataFrame
        Cars of one season, with race_laps.
    where : str
        Address of the table.
    log : QuarantineLog
    counts : Counter
    """
    counts["cars_without_status"] += cars["status"].null_count()
    cars = cars.with_columns(status=word(pl.col("status")))
    winners = cars.filter(finish_position=1)["status"].drop_nulls()
    common = winners.value_counts(sort=True).filter(pl.col("count") * 2 > len(winners))["status"]
    learned = common.filter(~common.str.contains(CAUSES)).to_list()
    status, has_status = pl.col("status"), pl.col("status").is_not_null()
    by_laps = pl.col("laps_completed") >= RUNNING_SHARE * pl.col("race_laps")
    known = status.str.contains(RUNNING_WORDS) | status.is_in(learned)
    disqualified = status.str.contains(DISQUALIFIED_WORDS)
    cars = cars.with_columns(
        status=pl.when(disqualified).then(pl.lit(DISQUALIFIED)).when(known).then(pl.lit(RUNNING)).otherwise(status),
        by_word=(known | disqualified).fill_null(value=False),
    )  # fmt: skip
    ran = pl.col("by_word") & (pl.col("laps_completed") > 0) | ~has_status & by_laps.fill_null(value=False)
    cars = cars.with_columns(running=ran)
    silent = ~pl.col("running").any().over("race_order")
    winner_out = (pl.col("finish_position") == 1) & ~pl.col("running")
    strange = has_status & ~pl.col("by_word") & ~pl.col("status").str.contains(CAUSES)
    given_by_most = cars["status"].null_count() * 2 < cars.height
    for row in cars.filter(silent).unique("race_order").sort("race_order").iter_rows(named=True):
        _log(row, "race", "no car is running by its status, laps decide", None, where, log)
    for row in cars.filter(winner_out & ~silent).iter_rows(named=True):
        _log(row, "value", "the winner is not running by the status, laps decide", row["driver"], where, log)
    if given_by_most:
        for row in cars.filter(~has_status).iter_rows(named=True):
            _log(row, "value", "status is not given, laps decide", row["driver"], where, log)
    for row in cars.filter(pl.col("by_word") & (pl.col("laps_completed") == 0)).iter_rows(named=True):
        _log(row, "value", "it has no lap and is running by its status", row["driver"], where, log)
    for row in cars.filter(strange & ~silent & ~winner_out).iter_rows(named=True):
        _log(row, "value", "its status is no known word, laps decide", row["driver"], where, log)
    cars = cars.with_columns(redecided=silent | winner_out | strange)
    redecided = pl.col("redecided")
    return cars.with_columns(
        running=pl.when(redecided).then(by_laps.fill_null(value=False)).otherwise("running"),
    ).with_columns(
        status=pl.when(redecided & pl.col("running") | ~has_status & pl.col("running"))
        .then(pl.lit(RUNNING))
        .when(~has_status | (status == RUNNING) & ~pl.col("running"))
        .then(pl.lit(UNKNOWN_STATUS))
        .otherwise(status)
    ).drop("by_word", "redecided")  # fmt: skip


def _log(
    row: dict[str, object], entity: str, rule: str, subject: object, where: str, log: QuarantineLog
) -> None:
    log.add(
        "race" if entity == "race" else "value",
        "corrected",
        rule,
        place=where,
        race_id=int(str(row["race_id"])),
        race=str(row["label"]),
        subject=None if subject is None else str(subject),
        value=row["status"],
    )
