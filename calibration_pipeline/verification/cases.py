"""Cases of a backtest: its cars and pairs of cars without padding, and the baselines' forecasts.

The baselines of the raw and recalibrated forecasts are `climatology` (every position equally likely),
`start_order` (cars finish about where they start, a fixed kernel) and, for two cars head to head,
`bradley_terry` (the shares of opponents that their drivers beat in earlier races).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.schemas.frames import Table
from calibration_pipeline.stats.ranking import rank
from calibration_pipeline.telemetry.baselines import bradley_terry

JUDGED = ("raw", "recalibrated")
START_KERNEL_WIDTH = 0.5
"""Width of the start-order kernel over the field size; start and finish then have correlation .39."""
SINKHORN_STEPS = 60


@dataclass(frozen=True)
class Cases:
    """The cars and the pairs of cars of a backtest, as flat arrays.

    Attributes
    ----------
    archetype : str
        Track archetype, '' if there are no races.
    mask : ndarray
        Which slots hold a car, (race, driver) bool: the cars below are its True ones, in order.
    race : ndarray
        Index of the car's race, (cars,).
    field_size, position : ndarray
        Cars in that race and the car's finish, (cars,).
    probability : dict
        Forecast to P(finish = position), (cars, positions), 0 beyond the field; not of `bradley_terry`.
    pair_race : ndarray
        Index of the pair's race, (pairs,); the pairs are those of `car_pairs`. A backtest without
        probabilities of pairs has none.
    pair_outcome : ndarray
        Whether the first car of the pair beat the second, (pairs,) bool.
    head_to_head : dict
        Forecast to P(the first car beats the second), (pairs,).
    counts : dict
        Forecast to its number of scenarios by position, (cars, positions), for forecasts with an ensemble.
    """

    archetype: str
    mask: NDArray[np.bool_]
    race: NDArray[np.int64]
    field_size: NDArray[np.int64]
    position: NDArray[np.int64]
    probability: dict[str, NDArray[np.float64]]
    pair_race: NDArray[np.int64]
    pair_outcome: NDArray[np.bool_]
    head_to_head: dict[str, NDArray[np.float64]]
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def n_races(self) -> int:
        """Races in the backtest."""
        return int(np.unique(self.race).size)


def backtest_cases(backtest: xr.Dataset) -> Cases:
    """Flatten a backtest into its cars and pairs, with the baselines' forecasts.

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest`, of one archetype; no races are allowed.

    Returns
    -------
    Cases

    Raises
    ------
    ValueError
        If there is more than one archetype, a finish lies outside the field, or a probability of a car is not
        in [0, 1].
    """
    archetypes = np.unique(backtest["archetype"].values)
    if archetypes.size > 1:
        raise ValueError(f"Argument backtest must hold one archetype, got {', '.join(archetypes)}.")
    mask = car_mask(backtest).values
    race = np.nonzero(mask)[0]
    sizes = backtest["field_size"].values.astype(np.int64)
    size, finish = sizes[race], backtest["finish_position"].values.astype(np.int64)
    position = finish[mask]
    _refuse_outside_field(position, size, backtest["race"].values[race])

    baselines = {
        "climatology": _uniform(mask, sizes),
        "start_order": start_order_probabilities(backtest["start_position"].values, sizes),
    }
    forecasts = {name: backtest[name].values for name in JUDGED} | baselines
    inside = np.arange(mask.shape[1]) < size[:, None]
    probability = {name: np.where(inside, values[mask], 0.0) for name, values in forecasts.items()}
    has_pairs = "raw_head_to_head" in backtest
    pairs = pair_race, first, second = car_pairs(mask if has_pairs else mask[:0])
    head_to_head: dict[str, NDArray[np.float64]] = {}
    if has_pairs:
        head_to_head = {name: backtest[f"{name}_head_to_head"].values[pairs] for name in JUDGED}
        head_to_head |= {name: independent_head_to_head(values)[pairs] for name, values in baselines.items()}
        share = backtest["share_beaten"].values
        head_to_head["bradley_terry"] = bradley_terry(share[pair_race, first], share[pair_race, second])
    for name in JUDGED:
        _refuse_improbable(name, probability[name])
        if has_pairs:
            _refuse_improbable(f"{name}_head_to_head", head_to_head[name])
    return Cases(
        archetype=str(archetypes[0]) if archetypes.size else "",
        mask=mask,
        race=race,
        field_size=size,
        position=position,
        probability=probability,
        pair_race=pair_race,
        pair_outcome=finish[pair_race, first] < finish[pair_race, second],
        head_to_head=head_to_head,
    )


def backtest_scenarios(
    backtest: xr.Dataset, ensembles: Mapping[str, xr.Dataset]
) -> dict[str, NDArray[np.integer]]:
    """Return the scenarios that a backtest's probabilities come from: finishes (race, scenario, driver).

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest`.
    ensembles : mapping
        Forecast, 'raw' or 'recalibrated', to `ScenarioEnsemble` of the same races and cars.

    Returns
    -------
    dict
        Forecast to finish positions.

    Raises
    ------
    ValueError
        If the forecasts differ from these two, or an ensemble has other races or cars.
    """
    check_forecasts(ensembles)
    for forecast, ensemble in ensembles.items():
        for name, noun in (("race", "races"), ("field_size", "fields"), ("driver_id", "cars")):
            if not np.array_equal(ensemble[name].values, backtest[name].values):
                raise ValueError(
                    f"Argument ensembles must hold the {noun} of backtest; {forecast} has others."
                )
    return {forecast: ensemble["finish_position"].values for forecast, ensemble in ensembles.items()}


def car_pairs(mask: NDArray) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return every pair of cars of a race once: the race, and the slots of the first and the second car.

    Parameters
    ----------
    mask : ndarray
        Which slots hold a car, cars first, (race, driver) bool.

    Returns
    -------
    race, first, second : ndarray
        (pairs,) each, race by race.

    Examples
    --------
    >>> [index.tolist() for index in car_pairs(np.array([[True, True, False], [True, True, True]]))]
    [[0, 1, 1, 1], [0, 0, 0, 1], [1, 1, 2, 2]]
    """
    first, second = np.triu_indices(mask.shape[1], k=1)
    race, pair = np.nonzero(mask[:, second])
    return race, first[pair], second[pair]


@lru_cache(maxsize=128)
def start_order_table(n_cars: int) -> NDArray[np.float64]:
    """Return P(finish = k | start = j), rows j, columns k, of the start-order baseline.

    Proportional to ``exp(-|k - j| / (START_KERNEL_WIDTH * n_cars))``, made coherent (rows and columns add to
    1) by symmetric Sinkhorn scaling.

    Parameters
    ----------
    n_cars : int
        Cars in the field.

    Returns
    -------
    ndarray
        (n_cars, n_cars).

    References
    ----------
    Sinkhorn (1964), doi:10.1214/aoms/1177703591; the symmetric scaling: Knight, Ruiz & Uçar (2014),
    doi:10.1137/110825753.

    Examples
    --------
    >>> start_order_table(2).round(3)
    array([[0.731, 0.269],
           [0.269, 0.731]])
    """
    position = np.arange(n_cars)
    kernel = np.exp(-np.abs(position[:, None] - position) / (START_KERNEL_WIDTH * n_cars))
    # `stats.sinkhorn` stops at row sums within 1e-9 and differs from this table by up to 1e-10. One scale for
    # rows and columns keeps the table symmetric to rounding, and the stored scores bitwise equal.
    scale = np.ones(n_cars)
    for _ in range(SINKHORN_STEPS):
        scale = np.sqrt(scale / (kernel @ scale))
    return scale[:, None] * kernel * scale


def start_order_probabilities(start_position: NDArray, field_size: NDArray) -> NDArray[np.float64]:
    """Return P(finish = position) of the start-order baseline, (race, driver, position), 0 beyond the field.

    Parameters
    ----------
    start_position : ndarray
        Position on the grid, (race, driver); only its order within the field matters.
    field_size : ndarray
        Cars, (race,); they come first, slots beyond are not read.

    Examples
    --------
    >>> start_order_probabilities(np.array([[2, 1, 0]]), np.array([2]))[0].round(3).tolist()
    [[0.269, 0.731, 0.0], [0.731, 0.269, 0.0], [0.0, 0.0, 0.0]]
    """
    width = start_position.shape[1]
    start = np.where(np.arange(width) < field_size[:, None], start_position.astype(np.float64), np.inf)
    grid = rank(start) - 1
    probability = np.zeros((*start.shape, width))
    for n_cars in np.unique(field_size):
        of_size = np.flatnonzero(field_size == n_cars)
        probability[of_size, :n_cars, :n_cars] = start_order_table(int(n_cars))[grid[of_size, :n_cars]]
    return probability


def independent_head_to_head(probability: NDArray) -> NDArray[np.float64]:
    """Return P(i beats j) + P(tie) / 2 for cars that finish independently of each other.

    Parameters
    ----------
    probability : ndarray
        P(finish = position), (..., car, position).

    Returns
    -------
    ndarray
        (..., car, car).
    """
    behind = probability.sum(axis=-1, keepdims=True) - np.cumsum(probability, axis=-1) + probability / 2
    return np.clip(probability @ np.swapaxes(behind, -1, -2), 0.0, 1.0)


def table(rows: list[dict[str, object]], contract: type[Table]) -> pl.DataFrame:
    """Return `rows` as a frame with the columns and types of `contract`, also where there are no rows."""
    schema = {name: column.dtype.type for name, column in contract.to_schema().columns.items()}
    return pl.DataFrame(rows, schema=schema)


def _uniform(mask: NDArray, field_size: NDArray) -> NDArray[np.float64]:
    """Return equal probabilities of all positions of the field, (race, driver, position)."""
    return mask[:, :, None] * mask[:, None, :] / field_size[:, None, None]


def _refuse_outside_field(position: NDArray, field_size: NDArray, race_id: NDArray) -> None:
    wrong = np.flatnonzero((position < 1) | (position > field_size))
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"finish_position must lie in 1..field_size, got {position[i]} of {field_size[i]} cars "
            f"in race {race_id[i]} ({wrong.size} cars in all)."
        )


def _refuse_improbable(name: str, probability: NDArray) -> None:
    n_wrong = int((~((probability >= 0) & (probability <= 1))).sum())
    if n_wrong:
        raise ValueError(f"{name} must be probabilities in [0, 1], got {n_wrong} values that are not.")


def check_forecasts(ensembles: Mapping[str, xr.Dataset]) -> None:
    """Raise ValueError unless the forecasts are `JUDGED`, raw and recalibrated."""
    if set(ensembles) != set(JUDGED):
        raise ValueError(f"Argument ensembles must hold {' and '.join(JUDGED)}, got {', '.join(ensembles)}.")
