"""Odds: notations, published and independently computed values of the margin methods, and errors."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq

from calibration_pipeline.forecasters.odds import (
    ROUNDING,
    Margin,
    Notation,
    implied_probability,
    recognise_notation,
    remove_margin,
)

A, D, F = Notation.AMERICAN, Notation.DECIMAL, Notation.FRACTIONAL


@pytest.mark.parametrize(
    ("odds", "notation", "expected"),
    [
        ("+100", A, 0.5), ("-100", A, 0.5), ("+550", A, 1 / 6.5), ("-110", A, 110 / 210), (2500, A, 1 / 26),
        ("−200", A, 2 / 3), ("EVEN", A, 0.5), ("1.91", D, 1 / 1.91), (501.0, D, 1 / 501), ("11/4", F, 4 / 15),
        ("5-2", F, 2 / 7), ("Evs", F, 0.5), ("100 / 1", F, 1 / 101), ("7", F, 1 / 8),
    ],
)  # fmt: skip
def test_implied_probability(odds: str | float, notation: Notation, expected: float) -> None:
    assert implied_probability(odds, notation) == pytest.approx(expected, abs=1e-15)


@given(st.integers(1, 400), st.integers(1, 400))
def test_the_notations_agree(gain: int, stake: int) -> None:
    """A gain of `gain` on `stake`, in all three notations."""
    fractional = implied_probability(f"{gain}/{stake}", F)
    assert fractional == pytest.approx(stake / (gain + stake))
    assert implied_probability(repr(1 + gain / stake), D) == pytest.approx(fractional)
    american = 100 * gain / stake if gain >= stake else -100 * stake / gain
    assert implied_probability(f"{american:+.9f}", A) == pytest.approx(fractional)


@pytest.mark.parametrize(
    ("odds", "notation", "message"),
    [
        ("0", A, r"American odds must be \+100 or more, or -100 or less; got '0'"),
        ("99", A, "American odds"), ("nan", A, "American odds"), ("five", A, "got 'five'"),
        ("0", D, "decimal odds must be above 1; got '0'"), ("1.0", D, "decimal odds"), ("-2", D, "decimal"),
        ("inf", D, "decimal"), ("even", D, "decimal odds"), ("0/1", F, "both numbers above 0; got '0/1'"),
        ("1/0", F, "fractional odds"), ("5:2", F, "fractional odds"), ("", F, "fractional odds"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_price_is_refused(odds: str, notation: Notation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        implied_probability(odds, notation)


def test_a_zero_or_a_word_does_not_change_the_notation() -> None:
    assert recognise_notation(["+450", "0", "scratched"]) is A
    assert recognise_notation(["4.5", "0", "1001"]) is D
    with pytest.raises(ValueError, match="American, decimal or fractional; got scratched, 0"):
        recognise_notation(["scratched", "0"])


def books(draw: st.DrawFn) -> tuple[np.ndarray, int, float]:
    """Return true probabilities of a market, its number of winners, and a margin."""
    n_cars = draw(st.integers(2, 40))
    n_winners = draw(st.integers(1, n_cars - 1))
    weight = np.array(draw(st.lists(st.floats(0.2, 1.0), min_size=n_cars, max_size=n_cars)))
    truth = remove_margin(weight / weight.sum() * 0.9, n_winners)
    return truth, n_winners, draw(st.floats(0.0, 0.25))


book = st.composite(books)()


@given(book, st.sampled_from(list(Margin)))
def test_probabilities_sum_to_the_winners_in_the_order_of_the_prices(
    drawn: tuple[np.ndarray, int, float], method: Margin
) -> None:
    truth, n_winners, margin = drawn
    implied = np.clip(truth * (1 + margin), 1e-9, 1 - 1e-9)
    missing = 1 - implied.sum() / n_winners
    assume(abs(missing - ROUNDING) > 1e-12)
    if method is Margin.SHIN and missing > ROUNDING:
        with pytest.raises(ValueError, match="Shin's method needs a margin"):
            remove_margin(implied, n_winners, method)
        return
    probability = remove_margin(implied, n_winners, method)
    assert probability.sum() == pytest.approx(n_winners, rel=1e-9)
    assert ((probability > 0) & (probability <= 1)).all()
    rising = np.argsort(implied)
    assert (np.diff(probability[rising]) >= -1e-12).all()


@pytest.mark.parametrize("n_cars", [3, 11, 30])
def test_shin_takes_a_fair_book_whatever_its_rounding(n_cars: int) -> None:
    implied = np.full(n_cars, 1 / n_cars)
    np.testing.assert_allclose(remove_margin(implied * (1 - 1e-12), 1, Margin.SHIN), implied, rtol=1e-9)
    with pytest.raises(ValueError, match="Shin's method needs a margin"):
        remove_margin(implied * (1 - 1e-6), 1, Margin.SHIN)


@given(book)
def test_a_proportional_margin_is_recovered(drawn: tuple[np.ndarray, int, float]) -> None:
    truth, n_winners, margin = drawn
    implied = truth * (1 + margin)
    if (implied < 1).all():
        np.testing.assert_allclose(remove_margin(implied, n_winners), truth, atol=1e-12)


@given(book, st.floats(0.5, 1.0))
def test_a_power_margin_is_recovered(drawn: tuple[np.ndarray, int, float], power: float) -> None:
    truth, n_winners, _ = drawn
    if (truth < 1).all():
        np.testing.assert_allclose(remove_margin(truth**power, n_winners, Margin.POWER), truth, atol=1e-9)


@pytest.mark.parametrize("n_winners", [1, 3])
def test_shin_and_power_agree_with_roots_by_scipy(n_winners: int) -> None:
    odds = np.array([4.5, 6.0, 7.5, 9.0, 11.0, 15.0, 26.0, 51.0, 101.0])
    implied = n_winners * 1.4 / odds
    power = brentq(lambda c: (implied**c).sum() - n_winners, 0.01, 50, xtol=1e-14)
    np.testing.assert_allclose(remove_margin(implied, n_winners, Margin.POWER), implied**power, rtol=1e-10)
    share = implied / n_winners

    def shin(z: float) -> np.ndarray:
        return (np.sqrt(z**2 + 4 * (1 - z) * share**2 / share.sum()) - z) / (2 * (1 - z))

    z = brentq(lambda z: shin(z).sum() - 1, 0, 0.9, xtol=1e-14)
    assert 0 < z < 0.2
    np.testing.assert_allclose(
        remove_margin(implied, n_winners, Margin.SHIN), n_winners * shin(z), rtol=1e-10
    )


def test_shin_of_two_takes_equal_parts_of_the_margin() -> None:
    """With two outcomes Shin's law subtracts half of the margin from each."""
    implied = np.array([0.62, 0.46])
    np.testing.assert_allclose(remove_margin(implied, 1, Margin.SHIN), implied - 0.04, atol=1e-9)


def test_shin_gives_the_favourite_more_than_proportion() -> None:
    implied = np.array([0.5, 0.3, 0.2, 0.1, 0.05])
    by_method = {method: remove_margin(implied, 1, method) for method in Margin}
    assert by_method[Margin.SHIN][0] > by_method[Margin.MULTIPLICATIVE][0]
    assert by_method[Margin.SHIN][-1] < by_method[Margin.MULTIPLICATIVE][-1]
    assert by_method[Margin.POWER][-1] < by_method[Margin.MULTIPLICATIVE][-1]


def test_a_short_book_is_capped_at_one() -> None:
    """Odds without a margin, two winners: the favourite is certain, and the others share the rest."""
    np.testing.assert_allclose(remove_margin([0.9, 0.2, 0.2], 2), [1.0, 0.5, 0.5])


def test_everybody_wins_a_market_as_large_as_the_field() -> None:
    assert remove_margin([0.9, 0.9], 2).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("implied", [[0.5, 0.0], [0.5, 1.0], [0.5, np.nan], [[0.5, 0.5]]])
def test_prices_outside_the_open_interval_are_refused(implied: list) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        remove_margin(implied)
    with pytest.raises(ValueError, match="from 1 to the 2 cars; got 3"):
        remove_margin([0.5, 0.5], 3)


def test_shin_has_the_value_that_another_package_documents() -> None:
    """The example of https://pypi.org/project/shin, version 0.2.2."""
    implied = [1 / 2.6, 1 / 2.4, 1 / 4.3]
    expected = [0.37299406033208965, 0.4047794109200184, 0.2222265287474275]
    np.testing.assert_allclose(remove_margin(implied, 1, Margin.SHIN), expected, atol=1e-9)
