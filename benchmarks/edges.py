"""Value of each edge of the causal network on held-out seasons: benchmarks/results/forecast_edges.csv.

    python -m benchmarks.edges --results cup_results.parquet --seasons 2016-2020

The value of an edge is the log score of the full network minus that of a network without the edge, for
finish positions (nats a car) and for the default joint events (nats a race). Larger is better; the 95 %
intervals are race-clustered.
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
    season_text,
    walk_networks,
)
from benchmarks.result_files import Row, estimated, write_results
from calibration_pipeline.events.counts import count_cases, read_races
from calibration_pipeline.events.files import DEFAULT_EVENTS
from calibration_pipeline.scenarios.network.structure import EDGES, FULL, Structure
from calibration_pipeline.stats.intervals import clustered_mean


def joint_log_score(ensembles: Sequence[xr.Dataset], results: pl.DataFrame) -> NDArray[np.float64]:
    """Return the log score of the observed number of cases, summed over events: (race)."""
    scores = []
    for ensemble in by_archetype(ensembles).values():
        races, _ = read_races(ensemble, results, DEFAULT_EVENTS)
        counts = count_cases(races, DEFAULT_EVENTS)
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
    rows: list[Row] = []
    for parent, child in EDGES:
        started = time.monotonic()
        reduced, _, reduced_joint = scores(Structure(frozenset({(parent, child)})))
        joint = clustered_mean(full_joint - reduced_joint, np.arange(len(reduced_joint)))
        rows.append(
            {
                "seasons": season_text(options.seasons),
                "scenarios": options.scenarios,
                "parent": parent,
                "child": child,
                **estimated("log_score", clustered_mean(full - reduced, race)),
                **estimated("joint_events", joint),
            }
        )
        print(rows[-1], f"{time.monotonic() - started:.0f} s", flush=True)
    write_results("forecast_edges", rows, options.output)


if __name__ == "__main__":
    main()
