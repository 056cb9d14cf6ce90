"""Folder of forecasters: each file or subfolder is one forecaster, whose forecasts `read_forecaster` reads.

Listing reads names alone and imports no library of tables or arrays: a code location lists at each load.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from upath import UPath

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.io.addresses import (
    fresh_path,
    is_on_the_web,
    safe_cause,
    storage_errors,
    without_credentials,
)

if TYPE_CHECKING:
    import polars as pl
    import xarray as xr

    from calibration_pipeline.forecasters.field_matching import RacesInForce
    from calibration_pipeline.forecasters.odds import Margin
    from calibration_pipeline.forecasters.scenarios import ScenarioSource
    from calibration_pipeline.forecasters.tables import ForecastTable
    from calibration_pipeline.sources.quarantine import DefectLog

ARRAYS = ".nc"
SUFFIXES = (ARRAYS, ".parquet", ".csv", ".csv.gz", ".tsv", ".xlsx")
NETWORK = "network"
"""The forecaster that is always there, with which others are compared: the causal network."""
RESERVED = (NETWORK, "blend", "climatology", "driver", "driver_id")
"""Names of the forecasters that every comparison has, and of the columns beside those of forecasters."""
NOT_IN_NAMES = ("|", "...", "/", "\\")
"""Texts that a partition key, or the name of a stored file, cannot hold."""
LONGEST_NAME = 100


class Form(StrEnum):
    """Form of forecasts."""

    SCENARIOS = "scenarios"
    POSITIONS = "position probabilities"
    EVENTS = "event probabilities"


class ForecasterFiles(NamedTuple):
    """A forecaster in a folder.

    Attributes
    ----------
    name : str
    files : tuple of str
        Paths or addresses.
    model : str or None
        Model of a hubverse file of several models.
    """

    name: str
    files: tuple[str, ...]
    model: str | None = None


class FolderListing(NamedTuple):
    """Forecasters of a folder by name, and the names of files that have no form of a forecast."""

    forecasters: list[ForecasterFiles]
    ignored: list[str]


class KnownForecasters(NamedTuple):
    """Forecasters of a folder by name and form.

    Attributes
    ----------
    by_form : dict
        Form → name → files.
    refused : dict
        Name → the reason why a file or subfolder is no forecaster.
    """

    by_form: dict[Form, dict[str, ForecasterFiles]]
    refused: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Names of all forecasters."""
        return [name for of_form in self.by_form.values() for name in of_form]


class Forecasts(NamedTuple):
    """Forecasts of one forecaster.

    Attributes
    ----------
    form : Form
    values : xarray.Dataset or polars.DataFrame
        `ScenarioEnsemble`, `PositionProbabilities` or `EventProbabilities`.
    overrounds : polars.DataFrame
        `Overrounds` of event probabilities; empty for other forms.
    quarantine : polars.DataFrame
        `Quarantine`, over all seasons.
    notes : list of str
        Sentences on the file, such as the direction of scores.
    """

    form: Form
    values: xr.Dataset | pl.DataFrame
    overrounds: pl.DataFrame
    quarantine: pl.DataFrame
    notes: list[str]

    @property
    def frame(self) -> pl.DataFrame:
        """The values of a form that is a table."""
        import polars as pl

        if isinstance(self.values, pl.DataFrame):
            return self.values
        raise ForecasterError(f"Forecasts must be a table, got {self.form}.")

    @property
    def dataset(self) -> xr.Dataset:
        """The values of a form that is no table."""
        import xarray as xr

        if isinstance(self.values, xr.Dataset):
            return self.values
        raise ForecasterError(f"Forecasts must be arrays, got {self.form}.")


def list_forecasters(folder: str | os.PathLike[str]) -> FolderListing:
    """List the forecasters of a folder; no file is opened.

    Parameters
    ----------
    folder : str or path-like
        Path, or address of an object store. Hidden files are left out. A file is the only forecaster.

    Raises
    ------
    ForecasterError
        If the folder cannot be listed, two files have one name, or a name is reserved or no partition key.
    """
    address = os.fspath(folder)
    shown = without_credentials(address)
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    ignored: list[str] = []
    try:
        path = fresh_path(address)
        children = [path] if path.is_file() else list(path.iterdir())
        for child in sorted(children, key=_file_name):
            if _file_name(child).startswith((".", "_", "~")):
                continue
            name, files = _file_name(child), tuple(files_of(child))
            if not files:
                ignored.append(name)
                continue
            if not child.is_dir():
                name = name[: -len(_suffix(name))]
            found[name.casefold()].append((name, files))
    except storage_errors() as error:
        why = f"The folder of forecasters {shown} cannot be listed: {_reason(error)}."
        raise ForecasterError(why) from safe_cause(error, address)
    for same in found.values():
        if len(same) > 1:
            names = " and ".join(
                _file_name(UPath(files[0])) if len(files) == 1 else f"{n}/" for n, files in same
            )
            raise ForecasterError(
                f"{shown}: each forecaster must have one file or subfolder; {names} have one name."
            )
        _refuse_name(same[0][0], shown)
    return FolderListing([ForecasterFiles(*same[0]) for same in found.values()], ignored)


def find_forecasters(folder: str | os.PathLike[str] | None) -> KnownForecasters:
    """Find the forecasters of a folder by form; the first rows of each table are read.

    Files whose sizes and times are those of an earlier call are not read again.

    Parameters
    ----------
    folder : str, path-like or None
        As for `list_forecasters`; None for no forecaster.

    Raises
    ------
    ForecasterError
        As for `list_forecasters`.
    """
    known = KnownForecasters({form: {} for form in Form}, {})
    if folder is None:
        return known
    listing = list_forecasters(folder)
    known.refused.update(dict.fromkeys(listing.ignored, f"no file of it ends in {', '.join(SUFFIXES)}"))
    for listed in listing.forecasters:
        try:
            for forecaster, form in _with_forms(listed, forecaster_version(listed)):
                others = [name.casefold() for names in known.by_form.values() for name in names]
                if forecaster.name.casefold() in others:
                    raise ForecasterError(f"another forecaster has the name {forecaster.name!r}")
                known.by_form[form][forecaster.name] = forecaster
        except ValueError as error:
            known.refused[listed.name] = str(error)
        except storage_errors() as error:
            shown = ", ".join(map(without_credentials, listed.files))
            known.refused[listed.name] = f"{shown}: {_reason(error)}"
    return known


def forecaster_version(forecaster: ForecasterFiles) -> str:
    """Return the version of a forecaster's files: their names, sizes and times of modification, or ETags."""
    parts: list[str] = []
    for file in forecaster.files:
        stat = fresh_path(file).stat()
        headers: dict[str, object] = getattr(stat, "as_info", dict)() if is_on_the_web(file) else {}
        marks = [str(headers[name]) for name in ("ETag", "Last-Modified") if name in headers]
        parts.append(" ".join([_file_name(UPath(file)), str(stat.st_size), str(stat.st_mtime), *marks]))
    return sha256("|".join([*parts, forecaster.model or ""]).encode()).hexdigest()[:16]


def split_models(forecasters: Iterable[ForecasterFiles]) -> list[ForecasterFiles]:
    """Return the forecasters, with each hubverse file of several models replaced by one forecaster a model.

    The column of models is read; the name of a forecaster is that of its model.

    Raises
    ------
    ForecasterError
        If a file cannot be read, or a model has a forecaster's name.
    """
    from calibration_pipeline.forecasters.hubverse import is_hubverse, list_models
    from calibration_pipeline.forecasters.tables import open_table

    found: list[ForecasterFiles] = []
    for forecaster in forecasters:
        by_model: dict[str, list[str]] = defaultdict(list)
        for file in forecaster.files:
            if not _holds_arrays(file) and is_hubverse(table := open_table(file)):
                for model in list_models(table):
                    by_model[model].append(file)
        if len(by_model) > 1:
            found += [ForecasterFiles(model, tuple(by_model[model]), model) for model in sorted(by_model)]
        else:
            found.append(forecaster)
    names: dict[str, str] = {}
    for name, files, _ in found:
        shown = without_credentials(files[0])
        if (other := names.setdefault(name.casefold(), shown)) != shown:
            raise ForecasterError(
                f"Two forecasters must not have one name: {name!r} is in {other} and {shown}."
            )
        _refuse_name(name, shown)
    return found


def read_forecaster(
    forecaster: ForecasterFiles,
    races: RacesInForce,
    results: pl.DataFrame | None,
    *,
    fold_races: int | None,
    seed: int,
    margin: Margin | None = None,
) -> Forecasts:
    """Read the forecasts of a forecaster; the form is recognised from its files.

    Parameters
    ----------
    forecaster : ForecasterFiles
    races : RacesInForce
    results : polars.DataFrame or None
        `RaceResults`: earlier finishes, from which the direction of scores is guessed.
    fold_races : int or None
        Races in a fold, None for a season.
    seed : int
        Seed of the order of ties.
    margin : Margin, optional
        Method that removes the margin of odds; multiplicative if None.

    Returns
    -------
    Forecasts

    Raises
    ------
    ValueError
        If a file cannot be read or has no known form, files differ in form, or no race is in force. If no
        other season is in force, also where no race can be used; the message names the first reasons.
    """
    from calibration_pipeline.forecasters.event_probabilities import read_event_probabilities
    from calibration_pipeline.forecasters.odds import Margin
    from calibration_pipeline.forecasters.position_probabilities import read_position_probabilities
    from calibration_pipeline.forecasters.scenario_arrays import open_arrays
    from calibration_pipeline.forecasters.scenario_tables import open_scenarios
    from calibration_pipeline.forecasters.scenarios import read_scenarios
    from calibration_pipeline.schemas.forecasters import Overrounds
    from calibration_pipeline.sources.quarantine import DefectLog

    log = DefectLog(
        without_credentials(forecaster.files[0] if len(forecaster.files) == 1 else forecaster.name)
    )
    overrounds = Overrounds.empty()
    values: xr.Dataset | pl.DataFrame
    tables: dict[Form, list[ForecastTable]] = {}
    arrays = [file for file in forecaster.files if _holds_arrays(file)]
    for file in forecaster.files:
        if file not in arrays:
            form, table = _recognise(file, forecaster.model)
            tables.setdefault(form, []).append(table)
    forms = sorted({*tables, *([Form.SCENARIOS] if arrays else [])})
    if len(forms) > 1:
        raise ForecasterError(
            f"{forecaster.name}: its files must have one form; they hold {' and '.join(forms)}."
        )
    if forms == [Form.EVENTS]:
        values, overrounds = read_event_probabilities(
            tables[Form.EVENTS], races, log, margin or Margin.MULTIPLICATIVE
        )
        n_races = values["race_id"].n_unique()
    elif forms == [Form.POSITIONS]:
        values = read_position_probabilities(tables[Form.POSITIONS], races, log, fold_races)
        n_races = values.sizes["race"]
    else:
        with ExitStack() as stack:
            sources: list[ScenarioSource] = [stack.enter_context(open_arrays(file, races)) for file in arrays]
            sources += [open_scenarios(table, races) for table in tables.get(Form.SCENARIOS, [])]
            values = read_scenarios(sources, races, results, log, fold_races, seed)
        n_races = values.sizes["race"]
    quarantine = log.frame()
    if not n_races and not races.races.is_empty() and not races.other_seasons:
        raise _unusable(log, quarantine)
    return Forecasts(forms[0], values, overrounds, quarantine, log.notes)


@lru_cache(maxsize=4096)
def _with_forms(listed: ForecasterFiles, version: str) -> list[tuple[ForecasterFiles, Form]]:  # noqa: ARG001
    """Return the forecasters of a listed one's files, each with its form."""
    return [(forecaster, _form_of(forecaster)) for forecaster in split_models([listed])]


def _form_of(forecaster: ForecasterFiles) -> Form:
    """Return the form of the first file; `read_forecaster` refuses files of several forms."""
    first = forecaster.files[0]
    return Form.SCENARIOS if _holds_arrays(first) else _recognise(first, forecaster.model)[0]


def _recognise(file: str, model: str | None) -> tuple[Form, ForecastTable]:
    """Return the form of a table; of a hubverse table, the rows of a model in a plain form."""
    from calibration_pipeline.forecasters.event_probabilities import is_event_table
    from calibration_pipeline.forecasters.hubverse import is_hubverse, select_model
    from calibration_pipeline.forecasters.position_probabilities import is_position_table
    from calibration_pipeline.forecasters.scenario_tables import SCENARIO_COLUMN, is_scenario_table
    from calibration_pipeline.forecasters.tables import open_table

    table = open_table(file)
    if is_hubverse(table):
        table = select_model(table, model)
    if table.find(SCENARIO_COLUMN):
        return Form.SCENARIOS, table
    if is_position_table(table):
        return Form.POSITIONS, table
    if is_event_table(table):
        return Form.EVENTS, table
    if is_scenario_table(table):
        return Form.SCENARIOS, table
    raise ForecasterError(
        f"{table.path} is no form of forecast: beside {table.labels.popitem()[1]} it must have scenario and "
        "finish_position, position and probability, columns 1 to n, or any of win, top3, top5, top10 and "
        f"top20; it has {table.shown_columns}."
    )


def _unusable(log: DefectLog, quarantine: pl.DataFrame) -> ForecasterError:
    from calibration_pipeline.sources.quarantine import describe_quarantine

    reason = describe_quarantine(quarantine).partition(". All:")[0] or "it has no row with a race and a car"
    return ForecasterError(f"{log.path}: no race of it can be used: {reason}.")


def files_of(path: UPath) -> list[str]:
    """Return the files of a forecaster: the file itself, or the files in a subfolder."""
    files = sorted(path.iterdir(), key=_file_name) if path.is_dir() else [path]
    names = [(_file_name(file), str(file)) for file in files]
    return [file for name, file in names if _suffix(name) and not name.startswith((".", "_", "~"))]


def _file_name(path: UPath) -> str:
    """Return the name of a file or folder, without the query of an address on the web."""
    return UPath(without_credentials(str(path))).name if is_on_the_web(str(path)) else path.name


def _holds_arrays(file: str) -> bool:
    return _file_name(UPath(file)).lower().endswith(ARRAYS)


def _suffix(name: str) -> str:
    return next((name[-len(suffix) :] for suffix in SUFFIXES if name.lower().endswith(suffix)), "")


def _reason(error: Exception) -> str:
    """Return the reason of a file system's error; the text of an `OSError` may be an address alone."""
    text = getattr(error, "strerror", None) or ("" if isinstance(error, OSError) else str(error))
    return without_credentials(" ".join(text.split()))[:200].rstrip(". ") or type(error).__name__


def _refuse_name(name: str, where: str) -> None:
    if name.casefold() in RESERVED:
        raise ForecasterError(f"{where}: {name!r} is the name of another forecaster or a column; rename it.")
    is_key = name.strip() == name and name.isprintable() and 0 < len(name) <= LONGEST_NAME
    if not is_key or name.startswith(".") or any(text in name for text in NOT_IN_NAMES):
        raise ForecasterError(
            f"{where}: the name of a forecaster must have 1 to {LONGEST_NAME} printable characters, without "
            f"{', '.join(NOT_IN_NAMES)} or a dot at its start; got {name!r}."
        )
