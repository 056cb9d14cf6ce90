"""Samplers for a JAX density: NUTS of NumPyro through its public interface, and NUTS of BlackJAX."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import initialize_model

from benchmarks.performance.problems import PARAMETERS
from benchmarks.performance.timing import in_turn

GRADIENTS = 9

Draws = dict[str, NDArray]
"""Parameter -> (chain, draw, ...)."""


class Sampler(NamedTuple):
    """Function of a seed that returns draws, and function that returns the seconds of one gradient."""

    sample: Callable[[int], Draws]
    gradient_seconds: Callable[[], float]


class Length(NamedTuple):
    """Number of chains, of warm-up steps and of draws, and the target acceptance of the warm-up."""

    n_chains: int
    n_warmup: int
    n_samples: int
    target_accept: float


def public(draws: Mapping[str, Any]) -> Draws:
    """Return the parameters as arrays; a slope is replaced by its logarithm."""
    known = dict(draws)
    if "log_slope" not in known:
        known["log_slope"] = np.log(np.asarray(known["slope"]))
    return {name: np.asarray(known[name]) for name in PARAMETERS}


def numpyro_sampler(model: Callable[..., Any], arguments: tuple, length: Length) -> Sampler:
    """Return NumPyro's NUTS with parallel chains; NumPyro compiles for every run."""
    mcmc = MCMC(
        NUTS(model, target_accept_prob=length.target_accept),
        num_warmup=length.n_warmup,
        num_samples=length.n_samples,
        num_chains=length.n_chains,
        chain_method="parallel",
        progress_bar=False,
    )

    def sample(seed: int) -> Draws:
        mcmc.run(jax.random.key(seed), *arguments)
        return public(mcmc.get_samples(group_by_chain=True))

    return Sampler(sample, lambda: gradient_seconds(model, arguments))


def blackjax_sampler(model: Callable[..., Any], arguments: tuple, length: Length) -> Sampler:
    """Return BlackJAX's NUTS with window adaptation for a NumPyro model's density; a chain has a device."""
    import blackjax

    start, potential, postprocess, _ = initialize_model(
        jax.random.key(0), model, model_args=arguments, dynamic_args=False
    )
    position = start.z

    def log_posterior(at: Any) -> jax.Array:
        return -potential(at)

    def run_chain(key: jax.Array) -> dict[str, jax.Array]:
        warm_up, draw = jax.random.split(key)
        adapt = blackjax.window_adaptation(
            blackjax.nuts, log_posterior, target_acceptance_rate=length.target_accept
        )
        (state, tuned), _ = adapt.run(warm_up, position, num_steps=length.n_warmup)
        kernel = blackjax.nuts(log_posterior, **tuned)

        def step(state: Any, key: jax.Array) -> tuple[Any, Any]:
            state, _ = kernel.step(key, state)
            return state, state.position

        _, positions = jax.lax.scan(step, state, jax.random.split(draw, length.n_samples))
        return jax.lax.map(postprocess, positions)

    chains = jax.pmap(run_chain, devices=jax.local_devices()[: length.n_chains])

    def sample(seed: int) -> Draws:
        return public(chains(jax.random.split(jax.random.key(seed), length.n_chains)))

    return Sampler(sample, lambda: gradient_seconds(model, arguments))


def gradient_seconds(model: Callable[..., Any], arguments: tuple) -> float:
    """Return the seconds of one compiled evaluation of a NumPyro model's density and gradient."""
    start, potential, *_ = initialize_model(jax.random.key(0), model, model_args=arguments)
    compiled = jax.jit(jax.value_and_grad(potential))
    taken = in_turn({"": lambda: jax.block_until_ready(compiled(start.z))}, GRADIENTS)
    return statistics.median(taken[""])
