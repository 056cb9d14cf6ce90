"""NUTS sampler of every fit: parallel chains, compiled once for each model and shape.

NumPyro's own `parallel` method closes over the data and compiles again for every fit. Here the data
are arguments of the compiled function, so a walk-forward run of many folds compiles once, as long as
their padded shapes agree.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS

TARGET_ACCEPT = 0.9
MIN_STORED_DRAWS = 500
"""Fewest draws a chain of a fit that is stored."""
EXTRA_FIELDS = ("energy", "potential_energy", "num_steps", "accept_prob", "adapt_state.step_size")


def use_host_devices(n: int = 4) -> None:
    """Split this process's CPU into `n` JAX devices, on which chains run in parallel.

    The entry point of a process calls this before JAX's first operation; the library never does.

    Parameters
    ----------
    n : int
        Number of chains.

    Raises
    ------
    RuntimeError
        If JAX is already running with another number of devices.

    Notes
    -----
    A second call with the same `n` does nothing.
    """
    if jax.config.jax_num_cpu_devices != n:
        jax.config.update("jax_num_cpu_devices", n)


def check_stored_draws(n_samples: int) -> None:
    """Raise a ValueError if a fit has too few draws to be stored."""
    if n_samples < MIN_STORED_DRAWS:
        raise ValueError(
            f"Argument n_samples must be at least {MIN_STORED_DRAWS} for a stored fit, got {n_samples}."
        )


def run_nuts(
    model: Callable[..., Any],
    model_args: tuple[Any, ...],
    *,
    n_warmup: int = 500,
    n_samples: int = 1000,
    n_chains: int = 4,
    seed: int = 42,
) -> MCMC:
    """Sample a NumPyro model's posterior with NUTS.

    Chains run in parallel where JAX has a device for each (see `use_host_devices`), else on one device: one
    after the other on a CPU (vectorized chains take twice as long there), vectorized on a GPU. A second
    call with the same model, settings and shapes does not compile again.

    Parameters
    ----------
    model : callable
        A module-level NumPyro model; it is the key of the cache of compiled functions.
    model_args : tuple
        Its arguments, pytrees of arrays. The model's control flow may depend on shapes, not on values.
    n_warmup, n_samples, n_chains : int
        Steps of adaptation and draws of each chain.
    seed : int
        Same seed, arguments and machine: same draws.

    Returns
    -------
    numpyro.infer.MCMC
        With draws and the extra fields `EXTRA_FIELDS`; ArviZ's `from_numpyro` reads it.
    """
    parallel = 1 < n_chains <= jax.local_device_count()
    chains = _compiled_chains(model, n_warmup, n_samples, n_chains, parallel)
    mcmc = MCMC(
        NUTS(model, target_accept_prob=TARGET_ACCEPT),
        num_warmup=n_warmup,
        num_samples=n_samples,
        num_chains=n_chains,
        chain_method=lambda _: lambda start: chains(start[0], model_args),
        progress_bar=False,
    )
    # The compiled function makes the keys of several chains; NumPyro itself runs a single chain.
    starts = np.array([(seed, chain) for chain in range(n_chains)])
    mcmc.run(starts if n_chains > 1 else jax.random.key(seed), *model_args, extra_fields=EXTRA_FIELDS)
    mcmc.chain_method = "vectorized"
    return mcmc


@functools.cache
def _compiled_chains(
    model: Callable[..., Any], n_warmup: int, n_samples: int, n_chains: int, parallel: bool
) -> Callable[[jax.Array, tuple[Any, ...]], tuple[dict[str, Any], Any]]:
    """(starts (chain, 2), model_args) -> collected states by field, last states; chains first.

    A start is the seed of the fit and the index of the chain.
    """

    def one_chain(start: jax.Array, model_args: tuple[Any, ...]) -> tuple[dict[str, Any], Any]:
        key = jax.random.split(jax.random.key(start[0]), n_chains)[start[1]]
        chain = MCMC(
            NUTS(model, target_accept_prob=TARGET_ACCEPT),
            num_warmup=n_warmup,
            num_samples=n_samples,
            progress_bar=False,
        )
        chain.run(key, *model_args, extra_fields=EXTRA_FIELDS)
        return {"z": chain.get_samples(), **chain.get_extra_fields()}, chain.last_state

    if parallel:
        return jax.pmap(one_chain, in_axes=(0, None), devices=jax.local_devices()[:n_chains])
    if jax.default_backend() == "cpu":
        return jax.jit(
            lambda starts, model_args: jax.lax.map(lambda start: one_chain(start, model_args), starts)
        )
    return jax.jit(jax.vmap(one_chain, in_axes=(0, None)))
