"""What recalibration wins back of forecasts made wrong on purpose, and what it costs when they are right.

    python -m benchmarks.repair --results cup_results.parquet --seasons 2018-2023

The network's log-strengths are divided by 0.6 (too sure), multiplied by it (too cautious), or its incidents
are cut; both maps are fitted on earlier seasons and applied to the next. The share won back is of the loss in
log score against the undistorted network. `benchmarks.simulators` does so with simulators of known truth.
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
    publish,
    shown,
    walk_networks,
)
from benchmarks.recalibration import draw_again, map_tables
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.network.structure import FULL, VARIANTS
from calibration_pipeline.stats.intervals import Estimate, clustered_mean, clustered_ratio

MAPS = ("latent", "marginal")
UNDISTORTED = "undistorted"
WRONG_ON_PURPOSE = {
    UNDISTORTED: (FULL, 1.0),
    "too sure (log-strengths / 0.6)": (FULL, 1 / 0.6),
    "too cautious (log-strengths x 0.6)": (FULL, 0.6),
    "no incidents": (VARIANTS["no_incidents"], 1.0),
}
"""Name -> structure of the network, factor on its log-strengths."""


def distort(network: xr.Dataset, factor: float) -> xr.Dataset:
    """Multiply a network's log-strengths."""
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
    """Log score of every car, nats: race, archetype, raw, latent, marginal; cars in the same order always."""
    raw = draw_seasons(features, networks, n_scenarios)
    if not incidents:
        # A network without incidents says nothing of who runs at the finish, as opposed to "everyone".
        raw = [season.drop_vars("running") for season in raw]
    latent = by_archetype(draw_again(features, networks, raw, results, seasons))
    parts = []
    for kind, ensemble in by_archetype(raw).items():
        judged = np.isin(ensemble["season"].values, seasons)
        table = map_tables(ensemble, results, seasons)[judged]
        raw_score, race = car_log_score(ensemble.isel(race=judged), results)
        columns = {
            "raw": raw_score,
            "latent": car_log_score(latent[kind], results)[0],
            "marginal": car_log_score(ensemble.isel(race=judged), results, table)[0],
        }
        parts.append(pl.DataFrame({"race": race, "archetype": [kind] * len(race), **columns}))
    return pl.concat(parts)


def repair_rows(name: str, judged: pl.DataFrame, right: NDArray) -> list[str]:
    """Markdown rows of one distortion: loss against the scores `right`, and what is won back."""
    race, raw = judged["race"].to_numpy(), judged["raw"].to_numpy()
    loss = right - raw
    rows = []
    for name_of_map in MAPS:
        gain = judged[name_of_map].to_numpy() - raw
        share = "" if name == UNDISTORTED else percent(clustered_ratio(gain, loss, race))
        lost = "" if name == UNDISTORTED else shown(clustered_mean(loss, race))
        rows.append(f"| {name} | {name_of_map} | {lost} | {shown(clustered_mean(gain, race))} | {share} |")
    return rows


def kind_rows(name: str, judged: pl.DataFrame) -> list[str]:
    """Markdown rows of one distortion: what each map gains, by kind of track."""
    rows = []
    for name_of_map in MAPS:
        gains = [
            clustered_mean((of_kind[name_of_map] - of_kind["raw"]).to_numpy(), of_kind["race"].to_numpy())
            for of_kind in (judged.filter(archetype=str(kind)) for kind in ARCHETYPES)
        ]
        rows.append(f"| {name} | {name_of_map} | {' | '.join(map(shown, gains))} |")
    return rows


def percent(share: Estimate) -> str:
    """A share with its interval, in percent."""
    lower, upper = ("-" if end is None else f"{100 * end:.0f}" for end in (share.lower, share.upper))
    return f"{100 * share.estimate:.0f} [{lower}, {upper}] %"


def main() -> None:
    """Run the benchmark."""
    options = options_parser(__doc__, "2018-2023", 2000).parse_args()
    use_host_devices()
    seasons: range = options.seasons
    features, results = load_races(options.results, seasons[-1])
    walk = features["season"].unique().sort().to_list()[1:]
    lines = ["| forecast | map | lost | gained | won back |", "|---|---|---|---|---|"]
    by_kind = [f"| forecast | map | {' | '.join(map(str, ARCHETYPES))} |", "|---|---|---|---|---|---|"]
    right = np.zeros(0)
    for name, (structure, factor) in WRONG_ON_PURPOSE.items():
        started = time.monotonic()
        fitted = walk_networks(features, results, walk, structure, options.cache)
        networks = {season: distort(network, factor) for season, network in fitted.items()}
        judged = scores(features, results, networks, seasons, options.scenarios, incidents=structure is FULL)
        right = judged["raw"].to_numpy() if name == UNDISTORTED else right
        rows = repair_rows(name, judged, right), kind_rows(name, judged)
        lines += rows[0]
        by_kind += rows[1]
        print(*rows[0], *rows[1], f"{time.monotonic() - started:.0f} s", sep="\n", flush=True)
    publish("\n".join([*lines, "", "Gained, by kind of track:", "", *by_kind, ""]), options.output)


if __name__ == "__main__":
    main()
