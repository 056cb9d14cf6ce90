"""Tests of the report's section on forecasters: ranks, comparisons and a picture."""

import polars as pl
import pytest

from calibration_pipeline.comparison.leaderboard import rank_forecasters
from calibration_pipeline.report.blocks import Cell, Gallery, Table
from calibration_pipeline.report.sections.leaderboard import has_others, leaderboard_section
from calibration_pipeline.report.words import VERDICTS
from calibration_pipeline.schemas.comparison import Leaderboard
from calibration_pipeline.verification.cases import table
from helpers.compared_forecasters import make_backtests, scores_of
from helpers.images import image_size


@pytest.fixture(scope="module")
def leaderboard() -> pl.DataFrame:
    backtests = make_backtests({"network": 1.0, "mine": 4.0}, n_races=30)
    backtests["new"] = [part.isel(race=slice(0, 3)) for part in backtests["network"]]
    return rank_forecasters(scores_of(backtests))


def test_the_first_tables_have_the_ranks_of_all_markets(leaderboard: pl.DataFrame) -> None:
    section = leaderboard_section(leaderboard)
    recalibrated, raw, *by_archetype = [block for block in section.blocks if isinstance(block, Table)]
    assert recalibrated.caption.startswith("Ranks of the recalibrated forecasts")
    assert list(raw.columns) == ["", "Win", "Top 3", "Top 5", "Top 10", "Head to head", "Finish distribution"]
    rows = {row[0].text: row[-1] for row in raw.rows}
    assert rows["network"] == Cell("1 a", "0.00")
    assert rows["mine"].text == "2 b"
    assert rows["mine"].verdict in VERDICTS
    assert rows["mine"].small.startswith("−")
    assert rows["new"].text == "too few races"
    labels = [block.caption.partition(":")[0] for block in by_archetype]
    assert labels == ["Intermediate", "Short track", "All archetypes"]


def test_every_comparison_is_listed_under_its_market(leaderboard: pl.DataFrame) -> None:
    *_, whole = [block for block in leaderboard_section(leaderboard).blocks if isinstance(block, Table)]
    assert whole.folded
    headings = [row[0].text for row in whole.rows if len(row) == 1]
    assert headings[:2] == ["Win, raw", "Win, recalibrated"]
    assert len(headings) == 6 * 2
    assert {len(row) for row in whole.rows if len(row) > 1} == {len(whole.columns)}
    new = next(row for row in whole.rows if row[0].text == "new")
    assert new[1].small == "fewer than 12 races with network, mine, climatology"
    assert new[2].text == "too few races"
    assert new[3].text == "6"


def test_the_picture_is_drawn(leaderboard: pl.DataFrame) -> None:
    (gallery,) = [block for block in leaderboard_section(leaderboard).blocks if isinstance(block, Gallery)]
    (picture,) = gallery.pictures
    width, height = image_size(picture.draw())
    assert min(width, height) > 300


def test_the_network_alone_is_not_compared(leaderboard: pl.DataFrame) -> None:
    assert has_others(leaderboard)
    for frame in (
        leaderboard.filter(pl.col("forecaster").is_in(["network", "climatology"])),
        table([], Leaderboard),
    ):
        assert not has_others(frame)
