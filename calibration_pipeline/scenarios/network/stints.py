"""Allocation of laps to cars in stints: a few draws a race instead of one a lap, with exact sums."""

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
    laps: Array,
    score: Array,
    laps_completed: Array,
    race_laps: Array,
    dispersion: ArrayLike,
    last: Array | None = None,
) -> Array:
    """Allocate `laps` laps to cars, in stints of random length.

    The race is split into `STINTS` stints. Each goes to a car that is still racing at its end, with
    probability proportional to exp(score). The last stint goes to the car in `last`, if given.

    Parameters
    ----------
    name : str
        Prefix of the sites `{name}_length` and `{name}_holder`, both (stint, scenario).
    laps : array of int, shape (scenario)
        Laps to allocate.
    score : array, shape (driver, scenario)
    laps_completed : array of int, shape (driver, scenario)
        0 for padding; at least one car completed the race.
    race_laps : array of int, shape (scenario)
        Laps of the race, of which `laps` may be a part (those under green).
    dispersion : float
        Power of the exponential lengths, at least 0. At 0 all stints are equally long; at 1 their ends are
        uniform. Above 1 few stints are long and many short, as when leaders change through pit stops.
    last : array of bool, shape (driver, scenario), optional
        The car that holds the last stint.

    Returns
    -------
    array of int32, shape (driver, scenario)
        Sums to `laps`; no car holds a lap beyond those that it completed.
    """
    with numpyro.plate("scenario", laps.shape[-1], dim=-1), numpyro.plate("stint", STINTS, dim=-2):
        length = numpyro.sample(f"{name}_length", dist.Exponential(1.0)) ** dispersion
        luck = numpyro.sample(f"{name}_holder", dist.Uniform())
    reach = jax.lax.associative_scan(jnp.add, length, axis=0)
    # The scan sums as a tree: rounding makes the sums of very short stints not quite ascending.
    end = jnp.minimum(jax.lax.cummax(jnp.round(reach / reach[-1] * laps).astype(jnp.int32)), laps)
    held = jnp.diff(end, axis=0, prepend=0)
    weight = jnp.exp(score - jnp.max(score, axis=0))
    needed = -(-end * race_laps // jnp.maximum(laps, 1))

    def add(total: Array, car: tuple[Array, Array]) -> Array:
        car_weight, car_laps = car
        return total + jnp.where(car_laps >= needed, car_weight, 0.0)

    def count(state: tuple[Array, Array], car: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        total, holder = state
        total = add(total, car)
        return (total, holder + (total <= drawn)), None

    def give(given: Array, stint: tuple[Array, Array]) -> tuple[Array, None]:
        to, n_laps = stint
        return given + jnp.where(to == slot, n_laps, 0), None

    cars, nothing = (weight, laps_completed), jnp.zeros(held.shape)
    total, _ = jax.lax.scan(lambda upto, car: (add(upto, car), None), nothing, cars)
    drawn = jnp.minimum(luck, LARGEST_BELOW_ONE) * total
    (_, holder), _ = jax.lax.scan(count, (nothing, jnp.zeros(held.shape, jnp.int32)), cars)
    if last is not None:
        holder = jnp.where(end == laps, jnp.argmax(last, axis=0), holder)
    slot = jnp.arange(score.shape[0])[:, None]
    given, _ = jax.lax.scan(give, jnp.zeros(score.shape, jnp.int32), (holder, held))
    return given
