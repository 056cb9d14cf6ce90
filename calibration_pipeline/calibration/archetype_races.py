"""Races of one archetype over all seasons: raw forecasts joined with results.

The assets of an archetype read this tree, and no partition of a season. A race of another archetype does not
change it. Its groups:

- `forecast`: the raw `ScenarioEnsemble`, without the outcomes that no downstream asset reads;
- `results`: results of its cars, and the mean share of the field that each driver beat in earlier races;
- `field` and `network`: covariates of the cars and the networks of their folds, to redraw the races;
- `curves`: likelihood curves of the races, to which the archetype's map is fitted.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.calibration.race_curves import join_curves
from calibration_pipeline.scenarios.covariates import (
    INCIDENT_COVARIATES,
    PACE_COVARIATES,
    Field,
    build_field,
    race_slots,
)
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.schemas.datasets import car_mask, list_cars
from calibration_pipeline.schemas.results import join_results
from calibration_pipeline.seasons import without_gaps
from calibration_pipeline.telemetry.baselines import align_shares, shares_beaten

UNREAD_OUTCOMES = ("laps_completed", "fastest_laps")
"""Outcomes of a scenario's cars that no fit, score or event reads."""
UNKNOWN_LAPS = -1
FIELD_DIMS: dict[str, tuple[str, ...]] = {
    "pace": ("race", "driver", "pace_covariate"),
    "incident": ("race", "driver", "incident_covariate"),
    "start_score": ("race", "driver"),
    "car": ("race", "driver"),
    "team": ("race", "driver"),
    "archetype": ("race",),
    "scheduled_laps": ("race",),
    "caution": ("race",),
}


def join_archetype_races(
    ensembles: Sequence[xr.Dataset],
    race_results: pl.DataFrame,
    features: pl.DataFrame,
    networks: Sequence[xr.Dataset],
    curves: Sequence[xr.Dataset],
    archetype: str,
    seasons: Sequence[int],
) -> xr.DataTree:
    """Join one archetype's raw forecasts and results.

    Parameters
    ----------
    ensembles : sequence of xarray.Dataset
        `ScenarioEnsemble` of each season, in order.
    race_results : polars.DataFrame
        `RaceResults` of all archetypes: baselines use every earlier race.
    features : polars.DataFrame
        `DriverFeatures` of at least the archetype's races.
    networks : sequence of xarray.Dataset
        `CausalNetwork` of each season.
    curves : sequence of xarray.Dataset
        `RaceCurves` of the archetype's races of each season.
    archetype : str
    seasons : sequence of int
        All seasons, also those without a forecast; kept as an attribute.

    Returns
    -------
    xarray.DataTree
        `ArchetypeRaces`.

    Raises
    ------
    ValueError
        If a car of an ensemble has no result, curves and ensembles are of other races, or seasons differ in
        their number of scenarios.
    """
    forecast = join_seasons(ensembles, archetype).drop_vars(UNREAD_OUTCOMES, errors="ignore")
    joined = join_curves(curves)
    if not np.array_equal(joined["race"].values, forecast["race"].values):
        raise ValueError(
            f"Argument curves must have the races of the ensembles, got {joined.sizes['race']} and "
            f"{forecast.sizes['race']} races of {archetype}: materialize race_curves again."
        )
    tree = xr.DataTree.from_dict(
        {
            "forecast": forecast,
            "results": _aligned_results(forecast, race_results),
            "field": _covariates(forecast, features),
            "network": _fitted_networks(forecast, networks),
            "curves": joined,
        }
    )
    tree.attrs = {"archetype": archetype, "seasons": np.array(seasons)}
    return tree


def raw_forecast(races: xr.DataTree) -> xr.Dataset:
    """Return the raw `ScenarioEnsemble` of an `ArchetypeRaces` tree."""
    return races["forecast"].to_dataset()


def all_seasons(races: xr.DataTree) -> list[int]:
    """Return all seasons of an `ArchetypeRaces` tree from first to last, also those without a forecast.

    NetCDF returns an attribute of length one as a scalar.
    """
    return without_gaps([int(season) for season in np.atleast_1d(races.attrs["seasons"])])


def results_table(races: xr.DataTree) -> pl.DataFrame:
    """Return the results of an `ArchetypeRaces` tree, one row a car: race_id, driver_id and outcomes.

    Parameters
    ----------
    races : xarray.DataTree

    Returns
    -------
    polars.DataFrame
        finish_position, running and laps_led (null where not known) as in `RaceResults`, and share_beaten.
    """
    results = races["results"].to_dataset()
    cars = list_cars(raw_forecast(races)).select("race_id", "driver_id")
    mask = car_mask(raw_forecast(races)).values
    outcomes = {str(name): values.values[mask] for name, values in results.data_vars.items()}
    laps_led = pl.col("laps_led").cast(pl.Int64)
    return cars.with_columns(**outcomes).with_columns(
        pl.col("finish_position").cast(pl.Int64), laps_led=pl.when(laps_led != UNKNOWN_LAPS).then(laps_led)
    )


def network_field(races: xr.DataTree) -> Field:
    """Return the covariates that the races of an `ArchetypeRaces` tree were drawn from."""
    field = races["field"].to_dataset()
    return Field(*(field[name].values for name in Field._fields))


def _aligned_results(forecast: xr.Dataset, race_results: pl.DataFrame) -> xr.Dataset:
    """Return results laid out as the forecast is: (race, driver), 0 and False in padding."""
    columns = race_results.select("race_id", "driver_id", "finish_position", "running", "laps_led")
    cars = join_results(list_cars(forecast), columns, "ensembles")
    cars = cars.with_columns(pl.col("laps_led").fill_null(UNKNOWN_LAPS))
    mask = car_mask(forecast).values

    def spread(name: str, dtype: type) -> tuple[tuple[str, str], np.ndarray]:
        values: np.ndarray = np.zeros(mask.shape, dtype)
        values[mask] = cars[name].to_numpy()
        return ("race", "driver"), values

    return xr.Dataset(
        {
            "finish_position": spread("finish_position", np.int16),
            "running": spread("running", np.bool_),
            "laps_led": spread("laps_led", np.int16),
            "share_beaten": (("race", "driver"), align_shares(forecast, shares_beaten(race_results))),
        },
        {"race": forecast["race"].values},
    )


def _covariates(forecast: xr.Dataset, features: pl.DataFrame) -> xr.Dataset:
    slots = race_slots(features.filter(pl.col("race_id").is_in(forecast["race"].values.tolist())))
    field = build_field(slots, forecast.sizes["driver"])
    return xr.Dataset(
        {name: (dims, getattr(field, name)) for name, dims in FIELD_DIMS.items()},
        {
            "race": forecast["race"].values,
            "pace_covariate": list(PACE_COVARIATES),
            "incident_covariate": list(INCIDENT_COVARIATES),
        },
    )


def _fitted_networks(forecast: xr.Dataset, networks: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return the networks of the folds that the forecast's races belong to, possibly none."""
    folds = np.unique(forecast["fold"].values)
    chosen = [network.isel(fold=np.isin(network["fold"].values, folds)) for network in networks]
    return xr.concat([network for network in chosen if network.sizes["fold"]] or chosen[:1], dim="fold")
