"""Priors of the latent and the marginal calibration map, centred at "calibrated", and their sampling sites.

Each parameter has its prior here, under the name of its site. The network's priors are in
`scenarios.fit.posterior`.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jax import Array

PRIOR_SLOPE_MU = 0.3
"""slope_mu ~ Normal(0, 0.3): logarithm of the calibration slope."""
PRIOR_SLOPE_SIGMA = 0.25
"""slope_sigma ~ HalfNormal(0.25): how much the log slope differs from season to season."""
PRIOR_NOISE_SIGMA = 0.5
"""noise_sigma ~ HalfNormal(0.5): how much the log slope differs from race to race."""
PRIOR_INTERCEPT = 0.5
"""intercept ~ Normal(0, 0.5): shift of the logit."""
PRIOR_ARCHETYPE_SIGMA = 0.25
"""archetype_sigma ~ HalfNormal(0.25), of the pooled map: how much log slopes differ between archetypes."""

NORMAL = {"slope_mu": PRIOR_SLOPE_MU, "intercept": PRIOR_INTERCEPT}
"""Parameter with the prior Normal(0, scale) -> scale."""
HALF_NORMAL = {
    "slope_sigma": PRIOR_SLOPE_SIGMA,
    "noise_sigma": PRIOR_NOISE_SIGMA,
    "archetype_sigma": PRIOR_ARCHETYPE_SIGMA,
}
"""Parameter with the prior HalfNormal(scale) -> scale."""
SCALARS = ("slope_mu", "slope_sigma", "noise_sigma", "intercept")
"""Scalar parameters of a map of one archetype, in the order of sampling, of stored draws and of tables."""


def sample_parameter(name: str, *shape: int) -> "Array":
    """Sample a parameter from its prior: a site of a NumPyro model.

    Parameters
    ----------
    name : str
        A key of `NORMAL` or `HALF_NORMAL`, the name of the site.
    *shape : int
        Shape of independent parameters; a scalar by default.

    Returns
    -------
    jax.Array
    """
    # Imported late: code that reads names and scales alone does not need NumPyro.
    import numpyro
    import numpyro.distributions as dist

    prior = dist.Normal(0.0, NORMAL[name]) if name in NORMAL else dist.HalfNormal(HALF_NORMAL[name])
    value: Array = numpyro.sample(name, prior.expand(shape).to_event(len(shape)) if shape else prior)
    return value


def prior_sd(name: str) -> float:
    """Return the prior standard deviation of a parameter; that of `slope` is rounded to 3 digits.

    With log slope ~ N(0, a^2 + s^2), s ~ HalfNormal(b), the moments of the slope are
    E slope^k = exp(a^2 k^2 / 2) / sqrt(1 - b^2 k^2).
    """
    if name == "slope":
        first, second = (
            np.exp(PRIOR_SLOPE_MU**2 * k**2 / 2) / np.sqrt(1 - PRIOR_SLOPE_SIGMA**2 * k**2) for k in (1, 2)
        )
        return round(float(np.sqrt(second - first**2)), 3)
    return NORMAL[name] if name in NORMAL else HALF_NORMAL[name] * np.sqrt(1.0 - 2.0 / np.pi)
