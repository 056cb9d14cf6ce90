"""A model whose posterior is known, and its sampler; test modules share the compiled one."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.infer import MCMC

from calibration_pipeline.mcmc.nuts import run_nuts

OBSERVED = (2.0, -1.0)


def two_means(observed: Array) -> None:
    """Two means, each observed once, and a scale of which nothing is known."""
    mean = numpyro.sample("mean", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("observed", dist.Normal(mean, 1), obs=observed)


def sample_two_means(n_chains: int) -> MCMC:
    """Sample the posterior: each mean is N(observed / 2, 1 / 2)."""
    observed = jnp.array(OBSERVED)
    return run_nuts(two_means, (observed,), n_warmup=300, n_samples=1000, n_chains=n_chains, seed=1)
