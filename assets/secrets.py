"""Settings on their way to other processes: addresses without credentials, which stay in the environment.

Dagster records with a run how its graph is built, and so the settings.
"""

import os
from collections.abc import Mapping
from typing import Any

from calibration_pipeline.addresses import has_credentials, without_credentials

from .settings import ADDRESSES, ENV_PREFIX, Settings


def without_secrets(settings: Settings) -> dict[str, Any]:
    """Return the settings as they may be recorded."""
    told = settings.model_dump(mode="json")
    return told | {name: without_credentials(told[name]) for name in ADDRESSES if told[name]}


def secret_addresses(settings: Settings) -> dict[str, str]:
    """Return the addresses that hold credentials, by the variable of the environment that names them."""
    found = {name: getattr(settings, name) for name in ADDRESSES}
    return {_variable(name): value for name, value in found.items() if value and has_credentials(value)}


def with_secrets(told: Mapping[str, Any]) -> Settings:
    """Return the settings of a run, addresses with the credentials that this process's environment has."""
    own = {name: os.environ.get(_variable(name), "") for name in ADDRESSES}
    known = {name: value for name, value in own.items() if value and without_credentials(value) == told[name]}
    return Settings(**{**told, **known})


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper()}"
