"""What stored arrays were made with: versions, settings and tracks, as attributes of every NetCDF file.

Nothing in them tells when or where: the same inputs give the same file, to the bit.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version

import xarray as xr

from calibration_pipeline.tracks import compile_constraints

from .settings import Settings

LIBRARIES = ("arviz", "h5netcdf", "jax", "jaxlib", "netCDF4", "numpy", "numpyro", "polars", "xarray")
STAMP = ("project_version", "library_versions", "settings", "tracks_hash", "code_version")
"""The attributes. They are no part of a value: who reads it does not see them."""
VALUE_SETTINGS = ("fold_races", "network", "scenarios", "seed", "source")
"""The settings that say how values are computed; the others say where from, or where."""


def provenance(settings: Settings) -> dict[str, str]:
    """Return all attributes but an asset's own code_version.

    project_version, library_versions, settings (JSON) and tracks_hash (SHA-256 of the track catalogue).

    Parameters
    ----------
    settings : Settings
    """
    return {
        "project_version": version("calibration-pipeline"),
        "library_versions": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "settings": json.dumps(settings.model_dump(include=set(VALUE_SETTINGS)), sort_keys=True),
        "tracks_hash": compile_constraints().content_hash,
    }


def stamped(value: xr.Dataset | xr.DataTree, attributes: Mapping[str, str]) -> xr.Dataset | xr.DataTree:
    """Return `value` with attributes of `STAMP`."""
    copy = value.copy(deep=False)
    copy.attrs = {**value.attrs, **attributes}
    return copy


def unstamp(value: xr.Dataset | xr.DataTree) -> None:
    """Take the attributes of `STAMP` off."""
    for name in STAMP:
        value.attrs.pop(name, None)
