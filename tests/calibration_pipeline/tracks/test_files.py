"""Tracks of a user's file: what they add to the catalogue, and messages on broken files."""

from pathlib import Path

import pytest

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.tracks import SERIES, Series, UnknownTrackError, compile_constraints, load_tracks

MOON = """
[[track]]
name = "Moon Oval"
archetype = "intermediate"
length_miles = 1.5
laps = 200
aliases = ["Luna"]

[[track]]
name = "Moon Oval"
archetype = "short_track"
length_miles = 0.9
laps = 300
first_season = 2027

[[track]]
name = "Rockingham"
archetype = "short_track"
length_miles = 1.017
laps = 393
first_season = 1998
last_season = 2012
"""
TRACK = {"name": "'Moon'", "archetype": "'short_track'", "length_miles": "1.5", "laps": "200"}


def written(folder: Path, text: str) -> str:
    path = folder / "tracks.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def entry(**changes: str | None) -> str:
    """Return one entry of a file with changed values; None drops the key."""
    values = {key: value for key, value in (TRACK | changes).items() if value is not None}
    return "\n".join(["[[track]]", *(f"{key} = {value}" for key, value in values.items())])


@pytest.mark.parametrize("series", SERIES)
def test_tracks_of_a_file_are_added(tmp_path: Path, series: Series) -> None:
    text = MOON.replace("laps = 200", "laps = 200\nlast_season = 2026")
    tracks = load_tracks(series, written(tmp_path, text))
    early, late = tracks.find(2020, name="LUNA"), tracks.find(2027, name="moon oval")
    assert early.track_id == late.track_id
    assert (early.archetype, early.scheduled_laps) == (Archetype.INTERMEDIATE, 200)
    assert (late.archetype, late.scheduled_laps, late.length_miles) == (Archetype.SHORT_TRACK, 300, 0.9)
    assert tracks.find(2004, name="Rockingham Speedway").track_id == "rockingham"
    own = compile_constraints(series=series)
    assert set(own.eras) < set(tracks.eras)
    assert tracks.content_hash != own.content_hash


def test_without_a_file_the_catalogue_is_the_own() -> None:
    assert load_tracks("truck") == compile_constraints(series="truck")


def test_dirt_of_a_file_fits_no_archetype(tmp_path: Path) -> None:
    tracks = load_tracks("truck", written(tmp_path, entry(archetype="'none'")))
    assert tracks.find(2020, name="Moon").archetype is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"must hold tables \[\[track\]\] alone; it holds \[\]"),
        ("[track]\nname = 'A'", r"must hold tables \[\[track\]\] alone"),
        ("track = [1]", "track 1: it must have name, archetype, length_miles, laps; it lacks name"),
        (entry() + "\n[other]", r"it holds \['other', 'track'\]"),
        (entry(laps=None), r"track 1 \(Moon\): it must have .*; it lacks laps"),
        (entry() + "\n" + entry(name="'B'", laps="0"), r"track 2 \(B\): laps must be a whole .*; got 0"),
        (entry(laps="true"), "laps must be a whole number from 1 to 2000; got True"),
        (entry(length_miles="-1"), "length_miles must be a number > 0 and <= 30; got -1"),
        (entry(length_miles="nan"), "length_miles must be a number > 0 and <= 30; got nan"),
        (entry(archetype="'oval'"), "archetype must be one of superspeedway, .*, none; got 'oval'"),
        (entry(archetype="[]"), r"archetype must be one of .*; got \[\]"),
        (entry(name="''"), "name must be a text with Latin letters; got ''"),
        (entry(name="'Луна'"), "name must be a text with Latin letters; got 'Луна'"),
        (entry(first_season="2022", last_season="2021"), "last_season must be a year from first_season"),
        (entry(first_season="12"), "first_season must be a year from 1949 to 2200; got 12"),
        (entry(aliases="'A'"), "aliases must be a list of names; got 'A'"),
        (entry(lap="1"), "optional keys are first_season, last_season, aliases; got 'lap'"),
        (entry(name="'Daytona'"), r"must not overlap; daytona has two in season 2013 \(Day.*, Day.*\)"),
        (entry(aliases="['Atlanta']"), "'atlanta' means atlanta and user_moon"),
        ("[[track", "at end of document"),
        ("#" * 1_000_001, "at most 1,000,000 bytes"),
        ("[[track]]\n" * 1_001, "at most 1,000 tracks; it holds 1,001"),
    ],
)
def test_a_broken_file_is_named_with_entry_rule_and_value(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=problem) as refusal:
        load_tracks("cup", path)
    assert str(refusal.value).startswith(path)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lost\.toml: it cannot be read: No such file"):
        load_tracks("cup", str(tmp_path / "lost.toml"))


def test_an_unknown_track_says_how_to_add_it() -> None:
    with pytest.raises(UnknownTrackError, match=r"nearest names are .*; --tracks tracks\.toml adds"):
        load_tracks("truck").find(2024, name="Moon Speedway")
