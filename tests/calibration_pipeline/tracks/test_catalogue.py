"""The track catalogue: its values, no guesses, and coverage of the real races."""

import dataclasses
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.tracks import (
    CATALOGUE,
    SERIES,
    CompiledTracks,
    ConstraintSpec,
    Laps,
    Series,
    TrackConstraints,
    UnknownTrackError,
    compile_constraints,
)
from helpers.paths import REAL_DATA

RESULTS = {
    "cup": REAL_DATA / "cup_results_2013_2023.parquet",
    "xfinity": REAL_DATA / "xfinity_results_2013_2024.parquet",
    "truck": REAL_DATA / "truck_results_2013_2024.parquet",
}


@pytest.fixture(scope="module")
def tracks() -> CompiledTracks:
    return compile_constraints()


@pytest.mark.parametrize(
    ("season", "name", "track_id", "archetype"),
    [
        (2021, "Atlanta Motor Speedway", "atlanta", "intermediate"),
        (2022, "Atlanta Motor Speedway", "atlanta", "superspeedway"),
        (2025, "EchoPark Speedway", "atlanta", "superspeedway"),
        (2014, "Phoenix International Raceway", "phoenix", "short_track"),
        (2018, "ISM Raceway", "phoenix", "short_track"),
        (2016, "Richmond International Raceway", "richmond", "short_track"),
        (2023, "Dover Motor Speedway", "dover", "short_track"),
        (2020, "Indianapolis Motor Speedway", "indianapolis", "intermediate"),
        (2021, "Indianapolis Motor Speedway Road Course", "indianapolis_road", "road_course"),
        (2021, "DAYTONA Road Course", "daytona_road", "road_course"),
        (2019, "Charlotte Motor Speedway Road Course", "charlotte_roval", "road_course"),
        (2025, "Autodromo Hermanos Rodriguez", "mexico_city", "road_course"),
        (2023, "Chicago Street Course", "chicago_street", "road_course"),
        (2022, "World Wide Technology Raceway at Gateway", "gateway", "intermediate"),
        (2024, "Iowa Speedway", "iowa", "short_track"),
        (2026, "North Wilkesboro Speedway", "north_wilkesboro", "short_track"),
        (2021, "Circuit of The Americas", "cota", "road_course"),
        (2019, "homestead–miami  SPEEDWAY", "homestead", "intermediate"),
        (2021, "daytona_road", "daytona_road", "road_course"),
        (2021, "Charlotte (ROVAL)", "charlotte_roval", "road_course"),
        (2022, "Indy Road Course", "indianapolis_road", "road_course"),
        (2016, "Auto Club", "auto_club", "intermediate"),
        (2014, "Canadian Tire Motorsport Park", "mosport", "road_course"),
        (2025, "Lime Rock Park", "lime_rock", "road_course"),
        (2021, "Mid-Ohio Sports Car Course", "mid_ohio", "road_course"),
        (2023, "Portland International Raceway", "portland", "road_course"),
        (2022, "Lucas Oil Raceway", "indianapolis_raceway_park", "short_track"),
        (2023, "Milwaukee Mile", "milwaukee", "short_track"),
        (2025, "Rockingham Speedway", "rockingham", "short_track"),
    ],
)
def test_tracks_are_found_by_every_name(
    tracks: CompiledTracks, season: int, name: str, track_id: str, archetype: str
) -> None:
    track = tracks.find(season, name=name)
    assert (track.track_id, track.archetype) == (track_id, archetype)


def test_dirt_fits_no_archetype(tracks: CompiledTracks) -> None:
    assert tracks.find(2021, feed_id=216, name="Bristol Motor Speedway Dirt").archetype is None
    assert tracks.find(2021, feed_id=14).archetype == Archetype.SHORT_TRACK
    assert [tracks.find(2019, name=name).archetype for name in ("Eldora", "Knoxville Raceway")] == [None] * 2


def test_layouts_of_sonoma_differ_in_length(tracks: CompiledTracks) -> None:
    lengths = [tracks.by_id("sonoma", season).length_miles for season in (2018, 2019, 2021, 2022)]
    assert lengths == [1.99, 2.52, 2.52, 1.99]


def test_unknown_track_names_the_lookup_and_the_nearest(tracks: CompiledTracks) -> None:
    with pytest.raises(UnknownTrackError, match=r"'Talledega Speedway'.*999.*Talladega Superspeedway"):
        tracks.find(2021, name="Talledega Speedway", feed_id=999)
    with pytest.raises(UnknownTrackError, match=r"no known name is near it; --tracks tracks.toml adds"):
        tracks.find(2021, feed_id=999)
    with pytest.raises(UnknownTrackError, match=r"'talladego' is unknown.*Talladega Superspeedway"):
        tracks.by_id("talladego", 2021)


def test_id_and_name_of_different_tracks_are_refused(tracks: CompiledTracks) -> None:
    with pytest.raises(UnknownTrackError, match="the id means daytona, the name means talladega"):
        tracks.find(2021, feed_id=105, name="Talladega Superspeedway")


def test_season_outside_every_era_is_refused(tracks: CompiledTracks) -> None:
    with pytest.raises(UnknownTrackError, match="not known in season 2012, only in 2013-2018, 2019-2021"):
        tracks.find(2012, name="Sonoma")


@given(st.text(max_size=30))
def test_a_name_is_known_or_refused_never_guessed(name: str) -> None:
    tracks = compile_constraints()
    try:
        found = tracks.find(2022, name=name)
    except UnknownTrackError:
        return
    spelled = "".join(c for c in name.casefold() if c.isalnum())
    specs = [spec for spec in CATALOGUE if spec.track_id == found.track_id]
    names = {name for spec in specs for name in (spec.track_id, spec.name, *spec.aliases)}
    assert spelled in {"".join(c for c in n.casefold() if c.isalnum()) for n in names}


def test_compiled_tracks_are_frozen(tracks: CompiledTracks) -> None:
    track = tracks.by_id("daytona", 2020)
    assert isinstance(track, TrackConstraints)
    with pytest.raises(dataclasses.FrozenInstanceError):
        track.length_miles = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        tracks.content_hash = ""  # type: ignore[misc]


def test_hash_depends_on_content_not_on_order_or_process(tracks: CompiledTracks) -> None:
    assert compile_constraints(CATALOGUE[::-1]).content_hash == tracks.content_hash
    changed = (dataclasses.replace(CATALOGUE[0], scheduled_laps=Laps(199)), *CATALOGUE[1:])
    assert compile_constraints(changed).content_hash != tracks.content_hash
    code = "from calibration_pipeline.tracks import compile_constraints as c; print(c().content_hash)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == tracks.content_hash


def test_table_has_one_row_a_track_and_era(tracks: CompiledTracks) -> None:
    table = tracks.to_frame()
    assert table.height == len(CATALOGUE)
    assert set(table["archetype"]) == {*ARCHETYPES, None}


SPEC = ConstraintSpec("oval", "Oval", Archetype.INTERMEDIATE, 1.5, Laps(267), last_season=2020, feed_ids=(1,))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([dataclasses.replace(SPEC, length_miles=0.0)], "length_miles must be > 0"),
        ([dataclasses.replace(SPEC, scheduled_laps=Laps(0))], "scheduled_laps must be > 0"),
        ([dataclasses.replace(SPEC, scheduled_laps=Laps(267, {2015: 200}))], "known from first_season on"),
        (
            [dataclasses.replace(SPEC, scheduled_laps=Laps({2013: 267, 2021: 200}))],
            "change .* by last_season",
        ),
        ([dataclasses.replace(SPEC, scheduled_laps=Laps(truck=134))], "cup must have laps at one track"),
        ([dataclasses.replace(SPEC, track_id="An Oval")], "track_id must be lower case"),
        ([dataclasses.replace(SPEC, first_season=2021)], "first_season must be <= last_season"),
        (
            [SPEC, dataclasses.replace(SPEC, first_season=2020)],
            "must not overlap; oval has two in season 2020",
        ),
        ([SPEC, dataclasses.replace(SPEC, track_id="ring")], "'oval' means oval and ring"),
        ([SPEC, dataclasses.replace(SPEC, track_id="ring", name="Ring")], "feed id must mean one track; 1"),
    ],
)
def test_a_contradictory_catalogue_is_refused(specs: list[ConstraintSpec], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_constraints(specs)


@pytest.mark.parametrize(
    ("series", "laps"),
    [("cup", [267, 267]), ("xfinity", [200, 200]), ("truck", [167, 134])],
)
def test_laps_are_those_of_the_series_and_the_season(series: Series, laps: list[int]) -> None:
    compiled = compile_constraints(series=series)
    assert [compiled.by_id("kansas", season).scheduled_laps for season in (2019, 2020)] == laps


def test_a_series_has_its_usual_distance_where_it_has_not_raced() -> None:
    """The median distance of the series at road courses."""
    for series, track_id, season, laps in (("truck", "cota", 2025, 64), ("cup", "mid_ohio", 2022, 101)):
        compiled = compile_constraints(series=series)
        assert compiled.by_id(track_id, season).scheduled_laps == laps


def test_laps_of_other_series_change_neither_table_nor_hash(tracks: CompiledTracks) -> None:
    more = [
        dataclasses.replace(s, scheduled_laps=dataclasses.replace(s.scheduled_laps, truck=99))
        for s in CATALOGUE
    ]
    assert compile_constraints(more) == tracks
    assert compile_constraints(more, "truck") != compile_constraints(series="truck")


@pytest.mark.real
@pytest.mark.parametrize("series", SERIES)
@pytest.mark.skipif(not REAL_DATA.exists(), reason=f"real results are not at {REAL_DATA}")
def test_catalogue_covers_all_real_races(series: Series) -> None:
    tracks = compile_constraints(series=series)
    races = pl.read_parquet(RESULTS[series], columns=["Season", "Track", "Length", "Surface"]).unique()
    found = [tracks.find(season, name=name) for season, name in races.select("Season", "Track").iter_rows()]
    known = races["Length"].is_not_null()
    lengths = pl.Series([track.length_miles for track in found])
    assert lengths.filter(known).to_list() == pytest.approx(races["Length"].filter(known).to_list())
    kinds = {
        "road": {Archetype.ROAD_COURSE},
        "dirt": {None},
        "paved": {*ARCHETYPES} - {Archetype.ROAD_COURSE},
        None: {*ARCHETYPES},
    }
    assert all(t.archetype in kinds[s] for t, s in zip(found, races["Surface"], strict=True))


@pytest.mark.real
@pytest.mark.parametrize(("series", "share"), [("cup", 0.85), ("xfinity", 0.87), ("truck", 0.86)])
@pytest.mark.skipif(not REAL_DATA.exists(), reason=f"real results are not at {REAL_DATA}")
def test_scheduled_laps_are_those_of_most_real_races(series: Series, share: float) -> None:
    """A race runs its usual laps, or up to 8 % more in overtime, in at least this share of the races."""
    tracks = compile_constraints(series=series)
    races = pl.read_parquet(RESULTS[series]).group_by("Season", "Race").agg(
        pl.col("Track").first(), pl.col("Laps").max()
    )  # fmt: skip
    usual = [
        tracks.find(season, name=name).scheduled_laps
        for season, name in races.select("Season", "Track").iter_rows()
    ]
    assert (races["Laps"] / pl.Series(usual)).is_between(1, 1.08).mean() >= share
