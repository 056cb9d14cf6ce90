"""Joint events on the terminal: what can be asked, and what the stored scenarios answer."""

from collections.abc import Iterator

import polars as pl
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from upath import UPath

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.verification.cases import JUDGED
from calibration_pipeline.verification.events import Event
from calibration_pipeline.verification.joint_events import validate_events

from .storage import stored_partitions, stored_value
from .verification import judged_ensembles

COLUMNS = ("Kind of track", "Raw", "Recal.", "Observed", "95 %", "z raw, re.", "Cases", "Races")


def judge_stored(store: UPath, event: Event, seed: int) -> Iterator[tuple[str, pl.DataFrame, str]]:
    """Judge an event on what is stored: for each archetype, its `JointEventTable` or why there is none.

    Parameters
    ----------
    store : UPath
        Folder of the source's assets.
    event : Event
    seed : int

    Yields
    ------
    tuple
        Archetype, rows of raw and recalibrated, and the reason where there are no rows.
    """
    files = stored_partitions(store / "race_results")
    results = pl.concat([stored_value(path, "race_results", season) for season, path in files.items()])
    for archetype in ARCHETYPES:
        path = store / "recalibrated_ensemble" / f"{archetype}.nc"
        if not path.exists():
            continue
        recalibrated = stored_value(path, "recalibrated_ensemble", archetype)
        ensembles = judged_ensembles(_raw(store, recalibrated, archetype), recalibrated, archetype)
        table, skipped = validate_events(ensembles, results, [event], seed)
        yield archetype.label, table, skipped.get(str(event), "")


def _raw(store: UPath, recalibrated: xr.Dataset, archetype: str) -> list[xr.Dataset]:
    """Return the raw ensembles of the recalibrated one's seasons; other seasons are of other runs."""
    seasons = set(recalibrated["season"].values.astype(str))
    return [
        stored_value(path, "scenario_ensemble", season, archetype)
        for season, path in stored_partitions(store / "scenario_ensemble").items()
        if season in seasons
    ]


def has_scenarios(store: UPath) -> bool:
    """Tell whether a run has stored results, scenarios and recalibrated scenarios."""
    return all(
        stored_partitions(store / asset)
        for asset in ("race_results", "scenario_ensemble", "recalibrated_ensemble")
    )


def print_judged(console: Console, store: UPath, event: Event, seed: int) -> None:
    """Print how often an event is predicted and how often it happened, by archetype."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    reasons = []
    for label, judged, reason in judge_stored(store, event, seed):
        if reason:
            reasons.append(f"{label}: not judged, {reason}.")
            continue
        raw, recalibrated = (judged.filter(forecast=forecast).row(0, named=True) for forecast in JUDGED)
        interval = "-" if raw["lower"] is None else f"{raw['lower']:.2f} to {raw['upper']:.2f}"
        shares = [f"{value:.3f}" for value in (raw["predicted"], recalibrated["predicted"], raw["observed"])]
        z = ", ".join("-" if row["z"] is None else f"{row['z']:+.1f}" for row in (raw, recalibrated))
        table.add_row(label, *shares, interval, z, str(raw["n_cases"]), str(raw["n_races"]))
    title = f"{event}: predicted and observed share of the cases, in races that no fit had seen"
    console.print(title, highlight=False, markup=False)
    if table.row_count:
        console.print(table)
    for reason in reasons:
        console.print(reason, highlight=False, markup=False)
