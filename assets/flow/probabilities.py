"""Group `probabilities`: users' probabilities of events and positions, recalibrated race by race.

Both forms have the same assets. Scenarios, of the network and of users' simulators, have the groups
`calibration` and `verification`. Modules that need JAX are imported inside the functions that compute.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
import xarray as xr

from calibration_pipeline.forecasters.folder import Form, find_forecasters
from calibration_pipeline.forecasters.odds import Margin
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.seasons import without_gaps
from calibration_pipeline.sources.base import Source
from calibration_pipeline.sources.names import read_nicknames
from calibration_pipeline.sources.news import entry_version

from ..partitions import EVENT_FORECASTERS, POSITION_FORECASTERS
from ..settings import Settings
from ..storage.io_manager import SOURCE_VERSION, depends_on
from .calibration import of_every_season
from .metadata import bullets, plot, rows, table

RESULTS = {"race_results": of_every_season}
SHOWN_VERDICTS = ("archetype", "era", "market", "verdict", "recalibration", "races_needed", "n_races")


def build_assets(form: Form, noun: str, partitions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Return the assets of a form of probabilities.

    Parameters
    ----------
    form : Form
    noun : str
        Of the form in names of assets: event or position.
    partitions : dagster.PartitionsDefinition
        The forecasters of the form.
    """
    stored = "parquet" if form is Form.EVENTS else "netcdf"
    of_files = depends_on("seed", "fold_races", "forecaster_files", *["margin"] * (form is Form.EVENTS))
    issued, posterior, state, recalibrated = (
        {name: dg.AssetIn(key)}
        for name, key in (
            ("probabilities", f"{noun}_probabilities"),
            ("posterior", f"{noun}_posterior"),
            ("state", f"{noun}_state"),
            ("recalibrated", f"recalibrated_{noun}s"),
        )
    )

    @dg.multi_asset(
        name=f"{noun}_forecasts",
        partitions_def=partitions,
        ins={"driver_features": of_every_season},
        outs={
            f"{noun}_probabilities": dg.AssetOut(
                description=f"Probabilities of {noun}s as a forecaster issues them; odds without margin.",
                kinds={"polars", stored},
                code_version="2",
                metadata=of_files,
            ),
            f"{noun}_quarantine": dg.AssetOut(
                description="Defects of the forecaster's files: what is left out or corrected.",
                kinds={"polars", "parquet"},
                code_version="2",
                metadata=of_files,
            ),
        },
    )
    def forecasts_of_form(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        driver_features: dict[str, pl.DataFrame],
    ) -> Iterator[dg.Output]:
        from calibration_pipeline.forecasters.field_matching import RacesInForce
        from calibration_pipeline.forecasters.folder import read_forecaster
        from calibration_pipeline.sources.quarantine import defect_lines

        races = RacesInForce(pl.concat(driver_features.values()), read_nicknames(settings.nicknames))
        files = find_forecasters(settings.forecasters).by_form[form][context.partition_key]
        forecasts = read_forecaster(
            files,
            races,
            None,
            fold_races=settings.fold_length,
            seed=settings.seed,
            margin=Margin(settings.margin),
        )
        left_out = [*forecasts.notes, *defect_lines(forecasts.quarantine)]
        for line in left_out:
            context.log.warning(line)
        overrounds = forecasts.overrounds.group_by("market", "source").agg(
            pl.mean("overround"), races=pl.len()
        )
        facts: dict[str, Any] = {
            "files": ", ".join(map(without_credentials, files.files)),
            "left_out": bullets(left_out),
        }
        margins = {"overrounds": table(overrounds.sort("market"))} if overrounds.height else {}
        yield dg.Output(
            forecasts.values,
            f"{noun}_probabilities",
            metadata={**_size(forecasts.values), **margins, **facts},
        )
        yield dg.Output(forecasts.quarantine, f"{noun}_quarantine", metadata=rows(forecasts.quarantine))

    @dg.asset(
        name=f"{noun}_posterior",
        partitions_def=partitions,
        kinds={"numpyro", "netcdf"},
        code_version="1",
        ins=RESULTS | issued,
        metadata=depends_on("seed", "fold_races", "seasons"),
    )
    def posterior_of_form(
        settings: dg.ResourceParam[Settings], race_results: dict[str, pl.DataFrame], probabilities: Any
    ) -> dg.Output[xr.DataTree]:
        """Map of each market or archetype: NUTS fits for every fold, to races before it, and to all races."""
        from calibration_pipeline.walk_forward.forms import WALKS

        results, seasons = pl.concat(race_results.values()), without_gaps(settings.season_list)
        fit = WALKS[form].fit(probabilities, results, seasons, settings.fold_length, settings.seed)
        return dg.Output(fit, metadata={"fits": ", ".join(name for name in fit.children if name != "slow")})

    @dg.asset(
        name=f"{noun}_state",
        partitions_def=partitions,
        kinds={"numpy", "netcdf"},
        code_version="1",
        ins=RESULTS | issued | posterior,
        metadata=depends_on("seed"),
    )
    def state_of_form(
        settings: dg.ResourceParam[Settings],
        race_results: dict[str, pl.DataFrame],
        probabilities: Any,
        posterior: xr.DataTree,
    ) -> dg.Output[xr.DataTree]:
        """Sharpness of each market, or of the positions, before every race; from the races before it."""
        from calibration_pipeline.calibration.summaries import state_by_race
        from calibration_pipeline.plots.state import state_figure
        from calibration_pipeline.walk_forward.forms import WALKS

        walk, results = WALKS[form], pl.concat(race_results.values())
        state = walk.filter(probabilities, results, posterior, settings.seed)
        pictures = {
            f"sharpness_over_time{market and f', {market}'}": plot(state_figure(state_by_race(own), "slope"))
            for market, own in walk.parts(state).items()
        }
        return dg.Output(state, metadata=pictures)

    @dg.asset(
        name=f"recalibrated_{noun}s",
        partitions_def=partitions,
        kinds={"numpy", stored},
        code_version="3",
        ins=issued | state,
    )
    def recalibrated_of_form(probabilities: Any, state: xr.DataTree) -> dg.Output[Any]:
        """Probabilities, recalibrated with the state before each race."""
        from calibration_pipeline.walk_forward.forms import WALKS

        recalibrated = WALKS[form].recalibrate(probabilities, state)
        return dg.Output(recalibrated, metadata=_size(recalibrated))

    @dg.asset(
        name=f"{noun}_verdict",
        partitions_def=partitions,
        kinds={"polars", "parquet"},
        code_version="3",
        ins=RESULTS | issued | recalibrated | state,
        metadata=depends_on("eras"),
    )
    def verdict_of_form(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        race_results: dict[str, pl.DataFrame],
        probabilities: Any,
        recalibrated: Any,
        state: xr.DataTree,
    ) -> dg.Output[pl.DataFrame]:
        """Rulings whether the forecasts can be trusted, by archetype, era and market, with the evidence."""
        from calibration_pipeline.verification.verdicts.probabilities import judge_forecaster

        forecasts = {"raw": probabilities, "recalibrated": recalibrated}
        results = pl.concat(race_results.values())
        verdicts = judge_forecaster(
            context.partition_key, form, forecasts, results, state, settings.era_starts
        )
        cells = verdicts.filter(line=1).select(SHOWN_VERDICTS)
        return dg.Output(verdicts, metadata={**rows(verdicts), "verdicts": table(cells, cells.height)})

    @dg.asset(
        name=f"next_{noun}s",
        partitions_def=partitions,
        kinds={"numpy", "parquet"},
        code_version="3",
        ins=RESULTS | state,
        metadata=of_files,
    )
    def next_race_of_form(
        context: dg.AssetExecutionContext,
        source: dg.ResourceParam[Source],
        settings: dg.ResourceParam[Settings],
        race_results: dict[str, pl.DataFrame],
        state: xr.DataTree,
    ) -> dg.Output[pl.DataFrame]:
        """Probabilities of wins and top finishes in the next race, recalibrated; none without a forecast."""
        from calibration_pipeline.walk_forward.forms import WALKS

        seasons = [int(season) for season in race_results]
        announced = source.next_race(max(seasons))
        chances, notes = WALKS[form].forecast_next(
            announced,
            find_forecasters(settings.forecasters).by_form[form][context.partition_key],
            state,
            seasons,
            fold_races=settings.fold_length,
            seed=settings.seed,
            nicknames=read_nicknames(settings.nicknames),
            margin=Margin(settings.margin),
        )
        metadata = {**rows(chances), "notes": bullets(notes), SOURCE_VERSION: entry_version(announced)}
        return dg.Output(chances, metadata=metadata)

    return [
        forecasts_of_form,
        posterior_of_form,
        state_of_form,
        recalibrated_of_form,
        verdict_of_form,
        next_race_of_form,
    ]


def _size(probabilities: pl.DataFrame | xr.Dataset) -> dict[str, Any]:
    if isinstance(probabilities, xr.Dataset):
        return {"races": probabilities.sizes["race"]}
    return {**rows(probabilities), "races": probabilities["race_id"].n_unique()}


events = build_assets(Form.EVENTS, "event", EVENT_FORECASTERS)
positions = build_assets(Form.POSITIONS, "position", POSITION_FORECASTERS)
