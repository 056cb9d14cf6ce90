"""Group `calibration`: how far off the scenarios' sharpness is, and the repaired scenarios."""

import dagster as dg
import polars as pl
import xarray as xr
from upath import UPath

from calibration_pipeline import arviz_pictures, figures, plotting
from calibration_pipeline.addresses import without_credentials
from calibration_pipeline.archetypes import ARCHETYPES, parse_archetype
from calibration_pipeline.calibration.pooling import compare_calibrations, fit_pooled
from calibration_pipeline.calibration.recalibration import build_backtest, draw_recalibrations, scored_races
from calibration_pipeline.calibration.reranking import rerank_races
from calibration_pipeline.calibration.summaries import (
    convergence_by_fold,
    identification,
    predictive_checks,
    slope_by_season,
)
from calibration_pipeline.calibration.walk_forward import fit_archetype
from calibration_pipeline.scenarios.ensemble import simulate_races
from calibration_pipeline.scenarios.folds import fold_name
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.scenarios.summaries import finish_chances
from calibration_pipeline.verification.reliability import pit_ecdf

from .metadata import OWNERS, boundary, plot, plotted_convergence, table
from .own_races import OWN_ARCHETYPE, RUN_SO_FAR, run_so_far
from .partitions import ARCHETYPE_PARTITIONS, every_season
from .scenarios import fold_length
from .settings import Settings
from .storage import LEFT_OUT, stored_value

GROUP = "calibration"
MCMC_POOL = "mcmc"
"""Fits by NUTS, each of which uses every core; `dagster.yaml` says how many may run at once."""
of_every_season = dg.AssetIn(partition_mapping=every_season)
no_laps = {LEFT_OUT: ["laps_completed", "fastest_laps", "race_laps", "green_laps", "n_cautions"]}
results_so_far = dg.AssetIn(partition_mapping=every_season, metadata={RUN_SO_FAR: True})
own_races_of_every_season = dg.AssetIn(partition_mapping=every_season, metadata={OWN_ARCHETYPE: True})
own_scenarios_of_every_season = dg.AssetIn(
    partition_mapping=every_season, metadata={OWN_ARCHETYPE: True, **no_laps}
)
own_recalibrated_races = dg.AssetIn(metadata=no_laps)


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"numpyro", "netcdf"},
    owners=OWNERS,
    code_version="4",
    io_manager_key="netcdf",
    ins={"race_results": own_races_of_every_season, "scenario_ensemble": own_scenarios_of_every_season},
    pool=MCMC_POOL,
    metadata=boundary("calibration_posterior"),
)
def calibration_posterior(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    scenario_ensemble: dict[str, xr.Dataset],
) -> dg.Output[xr.DataTree]:
    """Fit how much sharper or blunter the scenarios should have been: by NUTS, for every fold and the latest.

    Each fold's fit sees only the races before the fold.
    """
    fit = fit_archetype(
        join_seasons(list(scenario_ensemble.values()), context.partition_key),
        pl.concat(race_results.values()),
        parse_archetype(context.partition_key),
        sorted(int(season) for season in scenario_ensemble),
        seed=settings.seed,
    )
    slopes = slope_by_season(fit, context.partition_key)
    convergence = convergence_by_fold(fit)
    figure, ax = figures.figure_axes()
    plotting.draw_slope_by_season(ax, slopes)
    return dg.Output(
        fit,
        metadata={
            **plotted_convergence(convergence),
            "coming_slope": slopes["estimate"][-1],
            "races": int(fit.attrs["n_races"]),
            "folds": fit["walk_forward"].sizes["fold"],
            "seed": settings.seed,
            "slope": plot(figure),
            "mass_outside_table": float(fit.attrs["mass_outside_table"]),
            "identification": table(identification(fit), 60),
            "predictive_checks": table(predictive_checks(fit)),
            "convergence": table(convergence, 60),
            "trace_ranks": plot(arviz_pictures.draw_ranks(fit)),
        },
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"jax", "netcdf"},
    owners=OWNERS,
    code_version="2",
    io_manager_key="netcdf",
    ins={
        "driver_features": own_races_of_every_season,
        "causal_network": of_every_season,
        "scenario_ensemble": own_races_of_every_season,
    },
    metadata=boundary("recalibrated_ensemble"),
)
def recalibrated_ensemble(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    driver_features: dict[str, pl.DataFrame],
    causal_network: dict[str, xr.Dataset],
    scenario_ensemble: dict[str, UPath],
    calibration_posterior: xr.DataTree,
) -> dg.Output[xr.Dataset]:
    """Draw the archetype's races again, with the sharpness and incidents that their fold's fit asks for.

    A user's own scenarios cannot be drawn again: their cars are ranked anew. Races of folds without a fit
    keep the raw scenarios.
    """
    if settings.ensembles:
        ensemble = _ranked_anew(scenario_ensemble, calibration_posterior, context.partition_key, settings)
    else:
        ensemble = _drawn_again(
            driver_features, causal_network, calibration_posterior, context.partition_key, settings
        )
    chances = finish_chances(ensemble)
    figure, ax = figures.figure_axes(height=figures.rows_height(chances.height, 0.24))
    plotting.draw_finish_distribution(ax, chances)
    return dg.Output(
        ensemble,
        metadata={
            "scenarios_of": without_credentials(settings.ensembles or "the causal network"),
            "races": ensemble.sizes["race"],
            "scenarios": ensemble.sizes["scenario"],
            "seed": settings.seed,
            "last_race": plot(figure),
        },
    )


def _ranked_anew(
    stored: dict[str, UPath], fit: xr.DataTree, archetype: str, settings: Settings
) -> xr.Dataset:
    """Return the stored scenarios of an archetype's races, their cars ranked anew."""
    seasons = [stored_value(path, "scenario_ensemble", season, archetype) for season, path in stored.items()]
    raw = join_seasons(seasons, archetype)
    changes = draw_recalibrations(fit, raw, raw.sizes["scenario"], settings.seed)
    return rerank_races(raw, changes, settings.seed)


def _drawn_again(
    driver_features: dict[str, pl.DataFrame],
    causal_network: dict[str, xr.Dataset],
    fit: xr.DataTree,
    archetype: str,
    settings: Settings,
) -> xr.Dataset:
    """Return new scenarios of an archetype's races, from the networks that drew the raw ones."""
    folds = fold_length(settings)
    seasons = []
    for season, network in causal_network.items():
        features = driver_features[season]
        changes = draw_recalibrations(fit, _race_labels(features, folds), settings.scenarios, settings.seed)
        seasons.append(simulate_races(features, network, folds, settings.scenarios, settings.seed, changes))
    return join_seasons(seasons, archetype)


def _race_labels(features: pl.DataFrame, folds: int | None) -> xr.Dataset:
    """Return race, season and fold of the races that have features."""
    races = features.select(
        "race_id", "season", fold=fold_name(pl.col("season"), pl.col("round"), folds)
    ).unique(maintain_order=True)
    labels = {name: ("race", races[name].to_numpy()) for name in ("season", "fold")}
    return xr.Dataset(coords={"race": races["race_id"].to_numpy(), **labels})


@dg.asset(
    group_name=GROUP,
    partitions_def=ARCHETYPE_PARTITIONS,
    kinds={"xarray", "netcdf"},
    owners=OWNERS,
    code_version="2",
    io_manager_key="netcdf",
    ins={
        "race_results": results_so_far,
        "scenario_ensemble": own_scenarios_of_every_season,
        "recalibrated_ensemble": own_recalibrated_races,
    },
    metadata=boundary("backtest"),
)
def backtest(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    scenario_ensemble: dict[str, xr.Dataset],
    recalibrated_ensemble: xr.Dataset,
    calibration_posterior: xr.DataTree,
) -> dg.Output[xr.Dataset]:
    """Set the probabilities of races that no fit had seen, raw and recalibrated, beside what happened."""
    raw = join_seasons(list(scenario_ensemble.values()), context.partition_key)
    results = run_so_far(pl.concat(race_results.values()), context.partition_key)
    everything = build_backtest(raw, recalibrated_ensemble, results, calibration_posterior)
    scored = scored_races(everything)
    calibrated = int((scored["n_calibration_races"] > 0).sum())
    races = pl.DataFrame(
        {
            name: scored[name].values
            for name in ("race", "track_id", "fold", "calibration_as_of", "n_calibration_races")
        }
    )
    figure, ax = figures.figure_axes()
    plotting.draw_pit(ax, pit_ecdf(scored, settings.seed))
    return dg.Output(
        scored,
        metadata={
            "pit": plot(figure),
            "races": scored.sizes["race"],
            "races_recalibrated": calibrated,
            "races_before_the_first_scored": everything.sizes["race"] - scored.sizes["race"],
            "scored": table(races, 60),
        },
    )


@dg.asset(
    group_name=GROUP,
    kinds={"numpyro", "netcdf"},
    owners=OWNERS,
    code_version="4",
    io_manager_key="netcdf",
    pool=MCMC_POOL,
    metadata=boundary("pooled_posterior"),
)
def pooled_posterior(
    settings: dg.ResourceParam[Settings],
    calibration_posterior: dict[str, xr.DataTree],
) -> dg.Output[xr.DataTree]:
    """Fit all archetypes together, their slopes partially pooled."""
    fits = {archetype: calibration_posterior[archetype] for archetype in ARCHETYPES}
    pooled = fit_pooled(fits, settings.season_list, seed=settings.seed)
    slopes = pl.concat(slope_by_season(pooled, str(archetype)) for archetype in ARCHETYPES)
    convergence = convergence_by_fold(pooled)
    figure, ax = figures.figure_axes()
    plotting.draw_slope_by_season(ax, slopes)
    return dg.Output(
        pooled,
        metadata={
            **plotted_convergence(convergence),
            "races": int(pooled.attrs["n_races"]),
            "seed": settings.seed,
            "slope": plot(figure),
            "convergence": table(convergence, 60),
        },
    )


@dg.asset(
    group_name=GROUP,
    kinds={"arviz", "parquet"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="parquet",
    metadata=boundary("model_comparison"),
)
def model_comparison(
    calibration_posterior: dict[str, xr.DataTree], pooled_posterior: xr.DataTree
) -> dg.Output[pl.DataFrame]:
    """Compare raw, per-archetype and pooled calibration by leave-one-out, races as the units.

    This describes; the walk-forward scores of `calibration_metrics` decide.
    """
    fits = {archetype: calibration_posterior[archetype] for archetype in ARCHETYPES}
    comparison = compare_calibrations(fits, pooled_posterior)
    return dg.Output(comparison, metadata={"comparison": table(comparison)})
