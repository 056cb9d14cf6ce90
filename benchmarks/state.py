"""Calibration's state, filtered race by race, beside the map that moves once a season.

    python -m benchmarks.state --results cup_results.parquet --choose --seasons 2015-2020
    python -m benchmarks.state --results cup_results.parquet --seasons 2021-2023

With `--choose`, the filter runs also with other constants than those of `calibration.state`. The file
benchmarks/results/state_choices.csv holds the mean log predictive likelihood of running orders, of incidents
and of the orders of front groups, nats a car, minus that of the frozen constants. For constants of the front
tilt it holds also the log score of the winner, nats a race, of forecasts drawn with these states. Two choices
let a jump be as probable as between seasons after an alarm of the raw forecasts' sequential monitoring.

Without it, the seasons are drawn again with the state before each race, with the same state without its front
tilt, and with the map fitted on earlier seasons. benchmarks/results/state.csv holds the gains in log score,
paired by race, of all cars and of the winner, and the mean number of retirements of a race.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from unittest.mock import patch

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
from calibration_pipeline.calibration import state as state_module
from calibration_pipeline.calibration.archetype_fit import fit_archetype
from calibration_pipeline.calibration.latent_predictive import observed_statistics
from calibration_pipeline.calibration.race_curves import observe, tabulate_races
from calibration_pipeline.calibration.recalibration import draw_recalibration, draw_recalibrations
from calibration_pipeline.calibration.state import (
    Calendar,
    SlowParameters,
    filter_state,
    fold_ranges,
    front_log_likelihood,
    incident_log_likelihood,
    order_log_likelihood,
    read_calendar,
    read_slow_parameters,
    shift_dynamics,
    slope_dynamics,
    tilt_dynamics,
)
from calibration_pipeline.markets import ALL_MARKETS
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.scenarios.probabilities import finish_probabilities
from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.stats.intervals import Estimate, clustered_mean
from calibration_pipeline.stats.state_filter import Dynamics, Filtered, filter_races
from calibration_pipeline.verification.monitoring import list_alarms, monitor_forecasts

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
"""Name -> constants of every quantity that differ from those of `calibration.state`."""
FRONT_CHOICES: dict[str, dict[str, float]] = {
    "front walk x 2": {"FRONT_WALK_SIGMA": 0.01},
    "front walk x 8": {"FRONT_WALK_SIGMA": 0.04},
    "front deviation x .25": {"FRONT_DEVIATION_SIGMA": 0.05},
    "front deviation x 2": {"FRONT_DEVIATION_SIGMA": 0.4},
    "front prior x 2": {"PRIOR_FRONT_TILT": 0.3},
}
"""Name -> constants of the front tilt that differ from those of `calibration.state`."""
ALARM_CHOICES = {
    "season's jump after an alarm": False,
    "season's jump from an alarm to the season's end": True,
}
"""Name -> whether jumps stay as probable as between seasons until the season ends."""
NO_TILT = "no front tilt"
QUANTITIES = ("orders", "incidents", "fronts")


COMPARED = (("state", "raw"), ("map", "raw"), ("state", "map"), ("state", "untilted"))
"""Pairs of compared forecasts; `untilted` has the state without its front tilt."""


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
            curves = tabulate_races(seen, results, seed)
            fit = fit_archetype(seen, results, curves, Archetype(archetype), labels, **NUTS, seed=seed)
            posterior = fit["posterior"].to_dataset().sel(season=now)
            posterior["front_tilt"] = xr.zeros_like(posterior["log_slope"])
            posterior = posterior.stack(sample=("chain", "draw"))
            for race in races["race"].values[season == now].tolist():
                changes[race] = draw_recalibration(posterior, race, raw[0].sizes["scenario"], seed)
    return changes


def alarmed_races(raw: Sequence[xr.Dataset], results: pl.DataFrame) -> set[int]:
    """Return the races at which an archetype's e-process of the season, over all markets, has an alarm."""
    monitoring = pl.concat(
        monitor_forecasts({"raw": races, "recalibrated": races}, results, seed=1)
        for races in by_archetype(raw).values()
    )
    alarms = list_alarms(monitoring).filter(forecast="raw", market=ALL_MARKETS, span="season")
    return set(alarms["race_id"].to_list())


def may_jump(calendar: Calendar, alarmed: set[int], *, until_end: bool) -> NDArray[np.bool_]:
    """Return whether a jump before a race is as probable as between seasons: (race).

    It is so at a season's first race, and at the race after an alarm, or all later races of the season.
    """
    jumps = calendar.starts_season.copy()
    for race in np.flatnonzero(np.isin(calendar.race, list(alarmed))):
        later = (calendar.season == calendar.season[race]) & (np.arange(len(jumps)) > race)
        jumps |= later if until_end else later & (np.arange(len(jumps)) == race + 1)
    return jumps


def choice_rows(
    calendar: Calendar,
    folds: Sequence[Fold],
    seasons: range,
    n_cars: NDArray,
    winners: Mapping[str, NDArray[np.float64]],
    alarmed: set[int],
) -> list[Row]:
    """Return the log predictive likelihood of each choice of constants, minus the frozen one's.

    `winners` holds the log score of the winner of each race, (race), for the choices of the front tilt;
    `alarmed` are the races of `alarmed_races`.
    """
    scores = {name: _predictive(calendar, folds, changes) / n_cars for name, changes in CHOICES.items()}
    for name, until_end in ALARM_CHOICES.items():
        jumps = may_jump(calendar, alarmed, until_end=until_end)
        scores[name] = _predictive(calendar, folds, {}, jumps) / n_cars
    for name, constants in FRONT_CHOICES.items():
        with patch.multiple(state_module, **constants):
            scores[name] = _predictive(calendar, folds, {}) / n_cars
    scores[NO_TILT] = np.stack([*scores["frozen"][:2], _without_tilt(calendar, folds) / n_cars])
    rows: list[Row] = []
    for name, score in scores.items():
        gains = dict(zip(QUANTITIES, score - scores["frozen"], strict=True))
        cells = {
            key: cell
            for quantity, values in gains.items()
            for key, cell in estimated(quantity, clustered_mean(values, np.arange(values.size)), 5).items()
        }
        known = winners.get(name)
        gain = None if known is None else clustered_mean(known - winners["frozen"], np.arange(known.size))
        rows.append(
            {"seasons": season_text(seasons), "choice": name, **cells, **estimated("winner", gain, 4)}
        )
    return rows


def _read_front(calendar: Calendar, slow: SlowParameters, log_slope: NDArray) -> NDArray[np.float64]:
    """Return the log-likelihoods of the front groups' orders at mean log slopes (race, draw)."""
    return front_log_likelihood(calendar.archetype, calendar.curves["front"], slow, log_slope.mean(axis=1))


def _without_tilt(calendar: Calendar, folds: Sequence[Fold]) -> NDArray[np.float64]:
    """Return the log-likelihood of the front group's order of each race at tilt 0: (race)."""
    parts = []
    for chosen, slow in folds:
        few, seen = _thin(slow), calendar.until(chosen.stop)
        order = order_log_likelihood(seen.archetype, seen.curves["order"], few)
        law = slope_dynamics(few)
        slopes = filter_races(order, seen.archetype, seen.starts_season, law, len(ARCHETYPES), chosen.stop)
        front = _read_front(seen, few, slopes.mean)
        parts.append(front[chosen.start :, 0, front.shape[-1] // 2])
    return np.concatenate(parts)


def _thin(slow: SlowParameters) -> SlowParameters:
    return slow._replace(
        slope_sigma=slow.slope_sigma[::EVERY],
        archetype_sigma=slow.archetype_sigma[::EVERY],
        noise_sigma=slow.noise_sigma[:, ::EVERY],
    )


def _predictive(
    calendar: Calendar,
    folds: Sequence[Fold],
    changes: Mapping[str, float],
    jumps: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return log predictive likelihoods of orders, incidents and fronts: (3, race).

    `jumps` says before which races a jump is as probable as between seasons: at season's starts by default.
    """
    jumps = calendar.starts_season if jumps is None else jumps
    incident = incident_log_likelihood(calendar.curves["incident"])
    parts = []
    for chosen, slow in folds:
        few, seen = _thin(slow), calendar.until(chosen.stop)

        def run(values: NDArray, law: Dynamics, races: Calendar = seen) -> Filtered:
            groups = races.archetype, jumps[: len(races.race)]
            return filter_races(values, *groups, _changed(law, changes), len(ARCHETYPES))

        slopes = run(order_log_likelihood(seen.archetype, seen.curves["order"], few), slope_dynamics(few))
        shifts = run(incident[: chosen.stop], shift_dynamics())
        tilts = run(_read_front(seen, few, slopes.mean), tilt_dynamics())
        evidence = [filtered.log_evidence for filtered in (slopes, shifts, tilts)]
        means = [logsumexp(values, axis=1) - np.log(values.shape[1]) for values in evidence]
        parts.append(np.stack(means)[:, chosen.start :])
    return np.concatenate(parts, axis=1)


def _changed(law: Dynamics, changes: Mapping[str, float]) -> Dynamics:
    rest = dict(changes)
    walk, deviation = rest.pop("walk_factor", 1.0), rest.pop("deviation_factor", 1.0)
    return law._replace(
        walk_sigma=walk * law.walk_sigma, deviation_sigma=deviation * law.deviation_sigma, **rest
    )


def winner_score(seasons: Sequence[xr.Dataset], results: pl.DataFrame) -> NDArray[np.float64]:
    """Return the log probability that each forecast gave the winner, nats: (race)."""
    scores = []
    for season in seasons:
        table = finish_probabilities(season["finish_position"].values, season["field_size"].values)
        won = observe(season, results).finish_position == 1
        scores.append(np.log(table[..., 0][won]))
    return np.concatenate(scores)


def without_tilt(states: xr.Dataset) -> xr.Dataset:
    """Return `RaceStates` whose front tilt is 0."""
    return states.assign(front_tilt=xr.zeros_like(states["front_tilt"]))


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
    winner = {name: winner_score(drawn, results) for name, drawn in forecasts.items()}
    retired = {name: _retirements(forecasts[name]) for name in ("raw", "map", "state")}
    observed = np.concatenate(
        [observed_statistics(races, observe(races, results))["n_incidents"] for races in forecasts["raw"]]
    )
    ids = np.concatenate([season["race"].values for season in forecasts["raw"]])
    archetype = np.array([kind[int(r)] for r in ids])
    of_cars = groups(np.array([kind[int(r)] for r in race]))
    rows: list[Row] = []
    for name, chosen in groups(archetype).items():
        cars = of_cars[name]
        if not cars.any():
            continue
        cells = {
            key: cell
            for new, old in COMPARED
            for key, cell in (
                estimated(f"{new}_over_{old}", _gain(score, new, old, cars, race))
                | estimated(f"winner_{new}_over_{old}", _gain(winner, new, old, chosen, ids))
            ).items()
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


def _gain(
    score: Mapping[str, NDArray], new: str, old: str, chosen: NDArray[np.bool_], race: NDArray
) -> Estimate | None:
    """Return the mean gain of a forecast over another, with its interval over races."""
    return clustered_mean((score[new] - score[old])[chosen], race[chosen])


def _retirements(drawn: Sequence[xr.Dataset]) -> NDArray[np.float64]:
    """Return the mean number of retired cars of each race."""
    means = [
        (~season["running"] & car_mask(season)).sum("driver").mean("scenario").values for season in drawn
    ]
    return np.concatenate(means)


def draw_with_states(
    features: pl.DataFrame,
    networks: Mapping[int, xr.Dataset],
    raw: Sequence[xr.Dataset],
    states: xr.Dataset,
) -> list[xr.Dataset]:
    """Draw the seasons of the raw ensembles again with the states before their races."""
    n_scenarios, changes = raw[0].sizes["scenario"], dict[int, Recalibration]()
    for season in raw:
        changes |= draw_recalibrations(states, season, n_scenarios, seed=1)
    return draw_seasons(features, networks, n_scenarios, changes)


def score_winners(
    features: pl.DataFrame,
    networks: Mapping[int, xr.Dataset],
    raw: Sequence[xr.Dataset],
    results: pl.DataFrame,
    curves: xr.Dataset,
    pooled: xr.DataTree,
    seasons: Sequence[int],
) -> dict[str, NDArray[np.float64]]:
    """Return the log score of each race's winner, (race), by choice of the front tilt's constants."""
    scored = {season: networks[season] for season in seasons}
    ahead = [season for season in raw if int(season["season"].values[0]) in seasons]
    states = {"frozen": filter_state(curves, pooled, seed=1)["races"].to_dataset()}
    for name, constants in FRONT_CHOICES.items():
        with patch.multiple(state_module, **constants):
            states[name] = filter_state(curves, pooled, seed=1)["races"].to_dataset()
    states[NO_TILT] = without_tilt(states["frozen"])
    return {
        name: winner_score(draw_with_states(features, scored, ahead, of_choice), results)
        for name, of_choice in states.items()
    }


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
    curves, pooled, state = fit_state(raw, results, walk)
    if options.choose:
        calendar = read_calendar(curves)
        own = [
            (fold, races) for fold, races in fold_ranges(calendar) if calendar.season[races.start] in seasons
        ]
        folds = [Fold(races, read_slow_parameters(pooled, fold)) for fold, races in own]
        sizes = xr.concat([season["field_size"] for season in raw], dim="race")
        evaluated = np.concatenate([calendar.race[races.start : races.stop] for races, _ in folds])
        n_cars = sizes.sel(race=evaluated).values
        winners = score_winners(features, networks, raw, results, curves, pooled, seasons)
        alarmed = alarmed_races(raw, results)
        print(f"Alarms: {len(alarmed)}", flush=True)
        rows = choice_rows(calendar, folds, seasons, n_cars, winners, alarmed)
        print(markdown_table(rows), f"{time.monotonic() - started:.0f} s", sep="\n", flush=True)
        write_results("state_choices", rows, options.output, key=("seasons",))
        return
    scored = {season: networks[season] for season in seasons}
    ahead = [season for season in raw if int(season["season"].values[0]) in seasons]
    states = state["races"].to_dataset()
    of_map = draw_map_changes(raw, results, seasons)
    forecasts = {
        "raw": ahead,
        "map": draw_seasons(features, scored, options.scenarios, of_map),
        "state": draw_with_states(features, scored, ahead, states),
        "untilted": draw_with_states(features, scored, ahead, without_tilt(states)),
    }
    rows = score_rows(forecasts, results, seasons)
    print(markdown_table(rows), f"{time.monotonic() - started:.0f} s", sep="\n", flush=True)
    write_results("state", rows, options.output, key=("seasons",))


if __name__ == "__main__":
    main()
