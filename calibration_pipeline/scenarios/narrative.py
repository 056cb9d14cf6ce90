"""The skeleton narrative of one race: who is fast, who falls out, who leads, in that causal order."""

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.scenarios.covariates import build_field, race_slots
from calibration_pipeline.scenarios.ensemble import check_request, draw_races
from calibration_pipeline.scenarios.races import race_coordinates


class SkeletonNarrative:
    """One race, ready to be simulated from a fitted causal network.

    Parameters
    ----------
    features : polars.DataFrame
        `DriverFeatures` of one race.
    network : xarray.Dataset
        As made by `networks.fit_networks`.
    fold : str, optional
        Which of the network's fits to draw from; its last by default.

    Raises
    ------
    ValueError
        If `features` are not those of one race, a driver is entered twice, or the network has no such fit.
    """

    def __init__(self, features: pl.DataFrame, network: xr.Dataset, fold: str | None = None) -> None:
        n_races = features["race_id"].n_unique()
        if n_races != 1:
            raise ValueError(f"Argument features must hold the cars of one race, got {n_races} races.")
        folds = network["fold"].values.tolist()
        if not folds or (fold is not None and fold not in folds):
            raise ValueError(f"Argument fold must be one of the network's fits {folds}, got {fold!r}.")
        self._features, self._network, self._fold = features, network, fold or folds[-1]

    def generate_scenarios(self, n_scenarios: int, seed: int) -> xr.Dataset:
        """Draw scenarios of the race.

        Parameters
        ----------
        n_scenarios : int
            1 to `ensemble.MAX_SCENARIOS`.
        seed : int
            Scenario k is the same for the same seed, however many are drawn.

        Returns
        -------
        xarray.Dataset
            `ScenarioEnsemble` with dims (race=1, scenario, driver).
        """
        check_request(self._features, n_scenarios)
        slots = race_slots(self._features)
        labels = xr.Dataset(coords=race_coordinates(slots, len(slots), None))
        labels = labels.assign_coords(fold=("race", np.array([self._fold])))
        return draw_races(labels, build_field(slots, len(slots)), self._network, n_scenarios, seed, {})
