"""Joined ensembles: races of one archetype over seasons, whose fields differ in size."""

import numpy as np
import pytest
import xarray as xr

from calibration_pipeline.scenarios.joining import join_seasons, widen
from calibration_pipeline.scenarios.summaries import finish_chances


def season(archetypes: list[str], width: int, n_scenarios: int = 4, first: int = 0) -> xr.Dataset:
    n_races = len(archetypes)
    finish = np.broadcast_to(np.arange(1, width + 1, dtype=np.int16), (n_races, n_scenarios, width))
    return xr.Dataset(
        {
            "finish_position": (("race", "scenario", "driver"), finish),
            "running": (("race", "scenario", "driver"), finish < width),
        },
        {
            "race": np.arange(first, first + n_races),
            "archetype": ("race", np.array(archetypes, dtype=np.str_)),
            "field_size": ("race", np.full(n_races, width, np.int16)),
            "name": (("race", "driver"), np.full((n_races, width), "driver")),
            "start_position": (("race", "driver"), np.full((n_races, width), 1, np.int16)),
            "scenario": np.arange(n_scenarios),
        },
    )


def test_join_keeps_the_archetype_s_races_in_order_and_pads_narrow_fields() -> None:
    joined = join_seasons([season(["a", "b", "a"], 2), season(["a"], 3, first=10)], "a")
    assert joined["race"].values.tolist() == [0, 2, 10]
    assert joined["finish_position"].dtype == np.int16
    assert joined["running"].dtype == bool
    assert joined["finish_position"].isel(scenario=0).values.tolist() == [[1, 2, 0], [1, 2, 0], [1, 2, 3]]
    assert joined["name"].values[:, 2].tolist() == ["", "", "driver"]
    assert not joined["running"].isel(race=0, driver=2).any()


def test_join_of_no_races_is_an_ensemble_of_no_races() -> None:
    joined = join_seasons([season(["b"], 2), season([], 3)], "a")
    assert joined.sizes["race"] == 0
    assert joined.sizes["scenario"] == 4


def test_seasons_without_races_may_have_another_number_of_scenarios() -> None:
    assert join_seasons([season([], 2, n_scenarios=1), season(["a"], 2)], "a").sizes["scenario"] == 4
    with pytest.raises(ValueError, match="same number of scenarios"):
        join_seasons([season(["a"], 2, n_scenarios=1), season(["a"], 2)], "a")


def test_seasons_of_a_users_forecaster_may_differ_in_scenarios_and_outcomes() -> None:
    """Fewer scenarios are repeated in order; outcomes that a season lacks are dropped."""
    few = season(["a"], 3, n_scenarios=3).assign_coords(n_scenarios=("race", [3]))
    few["finish_position"] = few["finish_position"].copy(data=[[[1, 2, 3], [2, 1, 3], [3, 2, 1]]])
    many = season(["a"], 3, n_scenarios=7, first=10).assign_coords(n_scenarios=("race", [7]))
    joined = join_seasons([few.drop_vars("running"), many], "a")
    assert joined["n_scenarios"].values.tolist() == [3, 7]
    assert "running" not in joined
    first = few["finish_position"].values[0]
    np.testing.assert_array_equal(joined["finish_position"].values[0], first[[0, 1, 2, 0, 1, 2, 0]])


def test_widening_is_undone_by_narrowing() -> None:
    narrow = season(["a", "b"], 2)
    xr.testing.assert_identical(widen(widen(narrow, 5), 2), narrow)


def test_chances_are_the_smoothed_probabilities_of_the_backtest() -> None:
    """Four equal scenarios of 12 cars: half a count a position, and half a retirement."""
    chances = finish_chances(season(["a"], 12))
    np.testing.assert_allclose(chances["win"], [4.5 / 10] + [0.5 / 10] * 11)
    assert chances["win"].sum() == pytest.approx(1)
    assert chances["top10"].sum() == pytest.approx(10)
    assert chances["dnf"].to_list() == pytest.approx([0.1] * 11 + [0.9])
    assert finish_chances(season([], 3)).is_empty()
