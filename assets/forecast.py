"""Group `forecast`: the race that comes next, calibrated exactly as the backtest that was scored."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import dagster as dg
import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline import figures, plotting
from calibration_pipeline.addresses import without_credentials
from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.calibration.coming import (
    FITS,
    SCENARIOS_A_FIT,
    Simulate,
    chance_table,
    chances_by_fit,
    event_table,
    known_events,
    scenario_table,
)
from calibration_pipeline.calibration.recalibration import coming_posterior, draw_recalibration
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.scenarios.ensemble import simulate_races
from calibration_pipeline.scenarios.folds import fold_name
from calibration_pipeline.scenarios.foreign import read_ensemble
from calibration_pipeline.scenarios.grids import draw_grids, fit_grid_strength, simulate_without_grid
from calibration_pipeline.scenarios.network import Recalibration
from calibration_pipeline.scenarios.networks import fit_networks
from calibration_pipeline.scenarios.structure import VARIANTS
from calibration_pipeline.sources.base import Source
from calibration_pipeline.telemetry import build_driver_features

from .contracts import BOUNDARIES
from .events import judged_events
from .metadata import OWNERS, boundary, plot, rows, table
from .scenarios import fold_length
from .settings import Settings

GROUP = "forecast"
GRIDS = 20
GRIDS_A_FIT = 4
GRID = "grid"
CALIBRATION_RACES = "n_calibration_races"
NONE_ANNOUNCED = "The source announces no race that has not run."
TABLES = {
    "forecast_chances": "How likely each car of the next race wins, ends in front or drops out.",
    "forecast_events": "How likely the joint events are in the next race, with intervals.",
    "forecast_scenarios": "The calibrated scenarios of the next race in long form, for an optimizer.",
}


class Coming(NamedTuple):
    """The race that comes: who races, and what is known of them."""

    features: pl.DataFrame
    fold: str
    grid_is_set: bool

    @property
    def race(self) -> dict[str, object]:
        """Race, season, kind of track and track."""
        return self.features.select("race_id", "season", "archetype", "track_id").row(0, named=True)


@dg.multi_asset(
    name="next_race",
    group_name=GROUP,
    ins={"calibration_posterior": dg.AssetIn(metadata={"allow_missing_partitions": True})},
    outs={
        "race_forecast": dg.AssetOut(
            description="Calibrated scenarios of the next race that has not run, as NetCDF.",
            io_manager_key="netcdf",
            kinds={"jax", "netcdf"},
            owners=OWNERS,
            code_version="4",
            metadata=boundary("race_forecast"),
        ),
        **{
            name: dg.AssetOut(
                description=description,
                io_manager_key="parquet",
                kinds={"polars", "parquet"},
                owners=OWNERS,
                code_version="2",
                metadata=boundary(name),
            )
            for name, description in TABLES.items()
        },
    },
)
def next_race(
    source: dg.ResourceParam[Source],
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    lap_aggregates: dict[str, pl.DataFrame],
    driver_features: dict[str, pl.DataFrame],
    causal_network: dict[str, xr.Dataset],
    calibration_posterior: dict[str, xr.DataTree],
) -> Iterator[dg.Output]:
    """Draw the next race by exactly the procedure that was backtested, and say what its scenarios say.

    Of no race where the source announces none, or a user's own ensemble lacks it: all is stored, empty.
    """
    folds = fold_length(settings)
    last = max(race_results)
    entries = source.next_race(int(last))
    history = pl.concat(driver_features.values())
    if entries is None:
        none = simulate_races(
            driver_features[last].clear(), causal_network[last], folds, settings.scenarios, settings.seed
        )
        yield from _nothing(none, NONE_ANNOUNCED)
        return
    results = pl.concat(race_results.values())
    features = build_driver_features(entries, results, pl.concat(lap_aggregates.values()))
    fold = features.select(fold_name(pl.col("season"), pl.col("round"), folds)).item(0, 0)
    coming = Coming(features, fold, grid_is_set=entries["start_position"].null_count() == 0)
    race = coming.race
    fit = calibration_posterior.get(str(race["archetype"]))
    posterior = None if fit is None else coming_posterior(fit, fold, int(str(race["season"])))
    n_scenarios = settings.scenarios
    if settings.ensembles:
        own = read_ensemble(settings.ensembles, features, folds).ensemble
        if own.sizes["race"] == 0:
            yield from _nothing(own, f"The next race, {race['race_id']}, is not in the user's own ensemble.")
            return
        n_scenarios = own.sizes["scenario"]
        simulate: Simulate = partial(_ranked_anew, own, settings.seed)
    else:
        network = causal_network[last]
        if fold not in network["fold"].values:
            structure = VARIANTS[settings.network]
            network = fit_networks(
                history, results, int(str(race["season"])), folds, settings.seed, structure
            )
        simulate = _simulator(coming, network, history, settings)
    race_id = int(str(race["race_id"]))
    change = posterior is not None and draw_recalibration(posterior, race_id, n_scenarios, settings.seed)
    forecast = simulate(change or None, n_scenarios)
    n_calibration = 0 if posterior is None else int(posterior["n_calibration_races"])
    forecast.attrs |= {GRID: "set" if coming.grid_is_set else "drawn", CALIBRATION_RACES: n_calibration}
    yield from _outputs(forecast, simulate, posterior, coming, settings)


def _simulator(coming: Coming, network: xr.Dataset, history: pl.DataFrame, settings: Settings) -> Simulate:
    """Return what draws the race from the network: on its grid, or on grids drawn where none is set."""
    folds, seed = fold_length(settings), settings.seed
    race_id = int(str(coming.race["race_id"]))
    if coming.grid_is_set:
        return lambda change, n: simulate_races(
            coming.features, network, folds, n, seed, {race_id: change} if change else {}
        )
    rng = np.random.default_rng([seed, race_id])
    grids = draw_grids(coming.features, fit_grid_strength(history), GRIDS, rng)

    def simulate(change: Recalibration | None, n: int) -> xr.Dataset:
        some = grids[:GRIDS_A_FIT] if n <= SCENARIOS_A_FIT else grids
        return simulate_without_grid(coming.features, some, network, folds, n, seed, change)

    return simulate


def _ranked_anew(own: xr.Dataset, seed: int, change: Recalibration | None, n: int) -> xr.Dataset:
    """Return the first n of a user's own scenarios, their cars ranked anew."""
    some = own.isel(scenario=slice(n))
    if change is None:
        return some
    part = Recalibration(*(np.asarray(values)[: some.sizes["scenario"]] for values in change))
    return rerank_races(some, {int(own["race"].values[0]): part}, seed)


def _outputs(
    forecast: xr.Dataset, simulate: Simulate, posterior: xr.Dataset | None, coming: Coming, settings: Settings
) -> Iterator[dg.Output]:
    events = known_events(forecast, judged_events(settings.events))
    cars = happens = None
    if posterior is not None:
        cars, happens = chances_by_fit(simulate, posterior, events, settings.seed)
    chances = chance_table(forecast, cars)
    joint = event_table(forecast, events, happens)
    figure, ax = figures.figure_axes(height=figures.rows_height(chances.height, 0.24))
    plotting.draw_finish_distribution(ax, chances)
    told = {
        **coming.race,
        "fold": coming.fold,
        "scenarios": forecast.sizes["scenario"],
        "scenarios_of": without_credentials(settings.ensembles or "the causal network"),
        "grid": "set" if coming.grid_is_set else f"not set yet: {GRIDS} drawn; the backtest knew the grid",
        "recalibrated": posterior is not None,
        "calibration_races": forecast.attrs[CALIBRATION_RACES],
        "seed": settings.seed,
    }
    errors = chances.select(pl.max_horizontal("win_error", "top5_error", "top10_error").max())
    yield dg.Output(forecast, "race_forecast", metadata={**told, "races": 1, "chances": plot(figure)})
    yield dg.Output(
        chances,
        "forecast_chances",
        metadata={
            **rows(chances),
            **told,
            "interval_fits": FITS if posterior is not None else 0,
            "largest_monte_carlo_error": float(errors.item()),
            "cars": table(chances, 45),
        },
    )
    yield dg.Output(joint, "forecast_events", metadata={**rows(joint), **told, "events": table(joint, 40)})
    scenarios = scenario_table(forecast)
    yield dg.Output(scenarios, "forecast_scenarios", metadata={**rows(scenarios), **told})


def forecast_notes(forecast: xr.Dataset) -> list[str]:
    """Return what must be known to read a stored forecast: calibration, grid, files; or why there is none."""
    if forecast.sizes["race"] == 0:
        return [str(forecast.attrs.get("why", NONE_ANNOUNCED))]
    n_races = int(forecast.attrs[CALIBRATION_RACES])
    kind = parse_archetype(str(forecast["archetype"].values[0])).label.lower()
    calibrated = (
        f"Calibrated with {n_races} earlier races of its kind ({kind})."
        if n_races
        else f"Not calibrated: too few earlier races of its kind ({kind})."
    )
    grid = (
        "The grid is set."
        if forecast.attrs[GRID] == "set"
        else f"The grid is not set yet: {GRIDS} were drawn from how earlier grids followed form. "
        "The forecasts that were judged knew theirs, so this one is less sure than they were."
    )
    files = "Scenarios for an optimizer: race_forecast.nc and forecast_scenarios.parquet in the store."
    return [calibrated, grid, files]


def _nothing(none: xr.Dataset, why: str) -> Iterator[dg.Output]:
    """Store a forecast of no race, and say why."""
    yield dg.Output(none.assign_attrs(why=why), "race_forecast", metadata={"races": 0, "why": why})
    for name in TABLES:
        yield dg.Output(BOUNDARIES[name].empty(), name, metadata={"dagster/row_count": 0, "why": why})
