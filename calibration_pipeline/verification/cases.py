"""What a backtest holds to be judged: its cars and its pairs of cars, padding left out, and baselines.

Two baselines stand beside the raw and recalibrated forecasts: `climatology` (every place equally likely) and
`start_order` (cars finish about where they start, a fixed kernel).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.ranking import rank
from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.schemas.frames import FORECASTS, Table

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
        Kind of track, '' if there are no races.
    race : ndarray
        Index of the car's race, (cars,).
    field_size, position : ndarray
        Cars in that race and the car's finish, (cars,).
    probability : dict
        Forecast to P(finish = place), (cars, places), 0 beyond the field.
    pair_race : ndarray
        Index of the pair's race, (pairs,); each two cars of a race are one pair.
    pair_outcome : ndarray
        Whether the first car of the pair beat the second, (pairs,) bool.
    head_to_head : dict
        Forecast to P(the first car beats the second), (pairs,).
    """

    archetype: str
    race: NDArray[np.int64]
    field_size: NDArray[np.int64]
    position: NDArray[np.int64]
    probability: dict[str, NDArray[np.float64]]
    pair_race: NDArray[np.int64]
    pair_outcome: NDArray[np.bool_]
    head_to_head: dict[str, NDArray[np.float64]]

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
    race, slot = np.nonzero(mask)
    size = backtest["field_size"].values.astype(np.int64)
    position = backtest["finish_position"].values.astype(np.int64)[mask]
    _refuse_outside_field(position, size[race], backtest["race"].values[race])

    first, second = np.triu_indices(mask.shape[1], k=1)
    pair_race, pair = np.nonzero(mask[:, second])
    first, second = first[pair], second[pair]
    finish = backtest["finish_position"].values

    baselines = _baselines(backtest)
    probability, head_to_head = {}, {}
    for forecast in FORECASTS:
        if forecast in JUDGED:
            places = backtest[forecast].values[mask]
            pairs = backtest[f"{forecast}_head_to_head"].values[pair_race, first, second]
        else:
            places = baselines[forecast][race, slot]
            pairs = independent_head_to_head(baselines[forecast])[pair_race, first, second]
        inside = np.arange(places.shape[1]) < size[race][:, None]
        probability[forecast] = np.where(inside, places, 0.0)
        head_to_head[forecast] = pairs
        _refuse_improbable(forecast, probability[forecast])
        _refuse_improbable(f"{forecast}_head_to_head", pairs)
    return Cases(
        archetype=str(archetypes[0]) if archetypes.size else "",
        race=race,
        field_size=size[race],
        position=position,
        probability=probability,
        pair_race=pair_race,
        pair_outcome=finish[pair_race, first] < finish[pair_race, second],
        head_to_head=head_to_head,
    )


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
    places = np.arange(n_cars)
    kernel = np.exp(-np.abs(places[:, None] - places) / (START_KERNEL_WIDTH * n_cars))
    scale = np.ones(n_cars)
    for _ in range(SINKHORN_STEPS):
        scale = np.sqrt(scale / (kernel @ scale))
    return scale[:, None] * kernel * scale


def independent_head_to_head(probability: NDArray) -> NDArray[np.float64]:
    """Return P(i beats j) + P(tie) / 2 for cars that finish independently of each other.

    Parameters
    ----------
    probability : ndarray
        P(finish = place), (..., car, place).

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


def _baselines(backtest: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    mask = car_mask(backtest).values
    sizes = backtest["field_size"].values.astype(np.int64)
    start = np.where(mask, backtest["start_position"].values.astype(np.float64), np.inf)
    grid = rank(start) - 1
    climatology = np.zeros((*mask.shape, mask.shape[1]))
    start_order = np.zeros_like(climatology)
    for n_cars in np.unique(sizes):
        of_size = np.flatnonzero(sizes == n_cars)
        climatology[of_size, :n_cars, :n_cars] = 1 / n_cars
        start_order[of_size, :n_cars, :n_cars] = start_order_table(int(n_cars))[grid[of_size, :n_cars]]
    return {"climatology": climatology, "start_order": start_order}


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
