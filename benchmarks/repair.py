"""Gain and cost of recalibration for distorted and undistorted forecasts: benchmarks/results/repair.csv.

    python -m benchmarks.repair --results cup_results.parquet --seasons 2018-2023

The distortions divide the network's log-strengths by 0.6 (too sure), multiply them by 0.6 (too cautious), or
remove its incidents. Both maps are fitted on earlier seasons and applied to the next season. The share won
back is the gain divided by the loss in log score against the undistorted network. `benchmarks.simulators`
measures the same with simulators of known truth.
"""

import time
from collections.abc import Mapping

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
    walk_networks,
)
from benchmarks.recalibration import map_tables, recalibrate_seasons
from benchmarks.result_files import Row, estimated, markdown_table, write_results
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.network.structure import FULL, VARIANTS
from calibration_pipeline.stats.intervals import clustered_mean, clustered_ratio

MAPS = ("latent", "marginal")
UNDISTORTED = "undistorted"
DISTORTIONS = {
    UNDISTORTED: (FULL, 1.0),
    "too sure (log-strengths / 0.6)": (FULL, 1 / 0.6),
    "too cautious (log-strengths x 0.6)": (FULL, 0.6),
    "no incidents": (VARIANTS["no_incidents"], 1.0),
}
"""Name -> structure of the network, factor on its log-strengths."""


def distort(network: xr.Dataset, factor: float) -> xr.Dataset:
    """Multiply a network's log-strengths by a factor."""
    return network.assign(pace_weight=network["pace_weight"] * np.float32(factor))


def scores(
    features: pl.DataFrame,
    results: pl.DataFrame,
    networks: Mapping[int, xr.Dataset],
    seasons: range,
    n_scenarios: int,
    *,
    incidents: bool,
) -> pl.DataFrame:
    """Return the log score of every car, nats: race, archetype, raw, latent, marginal."""
    raw = draw_seasons(features, networks, n_scenarios)
    if not incidents:
        # Without incidents, `running` is unknown, and not true for all cars.
        raw = [season.drop_vars("running") for season in raw]
    latent = by_archetype(recalibrate_seasons(features, networks, raw, results, seasons))
    parts = []
    for archetype, ensemble in by_archetype(raw).items():
        scored = np.isin(ensemble["season"].values, seasons)
        table = map_tables(ensemble, results, seasons)[scored]
        raw_score, race = car_log_score(ensemble.isel(race=scored), results)
        columns = {
            "raw": raw_score,
            "latent": car_log_score(latent[archetype], results)[0],
            "marginal": car_log_score(ensemble.isel(race=scored), results, table)[0],
        }
        parts.append(pl.DataFrame({"race": race, "archetype": [archetype] * len(race), **columns}))
    return pl.concat(parts)


def repair_rows(name: str, scored: pl.DataFrame, undistorted: NDArray) -> list[Row]:
    """Return the rows of one distortion, by map and races: log score lost, gained, and the share won back.

    `undistorted` holds the log scores of the undistorted network, (car,).
    """
    scored = scored.with_columns(lost=pl.Series(undistorted) - pl.col("raw"))
    present = [str(kind) for kind in ARCHETYPES if str(kind) in set(scored["archetype"])]
    parts = {"all": scored} | {archetype: scored.filter(archetype=archetype) for archetype in present}
    rows: list[Row] = []
    for name_of_map in MAPS:
        for races, part in parts.items():
            race, lost = part["race"].to_numpy(), part["lost"].to_numpy()
            gained = (part[name_of_map] - part["raw"]).to_numpy()
            distorted = name != UNDISTORTED and races == "all"
            share = clustered_ratio(100 * gained, lost, race) if distorted else None
            rows.append(
                {
                    "forecast": name,
                    "map": name_of_map,
                    "races": races,
                    **estimated("lost", clustered_mean(lost, race) if distorted else None),
                    **estimated("gained", clustered_mean(gained, race)),
                    **estimated("won_back_percent", share, digits=0),
                }
            )
    return rows


def main() -> None:
    """Run the benchmark."""
    options = options_parser(__doc__, "2018-2023", 2000).parse_args()
    use_host_devices()
    seasons: range = options.seasons
    features, results = load_races(options.results, seasons[-1])
    walk = features["season"].unique().sort().to_list()[1:]
    rows: list[Row] = []
    undistorted = np.zeros(0)
    for name, (structure, factor) in DISTORTIONS.items():
        started = time.monotonic()
        fitted = walk_networks(features, results, walk, structure, options.cache)
        networks = {season: distort(network, factor) for season, network in fitted.items()}
        scored = scores(features, results, networks, seasons, options.scenarios, incidents=structure is FULL)
        undistorted = scored["raw"].to_numpy() if name == UNDISTORTED else undistorted
        rows += repair_rows(name, scored, undistorted)
        print(markdown_table(rows), f"{time.monotonic() - started:.0f} s", sep="\n", flush=True)
    write_results("repair", rows, options.output)


if __name__ == "__main__":
    main()
