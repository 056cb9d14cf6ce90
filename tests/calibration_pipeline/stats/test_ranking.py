"""Tests of ranks and permutations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.stats.ranking import are_permutations, is_permutation

WIDTHS = [1, 2, 40, 63, 64, 65, 130]


def by_sorting(position: np.ndarray, n_cars: list[int]) -> bool:
    """The definition: sorted, the cars' positions are 1..n, and padding is 0."""
    return all(
        (np.sort(race[:, :n], axis=-1) == np.arange(1, n + 1)).all() and (race[:, n:] == 0).all()
        for race, n in zip(position, n_cars, strict=True)
    )


@st.composite
def races(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Races of permutations, of which up to three positions are replaced by any others."""
    width = draw(st.sampled_from(WIDTHS))
    n_cars = draw(st.lists(st.integers(0, width), min_size=1, max_size=3))
    n_scenarios = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    position = np.zeros((len(n_cars), n_scenarios, width), np.int16)
    for race, n in zip(position, n_cars, strict=True):
        race[:, :n] = [rng.permutation(n) + 1 for _ in range(n_scenarios)]
    slots = st.tuples(*(st.integers(0, size - 1) for size in position.shape))
    others = st.integers(-3, width + 3) | st.sampled_from([-(2**15), -64, 64, 128, 2**15 - 1])
    for slot, other in draw(st.lists(st.tuples(slots, others), max_size=3)):
        position[slot] = other
    return position, n_cars


@given(races())
def test_permutations_are_those_that_sorting_finds(case: tuple[np.ndarray, list[int]]) -> None:
    position, n_cars = case
    assert are_permutations(position, n_cars) == by_sorting(position, n_cars)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint8])
def test_permutations_of_every_width_and_integer_are_found(width: int, dtype: type) -> None:
    position = np.tile(np.arange(1, width + 1, dtype=dtype)[::-1], (2, 3, 1))
    assert are_permutations(position, [width, width])
    position[1, 2, -1] = position[1, 2, 0]
    assert are_permutations(position, [width, width]) is (width == 1)


@pytest.mark.parametrize(
    ("position", "n_cars"),
    [
        ([[[2, 1, 1]]], 2),  # a position in padding
        ([[[2, 0, 1]]], 2),  # a car without a position
        ([[[1, 3, 0]]], 2),  # beyond the field
        ([[[1, -2, 0]]], 2),
        ([[[1, 2, 3]]], 4),  # more cars than slots
        ([[[1, 2, 3]]], -1),
    ],
)
def test_other_positions_are_no_permutation(position: list, n_cars: int) -> None:
    assert not are_permutations(np.array(position, np.int16), [n_cars])


def test_each_scenario_is_judged_by_itself() -> None:
    n_cars = 130
    position = np.tile(np.arange(n_cars, 0, -1), (3, 1))
    position[1, 100] = 129
    assert is_permutation(position).tolist() == [True, False, True]


@pytest.mark.parametrize("n_cars", [0, 1, 127])
def test_positions_of_the_narrowest_integer_are_compared_without_overflow(n_cars: int) -> None:
    position = np.arange(1, n_cars + 1, dtype=np.int8)
    assert is_permutation(position)
    assert not is_permutation(np.append(position, np.zeros(130 - n_cars, np.int8)))


def test_no_race_and_no_scenario_are_permutations() -> None:
    assert are_permutations(np.zeros((0, 5, 40), np.int16), [])
    assert are_permutations(np.zeros((2, 0, 40), np.int16), [40, 38])
