"""What must hold of stored values: one pure function a property. What a failure means is in `checks`."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import ArrayLike

from calibration_pipeline.calibration.convergence import ESS_GOOD, R_HAT_FAILS

COVERAGE_TOLERANCE = 0.10
JOINT_EVENT_TOLERANCE = 0.10
SHOWN = 5


class Finding(NamedTuple):
    """Whether a property holds, in a sentence and in numbers.

    Attributes
    ----------
    passed : bool
    sentence : str
    metadata : dict
        estimate, threshold and n, and the interval where there is one.
    """

    passed: bool
    sentence: str
    metadata: dict[str, Any]


def _counted(bad: list[Any], n: int, rule: str, what: str) -> Finding:
    """Return the finding of a rule that each of n things keeps or breaks."""
    shown = ", ".join(str(one) for one in bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
    sentence = (
        f"In all {n} {what} {rule}."
        if not bad
        else f"Not in all {n} {what} {rule}; not in {len(bad)}: {shown}."
    )
    return Finding(not bad, sentence, {"estimate": len(bad), "threshold": 0, "n": n})


def results_are_permutations(race_results: pl.DataFrame) -> Finding:
    """Whether each race's finishes are 1..n, each taken once."""
    bad = (
        race_results.sort("race_id", "finish_position")
        .group_by("race_id", maintain_order=True)
        .agg((pl.col("finish_position") == pl.int_range(1, pl.len() + 1)).all().alias("ok"))
    )
    broken = bad.filter(~pl.col("ok"))["race_id"].to_list()
    return _counted(broken, bad.height, "finishes are a permutation of 1..n", "races")


def results_laps_led_add_up(race_results: pl.DataFrame) -> Finding:
    """Whether the laps led of each race add up to the laps that it ran."""
    races = (
        race_results.drop_nulls(["laps_led", "race_laps"])
        .group_by("race_id", maintain_order=True)
        .agg(pl.col("laps_led").sum(), pl.col("race_laps").first())
        .with_columns(off=pl.col("laps_led") - pl.col("race_laps"))
    )
    bad = [
        f"{race} ({off:+d})" for race, off in races.filter(pl.col("off") != 0)[["race_id", "off"]].iter_rows()
    ]
    return _counted(bad, races.height, "laps led add up to the race's laps", "races with known laps")


def scenarios_are_permutations(ensemble: xr.Dataset) -> Finding:
    """Whether the finishes of each scenario are 1..n, each taken once."""
    finish = ensemble["finish_position"].values
    n_cars = ensemble["field_size"].values[:, None, None]
    width = finish.shape[-1]
    wanted = np.clip(np.arange(1, width + 1) - (width - n_cars), 0, None)
    kept = (np.sort(finish, axis=-1) == wanted).all(axis=-1)
    return _scenario_finding(ensemble, kept, "finishes are a permutation of 1..n")


def scenario_laps_add_up(ensemble: xr.Dataset) -> Finding:
    """Whether laps led add up to each scenario's laps, and fastest laps to its green laps, where told."""
    kept = np.ones((ensemble.sizes["race"], ensemble.sizes["scenario"]), bool)
    for laps, total in (("laps_led", "race_laps"), ("fastest_laps", "green_laps")):
        if laps in ensemble and total in ensemble:
            kept &= (ensemble[laps].sum("driver") == ensemble[total]).transpose("race", "scenario").values
    return _scenario_finding(ensemble, kept, "laps led and fastest laps add up")


def _scenario_finding(ensemble: xr.Dataset, kept: np.ndarray, rule: str) -> Finding:
    bad = ensemble["race"].values[~kept.all(axis=1)].tolist()
    finding = _counted(bad, kept.shape[0], f"{rule} in every scenario", "races")
    return finding._replace(metadata={**finding.metadata, "scenarios": int(kept.size)})


def features_know_only_the_past(features: pl.DataFrame) -> Finding:
    """Whether the features of each race use only earlier races."""
    return _before(features["feature_as_of"], features["race_order"], features["race_id"])


def networks_know_only_the_past(ensemble: xr.Dataset) -> Finding:
    """Whether the network that sampled each race was fitted on earlier races alone.

    Races of a user's own ensemble have no network; they are counted, because nothing vouches for them here.
    """
    sampled = ensemble.isel(race=ensemble["network_as_of"].values > 0)
    finding = _before(sampled["network_as_of"], sampled["race_order"], sampled["race"])
    n_users = ensemble.sizes["race"] - sampled.sizes["race"]
    if not n_users:
        return finding
    sentence = f"{n_users} races are of a user's ensemble: what its simulator knew is not told."
    told = f"{finding.sentence} {sentence}" if sampled.sizes["race"] else sentence
    return Finding(finding.passed, told, {**finding.metadata, "not_told": n_users})


def calibrations_know_only_the_past(backtest: xr.Dataset) -> Finding:
    """Whether the calibration that is applied to each race saw only earlier races."""
    return _before(backtest["calibration_as_of"], backtest["race_order"], backtest["race"])


def _before(as_of: ArrayLike, race_order: ArrayLike, race: ArrayLike) -> Finding:
    """Return whether `as_of`, the race_order of the last race used, is before each race."""
    late = np.asarray(as_of) >= np.asarray(race_order)
    races = np.asarray(race)
    bad = np.unique(races[late]).tolist()
    return _counted(bad, len(np.unique(races)), "only earlier races are known", "races")


def r_hat_is_low(convergence: pl.DataFrame) -> Finding:
    """Whether every parameter's rank-normalised R-hat is below the limit."""
    return _worst(convergence, "r_hat", R_HAT_FAILS, below=True)


def ess_is_high(convergence: pl.DataFrame) -> Finding:
    """Whether every parameter's bulk and tail effective sample sizes are above the least."""
    both = convergence.with_columns(ess=pl.min_horizontal("ess_bulk", "ess_tail"))
    return _worst(both, "ess", ESS_GOOD, below=False)


def _worst(convergence: pl.DataFrame, column: str, threshold: float, *, below: bool) -> Finding:
    if convergence.is_empty():
        return Finding(True, "There is no fit yet, so nothing to converge.", {"threshold": threshold, "n": 0})
    worst = convergence.sort(column, descending=below, nulls_last=False).row(0, named=True)
    value = worst[column]
    passed = value is not None and bool(value < threshold if below else value > threshold)
    sign = "below" if below else "above"
    where = f" of fold {worst['fold']}" if "fold" in worst else ""
    told = "none that can be computed" if value is None else f"{value:.4g}"
    sentence = f"{column} must be {sign} {threshold:g}; the worst is {worst['parameter']}{where} with {told}."
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
    """Whether each forecast's central intervals cover within 10 points of what they say."""
    coverage = (
        metrics.filter(
            (pl.col("quantity") == "coverage")
            & pl.col("forecast").is_in(["raw", "recalibrated"])
            & pl.col("estimate").is_not_null()
        )
        .with_columns(nominal=pl.col("level").str.strip_suffix(" %").cast(pl.Float64) / 100)
        .with_columns(error=pl.col("estimate") - pl.col("nominal"))
    )
    if coverage.is_empty():
        return Finding(True, "No race has been scored yet.", {"threshold": COVERAGE_TOLERANCE, "n": 0})
    worst = coverage.sort(pl.col("error").abs(), descending=True).row(0, named=True)
    sentence = (
        f"Coverage must be within {COVERAGE_TOLERANCE:.0%} of its level; furthest is {worst['forecast']} at "
        f"{worst['level']}: {worst['estimate']:.1%} over {worst['n_races']} races."
    )
    metadata = {
        "estimate": worst["error"],
        "threshold": COVERAGE_TOLERANCE,
        "n": worst["n_races"],
        **_interval(worst),
    }
    return Finding(abs(worst["error"]) <= COVERAGE_TOLERANCE, sentence, metadata)


def joint_events_are_near_observed(joint_events: pl.DataFrame) -> Finding:
    """Whether each joint event happened within 0.1 of as often as predicted."""
    if joint_events.is_empty():
        return Finding(
            True, "No joint event has been judged yet.", {"threshold": JOINT_EVENT_TOLERANCE, "n": 0}
        )
    worst = joint_events.sort("calibration_error", descending=True).row(0, named=True)
    sentence = (
        f"Joint events must happen within {JOINT_EVENT_TOLERANCE:g} of as often as predicted; furthest is "
        f"{worst['event']} ({worst['forecast']}): predicted {worst['predicted']:.3f}, observed "
        f"{worst['observed']:.3f} over {worst['n_races']} races."
    )
    metadata = {
        "estimate": worst["calibration_error"],
        "threshold": JOINT_EVENT_TOLERANCE,
        "n": worst["n_races"],
        **_interval(worst),
    }
    return Finding(worst["calibration_error"] <= JOINT_EVENT_TOLERANCE, sentence, metadata)


def _interval(row: dict[str, Any]) -> dict[str, float]:
    return {end: row[end] for end in ("lower", "upper") if row[end] is not None}
