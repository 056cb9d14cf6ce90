"""Settings: one typed object, read from options, the environment and `.env`, in this order.

Defaults live here and in `AnalysisSettings`, and nowhere else. Nothing in this module imports Dagster.
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

from calibration_pipeline.analysis.settings import ADDRESSES, AnalysisSettings
from calibration_pipeline.io.addresses import fresh_path, has_credentials, without_credentials
from calibration_pipeline.seasons import Seasons, parse_seasons
from calibration_pipeline.terminal.errors import CommandError

ENV_PREFIX = "CALIBRATION_"
TABLES = ("results", "laps", "columns")
# From what overrides all to what is overridden by all.
ORIGINS = ("option", "environment", ".env", "default")


class SettingsError(CommandError, ValueError):
    """A setting has a value that is not allowed; the message is one line that names both."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=2)


def project_folder() -> Path:
    """Return the folder that holds `.env`, and that a relative `store` starts from.

    It is the one that holds `workspace.yaml` beside this package, or else the current folder (as with
    an installed wheel).
    """
    beside = Path(__file__).resolve().parents[1]
    return beside if (beside / "workspace.yaml").exists() else Path.cwd()


class Settings(AnalysisSettings, BaseSettings):
    """Settings of an analysis and of the runs that compute it. Immutable; `load_settings` builds them."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore", validate_default=False
    )

    automation: bool = Field(
        default=False,
        description="true or false: whether schedule and sensor run without being switched on in the UI",
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
            parse_seasons(value, datetime.datetime.now(datetime.UTC).year)
        return value

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
        return parse_seasons(text, datetime.datetime.now(datetime.UTC).year)

    @property
    def season_list(self) -> list[int]:
        """Every season, in order."""
        return list(self.seasons_in_force.years)

    @property
    def fold_length(self) -> int | None:
        """Races in a fold, None for a season: the setting, or the rule for the history's length."""
        from calibration_pipeline.scenarios.folds import default_fold_races

        return self.fold_races or default_fold_races(len(self.season_list))

    @property
    def store_path(self) -> UPath:
        """The folder or address that holds the assets of this source and series."""
        return store_root(self.store).joinpath(*self.key_prefix)


def store_root(store: str) -> UPath:
    """Return the path that the setting `store` means."""
    return fresh_path(store if "://" in store else str(project_folder() / Path(store).expanduser()))


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


def _refuse_idle_tables(settings: Settings, came_from: Mapping[str, str]) -> None:
    """Refuse tables that no source reads, unless what chose the source overrides them."""
    if settings.source == "tables":
        return
    for name in TABLES:
        overridden = ORIGINS.index(came_from["source"]) < ORIGINS.index(came_from[name])
        if getattr(settings, name) is not None and not overridden:
            raise SettingsError(
                f"Setting {ENV_PREFIX}{name.upper()} (from {came_from[name]}) is for source tables alone; "
                f"source is {settings.source}: add --source tables."
            )


def _env_file() -> Path:
    return project_folder() / ".env"
