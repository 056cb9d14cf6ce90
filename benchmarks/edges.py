"""What each edge of the causal network is worth: cut it, fit again, and compare on held-out seasons.

    python -m benchmarks.edges --results cup_results.parquet --seasons 2016-2020

The difference of the full network and the one without the edge, in log score of the finishes (nats a car) and
of the default joint events (nats a race); larger is better. With race-clustered 95 % intervals.
"""

import time
from collections.abc import Sequence

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from benchmarks.evaluation import (
    by_archetype,
    car_log_score,
    draw_seasons,
    load_races,
    options_parser,
    publish,
    shown,
    walk_networks,
)
from calibration_pipeline.events.counts import count_events
from calibration_pipeline.events.files import DEFAULT_EVENTS
from calibration_pipeline.scenarios.network.structure import EDGES, FULL, Structure
from calibration_pipeline.stats.intervals import clustered_mean


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


def main() -> None:
    """Run the benchmark."""
    options = options_parser(__doc__, "2016-2020", 4000).parse_args()
    features, results = load_races(options.results, options.seasons[-1])

    def scores(structure: Structure) -> tuple[NDArray, NDArray, NDArray]:
        networks = walk_networks(features, results, options.seasons, structure, options.cache)
        ensembles = draw_seasons(features, networks, options.scenarios)
        cars, races = zip(*(car_log_score(ensemble, results) for ensemble in ensembles), strict=True)
        return np.concatenate(cars), np.concatenate(races), joint_log_score(ensembles, results)

    full, race, full_joint = scores(FULL)
    lines = ["| edge | log score, nats a car | joint events, nats a race |", "|---|---|---|"]
    for parent, child in EDGES:
        started = time.monotonic()
        cut, _, cut_joint = scores(Structure(cut=frozenset({(parent, child)})))
        car = clustered_mean(full - cut, race)
        joint = clustered_mean(full_joint - cut_joint, np.arange(len(cut_joint)))
        lines.append(f"| {parent} → {child} | {shown(car)} | {shown(joint)} |")
        print(f"{parent} → {child}: {time.monotonic() - started:.0f} s", flush=True)
    publish("\n".join([*lines, ""]), options.output)


if __name__ == "__main__":
    main()
