"""Records of materializations: what a stored partition was computed from, and why it is outdated."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from calibration_pipeline.io.stored_files import file_version
from calibration_pipeline.io.stored_values import SCHEMA_VERSION, files_of, read_value
from calibration_pipeline.schemas.contracts import ContractError, place
from calibration_pipeline.sources.news import News

SHOWN = 3


@dataclass(frozen=True)
class Record:
    """Record of a partition's materialization.

    Attributes
    ----------
    storage_id : int
        Number of the record; a later one has a higher number.
    data_version : str or None
        SHA-256 of the content.
    schema_version, code_version : str or None
    read : mapping
        Input partition, as `place` names it → the data version that was loaded.
    settings : mapping
        Setting → value, of those that the value depends on.
    source_version : str or None
        Version of the source's data, where the source was read.
    """

    storage_id: int
    data_version: str | None
    schema_version: str | None
    code_version: str | None
    read: Mapping[str, str]
    settings: Mapping[str, Any]
    source_version: str | None


def file_fault(path: UPath, asset: str, partition: str | None, record: Record | None) -> str | None:
    """Return what is wrong with a partition's file, None if nothing is.

    It is missing, cannot be read, breaks its contract, has another schema version, or differs from what
    was recorded. A file that no run recorded is kept if it can be read.

    Parameters
    ----------
    path : UPath
    asset : str
    partition : str or None
    record : Record or None
        Of its last materialization.
    """
    if record is not None:
        present = (file_version(files_of(path, asset)), SCHEMA_VERSION)
        if (record.data_version, record.schema_version) == present:
            return None
    try:
        read_value(path, asset, partition)
    except FileNotFoundError:
        return f"{place(asset, partition)} is missing"
    except ContractError as error:
        return str(error)
    if record is None:
        return None
    return f"{place(asset, partition)} is not what was stored: its content has changed since"


def outdated_reason(
    where: str,
    record: Record,
    code_version: str | None,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str | None],
    except_for: Collection[str] = (),
) -> str | None:
    """Return why a partition whose file is whole is outdated, None if it is not.

    Parameters
    ----------
    where : str
        The partition, as `place` names it.
    record : Record
        Of its last materialization.
    code_version : str or None
    settings : mapping
        Present value of each setting that the partition depends on.
    inputs : mapping
        Present version of each input partition, None if it is not stored.
    except_for : collection of str
        Names of input partitions whose version does not count.
    """
    if (record.code_version or "") != (code_version or ""):
        return f"{where} was materialized by another version of its code"
    if changed := _changed_settings(record.settings, settings):
        return f"{where} was materialized with other settings: {changed}"
    differing = {name for name, version in inputs.items() if version and record.read.get(name) != version}
    if changes := sorted((differing | (record.read.keys() - inputs.keys())) - set(except_for)):
        more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        return f"{where} read another version of {', '.join(changes[:SHOWN])}{more}"
    return None


def source_change(where: str, record: Record | None, news: News) -> str | None:
    """Return how the source's data of a season differ from those that were read, None if they do not.

    A race whose results were not there when the season was read is no change.

    Parameters
    ----------
    where : str
        The partition of the season, as `place` names it.
    record : Record or None
        Of its last materialization.
    news : News
        What the source has of the season now.
    """
    version = record.source_version if record else None
    if version == news.version:
        return None
    if news.missing:
        return f"{where} lacks {', '.join(news.missing.values())}"
    return f"{where} was read before the source changed" if version else None


def _changed_settings(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """Return the settings that have changed since, each with both values."""
    then = _flat(recorded)
    return ", ".join(
        f"{name} was {_shown(then.get(name))}, is {_shown(value)}"
        for name, value in _flat(present).items()
        if then.get(name) != value
    )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name; the parts of the source stand for themselves."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "not set")
    return text if len(text) <= 60 else f"{text[:57]}..."
