"""Joint events: expressions over a race's outcomes, the same for scenarios and for the result.

>>> top(5) & running
top(5) & running
>>> at_least(2, favourites(3), top(10))
at_least(2, favourites(3), top(10))
>>> count(dnf) >= 8
count(dnf) >= 8

An event about cars has one case a car, an event about teammates one case a pair, an event about the race one
case. `counts` counts the cases in which events happen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the cars of one race, observed or simulated, without padding.

    Attributes
    ----------
    finish_position : ndarray
        From 1, (..., car): (scenario, car) or (car,).
    favourite_rank : ndarray
        1 is the car with the best mean predicted finish, (car,).
    running, laps_led : ndarray or None
        (..., car), None where the source lacks them.
    team, make : ndarray or None
        (car,), '' where unknown.
    """

    finish_position: NDArray
    favourite_rank: NDArray
    running: NDArray | None = None
    laps_led: NDArray | None = None
    team: NDArray | None = None
    make: NDArray | None = None


@dataclass(frozen=True)
class Event:
    """An expression that is true or false in each case of a race; combine with ``&``, ``|`` and ``~``.

    Attributes
    ----------
    expression : str
        The event as it is written.
    cases : {'car', 'pair', 'race'}
        Unit of a case.
    needs : frozenset of str
        Fields of `Outcomes` that it reads.
    evaluate : callable
        `Outcomes` to (..., case), bool.
    """

    expression: str
    cases: Literal["car", "pair", "race"]
    needs: frozenset[str]
    evaluate: Callable[[Outcomes], BoolArray] = field(compare=False)
    compound: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.expression

    __repr__ = __str__

    def of_cases(self, outcomes: Outcomes) -> BoolArray:
        """Evaluate it in each case, (..., case); a race that lacks a variable that it needs has no case."""
        if any(getattr(outcomes, name) is None for name in self.needs):
            return np.zeros((*outcomes.finish_position.shape[:-1], 0), np.bool_)
        return self.evaluate(outcomes)

    def __and__(self, other: "Event") -> "Event":
        return _combined("&", self, other, np.logical_and)

    def __or__(self, other: "Event") -> "Event":
        return _combined("|", self, other, np.logical_or)

    def __invert__(self) -> "Event":
        return Event(f"~{_operand(self)}", self.cases, self.needs, lambda o: ~self.evaluate(o))


@dataclass(frozen=True)
class Count:
    """The number of a race's cars for which an event is true; compare with ``>=``."""

    event: Event

    def __ge__(self, number: int) -> Event:
        return Event(
            f"count({self.event}) >= {number}",
            "race",
            self.event.needs,
            lambda o: self.event.evaluate(o).sum(axis=-1, keepdims=True) >= number,
            compound=True,
        )


@dataclass(frozen=True)
class Favourites:
    """The `number` cars with the best mean finish in the raw ensemble."""

    number: int

    def __str__(self) -> str:
        return f"favourites({self.number})"


def top(positions: int) -> Event:
    """Return the event that a car finishes in the first `positions`.

    Raises
    ------
    ValueError
        If `positions` is less than 1.
    """
    _at_least_one("positions", positions)
    return Event(
        f"top({positions})",
        "car",
        frozenset({"finish_position"}),
        lambda o: o.finish_position <= positions,
    )


def led(laps: int) -> Event:
    """Return the event that a car leads at least `laps` laps.

    Raises
    ------
    ValueError
        If `laps` is less than 1.
    """
    _at_least_one("laps", laps)
    return Event(f"led({laps})", "car", frozenset({"laps_led"}), lambda o: _known(o.laps_led) >= laps)


running = Event("running", "car", frozenset({"running"}), lambda o: _known(o.running).astype(bool))
"""The car is running at the finish."""
dnf = Event("dnf", "car", frozenset({"running"}), lambda o: ~_known(o.running).astype(bool))
"""The car is not running at the finish."""


def count(event: Event) -> Count:
    """Return the number of cars for which `event` is true, to be compared: ``count(dnf) >= 8``.

    Raises
    ------
    ValueError
        If `event` is not about cars.
    """
    return Count(_about_cars(event))


def favourites(number: int) -> Favourites:
    """Return the `number` cars with the best mean finish in the raw ensemble.

    Raises
    ------
    ValueError
        If `number` is less than 1.
    """
    _at_least_one("number", number)
    return Favourites(number)


def at_least(number: int, among: Favourites, event: Event) -> Event:
    """Return the event that `event` is true for at least `number` of the cars `among`.

    Raises
    ------
    ValueError
        If `event` is not about cars or `number` does not lie in 1..among.number.
    """
    if not 1 <= number <= among.number:
        raise ValueError(f"Argument number must lie in 1..{among.number} (of {among}), got {number}.")

    def evaluate(o: Outcomes) -> BoolArray:
        chosen = o.favourite_rank <= among.number
        return (event.evaluate(o) & chosen).sum(axis=-1, keepdims=True) >= number

    return Event(f"at_least({number}, {among}, {_about_cars(event)})", "race", event.needs, evaluate)


def both_teammates(event: Event) -> Event:
    """Return the event that `event` is true for both cars of a pair of teammates; a case a pair.

    A team of three cars has three pairs. Cars of unknown team have no teammates.

    Raises
    ------
    ValueError
        If `event` is not about cars.
    """

    def evaluate(o: Outcomes) -> BoolArray:
        team = _known(o.team)
        first, second = np.nonzero(np.triu(team[:, None] == team, k=1) & (team != "")[:, None])
        happens = event.evaluate(o)
        return happens[..., first] & happens[..., second]

    return Event(f"both_teammates({_about_cars(event)})", "pair", event.needs | {"team"}, evaluate)


def same_make(event: Event) -> Event:
    """Return the event that all cars for which `event` is true, at least one, share a known make.

    Raises
    ------
    ValueError
        If `event` is not about cars.
    """

    def evaluate(o: Outcomes) -> BoolArray:
        make = _known(o.make)
        of_make = make[:, None] == np.unique(make[make != ""])
        happens = event.evaluate(o)
        most = (happens.astype(np.int32) @ of_make).max(axis=-1, initial=0)
        return ((most > 0) & (most == happens.sum(axis=-1)))[..., None]

    return Event(f"same_make({_about_cars(event)})", "race", event.needs | {"make"}, evaluate)


def _combined(sign: str, first: Event, second: Event, combine: np.ufunc) -> Event:
    if first.cases != second.cases:
        raise ValueError(
            f"Events combine only over the same cases: {first} is about a {first.cases}, "
            f"{second} about a {second.cases}."
        )
    return Event(
        f"{_operand(first)} {sign} {_operand(second)}",
        first.cases,
        first.needs | second.needs,
        lambda o: combine(first.evaluate(o), second.evaluate(o)),
        compound=True,
    )


def _operand(event: Event) -> str:
    return f"({event})" if event.compound else str(event)


def _about_cars(event: Event) -> Event:
    if event.cases != "car":
        raise ValueError(f"Argument event must be about cars, got {event}, which is about a {event.cases}.")
    return event


def _known(values: NDArray | None) -> NDArray:
    if values is None:
        raise ValueError("An event needs an outcome that is missing.")
    return values


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"Argument {name} must be at least 1, got {value}.")
