"""Chebyshev tables: exact on polynomials, linear outside their box, integrated over race noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration_pipeline.stats import chebyshev
from calibration_pipeline.stats.chebyshev import (
    centre,
    centre_2d,
    chebyshev_nodes,
    fit_coefficients,
    fit_coefficients_2d,
    section,
)
from helpers.jitted import evaluate, integrated_log_likelihood

X = np.linspace(-2.2, 2.2, 101)
BOX, BOX_Y = (-2.2, 2.2), (-2.5, 2.5)


def smooth(x, shift):
    """A curve like a race's log-likelihood: some -100 nats at 0, a maximum, steep at one end."""
    return -100.0 - 10.0 * np.exp(x) + 8.0 * (x - shift)


def smooth_slope(x):
    return -10.0 * np.exp(x) + 8.0


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(-3, -0.1), st.floats(0.1, 3))
@settings(max_examples=25)
def test_polynomials_are_reproduced(polynomial, lower, upper):
    """Twelve nodes know every polynomial of degree five."""
    values = np.polyval(polynomial, chebyshev_nodes(lower, upper, 12))
    x = np.linspace(lower, upper, 7)
    table = fit_coefficients(values)
    expected = np.polyval(polynomial, x)
    np.testing.assert_allclose(
        evaluate(table, x, lower, upper), expected, atol=1e-5 * (1 + np.abs(values).max())
    )


def test_centred_curves_keep_value_and_lose_the_constant():
    """Centred curve plus its value at 0 is the curve; at 0 it is 0; float32 loses nothing that matters."""
    shifts = np.array([-0.5, 0.0, 0.7])
    values = smooth(chebyshev_nodes(), shifts[:, None])
    centred, at_zero = centre(fit_coefficients(values))
    np.testing.assert_allclose(at_zero, smooth(0.0, shifts), rtol=1e-12)
    assert np.abs(np.asarray(evaluate(centred, jnp.zeros(3)))).max() < 1e-5
    table = evaluate(centred, jnp.broadcast_to(X, (3, X.size)))
    assert table.dtype == jnp.float32
    np.testing.assert_allclose(table + at_zero[:, None], smooth(X, shifts[:, None]), atol=1e-4)


@pytest.mark.parametrize("x", [-6.0, 6.0, -2.3, 2.3])
def test_linear_outside_the_box(x):
    """Beyond its ends a curve goes on with the end's slope: no explosion at log s = +-6."""
    table, at_zero = centre(fit_coefficients(smooth(chebyshev_nodes(), 0.0)))
    end = np.sign(x) * 2.2
    expected = smooth(end, 0.0) + smooth_slope(end) * (x - end)
    value, slope = jax.jit(jax.value_and_grad(evaluate, argnums=1))(table, x)
    assert value + at_zero == pytest.approx(expected, rel=1e-5)
    assert slope == pytest.approx(smooth_slope(end), rel=1e-4)


def test_gradients_are_the_derivatives():
    """In x the derivative of the function, in the coefficients the Chebyshev basis."""
    table, _ = centre(fit_coefficients(smooth(chebyshev_nodes(), 0.0)))
    slopes = jax.jit(jax.vmap(jax.grad(lambda at: evaluate(table, at))))(jnp.asarray(X[1:-1]))
    np.testing.assert_allclose(slopes, smooth_slope(X[1:-1]), atol=2e-3)
    basis = jax.jit(jax.grad(lambda c: evaluate(c, 1.1)))(jnp.asarray(table, dtype=float))
    np.testing.assert_allclose(basis, np.cos(np.arange(40) * np.arccos(0.5)), atol=1e-5)
    weighted = jax.jit(jax.grad(lambda c, at: (evaluate(c, at) ** 2).sum(), argnums=(0, 1)))
    by_table, by_point = weighted(jnp.asarray(table, dtype=float), jnp.array([0.5, 1.0]))
    assert np.isfinite(by_table).all()
    assert np.isfinite(by_point).all()


def test_each_race_reads_its_own_curve():
    """x of shape (race,) and (race, points) meet curves (race, n)."""
    table = fit_coefficients(np.array([[1.0], [2.0], [3.0]]) * chebyshev_nodes(*BOX, 8))
    np.testing.assert_allclose(evaluate(table, jnp.array([1.0, 1.0, -1.0])), [1, 2, -3], rtol=1e-5)
    points = jnp.array([[0.5, 1.0]] * 3)
    np.testing.assert_allclose(evaluate(table, points), [[0.5, 1], [1, 2], [1.5, 3]], rtol=1e-5)


def test_surfaces():
    """A smooth function of two numbers, inside and outside its box, and its section at one y."""

    def f(x, y):
        return -50.0 - np.exp(0.5 * x) * (1 + 0.3 * y) - 0.5 * y**2

    x, y = chebyshev_nodes(*BOX, 24), chebyshev_nodes(*BOX_Y, 24)
    centred, at_zero = centre_2d(fit_coefficients_2d(f(x[:, None], y)[None]), BOX, BOX_Y)
    assert at_zero[0] == pytest.approx(f(0.0, 0.0))

    def read(x, y):
        return chebyshev.evaluate(section(centred, y, BOX_Y), x[None], *BOX)[0]

    for at_y in (-2.1, 0.0, 0.4):
        np.testing.assert_allclose(jax.jit(read)(X, at_y) + at_zero, f(X, at_y), atol=2e-5)
    beyond = f(0.3, 2.5) + (-np.exp(0.15) * 0.3 - 2.5) * (4.0 - 2.5)
    at_point = jax.jit(jax.value_and_grad(lambda y: read(jnp.array([0.3]), y)[0]))
    assert at_point(4.0)[0] + at_zero[0] == pytest.approx(beyond, rel=1e-5)
    assert at_point(0.4)[1] == pytest.approx(-np.exp(0.15) * 0.3 - 0.4, rel=1e-4)


@pytest.mark.parametrize("noise_sigma", [0.0, 0.1, 0.3])
def test_race_noise_is_integrated(noise_sigma):
    """Normal likelihoods of width 0.2 have a closed form: N(m; log slope, 0.2^2 + noise^2)."""
    best = np.array([-0.3, 0.0, 0.4])
    values = -0.5 * ((chebyshev_nodes() - best[:, None]) / 0.2) ** 2
    log_slope = np.array([0.1, 0.1, -0.2])
    integrated = integrated_log_likelihood(fit_coefficients(values), log_slope, noise_sigma)
    variance = 0.2**2 + noise_sigma**2
    expected = 0.5 * np.log(0.2**2 / variance) - 0.5 * (log_slope - best) ** 2 / variance
    np.testing.assert_allclose(integrated, expected, atol=2e-2 if noise_sigma > 0.2 else 1e-3)


def test_box_must_hold_zero():
    """Centring at 0 needs 0 in the box."""
    with pytest.raises(ValueError, match=r"lower <= 0 <= upper, got \[1.0, 2.0\]"):
        centre([1.0, 2.0], 1.0, 2.0)
