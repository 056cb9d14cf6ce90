"""Starting grids of a race whose grid is not set: Plackett-Luce draws by form, fitted to earlier grids."""

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from calibration_pipeline.scenarios.draw.ensemble import simulate_races
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.stats.ranking import rank

MOST_STRENGTH = 10.0
FAR = 1e9


def fit_grid_strength(features: pl.DataFrame) -> float:
    """Return the maximum-likelihood slope of `start_form` in the Plackett-Luce law of grids.

    The pole goes to car i with probability proportional to exp(strength * start_form_i), the next position
    likewise among the other cars (Plackett 1975, doi:10.2307/2346567).

    Parameters
    ----------
    features : polars.DataFrame
        `DriverFeatures` of races whose grid is known.

    Returns
    -------
    float
        0 (grids are a lottery) to `MOST_STRENGTH`; 0 without races.

    Examples
    --------
    >>> form = [2.0, 1.0, 0.0, -1.0] * 50
    >>> grid = pl.DataFrame({"start_form": form, "start_position": [1, 2, 4, 3] * 50})
    >>> grid = grid.with_columns(race_id=pl.int_range(pl.len()) // 4)
    >>> round(fit_grid_strength(grid), 1)
    1.2
    """
    ordered = features.sort("race_id", "start_position")
    forms = [
        part.to_numpy()
        for part in ordered.group_by("race_id", maintain_order=True).agg("start_form")["start_form"]
    ]
    if not forms:
        return 0.0
    width = max(map(len, forms))
    still_there = np.array([np.arange(width) < len(form) for form in forms])
    form = np.array([np.pad(form, (0, width - len(form))) for form in forms])

    def loss(strength: float) -> float:
        log_strength = np.where(still_there, strength * form, -FAR)
        from_here = np.logaddexp.accumulate(log_strength[:, ::-1], axis=1)[:, ::-1]
        return -float((log_strength - from_here)[still_there].sum())

    return float(minimize_scalar(loss, bounds=(0.0, MOST_STRENGTH), method="bounded").x)


def draw_grids(
    race: pl.DataFrame, strength: float, n_grids: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw grids of a race.

    Parameters
    ----------
    race : polars.DataFrame
        `DriverFeatures` of one race.
    strength : float
        As returned by `fit_grid_strength`.
    n_grids : int
    rng : numpy.random.Generator

    Returns
    -------
    array of int, shape (grid, car)
        Grid position of each row's car, from 1.
    """
    score = strength * race["start_form"].to_numpy() + rng.gumbel(size=(n_grids, race.height))
    return rank(-score)


def simulate_without_grid(
    race: pl.DataFrame,
    grids: NDArray[np.int64],
    network: xr.Dataset,
    fold_races: int | None,
    n_scenarios: int,
    seed: int,
    change: Recalibration | None = None,
) -> xr.Dataset:
    """Draw scenarios of one race, split evenly over the grids; they go through the network's draws in turn.

    Parameters
    ----------
    race : polars.DataFrame
        `DriverFeatures` of one race, with the expected grid.
    grids : array of int, shape (grid, car)
        As drawn by `draw_grids`.
    network, fold_races, n_scenarios, seed
        As in `ensemble.simulate_races`.
    change : Recalibration, optional
        Arrays (scenario).

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble` of one race; its start_position is the expected grid, its relations are means over
        the grids.
    """
    race_id = int(race["race_id"][0])
    parts = []
    for g, scenarios in enumerate(np.array_split(np.arange(n_scenarios), len(grids))):
        if not len(scenarios):
            continue
        changes = (
            {race_id: Recalibration(*(np.asarray(value)[scenarios] for value in change))} if change else {}
        )
        started = race.with_columns(start_position=pl.Series(grids[g]))
        in_turn = network.roll(draw=-int(scenarios[0]))
        parts.append(simulate_races(started, in_turn, fold_races, len(scenarios), seed + g, changes))
    order = race.sort("start_position", "driver_id")
    aligned = []
    for part in parts:
        slot = {driver: i for i, driver in enumerate(part["driver_id"].values[0].tolist())}
        aligned.append(part.isel(driver=[slot[driver] for driver in order["driver_id"]]))
    first = aligned[0]
    outcomes = [name for name, values in first.data_vars.items() if "scenario" in values.dims]
    joined = {
        name: (first[name].dims, np.concatenate([part[name].values for part in aligned], axis=1))
        for name in outcomes
    }
    relations = {
        name: (values.dims, np.mean([part[name].values for part in aligned], axis=0, dtype=values.dtype))
        for name, values in first.data_vars.items()
        if name not in outcomes
    }
    expected = order["start_position"].to_numpy().astype(np.int16)[None]
    return (
        first.drop_vars([*first.data_vars, "scenario"])
        .assign({**joined, **relations})
        .assign_coords(scenario=np.arange(n_scenarios), start_position=(("race", "driver"), expected))
    )
