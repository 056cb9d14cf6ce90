"""Assembly of the report's content from the stored tables, fits and forecasts of the archetypes."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.archetypes import Archetype, parse_archetype
from calibration_pipeline.calibration.summaries import (
    convergence_by_fold,
    identification,
    predictive_checks,
    slope_by_season,
    state_by_race,
)
from calibration_pipeline.checks.properties import forecasts_point_the_right_way
from calibration_pipeline.events.language import Event
from calibration_pipeline.forecast.next_race import without_drawn_grid
from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.mcmc.nuts import TARGET_ACCEPT
from calibration_pipeline.report.content import ALL_ARCHETYPES, ReportContent, empty_table
from calibration_pipeline.report.numbers import number
from calibration_pipeline.schemas.partition_keys import split_key
from calibration_pipeline.schemas.quarantine import Quarantine
from calibration_pipeline.seasons import ALL_RACES
from calibration_pipeline.verification.backtest import scored_positions
from calibration_pipeline.verification.event_cases import market_events, scored_events
from calibration_pipeline.verification.metric_table import score_backtest, score_events
from calibration_pipeline.verification.reliability import (
    PIT_SCHEMA,
    calibration_curves,
    event_curves,
    pit_ecdf,
)
from calibration_pipeline.walk_forward.events import race_states


class Evidence(NamedTuple):
    """Stored assets by archetype, in the order of archetypes."""

    fits: Mapping[Archetype, xr.DataTree]
    verdicts: Mapping[Archetype, pl.DataFrame]
    metrics: Mapping[Archetype, pl.DataFrame]
    joint_events: Mapping[Archetype, pl.DataFrame]
    curves: Mapping[Archetype, pl.DataFrame]
    monitoring: Mapping[Archetype, pl.DataFrame]
    backtests: Mapping[Archetype, xr.Dataset]


class PooledEvidence(NamedTuple):
    """Stored assets of all archetypes together.

    Attributes
    ----------
    fits : xarray.DataTree
        `PooledPosterior`.
    state : xarray.DataTree
        `CalibrationState`.
    comparison : polars.DataFrame
        `ModelComparison`.
    """

    fits: xr.DataTree
    state: xr.DataTree
    comparison: pl.DataFrame


class NextRaceForecast(NamedTuple):
    """The forecast of the next race: scenarios of one race or none, tables, notes, and all forecasters."""

    ensemble: xr.Dataset
    chances: pl.DataFrame
    events: pl.DataFrame
    notes: Sequence[str]
    of_forecasters: pl.DataFrame

    @property
    def shown_chances(self) -> pl.DataFrame | None:
        """The chances, without start positions if the grid is not set; None without a race."""
        return None if self.chances.is_empty() else without_drawn_grid(self.ensemble, self.chances)


class ProbabilityEvidence(NamedTuple):
    """Stored assets of a forecaster of event or position probabilities.

    Attributes
    ----------
    forecasts : mapping
        'raw' and 'recalibrated' to `EventProbabilities` or `PositionProbabilities`, as the form is.
    results : polars.DataFrame
        `RaceResults`.
    posterior, state : xarray.DataTree
        `EventPosterior` and `EventState`, or those of positions.
    verdicts : polars.DataFrame
        `VerdictTable`.
    """

    forecasts: Mapping[str, Any]
    results: pl.DataFrame
    posterior: xr.DataTree
    state: xr.DataTree
    verdicts: pl.DataFrame


class Circumstances(NamedTuple):
    """Parts of a report that do not depend on the form of the forecasts.

    Attributes
    ----------
    forecast : NextRaceForecast
    leaderboard : polars.DataFrame
        `Leaderboard`.
    quarantine : polars.DataFrame
        `Quarantine` of all seasons.
    forecaster_quarantine : mapping of str to polars.DataFrame
        Partition, a forecaster by itself or with a season, to the `Quarantine` of its files.
    provenance : mapping of str to str
        Where data and settings come from; it names the source as "Source".
    versions : mapping of str to str
        Package → version.
    """

    forecast: NextRaceForecast
    leaderboard: pl.DataFrame
    quarantine: pl.DataFrame
    forecaster_quarantine: Mapping[str, pl.DataFrame]
    provenance: Mapping[str, str]
    versions: Mapping[str, str]


def assemble_content(
    evidence: Evidence,
    pooled: PooledEvidence,
    judged_events: Iterable[Event],
    circumstances: Circumstances,
    seed: int,
) -> ReportContent:
    """Assemble the content of a report on a forecaster of scenarios.

    Parameters
    ----------
    evidence : Evidence
        Fits of archetypes without verdicts are not shown.
    pooled : PooledEvidence
    judged_events : iterable of Event
        Events requested for validation.
    circumstances : Circumstances
    seed : int
    """
    backtests = evidence.backtests
    fits = {name: fit for name, fit in evidence.fits.items() if name in evidence.verdicts}
    convergence = pl.concat(
        convergence_by_fold(fit).select(pl.lit(name).alias("archetype"), pl.all())
        for name, fit in [*fits.items(), (ALL_ARCHETYPES, pooled.fits)]
    )
    events = pl.concat(evidence.joint_events.values()).filter(era=ALL_RACES)
    forecast = circumstances.forecast
    return ReportContent(
        title="Can the simulated races be trusted?",
        **_shared(circumstances),
        verdicts=pl.concat(evidence.verdicts.values()),
        metrics=pl.concat(evidence.metrics.values()),
        joint_events=events,
        skipped_events=_skipped(events, judged_events),
        curves=pl.concat(evidence.curves.values()),
        monitoring=pl.concat(evidence.monitoring.values()),
        pit=pl.concat(pit_ecdf(backtest, seed) for backtest in backtests.values()),
        states=state_by_race(pooled.state),
        slopes=pl.concat(slope_by_season(fit, name) for name, fit in fits.items()),
        convergence=convergence,
        identification=pl.concat(identification(fit) for fit in fits.values()),
        predictive_checks=pl.concat(predictive_checks(fit) for fit in fits.values()),
        fits={str(name): fit for name, fit in fits.items()},
        comparison=pooled.comparison,
        forecast=forecast.shown_chances,
        forecast_events=forecast.events,
        forecast_notes=list(forecast.notes),
        warnings=implausible_backtests(backtests),
        provenance={
            **circumstances.provenance,
            "Last race scored": _last_race(races["race_order"].values for races in backtests.values()),
            "Best calibration by leave-one-out": _best_model(pooled.comparison),
            **_sampling([fit.attrs for fit in fits.values()], convergence),
            **circumstances.versions,
        },
    )


def assemble_probabilities(
    form: Form, evidence: ProbabilityEvidence, circumstances: Circumstances, seed: int
) -> ReportContent:
    """Assemble the content of a report on a forecaster of event or position probabilities.

    Scores and curves are those of scenarios, over the races that the verdicts judge.

    Parameters
    ----------
    form : Form
        Event or position probabilities.
    evidence : ProbabilityEvidence
    circumstances : Circumstances
    seed : int
    """
    verdicts, results, state = evidence.verdicts, evidence.results, evidence.state
    archetypes = verdicts["archetype"].unique(maintain_order=True).to_list()
    backtests: dict[Archetype, xr.Dataset] = {}
    pit = pl.DataFrame(schema=PIT_SCHEMA)
    if form is Form.EVENTS:
        scored = scored_events(evidence.forecasts, results, race_states(state))
        events = {name: list(market_events(scored.filter(archetype=name))) for name in archetypes}
        metrics = [score_events(name, own) for name, own in events.items()]
        curves = [event_curves(name, own) for name, own in events.items()]
        parts = [
            state_by_race(part).with_columns(market=pl.lit(name)) for name, part in state.children.items()
        ]
        states, last = pl.concat(parts), [scored["race_order"].to_numpy()]
    else:
        found = scored_positions(evidence.forecasts, results, state["races"].to_dataset())
        backtests = {parse_archetype(name): found[name] for name in archetypes}
        metrics = [score_backtest(backtest) for backtest in backtests.values()]
        curves = [calibration_curves(backtest) for backtest in backtests.values()]
        pit = pl.concat(pit_ecdf(backtest, seed) for backtest in backtests.values())
        states, last = state_by_race(state), [races["race_order"].values for races in backtests.values()]
    fits = {name: fit for name, fit in evidence.posterior.children.items() if "convergence" in fit.children}
    convergence = pl.concat(
        convergence_by_fold(fit).select(pl.lit(name).alias("archetype"), pl.all())
        for name, fit in fits.items()
    )
    return ReportContent(
        title=f"Can the {form} of {verdicts['forecaster'][0]} be trusted?",
        form=form,
        **_shared(circumstances),
        verdicts=verdicts,
        metrics=pl.concat(metrics),
        curves=pl.concat(curves),
        pit=pit,
        states=states,
        convergence=convergence,
        joint_events=empty_table("joint_events"),
        monitoring=empty_table("monitoring"),
        slopes=empty_table("slopes"),
        identification=empty_table("identification"),
        predictive_checks=empty_table("predictive_checks"),
        warnings=implausible_backtests(backtests),
        provenance={
            **circumstances.provenance,
            "Last race scored": _last_race(last),
            **_sampling([evidence.posterior.attrs] * bool(fits), convergence),
            **circumstances.versions,
        },
    )


def _shared(circumstances: Circumstances) -> dict[str, Any]:
    """Return the fields of the content that do not depend on the form."""
    forecast = circumstances.forecast
    race = forecast.ensemble.isel(race=0) if forecast.ensemble.sizes["race"] else None
    of_files = [
        rows.select(pl.lit(split_key(partition)[0]).alias("forecaster"), pl.all())
        for partition, rows in circumstances.forecaster_quarantine.items()
    ]
    return {
        "source": circumstances.provenance["Source"],
        "forecast_title": "" if race is None else _race_title(race),
        "forecast_archetype": "" if race is None else str(race["archetype"].item()),
        "forecaster_chances": forecast.of_forecasters,
        "leaderboard": circumstances.leaderboard,
        "quarantine": circumstances.quarantine,
        # Defects of a whole file are found with each season that is read from it.
        "forecaster_quarantine": pl.concat(
            [Quarantine.empty().select(pl.lit("").alias("forecaster"), pl.all()), *of_files]
        ).unique(maintain_order=True),
    }


def _last_race(orders: Iterable[NDArray]) -> str:
    """Return the largest race_order, of scored races by archetype."""
    return str(max((int(own.max()) for own in orders if own.size), default="none"))


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return package → its installed version."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed, run from its folder"
    return versions


def _skipped(events: pl.DataFrame, judged_events: Iterable[Event]) -> dict[str, str]:
    """Return the events without a row in any archetype; the assets' metadata hold the reasons."""
    judged = set(events["event"])
    reason = "a variable that it needs is unknown, or there are no races"
    return {str(event): reason for event in judged_events if str(event) not in judged}


def implausible_backtests(backtests: Mapping[Archetype, xr.Dataset]) -> list[str]:
    """Return a sentence for each archetype whose forecasts and finishes are not positively correlated."""
    findings = {archetype: forecasts_point_the_right_way(races) for archetype, races in backtests.items()}
    return [
        f"{archetype.label}: {finding.sentence}"
        for archetype, finding in findings.items()
        if not finding.passed
    ]


def _race_title(race: xr.Dataset) -> str:
    archetype = parse_archetype(str(race["archetype"].item())).label.lower()
    return f"Race {int(race['round'])} of {int(race['season'])}, {race['track_id'].item()} ({archetype})"


def _best_model(comparison: pl.DataFrame) -> str:
    return str(comparison.row(0, named=True)["model"]) if comparison.height else "none"


def _sampling(fits: Sequence[Mapping[Any, Any]], convergence: pl.DataFrame) -> dict[str, str]:
    """Return how the posteriors were sampled, and the worst of their diagnostics."""
    if not fits:
        return {}
    chains = (str(fits[0][name]) for name in ("n_chains", "n_warmup", "n_samples"))
    r_hat, bulk, tail = convergence.select(pl.max("r_hat"), pl.min("ess_bulk", "ess_tail")).row(0)
    by_fit = convergence.group_by("archetype", "fold").agg(pl.max("divergences"))
    return {
        "NUTS chains, warm-up, draws a chain": ", ".join(chains),
        "NUTS target acceptance": str(TARGET_ACCEPT),
        "Fits": str(by_fit.height),
        "Worst R-hat of all fits": number(r_hat),
        "Least ESS, bulk and tail": f"{number(bulk, 0)} and {number(tail, 0)}",
        "Divergences": str(by_fit["divergences"].sum()),
    }
