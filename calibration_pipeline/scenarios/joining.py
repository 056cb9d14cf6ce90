"""Join of the ensembles of several seasons, whose fields differ in size."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from calibration_pipeline.schemas.datasets import races_of


def join_seasons(ensembles: Sequence[xr.Dataset], archetype: str) -> xr.Dataset:
    """Join the races of one archetype, over seasons.

    Parameters
    ----------
    ensembles : sequence of xarray.Dataset
        At least one `ScenarioEnsemble`, in order of season. Ensembles of a user's forecaster, which have the
        coordinate `n_scenarios`, may differ in their number of scenarios and in their outcomes.
    archetype : str

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble`, its `driver` axis as wide as the widest field; possibly of zero races. Fewer
        scenarios are repeated, and outcomes that not all ensembles have are dropped.

    Raises
    ------
    ValueError
        If the network's ensembles that have races of the archetype differ in their number of scenarios.
    """
    chosen = [races_of(ensemble, archetype) for ensemble in ensembles]
    parts = [part for part in chosen if part.sizes["race"]] or chosen[:1]
    scenarios = {part.sizes["scenario"] for part in parts}
    if all("n_scenarios" in part.coords for part in parts):
        parts = [_repeat_scenarios(part, max(scenarios)) for part in parts]
        common = set.intersection(*({str(name) for name in part.data_vars} for part in parts))
        parts = [part[[name for name in part.data_vars if name in common]] for part in parts]
    elif len(scenarios) > 1:
        raise ValueError(
            f"Argument ensembles must have the same number of scenarios, got {sorted(scenarios)}: "
            "simulate the seasons again."
        )
    width = max(int(part["field_size"].max(initial=1)) for part in parts)
    return xr.concat([widen(part, width) for part in parts], dim="race")


def widen(ensemble: xr.Dataset, width: int) -> xr.Dataset:
    """Give the `driver` axis `width` slots, by adding or removing padding.

    Parameters
    ----------
    ensemble : xarray.Dataset
        Dimension `driver`, cars first.
    width : int
        At least the widest field.

    Returns
    -------
    xarray.Dataset
        New slots hold '', 0 and False.
    """
    missing = width - ensemble.sizes["driver"]
    if missing <= 0:
        return ensemble.isel(driver=slice(width))
    coordinates = list(ensemble.coords)
    filled = {
        name: (variable.dims, _padded(variable, missing)) if "driver" in variable.dims else variable.variable
        for name, variable in ensemble.reset_coords(
            [name for name in coordinates if name not in ensemble.indexes]
        ).data_vars.items()
    }
    indexes = {str(name): ensemble[name].variable for name in ensemble.indexes}
    return xr.Dataset(filled, indexes, ensemble.attrs).set_coords([str(name) for name in coordinates])


def _repeat_scenarios(ensemble: xr.Dataset, n_scenarios: int) -> xr.Dataset:
    """Repeat the scenarios in order, up to a number."""
    chosen = np.arange(n_scenarios) % ensemble.sizes["scenario"]
    return ensemble.isel(scenario=chosen).assign_coords(scenario=np.arange(n_scenarios))


def _padded(variable: xr.DataArray, missing: int) -> np.ndarray:
    widths = [(0, missing if dim == "driver" else 0) for dim in variable.dims]
    return np.pad(variable.values, widths, constant_values="" if variable.dtype.kind == "U" else 0)
