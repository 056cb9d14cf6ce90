"""Provenance in the report: the inputs that reproduce it, without credentials."""

from pathlib import Path

from calibration_pipeline.analysis.provenance import setting_values, shown_settings
from calibration_pipeline.analysis.settings import AnalysisSettings
from calibration_pipeline.sources.names import read_nicknames


def test_inputs_of_tables_are_named_without_credentials(tmp_path: Path) -> None:
    nicknames, forecasters = tmp_path / "names.toml", tmp_path / "mine"
    nicknames.write_text('[given_names]\ndarrell = ["bubba"]\n')
    forecasters.mkdir()
    settings = AnalysisSettings(
        source="tables",
        series="truck",
        results="https://me:secret@example.org/results.csv?token=1",
        laps="https://me:secret@example.org/laps.csv?token=2",
        columns=str(tmp_path / "columns.toml"),
        nicknames=str(nicknames),
        forecasters=str(forecasters),
        margin="shin",
    )
    shown = shown_settings(settings, [2024, 2025], None)
    assert shown["Series"] == "truck"
    assert shown["Source address"] == "https://example.org/results.csv"
    assert shown["Table of laps"] == "https://example.org/laps.csv"
    assert shown["Column names"] == "columns.toml"
    assert shown["Method for the margin of odds"] == "shin"
    assert shown["Nicknames, SHA-256"] == read_nicknames(str(nicknames)).content_hash


def test_inputs_that_are_not_set_have_no_row() -> None:
    shown = shown_settings(AnalysisSettings(), [2024, 2025], None)
    assert not {"Table of laps", "Column names", "Method for the margin of odds"} & set(shown)


def test_nicknames_change_what_the_report_depends_on(tmp_path: Path) -> None:
    """Nicknames match the drivers of a user's files also where the races are simulated."""
    (tmp_path / "names.toml").write_text('[given_names]\ndarrell = ["bubba"]\n')
    with_nicknames = AnalysisSettings(nicknames=str(tmp_path / "names.toml"))
    before, after = (setting_values(each, [2024]) for each in (AnalysisSettings(), with_nicknames))
    assert before["nicknames"] != after["nicknames"]
