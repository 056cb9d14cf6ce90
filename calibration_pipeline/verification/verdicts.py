"""Whether an archetype's forecasts can be trusted: the rules, in one place, with the evidence for each.

A forecast *meets* the rules if every 95 % interval lies within its limits (`LIMITS`), the joint-event test
does not reject, and the results rule out that cars are independent of each other: while races are few, a
forecast without any dependence would pass the joint-event test too. It *fails* them if some interval lies
wholly outside its limits, or the joint test rejects. Calling a forecast bad because one of several intervals
strays would be wrong too often, so failing is judged at `ERROR_RATE` over the number of things looked at
(Bonferroni). Meeting needs everything, and therefore no such correction (an intersection-union test: Berger
1982, doi:10.2307/1267823). `benchmarks.verdict_errors` shows how often both go wrong.
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
"""Power against independent cars that an event must have, were the forecast right, to tell of them."""
MOST_RACES = 1000
"""More races needed than this is said as 'more than 1,000'."""

Ruling = Literal["trust", "trust after recalibration", "do not trust", "cannot tell yet"]
State = Literal["meets", "fails", "open"]


@dataclass(frozen=True)
class Verdict:
    """What is ruled on an archetype, and why.

    Attributes
    ----------
    archetype : Archetype
        Kind of track.
    verdict : str
        'trust', 'trust after recalibration', 'do not trust' or 'cannot tell yet'.
    evidence : list of str
        Lines in plain English, what decides first.
    races_needed : int or None
        With 'cannot tell yet', about how many more races it takes; None if not known.
    """

    archetype: Archetype
    verdict: Ruling
    evidence: list[str]
    races_needed: int | None = None


@dataclass(frozen=True)
class _Finding:
    """One thing that was looked at."""

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
        Kind of track.
    metrics, joint_events : polars.DataFrame
        `MetricTable` and `JointEventTable`; rows of other archetypes are ignored.
    n_calibrated_races : int
        Scored races whose recalibration was fitted on earlier ones. Where there are none the recalibrated
        forecast is the raw one, and nothing can be told.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If the archetype is unknown.
    """
    kind = parse_archetype(archetype)
    if n_calibrated_races == 0:
        line = "No race was forecast after a calibration fit on earlier races: recalibrated is raw."
        return Verdict(kind, "cannot tell yet", [line])
    rows, events = metrics.filter(archetype=archetype), joint_events.filter(archetype=archetype)
    findings = {
        forecast: [*_metric_findings(forecast, rows), *_joint_findings(forecast, events)]
        for forecast in JUDGED
    }
    raw, recalibrated = findings["raw"], findings["recalibrated"]
    if _all_meet(raw):
        return Verdict(kind, "trust", [f.line for f in raw])
    if _all_meet(recalibrated):
        unmet = [f.line for f in raw if f.state != "meets"]
        return Verdict(kind, "trust after recalibration", [f.line for f in recalibrated] + unmet)
    failed = [f.line for f in recalibrated if f.state == "fails"]
    if failed:
        rest = [f.line for f in recalibrated if f.state != "fails"]
        return Verdict(kind, "do not trust", failed + rest)
    # The raw or the recalibrated forecast may be the first to get there.
    more = min(max(f.more_races for f in group) for group in findings.values() if not _any_fails(group))
    undecided = [f.line for f in recalibrated if f.state == "open"]
    met = [f.line for f in recalibrated if f.state == "meets"]
    needed = None if math.isinf(more) else max(1, math.ceil(more))
    return Verdict(kind, "cannot tell yet", [_needed(needed), *undecided, *met], needed)


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
        return _Finding(forecast, "open", f"{name} has no interval; it takes at least two races.", math.inf)
    estimate, lower, upper, n = row["estimate"], row["lower"], row["upper"], row["n_races"]
    low, high = LIMITS[quantity, level]
    wider = student_t(n, 1 - ERROR_RATE / _n_looks()) / student_t(n)
    lowest, highest = estimate - wider * (estimate - lower), estimate + wider * (upper - estimate)
    said = f"{name} is {estimate:.3f} [{lower:.3f}, {upper:.3f}] over {n} races,"
    limits = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
    if low <= lower and upper <= high:
        return _Finding(forecast, "meets", f"{said} within the limits ({limits}).")
    if highest < low or lowest > high:
        return _Finding(forecast, "fails", f"{said} wholly outside the limits ({limits}).")
    line = f"{said} not clearly within or outside the limits ({limits})."
    if low < estimate < high:
        below, above = estimate - lower, upper - estimate
        more = max(_more_races(estimate - low, below, n), _more_races(high - estimate, above, n))
    elif estimate <= low:
        more = _more_races(low - estimate, highest - estimate, n)
    else:
        more = _more_races(estimate - high, estimate - lowest, n)
    return _Finding(forecast, "open", line, more)


def _joint_findings(forecast: str, events: pl.DataFrame) -> Iterator[_Finding]:
    """Yield whether joint events happen as often as predicted, and whether independent cars are ruled out."""
    name = forecast.capitalize()
    judged = events.filter(forecast=forecast).sort("p_value", pl.col("z").abs(), descending=[False, True])
    if judged.is_empty():
        yield _Finding(forecast, "open", f"{name}: no joint event can be judged.", math.inf)
        return
    p_value, worst = judged["p_together"][0], judged.row(0, named=True)
    size = "" if worst["z"] is None else f", |z| {abs(worst['z']):.1f}"
    said = (
        f"{name}: joint events have p = {p_value:.3f} together (hardest to explain: {worst['event']}{size}),"
    )
    strict = ERROR_RATE / _n_looks()
    if p_value > ERROR_RATE:
        yield _Finding(forecast, "meets", f"{said} consistent with the results (p > {ERROR_RATE:g}).")
    elif p_value < strict:
        yield _Finding(forecast, "fails", f"{said} contradicted by the results (p < {strict:.3f}).")
    else:
        line = f"{said} doubtful: neither p > {ERROR_RATE:g} nor p < {strict:.3f}."
        yield _Finding(forecast, "open", line, math.inf)
    telling = pl.col("about_dependence") & (pl.col("power_independent") >= LEAST_POWER)
    yield _dependence_finding(forecast, judged.filter(telling))


def _dependence_finding(forecast: str, events: pl.DataFrame) -> _Finding:
    """Tell whether the results rule out independent cars: the smallest p-value over events, Bonferroni."""
    name = f"{forecast.capitalize()}: how cars fare together"
    if events.is_empty():
        return _Finding(forecast, "open", f"{name} would not show in any joint event yet.", math.inf)
    best = events.sort("p_independent").row(0, named=True)
    p_value = min(1.0, best["p_independent"] * events.height)
    said = f"independent cars have p = {p_value:.3f} (told apart best by {best['event']})."
    if p_value <= ERROR_RATE:
        return _Finding(forecast, "meets", f"{name} is in the results: {said}")
    needed = float(ndtri(1 - ERROR_RATE / events.height))
    more = _more_races(max(0.0, float(ndtri(1 - best["p_independent"]))), needed, best["n_races"])
    return _Finding(forecast, "open", f"{name} cannot be told from the results yet: {said}", more)


def _more_races(room: float, half: float, n: int) -> float:
    """Return how many more races shrink `half` to `room`, if it shrinks as 1 / sqrt(races)."""
    return math.inf if room == 0 else max(0.0, n * (half / room) ** 2 - n)


def _needed(needed: int | None) -> str:
    if needed is None:
        return "How many more races are needed cannot be told."
    if needed > MOST_RACES:
        return f"More than {MOST_RACES:,} more races are needed."
    return f"About {needed} more race{'s' if needed > 1 else ''} needed, if estimates stay where they are."


def _n_looks() -> int:
    """Things that can fail: the metrics with limits, and the joint events."""
    return len(LIMITS) + 1


def _all_meet(findings: list[_Finding]) -> bool:
    return all(f.state == "meets" for f in findings)


def _any_fails(findings: list[_Finding]) -> bool:
    return any(f.state == "fails" for f in findings)
