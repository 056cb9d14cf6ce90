"""Matrix of verdicts: the rulings of an archetype by era and market, and their tables."""

from collections.abc import Mapping, Sequence

import polars as pl
import xarray as xr

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.markets import MARKETS
from calibration_pipeline.schemas.frames import VerdictTable
from calibration_pipeline.seasons import split_eras
from calibration_pipeline.verification.cases import table
from calibration_pipeline.verification.verdicts.estimates import market_estimates
from calibration_pipeline.verification.verdicts.rules import Verdict, judge_markets

EVIDENCE_COLUMNS = (
    "forecast",
    "quantity",
    "level",
    "estimate",
    "lower",
    "upper",
    "n_races",
    "p_inside",
    "p_outside",
)
"""Columns of `VerdictTable` that are attributes of `Evidence`."""


def judge_eras(
    backtest: xr.Dataset,
    ensembles: Mapping[str, xr.Dataset],
    results: pl.DataFrame,
    joint_events: pl.DataFrame,
    era_starts: Sequence[int],
    markets: Sequence[str] = MARKETS,
) -> dict[str, list[Verdict]]:
    """Rule on every market of an archetype, in each era and over all scored races.

    Parameters
    ----------
    backtest : xarray.Dataset
        `Backtest` of one archetype.
    ensembles : mapping
        'raw' and 'recalibrated' to the `ScenarioEnsemble` of the same races; empty where there are no
        scenarios.
    results : polars.DataFrame
        Results of the archetype, race by race in order of time, races before the scored ones included.
    joint_events : polars.DataFrame
        `JointEventTable` of the archetype with the same eras.
    era_starts : sequence of int
        First season of each declared era.
    markets : sequence of str
        Markets that the form of the forecast gives.

    Returns
    -------
    dict
        Era to its verdicts, the summary first; the newest era first, all races last.
    """
    verdicts = {}
    for era, of_era in split_eras(era_starts, backtest["season"].values.tolist()).items():
        own = backtest.isel(race=of_era)
        forecasts = {name: ensemble.isel(race=of_era) for name, ensemble in ensembles.items()}
        estimates = market_estimates(own, forecasts, results) if own.sizes["race"] else []
        calibrated = markets if (own["n_calibration_races"] > 0).any() else ()
        verdicts[era] = judge_markets(estimates, joint_events.filter(era=era), calibrated, markets)
    return verdicts


def verdict_table(
    forecaster: str, archetype: str, verdicts_by_era: Mapping[str, Sequence[Verdict]]
) -> pl.DataFrame:
    """Return verdicts as a frame, `VerdictTable`: one row a line of evidence.

    Parameters
    ----------
    forecaster : str
        Issuer of the forecasts.
    archetype : str
        Archetype of the races.
    verdicts_by_era : mapping
        As `judge_eras` returns them.
    """
    rows: list[dict[str, object]] = [
        {
            "forecaster": forecaster,
            "archetype": str(parse_archetype(archetype)),
            "era": era,
            "market": verdict.market,
            "verdict": verdict.verdict,
            "recalibration": verdict.recalibration,
            "races_needed": verdict.races_needed,
            "line": number,
            **{name: getattr(line, name) for name in EVIDENCE_COLUMNS},
            "evidence": line.text,
        }
        for era, verdicts in verdicts_by_era.items()
        for verdict in verdicts
        for number, line in enumerate(verdict.evidence, start=1)
    ]
    return table(rows, VerdictTable)
