"""Walk-forward evaluation over a table of results: fit on earlier seasons, draw the next season, score it.

This module holds the shared functions of the benchmarks on real results. A fit reads earlier seasons only.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.result_files import output_parser
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.scenarios.draw.ensemble import simulate_races
from calibration_pipeline.scenarios.fit.by_fold import fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.scenarios.network.structure import FULL, Structure
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.schemas.frames import LapAggregates
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.stats.intervals import Estimate, clustered_mean, clustered_ratio
from calibration_pipeline.telemetry.baselines import align_shares, bradley_terry, shares_beaten
from calibration_pipeline.telemetry.features import build_driver_features, entry_list
from calibration_pipeline.tracks import compile_constraints
from calibration_pipeline.verification.cases import (
    car_pairs,
    independent_head_to_head,
    start_order_probabilities,
)
from calibration_pipeline.verification.scores import (
    coverage_probability,
    discrete_crps,
    discrete_log_score,
)
from calibration_pipeline.verification.verdicts.slopes import head_to_head_slope

OVALS = "without superspeedways"
EVERYTHING = "all"
SUPERSPEEDWAY = str(ARCHETYPES[0])


def options_parser(description: str | None, seasons: str, n_scenarios: int) -> argparse.ArgumentParser:
    """Return a parser of the shared options, with these defaults."""
    parser = output_parser(description)
    parser.add_argument("--results", required=True, help="table of results, .parquet or .csv")
    parser.add_argument(
        "--seasons",
        type=season_range,
        default=seasons,
        help=f"first and last evaluated season, {seasons}",
    )
    parser.add_argument("--scenarios", type=int, default=n_scenarios, help=f"scenarios a race, {n_scenarios}")
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder for fitted networks (NetCDF); delete its files when the network's code changes",
    )
    return parser


def season_range(text: str) -> range:
    """Parse the first and last season.

    Examples
    --------
    >>> list(season_range("2018-2020"))
    [2018, 2019, 2020]
    """
    first, last = (int(year) for year in text.split("-"))
    return range(first, last + 1)


def season_text(seasons: range) -> str:
    """Write the first and last season.

    Examples
    --------
    >>> season_text(range(2018, 2021))
    '2018-2020'
    """
    return f"{seasons[0]}-{seasons[-1]}"


def load_races(path: str, last_season: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return features and results of all seasons of a results table up to `last_season`."""
    source = TablesSource(path, None, compile_constraints())
    seasons = [season for season in source.seasons if season <= last_season]
    results = pl.concat([source.load_season(season).race_results for season in seasons])
    return build_driver_features(entry_list(results), results, LapAggregates.empty()), results


def walk_networks(
    features: pl.DataFrame,
    results: pl.DataFrame,
    seasons: Sequence[int],
    structure: Structure = FULL,
    cache: Path | None = None,
    seed: int = 1,
) -> dict[int, xr.Dataset]:
    """Fit the network of every season on the seasons before it; the folder `cache` stores the networks."""
    networks = {}
    for season in seasons:
        so_far = pl.col("season") <= season
        data = features.filter(so_far), results.filter(so_far)
        path = cache and cache / f"network-{season}-{_digest(data, structure, seed)}.nc"
        if path and path.exists():
            networks[season] = xr.load_dataset(path, engine="h5netcdf")
            continue
        networks[season] = fit_networks(fold_history(*data, season, None), None, seed, structure)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            networks[season].to_netcdf(path, engine="h5netcdf")
    return networks


def _digest(data: Sequence[pl.DataFrame], structure: Structure, seed: int) -> str:
    digest = hashlib.sha256(f"{sorted(structure.removed)} {structure.ordinary} {seed}".encode())
    for frame in data:
        digest.update(frame.hash_rows().to_numpy().tobytes())
    return digest.hexdigest()[:16]


def draw_seasons(
    features: pl.DataFrame,
    networks: Mapping[int, xr.Dataset],
    n_scenarios: int,
    recalibration: Mapping[int, Recalibration] | None = None,
    seed: int = 1,
) -> list[xr.Dataset]:
    """Draw the scenarios of every season from its network."""
    return [
        simulate_races(features.filter(season=season), network, None, n_scenarios, seed, recalibration)
        for season, network in networks.items()
    ]


@dataclass(frozen=True)
class Forecasts:
    """Finish and head-to-head probabilities of races, as flat arrays over cars and pairs of cars.

    Attributes
    ----------
    archetype : (race)
    race, position : (car), index of the car's race and its finish position
    probability : (car, position)
    pair_race, won, head_to_head : (pair)
    expected_beaten : (pair), head-to-head probability of the Bradley-Terry baseline
    """

    archetype: NDArray[np.str_]
    race: NDArray[np.int64]
    position: NDArray[np.int64]
    probability: NDArray[np.float64]
    pair_race: NDArray[np.int64]
    won: NDArray[np.bool_]
    head_to_head: NDArray[np.float64]
    expected_beaten: NDArray[np.float64]


def flatten(ensembles: Sequence[xr.Dataset], results: pl.DataFrame) -> dict[str, Forecasts]:
    """Return the forecasts of the ensembles and of the start order, for the same races."""
    shares = shares_beaten(results)
    parts = [_season_forecasts(ensemble, results, shares) for ensemble in ensembles]
    return {name: _join([part[name] for part in parts]) for name in parts[0]}


def _season_forecasts(
    ensemble: xr.Dataset, results: pl.DataFrame, shares: pl.DataFrame
) -> dict[str, Forecasts]:
    car = car_mask(ensemble).values
    size = ensemble["field_size"].values.astype(int)
    finish = observe(ensemble, results).finish_position.astype(int)
    race, slot = np.nonzero(car)
    share = align_shares(ensemble, shares)
    pairs = car_pairs(car)
    pair_race, first, second = pairs

    drawn = ensemble["finish_position"].values
    start = start_order_probabilities(ensemble["start_position"].values, size)
    tables = {
        "scenarios": (finish_probabilities(drawn, size), head_to_head(drawn, size)),
        "start order": (start, independent_head_to_head(start)),
    }
    return {
        name: Forecasts(
            archetype=ensemble["archetype"].values,
            race=race,
            position=finish[race, slot],
            probability=places[race, slot],
            pair_race=pair_race,
            won=finish[pair_race, first] < finish[pair_race, second],
            head_to_head=ahead[pairs],
            expected_beaten=bradley_terry(share[pair_race, first], share[pair_race, second]),
        )
        for name, (places, ahead) in tables.items()
    }


def car_log_score(
    ensemble: xr.Dataset, results: pl.DataFrame, probability: NDArray | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the log score of each finish position and the race of the car: (car), (car).

    The forecast is `probability` (race, driver, position), or by default the scenarios.
    """
    if probability is None:
        probability = finish_probabilities(ensemble["finish_position"].values, ensemble["field_size"].values)
    car = car_mask(ensemble).values
    finish = observe(ensemble, results).finish_position[car].astype(int)
    return discrete_log_score(probability[car], finish), ensemble["race"].values[np.nonzero(car)[0]]


def _join(parts: Sequence[Forecasts]) -> Forecasts:
    width = max(part.probability.shape[1] for part in parts)
    before = np.cumsum([0, *(len(part.archetype) for part in parts)])
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("archetype", "position", "won", "head_to_head", "expected_beaten")
    }
    wide = [np.pad(p.probability, [(0, 0), (0, width - p.probability.shape[1])]) for p in parts]
    return Forecasts(
        race=np.concatenate([part.race + n for part, n in zip(parts, before, strict=False)]),
        pair_race=np.concatenate([part.pair_race + n for part, n in zip(parts, before, strict=False)]),
        probability=np.concatenate(wide),
        **joined,
    )


def groups(archetype: NDArray) -> Mapping[str, NDArray[np.bool_]]:
    """Return the groups of races: pooled, and by archetype."""
    pooled = {EVERYTHING: np.ones(len(archetype), bool), OVALS: archetype != SUPERSPEEDWAY}
    return pooled | {str(kind): archetype == str(kind) for kind in ARCHETYPES}


def score(forecasts: Forecasts) -> pl.DataFrame:
    """Score forecasts by group of races: a row for each group and quantity, with race-clustered intervals.

    Quantities: `spearman` of expected finish and finish, mean over races; `crps_skill` and `log_gain`
    (nats a car) against uniform positions; `head_to_head_skill`, of Brier scores against the as-of
    Bradley-Terry baseline; `top10_skill` and `win_skill`, of Brier scores against climatology;
    `head_to_head_slope`; coverage of the central 50, 80 and 95 % intervals.
    """
    p, y, race = forecasts.probability, forecasts.position, forecasts.race
    size = np.bincount(race)[race]
    uniform = (np.arange(p.shape[1]) < size[:, None]) / size[:, None]
    crps, reference = discrete_crps(p, y), discrete_crps(uniform, y)
    gain = discrete_log_score(p, y) - discrete_log_score(uniform, y)
    expected = (p * np.arange(1, p.shape[1] + 1)).sum(axis=1)
    starts = np.flatnonzero(np.diff(race, prepend=-1))
    spearman = np.array(
        [
            np.corrcoef(rankdata(e), f)[0, 1]
            for e, f in zip(np.split(expected, starts[1:]), np.split(y, starts[1:]), strict=True)
        ]
    )
    brier = (forecasts.head_to_head - forecasts.won) ** 2
    brier_reference = (forecasts.expected_beaten - forecasts.won) ** 2
    rows = []
    for group, chosen in groups(forecasts.archetype).items():
        if not chosen.any():
            continue
        k, pairs = chosen[race], chosen[forecasts.pair_race]
        estimates: dict[str, Estimate | None] = {
            "spearman": clustered_mean(spearman[chosen], np.flatnonzero(chosen)),
            "crps_skill": clustered_ratio(reference[k] - crps[k], reference[k], race[k]),
            "log_gain": clustered_mean(gain[k], race[k]),
            "head_to_head_skill": clustered_ratio(
                brier_reference[pairs] - brier[pairs], brier_reference[pairs], forecasts.pair_race[pairs]
            ),
            "head_to_head_slope": head_to_head_slope(
                forecasts.head_to_head[pairs], forecasts.won[pairs], forecasts.pair_race[pairs]
            ),
        }
        for name, places in (("top10_skill", 10), ("win_skill", 1)):
            happened = y[k] <= places
            squared = (p[k, :places].sum(axis=1) - happened) ** 2
            climatology = (places / size[k] - happened) ** 2
            estimates[name] = clustered_ratio(climatology - squared, climatology, race[k])
        for level in (0.5, 0.8, 0.95):
            inside = coverage_probability(p[k], y[k], level)
            estimates[f"coverage_{100 * level:.0f}"] = clustered_mean(inside, race[k])
        rows += [
            {
                "group": group,
                "quantity": name,
                "estimate": estimate.estimate,
                "lower": estimate.lower,
                "upper": estimate.upper,
                "n_races": int(chosen.sum()),
            }
            for name, estimate in estimates.items()
            if estimate is not None
        ]
    return pl.DataFrame(rows, infer_schema_length=None)


def by_archetype(ensembles: Sequence[xr.Dataset]) -> dict[str, xr.Dataset]:
    """Join the seasons of each archetype."""
    return {
        str(kind): joined
        for kind in ARCHETYPES
        if (joined := join_seasons(ensembles, str(kind))).sizes["race"]
    }
