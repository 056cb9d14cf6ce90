"""Skeleton narrative: simulator of one race from the causal network, with interventions and evidence.

`do` sets variables (interventions), `condition` restricts the scenarios to evidence.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.scenarios.covariates import build_field, padded_width, race_slots
from calibration_pipeline.scenarios.draw.ensemble import check_request, draw_races
from calibration_pipeline.scenarios.draw.pins import Pin, effective_sample_size, resample
from calibration_pipeline.scenarios.network.model import MAX_CAUTIONS
from calibration_pipeline.scenarios.races import race_coordinates

PILOT_PROPOSALS = 1000
MAX_PROPOSALS = 200_000
SPARE_PROPOSALS = 1.2
LEAST_EFFECTIVE = 100

type Condition = Callable[[xr.Dataset], xr.DataArray]


class SkeletonNarrative:
    """Simulator of one race from a fitted causal network.

    `do` and `condition` return a new narrative and leave this one as it is.

    Parameters
    ----------
    features : polars.DataFrame
        `DriverFeatures` of one race.
    network : xarray.Dataset
        As returned by `fit.by_fold.fit_networks`.
    fold : str, optional
        Fold whose fit the scenarios are drawn from; the network's last by default.

    Raises
    ------
    ValueError
        If `features` are not those of one race, a driver is entered twice, or the network has no such fit.
    """

    def __init__(self, features: pl.DataFrame, network: xr.Dataset, fold: str | None = None) -> None:
        n_races = features["race_id"].n_unique()
        if n_races != 1:
            raise ValueError(f"Argument features must hold the cars of one race, got {n_races} races.")
        check_request(features, n_scenarios=1)
        folds = network["fold"].values.tolist()
        if not folds or (fold is not None and fold not in folds):
            raise ValueError(f"Argument fold must be one of the network's fits {folds}, got {fold!r}.")
        self._features, self._network, self._fold = features, network, fold or folds[-1]
        self._done: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}
        self._conditions: tuple[Condition, ...] = ()

    def do(
        self,
        *,
        start_position: Mapping[str, int] | None = None,
        incident: Mapping[str, bool] | None = None,
        n_cautions: int | None = None,
        chaos: float | None = None,
    ) -> Self:
        """Set variables by intervention; the distribution of their causes is unchanged.

        Parameters
        ----------
        start_position : mapping, optional
            driver_id -> grid position; the other cars keep their order on the free positions.
        incident : mapping, optional
            driver_id -> whether the car retires.
        n_cautions : int, optional
            Caution periods.
        chaos : float, optional
            The race's regime, standard normal by default: larger values have more incidents and cautions.

        Returns
        -------
        SkeletonNarrative

        Raises
        ------
        ValueError
            If a driver is not in the race, or a value is out of range.
        """
        changed = copy.copy(self)
        if start_position is not None:
            changed._features = move_on_grid(self._features, start_position)
        if chaos is not None and not np.isfinite(chaos):
            raise ValueError(f"Argument chaos must be finite, got {chaos}.")
        given_values = {"incident": incident, "n_cautions": n_cautions, "chaos": chaos}
        changed._done = self._done | self._checked(given_values)
        return changed

    def condition(
        self,
        *,
        incident: Mapping[str, bool] | None = None,
        n_cautions: int | None = None,
        where: Condition | None = None,
    ) -> Self:
        """Condition on evidence; the distribution of its causes is updated.

        Parameters
        ----------
        incident : mapping, optional
            driver_id -> whether the car retired.
        n_cautions : int, optional
            Caution periods.
        where : callable, optional
            Maps the scenarios, a dataset with dims (scenario, driver_id) and the variables of
            `ScenarioEnsemble`, to bool (scenario): whether each is consistent with the evidence.

        Returns
        -------
        SkeletonNarrative

        Raises
        ------
        ValueError
            If a driver is not in the race, or a value is out of range.
        """
        changed = copy.copy(self)
        changed._seen = self._seen | self._checked({"incident": incident, "n_cautions": n_cautions})
        changed._conditions = (*self._conditions, *([where] if where else []))
        return changed

    def generate_scenarios(self, n_scenarios: int, seed: int) -> xr.Dataset:
        """Draw scenarios of the race.

        With evidence, scenarios are proposed from the network, weighted by the probability of the evidence
        and resampled. The number of proposals aims at an effective sample size of `n_scenarios`, and is at
        most `MAX_PROPOSALS`.

        Parameters
        ----------
        n_scenarios : int
            1 to `ensemble.MAX_SCENARIOS`.
        seed : int
            Without evidence scenario k is the same for the same seed, however many are drawn.

        Returns
        -------
        xarray.Dataset
            `ScenarioEnsemble` with dims (race=1, scenario, driver). With evidence the attributes
            `n_proposals` and `effective_sample_size` give the number of proposals and their effective number.

        Raises
        ------
        ValueError
            If `n_scenarios` is out of range, or the evidence is so improbable that the effective sample size
            of `MAX_PROPOSALS` is below `LEAST_EFFECTIVE`.
        """
        check_request(self._features, n_scenarios)
        if not self._seen and not self._conditions:
            return self._propose(n_scenarios, seed)[0]
        n_proposals = min(max(n_scenarios, PILOT_PROPOSALS), MAX_PROPOSALS)
        proposed, log_weight = self._propose(n_proposals, seed)
        worth = effective_sample_size(log_weight)
        if worth < n_scenarios and n_proposals < MAX_PROPOSALS:
            enough = SPARE_PROPOSALS * n_proposals * n_scenarios / worth if worth else MAX_PROPOSALS
            n_proposals = min(int(enough), MAX_PROPOSALS)
            proposed, log_weight = self._propose(n_proposals, seed)
            worth = effective_sample_size(log_weight)
        if worth < min(LEAST_EFFECTIVE, n_scenarios):
            raise ValueError(
                f"The evidence is too improbable to condition on: the effective sample size of "
                f"{n_proposals:,} scenarios must be at least {min(LEAST_EFFECTIVE, n_scenarios)}, "
                f"got {worth:.0f}."
            )
        kept = resample(log_weight, n_scenarios, np.random.default_rng(seed))
        ensemble = proposed.isel(scenario=kept).assign_coords(scenario=np.arange(n_scenarios))
        return ensemble.assign_attrs(n_proposals=n_proposals, effective_sample_size=worth)

    def _propose(self, n_scenarios: int, seed: int) -> tuple[xr.Dataset, NDArray[np.float64]]:
        """Scenarios under the interventions, and their log weights given the evidence."""
        slots = race_slots(self._features)
        labels = xr.Dataset(coords=race_coordinates(slots, len(slots), None))
        labels = labels.assign_coords(fold=("race", np.array([self._fold])))
        field = build_field(slots, len(slots))
        pins = self._pins(slots["driver_id"].to_list())
        ensemble, log_weights = draw_races(labels, field, self._network, n_scenarios, seed, {}, pins)
        log_weight = log_weights[0].astype(np.float64)
        race = ensemble.isel(race=0).swap_dims(driver="driver_id")
        for condition in self._conditions:
            consistent = condition(race)
            if consistent.dims != ("scenario",) or consistent.dtype != np.bool_:
                raise ValueError(
                    f"Argument where must give a bool for each scenario, got {consistent.dtype} with dims "
                    f"{consistent.dims}."
                )
            log_weight[~consistent.values] = -np.inf
        return ensemble, log_weight

    def _pins(self, drivers: list[str]) -> dict[str, Pin]:
        pins = {}
        for name in dict.fromkeys([*self._done, *self._seen]):
            done, seen = self._done.get(name), self._seen.get(name)
            if name != "incident":
                pins[name] = Pin(seen if done is None else done, where=True, seen=done is None)
                continue
            held, value, evidence = np.zeros((3, padded_width(len(drivers)), 1), bool)
            for given_values, is_evidence in ((seen or {}, True), (done or {}, False)):
                for driver, out in given_values.items():
                    slot = drivers.index(driver)
                    held[slot], value[slot], evidence[slot] = True, out, is_evidence
            pins[name] = Pin(value, held, evidence)
        return pins

    def _checked(self, given_values: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in given_values.items() if value is not None}
        n_cautions = given.get("n_cautions", 0)
        if n_cautions not in range(MAX_CAUTIONS + 1):
            raise ValueError(
                f"Argument n_cautions must be a whole number from 0 to {MAX_CAUTIONS}, got {n_cautions!r}."
            )
        _check_drivers("incident", given.get("incident", {}), self._features)
        return given


def move_on_grid(features: pl.DataFrame, start_position: Mapping[str, int]) -> pl.DataFrame:
    """Move cars to other grid positions; the other cars keep their order on the free positions.

    Parameters
    ----------
    features : polars.DataFrame
        `DriverFeatures` of one race.
    start_position : mapping
        driver_id -> grid position.

    Returns
    -------
    polars.DataFrame
        The same rows.

    Raises
    ------
    ValueError
        If a driver is not in the race, or a position is given twice or not on the grid.

    Examples
    --------
    >>> grid = pl.DataFrame({"driver_id": ["a", "b", "c"], "start_position": [1, 2, 3]})
    >>> move_on_grid(grid, {"a": 3})["start_position"].to_list()
    [3, 1, 2]
    """
    _check_drivers("start_position", start_position, features)
    positions = list(start_position.values())
    if len(set(positions)) < len(positions) or not set(positions) <= set(range(1, len(features) + 1)):
        raise ValueError(
            f"Argument start_position must give each car a position of its own from 1 to {len(features)}, "
            f"got {positions}."
        )
    others = features.filter(~pl.col("driver_id").is_in(list(start_position))).sort("start_position")
    free = [position for position in range(1, len(features) + 1) if position not in positions]
    grid = dict(start_position) | dict(zip(others["driver_id"].to_list(), free, strict=True))
    return features.with_columns(
        start_position=pl.col("driver_id").replace_strict(
            grid, return_dtype=features.schema["start_position"]
        )
    )


def _check_drivers(argument: str, values: object, features: pl.DataFrame) -> None:
    known = set(features["driver_id"].to_list())
    if not isinstance(values, Mapping) or (unknown := [driver for driver in values if driver not in known]):
        found = values if not isinstance(values, Mapping) else unknown
        raise ValueError(
            f"Argument {argument} must map driver_id's of the race to values; not in the race: {found!r}."
        )
