"""Tests of the report's section on sequential monitoring."""

import polars as pl

from calibration_pipeline.markets import RACE_MARKETS
from calibration_pipeline.report import render_markdown
from calibration_pipeline.report.blocks import Gallery, Table
from calibration_pipeline.report.sections.monitoring import HEADING, monitoring_note, monitoring_section
from helpers.example_report import JUDGED, empty_content, example_content, page_with_empty_pictures


def tables(**changes: object) -> list[Table]:
    section = monitoring_section(example_content(**changes))
    return [block for block in section.blocks if isinstance(block, Table)]


def test_an_alarm_of_the_season_is_on_the_first_screen() -> None:
    (note,) = monitoring_note(example_content())
    assert note == (
        f"Sequential monitoring of season 2024: alarms at Intermediate (raw, race 3); see “{HEADING}”."
    )
    for text in (page_with_empty_pictures(example_content()), render_markdown(example_content())):
        assert "Sequential monitoring of season 2024: alarms at Intermediate" in text
        assert HEADING in text


def test_an_alarm_of_an_earlier_season_is_in_the_list_alone() -> None:
    full = example_content().monitoring
    earlier = full.with_columns(pl.col("season") - 1, pl.col("race_order") - 100)
    calm = full.filter(forecast="recalibrated")
    calm = pl.concat([calm, calm.with_columns(forecast=pl.lit("raw"))])
    shifted = pl.concat([earlier.filter(season=2023), calm.filter(season=2024)])
    assert monitoring_note(example_content(monitoring=shifted)) == [
        f"Sequential monitoring of season 2024: no alarm; see “{HEADING}”."
    ]
    alarms = tables(monitoring=shifted)[1]
    assert [[cell.text for cell in row[:4]] for row in alarms.rows] == [["2023", "Intermediate", "Raw", "3"]]


def test_largest_e_values_stand_beside_the_newest() -> None:
    """Rows: each archetype with races, and all of them; the alarm is named."""
    together, _, by_market = tables()
    assert [row[0].text for row in together.rows] == [
        "Superspeedway",
        "Intermediate",
        "Short track",
        "All archetypes",
    ]
    raw_alarm, recalibrated = together.rows[1][1:3]
    assert raw_alarm.small.startswith("alarm; now ")
    assert float(raw_alarm.text.replace(",", "")) > 20
    assert recalibrated.small.startswith("now ")
    assert float(recalibrated.text) < 20
    assert len(by_market.rows) == len(JUDGED) * (1 + len(RACE_MARKETS))


def test_every_archetype_has_its_pictures() -> None:
    evidence, ranks = (b for b in monitoring_section(example_content()).blocks if isinstance(b, Gallery))
    assert [picture.key for picture in evidence.pictures] == [f"{name}-evidence" for name in JUDGED]
    assert [picture.key for picture in ranks.pictures] == [f"{name}-rank-histograms" for name in JUDGED]
    assert ranks.summary == "Rank histograms"


def test_without_races_the_section_says_so() -> None:
    assert monitoring_note(empty_content()) == []
    assert "No race has been monitored yet." in render_markdown(empty_content())
