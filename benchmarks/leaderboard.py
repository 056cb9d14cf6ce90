r"""Order of the leaderboard, and the gain of the blend, where the truth is known.

    python -m benchmarks.leaderboard --seeds 50

Each seed draws three seasons of 36 races by a reverse Plackett-Luce law (`stats.plackett_luce`). The
forecasters have the faults of `examples.forecasters`. Their probabilities are exact, without the error of a
finite number of scenarios:

| forecaster | form | fault |
|---|---|---|
| right | scenarios | none |
| network | scenarios | knows each car's log-strength with an error |
| overconfident | scenarios | luck is 0.6 of the right one |
| flat | position probabilities | logits of the right probabilities times 0.6, shifted to sum to 1 |
| bookmaker | win, top 5, top 10 | logits of the right probabilities times 0.8, shifted likewise |

The true difference of two forecasters is the difference of their expected scores given the true
probabilities, the mean over all seeds. The standard error of a seed's difference is the root mean square of
(difference of scores - difference of expected scores) over the seeds. A pair whose true difference exceeds
`DECISIVE` standard errors is decisive: the leaderboard must have it in the true order.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit

from benchmarks.result_files import output_parser, write_results
from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.comparison.leaderboard import Scores, paired_gain, rank_forecasters
from calibration_pipeline.comparison.market_scores import market_losses, score_markets
from calibration_pipeline.comparison.pool_weights import BLEND, pool_cases, walk_forward_weights
from calibration_pipeline.comparison.race_probabilities import (
    Forecasts,
    RaceProbabilities,
    top_probabilities,
)
from calibration_pipeline.event_map.predictive import renormalise
from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.markets import FINISH, HEAD_TO_HEAD, TOP_EVENTS
from calibration_pipeline.schemas.comparison import ALL_ARCHETYPES, COMPARED_MARKETS
from examples.forecasters import FLATNESS, FLOOR, LONGSHOT_BIAS, LUCK_KEPT

N_CARS, N_SEASONS, FIRST_SEASON = 36, 3, 2021
CALENDAR = {
    Archetype.SUPERSPEEDWAY: 7,
    Archetype.INTERMEDIATE: 12,
    Archetype.SHORT_TRACK: 10,
    Archetype.ROAD_COURSE: 7,
}
"""Races of a season."""
SHARPNESS = {
    Archetype.SUPERSPEEDWAY: 0.4,
    Archetype.INTERMEDIATE: 1.0,
    Archetype.SHORT_TRACK: 1.2,
    Archetype.ROAD_COURSE: 1.0,
}
"""Factor on log-strengths."""
DAY_SD, NETWORK_ERROR_SD = 0.5, 0.5
"""Standard deviations of the effect of the day, and of the network's error; those of skill are 1."""
RIGHT, OVERCONFIDENT, FLAT, BOOKMAKER = "right", "overconfident", "flat", "bookmaker"
DECISIVE = 2.0
STEP, TAIL, HEAD = 0.2, 21.0, 4.0
"""Distance of the quadrature's nodes, and their range below the slowest and above the fastest car."""
BLOCK = 8
"""Races that are integrated together."""
MARKET_KEYS = ("archetype", "market")
RANKED = ("forecaster", "rank", "ties", "score", "gain_over_network", "gain_over_network_upper")


def exact_finishes(log_strength: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Return P(finish = position) of the reverse Plackett-Luce law.

    A car with :math:`u_i - G_i = x` is behind each other car independently, with probability
    :math:`S_j(x) = e^{-e^{x - u_j}}`. The generating function of the number of cars ahead,
    :math:`\prod_{j \ne i} [1 + S_j(x) (z - 1)]`, is integrated over x at roots of unity z by the trapezoid
    rule, and inverted by the discrete Fourier transform (Hong 2013, doi:10.1016/j.csda.2012.10.006). The
    number of roots is odd, so that no factor is 0.

    Parameters
    ----------
    log_strength : ndarray
        (race, car).

    Returns
    -------
    ndarray
        (race, car, position); rows and columns sum to 1 within 1e-8.
    """
    n_races, n_cars = log_strength.shape
    n_roots = n_cars + 1 - n_cars % 2
    roots = np.exp(2j * np.pi * np.arange(n_roots // 2 + 1) / n_roots)
    nodes = np.arange(log_strength.min() - TAIL, log_strength.max() + HEAD, STEP)
    finish = np.empty((n_races, n_cars, n_cars))
    for start in range(0, n_races, BLOCK):
        above = nodes[:, None] - log_strength[start : start + BLOCK, None, :]  # (race, node, car)
        behind = np.exp(-np.exp(above))
        factor = 1 + behind[..., None] * (roots - 1)
        others = factor.prod(axis=2, keepdims=True) / factor
        mean = ((np.exp(above) * behind * STEP)[..., None] * others).sum(axis=1)
        finish[start : start + BLOCK] = np.fft.irfft(mean.conj(), n=n_roots, axis=-1)[..., :n_cars]
    return np.clip(finish, 0.0, 1.0)


def simulate_history(seed: int) -> tuple[dict[int, RaceProbabilities], dict[str, Forecasts]]:
    """Draw the races of a seed; return the true probabilities by race_id, and the forecasters' forecasts."""
    rng = np.random.default_rng([seed, 11])
    season = [archetype for archetype, number in CALENDAR.items() for _ in range(number)]
    archetypes = [season[k] for _ in range(N_SEASONS) for k in rng.permutation(len(season))]
    sharpness = np.array([SHARPNESS[archetype] for archetype in archetypes])[:, None]
    shape = (len(archetypes), N_CARS)
    strength = sharpness * (rng.normal(size=N_CARS) + DAY_SD * rng.normal(size=shape))
    believed = strength + sharpness * NETWORK_ERROR_SD * rng.normal(size=shape)
    finish = (-(strength - rng.gumbel(size=shape))).argsort(axis=1).argsort(axis=1) + 1
    order = [(FIRST_SEASON + r // len(season), 1 + r % len(season)) for r in range(len(archetypes))]
    drivers = np.array([f"driver {k:02d}" for k in range(N_CARS)])

    def read(probability: NDArray, log_strength: NDArray | None) -> dict[int, RaceProbabilities]:
        races = {}
        for r, (year, number) in enumerate(order):
            race_id = 100 * year + number
            races[race_id] = RaceProbabilities(
                race_id, year, race_id, str(archetypes[r]), drivers, finish[r],
                events=top_probabilities(probability[r]),
                finish=probability[r],
                head_to_head=None if log_strength is None
                else expit(log_strength[r][:, None] - log_strength[r][None, :]),
            )  # fmt: skip
        return races

    right = exact_finishes(strength)
    truth = read(right, strength)
    forecasts: dict[str, dict[int, RaceProbabilities]] = {
        NETWORK: read(exact_finishes(believed), believed),
        RIGHT: truth,
        OVERCONFIDENT: read(exact_finishes(strength / LUCK_KEPT), strength / LUCK_KEPT),
        FLAT: read(_flatten(right, FLATNESS, 1), None),
        BOOKMAKER: {race_id: _as_bookmaker(race) for race_id, race in truth.items()},
    }
    return truth, {name: {"raw": races} for name, races in forecasts.items()}


def _as_bookmaker(race: RaceProbabilities) -> RaceProbabilities:
    """Return a race with biased probabilities of the bookmaker's markets alone."""
    events = {market: _flatten(race.events[market], LONGSHOT_BIAS, top) for market, top in TOP_EVENTS.items()}
    return RaceProbabilities(
        race.race_id, race.season, race.race_order, race.archetype, race.driver_id, race.finish_position,
        events=events,
    )  # fmt: skip


def _flatten(probability: NDArray, factor: float, total: int) -> NDArray[np.float64]:
    """Return probabilities with logits `factor` times as far apart, which sum to `total` on the last axis."""
    log_odds = factor * logit(np.clip(probability, FLOOR, 1 - FLOOR))
    return renormalise(log_odds, np.ones(log_odds.shape, bool), total)


def blend_forecasts(members: Mapping[str, Forecasts]) -> Forecasts:
    """Return the walk-forward blend of raw forecasts: weighted means of the members' probabilities."""
    weights: dict[tuple[int, str], dict[str, float]] = {}
    columns = ("race_id", "market", "forecaster", "weight")
    before_races = walk_forward_weights(pool_cases(members))
    for race_id, market, name, weight in before_races.select(columns).iter_rows():
        weights.setdefault((race_id, market), {})[name] = weight
    blended = {}
    for race_id, race in members[NETWORK]["raw"].items():
        of_race = {name: own["raw"][race_id] for name, own in members.items()}
        events = {
            market: sum(weight * of_race[name].events[market] for name, weight in shares.items())
            for market in race.events
            if (shares := weights[race_id, market])
        }
        shares = weights[race_id, FINISH]
        finish = sum(weight * of_race[name].finish for name, weight in shares.items())
        paired = {name: w for name, w in shares.items() if of_race[name].head_to_head is not None}
        total = sum(paired.values())
        pairs = sum(weight / total * of_race[name].head_to_head for name, weight in paired.items())
        blended[race_id] = RaceProbabilities(
            race_id, race.season, race.race_order, race.archetype, race.driver_id, race.finish_position,
            events=events, finish=finish, head_to_head=pairs,
        )  # fmt: skip
    return {"raw": blended}


def expected_scores(
    forecaster: str, forecasts: Forecasts, truth: Mapping[int, RaceProbabilities]
) -> pl.DataFrame:
    """Return the expected score of each race and market, given the true probabilities."""
    rows = []
    for race_id, race in forecasts["raw"].items():
        chances = _outcome_chances(truth[race_id])
        for market, own in market_losses(race).items():
            score = float((own.losses * chances[market]).sum(axis=1).mean())
            rows.append((forecaster, race_id, race.archetype, market, score))
    columns = ("forecaster", "race_id", "archetype", "market", "expected")
    return pl.DataFrame(rows, schema=columns, orient="row")


def _outcome_chances(race: RaceProbabilities) -> dict[str, NDArray[np.float64]]:
    """Return the true probabilities of the outcomes of a race's cases by market, (case, outcome)."""
    happens = dict(race.events)
    if race.head_to_head is None or race.finish is None:
        raise ValueError(f"The truth must have all markets, got none of pairs in race_id {race.race_id}.")
    happens[HEAD_TO_HEAD] = race.head_to_head[np.triu_indices(race.driver_id.size, k=1)]
    return {market: np.stack([1 - p, p], axis=1) for market, p in happens.items()} | {FINISH: race.finish}


def compare_seed(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rank the forecasters of a seed, and compare the blend with its best member.

    Returns
    -------
    ranked : polars.DataFrame
        seed, archetype, market, the columns `RANKED` of all forecasters and the blend, and expected (score).
    blended : polars.DataFrame
        seed, archetype, market, gain (expected, of the blend over its best member); and whether the blend is
        not worse than the member: in_interval (by the interval of its gain over the network), in_letters (by
        the leaderboard's tests), and paired (by the interval of the difference of both).
    """
    truth, forecasts = simulate_history(seed)
    forecasts[BLEND] = blend_forecasts(forecasts)
    scores = pl.concat(score_markets(name, own, forecasts[NETWORK]) for name, own in forecasts.items())
    expected = pl.concat(expected_scores(name, own, truth) for name, own in forecasts.items())
    means = (
        pl.concat([expected, expected.with_columns(archetype=pl.lit(ALL_ARCHETYPES))])
        .group_by(*MARKET_KEYS, "forecaster")
        .agg(pl.mean("expected"))
    )
    ranked = (
        rank_forecasters(scores)
        .select(pl.lit(seed).alias("seed"), *MARKET_KEYS, *RANKED)
        .join(means, on=[*MARKET_KEYS, "forecaster"], maintain_order="left")
    )
    blended = []
    for (archetype, market), own in ranked.group_by(*MARKET_KEYS, maintain_order=True):
        blend = own.row(by_predicate=pl.col("forecaster") == BLEND, named=True)
        best = own.filter(pl.col("forecaster") != BLEND).sort("expected").row(0, named=True)
        chosen = scores.filter(market=market)
        if archetype != ALL_ARCHETYPES:
            chosen = chosen.filter(archetype=archetype)
        names = BLEND, best["forecaster"]
        pair = {name: _market_scores(chosen.filter(forecaster=name)) for name in names}
        estimate = paired_gain(*names, pair).estimate
        blended.append(
            {
                "seed": seed,
                "archetype": archetype,
                "market": market,
                "gain": best["expected"] - blend["expected"],
                "in_interval": blend["gain_over_network_upper"] >= best["gain_over_network"],
                "in_letters": blend["rank"] < best["rank"] or bool(set(blend["ties"]) & set(best["ties"])),
                "paired": estimate is None or estimate.upper is None or estimate.upper >= 0,
            }
        )
    return ranked, pl.DataFrame(blended)


def _market_scores(scores: pl.DataFrame) -> Scores:
    columns = ("race_id", "score", "largest_gain", "largest_loss")
    return Scores(*(scores[column].to_numpy() for column in columns))


def judge_pairs(ranked: pl.DataFrame) -> pl.DataFrame:
    """Compare the order of each pair of members with the true order, seed by seed.

    Parameters
    ----------
    ranked : polars.DataFrame
        As from `compare_seed`, of all seeds.

    Returns
    -------
    polars.DataFrame
        archetype, market, first and second forecaster, seed, difference (true, over its standard error),
        in_order (whether the leaderboard has the true order) and shown (whether it shows a difference).
    """
    parts = []
    members = ranked.filter(pl.col("forecaster") != BLEND)
    for (archetype, market), own in members.group_by(*MARKET_KEYS, maintain_order=True):
        of_name = own.sort("seed").partition_by("forecaster", as_dict=True)
        for (first,), (second,) in combinations(sorted(of_name), 2):
            one, other = of_name[first,], of_name[second,]
            expected = (other["expected"] - one["expected"]).to_numpy()
            error = np.sqrt(np.mean(((other["score"] - one["score"]).to_numpy() - expected) ** 2))
            true = expected.mean()
            letters = zip(one["ties"], other["ties"], strict=True)
            parts.append(
                one.select(
                    pl.lit(archetype).alias("archetype"), pl.lit(market).alias("market"),
                    pl.lit(first).alias("first"), pl.lit(second).alias("second"), "seed",
                    pl.lit(abs(true) / error).alias("difference"),
                    pl.Series("in_order", (other["rank"] > one["rank"]).to_numpy() == (true > 0)),
                    pl.Series("shown", [not set(a) & set(b) for a, b in letters]),
                )
            )  # fmt: skip
    return pl.concat(parts)


def result_rows(ranked: pl.DataFrame, blended: pl.DataFrame) -> Iterator[dict[str, object]]:
    """Yield a row for each archetype and market: pairs in order, and the blend against its best member."""
    judged = judge_pairs(ranked).partition_by(MARKET_KEYS, as_dict=True)
    blends = blended.partition_by(MARKET_KEYS, as_dict=True)
    for archetype in (ALL_ARCHETYPES, *map(str, ARCHETYPES)):
        for market in COMPARED_MARKETS:
            own, blend = judged[archetype, market], blends[archetype, market]
            decisive = own.filter(pl.col("difference") > DECISIVE)
            by_seed = decisive.group_by("seed").agg(pl.col("in_order").all())
            n_seeds = own["seed"].n_unique()
            yield {
                "races": archetype,
                "market": market,
                "seeds": n_seeds,
                "pairs": own.height // n_seeds,
                "decisive": decisive.height // n_seeds,
                "in_order_percent": _percent(decisive["in_order"]),
                "seeds_in_order_percent": _percent(by_seed["in_order"]),
                "wrong_differences": own.filter("shown", ~pl.col("in_order")).height,
                "blend_gain_thousandths": f"{1000 * blend['gain'].mean():.3f}",
                "blend_in_interval_percent": _percent(blend["in_interval"]),
                "blend_in_letters_percent": _percent(blend["in_letters"]),
                "blend_paired_percent": _percent(blend["paired"]),
            }


def _percent(holds: pl.Series) -> str:
    """Return the share of True in per cent, nothing without a case."""
    return f"{100 * holds.mean():.1f}" if len(holds) else ""


def main() -> None:
    """Run the benchmark."""
    parser = output_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="number of histories, 50")
    options = parser.parse_args()
    started = time.monotonic()
    parts = []
    for seed in range(options.seeds):
        parts.append(compare_seed(seed))
        print(f"seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    ranked, blended = (pl.concat(frames) for frames in zip(*parts, strict=True))
    write_results("leaderboard", list(result_rows(ranked, blended)), options.output)


if __name__ == "__main__":
    main()
