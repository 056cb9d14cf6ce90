"""Posterior draws of MCMC objects, DataTrees and dicts, converted to one dataset.

The arrays of a dict have a chain dimension, or are flat. All forms are converted to `Draws`. Summaries of
draws belong elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from calibration_pipeline.stats.real_arrays import check_real, check_size

if TYPE_CHECKING:
    from numpyro.infer import MCMC

type Samples = MCMC | xr.DataTree | Mapping[str, ArrayLike]
"""An MCMC object, a DataTree with a group `posterior`, or arrays (chain, draw, ...), (draw, ...) by name."""

DIVERGING = "diverging"


@dataclass(frozen=True)
class Draws:
    """Posterior draws.

    Attributes
    ----------
    posterior : xarray.Dataset
        Parameters with the leading dims (chain, draw); flat draws are one chain.
    diverging : ndarray or None
        Draws that ended a divergent trajectory, (chain, draw), bool; None where unknown.
    has_chains : bool
        Whether the draws had a chain dimension.
    """

    posterior: xr.Dataset
    diverging: NDArray[np.bool_] | None
    has_chains: bool


def read_draws(mcmc_samples: Samples) -> Draws:
    """Convert draws to `Draws`.

    Parameters
    ----------
    mcmc_samples : numpyro.infer.MCMC, xarray.DataTree or mapping of str to array_like
        A mapping's arrays are (chain, draw, ...) or, flat, (draw, ...): a mapping with a one-dimensional
        array is flat. Its key `diverging`, if present, marks the divergent draws.

    Returns
    -------
    Draws

    Raises
    ------
    ValueError
        If there are no draws, arrays disagree on chains or draws, a draw is masked, complex, not finite or
        beyond ±1e100, or there are more chains than draws, as in a flat dict without a scalar parameter.

    Examples
    --------
    >>> draws = read_draws({"slope": np.ones((4, 100))})
    >>> dict(draws.posterior.sizes), draws.has_chains
    ({'chain': 4, 'draw': 100}, True)
    """
    if isinstance(mcmc_samples, xr.DataTree):
        return _from_tree(mcmc_samples)
    if not isinstance(mcmc_samples, Mapping):
        extra = mcmc_samples.get_extra_fields(group_by_chain=True)
        return _from_mapping({**mcmc_samples.get_samples(group_by_chain=True), **_only_diverging(extra)})
    return _from_mapping(mcmc_samples)


def posterior_group(
    mcmc: "MCMC", dims: Mapping[str, tuple[str, ...]], coords: Mapping[str, Sequence[object]]
) -> xr.Dataset:
    """Return the draws of a fit's parameters as ArviZ's group `posterior`.

    Parameters
    ----------
    mcmc : numpyro.infer.MCMC
    dims : mapping
        Parameter -> its dims after (chain, draw).
    coords : mapping
        Labels of these dims.
    """
    samples = mcmc.get_samples(group_by_chain=True)
    return xr.Dataset(
        {
            name: (("chain", "draw", *axes), np.asarray(samples[name], np.float32))
            for name, axes in dims.items()
        },
        coords,
    )


def sample_stats_group(mcmc: "MCMC") -> xr.Dataset:
    """Return the sampler statistics under ArviZ's names: variables (chain, draw)."""
    fields = {name: np.asarray(v) for name, v in mcmc.get_extra_fields(group_by_chain=True).items()}
    stats = {
        "diverging": fields["diverging"],
        "energy": fields["energy"],
        "lp": -fields["potential_energy"],
        "n_steps": fields["num_steps"],
        "tree_depth": np.log2(fields["num_steps"]).astype(np.int8) + 1,
        "acceptance_rate": fields["accept_prob"],
        "step_size": fields["adapt_state.step_size"],
    }
    return xr.Dataset({name: (("chain", "draw"), values) for name, values in stats.items()})


def _from_tree(tree: xr.DataTree) -> Draws:
    if "posterior" not in tree.children:
        raise ValueError(
            f"Argument mcmc_samples must have a group posterior, got {', '.join(tree.children)}."
        )
    posterior = tree["posterior"].to_dataset()
    if not {"chain", "draw"} <= set(posterior.dims):
        raise ValueError(f"Group posterior must have the dims chain and draw, got {tuple(posterior.dims)}.")
    ordered = posterior.transpose("chain", "draw", ...)
    known = None
    if "sample_stats" in tree.children and DIVERGING in tree["sample_stats"].data_vars:
        known = tree["sample_stats"][DIVERGING].transpose("chain", "draw").values.astype(bool)
    return _checked(Draws(ordered, known, has_chains=True))


def _from_mapping(samples: Mapping[str, ArrayLike]) -> Draws:
    for name, values in samples.items():
        check_real(values, f"Draws of {name}")
    arrays = {name: np.asarray(values) for name, values in samples.items()}
    diverging = arrays.pop(DIVERGING, None)
    if not arrays or any(values.ndim == 0 or values.size == 0 for values in arrays.values()):
        raise ValueError("Argument mcmc_samples must hold draws of at least one parameter, got none.")
    has_chains = min(values.ndim for values in arrays.values()) > 1
    if not has_chains:
        arrays = {name: values[None] for name, values in arrays.items()}
        diverging = None if diverging is None else diverging[None]
    shapes = {values.shape[:2] for values in arrays.values()}
    if diverging is not None:
        shapes.add(diverging.shape)
    if len(shapes) > 1:
        raise ValueError(f"Arrays of mcmc_samples must agree on chains and draws, got {sorted(shapes)}.")
    (n_chains, n_draws) = next(iter(shapes))
    if n_chains > n_draws:
        raise ValueError(
            f"Arrays of mcmc_samples must be (chain, draw, ...), got {n_chains} chains of {n_draws} draws."
        )
    variables = {
        name: (("chain", "draw", *(f"{name}_dim_{axis}" for axis in range(values.ndim - 2))), values)
        for name, values in arrays.items()
    }
    coords = {"chain": np.arange(n_chains), "draw": np.arange(n_draws)}
    known = None if diverging is None else diverging.astype(bool)
    return _checked(Draws(xr.Dataset(variables, coords), known, has_chains))


def _checked(draws: Draws) -> Draws:
    for name, values in draws.posterior.data_vars.items():
        check_real(values.values, f"Draws of {name}")
        n_bad = int((~np.isfinite(values.values)).sum())
        if n_bad:
            raise ValueError(f"Draws of {name} must be finite, got {n_bad} that are not of {values.size}.")
        check_size(values.values, f"Draws of {name}")
    return draws


def _only_diverging(extra: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
    return {DIVERGING: extra[DIVERGING]} if DIVERGING in extra else {}
