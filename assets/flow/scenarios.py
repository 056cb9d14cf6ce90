"""Group `scenarios`: the causal network of each fold, and the races drawn from it.

JAX and NumPyro are imported inside the functions that compute.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.forecasters.folder import NETWORK, Form, find_forecasters
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.schemas.partition_keys import split_key
from calibration_pipeline.schemas.quarantine import Quarantine
from calibration_pipeline.sources.names import read_nicknames

from ..partitions import ALL_SEASONS, SEASON_PARTITIONS, earlier_and_own_seasons, season_of_forecaster
from ..settings import Settings
from ..storage.io_manager import depends_on
from .metadata import bullets, chart, rows, table

of_earlier_and_own_seasons = dg.AssetIn(partition_mapping=earlier_and_own_seasons)


@dg.asset(
    partitions_def=ALL_SEASONS,
    kinds={"polars", "parquet"},
    code_version="1",
    ins=dict.fromkeys(("race_results", "driver_features"), of_earlier_and_own_seasons),
    metadata=depends_on("fold_races"),
)
def fold_history(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    race_results: dict[str, pl.DataFrame],
    driver_features: dict[str, pl.DataFrame],
) -> dg.Output[pl.DataFrame]:
    """Races that the season's networks are fitted to: those before its open fold.

    The open fold is that of the race after the season's last one. A race within it changes nothing here, so
    that no network is fitted again.
    """
    from calibration_pipeline.scenarios.fit.history import fold_history as join_closed_folds

    history = join_closed_folds(
        pl.concat(driver_features.values()),
        pl.concat(race_results.values()),
        int(context.partition_key),
        settings.fold_length,
    )
    return dg.Output(
        history,
        metadata={
            **rows(history),
            "races": history["race_id"].n_unique(),
            "fold_races": settings.fold_length or "a season",
        },
    )


@dg.asset(
    partitions_def=ALL_SEASONS,
    kinds={"numpyro", "netcdf"},
    code_version="6",
    metadata=depends_on("network", "fold_races", "seed"),
)
def causal_network(settings: dg.ResourceParam[Settings], fold_history: pl.DataFrame) -> dg.Output[xr.Dataset]:
    """Causal network of every fold of the season, fitted on the races before the fold.

    The open fold's network is fitted as well. A fold without earlier races has no network: the first fold
    only burns in.
    """
    from calibration_pipeline.plots import charts
    from calibration_pipeline.scenarios.fit.by_fold import fit_networks
    from calibration_pipeline.scenarios.network.graph import draw_graph
    from calibration_pipeline.scenarios.network.structure import VARIANTS
    from calibration_pipeline.scenarios.summaries import weight_estimates

    network = fit_networks(fold_history, settings.fold_length, settings.seed, VARIANTS[settings.network])
    folds = network["fold"].values.tolist()
    fits = pl.DataFrame(
        {"fold": folds, "races": network["n_races"].values, "as_of": network["network_as_of"].values}
    )
    return dg.Output(
        network,
        metadata={
            "folds": len(folds),
            "fits": table(fits),
            "graph": dg.MetadataValue.md(f"```mermaid\n{draw_graph()}\n```"),
            "pace_weights": chart(charts.draw_weights, weight_estimates(network)),
        },
    )


@dg.multi_asset(
    partitions_def=SEASON_PARTITIONS,
    outs={
        "scenario_ensemble": dg.AssetOut(
            description="Scenarios of a forecaster for every race of the season: simulated, or a user's own.",
            kinds={"jax", "netcdf"},
            code_version="8",
            metadata=depends_on("scenarios", "seed", "fold_races", "forecaster_files"),
        ),
        "scenario_quarantine": dg.AssetOut(
            description="Defects of the forecaster's files: what is left out or corrected.",
            kinds={"polars", "parquet"},
            code_version="2",
            metadata=depends_on("scenarios", "seed", "fold_races", "forecaster_files"),
        ),
    },
    ins=dict.fromkeys(
        ("fold_history", "driver_features", "causal_network"),
        dg.AssetIn(partition_mapping=season_of_forecaster),
    ),
)
def season_scenarios(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    fold_history: pl.DataFrame,
    driver_features: pl.DataFrame,
    causal_network: xr.Dataset,
) -> Iterator[dg.Output]:
    """Scenarios of a forecaster for every race of the season: simulated by the network, or a user's own.

    The network simulates the races whose fold has a network.
    """
    from calibration_pipeline.forecasters.season_scenarios import read_season_scenarios
    from calibration_pipeline.plots import charts
    from calibration_pipeline.scenarios.draw.ensemble import simulate_races
    from calibration_pipeline.scenarios.summaries import finish_chances

    forecaster, season = split_key(context.partition_key)
    folds, notes, files = settings.fold_length, list[str](), tuple[str, ...]()
    quarantine = Quarantine.empty()
    if forecaster == NETWORK:
        ensemble = simulate_races(driver_features, causal_network, folds, settings.scenarios, settings.seed)
    else:
        partitions = context.assets_def.partitions_def.get_partitions_def_for_dimension("season")
        seasons = {int(key) for key in partitions.get_partition_keys()}
        own = find_forecasters(settings.forecasters).by_form[Form.SCENARIOS][forecaster]
        files = own.files
        ensemble, notes, quarantine = read_season_scenarios(
            own,
            driver_features,
            fold_history.filter(pl.col("season") < int(season)),  # no look-ahead
            fold_races=folds,
            seed=settings.seed,
            nicknames=read_nicknames(settings.nicknames),
            other_seasons=seasons - {int(season)},
        )
        for line in notes:
            context.log.warning(line)
    chances = finish_chances(ensemble)
    outcomes = (str(name) for name in ensemble.data_vars if "scenario" in ensemble[name].dims)
    yield dg.Output(
        ensemble,
        "scenario_ensemble",
        metadata={
            "races": ensemble.sizes["race"],
            "scenarios": ensemble.sizes["scenario"],
            "widest_field": ensemble.sizes["driver"],
            "outcomes": ", ".join(outcomes),
            "files": ", ".join(map(without_credentials, files)),
            "left_out": bullets(notes),
            "last_race": chart(
                charts.draw_finish_distribution, chances, n_rows=chances.height, row_height=0.24
            ),
        },
    )
    yield dg.Output(quarantine, "scenario_quarantine", metadata=rows(quarantine))
