"""Odds of bookmakers: notations, implied probabilities, and the removal of the bookmaker's margin.

The implied probabilities of a market sum to more than its number of winners. The excess is the overround,
the margin of the bookmaker. All three methods map implied probabilities to probabilities that sum to the
number of winners:

- multiplicative: in proportion to the implied probabilities.
- Shin: the law of a bookmaker who faces insiders (Shin 1993, Economic Journal 103:1141,
  doi:10.2307/2234240; in the form of Štrumbelj 2014, Int. J. Forecasting 30:934,
  doi:10.1016/j.ijforecast.2014.02.008). Favourites get a larger share than in proportion.
- power: implied probabilities to a common power (Clarke, Kovalchik & Ingram 2017, American J. Sports
  Science 5:45, doi:10.11648/j.ajss.20170506.12).
"""

import re
from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

EVENS = {"even", "evens", "ev", "evs", "pk", "pick"}
FRACTION = re.compile(r"(\d+(?:\.\d+)?)\s*[/-]\s*(\d+(?:\.\d+)?)")
HALVINGS = 200
ROUNDING = 1e-9
"""Odds whose book is short of 1 by less count as odds without a margin."""


class Notation(StrEnum):
    """Notation of odds."""

    AMERICAN = "american"
    DECIMAL = "decimal"
    FRACTIONAL = "fractional"


class Margin(StrEnum):
    """Method that removes a bookmaker's margin."""

    MULTIPLICATIVE = "multiplicative"
    SHIN = "shin"
    POWER = "power"


def implied_probability(odds: str | float, notation: Notation) -> float:
    """Return the implied probability of one price: the stake over the payout.

    Parameters
    ----------
    odds : str or float
        Fractional odds are written `5/2` or `5-2`. `even` and `evs` are even odds.
    notation : Notation

    Returns
    -------
    float
        Above 0 and below 1.

    Raises
    ------
    ValueError
        If the text is no price of the notation.

    Examples
    --------
    >>> implied_probability("+150", Notation.AMERICAN), implied_probability("-400", Notation.AMERICAN)
    (0.4, 0.8)
    >>> implied_probability(4.0, Notation.DECIMAL), implied_probability("3/1", Notation.FRACTIONAL)
    (0.25, 0.25)
    """
    text = str(odds).strip().replace("−", "-").lower()
    if text in EVENS and notation is not Notation.DECIMAL:
        return 0.5
    if notation is Notation.FRACTIONAL:
        match = FRACTION.fullmatch(text)
        gain, stake = (float(match[1]), float(match[2])) if match else (_number(text), 1.0)
        if not (0 < gain < np.inf and 0 < stake < np.inf):
            raise ValueError(f"fractional odds must be as 5/2, with both numbers above 0; got {odds!r}")
        return stake / (gain + stake)
    value = _number(text)
    if notation is Notation.DECIMAL:
        if not 1 < value < np.inf:
            raise ValueError(f"decimal odds must be above 1; got {odds!r}")
        return 1 / value
    if not 100 <= abs(value) < np.inf:
        raise ValueError(f"American odds must be +100 or more, or -100 or less; got {odds!r}")
    return 100 / (value + 100) if value > 0 else value / (value - 100)


def recognise_notation(odds: list[str]) -> Notation:
    """Return the notation that all prices of a list are in.

    A fraction is in fractional notation. A sign, or no price between -100 and 100, means American notation;
    otherwise prices are decimal.

    Parameters
    ----------
    odds : list of str
        Prices; zeros and texts that are no price do not count.

    Raises
    ------
    ValueError
        If no text is a price.

    Examples
    --------
    >>> recognise_notation(["5/2", "EVS"]).value, recognise_notation(["2.5", "101"]).value
    ('fractional', 'decimal')
    >>> recognise_notation(["250", "-110"]).value, recognise_notation(["350", "10000"]).value
    ('american', 'american')
    """
    texts = [text.strip().replace("−", "-").lower() for text in odds]
    if any(FRACTION.fullmatch(text) for text in texts):
        return Notation.FRACTIONAL
    numbers = [(text, value) for text in texts if np.isfinite(value := _number(text)) and value != 0]
    if not numbers:
        raise ValueError(f"odds must be American, decimal or fractional; got {', '.join(odds[:3])}")
    if any(text[0] in "+-" for text, _ in numbers) or all(abs(value) >= 100 for _, value in numbers):
        return Notation.AMERICAN
    return Notation.DECIMAL


def remove_margin(
    implied: ArrayLike, n_winners: int = 1, method: Margin = Margin.MULTIPLICATIVE
) -> NDArray[np.float64]:
    """Return the probabilities behind the implied probabilities of a market.

    Shin's law is about one winner. With k winners it is applied to the event that a car takes one of the k
    first positions drawn at random, which has the k-th part of the probability.

    Parameters
    ----------
    implied : array_like, shape (car)
        Implied probabilities of the whole field, above 0 and below 1.
    n_winners : int
        Number of cars for which the event occurs: 5 for the top 5.
    method : Margin

    Returns
    -------
    array, shape (car)
        In the order of `implied`, at most 1 each; they sum to `n_winners`. All are 1 if everybody wins.

    Raises
    ------
    ValueError
        If an implied probability is not between 0 and 1, there are fewer cars than winners, or Shin's method
        gets odds without a margin.

    Examples
    --------
    >>> remove_margin([0.6, 0.3, 0.3]).tolist()
    [0.5, 0.25, 0.25]
    >>> remove_margin([0.75, 0.35], method=Margin.SHIN).round(6).tolist()
    [0.7, 0.3]
    """
    prices = np.asarray(implied, float)
    if prices.ndim != 1 or not ((prices > 0) & (prices < 1)).all():
        raise ValueError("Argument implied must hold implied probabilities above 0 and below 1, by car.")
    if not 1 <= n_winners <= len(prices):
        raise ValueError(f"Argument n_winners must be from 1 to the {len(prices)} cars; got {n_winners}.")
    if n_winners == len(prices):
        return np.ones(len(prices))
    if method is Margin.POWER:
        return _power(prices, n_winners)
    share = prices / n_winners
    return cap_at_one(n_winners * (_shin(share) if method is Margin.SHIN else share / share.sum()))


def cap_at_one(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities of at most 1: the excess is spread over the others in proportion.

    Parameters
    ----------
    probability : array, shape (car)
        0 or more.

    Returns
    -------
    array, shape (car)
        With the same sum, if it is at most the number of cars above 0.

    Examples
    --------
    >>> cap_at_one(np.array([1.5, 0.25, 0.25])).tolist()
    [1.0, 0.5, 0.5]
    """
    total = probability.sum()
    certain: NDArray[np.bool_] = probability > 1
    while certain.any() and not certain.all():
        rest = probability[~certain].sum()
        factor = max(total - certain.sum(), 0) / rest if rest > 0 else 1.0
        probability = np.where(certain, 1.0, probability * factor)
        if not (probability > 1).any():
            break
        certain = certain | (probability > 1)
    return np.minimum(probability, 1.0)


def _shin(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Shin's probabilities of one winner; z is the share of insiders."""
    book = prices.sum()
    if book < 1 - ROUNDING:
        raise ValueError(
            f"Shin's method needs a margin: implied probabilities must sum to the number of winners or more; "
            f"they sum to {book:.3f} times it."
        )

    def probabilities(z: float) -> NDArray[np.float64]:
        return (np.sqrt(z**2 + 4 * (1 - z) * prices**2 / book) - z) / (2 * (1 - z))

    # At z = 0 they sum to the root of the book, which is 1 or more; the sum falls as z grows.
    z = _bisect(lambda z: probabilities(z).sum() - 1, 0.0, 1 - 1e-9)
    shares = probabilities(z)
    return shares / shares.sum()


def _power(prices: NDArray[np.float64], n_winners: int) -> NDArray[np.float64]:
    """Return the prices to the power at which they sum to the number of winners."""
    logs = np.log(prices)
    log_power = _bisect(lambda x: np.exp(np.exp(x) * logs).sum() - n_winners, -40.0, 40.0)
    return np.exp(np.exp(log_power) * logs)


def _bisect(decreasing: Callable[[float], float], low: float, high: float) -> float:
    """Return the root of a decreasing function by bisection, to the last bit."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if decreasing(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _number(text: str) -> float:
    """Return a number, NaN for any other text."""
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) else float("nan")
