"""Coverage of the 95 % intervals, and the ratio of their standard errors to those of independent cars.

    python -m benchmarks.intervals --replications 1000

The library's functions compute every interval of the metric table and of the joint events on histories of 5,
16, 36 and 108 races of a known law (`simulated_races`). The true value is the same estimate over all races
and results from which histories are drawn.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.simulated_races import EVENTS, LAWS, Field, Law, Scenarios, draw_fields, draw_races
from calibration_pipeline.markets import TOP_EVENTS
from calibration_pipeline.metrics import DEFAULT_LEVELS
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.stats.intervals import (
    Estimate,
    clustered_mean,
    clustered_ratio,
    clustered_share,
)
from calibration_pipeline.verification.scores import (
    coverage_probability,
    discrete_crps,
    discrete_log_score,
)
from calibration_pipeline.verification.verdicts.slopes import head_to_head_slope

RACES = (5, 16, 36, 108)
N_SCENARIOS, N_RESULTS = 1000, 300
OVERCONFIDENT = 1.4
"""Factor on the log strengths of the raw forecast; the recalibrated forecast has the true law."""


@dataclass(frozen=True)
class Template:
    """Scores of one race under many results.

    Attributes
    ----------
    cars : mapping of str to (result, car), scores
    pairs : mapping of str to (pair,), head-to-head probabilities by forecast
    won : (result, pair), whether the first car of the pair beat the second
    counts : (result, event), cases in which the event happened
    cases : (event,), number of cases
    """

    cars: dict[str, NDArray[np.float64]]
    pairs: dict[str, NDArray[np.float64]]
    won: NDArray[np.bool_]
    counts: NDArray[np.float64]
    cases: NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """Cases of a history: scores (car,), pairs (pair,), counts of events (race, event), and their races."""

    cars: dict[str, NDArray[np.float64]]
    race: NDArray[np.int64]
    pairs: dict[str, NDArray[np.float64]]
    won: NDArray[np.bool_]
    pair_race: NDArray[np.int64]
    counts: NDArray[np.float64]
    cases: NDArray[np.float64]


def make_template(field: Field, raw: Scenarios, truth: Scenarios) -> Template:
    """Score two forecasts of a race under the first `N_RESULTS` scenarios of the true law."""
    n_cars = field.utility.size
    position = truth.finish[:N_RESULTS]
    cars: dict[str, NDArray[np.float64]] = {}
    pairs = {}
    first, second = np.triu_indices(n_cars, k=1)
    for name, scenarios in (("raw", raw), ("recalibrated", truth)):
        probability = finish_probabilities(scenarios.finish[None], np.array([n_cars]))[0]
        cars |= {f"{name} {score}": values for score, values in _car_scores(probability, position).items()}
        pairs[name] = head_to_head(scenarios.finish[None], np.array([n_cars]))[0, first, second]
    uniform = np.full((n_cars, n_cars), 1 / n_cars)
    cars |= {f"climatology {score}": values for score, values in _car_scores(uniform, position).items()}
    won = position[:, first] < position[:, second]
    outcomes = Scenarios(position, truth.running[:N_RESULTS]).outcomes(field, raw.favourite_rank)
    happened = [event.evaluate(outcomes) for event in EVENTS]
    return Template(
        cars=cars,
        pairs=pairs,
        won=won,
        counts=np.stack([h.sum(axis=1) for h in happened], axis=1).astype(float),
        cases=np.array([h.shape[1] for h in happened], float),
    )


def _car_scores(probability: NDArray, position: NDArray) -> dict[str, NDArray[np.float64]]:
    """Return the scores of every car, (result, car), from the scores of each position."""
    n_cars = len(probability)
    rows = np.broadcast_to(probability[:, None], (n_cars, n_cars, n_cars))
    places = np.broadcast_to(np.arange(1, n_cars + 1), (n_cars, n_cars))
    tables = {"CRPS": discrete_crps(rows, places), "log score": discrete_log_score(rows, places)}
    for level in DEFAULT_LEVELS:
        tables[f"coverage {100 * level:.0f} %"] = coverage_probability(rows, places, level)
    for event, last in TOP_EVENTS.items():
        tables[f"Brier {event}"] = (probability[:, :last].sum(axis=1, keepdims=True) - (places <= last)) ** 2
    car = np.arange(n_cars)
    return {name: table[car, position - 1] for name, table in tables.items()}


def history(templates: Sequence[Template], chosen: NDArray, result: NDArray) -> History:
    """Return the history in which race `r` is template `chosen[r]` with result `result[r]`."""
    drawn = [templates[t] for t in chosen]
    n_cars = [t.cars["raw CRPS"].shape[1] for t in drawn]
    race = np.arange(len(drawn))
    return History(
        cars={
            name: np.concatenate([t.cars[name][k] for t, k in zip(drawn, result, strict=True)])
            for name in drawn[0].cars
        },
        race=np.repeat(race, n_cars),
        pairs={name: np.concatenate([t.pairs[name] for t in drawn]) for name in drawn[0].pairs},
        won=np.concatenate([t.won[k] for t, k in zip(drawn, result, strict=True)]),
        pair_race=np.repeat(race, [t.won.shape[1] for t in drawn]),
        counts=np.stack([t.counts[k] for t, k in zip(drawn, result, strict=True)]),
        cases=np.stack([t.cases for t in drawn]),
    )


def estimates(h: History) -> dict[str, Estimate | None]:
    """Return the estimate of every score of a history, with its interval."""
    found: dict[str, Estimate | None] = {}
    for name in h.cars:
        forecast, score = name.split(" ", 1)
        if forecast == "recalibrated":
            found[score] = clustered_mean(h.cars[name], h.race)
    for reference in ("climatology", "raw"):
        gain = h.cars["recalibrated log score"] - h.cars[f"{reference} log score"]
        found[f"log gain over {reference}"] = clustered_mean(gain, h.race)
        for score in ("CRPS", *(f"Brier {event}" for event in TOP_EVENTS)):
            worse, better = h.cars[f"{reference} {score}"], h.cars[f"recalibrated {score}"]
            found[f"{score} skill over {reference}"] = clustered_ratio(worse - better, worse, h.race)
    # (p - won)^2 in a form that is linear in the result
    brier = {name: p**2 + h.won * (1 - 2 * p) for name, p in h.pairs.items()}
    better, worse = brier["recalibrated"], brier["raw"]
    found["Brier head to head"] = clustered_mean(better, h.pair_race)
    found["Brier head to head skill over raw"] = clustered_ratio(worse - better, worse, h.pair_race)
    found["head-to-head slope"] = head_to_head_slope(h.pairs["recalibrated"], h.won, h.pair_race)
    found["head-to-head slope of raw"] = head_to_head_slope(h.pairs["raw"], h.won, h.pair_race)
    for e, event in enumerate(EVENTS):
        found[f"share of {event}"] = clustered_share(h.counts[:, e], h.cases[:, e])
    return found


def average(template: Template) -> Template:
    """Return the template with the mean of all results as its only result; estimates are linear in cases."""
    return replace(
        template,
        cars={name: values.mean(axis=0, keepdims=True) for name, values in template.cars.items()},
        won=template.won.mean(axis=0, keepdims=True),
        counts=template.counts.mean(axis=0, keepdims=True),
    )


def simulate(
    law: Law, races: Sequence[int], n_replications: int, seed: int = 1, n_templates: int = 150
) -> pl.DataFrame:
    """Return the coverage of the interval for each number of races and score.

    Columns: n_races, score, covered (share of intervals that contain the true value), below and above (shares
    of intervals wholly below and above it), with_interval (share of histories with an interval), error_ratio
    (median of the race-clustered standard error over the naive one).
    """
    rng = np.random.default_rng(seed)
    fields = draw_fields(rng, law, n_templates)
    actual = draw_races(rng, law, fields, N_SCENARIOS)
    raw = draw_races(rng, law, fields, N_SCENARIOS, sharpness=OVERCONFIDENT)
    templates = [make_template(*race) for race in zip(fields, raw, actual, strict=True)]
    everything = history([average(t) for t in templates], np.arange(n_templates), np.zeros(n_templates, int))
    true = {score: estimate.estimate for score, estimate in estimates(everything).items() if estimate}
    rows: list[dict[str, object]] = []
    for n_races in races:
        for _ in range(n_replications):
            chosen, result = rng.integers(n_templates, size=n_races), rng.integers(N_RESULTS, size=n_races)
            for score, estimate in estimates(history(templates, chosen, result)).items():
                rows.append({"n_races": n_races, "score": score, **_held(estimate, true[score])})
    found = pl.DataFrame(rows, schema_overrides={"error_ratio": pl.Float64}, infer_schema_length=None)
    return found.group_by("n_races", "score", maintain_order=True).agg(
        (1 - pl.col("below").mean() - pl.col("above").mean()).alias("covered"),
        pl.col("below", "above", "with_interval").mean(),
        pl.col("error_ratio").median(),
    )


def _held(estimate: Estimate | None, true: float) -> dict[str, object]:
    if estimate is None or estimate.lower is None or estimate.upper is None:
        return {"with_interval": False, "below": None, "above": None, "error_ratio": None}
    sides = {"below": estimate.upper < true, "above": estimate.lower > true}
    return {"with_interval": True, **sides, "error_ratio": estimate.error_ratio}


def markdown(found: pl.DataFrame) -> list[str]:
    """Return a table: coverage by number of races, and the ratio of standard errors at the largest number."""
    races = found["n_races"].unique().sort().to_list()
    head = " | ".join(f"{n} races" for n in races)
    lines = [f"| score | {head} | clustered ÷ naive error |", "|---|" + "---|" * (len(races) + 1)]
    for (score,), rows in found.group_by("score", maintain_order=True):
        covered = " | ".join(f"{value:.1%}" for value in rows.sort("n_races")["covered"])
        ratio = rows.sort("n_races")["error_ratio"][-1]
        shown = f"`{score[9:]}`, share" if score.startswith("share of ") else score
        lines.append(f"| {shown} | {covered} | {'' if ratio is None else f'{ratio:.2f}'} |")
    return lines


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replications", type=int, default=1000, help="histories a number of races, 1000")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    lines = []
    for name, law in LAWS.items():
        lines += [f"### Races as on a {name}", "", *markdown(simulate(law, RACES, options.replications)), ""]
        print("\n".join(lines), flush=True)
    if options.output:
        options.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
