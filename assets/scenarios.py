"""Group `scenarios`: the causal network of each fold, and the races drawn from it."""

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline import figures, plotting
from calibration_pipeline.addresses import without_credentials
from calibration_pipeline.scenarios.ensemble import simulate_races
from calibration_pipeline.scenarios.folds import default_fold_races
from calibration_pipeline.scenarios.foreign import read_ensemble
from calibration_pipeline.scenarios.graph import draw_graph
from calibration_pipeline.scenarios.networks import fit_networks
from calibration_pipeline.scenarios.structure import VARIANTS
from calibration_pipeline.scenarios.summaries import finish_chances, weight_estimates

from .metadata import OWNERS, boundary, plot, table
from .own_races import BEFORE_LAST_FOLD
from .partitions import ALL_SEASONS, earlier_and_own_seasons
from .settings import Settings

GROUP = "scenarios"
races_before_last_fold = dg.AssetIn(
    partition_mapping=earlier_and_own_seasons, metadata={BEFORE_LAST_FOLD: True}
)


def fold_length(settings: Settings) -> int | None:
    """Return the races in a fold, None for a season: as set, or by the rule for the history's length."""
    return settings.fold_races or default_fold_races(len(settings.season_list))


@dg.asset(
    group_name=GROUP,
    partitions_def=ALL_SEASONS,
    kinds={"numpyro", "netcdf"},
    owners=OWNERS,
    code_version="2",
    io_manager_key="netcdf",
    ins=dict.fromkeys(("race_results", "driver_features"), races_before_last_fold),
    metadata=boundary("causal_network"),
)
def causal_network(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    driver_features: dict[str, pl.DataFrame],
) -> dg.Output[xr.Dataset]:
    """Fit the causal network of every fold of the season on the races before the fold.

    The fold of the race that follows the season's last is fitted as well. A fold without earlier races has
    no network: the first one only burns in.
    """
    network = fit_networks(
        pl.concat(driver_features.values()),
        pl.concat(race_results.values()),
        int(context.partition_key),
        fold_length(settings),
        settings.seed,
        VARIANTS[settings.network],
    )
    folds = network["fold"].values.tolist()
    fits = pl.DataFrame(
        {"fold": folds, "races": network["n_races"].values, "as_of": network["network_as_of"].values}
    )
    weights = weight_estimates(network)
    figure, ax = figures.figure_axes()
    plotting.draw_weights(ax, weights)
    return dg.Output(
        network,
        metadata={
            "folds": len(folds),
            "seed": settings.seed,
            "network": settings.network,
            "fold_races": fold_length(settings) or "a season",
            "fits": table(fits),
            "graph": dg.MetadataValue.md(f"```mermaid\n{draw_graph()}\n```"),
            "pace_weights": plot(figure),
        },
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=ALL_SEASONS,
    kinds={"jax", "netcdf"},
    owners=OWNERS,
    code_version="2",
    io_manager_key="netcdf",
    metadata=boundary("scenario_ensemble"),
)
def scenario_ensemble(
    settings: dg.ResourceParam[Settings], driver_features: pl.DataFrame, causal_network: xr.Dataset
) -> dg.Output[xr.Dataset]:
    """Draw scenarios of every race of the season whose fold has a network, or take a user's own."""
    folds = fold_length(settings)
    if settings.ensembles:
        ensemble, left_out = read_ensemble(settings.ensembles, driver_features, folds)
    else:
        ensemble = simulate_races(driver_features, causal_network, folds, settings.scenarios, settings.seed)
        left_out = []
    chances = finish_chances(ensemble)
    figure, ax = figures.figure_axes(height=figures.rows_height(chances.height, 0.24))
    plotting.draw_finish_distribution(ax, chances)
    return dg.Output(
        ensemble,
        metadata={
            "scenarios_of": without_credentials(settings.ensembles or "the causal network"),
            "races": ensemble.sizes["race"],
            "scenarios": ensemble.sizes["scenario"],
            "widest_field": ensemble.sizes["driver"],
            "seed": settings.seed,
            "outcomes": ", ".join(
                str(name) for name in ensemble.data_vars if "scenario" in ensemble[name].dims
            ),
            "left_out": dg.MetadataValue.md("\n".join(f"- {line}" for line in left_out) or "nothing"),
            "last_race": plot(figure),
        },
    )
