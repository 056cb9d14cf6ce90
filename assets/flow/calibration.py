"""Group `calibration`: how far off the forecasts' sharpness is, and the recalibrated forecasts.

JAX, NumPyro and ArviZ are imported inside the functions that compute.
"""

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES, parse_archetype
from calibration_pipeline.mcmc.convergence import R_HAT_GOOD
from calibration_pipeline.schemas.partition_keys import archetype_of, by_archetype, split_key
from calibration_pipeline.seasons import without_gaps

from ..partitions import (
    ARCHETYPE_PARTITIONS,
    FORECASTERS,
    SEASON_PARTITIONS,
    every_season,
    own_forecaster,
    season_of_forecaster,
    seasons_of_forecaster,
)
from ..settings import Settings
from ..storage.io_manager import LEFT_OUT, OWN_ARCHETYPE, depends_on
from .metadata import chart, number, numbers, plot, table

of_every_season = dg.AssetIn(partition_mapping=every_season)
own_races_of_every_season = dg.AssetIn(partition_mapping=every_season, metadata={OWN_ARCHETYPE: True})
curves_of_every_season = dg.AssetIn(partition_mapping=seasons_of_forecaster, metadata={OWN_ARCHETYPE: True})
scenarios_of_every_season = dg.AssetIn(
    partition_mapping=seasons_of_forecaster,
    metadata={OWN_ARCHETYPE: True, LEFT_OUT: ["laps_completed", "fastest_laps"]},
)
outcomes_alone = dg.AssetIn(
    metadata={LEFT_OUT: ["laps_completed", "fastest_laps", "race_laps", "green_laps", "n_cautions"]}
)
SCORED = ("race", "track_id", "fold", "calibration_as_of", "n_calibration_races")
of_forecaster = dg.AssetIn(partition_mapping=own_forecaster)
own_state = dg.AssetIn(partition_mapping=own_forecaster, metadata={OWN_ARCHETYPE: True})


@dg.asset(
    partitions_def=SEASON_PARTITIONS,
    kinds={"jax", "netcdf"},
    code_version="1",
    ins={"race_results": dg.AssetIn(partition_mapping=season_of_forecaster)},
    metadata=depends_on("seed"),
)
def race_curves(
    settings: dg.ResourceParam[Settings], race_results: pl.DataFrame, scenario_ensemble: xr.Dataset
) -> dg.Output[xr.Dataset]:
    """Log-likelihood of each race's result by sharpness and incident shift of its forecast."""
    from calibration_pipeline.calibration.race_curves import tabulate_races

    curves = tabulate_races(scenario_ensemble, race_results, settings.seed)
    return dg.Output(curves, metadata={"races": curves.sizes["race"]})


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"xarray", "netcdf"},
    code_version="2",
    ins={
        "race_results": of_every_season,
        "driver_features": own_races_of_every_season,
        "causal_network": of_every_season,
        "scenario_ensemble": scenarios_of_every_season,
        "race_curves": curves_of_every_season,
    },
)
def archetype_races(
    context: dg.AssetExecutionContext,
    race_results: dict[str, pl.DataFrame],
    driver_features: dict[str, pl.DataFrame],
    causal_network: dict[str, xr.Dataset],
    scenario_ensemble: dict[str, xr.Dataset],
    race_curves: dict[str, xr.Dataset],
) -> dg.Output[xr.DataTree]:
    """Races of the archetype over all seasons, joined once: what is computed for it reads no season."""
    from calibration_pipeline.calibration.archetype_races import join_archetype_races

    seasons = [split_key(key)[1] for key in scenario_ensemble]
    races = join_archetype_races(
        list(scenario_ensemble.values()),
        pl.concat(race_results.values()),
        pl.concat(driver_features.values()),
        list(causal_network.values()),
        list(race_curves.values()),
        archetype_of(context.partition_key),
        [int(season) for season in seasons],
    )
    sizes = races["forecast"].sizes
    return dg.Output(
        races,
        metadata={"races": sizes["race"], "scenarios": sizes["scenario"], "seasons": ", ".join(seasons)},
    )


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"numpyro", "netcdf"},
    code_version="9",
    metadata=depends_on("seed"),
)
def calibration_posterior(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], archetype_races: xr.DataTree
) -> dg.Output[xr.DataTree]:
    """Calibration of the archetype's forecasts: a NUTS fit of their sharpness to all races."""
    from calibration_pipeline.calibration import summaries
    from calibration_pipeline.calibration.archetype_fit import fit_archetype
    from calibration_pipeline.calibration.archetype_races import all_seasons, raw_forecast, results_table
    from calibration_pipeline.plots import charts, posteriors

    archetype = parse_archetype(archetype_of(context.partition_key))
    fit = fit_archetype(
        raw_forecast(archetype_races),
        results_table(archetype_races),
        archetype_races["curves"].to_dataset(),
        archetype,
        all_seasons(archetype_races),
        seed=settings.seed,
    )
    slopes = summaries.slope_by_season(fit, str(archetype))
    convergence = summaries.convergence_by_fold(fit)
    worst = summaries.worst_convergence(convergence)
    chains_agree = worst.get("worst_r_hat", R_HAT_GOOD) < R_HAT_GOOD
    return dg.Output(
        fit,
        metadata={
            **numbers(worst),
            "next_slope": number(slopes["estimate"][-1]),
            "races": int(fit.attrs["n_races"]),
            "slope": chart(charts.draw_slope_by_season, slopes),
            "mass_outside_table": number(float(fit.attrs["mass_outside_table"])),
            "identification": table(summaries.identification(fit), 60),
            "predictive_checks": table(summaries.predictive_checks(fit)),
            "convergence": table(convergence, 60),
            **({} if chains_agree else {"trace_ranks": plot(posteriors.draw_ranks(fit))}),
        },
    )


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"xarray", "netcdf"},
    code_version="2",
    ins={"calibration_state": own_state},
)
def archetype_state(calibration_state: xr.DataTree) -> dg.Output[xr.Dataset]:
    """State before the archetype's races: a new race of another archetype does not change it."""
    states = calibration_state["races"].to_dataset()
    return dg.Output(states, metadata={"races": states.sizes["race"]})


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"jax", "netcdf"},
    code_version="5",
    metadata=depends_on("seed"),
)
def recalibrated_forecast(
    settings: dg.ResourceParam[Settings], archetype_races: xr.DataTree, archetype_state: xr.Dataset
) -> dg.Output[xr.Dataset]:
    """Scenarios of the archetype's races, drawn with sharpness, incidents and front tilt of the state before.

    The cars of a user's own scenarios are ranked again instead. Races without a state keep the raw scenarios.
    """
    from calibration_pipeline.calibration.recalibration import recalibrate
    from calibration_pipeline.plots import charts
    from calibration_pipeline.scenarios.summaries import finish_chances

    ensemble = recalibrate(archetype_races, archetype_state, settings.seed)
    chances = finish_chances(ensemble)
    return dg.Output(
        ensemble,
        metadata={
            "races": ensemble.sizes["race"],
            "scenarios": ensemble.sizes["scenario"],
            "last_race": chart(
                charts.draw_finish_distribution, chances, n_rows=chances.height, row_height=0.24
            ),
        },
    )


@dg.asset(
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"xarray", "netcdf"},
    code_version="3",
    ins={"recalibrated_forecast": outcomes_alone},
    metadata=depends_on("seed"),
)
def backtest(
    settings: dg.ResourceParam[Settings],
    archetype_races: xr.DataTree,
    recalibrated_forecast: xr.Dataset,
    archetype_state: xr.Dataset,
) -> dg.Output[xr.Dataset]:
    """Probabilities of races that no recalibration had seen, raw and recalibrated, beside the results."""
    from calibration_pipeline.calibration.archetype_races import raw_forecast, results_table
    from calibration_pipeline.plots import charts
    from calibration_pipeline.verification.backtest import build_backtest, scored_races
    from calibration_pipeline.verification.reliability import pit_ecdf

    everything = build_backtest(
        raw_forecast(archetype_races),
        recalibrated_forecast,
        results_table(archetype_races),
        archetype_state,
    )
    scored = scored_races(everything)
    calibrated = int((scored["n_calibration_races"] > 0).sum())
    races = pl.DataFrame({name: scored[name].values for name in SCORED})
    return dg.Output(
        scored,
        metadata={
            "pit": chart(charts.draw_pit, pit_ecdf(scored, settings.seed)),
            "races": scored.sizes["race"],
            "races_recalibrated": calibrated,
            "races_before_the_first_scored": everything.sizes["race"] - scored.sizes["race"],
            "scored": table(races, 60),
        },
    )


@dg.asset(
    partitions_def=FORECASTERS,
    kinds={"numpyro", "netcdf"},
    code_version="8",
    ins={"race_curves": of_forecaster},
    metadata=depends_on("seed", "seasons"),
)
def pooled_posterior(
    settings: dg.ResourceParam[Settings], race_curves: dict[str, xr.Dataset]
) -> dg.Output[xr.DataTree]:
    """Fits of all archetypes together, their slopes partially pooled: one for every fold, and the latest.

    Each fold's fit sees only the races before the fold.
    """
    from calibration_pipeline.calibration import summaries
    from calibration_pipeline.calibration.pooling import fit_pooled
    from calibration_pipeline.calibration.race_curves import join_curves
    from calibration_pipeline.plots import charts

    seasons = without_gaps(settings.season_list)
    pooled = fit_pooled(join_curves(race_curves.values()), seasons, seed=settings.seed)
    slopes = pl.concat(summaries.slope_by_season(pooled, str(archetype)) for archetype in ARCHETYPES)
    convergence = summaries.convergence_by_fold(pooled)
    return dg.Output(
        pooled,
        metadata={
            **numbers(summaries.worst_convergence(convergence)),
            "races": int(pooled.attrs["n_races"]),
            "folds": pooled["slow"].sizes["fold"] - 1,
            "slope": chart(charts.draw_slope_by_season, slopes),
            "convergence": table(convergence, 60),
        },
    )


@dg.asset(
    partitions_def=FORECASTERS,
    kinds={"numpy", "netcdf"},
    code_version="3",
    ins={"race_curves": of_forecaster},
    metadata=depends_on("seed"),
)
def calibration_state(
    settings: dg.ResourceParam[Settings], race_curves: dict[str, xr.Dataset], pooled_posterior: xr.DataTree
) -> dg.Output[xr.DataTree]:
    """Sharpness, incident shift and front tilt before every race, filtered over the races before it."""
    from calibration_pipeline.calibration.race_curves import join_curves
    from calibration_pipeline.calibration.state import filter_state
    from calibration_pipeline.calibration.summaries import state_by_race
    from calibration_pipeline.plots.state import state_figure

    state = filter_state(join_curves(race_curves.values()), pooled_posterior, settings.seed)
    states = state_by_race(state)
    return dg.Output(
        state,
        metadata={
            "races": states.height,
            "sharpness_over_time": plot(state_figure(states, "slope")),
            "front_tilt_over_time": plot(state_figure(states, "tilt")),
            "states": table(states, states.height),
        },
    )


@dg.asset(
    partitions_def=FORECASTERS,
    kinds={"arviz", "parquet"},
    code_version="1",
    ins=dict.fromkeys(("race_curves", "calibration_posterior"), of_forecaster),
)
def model_comparison(
    race_curves: dict[str, xr.Dataset],
    calibration_posterior: dict[str, xr.DataTree],
    pooled_posterior: xr.DataTree,
) -> dg.Output[pl.DataFrame]:
    """Comparison of raw, per-archetype and pooled calibration by leave-one-out, races as the units.

    This describes; the walk-forward scores of `calibration_metrics` decide.
    """
    from calibration_pipeline.calibration.pooling import compare_calibrations
    from calibration_pipeline.calibration.race_curves import join_curves

    curves = join_curves(race_curves.values())
    comparison = compare_calibrations(curves, by_archetype(calibration_posterior), pooled_posterior)
    return dg.Output(comparison, metadata={"comparison": table(comparison)})
