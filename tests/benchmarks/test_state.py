"""The choice of constants of the state: races before which an alarm makes a jump more probable."""

import numpy as np
import pytest

from benchmarks.state import may_jump
from calibration_pipeline.calibration.state import Calendar


@pytest.mark.parametrize(
    ("until_end", "expected"), [(False, [202003, 202101, 202104]), (True, [202003, 202004, 202101, 202104])]
)
def test_an_alarm_makes_later_races_of_its_season_jump(until_end: bool, expected: list[int]) -> None:
    """Alarms after race 2 and the last race of 2020, which widens nothing, and after race 3 of 2021."""
    order = np.array([202001, 202002, 202003, 202004, 202101, 202102, 202103, 202104])
    calendar = Calendar(order, order, np.full(8, "2020-1"), np.zeros(8, int), {})
    jumps = may_jump(calendar, {202002, 202004, 202103}, until_end=until_end)
    assert order[jumps].tolist() == expected
