r"""Reverse Plackett-Luce: the last car is drawn first.

With log-strengths :math:`u` (larger is faster) the last of the cars is :math:`i` with probability
proportional to :math:`e^{-u_i}`, the next to last is drawn likewise among the rest, and so on. Equivalently
cars are ordered by :math:`u_i - G_i` with standard Gumbel :math:`G_i` (Luce 1959; Critchlow, Fligner &
Verducci 1991, J. Math. Psychol. 35:294, doi:10.1016/0022-2496(91)90050-4: reversible ranking models).
The heavy tail is on the side of bad luck: a fast car that has a bad day falls far, a slow one
that has a good day gains little.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints

RETIRED = 1e9


def log_probability(utility_in_order: ArrayLike, taking_part: ArrayLike) -> Array:
    r"""Log probability of an order of cars, given their log-strengths in that order.

    .. math:: \log P = \sum_k \Bigl[-u_{(k)} - \log \sum_{j \le k} e^{-u_{(j)}}\Bigr]

    where :math:`u_{(1)}` is the first car's.

    Parameters
    ----------
    utility_in_order : array, shape (..., n)
        Log-strengths, first car first; cars that do not take part may stand anywhere.
    taking_part : array of bool, shape (..., n)
        Whether the slot counts.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    Two equal cars: either order has probability one half.

    >>> round(float(log_probability(jnp.zeros(2), jnp.ones(2, bool))), 4)
    -0.6931
    """
    taking_part = jnp.asarray(taking_part)
    slowness = jnp.where(taking_part, -jnp.asarray(utility_in_order), -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.max(slowness, axis=-1, keepdims=True, initial=-RETIRED))
    weight = jnp.where(taking_part, jnp.exp(jnp.where(taking_part, slowness - largest, 0.0)), 0.0)
    n = weight.shape[-1]
    still_racing = weight @ jnp.triu(jnp.ones((n, n), weight.dtype))
    each = jnp.where(taking_part, slowness - largest, 0.0) - jnp.log(
        jnp.where(taking_part, still_racing, 1.0)
    )
    return jnp.sum(each, axis=-1)


def rank_from_score(score: ArrayLike, taking_part: ArrayLike) -> Array:
    """Rank of each car by score, 1 for the largest among those taking part, 0 for the others.

    All pairs are compared: for 40 cars that is faster than two sorts on a CPU.

    Parameters
    ----------
    score : array, shape (n,)
    taking_part : array of bool, shape (n,)

    Returns
    -------
    array of int32, shape (n,)
    """
    score, taking_part = jnp.asarray(score), jnp.asarray(taking_part)
    slot = jnp.arange(score.shape[-1])
    ahead = (score[None, :] > score[:, None]) | (
        (score[None, :] == score[:, None]) & (slot[None, :] < slot[:, None])
    )
    rank = 1 + jnp.sum(ahead & taking_part[None, :], axis=-1, dtype=jnp.int32)
    return jnp.where(taking_part, rank, 0)


class ReversePlackettLuce(dist.Distribution):
    """Distribution of the ranks of the cars taking part; 0 marks the others.

    Parameters
    ----------
    utility : array, shape (n,)
        Log-strengths, larger is faster.
    taking_part : array of bool, shape (n,)
        Cars that are ranked.
    """

    arg_constraints = {"utility": constraints.real_vector, "taking_part": constraints.dependent}
    support = constraints.independent(constraints.nonnegative_integer, 1)
    pytree_data_fields = ("utility", "taking_part")

    def __init__(
        self, utility: ArrayLike, taking_part: ArrayLike, *, validate_args: bool | None = None
    ) -> None:
        self.utility, self.taking_part = jnp.asarray(utility), jnp.asarray(taking_part)
        super().__init__(batch_shape=(), event_shape=self.utility.shape, validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw ranks, shape (*sample_shape, n)."""
        luck = jax.random.gumbel(key, (*sample_shape, *self.event_shape), self.utility.dtype)
        return jnp.vectorize(rank_from_score, signature="(n),(n)->(n)")(self.utility - luck, self.taking_part)

    def log_prob(self, value: Any) -> Array:
        """Log probability of ranks (n,)."""
        order = jnp.argsort(jnp.where(value > 0, value, value.shape[-1] + 1), axis=-1)
        return log_probability(self.utility[order], self.taking_part[order])
