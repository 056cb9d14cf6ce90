"""Rates of false and true alarms of sequential monitoring.

    python -m benchmarks.monitoring_errors --replications 1000

Histories of 200 races, in seasons of 10, are drawn from known laws (`simulated_races`). The library ranks
each result among the scenarios of its race. The first table has calibrated forecasts: alarms of one
e-process, of any process, and of the means over markets and archetypes. The second table has forecasts that
are wrong.
"""

import argparse
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.result_files import markdown_table
from benchmarks.simulated_races import LAWS, Law, draw_fields, draw_races
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.events.counts import Race
from calibration_pipeline.markets import RACE_MARKETS
from calibration_pipeline.stats.e_processes import log_e_process, log_mean
from calibration_pipeline.verification.monitoring import ALARM, race_ranks

N_TEMPLATES, N_RESULTS, N_SCENARIOS = 40, 100, 500
"""Races of a law, results of each race, and scenarios of each forecast."""
N_RACES, RACES_A_SEASON = 200, 10
SEASONS = np.arange(N_RACES) // RACES_A_SEASON
ONE_BLOCK = np.zeros(N_RACES)
LOG_ALARM = np.log(ALARM)
WRONG: Mapping[str, tuple[str, dict[str, float]]] = {
    "over-confident, slope 0.6": ("short track", {"sharpness": 1.6}),
    "over-confident, slope 0.8": ("short track", {"sharpness": 1.25}),
    "under-confident, slope 1.6": ("short track", {"sharpness": 0.6}),
    "too few incidents, odds ÷ 1.6": ("superspeedway", {"incident": -1.7}),
    "cars retire independently": ("superspeedway", {"together": False}),
}
"""Forecast to the law of the results and the parameters that the forecast changes."""


def draw_ranks(rng: np.random.Generator, law: Law, **changes: float) -> NDArray[np.float64]:
    """Return the ranks of results of `law` among the scenarios of the law with `changes`.

    Returns
    -------
    ndarray
        (template, result, market).
    """
    fields = draw_fields(rng, law, N_TEMPLATES)
    truths = draw_races(rng, law, fields, N_RESULTS)
    forecasts = draw_races(rng, law, fields, N_SCENARIOS, **changes)
    ranks = np.empty((N_TEMPLATES, N_RESULTS, len(RACE_MARKETS)))
    for template, (field, truth, forecast) in enumerate(zip(fields, truths, forecasts, strict=True)):
        favourites = forecast.favourite_rank
        scenarios, results = forecast.outcomes(field, favourites), truth.outcomes(field, favourites)
        for k in range(N_RESULTS):
            result = type(results)(results.finish_position[k], favourites, results.running[k])  # type: ignore[index]
            ranks[template, k] = list(race_ranks(Race(scenarios, result), rng).values())
    return ranks


def draw_histories(
    rng: np.random.Generator, ranks: NDArray[np.float64], n_histories: int
) -> dict[str, NDArray[np.float64]]:
    """Return log e-values of histories by span, 'season' or 'start': (history, market, race)."""
    shape = (n_histories, N_RACES)
    drawn = ranks[rng.integers(len(ranks), size=shape), rng.integers(ranks.shape[1], size=shape)]
    return {
        span: np.stack([log_e_process(drawn[..., m], restart) for m in range(len(RACE_MARKETS))], axis=1)
        for span, restart in (("season", SEASONS), ("start", ONE_BLOCK))
    }


def pool_report(log_e: NDArray[np.float64], restart: NDArray) -> NDArray[np.float64]:
    """Return the mean over four archetypes after each race: (report, archetype, race) to (report, race).

    The archetypes race in turn. An archetype that has not raced yet keeps its e-value of the race before.
    """
    before = np.concatenate([np.zeros_like(log_e[..., :1]), log_e[..., :-1]], axis=-1)
    before[..., np.flatnonzero(np.diff(restart, prepend=-1))] = 0.0
    turn = np.arange(len(ARCHETYPES))[:, None]
    in_turn = [log_mean(np.where(turn <= last, log_e, before), axis=1) for last in range(len(ARCHETYPES))]
    return np.stack(in_turn, axis=-1).reshape(len(log_e), -1)


def alarm_share(log_e: NDArray[np.float64], span: str) -> float:
    """Return the share of seasons, or of whole histories, that reach an alarm; races are the last axis."""
    n_seasons = SEASONS[-1] + 1 if span == "season" else 1
    return float(
        (log_e.reshape(-1, n_seasons, log_e.shape[-1] // n_seasons).max(axis=-1) >= LOG_ALARM).mean()
    )


def false_alarms(by_law: Mapping[str, dict[str, NDArray[np.float64]]]) -> list[dict[str, str]]:
    """Return the rows of the first table: shares of seasons and of histories with an alarm."""
    together = {
        span: np.concatenate([log_e[span] for log_e in by_law.values()]) for span in ("season", "start")
    }
    rows: dict[str, dict[str, float]] = {}
    for span, log_e in together.items():
        restart = SEASONS if span == "season" else ONE_BLOCK
        rng = np.random.default_rng(2)
        reports = rng.permutation(len(log_e))[: len(log_e) // 4 * 4].reshape(-1, len(ARCHETYPES))
        of_archetypes = log_mean(log_e, axis=1)
        found = {f"one market: {name}": alarm_share(log_e[:, m], span) for m, name in enumerate(RACE_MARKETS)}
        found["any of the 7 markets of an archetype"] = alarm_share(log_e.max(axis=1), span)
        found["all markets of an archetype (mean)"] = alarm_share(of_archetypes, span)
        found["any of the 28 processes of a report"] = alarm_share(log_e[reports].max(axis=(1, 2)), span)
        found["all archetypes of a report (mean)"] = alarm_share(
            pool_report(of_archetypes[reports], restart), span
        )
        for name, share in found.items():
            rows.setdefault(name, {})[span] = share
    return [
        {
            "alarms of": name,
            "seasons of 10 races": f"{100 * row['season']:.1f} %",
            "200 races since the start": f"{100 * row['start']:.1f} %",
        }
        for name, row in rows.items()
    ]


def true_alarms(name: str, log_e: dict[str, NDArray[np.float64]]) -> dict[str, str]:
    """Return a row of the second table: alarms of a wrong forecast, and its best market."""
    mean = {span: log_mean(values, axis=1) for span, values in log_e.items()}
    single = [alarm_share(log_e["start"][:, m, :36], "start") for m in range(len(RACE_MARKETS))]
    best = int(np.argmax(single))
    return {
        "forecast": name,
        "a season of 10 races": f"{100 * alarm_share(mean['season'], 'season'):.0f} %",
        **{f"{n} races": f"{100 * alarm_share(mean['start'][:, :n], 'start'):.0f} %" for n in (36, 108)},
        "best market alone, 36 races": f"{RACE_MARKETS[best]}: {100 * single[best]:.0f} %",
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replications", type=int, default=1_000, help="histories of each law")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    right = {
        name: draw_histories(rng, draw_ranks(rng, law), options.replications) for name, law in LAWS.items()
    }
    print(markdown_table(false_alarms(right)))
    print()
    n_wrong = options.replications // 4
    print(
        markdown_table(
            [
                true_alarms(name, draw_histories(rng, draw_ranks(rng, LAWS[law], **changes), n_wrong))
                for name, (law, changes) in WRONG.items()
            ]
        )
    )


if __name__ == "__main__":
    main()
