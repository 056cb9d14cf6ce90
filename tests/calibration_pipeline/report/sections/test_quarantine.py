"""The report's section on what was left out of the data."""

import polars as pl

from calibration_pipeline.report import render_markdown
from calibration_pipeline.report.sections.quarantine import MOST_ROWS, quarantine_note, quarantine_section
from calibration_pipeline.sources.quarantine import (
    DID_NOT_START,
    NO_POINTS_RACE,
    OTHER_SERIES,
    QuarantineLog,
)
from helpers.example_report import example_content, page_with_empty_pictures


def quarantine() -> pl.DataFrame:
    log = QuarantineLog(2021)
    where = {
        "place": "https://feed.example/2021/1/5082",
        "race_id": 5082,
        "race": "2021 race 5082 (Talladega)",
    }
    log.add("entry", "left out", DID_NOT_START, subject="A <b>Driver</b>", **where)
    log.add("value", "nulled", "a grid position is taken once", subject="Kyle Busch", value=12, **where)
    log.add("race", "left out", "its results are null", **where)
    return log.frame()


def test_a_race_left_out_is_on_the_first_screen_and_in_its_section() -> None:
    for text in (
        page_with_empty_pictures(example_content(quarantine=quarantine())),
        render_markdown(example_content(quarantine=quarantine())),
    ):
        assert "1 race left out of the data; the section “What was left out, and why” names it." in text
        assert "What was left out, and why" in text
        assert "its results are null" in text
        assert "got 12" in text
        assert "<b>Driver</b>" not in text


def test_races_of_other_series_and_exhibitions_are_no_lost_races() -> None:
    log = QuarantineLog(2021)
    for race, rule in (("Clash", NO_POINTS_RACE), ("series 2", f"33 races are {OTHER_SERIES}")):
        log.add("race", "left out", rule, place="results.csv", race=f"2021, {race}")
    assert quarantine_note(example_content(quarantine=log.frame())) == []
    for number, rule in ((1, "its grid is not known"), (None, "it has no number")):
        log.add("race", "left out", rule, place="results.csv", race_id=number)
    (note,) = quarantine_note(example_content(quarantine=log.frame()))
    assert note == "2 races left out of the data; the section “What was left out, and why” names them."


def test_implausible_forecasts_are_on_the_first_screen() -> None:
    warning = "Intermediate: the forecasts may be upside down."
    for text in (
        page_with_empty_pictures(example_content(warnings=[warning])),
        render_markdown(example_content(warnings=[warning])),
    ):
        assert text.index(warning) < text.index("What was left out, and why")
    assert warning not in render_markdown(example_content())


def test_entries_that_did_not_start_are_counted_and_listed_last() -> None:
    section = quarantine_section(example_content(quarantine=quarantine()))
    counts, defects = section.blocks[1:]
    assert [cell.text for cell in counts.rows[0]] == ["2021", "1", "1", "0", "1"]  # type: ignore[union-attr]
    assert [row[3].text for row in defects.rows] == [  # type: ignore[union-attr]
        "race left out",
        "value nulled",
        "entry left out",
    ]


def test_a_complete_season_is_said() -> None:
    page = render_markdown(example_content())
    assert "All data of the seasons could be used." in page
    assert "left out of the data" not in page


def test_a_long_list_is_cut_and_its_length_said() -> None:
    log = QuarantineLog(2021)
    for car in range(MOST_ROWS + 5):
        log.add("value", "nulled", "laps led are a count", place="results.csv", subject=f"car {car}")
    table = quarantine_section(example_content(quarantine=log.frame())).blocks[-1]
    assert len(table.rows) == MOST_ROWS  # type: ignore[union-attr]
    assert f"of {MOST_ROWS + 5}" in table.caption  # type: ignore[union-attr]


def test_folders_of_files_are_not_published() -> None:
    log = QuarantineLog(2021)
    place = "/home/me/feed/2021/1/5082/weekend-feed.json"
    log.add("race", "left out", f"{place} is not valid JSON", place=place)
    page = render_markdown(example_content(quarantine=log.frame()))
    assert "weekend-feed.json is not valid JSON" in page
    assert "/home/me" not in page
