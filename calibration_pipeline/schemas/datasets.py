"""Pandera contracts of the labelled arrays.

Fields differ in size: `driver` is padded to the widest field, cars first, padding last. `field_size` is the
number of cars in a race; values beyond it are never read.
"""

import inspect
from typing import Any

import numpy as np
import pandera.xarray as pa
import polars as pl
import xarray as xr
from pandera import check
from pandera.typing.xarray import Coordinate

from calibration_pipeline.stats.ranking import are_permutations

RACE = ("race",)
CAR = ("race", "driver")
RACE_SCENARIO = ("race", "scenario")
OUTCOME = ("race", "scenario", "driver")
POSITION = ("race", "driver", "position")
PAIR = ("race", "driver", "opponent")

SUM_TOLERANCE = 1e-6


def car_mask(dataset: xr.Dataset) -> xr.DataArray:
    """Return which slots hold a car: (race, driver), bool.

    Parameters
    ----------
    dataset : xarray.Dataset
        Has the dimension `driver` and the coordinate `field_size` (race).
    """
    slot = xr.DataArray(np.arange(dataset.sizes["driver"]), dims="driver")
    return (slot < dataset["field_size"]).transpose("race", "driver")


def list_cars(dataset: xr.Dataset) -> pl.DataFrame:
    """Return the cars of every race, a row each, in the order of `car_mask`.

    Parameters
    ----------
    dataset : xarray.Dataset
        As for `car_mask`, with the coordinates `race` and `driver_id`.

    Returns
    -------
    polars.DataFrame
        race_index, slot, race_id, driver_id.
    """
    race, slot = np.nonzero(car_mask(dataset).values)
    return pl.DataFrame(
        {
            "race_index": race,
            "slot": slot,
            "race_id": dataset["race"].values[race],
            "driver_id": dataset["driver_id"].values[race, slot].tolist(),
        },
        schema_overrides={"driver_id": pl.String},
    )


class InheritedFields(pa.DatasetModel):
    """Dataset contract whose subclasses keep its fields: pandera gives them fields without dims and rules."""

    def __init_subclass__(cls, **options: Any) -> None:
        for base in cls.__mro__[1 : cls.__mro__.index(InheritedFields)]:
            for name in inspect.get_annotations(base):
                if name not in vars(cls):
                    setattr(cls, name, vars(base)[name])
        super().__init_subclass__(**options)


class Races(InheritedFields):
    """Coordinates of every dataset over races and cars."""

    race: Coordinate[np.int64] = pa.Field(dims=RACE, ge=0, unique=True, description="race_id")
    season: Coordinate[np.int32] = pa.Field(dims=RACE, description="Season, year")
    round: Coordinate[np.int32] = pa.Field(dims=RACE, ge=1, description="Points race of the season")
    race_order: Coordinate[np.int32] = pa.Field(dims=RACE, description="100 * season + round")
    track_id: Coordinate[np.str_] = pa.Field(dims=RACE, description="Track and layout")
    archetype: Coordinate[np.str_] = pa.Field(dims=RACE, description="Archetype of the track")
    fold: Coordinate[np.str_] = pa.Field(dims=RACE, description="Block of races forecast from one fit")
    field_size: Coordinate[np.int16] = pa.Field(dims=RACE, ge=1, description="Cars in the race")
    driver_id: Coordinate[np.str_] = pa.Field(dims=CAR, description="Driver, '' for padding")
    name: Coordinate[np.str_] = pa.Field(dims=CAR, description="Driver's name, '' for padding")
    team: Coordinate[np.str_] = pa.Field(dims=CAR, description="Team, '' if unknown or padding")
    make: Coordinate[np.str_] = pa.Field(dims=CAR, description="Manufacturer, '' if unknown or padding")
    start_position: Coordinate[np.int16] = pa.Field(dims=CAR, ge=0, description="Grid, 0 for padding")


class ScenarioEnsemble(Races):
    """Simulated races: outcomes by race, scenario and car.

    The network's ensembles have every variable; a user's may lack all outcomes but the finish. Without
    `running` every classified car counts as running.
    """

    network_as_of: Coordinate[np.int32] = pa.Field(
        dims=RACE, ge=0, description="race_order of the last race that the network's fit saw, 0 if a user's"
    )
    finish_position: np.int16 = pa.Field(dims=OUTCOME, ge=0, description="Finish, 0 for padding")
    running: np.bool_ = pa.Field(dims=OUTCOME, required=False, description="Running at the finish")
    laps_completed: np.int16 = pa.Field(dims=OUTCOME, required=False, ge=0, description="Laps completed")
    laps_led: np.int16 = pa.Field(dims=OUTCOME, required=False, ge=0, description="Laps led")
    fastest_laps: np.int16 = pa.Field(
        dims=OUTCOME, required=False, ge=0, description="Green laps on which fastest"
    )
    race_laps: np.int16 = pa.Field(
        dims=RACE_SCENARIO, required=False, ge=1, description="Laps run in the race"
    )
    green_laps: np.int16 = pa.Field(dims=RACE_SCENARIO, required=False, ge=0, description="Laps under green")
    n_cautions: np.int16 = pa.Field(dims=RACE_SCENARIO, required=False, ge=0, description="Caution periods")
    utility: np.float32 = pa.Field(dims=CAR, description="Mean log-strength s*u of the running order")
    incident_logit: np.float32 = pa.Field(dims=CAR, description="Logit of retiring at chaos 0")
    chaos_scale: np.float32 = pa.Field(dims=RACE, ge=0, description="Weight of chaos in the incident logit")

    class Config:
        """Pandera options."""

        strict = True

    @check("finish_position", error="finish_position must be a permutation of 1..n in every scenario")
    def finish_is_a_permutation(cls, finish_position: xr.DataArray) -> bool:
        """Each position is taken once in every scenario; padding is 0."""
        return are_permutations(finish_position.values, finish_position["field_size"].values)


class Backtest(Races):
    """Out-of-sample finish probabilities, raw and recalibrated, with the official finishes."""

    calibration_as_of: Coordinate[np.int32] = pa.Field(
        dims=RACE, ge=0, description="race_order of the race before, of any archetype; 0 without a state"
    )
    network_as_of: Coordinate[np.int32] = pa.Field(
        dims=RACE, ge=0, description="race_order of the last race that the network's fit saw"
    )
    n_calibration_races: Coordinate[np.int32] = pa.Field(
        dims=RACE, ge=0, description="Earlier races of the archetype, 0 without a state"
    )
    raw: np.float64 = pa.Field(dims=POSITION, ge=0, le=1, description="P(finish = position), raw")
    recalibrated: np.float64 = pa.Field(
        dims=POSITION, ge=0, le=1, description="P(finish = position), recalibrated"
    )
    raw_head_to_head: np.float64 = pa.Field(
        dims=PAIR, ge=0, le=1, description="P(driver beats opponent), raw"
    )
    recalibrated_head_to_head: np.float64 = pa.Field(
        dims=PAIR, ge=0, le=1, description="P(driver beats opponent), recalibrated"
    )
    finish_position: np.int16 = pa.Field(dims=CAR, ge=0, description="Official finish, 0 for padding")
    share_beaten: np.float64 = pa.Field(
        dims=CAR, ge=0, lt=1, description="Mean share of the field beaten in earlier races, 0 for padding"
    )

    class Config:
        """Pandera options."""

        strict = True

    @check(
        "raw", "recalibrated", error=f"rows and columns over the cars must sum to 1 within {SUM_TOLERANCE}"
    )
    def coherent(cls, probability: xr.DataArray) -> bool:
        """Every car has a position, and every position is taken."""
        return is_coherent(probability)

    @check("calibration_as_of", error="calibration_as_of must be before the race (race_order)")
    def nothing_from_the_future(cls, calibration_as_of: xr.DataArray) -> bool:
        """The calibration that is applied to a race saw only earlier races."""
        return bool((calibration_as_of.values < calibration_as_of["race_order"].values).all())


def is_coherent(probability: xr.DataArray) -> bool:
    """Return whether rows and columns over the cars of every race sum to 1, and padding is 0.

    Parameters
    ----------
    probability : xarray.DataArray
        (race, driver, position) with the coordinate `field_size`.
    """
    values = probability.values
    inside = np.arange(values.shape[-1]) < probability["field_size"].values[:, None]
    rows = np.abs(values.sum(axis=2) - inside).max(initial=0)
    columns = np.abs(values.sum(axis=1) - inside).max(initial=0)
    return bool(max(rows, columns) <= SUM_TOLERANCE)


class Posterior(pa.DatasetModel):
    """Parameters of the calibration fitted on all races."""

    slope_mu: np.float32 = pa.Field(dims=("chain", "draw"), description="Log slope of the first season")
    slope_sigma: np.float32 = pa.Field(
        dims=("chain", "draw"), ge=0, description="Season-to-season step of the log slope"
    )
    noise_sigma: np.float32 = pa.Field(
        dims=("chain", "draw"), ge=0, description="Race-level sd of log sharpness"
    )
    intercept: np.float32 = pa.Field(dims=("chain", "draw"), description="Shift of the incident logit")


class SampleStats(pa.DatasetModel):
    """Statistics of the sampler, by draw."""

    diverging: np.bool_ = pa.Field(dims=("chain", "draw"), description="Divergent transition")


class FitConvergence(pa.DatasetModel):
    """Convergence diagnostics by fit: one a fold, and `latest`; NaN where a diagnostic is undefined."""

    fold: Coordinate[np.str_] = pa.Field(dims=("fold",), unique=True, description="Fold, or latest")
    parameter: Coordinate[np.str_] = pa.Field(
        dims=("parameter",), unique=True, description="Scalar parameter"
    )
    r_hat: np.float64 = pa.Field(
        dims=("fold", "parameter"), gt=0, nullable=True, description="Rank-normalised split R-hat"
    )
    ess_bulk: np.float64 = pa.Field(
        dims=("fold", "parameter"), gt=0, nullable=True, description="Bulk effective sample size"
    )
    ess_tail: np.float64 = pa.Field(
        dims=("fold", "parameter"), gt=0, nullable=True, description="Tail effective sample size"
    )
    divergences: np.int64 = pa.Field(dims=("fold",), ge=0, description="Divergent transitions of the fit")


CURVE = ("race", "order_coefficient")
REFERENCE_SURFACE = ("race", "sharpness_coefficient", "noise_coefficient")


class RaceCurves(pa.DatasetModel):
    """Log-likelihood curves of races as Chebyshev coefficients (`calibration.race_curves`)."""

    race: Coordinate[np.int64] = pa.Field(dims=RACE, ge=0, unique=True, description="race_id")
    archetype: Coordinate[np.str_] = pa.Field(dims=RACE, description="Archetype of the track")
    season: Coordinate[np.int32] = pa.Field(dims=RACE, description="Season, year")
    race_order: Coordinate[np.int32] = pa.Field(dims=RACE, description="100 * season + round")
    fold: Coordinate[np.str_] = pa.Field(dims=RACE, description="Block of races forecast from one fit")
    order_curve: np.float32 = pa.Field(dims=CURVE, description="Observed order, by log sharpness")
    front_curve: np.float32 = pa.Field(
        dims=CURVE, description="Observed order of the front group, by its log sharpness"
    )
    incident_curve: np.float32 = pa.Field(
        dims=("race", "incident_coefficient"), description="Observed incidents, by shift of the logit"
    )
    reference_surface: np.float32 = pa.Field(
        dims=REFERENCE_SURFACE, description="Mean over scenarios of the ensemble, by log sharpness and noise"
    )
    reference_front_surface: np.float32 = pa.Field(
        dims=REFERENCE_SURFACE, description="As reference_surface, of the order of the front group"
    )


class FittedRaces(pa.DatasetModel):
    """Races of a fit."""

    race: Coordinate[np.int64] = pa.Field(dims=RACE, ge=0, unique=True, description="race_id")
    season: np.int32 = pa.Field(dims=RACE, description="Season, year")
    race_order: np.int32 = pa.Field(dims=RACE, description="100 * season + round")


class CalibrationPosterior(pa.DataTreeModel):
    """A fit with its draws and diagnostics; `xarray.open_datatree` and ArviZ read it directly."""

    posterior: Posterior
    sample_stats: SampleStats
    convergence: FitConvergence
    constant_data: FittedRaces


class SimulatedTruth(pa.DatasetModel):
    """True parameters and latent variables of a simulated season; laws have parameters by archetype."""

    race: Coordinate[np.int64] = pa.Field(dims=RACE, ge=0, unique=True, description="race_id")
    driver: Coordinate[np.str_] = pa.Field(dims=("driver",), unique=True, description="driver_id")
    archetype: Coordinate[np.str_] = pa.Field(dims=("archetype",), unique=True, description="Archetype")
    skill: np.float64 = pa.Field(dims=("driver", "archetype"), description="Driver's part of the ability")
    team_strength: np.float64 = pa.Field(
        dims=("driver", "archetype"), description="Team's part of the ability"
    )
    sharpness: np.float64 = pa.Field(dims=("archetype",), gt=0, description="Factor of the ability")
    chaos: np.float64 = pa.Field(dims=RACE, description="Chaos of the race")
    speed: np.float64 = pa.Field(
        dims=("race", "driver"), nullable=True, description="Speed before luck, NaN if not racing"
    )


class CausalNetwork(pa.DatasetModel):
    """Fitted parameters of the causal network, one set a fold."""

    fold: Coordinate[np.str_] = pa.Field(dims=("fold",), unique=True, description="Fold that the fit is for")
    network_as_of: Coordinate[np.int32] = pa.Field(
        dims=("fold",), ge=0, description="race_order of the last race that the fit saw"
    )
    n_races: Coordinate[np.int32] = pa.Field(dims=("fold",), ge=1, description="Races that the fit saw")
    pace_weight: np.float32 = pa.Field(
        dims=("fold", "draw", "archetype", "pace_covariate"), description="Weights of the log-strength"
    )
    team_scale: np.float32 = pa.Field(dims=("fold", "draw"), ge=0, description="Sd of race x team effects")
    front_sharpness: np.float32 = pa.Field(
        dims=("fold", "draw", "archetype"), gt=0, description="Factor on log-strengths in the front group"
    )
    incident_intercept: np.float32 = pa.Field(
        dims=("fold", "draw", "archetype"), description="Logit of retiring, at chaos 0 and form 0"
    )
    incident_weight: np.float32 = pa.Field(
        dims=("fold", "draw", "archetype", "incident_covariate"),
        description="Weights of the incident logit",
    )
    chaos_scale: np.float32 = pa.Field(
        dims=("fold", "draw", "archetype"), ge=0, description="Weight of chaos in the incident logit"
    )
    caution_intercept: np.float32 = pa.Field(
        dims=("fold", "draw", "archetype"), description="Log rate of cautions"
    )


class PooledParameters(pa.DatasetModel):
    """Parameters of the calibration of all archetypes together."""

    slope_mu: np.float32 = pa.Field(dims=("chain", "draw"), description="Log slope of the first season")
    slope_sigma: np.float32 = pa.Field(
        dims=("chain", "draw"), ge=0, description="Season-to-season step of the log slope"
    )
    archetype_sigma: np.float32 = pa.Field(
        dims=("chain", "draw"), ge=0, description="Spread of the archetypes around the common slope"
    )
    noise_sigma: np.float32 = pa.Field(
        dims=("chain", "draw", "archetype"), ge=0, description="Race-level sd of log sharpness"
    )
    intercept: np.float32 = pa.Field(
        dims=("chain", "draw", "archetype"), description="Shift of the incident logit"
    )
    log_slope: np.float32 = pa.Field(
        dims=("chain", "draw", "archetype", "season"), description="Log slope of each season"
    )


class FoldParameters(InheritedFields):
    """Draws of the fits' parameters that the state of any map needs: one fit a fold, and `latest`."""

    fold: Coordinate[np.str_] = pa.Field(dims=("fold",), unique=True, description="Fold, or latest")
    archetype: Coordinate[np.str_] = pa.Field(dims=("archetype",), unique=True, description="Archetype")
    slope_sigma: np.float64 = pa.Field(
        dims=("fold", "draw"), ge=0, description="Season-to-season step of the log slope"
    )
    archetype_sigma: np.float64 = pa.Field(
        dims=("fold", "draw"), ge=0, description="Spread of the archetypes around the common slope"
    )
    noise_sigma: np.float64 = pa.Field(
        dims=("fold", "draw", "archetype"), ge=0, description="Race-level sd of log sharpness"
    )
    n_races: np.int32 = pa.Field(dims=("fold", "archetype"), ge=0, description="Races that the fit saw")
    as_of: np.int32 = pa.Field(
        dims=("fold",), ge=0, description="race_order of the last race that the fit saw, 0 for none"
    )


class SlowParameters(FoldParameters):
    """Draws of the latent map's parameters that the state needs, and the reference of the ensembles."""

    reference_log_slope: np.float64 = pa.Field(
        dims=("fold", "archetype"), description="Log sharpness of the ensemble's own scenarios"
    )
    reference_noise: np.float64 = pa.Field(
        dims=("fold", "archetype"), ge=0, description="Race-level sd of the scenarios' log sharpness"
    )
    reference_front_tilt: np.float64 = pa.Field(
        dims=("fold", "archetype"),
        description="Log sharpness of the scenarios' front group, relative to that of all stages",
    )


class PooledPosterior(pa.DataTreeModel):
    """The fits of all archetypes together."""

    posterior: PooledParameters
    sample_stats: SampleStats
    slow: SlowParameters
    convergence: FitConvergence


class MapStates(InheritedFields):
    """Draws of the state of any map before each race that has one, in order of time."""

    race: Coordinate[np.int64] = pa.Field(dims=RACE, ge=0, unique=True, description="race_id")
    archetype: Coordinate[np.str_] = pa.Field(dims=RACE, description="Archetype of the track")
    season: Coordinate[np.int32] = pa.Field(dims=RACE, description="Season, year")
    fold: Coordinate[np.str_] = pa.Field(dims=RACE, description="Block of races forecast from one fit")
    race_order: Coordinate[np.int32] = pa.Field(dims=RACE, description="100 * season + round")
    calibration_as_of: Coordinate[np.int32] = pa.Field(
        dims=RACE, ge=0, description="race_order of the race before, of any archetype"
    )
    n_calibration_races: Coordinate[np.int32] = pa.Field(
        dims=RACE, ge=1, description="Earlier races of the archetype"
    )
    log_slope: np.float32 = pa.Field(dims=("race", "draw"), description="Log calibration slope")
    noise_sigma: np.float32 = pa.Field(
        dims=("race", "draw"), ge=0, description="Race-level sd of log sharpness"
    )
    intercept: np.float32 = pa.Field(dims=("race", "draw"), description="Shift of the incident logit")

    class Config:
        """Pandera options."""

        strict = True

    @check("calibration_as_of", error="calibration_as_of must be before the race (race_order)")
    def nothing_from_the_future(cls, calibration_as_of: xr.DataArray) -> bool:
        """The state before a race has seen only earlier races."""
        return bool((calibration_as_of.values < calibration_as_of["race_order"].values).all())


class RaceStates(MapStates):
    """Draws of the latent map's state before each race that has one."""

    front_tilt: np.float32 = pa.Field(
        dims=("race", "draw"), description="Log of a further factor on the front group's sharpness"
    )

    class Config:
        """Pandera options."""

        strict = True


NEXT = ("opening", "archetype", "draw")


class NextMapStates(InheritedFields):
    """Draws of the state before the next race, by what it opens; NaN where an archetype has no state."""

    opening: Coordinate[np.str_] = pa.Field(
        dims=("opening",), unique=True, description="same_fold, new_fold or new_season"
    )
    archetype: Coordinate[np.str_] = pa.Field(dims=("archetype",), unique=True, description="Archetype")
    log_slope: np.float32 = pa.Field(dims=NEXT, nullable=True, description="Log calibration slope")
    noise_sigma: np.float32 = pa.Field(
        dims=NEXT, nullable=True, ge=0, description="Race-level sd of log sharpness"
    )
    intercept: np.float32 = pa.Field(dims=NEXT, nullable=True, description="Shift of the incident logit")
    n_calibration_races: np.int32 = pa.Field(
        dims=("opening", "archetype"), ge=0, description="Earlier races of the archetype, 0 without a state"
    )


class NextStates(NextMapStates):
    """Draws of the latent map's state before the next race."""

    front_tilt: np.float32 = pa.Field(
        dims=NEXT, nullable=True, description="Log of a further factor on the front group's sharpness"
    )


class CalibrationState(pa.DataTreeModel):
    """State of the calibration before every race, and before the next race."""

    races: RaceStates
    next: NextStates


class CarResults(pa.DatasetModel):
    """Results of the cars of an archetype's races; 0 and False in padding."""

    race: Coordinate[np.int64] = pa.Field(dims=RACE, ge=0, unique=True, description="race_id")
    finish_position: np.int16 = pa.Field(dims=CAR, ge=0, description="Official finish")
    running: np.bool_ = pa.Field(dims=CAR, description="Running at the finish")
    laps_led: np.int16 = pa.Field(dims=CAR, ge=-1, description="Laps led, -1 where not known")
    share_beaten: np.float64 = pa.Field(
        dims=CAR, ge=0, lt=1, description="Mean share of the field that the driver beat in earlier races"
    )


class RaceCovariates(pa.DatasetModel):
    """Covariates that the causal network reads of an archetype's races; 0 in padding."""

    race: Coordinate[np.int64] = pa.Field(dims=RACE, ge=0, unique=True, description="race_id")
    pace: np.float32 = pa.Field(dims=(*CAR, "pace_covariate"), description="Centred within the race")
    incident: np.float32 = pa.Field(dims=(*CAR, "incident_covariate"), description="Of retiring")
    start_score: np.float32 = pa.Field(dims=CAR, description="Normal score of the grid")
    car: np.bool_ = pa.Field(dims=CAR, description="Whether the slot holds a car")
    team: np.int32 = pa.Field(dims=CAR, ge=0, description="Number of the team within the race")
    archetype: np.int32 = pa.Field(dims=RACE, ge=0, description="Index of the archetype")
    scheduled_laps: np.int32 = pa.Field(dims=RACE, ge=1, description="Laps that were scheduled")
    caution: np.float32 = pa.Field(dims=RACE, description="Log of the track's caution rate, centred")


class ArchetypeRaces(pa.DataTreeModel):
    """One archetype's races of all seasons: raw forecasts beside results, covariates and networks."""

    forecast: ScenarioEnsemble
    results: CarResults
    field: RaceCovariates
    network: CausalNetwork
    curves: RaceCurves


def races_of[T: (pl.DataFrame, xr.Dataset)](value: T, archetype: str) -> T:
    """Return the rows, or the entries along the coordinate's dimension, of an archetype.

    Parameters
    ----------
    value : polars.DataFrame or xarray.Dataset
        With a column, or a coordinate of one dimension, called archetype. A dataset without one is returned
        unchanged.
    archetype : str
    """
    if isinstance(value, pl.DataFrame):
        return value.filter(archetype=archetype)
    if "archetype" not in value.coords:
        return value
    return value.isel({value["archetype"].dims[0]: value["archetype"].values == archetype})
