"""Group `forecast`: the next race, recalibrated exactly as the backtest that was scored.

Modules that need JAX are imported inside the functions that compute.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.events.files import judged_events
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.schemas.contracts import BOUNDARIES
from calibration_pipeline.sources.base import Source

from ..partitions import by_archetype
from ..settings import Settings
from ..storage.io_managers import ALLOW_MISSING
from ..storage.provenance import depends_on
from .metadata import number, plot, rows, table

TABLES = {
    "forecast_chances": "Probabilities of each car of the next race: win, top 5, top 10, retirement.",
    "forecast_events": "Probabilities of the joint events in the next race, with intervals.",
    "forecast_scenarios": "The calibrated scenarios of the next race in long form, for an optimizer.",
}
SETTINGS = depends_on("seed", "scenarios", "fold_races", "network", "ensembles", "events")


@dg.multi_asset(
    name="next_race",
    ins={"calibration_posterior": dg.AssetIn(metadata={ALLOW_MISSING: True})},
    outs={
        "race_forecast": dg.AssetOut(
            description="Calibrated scenarios of the next race that has not run, as NetCDF.",
            kinds={"jax", "netcdf"},
            code_version="4",
            metadata=SETTINGS,
        ),
        **{
            name: dg.AssetOut(
                description=description,
                kinds={"polars", "parquet"},
                code_version="2",
                metadata=SETTINGS,
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
    """Forecast of the next race, by exactly the procedure that was backtested.

    All tables are stored empty where the source announces no race, or a user's own ensemble lacks it.
    """
    from calibration_pipeline.forecast.chances import FITS, scenario_table
    from calibration_pipeline.forecast.next_race import (
        CALIBRATION_RACES,
        GRIDS,
        NONE_ANNOUNCED,
        Knowledge,
        Method,
        forecast_next_race,
    )
    from calibration_pipeline.plots import charts, figures
    from calibration_pipeline.scenarios.draw.ensemble import simulate_races
    from calibration_pipeline.scenarios.network.structure import VARIANTS

    last = max(race_results)
    entries = source.next_race(int(last))
    method = Method(
        settings.scenarios,
        settings.fold_length,
        settings.seed,
        VARIANTS[settings.network],
        settings.ensembles,
    )
    if entries is None:
        none = simulate_races(
            driver_features[last].clear(),
            causal_network[last],
            method.fold_races,
            method.n_scenarios,
            method.seed,
        )
        yield from _nothing(none, NONE_ANNOUNCED)
        return
    known = Knowledge(
        pl.concat(race_results.values()),
        pl.concat(lap_aggregates.values()),
        pl.concat(driver_features.values()),
        causal_network[last],
        by_archetype(calibration_posterior),
    )
    made = forecast_next_race(entries, known, method, judged_events(settings.events))
    race, forecast, chances, joint = made.next_race.race, made.ensemble, made.chances, made.events
    if chances is None or joint is None:
        yield from _nothing(forecast, f"The next race, {race['race_id']}, is not in the user's own ensemble.")
        return
    figure, ax = figures.figure_axes(height=figures.rows_height(chances.height, 0.24))
    charts.draw_finish_distribution(ax, chances)
    drawn = f"not set yet: {GRIDS} drawn; the backtest knew the grid"
    facts = {
        **race,
        "fold": made.next_race.fold,
        "scenarios": forecast.sizes["scenario"],
        "scenarios_of": without_credentials(settings.ensembles or "the causal network"),
        "grid": "set" if made.next_race.grid_is_set else drawn,
        "recalibrated": made.is_recalibrated,
        "calibration_races": forecast.attrs[CALIBRATION_RACES],
        "seed": settings.seed,
    }
    errors = chances.select(pl.max_horizontal("win_error", "top5_error", "top10_error").max())
    yield dg.Output(forecast, "race_forecast", metadata={**facts, "races": 1, "chances": plot(figure)})
    yield dg.Output(
        chances,
        "forecast_chances",
        metadata={
            **rows(chances),
            **facts,
            "interval_fits": FITS if made.is_recalibrated else 0,
            "largest_monte_carlo_error": number(float(errors.item())),
            "cars": table(chances, 45),
        },
    )
    yield dg.Output(joint, "forecast_events", metadata={**rows(joint), **facts, "events": table(joint, 40)})
    scenarios = scenario_table(forecast)
    yield dg.Output(scenarios, "forecast_scenarios", metadata={**rows(scenarios), **facts})


def _nothing(none: xr.Dataset, why: str) -> Iterator[dg.Output]:
    """Store a forecast of no race, with the reason."""
    yield dg.Output(none.assign_attrs(why=why), "race_forecast", metadata={"races": 0, "why": why})
    for name in TABLES:
        yield dg.Output(BOUNDARIES[name].empty(), name, metadata={"dagster/row_count": 0, "why": why})
