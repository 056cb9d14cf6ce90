"""Verdict rules: one ruling for each market of an archetype in an era, with the evidence.

A *row* of the matrix holds the markets of one archetype and era. A forecast *meets* the rules of a market if
every estimate is shown to lie within its limits (`LIMITS`), the joint-event test does not reject, and the
results reject independent cars. That is an intersection-union test (Berger 1982, doi:10.2307/1267823): its
p-value is the largest of its parts. The recalibrated forecast *fails* if an estimate is shown to lie outside,
or joint events are rejected. Both kinds of claims are corrected for all markets of the row with Holm's method
(1979, Scandinavian Journal of Statistics 6(2)), each at half of `ERROR_RATE`: the probability of any wrong
claim in a row is then at most `ERROR_RATE`, whatever the dependence between markets.
`benchmarks.verdict_errors` measures it.
"""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
from scipy.special import ndtri

from calibration_pipeline.markets import ALL_MARKETS, FINISH, HOW_MANY_RETIRE, JOINT_EVENTS, MARKETS
from calibration_pipeline.stats.intervals import tail_probability
from calibration_pipeline.verification.cases import JUDGED
from calibration_pipeline.verification.verdicts.estimates import MarketEstimate

ERROR_RATE = 0.05
"""Largest probability of a wrong claim in a row of the matrix."""
ALPHA = ERROR_RATE / 2
"""Rate of each kind of claim: one side of a 95 % interval."""
LIMITS: dict[tuple[str, str], tuple[float, float]] = {
    ("slope", ""): (0.8, 1.25),
    ("coverage", "50 %"): (0.45, 0.55),
    ("coverage", "80 %"): (0.76, 0.84),
    ("coverage", "95 %"): (0.93, 0.97),
    ("number ratio", ""): (0.8, 1.25),
    ("spread ratio", ""): (0.8, 1.25),
    ("skill", ""): (-0.01, math.inf),
}
"""Quantity and level to the range in which the true value must lie."""
DEFAULT_TESTS = (("slope", ""), ("skill", ""))
TESTED = {
    FINISH: tuple(key for key in LIMITS if key[0] in ("coverage", "skill")),
    HOW_MANY_RETIRE: (("number ratio", ""), ("spread ratio", ""), ("skill", "")),
}
"""Market to the quantities and levels that decide it, `DEFAULT_TESTS` elsewhere."""
TESTS = {quantity for quantity, _ in LIMITS} | {"p of joint events", "p of independent cars"}
"""Quantities that decide a verdict."""
LEAST_POWER = 0.2
"""Least power against independent cars, if the forecast is right, of an event that counts for dependence."""
LARGEST_EXTRAPOLATION = 3
"""Races still needed are given up to this multiple of the races scored: an interval then halves."""

Ruling = Literal["trust", "trust after recalibration", "do not trust", "cannot tell yet"]
Effect = Literal["helps", "costs", "no difference"]


@dataclass(frozen=True)
class Evidence:
    """One line of evidence: an estimate with its 95 % interval and limits, or a p-value.

    Attributes
    ----------
    forecast : str
        raw or recalibrated.
    quantity, level : str
        As in `LIMITS`; also 'gain', 'p of joint events' and 'p of independent cars', '' for a note.
    text : str
        The line in plain English.
    estimate, lower, upper : float or None
    n_races : int
    p_inside, p_outside : float
        One-sided p-values of the hypotheses that the true value lies outside and inside the limits: a small
        `p_inside` shows that it is inside. Both are 1 where the line decides nothing.
    """

    forecast: str
    quantity: str
    level: str
    text: str
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    n_races: int = 0
    p_inside: float = 1.0
    p_outside: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """Verdict on a market of an archetype in an era.

    Attributes
    ----------
    market : str
        One of `MARKETS`, or `ALL_MARKETS` for the summary.
    verdict : str
        'trust', 'trust after recalibration', 'do not trust' or 'cannot tell yet'.
    recalibration : str or None
        'helps', 'costs' or 'no difference': whether the paired 95 % interval of the gain lies above 0, below
        0 or holds it; None where there is no interval, and for the summary.
    evidence : sequence of Evidence
        The deciding lines first.
    races_needed : int or None
        With 'cannot tell yet', about how many more races are needed for trust if estimates stay where they
        are; None unless all estimates lie inside their limits and the number is a moderate extrapolation.
    """

    market: str
    verdict: Ruling
    recalibration: Effect | None
    evidence: Sequence[Evidence]
    races_needed: int | None = None


def judge_markets(
    estimates: Sequence[MarketEstimate],
    joint_events: pl.DataFrame,
    calibrated: Collection[str],
    markets: Sequence[str] = MARKETS,
) -> list[Verdict]:
    """Rule on every market of one archetype in one era.

    Parameters
    ----------
    estimates : sequence of MarketEstimate
        As `estimates.market_estimates` returns them.
    joint_events : polars.DataFrame
        `JointEventTable` of the archetype and era.
    calibrated : collection of str
        Markets with a scored race whose recalibration was fitted on earlier ones. In the others the
        recalibrated forecast equals the raw one, and the verdict is 'cannot tell yet'.
    markets : sequence of str
        Markets of the row: those that the form of the forecast gives.

    Returns
    -------
    list of Verdict
        The summary, then one a market, in the order of `markets`.
    """
    evidence = {market: _market_evidence(market, estimates, joint_events) for market in markets}
    tests = {
        (forecast, market): [line for line in lines if line.forecast == forecast and line.quantity in TESTS]
        for market, lines in evidence.items()
        for forecast in JUDGED
    }
    tests = {key: lines for key, lines in tests.items() if lines}
    inside = {key: max(line.p_inside for line in lines) for key, lines in tests.items()}
    met, level = reject_by_holm(inside, ALPHA)
    outside = {
        (market, number): line.p_outside
        for (forecast, market), lines in tests.items()
        if forecast == "recalibrated"
        for number, line in enumerate(lines)
    }
    failed = {market for market, _ in reject_by_holm(outside, ALPHA)[0]}
    verdicts = []
    for market in markets:
        needed = None
        if market not in calibrated:
            ruling: Ruling = "cannot tell yet"
        elif ("raw", market) in met:
            ruling = "trust"
        elif ("recalibrated", market) in met:
            ruling = "trust after recalibration"
        elif market in failed:
            ruling = "do not trust"
        else:
            ruling = "cannot tell yet"
            needed = _races_needed([(inside[key], tests[key]) for key in tests if key[1] == market], level)
        lines = _ordered(evidence[market], ruling)
        if market not in calibrated:
            lines = [_note("No race was forecast after a calibration fit on earlier races."), *lines]
        verdicts.append(Verdict(market, ruling, _effect(lines), lines, needed))
    judged = {market for _, market in tests}
    return [_summary([verdict for verdict in verdicts if verdict.market in judged]), *verdicts]


def reject_by_holm[Key: Hashable](p_values: Mapping[Key, float], rate: float) -> tuple[set[Key], float]:
    """Reject hypotheses with Holm's step-down method.

    Parameters
    ----------
    p_values : mapping
        Hypothesis to p-value.
    rate : float
        Largest probability of rejecting any true hypothesis.

    Returns
    -------
    rejected : set
    level : float
        The p-value at which the next hypothesis would be rejected.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics
    6(2), 65-70.

    Examples
    --------
    >>> reject_by_holm({"a": 0.01, "b": 0.04, "c": 0.03}, 0.05)
    ({'a'}, 0.025)
    """
    rejected: set[Key] = set()
    for key in sorted(p_values, key=lambda key: p_values[key]):
        if p_values[key] > rate / (len(p_values) - len(rejected)):
            break
        rejected.add(key)
    return rejected, rate / max(1, len(p_values) - len(rejected))


def _market_evidence(
    market: str, estimates: Sequence[MarketEstimate], joint_events: pl.DataFrame
) -> list[Evidence]:
    if market == JOINT_EVENTS:
        return _joint_evidence(joint_events) or [_note("No joint event can be judged.")]
    own = [estimate for estimate in estimates if estimate.market == market]
    if not own:
        return [_note("The forecast has no probabilities of this market, or no race has an outcome.")]
    found = {estimate[1:4] for estimate in own}
    needed = [(forecast, *key) for forecast in JUDGED for key in TESTED.get(market, DEFAULT_TESTS)]
    return [_estimate_evidence(estimate) for estimate in own] + [
        Evidence(*keys, f"{_name(market, *keys)} cannot be estimated yet.")
        for keys in needed
        if keys not in found
    ]


def _note(text: str) -> Evidence:
    return Evidence("", "", "", text)


def _estimate_evidence(found: MarketEstimate) -> Evidence:
    estimate, lower, upper, n = (
        getattr(found.estimate, name) for name in ("estimate", "lower", "upper", "n_races")
    )
    name, keys = _name(*found[:4]), found[1:4]
    if lower is None or upper is None:
        return Evidence(*keys, f"{name} has no interval; it needs at least two races.", estimate, n_races=n)
    interval = f"{name} is {estimate:.3f} [{lower:.3f}, {upper:.3f}] over {n} races"
    if found.quantity == "gain":
        return Evidence(*keys, f"{interval}.", estimate, lower, upper, n)
    low, high = LIMITS[found.quantity, found.level]
    p_inside = max(
        tail_probability(estimate - low, estimate - lower, n),
        tail_probability(high - estimate, upper - estimate, n),
    )
    p_outside = min(
        tail_probability(low - estimate, upper - estimate, n),
        tail_probability(estimate - high, estimate - lower, n),
    )
    if lower == upper:  # races that agree exactly, such as two without a retirement, have no error to show
        p_outside = 1.0
    where = "inside" if low <= lower and upper <= high else "partly outside"
    if upper < low or lower > high:
        where = "wholly outside"
    limits = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
    text = f"{interval}, {where} the limits ({limits})."
    if found.quantity == "slope" and estimate < 0:
        text += " The slope is negative: the cars forecast as likely are the unlikely ones."
    return Evidence(*keys, text, estimate, lower, upper, n, p_inside, p_outside)


def _name(market: str, forecast: str, quantity: str, level: str) -> str:
    return f"{forecast.capitalize()}: {market}, {quantity}{f' of {level} intervals' if level else ''}"


def _joint_evidence(events: pl.DataFrame) -> list[Evidence]:
    """Return the joint test, the test of independent cars and the gain of each forecast."""
    lines = []
    for forecast in JUDGED:
        own = events.filter(forecast=forecast).sort("p_value", pl.col("z").abs(), descending=[False, True])
        if own.is_empty():
            continue
        worst, name = own.row(0, named=True), forecast.capitalize()
        p, n = worst["p_together"], max(own["n_races"])
        size = "" if worst["z"] is None else f", |z| {abs(worst['z']):.1f}"
        agreement = "agree with" if p > ERROR_RATE else "contradict"
        text = (
            f"{name}: the results {agreement} joint events together, p = {p:.3f} (smallest p-value: "
            f"{worst['event']}{size})."
        )
        met = 0.0 if p > ERROR_RATE else 1.0
        lines.append(
            Evidence(forecast, "p of joint events", "", text, p, n_races=n, p_inside=met, p_outside=p)
        )
        lines.append(_dependence_evidence(forecast, own, n))
        if worst["gain_together"] is not None and worst["gain_together_lower"] is not None:
            gain, lower, upper = (worst[f"gain_together{end}"] for end in ("", "_lower", "_upper"))
            text = f"{name}: {JOINT_EVENTS}, gain is {gain:.3f} [{lower:.3f}, {upper:.3f}] over {n} races."
            lines.append(Evidence(forecast, "gain", "", text, gain, lower, upper, n))
    return lines


def _dependence_evidence(forecast: str, events: pl.DataFrame, n_races: int) -> Evidence:
    """Return the test of independent cars: the smallest p-value over informative events, Bonferroni."""
    name = f"{forecast.capitalize()}: dependence between cars"
    keys = (forecast, "p of independent cars", "")
    informative = events.filter(pl.col("about_dependence") & (pl.col("power_independent") >= LEAST_POWER))
    if informative.is_empty():
        return Evidence(*keys, f"{name} cannot show in any joint event yet.", n_races=n_races)
    best = informative.sort("p_independent").row(0, named=True)
    p = min(1.0, best["p_independent"] * informative.height)
    shows = "shows in the results" if p <= ALPHA else "does not show in the results yet"
    text = f"{name} {shows}: independent cars have p = {p:.3f} (smallest p-value: {best['event']})."
    return Evidence(*keys, text, p, n_races=best["n_races"], p_inside=p)


def _races_needed(cells: Sequence[tuple[float, Sequence[Evidence]]], level: float) -> int | None:
    """Return the least number of further races, if a test statistic grows as the root of the races."""
    found = []
    for p, lines in cells:
        n, now = max(line.n_races for line in lines), -float(ndtri(p))
        if now > 0:
            more = n * (float(ndtri(level)) / now) ** 2 - n
            if more <= LARGEST_EXTRAPOLATION * n:
                found.append(max(1, math.ceil(more)))
    return min(found, default=None)


def _ordered(lines: Sequence[Evidence], ruling: Ruling) -> list[Evidence]:
    """Return the lines, those that decide the ruling first."""
    deciding = "raw" if ruling == "trust" else "recalibrated"

    def key(line: Evidence) -> tuple[bool, bool, float]:
        strength = line.p_outside if ruling == "do not trust" else -line.p_inside
        return line.quantity == "gain", line.forecast != deciding, strength

    return sorted(lines, key=key)


def _effect(lines: Sequence[Evidence]) -> Effect | None:
    gain = next((line for line in lines if line.quantity == "gain"), None)
    if gain is None or gain.lower is None or gain.upper is None:
        return None
    return "helps" if gain.lower > 0 else "costs" if gain.upper < 0 else "no difference"


def _summary(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the summary of a row over the markets that can be judged."""
    by_ruling: dict[Ruling, list[str]] = {}
    for verdict in verdicts:
        by_ruling.setdefault(verdict.verdict, []).append(verdict.market)
    rulings = set(by_ruling)
    ruling: Ruling = "cannot tell yet"
    if "do not trust" in rulings:
        ruling = "do not trust"
    elif rulings == {"trust"}:
        ruling = "trust"
    elif rulings and rulings <= {"trust", "trust after recalibration"}:
        ruling = "trust after recalibration"
    first = sorted(by_ruling, key=lambda found: found != ruling)
    texts = [f"{found.capitalize()}: {', '.join(by_ruling[found])}." for found in first]
    for effect in ("helps", "costs"):
        markets = [verdict.market for verdict in verdicts if verdict.recalibration == effect]
        if markets:
            texts.append(f"Recalibration {effect}: {', '.join(markets)}.")
    return Verdict(
        ALL_MARKETS, ruling, None, [_note(text) for text in texts or ["No market can be judged yet."]]
    )
