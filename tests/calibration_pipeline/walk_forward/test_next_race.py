"""Probabilities of the next race: read from a file, and recalibrated with the state before."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.state import OPENINGS
from calibration_pipeline.forecasters.folder import ForecasterFiles
from calibration_pipeline.schemas.forecasters import EventProbabilities, EventState
from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace
from calibration_pipeline.walk_forward.next_race import forecast_next_events, forecast_next_positions
from calibration_pipeline.walk_forward.state import DRAWN
from helpers.example_ensembles import entry_list

RACE, N_CARS, N_DRAWS = 202101, 12, 64


@pytest.fixture
def announced() -> AnnouncedRace:
    return AnnouncedRace(entry_list({RACE: N_CARS}))


def book(folder: Path, round_: int = 1) -> ForecasterFiles:
    """Probabilities of a win that fall from the first driver to the last."""
    win = np.arange(N_CARS, 0, -1) / np.arange(1, N_CARS + 1).sum()
    frame = pl.DataFrame({"driver": [f"Driver {i}" for i in range(N_CARS)], "win": win})
    path = folder / "book.csv"
    frame.select(season=2021, round=round_, driver="driver", win="win").write_csv(path)
    return ForecasterFiles("book", (str(path),))


def state(slope: float) -> xr.DataTree:
    """A state of the market win alone, the same for all archetypes."""
    shape = (len(OPENINGS), len(ARCHETYPES), N_DRAWS)
    values = {"log_slope": np.log(slope), "noise_sigma": 0.0, "intercept": 0.0}
    following = xr.Dataset(
        {
            name: (("opening", "archetype", "draw"), np.full(shape, values[name], np.float32))
            for name in DRAWN
        },
        {"opening": list(OPENINGS), "archetype": [str(archetype) for archetype in ARCHETYPES]},
    )
    following["n_calibration_races"] = (("opening", "archetype"), np.full(shape[:2], 20, np.int32))
    tree = xr.DataTree.from_dict({"win/next": following})
    tree["win"].attrs = {"last_season": 2020, "last_fold": "2020"}
    return tree


def forecast(announced: object, files: ForecasterFiles, tree: xr.DataTree) -> tuple[pl.DataFrame, list[str]]:
    return forecast_next_events(announced, files, tree, [2020, 2021], fold_races=None, seed=1)  # type: ignore[arg-type]


def test_the_next_race_is_recalibrated_to_one_winner(announced: AnnouncedRace, tmp_path: Path) -> None:
    raw, _ = forecast(announced, book(tmp_path), xr.DataTree())  # no market has a state
    flat, notes = forecast(announced, book(tmp_path), state(0.5))
    same, _ = forecast(announced, book(tmp_path), state(1.0))
    EventProbabilities.validate(flat)
    assert raw["race_id"].unique().to_list() == [RACE]
    assert notes == []
    np.testing.assert_allclose(same["probability"], raw["probability"], rtol=1e-6)
    assert flat["probability"].sum() == pytest.approx(1.0, abs=1e-7)
    assert 0 < flat["probability"].std() < 0.75 * raw["probability"].std()


def test_positions_of_the_next_race_add_up_to_events(announced: AnnouncedRace, tmp_path: Path) -> None:
    """Recalibrated columns sum to 1, so that the cars' chances of a top n sum to n."""
    share = np.linspace(2.0, 1.0, N_CARS)
    first = share / share.sum()
    drivers = [f"Driver {i}" for i in range(N_CARS)]
    rows = {"driver": 2 * drivers, "position": N_CARS * ["1"] + N_CARS * ["rest"]}
    frame = pl.DataFrame({**rows, "probability": [*first, *(1 - first)]})
    path = tmp_path / "flat.csv"
    frame.select(pl.lit(2021).alias("season"), pl.lit(1).alias("round"), pl.all()).write_csv(path)
    files = ForecasterFiles("flat", (str(path),))
    tree = xr.DataTree.from_dict({"next": state(2.0)["win/next"].to_dataset()})
    tree.attrs = state(2.0)["win"].attrs
    for given in (announced, AnnouncedRace(announced.entries.with_columns(start_position=None))):
        events, _ = forecast_next_positions(given, files, tree, [2020, 2021], fold_races=None, seed=1)
        EventProbabilities.validate(events)
        sums = dict(events.group_by("market").agg(pl.sum("probability")).iter_rows())
        assert sums == pytest.approx({"win": 1, "top 3": 3, "top 5": 5, "top 10": 10}, abs=1e-3)
        win = events.filter(market="win").sort("driver_id")["probability"].to_numpy()
        assert win[0] / win[-1] > 1.5 * first[0] / first[-1]
    nothing = forecast_next_positions(None, files, tree, [2020, 2021], fold_races=None, seed=1)
    assert nothing[0].equals(EventProbabilities.empty())


def test_without_a_race_or_its_forecast_the_table_is_empty(announced: AnnouncedRace, tmp_path: Path) -> None:
    for other in (None, NoNextRace("The season is over.")):
        assert forecast(other, book(tmp_path), state(1.0))[0].equals(EventProbabilities.empty())
    late, notes = forecast(announced, book(tmp_path, round_=7), state(1.0))
    assert late.is_empty()
    (note,) = notes
    assert re.fullmatch(r"2021 race 1 \(.*\): no forecast", note)


def test_a_state_of_another_market_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Groups must be markets of win, top 3.*; got 'podium'"):
        EventState.validate(xr.DataTree.from_dict({"podium": xr.Dataset()}), lazy=True)
