"""NumPyro handler of interventions and evidence, and resampling by the evidence's likelihood weights.

An intervention sets a site and removes the influence of its causes. Evidence sets a site and keeps its
causes: the weight of a scenario is the probability of the evidence given its causes (likelihood weighting:
Fung & Chang 1990, doi:10.1016/B978-0-444-88738-2.50023-3; Shachter & Peot 1990,
doi:10.1016/B978-0-444-88738-2.50024-5).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from numpyro.primitives import Messenger

from calibration_pipeline.scenarios.covariates import AnyArray


class Pin(NamedTuple):
    """Value at which a site is held, for all cars or for some.

    Attributes
    ----------
    value : array
        Broadcasts against the site: () or (driver, 1).
    where : array of bool
        Where the site is held; elsewhere it is drawn.
    seen : bool
        Whether the value is evidence, which has a weight, or an intervention.
    """

    value: AnyArray
    where: AnyArray
    seen: AnyArray


class pin(Messenger):  # noqa: N801 - named as NumPyro's handlers are
    """Hold sites of a model at values, and sum the log probability of the evidence among them.

    Parameters
    ----------
    fn : callable
        Model whose sites have the scenarios last.
    pins : mapping
        Site name -> `Pin`.

    Attributes
    ----------
    log_weight : array, shape (scenario), or 0
        Log probability of the evidence given its causes, in each scenario.
    """

    def __init__(self, fn: Callable[..., Any], pins: Mapping[str, Pin]) -> None:
        self.pins = pins
        self.log_weight: Array | float = 0.0
        super().__init__(fn)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Replace the drawn values by the held ones."""
        held = self.pins.get(msg["name"])
        if held is None or msg["type"] != "sample":
            return
        drawn = msg["value"]
        where = jnp.broadcast_to(held.where, drawn.shape)
        value = jnp.where(where, jnp.asarray(held.value, drawn.dtype), drawn)
        each = jnp.where(where & held.seen, msg["fn"].log_prob(value), 0.0)
        self.log_weight = self.log_weight + each.sum(axis=tuple(range(each.ndim - 1)))
        msg["value"] = value


def effective_sample_size(log_weight: NDArray) -> float:
    """Kish's effective sample size of weighted draws, (sum w)^2 / sum w^2; 0 where all weights are 0.

    Kish (1965), Survey Sampling, section 11.7.

    Examples
    --------
    >>> effective_sample_size(np.log([1.0, 1.0, 1.0, 1.0])), effective_sample_size(np.array([0.0, -np.inf]))
    (4.0, 1.0)
    """
    weight = _relative(log_weight)
    return float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0


def resample(log_weight: NDArray, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of `n` draws in proportion to their weights, by systematic resampling.

    Carpenter, Clifford & Fearnhead (1999), doi:10.1049/ip-rsn:19990255.

    Parameters
    ----------
    log_weight : array, shape (draw)
        Not all -inf.
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    array of int, shape (n)
        Ascending.
    """
    reach = np.cumsum(_relative(log_weight))
    points = (np.arange(n) + rng.uniform()) / n * reach[-1]
    return np.minimum(np.searchsorted(reach, points, side="right"), len(reach) - 1)


def _relative(log_weight: NDArray) -> NDArray[np.float64]:
    largest = np.max(log_weight, initial=-np.inf)
    return np.exp(log_weight - largest) if np.isfinite(largest) else np.zeros(len(log_weight))
