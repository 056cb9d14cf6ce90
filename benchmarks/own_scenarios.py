"""Re-ranking of a simulator whose front group is too sharp: benchmarks/results/own_scenarios.csv.

    python -m benchmarks.own_scenarios --results cup_results.parquet --seasons 2016-2023

The simulator is the causal network without a front group. Its scenarios are treated as a user's own: log
strengths and incidents are recovered from them, and the state before each race re-ranks the cars, with and
without its front tilt. Gains are paired by race, with 95 % intervals over races.
"""

from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import polars as pl
import xarray as xr

from benchmarks.evaluation import (
    draw_seasons,
    groups,
    load_races,
    options_parser,
    season_text,
    walk_networks,
)
from benchmarks.forecast_cases import list_cases
from benchmarks.recalibration import fit_state
from benchmarks.result_files import Row, estimated, markdown_table, write_results
from calibration_pipeline.calibration.recalibration import draw_recalibrations
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.network import structure
from calibration_pipeline.scenarios.stacking import recover_race
from calibration_pipeline.stats.intervals import clustered_mean
from calibration_pipeline.verification.verdicts.slopes import win_slope

FORECASTS = ("raw", "without tilt", "with tilt")


def as_own_scenarios(ensemble: xr.Dataset) -> xr.Dataset:
    """Replace the network's parameters of an ensemble by those recovered from its scenarios."""
    recovered = {name: ensemble[name].values.copy() for name in ("utility", "incident_logit", "chaos_scale")}
    for r, n_cars in enumerate(ensemble["field_size"].values.tolist()):
        finish, running = (ensemble[name].values[r, :, :n_cars] for name in ("finish_position", "running"))
        recover_race(recovered, r, finish, running)
    own = ensemble.assign({name: (ensemble[name].dims, values) for name, values in recovered.items()})
    return own.assign_coords(network_as_of=own["network_as_of"] * 0)


def score_rows(forecasts: Sequence[pl.DataFrame], seasons: range) -> list[Row]:
    """Return a row for each group of races: gains, and temperatures of the win.

    Parameters
    ----------
    forecasts : sequence of polars.DataFrame
        `forecast_cases.Cases.cars` of each of `FORECASTS`, the same races and cars.
    seasons : range
    """
    rows: list[Row] = []
    for group, chosen in groups(forecasts[0]["archetype"].to_numpy()).items():
        if not chosen.any():
            continue
        raw, without, tilted = (cars.filter(chosen) for cars in forecasts)
        winners = [cars.filter("won") for cars in (raw, without, tilted)]
        race = raw["race"].to_numpy()
        estimates = {
            f"winner_{label}": clustered_mean(
                (winners[new]["win"].log() - winners[old]["win"].log()).to_numpy(),
                winners[new]["race"].to_numpy(),
            )
            for label, old, new in (("tilted_over_raw", 0, 2), ("tilted_over_untilted", 1, 2))
        }
        gain = (tilted["log_score"] - raw["log_score"]).to_numpy()
        estimates["cars_tilted_over_raw"] = clustered_mean(gain, race)
        slopes = {
            f"temperature_{name.replace(' ', '_')}": win_slope(
                cars["win"].to_numpy(), cars["won"].to_numpy(), race
            )
            for name, cars in zip(FORECASTS, (raw, without, tilted), strict=True)
        }
        cells = {
            key: cell
            for name, estimate in {**estimates, **slopes}.items()
            for key, cell in estimated(name, estimate).items()
        }
        n_races = raw["race"].n_unique()
        rows.append({"seasons": season_text(seasons), "races": group, "n_races": n_races, **cells})
    return rows


def main() -> None:
    """Run the benchmark."""
    options = options_parser(__doc__, "2016-2023", 2000).parse_args()
    use_host_devices()
    features, results = load_races(options.results, options.seasons[-1])
    walk = features["season"].unique().sort().to_list()[1:]
    with patch.object(structure, "FRONT_CARS", 0):
        networks = walk_networks(features, results, walk)
        own = [as_own_scenarios(season) for season in draw_seasons(features, networks, options.scenarios)]
    states = fit_state(own, results, walk)[2]["races"].to_dataset()
    ahead = [season for season in own if int(season["season"].values[0]) in options.seasons]
    untilted = states.assign(front_tilt=states["front_tilt"] * np.float32(0))
    forecasts = [ahead] + [
        [
            rerank_races(season, draw_recalibrations(state, season, options.scenarios, 1), 1)
            for season in ahead
        ]
        for state in (untilted, states)
    ]
    rows = score_rows([list_cases(drawn, results).cars for drawn in forecasts], options.seasons)
    print(markdown_table(rows))
    write_results("own_scenarios", rows, options.output, key=("seasons",))


if __name__ == "__main__":
    main()
