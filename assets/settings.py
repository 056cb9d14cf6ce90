"""Settings: one typed object, read from options, the environment and `.env`, in this order.

Defaults live here and nowhere else. Nothing in this module imports Dagster.
"""

import datetime
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from upath import UPath

from calibration_pipeline.events.files import read_events
from calibration_pipeline.io.addresses import has_credentials, is_on_the_web, split_query, without_credentials
from calibration_pipeline.seasons import Seasons, parse_eras, parse_seasons, span

ENV_PREFIX = "CALIBRATION_"
DEFAULT_SEASONS = {"simulated": "2022-2025", "nascar_feed": "2020-"}
ADDRESSES = ("feed_url", "results", "laps", "columns", "tracks", "nicknames", "forecasters", "events")
"""The settings that may hold credentials."""
# From what overrides all to what is overridden by all.
ORIGINS = ("option", "environment", ".env", "default")


class SettingsError(ValueError):
    """A setting has a value that is not allowed; the message is one line that names both."""


def project_folder() -> Path:
    """Return the folder that relative settings refer to.

    It is the one that holds `workspace.yaml` beside this package, or else the current folder (as with
    an installed wheel).
    """
    beside = Path(__file__).resolve().parents[1]
    return beside if (beside / "workspace.yaml").exists() else Path.cwd()


class Settings(BaseSettings):
    """Settings of a run. Immutable; `load_settings` builds them."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=False
    )

    source: Literal["simulated", "nascar_feed", "tables"] = Field(
        default="simulated", description="simulated, nascar_feed or tables"
    )
    series: Literal["cup", "xfinity", "truck"] = Field(
        default="cup", description="cup, xfinity or truck; simulated seasons are of the Cup alone"
    )
    feed_url: str = Field(
        default="https://cf.nascar.com/cacher",
        min_length=1,
        description="https:// address, folder or zip of the timing feed's files",
    )
    results: str | None = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="path or address of your table of results, .parquet, .csv, .csv.gz, .tsv, .txt or "
        ".xlsx, with source tables and only then",
    )
    laps: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of your table of laps, in the same forms, with source tables "
        "and only then",
    )
    columns: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of a TOML file with the names of your tables' columns, with source "
        "tables and only then",
    )
    tracks: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of your own tracks, TOML with tables [[track]], added to the catalogue",
    )
    nicknames: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of other spellings of drivers' names, TOML with [given_names] and "
        "[drivers]",
    )
    network: Literal["full", "ordinary", "no_incidents", "ordinary_no_incidents"] = Field(
        default="full",
        description="full, or a baseline to compare with: ordinary (Plackett-Luce, the winner drawn first), "
        "no_incidents or ordinary_no_incidents",
    )
    forecasters: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of a folder with forecasts of your own, each file or subfolder a "
        "forecaster beside the network",
    )
    forecaster: str | None = Field(
        default=None,
        min_length=1,
        description="forecaster whose verdicts come first in the report; yours if there is exactly one, else "
        "network, by default",
    )
    events: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of your own joint events, TOML with a table [events]",
    )
    seasons: str | None = Field(
        default=None,
        description="seasons up to this year, as in 2020-2023 or 2016,2018-2020 or 2020- (open); "
        + ", ".join(f"{seasons} by default for {source}" for source, seasons in DEFAULT_SEASONS.items())
        + " on the web, else what the files hold",
    )
    store: str = Field(
        default="data/store",
        min_length=1,
        description="folder (relative to the project) or object-store address that holds the assets",
    )
    scenarios: int = Field(
        default=2000, ge=100, le=100_000, description="scenarios simulated per race, 100 to 100000"
    )
    seed: int = Field(default=42, ge=0, lt=2**31, description="seed of every random draw, 0 to 2147483647")
    fold_races: int | None = Field(
        default=None,
        ge=1,
        description="races per fold, at least 1; a season each where history is long enough, by default",
    )
    eras: str = Field(
        default="2022",
        description="first seasons of eras with verdicts of their own, as in 2018,2022 (2022: a new car); "
        "0 for none",
    )

    automation: bool = Field(
        default=False,
        description="true or false: whether schedules and sensor run without being switched on in the UI",
    )

    executor: Literal["process_pool", "in_process", "dask"] = Field(
        default="process_pool",
        description="where the command line executes its runs: process_pool (in worker processes), "
        "in_process (one by one, in its own process) or dask (on the cluster at dask_address)",
    )
    processes: int = Field(
        default=2, ge=1, le=256, description="worker processes of executor process_pool, 1 to 256"
    )
    dask_address: str | None = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="address of a running Dask scheduler, as in tcp://10.0.0.5:8786, with executor dask",
    )

    @field_validator("series")
    @classmethod
    def _check_series(cls, value: str, info: ValidationInfo) -> str:
        if value != "cup" and info.data.get("source") == "simulated":
            raise ValueError("source is simulated: add --source nascar_feed or --source tables")
        return value

    @field_validator("feed_url")
    @classmethod
    def _check_feed_url(cls, value: str) -> str:
        split_query(value)
        return value

    @field_validator("executor")
    @classmethod
    def _check_executor(cls, value: str) -> str:
        if value == "dask" and importlib.util.find_spec("distributed") is None:
            raise ValueError("dask is not installed: pip install 'calibration-pipeline[dask]'")
        return value

    @field_validator("dask_address")
    @classmethod
    def _check_dask_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("executor") == "dask":
            raise ValueError("executor dask needs it: --dask-address tcp://HOST:8786")
        return value

    @field_validator("seasons")
    @classmethod
    def _check_seasons(cls, value: str | None) -> str | None:
        if value is not None:
            parse_seasons(value, datetime.date.today().year)
        return value

    @field_validator("eras")
    @classmethod
    def _check_eras(cls, value: str) -> str:
        parse_eras(value)
        return value

    @field_validator("results", "laps", "columns", "tracks", "nicknames", "forecasters", "events")
    @classmethod
    def _make_absolute(cls, value: str | None) -> str | None:
        if value is None or "://" in value:
            return value
        try:
            return str(Path(value).expanduser().absolute())
        except RuntimeError as error:  # ~ of a user who is not there
            raise ValueError(str(error)) from None

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: str) -> str:
        if has_credentials(value):
            raise ValueError("every record names it: credentials belong into the variables of the store")
        try:
            store_root(value)
        except Exception as error:  # whatever a file system makes of an address
            raise ValueError(" ".join(str(error).split())) from None
        return value

    @field_validator("events", "tracks", "nicknames", "forecasters")
    @classmethod
    def _check_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        from calibration_pipeline.forecasters.folder import list_forecasters
        from calibration_pipeline.sources.names import read_nicknames  # it loads polars, as tracks do: late
        from calibration_pipeline.tracks import load_tracks

        readers = {
            "events": read_events,
            "tracks": lambda path: load_tracks(address=path),
            "nicknames": read_nicknames,
            "forecasters": list_forecasters,
        }
        readers[str(info.field_name)](value)
        return value

    @field_validator("forecaster")
    @classmethod
    def _check_forecaster(cls, value: str | None, info: ValidationInfo) -> str | None:
        from calibration_pipeline.forecasters.folder import Form, find_forecasters

        known = ["network", *find_forecasters(info.data.get("forecasters")).by_form[Form.SCENARIOS]]
        if value is not None and value not in known:
            raise ValueError(f"there are {', '.join(known)}")
        return value

    @field_validator("results")
    @classmethod
    def _check_results(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("source") == "tables":
            raise ValueError("source tables reads it: --results PATH")
        return value

    @property
    def default_seasons(self) -> str | None:
        """The seasons where none are set; None where only the source's files name them."""
        if self.source == "tables" or (self.source == "nascar_feed" and not is_on_the_web(self.feed_url)):
            return None
        return DEFAULT_SEASONS[self.source]

    @property
    def seasons_in_force(self) -> Seasons:
        """The seasons that are set, or those of the default.

        Raises
        ------
        SettingsError
            If the seasons are those that the source's files hold; `resources.with_seasons` looks there.
        """
        text = self.seasons or self.default_seasons
        if text is None:
            raise SettingsError(f"The seasons of source {self.source} are not known before it is read.")
        return parse_seasons(text, datetime.date.today().year)

    @property
    def season_list(self) -> list[int]:
        """Every season, in order."""
        return list(self.seasons_in_force.years)

    @property
    def era_starts(self) -> tuple[int, ...]:
        """First season of each declared era."""
        return parse_eras(self.eras)

    @property
    def fold_length(self) -> int | None:
        """Races in a fold, None for a season: the setting, or the rule for the history's length."""
        from calibration_pipeline.scenarios.folds import default_fold_races

        return self.fold_races or default_fold_races(len(self.season_list))

    @property
    def shown_forecaster(self) -> str:
        """The forecaster whose verdicts come first: the one set, the only one of a user, or the network."""
        from calibration_pipeline.forecasters.folder import Form, find_forecasters

        known = [*find_forecasters(self.forecasters).by_form[Form.SCENARIOS]]
        return self.forecaster or (known[0] if len(known) == 1 else "network")

    @property
    def key_prefix(self) -> tuple[str, str]:
        """The first parts of every asset key, so that sources and series never share partitions."""
        return self.source, self.series

    @property
    def store_path(self) -> UPath:
        """The folder or address that holds the assets of this source and series."""
        return store_root(self.store).joinpath(*self.key_prefix)


def store_root(store: str) -> UPath:
    """Return the path that the setting `store` means."""
    return UPath(store) if "://" in store else UPath(project_folder() / Path(store).expanduser())


def load_settings(options: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings in force.

    Parameters
    ----------
    options : mapping, optional
        Values that override environment, `.env` and defaults; None values are left out.

    Raises
    ------
    SettingsError
        If a value is not allowed; one line names the setting, its origin and what is allowed.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    try:
        settings = Settings(**{"_env_file": _env_file(), **given})
        _refuse_idle_tables(settings, origins(given))
        return settings
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{_env_file()} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        allowed = Settings.model_fields[name].description
        reason = f" ({first['ctx']['error']})" if first["type"] == "value_error" else ""
        raise SettingsError(
            f"Setting {ENV_PREFIX}{name.upper()} (from {origins(given)[name]}) must be: {allowed}; "
            f"got {without_credentials(repr(first['input']))}{reason}."
        ) from None


def to_public_json(settings: Settings) -> str:
    """Return the settings as JSON, addresses without credentials: what a task of a worker holds."""
    public = settings.model_dump(mode="json")
    return json.dumps(
        public | {name: without_credentials(public[name]) for name in ADDRESSES if public[name]}
    )


def export_credentials(settings: Settings) -> None:
    """Put the addresses that hold credentials into the environment, which worker processes inherit."""
    for name in ADDRESSES:
        address = getattr(settings, name)
        if address and has_credentials(address):
            os.environ[f"{ENV_PREFIX}{name.upper()}"] = address


def from_public_json(text: str) -> Settings:
    """Return the settings of `to_public_json`, with the credentials that the environment holds."""
    public = json.loads(text)
    own = {name: os.environ.get(f"{ENV_PREFIX}{name.upper()}", "") for name in ADDRESSES}
    known = {
        name: value for name, value in own.items() if value and without_credentials(value) == public[name]
    }
    return Settings(**{**public, **known})


def origins(options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return where each setting's value comes from: option, environment, .env or default."""
    given = {name for name, value in (options or {}).items() if value is not None}
    environment = {name.upper() for name, value in os.environ.items() if value}
    file = {name.upper() for name, value in dotenv_values(_env_file()).items() if value}

    def origin(name: str) -> str:
        variable = f"{ENV_PREFIX}{name}".upper()
        if name in given:
            return "option"
        if variable in environment:
            return "environment"
        return ".env" if variable in file else "default"

    return {name: origin(name) for name in Settings.model_fields}


def setting_rows(settings: Settings, options: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return each setting's variable, its value without credentials, and its origin."""
    came_from = origins(options)
    unset = {"fold_races": "by rule"}
    values = dict(settings) | {"seasons": span(settings.season_list)}
    return [
        (
            f"{ENV_PREFIX}{name.upper()}",
            without_credentials(unset.get(name, "none") if value is None else str(value)),
            came_from[name],
        )
        for name, value in values.items()
    ]


def _refuse_idle_tables(settings: Settings, came_from: Mapping[str, str]) -> None:
    """Refuse tables that no source reads, unless what chose the source overrides them."""
    if settings.source == "tables":
        return
    for name in ("results", "laps", "columns"):
        overridden = ORIGINS.index(came_from["source"]) < ORIGINS.index(came_from[name])
        if getattr(settings, name) is not None and not overridden:
            raise SettingsError(
                f"Setting {ENV_PREFIX}{name.upper()} (from {came_from[name]}) is for source tables alone; "
                f"source is {settings.source}: add --source tables."
            )


def _env_file() -> Path:
    return project_folder() / ".env"
