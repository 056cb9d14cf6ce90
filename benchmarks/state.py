"""Calibration's state, filtered race by race, beside the map that moves once a season.

    python -m benchmarks.state --results cup_results.parquet --choose --seasons 2015-2020
    python -m benchmarks.state --results cup_results.parquet --seasons 2021-2023

With `--choose`, only the filter runs, also with other constants than those of `calibration.state`. The file
benchmarks/results/state_choices.csv holds the mean log predictive likelihood of running orders and of
incidents, nats a car, minus that of the frozen constants. Without it, the seasons are drawn again with the
state before each race, and with the map fitted on earlier seasons. benchmarks/results/state.csv holds
the gains in log score, paired by race, and the mean number of retirements of a race.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from benchmarks.evaluation import (
    by_archetype,
    car_log_score,
    draw_seasons,
    groups,
    load_races,
    options_parser,
    season_text,
    walk_networks,
)
from benchmarks.recalibration import fit_state
from benchmarks.result_files import Row, estimated, markdown_table, write_results
from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.archetype_fit import fit_archetype
from calibration_pipeline.calibration.latent_predictive import observed_statistics
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.calibration.recalibration import draw_recalibration, draw_recalibrations
from calibration_pipeline.calibration.state import (
    Calendar,
    SlowParameters,
    fold_ranges,
    incident_log_likelihood,
    join_calendar,
    order_log_likelihood,
    read_slow_parameters,
    shift_dynamics,
    slope_dynamics,
)
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.stats.intervals import clustered_mean
from calibration_pipeline.stats.state_filter import Dynamics, filter_races

NUTS = {"n_warmup": 500, "n_samples": 500, "n_chains": 4}
"""Settings of the fits of the map that moves once a season."""
EVERY = 4
"""The choice of constants uses every fourth draw of the slow parameters."""
NO_JUMP = {"jump_probability": 0.0, "season_jump_probability": 0.0}
CHOICES: dict[str, dict[str, float]] = {
    "frozen": {},
    "no jump": NO_JUMP,
    "no jump, walk x 2": NO_JUMP | {"walk_factor": 2.0},
    "no jump, walk x 4": NO_JUMP | {"walk_factor": 4.0},
    "jump between seasons alone": {"jump_probability": 0.0},
    "jump probability within a season .02": {"jump_probability": 0.02},
    "jump probability between seasons .1": {"season_jump_probability": 0.1},
    "jump probability between seasons .4": {"season_jump_probability": 0.4},
    "jump .2": {"jump_sigma": 0.2},
    "jump .45": {"jump_sigma": 0.45},
    "half-life 20": {"deviation_half_life": 20.0},
    "half-life 320": {"deviation_half_life": 320.0},
    "deviation x 2": {"deviation_factor": 2.0},
    "deviation x .5": {"deviation_factor": 0.5},
}
"""Name -> constants that differ from those of `calibration.state`."""


class Fold(NamedTuple):
    """Races of a season of the calendar, and the slow parameters fitted to the races before them."""

    races: range
    slow: SlowParameters


def draw_map_changes(
    raw: Sequence[xr.Dataset], results: pl.DataFrame, seasons: Sequence[int], seed: int = 1
) -> dict[int, Recalibration]:
    """Draw the recalibration of every race by the map of its archetype, fitted to the seasons before."""
    changes = {}
    for archetype, races in by_archetype(raw).items():
        season = races["season"].values
        labels = np.unique(season).tolist()
        for now in (year for year in seasons if (season == year).any() and (season < year).any()):
            seen = races.isel(race=season < now)
            fit = fit_archetype(seen, results, Archetype(archetype), labels, **NUTS, seed=seed)
            posterior = fit["posterior"].to_dataset().sel(season=now).stack(sample=("chain", "draw"))
            posterior["front_tilt"] = xr.zeros_like(posterior["log_slope"])
            for race in races["race"].values[season == now].tolist():
                changes[race] = draw_recalibration(posterior, race, raw[0].sizes["scenario"], seed)
    return changes


def choice_rows(calendar: Calendar, folds: Sequence[Fold], seasons: range, n_cars: NDArray) -> list[Row]:
    """Return the log predictive likelihood of each choice of constants, minus the frozen one's."""
    scores = {name: _predictive(calendar, folds, changes) / n_cars for name, changes in CHOICES.items()}
    rows: list[Row] = []
    for name, score in scores.items():
        difference = score - scores["frozen"]
        means = {
            quantity: clustered_mean(values, np.arange(values.size))
            for quantity, values in zip(("orders", "incidents"), difference, strict=True)
        }
        cells = {
            key: cell for quantity, e in means.items() for key, cell in estimated(quantity, e, 5).items()
        }
        rows.append({"seasons": season_text(seasons), "choice": name, **cells})
    return rows


def _predictive(
    calendar: Calendar, folds: Sequence[Fold], changes: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return log predictive likelihoods of running orders and incidents: (2, race)."""
    incident = incident_log_likelihood(calendar.incident)
    parts = []
    for chosen, slow in folds:
        few = slow._replace(
            slope_sigma=slow.slope_sigma[::EVERY],
            archetype_sigma=slow.archetype_sigma[::EVERY],
            noise_sigma=slow.noise_sigma[:, ::EVERY],
        )
        seen = slice(chosen.stop)
        kind, starts = calendar.archetype[seen], calendar.starts_season[seen]
        order = order_log_likelihood(kind, calendar.order[seen], few)
        evidence = [
            filter_races(values, kind, starts, _changed(law, changes), len(ARCHETYPES)).log_evidence
            for values, law in ((order, slope_dynamics(few)), (incident[seen], shift_dynamics()))
        ]
        means = [logsumexp(values, axis=1) - np.log(values.shape[1]) for values in evidence]
        parts.append(np.stack(means)[:, chosen.start :])
    return np.concatenate(parts, axis=1)


def _changed(law: Dynamics, changes: Mapping[str, float]) -> Dynamics:
    rest = dict(changes)
    walk, deviation = rest.pop("walk_factor", 1.0), rest.pop("deviation_factor", 1.0)
    return law._replace(
        walk_sigma=walk * law.walk_sigma, deviation_sigma=deviation * law.deviation_sigma, **rest
    )


def score_rows(
    forecasts: Mapping[str, Sequence[xr.Dataset]], results: pl.DataFrame, seasons: Sequence[int]
) -> list[Row]:
    """Return gains in log score, nats a car, and the mean number of retirements, by archetype."""
    scored = {name: [car_log_score(season, results) for season in drawn] for name, drawn in forecasts.items()}
    score = {name: np.concatenate([values for values, _ in parts]) for name, parts in scored.items()}
    race = np.concatenate([race for _, race in scored["raw"]])
    kind = {
        int(r): str(a)
        for season in forecasts["raw"]
        for r, a in zip(season["race"].values, season["archetype"].values, strict=True)
    }
    retired = {name: _retirements(drawn) for name, drawn in forecasts.items()}
    observed = np.concatenate(
        [observed_statistics(races, observe(races, results))["n_incidents"] for races in forecasts["raw"]]
    )
    by_race = np.array([kind[int(r)] for season in forecasts["raw"] for r in season["race"].values])
    of_cars = groups(np.array([kind[int(r)] for r in race]))
    rows: list[Row] = []
    for name, chosen in groups(by_race).items():
        cars = of_cars[name]
        if not cars.any():
            continue
        gains = {
            "state_over_raw": score["state"] - score["raw"],
            "map_over_raw": score["map"] - score["raw"],
            "state_over_map": score["state"] - score["map"],
        }
        cells = {
            key: cell
            for label, values in gains.items()
            for key, cell in estimated(label, clustered_mean(values[cars], race[cars])).items()
        }
        counts = {f"retired_{label}": f"{values[chosen].mean():.2f}" for label, values in retired.items()}
        rows.append(
            {
                "seasons": season_text(range(seasons[0], seasons[-1] + 1)),
                "races": name,
                "n_races": int(chosen.sum()),
                **cells,
                **counts,
                "retired_observed": f"{observed[chosen].mean():.2f}",
            }
        )
    return rows


def _retirements(drawn: Sequence[xr.Dataset]) -> NDArray[np.float64]:
    """Return the mean number of retired cars of each race."""
    means = [
        (~season["running"] & car_mask(season)).sum("driver").mean("scenario").values for season in drawn
    ]
    return np.concatenate(means)


def main() -> None:
    """Run the benchmark."""
    parser = options_parser(__doc__, "2021-2023", 2000)
    parser.add_argument("--choose", action="store_true", help="compare constants of the filter")
    options = parser.parse_args()
    use_host_devices()
    started = time.monotonic()
    seasons: range = options.seasons
    features, results = load_races(options.results, seasons[-1])
    walk = features["season"].unique().sort().to_list()[1:]
    networks = walk_networks(features, results, walk, cache=options.cache)
    raw = draw_seasons(features, networks, options.scenarios)
    fits, pooled, state = fit_state(by_archetype(raw), results, walk)
    if options.choose:
        calendar = join_calendar(fits)
        own = [
            (fold, races) for fold, races in fold_ranges(calendar) if calendar.season[races.start] in seasons
        ]
        folds = [Fold(races, read_slow_parameters(pooled, fold)) for fold, races in own]
        sizes = xr.concat([season["field_size"] for season in raw], dim="race")
        evaluated = np.concatenate([calendar.race[races.start : races.stop] for races, _ in folds])
        n_cars = sizes.sel(race=evaluated).values
        rows = choice_rows(calendar, folds, seasons, n_cars)
        print(markdown_table(rows), f"{time.monotonic() - started:.0f} s", sep="\n", flush=True)
        write_results("state_choices", rows, options.output, key=("seasons",))
        return
    scored = {season: networks[season] for season in seasons}
    ahead = [season for season in raw if int(season["season"].values[0]) in seasons]
    states, of_state = state["races"].to_dataset(), dict[int, Recalibration]()
    for season in ahead:
        of_state |= draw_recalibrations(states, season, options.scenarios, seed=1)
    of_map = draw_map_changes(raw, results, seasons)
    forecasts = {
        "raw": ahead,
        "map": draw_seasons(features, scored, options.scenarios, of_map),
        "state": draw_seasons(features, scored, options.scenarios, of_state),
    }
    rows = score_rows(forecasts, results, seasons)
    print(markdown_table(rows), f"{time.monotonic() - started:.0f} s", sep="\n", flush=True)
    write_results("state", rows, options.output, key=("seasons",))


if __name__ == "__main__":
    main()
