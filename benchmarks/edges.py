"""What each edge of the causal network is worth: cut it, fit again, and compare on held-out seasons.

    python -m benchmarks.edges --results cup_results.parquet --seasons 2016-2020

The difference of the full network and the one without the edge, in log score of the finishes (nats a car) and
of the default joint events (nats a race); larger is better. With race-clustered 95 % intervals.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from benchmarks.evaluation import by_archetype, flatten, load_races, walk_forward
from calibration_pipeline.scenarios.structure import EDGES, FULL, Structure
from calibration_pipeline.verification.intervals import Estimate, clustered_mean
from calibration_pipeline.verification.joint_events import DEFAULT_EVENTS, count_events
from calibration_pipeline.verification.scores import discrete_log_score


def joint_log_score(ensembles: Sequence[xr.Dataset], results: pl.DataFrame) -> NDArray[np.float64]:
    """Log probability of the observed number of cases of each event, summed over events: (race)."""
    scores = []
    for ensemble in by_archetype(ensembles).values():
        counts = count_events(ensemble, results, DEFAULT_EVENTS)
        hits = (counts.predicted == counts.observed[:, None, :]).sum(axis=1)
        n_values = counts.cases + 1
        probability = (hits + 0.5) / (counts.predicted.shape[1] + n_values / 2)
        scores.append(np.log(probability).sum(axis=1))
    return np.concatenate(scores)


def car_log_score(ensembles: Sequence[xr.Dataset], results: pl.DataFrame) -> tuple[NDArray, NDArray]:
    """Log probability of each finish and the race it belongs to: (car), (car)."""
    forecasts = flatten(ensembles, results)["scenarios"]
    return discrete_log_score(forecasts.probability, forecasts.position), forecasts.race


def shown(estimate: Estimate) -> str:
    """An estimate with its interval."""
    return f"{estimate.estimate:+.4f} [{estimate.lower:+.4f}, {estimate.upper:+.4f}]"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", required=True, help="table of results, .parquet or .csv")
    parser.add_argument("--seasons", default="2016-2020", help="first and last season evaluated, 2016-2020")
    parser.add_argument("--scenarios", type=int, default=4000, help="scenarios per race, 4000")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    first, last = (int(year) for year in options.seasons.split("-"))
    features, results = load_races(options.results, last)

    def scores(structure: Structure) -> tuple[NDArray, NDArray, NDArray]:
        drawn = walk_forward(features, results, range(first, last + 1), options.scenarios, structure)
        ensembles = list(drawn)
        return *car_log_score(ensembles, results), joint_log_score(ensembles, results)

    full, race, full_joint = scores(FULL)
    lines = ["| edge | log score, nats a car | joint events, nats a race |", "|---|---|---|"]
    for parent, child in EDGES:
        started = time.monotonic()
        cut, _, cut_joint = scores(Structure(cut=frozenset({(parent, child)})))
        car, joint = (
            clustered_mean(full - cut, race),
            clustered_mean(full_joint - cut_joint, np.arange(len(cut_joint))),
        )
        lines.append(f"| {parent} → {child} | {shown(car)} | {shown(joint)} |")
        print(lines[-1], f"{time.monotonic() - started:.0f} s", flush=True)
    if options.output:
        options.output.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
