"""Sharing laps out to cars in stints: a few draws a race instead of one a lap, sums exact by construction."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

STINTS = 24
LARGEST_BELOW_ONE = 1.0 - 1e-6


def share_out(
    name: str,
    laps: ArrayLike,
    score: Array,
    laps_completed: Array,
    race_laps: ArrayLike,
    dispersion: ArrayLike,
    last: Array | None = None,
) -> Array:
    """Hand `laps` laps out to cars, in stints of random length.

    The race is cut into `STINTS` stints. Each goes to a car that is still racing at its end, with probability
    proportional to exp(score); the last goes to `last` if one is named.

    Parameters
    ----------
    name : str
        Prefix of the sites `{name}_cut` and `{name}_holder`.
    laps : int
        Laps to hand out.
    score : array, shape (driver)
    laps_completed : array of int, shape (driver)
        0 for padding; at least one car completed the race.
    race_laps : int
        Laps of the race, of which `laps` may be a part (those under green).
    dispersion : float
        Power of the exponential lengths, at least 0: 0 cuts evenly, 1 at random, more makes a few long stints
        among many short ones, as when leaders change through pit stops.
    last : array of bool, shape (driver), optional
        The one car that holds the last stint.

    Returns
    -------
    array of int32, shape (driver)
        Sums to `laps`; none to a car past the laps that it completed.
    """
    width = score.shape[-1]
    length = numpyro.sample(f"{name}_cut", dist.Exponential().expand([STINTS]).to_event(1)) ** dispersion
    end = jnp.round(jnp.cumsum(length) / jnp.sum(length) * laps).at[-1].set(laps)
    start = jnp.concatenate([jnp.zeros(1), end[:-1]])

    able = laps_completed[None, :] * laps >= end[:, None] * race_laps
    weight = jnp.cumsum(jnp.where(able, jnp.exp(score - jnp.max(score)), 0.0), axis=-1)
    luck = numpyro.sample(f"{name}_holder", dist.Uniform().expand([STINTS]).to_event(1))
    drawn = jnp.minimum(luck[:, None], LARGEST_BELOW_ONE) * weight[:, -1:]
    holder = jnp.sum(weight <= drawn, axis=-1)
    if last is not None:
        holder = jnp.where(end >= laps, jnp.argmax(last), holder)
    held = jax.nn.one_hot(holder, width) * (end - start)[:, None]
    return jnp.sum(held, axis=0).astype(jnp.int32)
