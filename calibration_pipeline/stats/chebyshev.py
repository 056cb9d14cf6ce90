"""Smooth functions of one or two numbers, tabulated once as Chebyshev series.

A race's log-likelihood is a smooth curve of its log slope (latent map) or of its log slope and the
intercept (marginal map). Its table costs a few dozen evaluations; a sampler then reads polynomials.
This module fits tables (NumPy, float64) and evaluates them (JAX, differentiable). The tabulated functions
belong elsewhere.

Outside its box a table continues linearly with its end slope, since the polynomial explodes there.

References
----------
Trefethen, Approximation Theory and Approximation Practice (2013), chapters 2-4; Clenshaw, A note on
the summation of Chebyshev series, Math. Comp. 9 (1955) 118-120.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

LOG_SLOPE_BOX = (-2.2, 2.2)
N_NODES = 40
N_NODES_2D = 24
LARGEST_UNIT = 1.0 - 1e-6


def chebyshev_nodes(
    lower: float = LOG_SLOPE_BOX[0], upper: float = LOG_SLOPE_BOX[1], n: int = N_NODES
) -> NDArray[np.float64]:
    """Return the `n` Chebyshev nodes of the first kind on [lower, upper], increasing.

    Examples
    --------
    >>> chebyshev_nodes(-1, 1, 2).round(4).tolist()
    [-0.7071, 0.7071]
    """
    unit = -np.cos(np.pi * (np.arange(n) + 0.5) / n)
    return 0.5 * (lower + upper) + 0.5 * (upper - lower) * unit


def fit_coefficients(values: ArrayLike) -> NDArray[np.float64]:
    """Return the Chebyshev coefficients of the polynomials through values at the nodes.

    Parameters
    ----------
    values : array_like, shape (..., n)
        Values at `chebyshev_nodes(lower, upper, n)`.

    Returns
    -------
    ndarray, shape (..., n), float64
        c_0, ..., c_{n-1} of f = sum_k c_k T_k, by discrete orthogonality (Trefethen, chapter 3).

    Examples
    --------
    >>> fit_coefficients(chebyshev_nodes(-1, 1, 3) ** 2).round(4).tolist()  # x^2 = (T_0 + T_2) / 2
    [0.5, 0.0, 0.5]
    """
    known = np.asarray(values, dtype=np.float64)
    return known @ _node_transform(known.shape[-1])


def fit_coefficients_2d(values: ArrayLike) -> NDArray[np.float64]:
    """Return the coefficients of the polynomials in x and y through values on the node grid.

    Parameters
    ----------
    values : array_like, shape (..., n_x, n_y)
        Values at the nodes of x (rows) and y (columns).

    Returns
    -------
    ndarray, shape (..., n_x, n_y), float64
    """
    known = np.asarray(values, dtype=np.float64)
    return _node_transform(known.shape[-2]).T @ known @ _node_transform(known.shape[-1])


def centre(
    coefficients: ArrayLike, lower: float = LOG_SLOPE_BOX[0], upper: float = LOG_SLOPE_BOX[1]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Subtract each curve's value at 0, so that a sampler in float32 adds up small numbers.

    Parameters
    ----------
    coefficients : array_like, shape (..., n)
    lower, upper : float
        The box, lower <= 0 <= upper.

    Returns
    -------
    centred : ndarray, shape (..., n), float64
    value_at_zero : ndarray, shape (...), float64
        The subtracted values.

    Examples
    --------
    >>> centred, value = centre([5.0, 1.0], -2.0, 2.0)
    >>> centred.tolist(), value.item()
    ([0.0, 1.0], 5.0)
    """
    centred = np.array(coefficients, dtype=np.float64)
    value_at_zero = centred @ _basis_at_zero(lower, upper, centred.shape[-1])
    centred[..., 0] -= value_at_zero
    return centred, value_at_zero


def centre_2d(
    coefficients: ArrayLike, box_x: tuple[float, float], box_y: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Subtract each surface's value at (0, 0); see `centre`.

    Parameters
    ----------
    coefficients : array_like, shape (..., n_x, n_y)
    box_x, box_y : tuple of float
        The boxes of x and y, both around 0.

    Returns
    -------
    centred : ndarray, shape (..., n_x, n_y), float64
    value_at_zero : ndarray, shape (...), float64
    """
    centred = np.array(coefficients, dtype=np.float64)
    rows = centred @ _basis_at_zero(*box_y, centred.shape[-1])
    value_at_zero = rows @ _basis_at_zero(*box_x, centred.shape[-2])
    centred[..., 0, 0] -= value_at_zero
    return centred, value_at_zero


def evaluate(
    coefficients: ArrayLike,
    x: ArrayLike,
    lower: ArrayLike = LOG_SLOPE_BOX[0],
    upper: ArrayLike = LOG_SLOPE_BOX[1],
) -> jax.Array:
    """Evaluate each curve at its own points: Clenshaw's recurrence, linear outside the box.

    Parameters
    ----------
    coefficients : array_like, shape (..., n)
        One curve for each of `...`.
    x : array_like, shape (...) or (..., points)
        Broadcast against the curves: with one dimension more than they have, `points` per curve.
    lower, upper : float
        The box of the table.

    Returns
    -------
    jax.Array, shape of `x` broadcast with the curves

    Examples
    --------
    >>> line = jnp.array([[0.0, 1.0], [0.0, 2.0]])  # x and 2x on [-1, 1]
    >>> evaluate(line, jnp.array([[0.5, 6.0], [0.5, -6.0]]), -1, 1).tolist()
    [[0.5, 6.0], [1.0, -12.0]]
    """
    table = jnp.moveaxis(jnp.asarray(coefficients, dtype=float), -1, 0)
    unit = _to_unit(x, lower, upper)
    if unit.ndim > table.ndim - 1:
        table = table[..., None]
    inside = jnp.clip(unit, -1.0, 1.0)
    below, above = _end_slopes(table)
    return _clenshaw(table, inside) + jnp.where(unit > 0, above, below) * (unit - inside)


def section(coefficients: ArrayLike, y: ArrayLike, box_y: tuple[ArrayLike, ArrayLike]) -> jax.Array:
    """Return the curve in x of each surface at a fixed y.

    Parameters
    ----------
    coefficients : array_like, shape (..., n_x, n_y)
    y : array_like, shape () or (...)
        One number, or a number for each surface.
    box_y : tuple of float
        The box of y.

    Returns
    -------
    jax.Array, shape (..., n_x)
        Coefficients for `evaluate`.
    """
    table = jnp.asarray(coefficients, dtype=float)
    basis = _basis(_to_unit(y, *box_y), table.shape[-1])
    return jnp.einsum("...ij,...j->...i", table, basis)


def basis_values(
    x: ArrayLike, n: int, lower: float = LOG_SLOPE_BOX[0], upper: float = LOG_SLOPE_BOX[1]
) -> NDArray[np.float64]:
    """Return the Chebyshev polynomials at points x, to evaluate many curves at the same points.

    Parameters
    ----------
    x : array_like, shape (...)
    n : int
        Number of coefficients of a curve.
    lower, upper : float
        The box of the table; outside it the curves continue linearly.

    Returns
    -------
    ndarray, shape (..., n), float64

    Examples
    --------
    >>> basis_values([0.5, 2.0], 3, -1, 1).tolist()  # T_2 = 2 x^2 - 1 has slope 4 at 1
    [[1.0, 0.5, -0.5], [1.0, 2.0, 5.0]]
    """
    unit = (2.0 * np.asarray(x, np.float64) - lower - upper) / (upper - lower)
    inside = np.clip(unit, -1.0, 1.0)
    order = np.arange(n)
    end_slope = order**2 * np.where(unit[..., None] > 0, 1.0, (-1.0) ** (order + 1))
    return chebvander(inside, n - 1) + end_slope * (unit - inside)[..., None]


def _node_transform(n: int) -> NDArray[np.float64]:
    """Return the matrix M with: values at the n nodes @ M = coefficients."""
    angle = np.pi * (n - np.arange(n) - 0.5) / n
    transform = 2.0 / n * np.cos(np.outer(angle, np.arange(n)))
    transform[:, 0] /= 2.0
    return transform


def _basis_at_zero(lower: float, upper: float, n: int) -> NDArray[np.float64]:
    """Return T_0, ..., T_{n-1} at the point 0 of the box."""
    if not lower <= 0.0 <= upper:
        raise ValueError(f"The box must fulfil lower <= 0 <= upper, got [{lower}, {upper}].")
    return np.cos(np.arange(n) * np.arccos(-(lower + upper) / (upper - lower)))


def _to_unit(x: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> jax.Array:
    """Map the box to [-1, 1]."""
    return (2.0 * jnp.asarray(x) - lower - upper) / (jnp.asarray(upper) - lower)


@jax.custom_jvp
def _clenshaw(table: jax.Array, unit: jax.Array) -> jax.Array:
    """Sum c_k T_k(unit); `table` has k first."""
    zero = jnp.zeros(jnp.broadcast_shapes(table.shape[1:], unit.shape))
    later, last = zero, zero
    for coefficient in table[:0:-1]:
        later, last = coefficient + 2.0 * unit * later - last, later
    return table[0] + unit * later - last


def _clenshaw_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]
) -> tuple[jax.Array, jax.Array]:
    """Differentiate the recurrence along with itself: half the compile time of reversing it."""
    table, unit = primals
    table_tangent, unit_tangent = tangents
    zero = jnp.zeros(jnp.broadcast_shapes(table.shape[1:], unit.shape))
    later, last, later_slope, last_slope = zero, zero, zero, zero
    for coefficient in table[:0:-1]:
        later_slope, last_slope = 2.0 * later + 2.0 * unit * later_slope - last_slope, later_slope
        later, last = coefficient + 2.0 * unit * later - last, later
    value = table[0] + unit * later - last
    tangent = jnp.zeros_like(value)
    if not isinstance(unit_tangent, SymbolicZero):
        tangent += (later + unit * later_slope - last_slope) * unit_tangent
    if not isinstance(table_tangent, SymbolicZero):
        tangent += _clenshaw(table_tangent, unit)
    return value, tangent


_clenshaw.defjvp(_clenshaw_jvp, symbolic_zeros=True)


def _end_slopes(table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return derivatives at -1 and 1, by T_k'(1) = k^2 and T_k'(-1) = (-1)^(k+1) k^2; k is first."""
    order = np.arange(table.shape[0])
    at_upper = jnp.asarray(order**2, dtype=table.dtype)
    at_lower = jnp.asarray((-1.0) ** (order + 1) * order**2, dtype=table.dtype)
    return jnp.tensordot(at_lower, table, axes=1), jnp.tensordot(at_upper, table, axes=1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _cosine_basis(inside: jax.Array, n: int) -> jax.Array:
    """T_k(x) = cos(k arccos x), all k at once."""
    return jnp.cos(jnp.arange(n) * jnp.arccos(inside)[..., None])


@_cosine_basis.defjvp
def _cosine_basis_jvp(
    n: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (inside,), (tangent,) = primals, tangents
    return _cosine_basis(inside, n), _cosine_slope(inside, n) * tangent[..., None]


def _cosine_slope(inside: jax.Array, n: int) -> jax.Array:
    """T_k'(x) = k sin(k arccos x) / sin(arccos x), its limits at the ends."""
    order = jnp.arange(n)
    angle = jnp.arccos(jnp.clip(inside, -LARGEST_UNIT, LARGEST_UNIT))[..., None]
    return order * jnp.sin(order * angle) / jnp.sin(angle)


def _basis(unit: jax.Array, n: int) -> jax.Array:
    """T_0, ..., T_{n-1} at `unit` (last axis), continued linearly outside [-1, 1]."""
    inside = jnp.clip(unit, -1.0, 1.0)
    return _cosine_basis(inside, n) + _cosine_slope(inside, n) * (unit - inside)[..., None]
