"""Verification of one race from arrays: outcomes, errors of joint events, calibration curves.

The functions read arrays as `Outcomes`, compare predicted with observed events, and return curves without
intervals. Backtests go through `joint_events`, which has races, intervals and tests.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from calibration_pipeline.events.language import Event, Outcomes
from calibration_pipeline.scenarios.probabilities import head_to_head
from calibration_pipeline.stats.ranking import is_permutation, rank
from calibration_pipeline.stats.real_arrays import check_real
from calibration_pipeline.verification.reliability import reliability_bins

Variables = ArrayLike | Mapping[str, ArrayLike]
"""Finish positions, or a dict of variables by name."""

FINISH = "finish_position"
OUTCOMES = (FINISH, "running", "incident", "laps_led")
CAR_VARIABLES = ("team", "make")

RANDOM_ORDERS = 200
"""Random orders of the field that decide whether an event is true in equally many cases of each order."""

logger = logging.getLogger(__name__)


class EventErrors(dict[tuple[str, str], float]):
    """Errors of joint events by (archetype, event).

    Attributes
    ----------
    by_construction : frozenset of (str, str)
        Keys of events whose error is 0 for every forecast, as that of `top(5)`: five cars of each race are in
        the top 5. They say nothing about a forecast.
    """

    by_construction: frozenset[tuple[str, str]] = frozenset()


class EventError(NamedTuple):
    """Predicted and observed share of an event's cases; whether both are equal for every forecast."""

    predicted: float
    observed: float
    by_construction: bool = False

    @property
    def error(self) -> float:
        """|predicted - observed|."""
        return abs(self.predicted - self.observed)


def read_outcomes(predictions: Variables, observations: Variables, where: str) -> tuple[Outcomes, Outcomes]:
    """Return one race's scenarios and its result.

    Parameters
    ----------
    predictions : array_like or mapping
        Finish positions or real-valued scores, (n_samples, n_cars); or variables by name:
        `finish_position`, `running`, `laps_led`, `incident` (the car retired: the opposite of running),
        each (n_samples, n_cars), and `team`, `make`, (n_cars,).
    observations : array_like or mapping
        The same variables of the race itself, (n_cars,). Finish positions are whole numbers in 1..n_cars.
    where : str
        The archetype, for messages.

    Returns
    -------
    scenarios, result : Outcomes
        A variable that only one side has is None in both.

    Raises
    ------
    ValueError
        If a name is unknown, shapes do not match, a value is masked, complex, not finite or no position, or
        `running` and `incident` contradict each other.
    """
    simulated = _named(predictions, f"predictions of {where}")
    happened = _named(observations, f"observations of {where}")
    position = as_positions(simulated[FINISH], where)
    n_samples, n_cars = position.shape
    actual = _observed_positions(happened[FINISH], n_cars, where)
    for name in (*OUTCOMES[1:], *CAR_VARIABLES):
        car_level = name in CAR_VARIABLES
        _check_shape(name, simulated.get(name), (n_cars,) if car_level else (n_samples, n_cars), where)
        _check_shape(name, happened.get(name), (n_cars,), where)
    both = [name for name in ("running", "laps_led") if name in simulated and name in happened]
    mean = position.mean(axis=0)
    cars = {name: side[name] for name in CAR_VARIABLES for side in (happened, simulated) if name in side}
    cars["favourite_rank"] = rank(mean)
    scenarios = Outcomes(finish_position=position, **{name: simulated[name] for name in both}, **cars)
    return scenarios, Outcomes(finish_position=actual, **{name: happened[name] for name in both}, **cars)


def as_positions(values: ArrayLike, where: str) -> NDArray[np.int64]:
    """Return finish positions; real-valued scores are ranked within each sample, smaller is better.

    Whole numbers in 1..n_cars count as positions and stay unchanged, with a logged warning where a sample is
    no permutation. Equal scores rank in the order of the cars.

    Parameters
    ----------
    values : array_like
        Positions or scores, (n_samples, n_cars).
    where : str
        The archetype, for messages.

    Returns
    -------
    ndarray
        (n_samples, n_cars), from 1.

    Raises
    ------
    ValueError
        If the shape is wrong, or a value is not finite.

    Examples
    --------
    >>> as_positions([[0.3, 0.1, 0.2]], "intermediate").tolist()
    [[3, 1, 2]]
    """
    scores = np.asarray(values)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"Predictions of {where} must have shape (n_samples, n_cars), got {scores.shape}.")
    _check_finite(scores, f"Predictions of {where}")
    if not _are_positions(scores):
        return rank(scores)
    position = scores.astype(np.int64)
    _warn_unless_permutations(position, f"predictions of {where}")
    return position


def compare_events(
    events: Sequence[Event], scenarios: Outcomes, result: Outcomes
) -> tuple[dict[str, EventError], dict[str, str]]:
    """Compare the predicted share of each event's cases with the observed one.

    Parameters
    ----------
    events : sequence of Event
        Events to judge.
    scenarios, result : Outcomes
        From `read_outcomes`.

    Returns
    -------
    errors : dict
        Event to `EventError`.
    skipped : dict
        Event to the reason why it cannot be judged.
    """
    errors: dict[str, EventError] = {}
    skipped: dict[str, str] = {}
    for event in events:
        missing = sorted(name for name in event.needs if getattr(scenarios, name) is None)
        if missing:
            skipped[str(event)] = f"{' and '.join(missing)} not passed for both predictions and observations"
            continue
        happens = event.evaluate(result)
        if not happens.size:
            skipped[str(event)] = "no two cars share a team"
            continue
        predicted, observed = float(event.evaluate(scenarios).mean()), float(happens.mean())
        equal = np.isclose(predicted, observed, rtol=0, atol=1e-12)
        fixed = bool(equal) and has_fixed_share(event, result.finish_position.size)
        errors[str(event)] = EventError(predicted, observed, fixed)
    return errors, skipped


def has_fixed_share(event: Event, n_cars: int) -> bool:
    """Return whether an event is true in equally many cases of a race, whatever the finishing order.

    Parameters
    ----------
    event : Event
    n_cars : int

    Examples
    --------
    >>> from calibration_pipeline.events.language import at_least, favourites, top
    >>> has_fixed_share(top(5), 38), has_fixed_share(at_least(1, favourites(1), top(5)), 38)
    (True, False)
    """
    if event.needs != {FINISH}:
        return False
    position = np.arange(1, n_cars + 1)
    orders = np.random.default_rng(0).permuted(np.tile(position, (RANDOM_ORDERS, 1)), axis=1)
    n_true = event.evaluate(Outcomes(orders, favourite_rank=position)).sum(axis=-1)
    return bool((n_true == n_true[0]).all())


def one_race_curves(archetype: str, scenarios: Outcomes, result: Outcomes) -> list[pl.DataFrame]:
    """Return calibration curves of "top 10" and "head to head", where the field is large enough.

    Parameters
    ----------
    archetype : str
        Track archetype.
    scenarios, result : Outcomes
        From `read_outcomes`.

    Returns
    -------
    list of polars.DataFrame
        Bins of the forecast "forecast" (`reliability.reliability_bins`), without intervals: the
        cars of a race are dependent.
    """
    position, actual = scenarios.finish_position, result.finish_position
    events: dict[str, tuple[NDArray, NDArray]] = {}
    if actual.size > 10:
        events["top 10"] = (position <= 10).mean(axis=0), actual <= 10
    first, second = np.nonzero(actual[:, None] < actual)
    if first.size:
        ahead = head_to_head(position[None], np.array([actual.size]))[0, first, second]
        events["head to head"] = np.concatenate([ahead, 1 - ahead]), np.repeat([True, False], ahead.size)
    curves = []
    for event, (probability, happened) in events.items():
        bins = reliability_bins(probability, happened, np.zeros(happened.size, dtype=np.int64))
        keys = {"archetype": str(archetype), "forecast": "forecast", "event": event}
        curves.append(pl.DataFrame([keys | row for row in bins], infer_schema_length=None))
    return curves


def _named(values: Variables, source: str) -> dict[str, NDArray]:
    """Return variables by name; `incident` becomes `running`, and must not contradict it."""
    given: Mapping[str, ArrayLike] = values if isinstance(values, Mapping) else {FINISH: values}
    unknown = set(given) - {*OUTCOMES, *CAR_VARIABLES}
    if unknown or FINISH not in given:
        allowed = ", ".join((*OUTCOMES, *CAR_VARIABLES))
        raise ValueError(
            f"Variables of {source} must include {FINISH} and be of {allowed}; got {', '.join(given)}."
        )
    for name, array in given.items():
        check_real(array, f"Variable {name} of {source}")
    arrays = {name: np.asarray(array) for name, array in given.items()}
    for name in OUTCOMES[1:]:
        if name in arrays:
            _check_finite(arrays[name].astype(np.float64), f"Variable {name} of {source}")
    incident = arrays.pop("incident", None)
    if incident is not None:
        from_incident = ~incident.astype(bool)
        running = arrays.setdefault("running", from_incident)
        if running.shape != from_incident.shape:
            raise ValueError(
                f"Variables running and incident of {source} must have one shape, got {running.shape} and "
                f"{from_incident.shape}: pass one of them."
            )
        n_wrong = int((running.astype(bool) != from_incident).sum())
        if n_wrong:
            raise ValueError(
                f"Variable incident of {source} must be the opposite of running, got {n_wrong} of "
                f"{running.size} values that are not: pass one of them."
            )
    return arrays


def _observed_positions(values: NDArray, n_cars: int, where: str) -> NDArray[np.int64]:
    if values.shape != (n_cars,):
        raise ValueError(
            f"Observations of {where} must have shape (n_cars,) = ({n_cars},) to match predictions "
            f"(n_samples, n_cars), got {values.shape}."
        )
    _check_finite(values, f"Observations of {where}")
    if not _are_positions(values[None]):
        raise ValueError(
            f"Observations of {where} must be whole finish positions in 1..{n_cars}, got values from "
            f"{values.min()} to {values.max()}."
        )
    position = values.astype(np.int64)
    _warn_unless_permutations(position[None], f"observations of {where}")
    return position


def _are_positions(values: NDArray) -> bool:
    whole = values == np.floor(values)
    return bool((whole & (values >= 1) & (values <= values.shape[1])).all())


def _warn_unless_permutations(position: NDArray, source: str) -> None:
    n_wrong = int((~is_permutation(position)).sum())
    if n_wrong:
        logger.warning("The %s are no permutation of 1..%d in %d of %d; taken as they are.",
                       source, position.shape[1], n_wrong, len(position))  # fmt: skip


def _check_finite(values: NDArray, source: str) -> None:
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        raise ValueError(f"{source} must be finite, got {n_bad} NaN or infinite of {values.size} values.")


def _check_shape(name: str, values: NDArray | None, shape: tuple[int, ...], where: str) -> None:
    if values is not None and values.shape != shape:
        raise ValueError(f"Variable {name} of {where} must have shape {shape}, got {values.shape}.")
