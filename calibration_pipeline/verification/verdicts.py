"""Verdict rules for the forecasts of an archetype, with the evidence for each rule.

A forecast *meets* the rules if every 95 % interval lies within its limits (`LIMITS`), the joint-event test
does not reject, and the results reject independent cars. The last condition is needed while races are few: a
forecast without any dependence would pass the joint-event test too. A forecast *fails* the rules if some
interval lies wholly outside its limits, or the joint test rejects. Several intervals are tested, so failing
uses `ERROR_RATE` over the number of tests (Bonferroni). Meeting needs every condition, and therefore no
correction (an intersection-union test: Berger 1982, doi:10.2307/1267823). `benchmarks.verdict_errors`
measures the error rates of both.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import polars as pl
from scipy.special import ndtri

from calibration_pipeline.archetypes import Archetype, parse_archetype
from calibration_pipeline.schemas.frames import VerdictTable
from calibration_pipeline.stats.intervals import student_t
from calibration_pipeline.verification.cases import JUDGED, table

ERROR_RATE = 0.05
LIMITS: dict[tuple[str, str], tuple[float, float]] = {
    ("head_to_head_slope", ""): (0.8, 1.25),
    ("coverage", "50 %"): (0.45, 0.55),
    ("coverage", "80 %"): (0.76, 0.84),
    ("coverage", "95 %"): (0.93, 0.97),
    ("crps_skill", ""): (-0.01, math.inf),
}
"""Quantity and level to the range in which its interval must lie."""
NAMES = {
    "head_to_head_slope": "head-to-head slope",
    "coverage": "coverage of the {level} intervals",
    "crps_skill": "CRPS skill over climatology",
}
LEAST_POWER = 0.2
"""Least power against independent cars, if the forecast is right, of an event that counts for dependence."""
MOST_RACES = 1000
"""Above this number of races needed the message reads 'More than 1,000'."""

Ruling = Literal["trust", "trust after recalibration", "do not trust", "cannot tell yet"]
State = Literal["meets", "fails", "open"]


@dataclass(frozen=True)
class Verdict:
    """Verdict on an archetype, with its evidence.

    Attributes
    ----------
    archetype : Archetype
        Track archetype.
    verdict : str
        'trust', 'trust after recalibration', 'do not trust' or 'cannot tell yet'.
    evidence : list of str
        Lines in plain English, the deciding lines first.
    races_needed : int or None
        With 'cannot tell yet', about how many more races are needed; None if unknown.
    """

    archetype: Archetype
    verdict: Ruling
    evidence: list[str]
    races_needed: int | None = None


@dataclass(frozen=True)
class _Finding:
    """Result of one test."""

    forecast: str
    state: State
    line: str
    more_races: float = field(default=0.0)


def judge(
    archetype: str,
    metrics: pl.DataFrame,
    joint_events: pl.DataFrame,
    n_calibrated_races: int,
) -> Verdict:
    """Rule on one archetype.

    Parameters
    ----------
    archetype : str
        Track archetype.
    metrics, joint_events : polars.DataFrame
        `MetricTable` and `JointEventTable`; rows of other archetypes are ignored.
    n_calibrated_races : int
        Scored races whose recalibration was fitted on earlier ones. Where there are none, the recalibrated
        forecast equals the raw one, and the verdict is 'cannot tell yet'.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If the archetype is unknown.
    """
    name = parse_archetype(archetype)
    if n_calibrated_races == 0:
        line = "No race was forecast after a calibration fit on earlier races: recalibrated is raw."
        return Verdict(name, "cannot tell yet", [line])
    rows, events = metrics.filter(archetype=archetype), joint_events.filter(archetype=archetype)
    findings = {
        forecast: [*_metric_findings(forecast, rows), *_joint_findings(forecast, events)]
        for forecast in JUDGED
    }
    raw, recalibrated = findings["raw"], findings["recalibrated"]
    if _all_meet(raw):
        return Verdict(name, "trust", [f.line for f in raw])
    if _all_meet(recalibrated):
        unmet = [f.line for f in raw if f.state != "meets"]
        return Verdict(name, "trust after recalibration", [f.line for f in recalibrated] + unmet)
    failed = [f.line for f in recalibrated if f.state == "fails"]
    if failed:
        rest = [f.line for f in recalibrated if f.state != "fails"]
        return Verdict(name, "do not trust", failed + rest)
    # The raw or the recalibrated forecast may be the first to meet the rules.
    more = min(max(f.more_races for f in group) for group in findings.values() if not _any_fails(group))
    undecided = [f.line for f in recalibrated if f.state == "open"]
    met = [f.line for f in recalibrated if f.state == "meets"]
    needed = None if math.isinf(more) else max(1, math.ceil(more))
    return Verdict(name, "cannot tell yet", [_needed(needed), *undecided, *met], needed)


def verdict_table(verdict: Verdict) -> pl.DataFrame:
    """Return a verdict as a frame, `VerdictTable`: one row a line of evidence."""
    rows: list[dict[str, object]] = [
        {
            "archetype": str(verdict.archetype),
            "verdict": verdict.verdict,
            "races_needed": verdict.races_needed,
            "line": number,
            "evidence": line,
        }
        for number, line in enumerate(verdict.evidence, start=1)
    ]
    return table(rows, VerdictTable)


def read_verdict(frame: pl.DataFrame) -> Verdict:
    """Return the verdict that `verdict_table` wrote.

    Raises
    ------
    ValueError
        If `frame` does not hold the lines of exactly one verdict.
    """
    rulings = frame.select("archetype", "verdict", "races_needed").unique()
    if rulings.height != 1:
        raise ValueError(f"Argument frame must hold one verdict, got {rulings.height}.")
    archetype, ruling, races_needed = rulings.row(0)
    return Verdict(parse_archetype(archetype), ruling, frame.sort("line")["evidence"].to_list(), races_needed)


def _metric_findings(forecast: str, rows: pl.DataFrame) -> list[_Finding]:
    return [_finding(forecast, quantity, level, rows) for quantity, level in LIMITS]


def _finding(forecast: str, quantity: str, level: str, rows: pl.DataFrame) -> _Finding:
    name = f"{forecast.capitalize()}: {NAMES[quantity].format(level=level)}"
    found = rows.filter(
        pl.col("reference").is_in(["", "climatology"]), forecast=forecast, quantity=quantity, level=level
    )
    row = found.row(0, named=True) if found.height else None
    if row is None or row["estimate"] is None or row["lower"] is None:
        return _Finding(forecast, "open", f"{name} has no interval; it needs at least two races.", math.inf)
    estimate, lower, upper, n = row["estimate"], row["lower"], row["upper"], row["n_races"]
    low, high = LIMITS[quantity, level]
    wider = student_t(n, 1 - ERROR_RATE / _n_tests()) / student_t(n)
    lowest, highest = estimate - wider * (estimate - lower), estimate + wider * (upper - estimate)
    text = f"{name} is {estimate:.3f} [{lower:.3f}, {upper:.3f}] over {n} races,"
    limits = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
    if low <= lower and upper <= high:
        return _Finding(forecast, "meets", f"{text} within the limits ({limits}).")
    if highest < low or lowest > high:
        return _Finding(forecast, "fails", f"{text} wholly outside the limits ({limits}).")
    line = f"{text} not clearly within or outside the limits ({limits})."
    if low < estimate < high:
        below, above = estimate - lower, upper - estimate
        more = max(_more_races(estimate - low, below, n), _more_races(high - estimate, above, n))
    elif estimate <= low:
        more = _more_races(low - estimate, highest - estimate, n)
    else:
        more = _more_races(estimate - high, estimate - lowest, n)
    return _Finding(forecast, "open", line, more)


def _joint_findings(forecast: str, events: pl.DataFrame) -> Iterator[_Finding]:
    """Yield the findings of the joint-event test and of the test of independent cars."""
    name = forecast.capitalize()
    judged = events.filter(forecast=forecast).sort("p_value", pl.col("z").abs(), descending=[False, True])
    if judged.is_empty():
        yield _Finding(forecast, "open", f"{name}: no joint event can be judged.", math.inf)
        return
    p_value, worst = judged["p_together"][0], judged.row(0, named=True)
    size = "" if worst["z"] is None else f", |z| {abs(worst['z']):.1f}"
    test = f"{name}: joint events have p = {p_value:.3f} together (smallest p-value: {worst['event']}{size}),"
    strict = ERROR_RATE / _n_tests()
    if p_value > ERROR_RATE:
        yield _Finding(forecast, "meets", f"{test} consistent with the results (p > {ERROR_RATE:g}).")
    elif p_value < strict:
        yield _Finding(forecast, "fails", f"{test} contradicted by the results (p < {strict:.3f}).")
    else:
        line = f"{test} doubtful: neither p > {ERROR_RATE:g} nor p < {strict:.3f}."
        yield _Finding(forecast, "open", line, math.inf)
    informative = pl.col("about_dependence") & (pl.col("power_independent") >= LEAST_POWER)
    yield _dependence_finding(forecast, judged.filter(informative))


def _dependence_finding(forecast: str, events: pl.DataFrame) -> _Finding:
    """Return the finding of the test of independent cars: the smallest p-value over events, Bonferroni."""
    name = f"{forecast.capitalize()}: dependence between cars"
    if events.is_empty():
        return _Finding(forecast, "open", f"{name} cannot show in any joint event yet.", math.inf)
    best = events.sort("p_independent").row(0, named=True)
    p_value = min(1.0, best["p_independent"] * events.height)
    test = f"independent cars have p = {p_value:.3f} (smallest p-value: {best['event']})."
    if p_value <= ERROR_RATE:
        return _Finding(forecast, "meets", f"{name} shows in the results: {test}")
    needed = float(ndtri(1 - ERROR_RATE / events.height))
    more = _more_races(max(0.0, float(ndtri(1 - best["p_independent"]))), needed, best["n_races"])
    return _Finding(forecast, "open", f"{name} does not show in the results yet: {test}", more)


def _more_races(room: float, half: float, n: int) -> float:
    """Return how many more races shrink `half` to `room`, if it shrinks as 1 / sqrt(races)."""
    return math.inf if room == 0 else max(0.0, n * (half / room) ** 2 - n)


def _needed(needed: int | None) -> str:
    if needed is None:
        return "The number of further races needed is unknown."
    if needed > MOST_RACES:
        return f"More than {MOST_RACES:,} more races are needed."
    return f"About {needed} more race{'s' if needed > 1 else ''} needed, if estimates stay where they are."


def _n_tests() -> int:
    """Return the number of tests that can fail: the metrics with limits, and the joint events."""
    return len(LIMITS) + 1


def _all_meet(findings: list[_Finding]) -> bool:
    return all(f.state == "meets" for f in findings)


def _any_fails(findings: list[_Finding]) -> bool:
    return any(f.state == "fails" for f in findings)
