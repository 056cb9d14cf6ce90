"""Races of one archetype with a planted sharpness: an ensemble, and results."""

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.archetype_fit import fit_archetype
from calibration_pipeline.calibration.race_curves import tabulate_races
from calibration_pipeline.scenarios.network.structure import FRONT_CARS

N_CARS, N_SCENARIOS = 20, 40
SEASONS = [2021, 2022]
QUICK = {"n_warmup": 300, "n_samples": 500, "n_chains": 2}
"""Settings of fits by NUTS. Test modules that use them share the compiled samplers."""


def race_order(
    utility: np.ndarray, out: np.ndarray, rng: np.random.Generator, front_tilt: float = 0.0
) -> np.ndarray:
    """Finish by log-strength minus Gumbel luck, retired cars last; the front group has its own sharpness."""
    score = np.where(out, -1e6, 0) + utility - rng.gumbel(size=utility.shape)
    finish = (-score).argsort(axis=-1).argsort(axis=-1) + 1
    if front_tilt == 0:
        return finish
    again = np.exp(front_tilt) * utility - rng.gumbel(size=utility.shape)
    again = np.where((finish <= FRONT_CARS) & ~out, 1e6 + again, -finish)
    return (-again).argsort(axis=-1).argsort(axis=-1) + 1


def planted(
    slope: float,
    *,
    n_races: int = 48,
    team_scale: float = 0.0,
    incident_shift: float = 0.0,
    own_tilt: float = 0.0,
    front_tilt: float = 0.0,
    archetype: Archetype = Archetype.INTERMEDIATE,
    seed: int = 0,
) -> tuple[xr.Dataset, pl.DataFrame]:
    """Make an ensemble, and results of races whose true sharpness is `slope` times the ensemble's.

    The log sharpness of the front group differs by `own_tilt` in the scenarios, and further by `front_tilt`
    in the results.
    """
    rng = np.random.default_rng([seed, 77])
    utility = rng.normal(0, 1.2, (n_races, N_CARS)).astype(np.float32)
    logit = np.full((n_races, N_CARS), -2.0, np.float32)
    team = np.arange(N_CARS) // 4

    def draw(n: int, sharpness: float, shift: float, tilt: float) -> tuple[np.ndarray, np.ndarray]:
        chaos = rng.standard_normal((n_races, n, 1))
        out = rng.random((n_races, n, N_CARS)) < 1 / (1 + np.exp(-(logit[:, None] + 0.5 * chaos + shift)))
        effect = team_scale * rng.standard_normal((n_races, n, N_CARS // 4))[..., team]
        return race_order(sharpness * utility[:, None] + effect, out, rng, tilt), out

    finish, out = draw(N_SCENARIOS, 1.0, 0.0, own_tilt)
    happened, retired = draw(1, slope, incident_shift, own_tilt + front_tilt)
    per_season = n_races // len(SEASONS)
    season = np.repeat(SEASONS, per_season).astype(np.int32)
    round_ = np.tile(np.arange(1, per_season + 1), len(SEASONS)).astype(np.int32)
    order = 100 * season + round_
    fold = np.array([f"{s}-{1 + (r - 1) // 12}" for s, r in zip(season, round_, strict=True)])
    driver = np.array([f"d{i:02d}" for i in range(N_CARS)])
    race, car, outcome = ("race",), ("race", "driver"), ("race", "scenario", "driver")
    drivers = np.broadcast_to(driver, (n_races, N_CARS)).copy()
    ensemble = xr.Dataset(
        {
            "finish_position": (outcome, finish.astype(np.int16)),
            "running": (outcome, ~out),
            "utility": (car, utility),
            "incident_logit": (car, logit),
            "chaos_scale": (race, np.full(n_races, 0.5, np.float32)),
        },
        {
            "race": order.astype(np.int64),
            "season": (race, season),
            "round": (race, round_),
            "race_order": (race, order),
            "track_id": (race, np.full(n_races, "kansas")),
            "archetype": (race, np.full(n_races, str(archetype))),
            "fold": (race, fold),
            "field_size": (race, np.full(n_races, N_CARS, np.int16)),
            "network_as_of": (race, order - 1),
            **dict.fromkeys(("driver_id", "name", "team", "make"), (car, drivers)),
            "start_position": (car, np.tile(np.arange(1, N_CARS + 1, dtype=np.int16), (n_races, 1))),
        },
    )
    results = pl.DataFrame(
        {
            "race_id": np.repeat(order.astype(np.int64), N_CARS),
            "race_order": np.repeat(order.astype(np.int64), N_CARS),
            "driver_id": np.tile(driver, n_races).tolist(),
            "finish_position": happened.ravel().astype(np.int64),
            "running": ~retired.ravel(),
        }
    )
    return ensemble, results


def planted_calendar(
    slope: float, *, races_each: int = 24, fold_races: int = 24, **options: float
) -> tuple[dict[Archetype, xr.Dataset], pl.DataFrame]:
    """Make races of all archetypes, which take turns: ensembles and results as `planted` makes them.

    A season has four times half of `races_each` rounds.
    """
    ensembles, results = {}, []
    for place, archetype in enumerate(ARCHETYPES):
        ensemble, own = planted(slope, n_races=races_each, archetype=archetype, seed=place, **options)
        season = ensemble["season"].values
        round_ = len(ARCHETYPES) * (ensemble["round"].values - 1) + place + 1
        order = (100 * season + round_).astype(np.int32)
        blocks = 1 + (round_ - 1) // fold_races
        names = [f"{year}-{block}" for year, block in zip(season, blocks, strict=True)]
        ids = dict(zip(ensemble["race"].values.tolist(), order.tolist(), strict=True))
        ensembles[archetype] = ensemble.assign_coords(
            race=order.astype(np.int64),
            round=("race", round_.astype(np.int32)),
            race_order=("race", order),
            network_as_of=("race", order - 1),
            fold=("race", np.array(names)),
        )
        results.append(own.with_columns(pl.col("race_id", "race_order").replace_strict(ids)))
    return ensembles, pl.concat(results)


def fit_races(
    ensemble: xr.Dataset, results: pl.DataFrame, archetype: Archetype, seed: int = 42, **settings: int
) -> xr.DataTree:
    """Tabulate the curves of an archetype's races, and fit its map to them."""
    curves = tabulate_races(ensemble, results, seed)
    return fit_archetype(ensemble, results, curves, archetype, SEASONS, seed=seed, **settings)
