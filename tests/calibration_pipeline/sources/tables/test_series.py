"""The real results of the three series: every race is read, except those on dirt."""

import pytest

from calibration_pipeline.sources.quarantine import races_left_out
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import Series, compile_constraints
from helpers.paths import REAL_DATA

DIRT = ("Bristol Motor Speedway Dirt Track", "Eldora Speedway", "Knoxville Raceway")


@pytest.mark.real
@pytest.mark.skipif(not REAL_DATA.exists(), reason=f"real results are not at {REAL_DATA}")
@pytest.mark.parametrize(
    ("series", "last", "races", "dirt"),
    [("cup", 2023, 393, 3), ("xfinity", 2024, 396, 0), ("truck", 2024, 261, 12)],
)
def test_all_races_but_those_on_dirt_are_read(series: Series, last: int, races: int, dirt: int) -> None:
    path = REAL_DATA / f"{series}_results_2013_{last}.parquet"
    source = TablesSource(str(path), None, compile_constraints(series=series), series=series)
    assert source.seasons == tuple(range(2013, last + 1))
    seasons = [source.load_season(season) for season in source.seasons]
    assert sum(data.race_results["race_id"].n_unique() for data in seasons) == races
    left_out = [line for data in seasons for line in races_left_out(data.quarantine)]
    assert len(left_out) == dirt
    assert all(any(track in line for track in DIRT) for line in left_out)
