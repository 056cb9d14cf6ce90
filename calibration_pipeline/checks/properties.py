"""Properties of stored values that no contract enforces: one pure function for each property.

`PROPERTIES` lists the assets of each property, and whether its failure blocks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.checks.plausibility import (
    ENOUGH_RACES,
    LEAST_FIELD,
    implausible_forecast,
    implausible_results,
    rank_correlation,
)
from calibration_pipeline.markets import ALL_MARKETS
from calibration_pipeline.mcmc.convergence import ESS_GOOD, R_HAT_FAILS
from calibration_pipeline.seasons import ALL_RACES
from calibration_pipeline.sources.quarantine import describe_quarantine
from calibration_pipeline.verification.monitoring import ALARM, list_alarms

COVERAGE_TOLERANCE = 0.10
JOINT_EVENT_TOLERANCE = 0.10
SHOWN = 5


class Finding(NamedTuple):
    """Result of checking a property: a sentence and numbers.

    Attributes
    ----------
    passed : bool
    sentence : str
    metadata : dict
        estimate, threshold and n, and the interval of the estimate where there is one.
    """

    passed: bool
    sentence: str
    metadata: dict[str, Any]


def _counted(bad: list[Any], n: int, rule: str, units: str) -> Finding:
    """Return the finding of a rule that each of n units meets or breaks."""
    shown = ", ".join(map(str, bad[:SHOWN])) + (", ..." if len(bad) > SHOWN else "")
    sentence = f"In {len(bad)} of {n} {units} it does not hold that {rule}: {shown}."
    if not bad:
        sentence = f"In all {n} {units} {rule}."
    return Finding(not bad, sentence, {"estimate": len(bad), "threshold": 0, "n": n})


def nothing_is_quarantined(quarantine: pl.DataFrame) -> Finding:
    """Whether a source could use all of a season's data."""
    text = describe_quarantine(quarantine)
    n_races = quarantine.filter(entity="race", consequence="left out").height
    sentence = text or "Nothing of the season was left out, nulled or corrected."
    return Finding(not text, sentence, {"estimate": n_races, "threshold": 0, "n": quarantine.height})


def results_laps_led_add_up(race_results: pl.DataFrame) -> Finding:
    """Whether the laps led of each race add up to the laps that it ran, where those of all cars are known."""
    known = pl.all_horizontal(pl.col("laps_led", "race_laps").is_not_null().all().over("race_id"))
    races = (
        race_results.filter(known)
        .group_by("race_id", maintain_order=True)
        .agg(difference=pl.col("laps_led").sum() - pl.col("race_laps").first())
    )
    bad = [f"{race} ({laps:+d})" for race, laps in races.filter(pl.col("difference") != 0).iter_rows()]
    return _counted(bad, races.height, "laps led add up to the race's laps", "races with known laps")


def results_are_plausible(race_results: pl.DataFrame) -> Finding:
    """Whether field, laps, retirements, dates and grids of the races look like racing."""
    return _without(implausible_results(race_results), race_results["race_id"].n_unique(), "results")


def fields_are_plausible(ensemble: xr.Dataset) -> Finding:
    """Whether a forecast is of a whole field."""
    return _without(implausible_forecast(ensemble), ensemble.sizes["race"], "forecasts")


def _without(found: list[str], n: int, kind: str) -> Finding:
    """Return the finding of sentences on what is implausible."""
    shown = " | ".join(found[:SHOWN]) + (f" | and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    sentence = f"Implausible {kind}: {shown}." if found else f"The {kind} of {n} races are plausible."
    return Finding(not found, sentence, {"estimate": len(found), "threshold": 0, "n": n})


def forecasts_point_the_right_way(backtest: xr.Dataset) -> Finding:
    """Whether forecast and observed finishes are positively correlated over the races."""
    n = backtest.sizes["race"]
    if n < ENOUGH_RACES:
        return Finding(True, "Too few races are scored yet.", {"threshold": 0.0, "n": n})
    value = rank_correlation(backtest)
    if np.isnan(value):
        return Finding(True, "All cars are expected to finish alike.", {"threshold": 0.0, "n": n})
    hint = "" if value > 0 else " The forecasts may be upside down: 1 must be the winner."
    sentence = f"Expected and observed finishes have a mean rank correlation of {value:.2f}.{hint}"
    return Finding(value > 0, sentence, {"estimate": value, "threshold": 0.0, "n": n})


def scenario_laps_add_up(ensemble: xr.Dataset) -> Finding:
    """Whether, in each scenario, laps led add up to its laps, and fastest laps to its green laps.

    A forecaster may omit each of these four variables; sums with both variables present are compared.
    """
    holds = np.ones((ensemble.sizes["race"], ensemble.sizes["scenario"]), bool)
    for laps, total in (("laps_led", "race_laps"), ("fastest_laps", "green_laps")):
        if laps in ensemble and total in ensemble:
            holds &= (ensemble[laps].sum("driver") == ensemble[total]).transpose("race", "scenario").values
    bad = ensemble["race"].values[~holds.all(axis=1)].tolist()
    rule = "laps led and fastest laps add up in every scenario"
    finding = _counted(bad, holds.shape[0], rule, "races")
    return finding._replace(metadata={**finding.metadata, "n_scenarios": int(holds.size)})


def networks_know_only_the_past(ensemble: xr.Dataset) -> Finding:
    """Whether the network that sampled each race was fitted to earlier races alone.

    For other forecasters the races used are unknown; the check counts their races.
    """
    by_network = ensemble["network_as_of"].values > 0
    late = by_network & (ensemble["network_as_of"].values >= ensemble["race_order"].values)
    n, n_others = int(by_network.sum()), int((~by_network).sum())
    rule = "the network was fitted to earlier races alone"
    finding = _counted(ensemble["race"].values[late].tolist(), n, rule, "races")
    if not n_others:
        return finding
    others = f"{n_others} races are of another forecaster: the races it was fitted to are unknown."
    sentence = f"{finding.sentence} {others}" if n else others
    return Finding(finding.passed, sentence, {**finding.metadata, "n_not_of_network": n_others})


def r_hat_is_low(convergence: pl.DataFrame) -> Finding:
    """Whether every parameter's rank-normalised R-hat is below the limit."""
    return _worst(convergence, "r_hat", R_HAT_FAILS, below=True)


def ess_is_high(convergence: pl.DataFrame) -> Finding:
    """Whether every parameter's bulk and tail effective sample sizes are above the least."""
    known = pl.all_horizontal(pl.col("ess_bulk", "ess_tail").is_not_null())
    smaller = convergence.with_columns(ess=pl.when(known).then(pl.min_horizontal("ess_bulk", "ess_tail")))
    return _worst(smaller, "ess", ESS_GOOD, below=False)


def _worst(convergence: pl.DataFrame, column: str, threshold: float, *, below: bool) -> Finding:
    """Return the finding of a limit on a diagnostic; null, a diagnostic that cannot be computed, fails."""
    if convergence.is_empty():
        return Finding(True, "There is no fit yet.", {"threshold": threshold, "n": 0})
    worst = convergence.sort(column, descending=below, nulls_last=False).row(0, named=True)
    value = worst[column]
    passed = value is not None and bool(value < threshold if below else value > threshold)
    side = "below" if below else "above"
    shown = "not computable" if value is None else f"{value:.4g}"
    sentence = (
        f"{column} must be {side} {threshold:g}; the worst is that of {worst['parameter']}, fold "
        f"{worst['fold']}: {shown}."
    )
    return Finding(passed, sentence, {"estimate": value, "threshold": threshold, "n": convergence.height})


def nothing_diverged(convergence: pl.DataFrame) -> Finding:
    """Whether no transition of the sampler diverged, in any fold's fit."""
    by_fold = convergence.unique("fold", maintain_order=True)
    total = int(by_fold["divergences"].sum())
    diverged = by_fold.filter(pl.col("divergences") > 0)["fold"].to_list()
    where = f", in the fits of {', '.join(diverged)}" if diverged else ""
    return Finding(
        total == 0,
        f"{total} transitions diverged{where}.",
        {"estimate": total, "threshold": 0, "n": by_fold.height},
    )


def coverage_is_near_nominal(metrics: pl.DataFrame) -> Finding:
    """Whether no interval of observed - nominal coverage lies wholly outside ±10 points."""
    nominal = pl.col("level").str.strip_suffix(" %").cast(pl.Float64) / 100
    gaps = metrics.filter(
        (pl.col("quantity") == "coverage")
        & pl.col("forecast").is_in(["raw", "recalibrated"])
        & pl.col("estimate").is_not_null()
    ).select(
        "n_races",
        subject=pl.format("coverage at {} ({})", "level", "forecast"),
        values=pl.format("covered {}", pl.col("estimate").round(3)),
        gap=pl.col("estimate") - nominal,
        gap_lower=pl.col("lower") - nominal,
        gap_upper=pl.col("upper") - nominal,
    )
    return _near(gaps, COVERAGE_TOLERANCE, "observed - nominal coverage")


def joint_events_are_near_observed(joint_events: pl.DataFrame) -> Finding:
    """Whether no interval of predicted - observed share of a joint event lies wholly outside ±0.1."""
    gaps = joint_events.filter(era=ALL_RACES).select(
        "n_races",
        subject=pl.format("{} ({})", "event", "forecast"),
        values=pl.format(
            "predicted {}, observed {}", pl.col("predicted").round(3), pl.col("observed").round(3)
        ),
        gap=pl.col("predicted") - pl.col("observed"),
        gap_lower=pl.col("predicted") - pl.col("upper"),
        gap_upper=pl.col("predicted") - pl.col("lower"),
    )
    return _near(gaps, JOINT_EVENT_TOLERANCE, "predicted - observed")


def season_has_no_alarm(monitoring: pl.DataFrame) -> Finding:
    """Whether no e-process of all markets has reached an alarm in the last season."""
    season = monitoring.filter(pl.col("season") == pl.col("season").max(), market=ALL_MARKETS)
    n = season["race_id"].n_unique()
    if season.is_empty():
        return Finding(True, "No race has been monitored yet.", {"threshold": ALARM, "n": n})
    largest = season.sort("log10_e_season", descending=True).row(0, named=True)
    alarms = list_alarms(monitoring.filter(season=largest["season"])).filter(span="season")
    found = [
        f"{row['market']} ({row['forecast']}, race {row['race']})" for row in alarms.iter_rows(named=True)
    ]
    value = 10 ** min(largest["log10_e_season"], 300)
    sentence = (
        f"The e-value of all markets must stay below {ALARM:g}; the largest of the {n} races of "
        f"{largest['season']} is {value:.3g} ({largest['forecast']}). Markets at an alarm: "
        f"{', '.join(found) or 'none'}."
    )
    return Finding(
        value < ALARM, sentence, {"estimate": value, "threshold": ALARM, "n": n, "n_alarms": len(found)}
    )


def _near(gaps: pl.DataFrame, tolerance: float, name: str) -> Finding:
    """Return the finding that no gap's interval lies wholly outside ± tolerance.

    The row shown is the one whose interval lies furthest outside, else the one with the largest gap. A gap
    without an interval cannot fail.

    Parameters
    ----------
    gaps : polars.DataFrame
        subject, values, n_races, gap, gap_lower, gap_upper (null where there is no interval).
    tolerance : float
    name : str
        Name of the gap in the sentence.
    """
    if gaps.is_empty():
        return Finding(True, "No race has been judged yet.", {"threshold": tolerance, "n": 0})
    ends = ("gap_lower", "gap_upper")
    gaps = gaps.with_columns(pl.col(ends).cast(pl.Float64).fill_nan(None)).with_columns(
        beyond=pl.max_horizontal(pl.col("gap_lower") - tolerance, -tolerance - pl.col("gap_upper"))
    )
    outside = gaps.filter(pl.col("beyond") > 0).sort("beyond", descending=True)
    shown = (gaps.sort(pl.col("gap").abs(), descending=True) if outside.is_empty() else outside).row(
        0, named=True
    )
    known = shown["gap_lower"] is not None and shown["gap_upper"] is not None
    interval = {"lower": shown["gap_lower"], "upper": shown["gap_upper"]} if known else {}
    written = (
        f"95 % interval {interval['lower']:+.3f} to {interval['upper']:+.3f}"
        if known
        else "no interval: not testable"
    )
    sentence = (
        f"The interval of {name} must not lie wholly outside ±{tolerance:g}; furthest is {shown['subject']}: "
        f"{shown['values']} over {shown['n_races']} races, gap {shown['gap']:+.3f} ({written})."
    )
    metadata = {"estimate": shown["gap"], "threshold": tolerance, "n": shown["n_races"], **interval}
    n_unknown = gaps["beyond"].null_count()
    return Finding(
        outside.is_empty(),
        sentence,
        metadata | ({"n_without_interval": n_unknown} if n_unknown else {}),
    )


ENSEMBLES = ("scenario_ensemble", "recalibrated_forecast")
FITS = ("calibration_posterior", "pooled_posterior")


class Property(NamedTuple):
    """A property that the values of some assets must have; its failure may block downstream assets.

    `find` takes a fit as its convergence by fold.
    """

    assets: tuple[str, ...]
    name: str
    description: str
    find: Callable[[Any], Finding]
    blocks: bool


PROPERTIES = (
    Property(
        ("quarantine",),
        "nothing_is_quarantined",
        "All data of the season could be used: nothing was left out, nulled or corrected.",
        nothing_is_quarantined,
        blocks=False,
    ),
    Property(
        ("race_results",),
        "laps_led_add_up",
        "The laps led of a race add up to the laps that it ran; a few real races are off by one.",
        results_laps_led_add_up,
        blocks=False,
    ),
    Property(
        ("race_results",),
        "plausible",
        "Field, laps, retirements, dates and grids look like those of real races.",
        results_are_plausible,
        blocks=False,
    ),
    Property(
        ("scenario_ensemble", "race_forecast"),
        "plausible",
        f"Every race is forecast for at least {LEAST_FIELD} cars.",
        fields_are_plausible,
        blocks=False,
    ),
    Property(
        ("backtest",),
        "right_way_up",
        "Forecast and observed finishes are positively correlated.",
        forecasts_point_the_right_way,
        blocks=False,
    ),
    Property(
        ENSEMBLES,
        "laps_add_up",
        "In every scenario laps led add up to the race's laps, and fastest laps to its green laps.",
        scenario_laps_add_up,
        blocks=True,
    ),
    Property(
        ENSEMBLES,
        "nothing_from_the_future",
        "The network that sampled a race was fitted to earlier races alone.",
        networks_know_only_the_past,
        blocks=True,
    ),
    Property(
        FITS,
        "r_hat",
        "Every parameter of every fit has a rank-normalised R-hat below 1.05.",
        r_hat_is_low,
        blocks=True,
    ),
    Property(
        FITS,
        "effective_sample_size",
        "Every parameter of every fit has bulk and tail effective sample sizes above 400.",
        ess_is_high,
        blocks=False,
    ),
    Property(
        FITS,
        "divergences",
        "No transition of any fit's sampler diverged.",
        nothing_diverged,
        blocks=False,
    ),
    Property(
        ("calibration_metrics",),
        "coverage",
        "No 95 % interval of a coverage lies wholly outside its level ± 10 points.",
        coverage_is_near_nominal,
        blocks=False,
    ),
    Property(
        ("joint_event_validation",),
        "calibration_error",
        "No 95 % interval of predicted - observed share of a joint event lies wholly outside ±0.1.",
        joint_events_are_near_observed,
        blocks=False,
    ),
    Property(
        ("calibration_monitoring",),
        "no_alarm",
        "The evidence against calibration, over all markets, has raised no alarm in the last season.",
        season_has_no_alarm,
        blocks=False,
    ),
)
