"""Group `probabilities`: users' probabilities of events and of positions, recalibrated race by race.

Scenarios, of the network and of users' simulators, have the group `calibration`. Modules that need JAX are
imported inside the functions that compute.
"""

from typing import Any

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.forecasters.folder import Forecasts, Form, find_forecasters
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.seasons import without_gaps
from calibration_pipeline.sources.base import Source
from calibration_pipeline.sources.names import read_nicknames

from ..partitions import EVENT_FORECASTERS, POSITION_FORECASTERS, every_season
from ..settings import Settings
from ..storage.io_manager import depends_on
from .metadata import bullets, plot, rows, table

of_every_season = dg.AssetIn(partition_mapping=every_season)


@dg.asset(
    partitions_def=EVENT_FORECASTERS,
    kinds={"polars", "parquet"},
    code_version="1",
    ins={"driver_features": of_every_season},
    metadata=depends_on("seed", "fold_races", "forecaster_files"),
)
def event_probabilities(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    driver_features: dict[str, pl.DataFrame],
) -> dg.Output[pl.DataFrame]:
    """Probabilities of wins and top finishes as a forecaster issues them; odds without their margin."""
    forecasts, facts = _read(context, settings, driver_features, Form.EVENTS)
    overrounds = forecasts.overrounds.group_by("market", "source").agg(pl.mean("overround"), races=pl.len())
    probabilities = forecasts.frame
    return dg.Output(
        probabilities,
        metadata={
            **rows(probabilities),
            "races": probabilities["race_id"].n_unique(),
            "overrounds": table(overrounds.sort("market")),
            **facts,
        },
    )


@dg.asset(
    partitions_def=EVENT_FORECASTERS,
    kinds={"numpyro", "netcdf"},
    code_version="1",
    ins={"race_results": of_every_season},
    metadata=depends_on("seed", "fold_races", "seasons"),
)
def event_posterior(
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    event_probabilities: pl.DataFrame,
) -> dg.Output[xr.DataTree]:
    """Event map of each market: NUTS fits for every fold, to the races before it, and to all races."""
    from calibration_pipeline.walk_forward.events import fit_events

    fit = fit_events(
        event_probabilities,
        pl.concat(race_results.values()),
        without_gaps(settings.season_list),
        fold_races=settings.fold_length,
        seed=settings.seed,
    )
    return dg.Output(fit, metadata={"markets": ", ".join(fit.children)})


@dg.asset(
    partitions_def=EVENT_FORECASTERS,
    kinds={"numpy", "netcdf"},
    code_version="1",
    ins={"race_results": of_every_season},
    metadata=depends_on("seed"),
)
def event_state(
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    event_probabilities: pl.DataFrame,
    event_posterior: xr.DataTree,
) -> dg.Output[xr.DataTree]:
    """Sharpness of each market before every race, filtered over the races before it."""
    from calibration_pipeline.calibration.summaries import state_by_race
    from calibration_pipeline.plots.state import state_figure
    from calibration_pipeline.walk_forward.events import filter_events

    results = pl.concat(race_results.values())
    state = filter_events(event_probabilities, results, event_posterior, settings.seed)
    pictures = {
        f"sharpness_over_time, {market}": plot(state_figure(state_by_race(own), "slope"))
        for market, own in state.children.items()
    }
    return dg.Output(state, metadata={"markets": ", ".join(state.children), **pictures})


@dg.asset(partitions_def=EVENT_FORECASTERS, kinds={"numpy", "parquet"}, code_version="1")
def recalibrated_events(
    event_probabilities: pl.DataFrame, event_state: xr.DataTree
) -> dg.Output[pl.DataFrame]:
    """Probabilities of events, recalibrated with the state before each race."""
    from calibration_pipeline.walk_forward.events import race_states, recalibrate_events

    recalibrated = recalibrate_events(event_probabilities, race_states(event_state))
    return dg.Output(recalibrated, metadata=rows(recalibrated))


@dg.asset(
    partitions_def=EVENT_FORECASTERS,
    kinds={"numpy", "parquet"},
    code_version="1",
    ins={"race_results": of_every_season},
    metadata=depends_on("seed", "fold_races", "forecaster_files"),
)
def next_events(
    context: dg.AssetExecutionContext,
    source: dg.ResourceParam[Source],
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    event_state: xr.DataTree,
) -> dg.Output[pl.DataFrame]:
    """Probabilities of events of the next race, recalibrated; none where the forecaster lacks the race."""
    from calibration_pipeline.walk_forward.next_race import forecast_next_events

    seasons = [int(season) for season in race_results]
    events, notes = forecast_next_events(
        source.next_race(max(seasons)),
        find_forecasters(settings.forecasters).by_form[Form.EVENTS][context.partition_key],
        event_state,
        seasons,
        fold_races=settings.fold_length,
        seed=settings.seed,
        nicknames=read_nicknames(settings.nicknames),
    )
    return dg.Output(events, metadata={**rows(events), "notes": bullets(notes)})


@dg.asset(
    partitions_def=POSITION_FORECASTERS,
    kinds={"polars", "netcdf"},
    code_version="1",
    ins={"driver_features": of_every_season},
    metadata=depends_on("seed", "fold_races", "forecaster_files"),
)
def position_probabilities(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    driver_features: dict[str, pl.DataFrame],
) -> dg.Output[xr.Dataset]:
    """Probabilities of finish positions as a forecaster issues them."""
    forecasts, facts = _read(context, settings, driver_features, Form.POSITIONS)
    return dg.Output(forecasts.dataset, metadata={"races": forecasts.dataset.sizes["race"], **facts})


@dg.asset(
    partitions_def=POSITION_FORECASTERS,
    kinds={"numpyro", "netcdf"},
    code_version="1",
    ins={"race_results": of_every_season},
    metadata=depends_on("seed", "seasons"),
)
def position_posterior(
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    position_probabilities: xr.Dataset,
) -> dg.Output[xr.DataTree]:
    """Marginal map of each archetype: NUTS fits for every fold, to the races before it, and to all races."""
    from calibration_pipeline.walk_forward.positions import fit_positions

    results, seasons = pl.concat(race_results.values()), without_gaps(settings.season_list)
    fit = fit_positions(position_probabilities, results, seasons, seed=settings.seed)
    return dg.Output(fit, metadata={"archetypes": ", ".join(fit.children)})


@dg.asset(
    partitions_def=POSITION_FORECASTERS,
    kinds={"numpy", "netcdf"},
    code_version="1",
    ins={"race_results": of_every_season},
    metadata=depends_on("seed"),
)
def position_state(
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    position_probabilities: xr.Dataset,
    position_posterior: xr.DataTree,
) -> dg.Output[xr.DataTree]:
    """Sharpness of the positions before every race, filtered over the races before it."""
    from calibration_pipeline.calibration.summaries import state_by_race
    from calibration_pipeline.plots.state import state_figure
    from calibration_pipeline.walk_forward.positions import filter_positions

    results = pl.concat(race_results.values())
    state = filter_positions(position_probabilities, results, position_posterior, settings.seed)
    return dg.Output(
        state, metadata={"sharpness_over_time": plot(state_figure(state_by_race(state), "slope"))}
    )


@dg.asset(partitions_def=POSITION_FORECASTERS, kinds={"numpy", "netcdf"}, code_version="1")
def recalibrated_positions(
    position_probabilities: xr.Dataset, position_state: xr.DataTree
) -> dg.Output[xr.Dataset]:
    """Probabilities of positions, recalibrated with the state before each race."""
    from calibration_pipeline.walk_forward.positions import recalibrate_positions

    recalibrated = recalibrate_positions(position_probabilities, position_state["races"].to_dataset())
    return dg.Output(recalibrated, metadata={"races": recalibrated.sizes["race"]})


@dg.asset(
    partitions_def=POSITION_FORECASTERS,
    kinds={"numpy", "parquet"},
    code_version="1",
    ins={"race_results": of_every_season},
    metadata=depends_on("seed", "fold_races", "forecaster_files"),
)
def next_positions(
    context: dg.AssetExecutionContext,
    source: dg.ResourceParam[Source],
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    position_state: xr.DataTree,
) -> dg.Output[pl.DataFrame]:
    """Probabilities of a win and top finishes in the next race, from recalibrated positions."""
    from calibration_pipeline.walk_forward.next_race import forecast_next_positions

    seasons = [int(season) for season in race_results]
    events, notes = forecast_next_positions(
        source.next_race(max(seasons)),
        find_forecasters(settings.forecasters).by_form[Form.POSITIONS][context.partition_key],
        position_state,
        seasons,
        fold_races=settings.fold_length,
        seed=settings.seed,
        nicknames=read_nicknames(settings.nicknames),
    )
    return dg.Output(events, metadata={**rows(events), "notes": bullets(notes)})


def _read(
    context: dg.AssetExecutionContext,
    settings: Settings,
    driver_features: dict[str, pl.DataFrame],
    form: Form,
) -> tuple[Forecasts, dict[str, Any]]:
    """Return the forecasts of the partition's forecaster, and metadata on its files and what is left out."""
    from calibration_pipeline.forecasters.field_matching import RacesInForce
    from calibration_pipeline.forecasters.folder import read_forecaster
    from calibration_pipeline.sources.quarantine import defect_lines

    races = RacesInForce(pl.concat(driver_features.values()), read_nicknames(settings.nicknames))
    files = find_forecasters(settings.forecasters).by_form[form][context.partition_key]
    forecasts = read_forecaster(files, races, None, fold_races=settings.fold_length, seed=settings.seed)
    left_out = [*forecasts.notes, *defect_lines(forecasts.quarantine)]
    for line in left_out:
        context.log.warning(line)
    return forecasts, {
        "files": ", ".join(map(without_credentials, files.files)),
        "left_out": bullets(left_out),
    }
