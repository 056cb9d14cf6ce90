"""Leaderboard: forecasters in the order of their gain over the network, with ties, verdicts and e-values.

Forecasters cover different races, so their mean scores are not compared. Each comparison is paired: the
difference of scores on the races of both, with the race as the unit. Raw forecasts are compared with raw
ones, recalibrated forecasts with recalibrated ones.
"""

import math
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES, parse_archetype
from calibration_pipeline.comparison.race_probabilities import CLIMATOLOGY
from calibration_pipeline.comparison.sequential import log_e_better
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, COMPARED_MARKETS, Leaderboard
from calibration_pipeline.stats.intervals import Estimate, clustered_mean, tail_probability
from calibration_pipeline.verification.cases import JUDGED, table
from calibration_pipeline.verification.verdicts.rules import ERROR_RATE, reject_by_holm

FEWEST_SHARED = 12
"""Least number of races of both forecasters for a comparison that ranks them."""

Pair = frozenset[str]


@dataclass(frozen=True)
class Scores:
    """Scores of a forecaster in one market, races in the order of time, (race,) each."""

    race_id: NDArray[np.int64]
    score: NDArray[np.float64]
    largest_gain: NDArray[np.float64]
    largest_loss: NDArray[np.float64]


class Gain(NamedTuple):
    """Gain of the first forecaster over the second on the races of both: estimate and two-sided p-value."""

    first: str
    second: str
    estimate: Estimate | None
    p_value: float

    @property
    def n_shared(self) -> int:
        """Races of both."""
        return 0 if self.estimate is None else self.estimate.n_races


def rank_forecasters(scores: pl.DataFrame) -> pl.DataFrame:
    """Compare all forecasters by archetype, over all archetypes, and by market and forecast.

    Parameters
    ----------
    scores : polars.DataFrame
        `MarketScores` of all forecasters, the network and `CLIMATOLOGY` included, as
        `market_scores.score_markets` returns them.

    Returns
    -------
    polars.DataFrame
        `Leaderboard`. Forecasters are in the order of their mean gain over the network on the races of both;
        those that share fewer than `FEWEST_SHARED` races with it follow without a rank.

    Raises
    ------
    ValueError
        If a race of both has no bounds of the difference to the network.

    Notes
    -----
    Two forecasters differ if the paired interval of their difference (`intervals.clustered_mean`) lies on one
    side of 0 after Holm's correction for all pairs of the market with `FEWEST_SHARED` races: within a market,
    archetype and forecast, the probability of any wrong difference is at most 5 %. Letters and verdicts
    follow from the same tests. The intervals shown have 95 % each, without the correction.

    The test is made for one look at the races so far. The e-values hold however often one looks.

    References
    ----------
    Holm (1979), Scandinavian Journal of Statistics 6(2); letters: `compact_letters`; e-values: `sequential`.
    """
    rows: list[dict[str, object]] = []
    for archetype in (*ARCHETYPES, ALL_ARCHETYPES):
        chosen = scores if archetype == ALL_ARCHETYPES else scores.filter(archetype=archetype)
        of_market = chosen.sort("race_order").partition_by("market", "forecast", as_dict=True)
        for market in COMPARED_MARKETS:
            for forecast in JUDGED:
                if (own := of_market.get((market, forecast))) is not None:
                    keys = {"archetype": str(archetype), "market": market, "forecast": forecast}
                    rows += [keys | row for row in _rank(_by_forecaster(own))]
    return table(rows, Leaderboard)


def order_forecasters(leaderboard: pl.DataFrame) -> list[str]:
    """Return the forecasters of several markets in the order of their mean ranks, those without one last.

    Parameters
    ----------
    leaderboard : polars.DataFrame
        `Leaderboard`.
    """
    means = leaderboard.group_by("forecaster", maintain_order=True).agg(pl.col("rank").mean())
    return means.sort("rank", nulls_last=True, maintain_order=True)["forecaster"].to_list()


def archetype_label(name: str) -> str:
    """Return the name of an archetype, or of all of them, for display.

    Examples
    --------
    >>> archetype_label("short_track"), archetype_label(ALL_ARCHETYPES)
    ('Short track', 'All archetypes')
    """
    return "All archetypes" if name == ALL_ARCHETYPES else parse_archetype(name).label


def compact_letters(order: Sequence[str], differ: Collection[Pair]) -> dict[str, str]:
    """Return a compact letter display: two names share a letter if and only if they do not differ.

    Parameters
    ----------
    order : sequence of str
        All names; letters are given in this order.
    differ : collection of frozenset of str
        The pairs that differ.

    Returns
    -------
    dict
        Name to its letters; a letter after z has an apostrophe.

    References
    ----------
    Piepho (2004), An algorithm for a letter-based representation of all-pairwise comparisons,
    doi:10.1198/1061860043515: insertion of each pair that differs, and absorption of redundant columns.

    Examples
    --------
    >>> compact_letters(["A", "B", "C"], {frozenset("BC")})
    {'A': 'ab', 'B': 'a', 'C': 'b'}
    """
    columns: list[frozenset[str]] = [frozenset(order)]
    for first, second in combinations(order, 2):
        if frozenset((first, second)) not in differ:
            continue
        parts = [column for column in columns if not {first, second} <= column]
        parts += [column - {name} for column in columns for name in (first, second) if column not in parts]
        parts = list(dict.fromkeys(parts))
        columns = [part for part in parts if not any(part < other for other in parts)]
    places = {name: place for place, name in enumerate(order)}
    columns.sort(key=lambda column: sorted(places[name] for name in column))
    letters = [string.ascii_lowercase[k % 26] + "'" * (k // 26) for k in range(len(columns))]
    return {
        name: "".join(letter for letter, column in zip(letters, columns, strict=True) if name in column)
        for name in order
    }


def paired_gain(first: str, second: str, scores: dict[str, Scores]) -> Gain:
    """Return the mean gain of a forecaster over another on the races of both: above 0 it is better.

    Parameters
    ----------
    first, second : str
    scores : dict of str to Scores
        By forecaster, of one market.
    """
    race, own, other = np.intersect1d(
        scores[first].race_id, scores[second].race_id, assume_unique=True, return_indices=True
    )
    if not race.size:
        return Gain(first, second, None, 1.0)
    estimate = clustered_mean(scores[second].score[other] - scores[first].score[own], race)
    return Gain(first, second, estimate, _p_value(estimate))


def _p_value(gain: Estimate) -> float:
    """Return the two-sided p-value of no difference, 0.05 where the interval ends at 0."""
    if gain.lower is None or gain.upper is None or gain.estimate == 0:
        return 1.0
    half_width = gain.estimate - gain.lower if gain.estimate > 0 else gain.upper - gain.estimate
    return min(1.0, 2 * tail_probability(abs(gain.estimate), half_width, gain.n_races))


def _by_forecaster(scores: pl.DataFrame) -> dict[str, Scores]:
    """Return the rows of one market and forecast by forecaster, the network first."""
    parts = scores.partition_by("forecaster", as_dict=True, maintain_order=True)
    names = sorted((str(name) for (name,) in parts), key=lambda name: (name != NETWORK, name))
    columns = ("race_id", "score", "largest_gain", "largest_loss")
    return {name: Scores(*(parts[name,][column].to_numpy() for column in columns)) for name in names}


def _rank(scores: dict[str, Scores]) -> list[dict[str, object]]:
    """Return the rows of one archetype, market and forecast, the best forecaster first."""
    pairs = {
        frozenset((first, second)): paired_gain(first, second, scores)
        for first, second in combinations(scores, 2)
    }
    tested = {pair: gain.p_value for pair, gain in pairs.items() if gain.n_shared >= FEWEST_SHARED}
    differ, _ = reject_by_holm(tested, ERROR_RATE)
    over_network = {name: _oriented(pairs, scores, name, NETWORK) for name in scores}
    ranked = sorted(
        (name for name, gain in over_network.items() if gain.n_shared >= FEWEST_SHARED),
        key=lambda name: (-_estimate(over_network[name]), name != NETWORK, name),
    )
    letters = compact_letters(ranked, differ)
    rows: list[dict[str, object]] = []
    for name in [*ranked, *(name for name in scores if name not in letters)]:
        mean, network = clustered_mean(scores[name].score, scores[name].race_id), over_network[name]
        others = (other for other in ranked if other != name and frozenset((name, other)) not in tested)
        rows.append(
            {
                "forecaster": name,
                "rank": ranked.index(name) + 1 if name in letters else None,
                "ties": letters.get(name),
                "n_races": mean.n_races,
                **_interval("score", mean),
                "n_shared": network.n_shared,
                **_interval("gain_over_network", network.estimate),
                **_interval("gain_over_climatology", _oriented(pairs, scores, name, CLIMATOLOGY).estimate),
                **_evidence(scores, name),
                "verdict": _verdict(name, network, frozenset((name, NETWORK)) in differ),
                "not_compared": ", ".join(others),
            }
        )
    return rows


def _oriented(pairs: dict[Pair, Gain], scores: dict[str, Scores], name: str, reference: str) -> Gain:
    """Return the gain of `name` over `reference`; over itself it is 0."""
    if name == reference:
        n = scores[name].race_id.size
        return Gain(name, name, Estimate(0.0, 0.0, 0.0, n, n), 1.0)
    found = pairs.get(frozenset((name, reference)))
    if found is None:
        return Gain(name, reference, None, 1.0)
    return found if found.first == name else paired_gain(name, reference, scores)


def _estimate(gain: Gain) -> float:
    return -math.inf if gain.estimate is None else gain.estimate.estimate


def _interval(quantity: str, estimate: Estimate | None) -> dict[str, float | None]:
    """Return the columns of an estimate and its interval."""
    if estimate is None:
        return dict.fromkeys((quantity, f"{quantity}_lower", f"{quantity}_upper"))
    return {
        quantity: estimate.estimate,
        f"{quantity}_lower": estimate.lower,
        f"{quantity}_upper": estimate.upper,
    }


def _evidence(scores: dict[str, Scores], name: str) -> dict[str, float | None]:
    """Return both e-values against the network, now and at their largest, as powers of ten."""
    sides = ("log10_e_better", "log10_e_worse")
    missing = dict.fromkeys(column for side in sides for column in (side, f"{side}_max"))
    if NETWORK not in scores:
        return missing
    own, network = scores[name], scores[NETWORK]
    here = np.isin(own.race_id, network.race_id, assume_unique=True)
    if not here.any():
        return missing
    if np.isnan(own.largest_loss[here]).any():
        raise ValueError(
            f"Argument scores must have largest_gain and largest_loss where the network has the race; "
            f"{name} lacks them: score it with the network's forecasts."
        )
    known = dict(zip(network.race_id.tolist(), network.score.tolist(), strict=True))
    gain = np.array([known[race] for race in own.race_id[here].tolist()]) - own.score[here]
    paths = (log_e_better(gain, own.largest_loss[here]), log_e_better(-gain, own.largest_gain[here]))
    columns: dict[str, float | None] = {}
    for side, path in zip(sides, paths, strict=True):
        columns |= {side: path[-1] / math.log(10), f"{side}_max": path.max() / math.log(10)}
    return columns


def _verdict(name: str, network: Gain, differs: bool) -> str:
    """Return the verdict against the network; a gain below 0 is worse."""
    if name == NETWORK:
        return "reference"
    if network.n_shared < FEWEST_SHARED:
        return "too few races"
    if not differs:
        return "no difference shown"
    return "better than network" if _estimate(network) > 0 else "worse than network"
