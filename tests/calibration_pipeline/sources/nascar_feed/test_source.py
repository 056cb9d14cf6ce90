"""The feed's reader on good, odd, damaged and missing documents."""

import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from calibration_pipeline.schemas.frames import EntryList, LapTelemetry, RaceResults
from calibration_pipeline.sources import SeasonData, SourceError
from calibration_pipeline.sources.base import AnnouncedRace, MissingDocumentError, NoNextRace
from calibration_pipeline.sources.names import Nicknames
from calibration_pipeline.sources.nascar_feed.source import COUNTS, NascarFeedSource
from calibration_pipeline.sources.quarantine import defect_lines, races_left_out
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.sources.web import WebLimits
from calibration_pipeline.tracks import Series, compile_constraints
from helpers.example_feed import LAPS, lap_times, result, scheduled, weekend
from helpers.feed_layout import write_feed
from helpers.paths import REAL_DATA, ROOT

REAL_FEED = REAL_DATA / "nascar_feed_2020_2021.zip"
REAL_RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
needs_real_feed = pytest.mark.skipif(not REAL_FEED.exists(), reason=f"the real feed is not at {REAL_FEED}")
TRACKS = compile_constraints()
QUICK = WebLimits(
    retries=WebLimits().retries.new(total=2, backoff_factor=0.01, backoff_jitter=0.0), spacing_s=0.0
)


Documents = dict[str, Any]


def season_documents() -> Documents:
    """A season of two points races and an exhibition between them."""
    exhibition = scheduled(2, 8, race_type_id=2)
    documents: Documents = {
        "2021/race_list_basic.json": {"series_1": [scheduled(3, 16), exhibition, scheduled(1, 1)]}
    }
    for race_id in (1, 3):
        documents[f"2021/1/{race_id}/weekend-feed.json"] = weekend(race_id)
        documents[f"2021/1/{race_id}/lap-times.json"] = lap_times()
    return documents


def write(folder: Path, documents: Documents) -> Path:
    for path, document in documents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def load(folder: Path, documents: Documents, season: int = 2021) -> SeasonData:
    return NascarFeedSource(str(write(folder, documents)), TRACKS).load_season(season)


def first_race(documents: Documents) -> dict[str, Any]:
    return documents["2021/1/1/weekend-feed.json"]["weekend_race"][0]  # type: ignore[no-any-return]


def test_points_races_become_frames_that_keep_the_contracts(tmp_path: Path) -> None:
    data = load(tmp_path, season_documents())
    RaceResults.validate(data.race_results)
    LapTelemetry.validate(data.lap_telemetry)
    assert data.race_results.select("race_id", "round", "race_order").unique().sort("round").rows() == [
        (1, 1, 202101),
        (3, 2, 202102),
    ]
    winner = data.race_results.row(0, named=True)
    assert (
        winner
        | {
            "driver_id": "1001",
            "driver": "Driver 1",
            "car_number": "01",
            "track_id": "kansas",
            "archetype": "intermediate",
            "race_date": date(2021, 5, 1),
            "running": True,
            "status": "running",
            "race_laps": LAPS,
            "scheduled_laps": 5,
            "green_laps": 3,
            "n_cautions": 1,
            "fastest_laps": 3,
        }
        == winner
    )
    assert data.race_results["fastest_laps"].to_list() == [3, 0, 0] * 2
    assert set(data.counts) == set(COUNTS)
    nonzero = {name: n for name, n in data.counts.items() if n}
    assert nonzero == {"races": 2, "cars": 6, "laps": 2 * 3 * (LAPS + 1)}
    assert races_left_out(data.quarantine) == []


def test_folder_and_zip_give_the_same_races(tmp_path: Path) -> None:
    expected = load(tmp_path / "folder", season_documents())
    archive = tmp_path / "feed.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path, document in season_documents().items():
            file.writestr(path, json.dumps(document))
    for url in (str(archive), f"zip://::{archive}", f"file://{tmp_path}/folder/"):
        data = NascarFeedSource(url, TRACKS).load_season(2021)
        assert_frame_equal(data.race_results, expected.race_results)
        assert_frame_equal(data.lap_telemetry, expected.lap_telemetry)
        assert data.counts == expected.counts


def test_frames_survive_the_way_through_the_feeds_layout(tmp_path: Path) -> None:
    data = SimulatedSource([2020], TRACKS).load_season(2020)
    few = data.race_results["race_id"].unique().sort()[:3].implode()
    results = data.race_results.filter(pl.col("race_id").is_in(few))
    laps = data.lap_telemetry.filter(pl.col("race_id").is_in(few))
    write_feed(tmp_path, {2020: SeasonData(results, laps)})
    read = NascarFeedSource(str(tmp_path), TRACKS).load_season(2020)
    keys = ["race_id", "driver_id"]
    frames = (frame.drop("fastest_laps") for frame in (read.race_results, results))
    assert_frame_equal(*frames, check_row_order=False, check_column_order=False)
    assert_frame_equal(
        read.lap_telemetry.sort(*keys, "lap"), laps.sort(*keys, "lap"), check_column_order=False
    )


def test_dirt_and_unknown_tracks_are_named_and_left_out_but_keep_their_round(tmp_path: Path) -> None:
    documents = season_documents()
    dirt = scheduled(4, 8, track_id=216, track_name="Bristol Motor Speedway Dirt")
    moon = scheduled(5, 9, track_id=999, track_name="Sea of Tranquility")
    documents["2021/race_list_basic.json"]["series_1"] = [scheduled(1, 1), dirt, moon, scheduled(6, 15)]
    documents["2021/1/6/weekend-feed.json"] = weekend(6)
    documents["2021/1/6/lap-times.json"] = lap_times()
    data = load(tmp_path, documents)
    assert data.race_results["round"].unique().to_list() == [1, 4]
    assert (data.counts["races"], data.counts["races_left_out"]) == (2, 2)
    assert "race 4" in races_left_out(data.quarantine)[0]
    assert "fits no archetype" in races_left_out(data.quarantine)[0]
    assert "'Sea of Tranquility'" in races_left_out(data.quarantine)[1]


def test_races_that_have_not_run_are_counted(tmp_path: Path) -> None:
    documents = season_documents()
    waiting = scheduled(9, 29, average_speed=0, total_race_time="0:00:00")
    timed = scheduled(3, 15, average_speed=None, total_race_time="2:10:00")
    documents["2021/race_list_basic.json"]["series_1"] = [waiting, scheduled(1, 1), timed]
    data = load(tmp_path, documents)
    assert (data.counts["races"], data.counts["races_not_run"]) == (2, 1)


@pytest.mark.parametrize("races", [[], [scheduled(2, 8, race_type_id=2)]])
def test_a_season_without_points_races_is_empty(tmp_path: Path, races: list[dict[str, Any]]) -> None:
    """As a season's list is before its races are announced."""
    source = NascarFeedSource(
        str(write(tmp_path, {"2021/race_list_basic.json": {"series_1": races}})), TRACKS
    )
    assert source.finished_races(2021) == {}
    assert source.next_race(2021) is None
    season = source.load_season(2021)
    assert season.race_results.is_empty()
    assert season.counts["races"] == 0


def test_odd_results_are_cleaned_and_counted(tmp_path: Path) -> None:
    documents = season_documents()
    results = first_race(documents)["results"]
    results[1] |= {"driver_id": None, "driver_fullname": "* José  Nemechek Jr.(i) #", "team_name": " "}
    results[2] |= {"finishing_status": "Accident", "laps_completed": 2}
    results[0]["laps_led"] -= 1
    results.append(dict(results[2]))
    results += [result(0, starting_position=0, driver_id=None, finishing_status=None, car_number="66")]
    laps = documents["2021/1/1/lap-times.json"]["laps"]
    laps.append(laps[0] | {"Number": "66", "NASCARDriverID": 4242})
    data = load(tmp_path, documents)
    race = data.race_results.filter(pl.col("race_id") == 1)
    assert race["driver_id"].to_list() == ["1001", "name:jose-nemechek", "1003"]
    assert race["driver"][1] == "José Nemechek Jr."
    assert race["team"][1] is None
    assert race["running"].to_list() == [True, True, False]
    assert race["status"][2] == "accident"
    expected = {
        "non_starters": 1,
        "results_repeated": 1,
        "cars_without_id": 1,
        "races_laps_led_mismatch": 1,
        "laps_without_result": LAPS + 1,
        "cars_without_laps": 0,
    }
    assert {name: data.counts[name] for name in expected} == expected
    joined_by_number = data.lap_telemetry.filter(race_id=1, driver_id="name:jose-nemechek")
    assert joined_by_number.height == LAPS + 1


def test_laps_led_of_a_race_with_an_unknown_car_are_not_summed(tmp_path: Path) -> None:
    documents = season_documents()
    first_race(documents)["results"][0]["laps_led"] = None
    data = load(tmp_path, documents)
    assert data.race_results.filter(race_id=1)["laps_led"].null_count() == 1
    assert data.counts["races_laps_led_mismatch"] == 0


def test_odd_laps_are_cleaned_and_counted(tmp_path: Path) -> None:
    documents = season_documents()
    first, second, third = documents["2021/1/1/lap-times.json"]["laps"]
    first["Laps"][1]["LapTime"] = 0
    first["Laps"][3]["LapTime"] = None
    first["Laps"].append(dict(first["Laps"][4]))
    del second["Laps"][2:4]
    third["Laps"][0]["RunningPos"] = 0
    data = load(tmp_path, documents)
    expected = {
        "laps_without_time": 2,
        "laps_repeated": 1,
        "laps_without_position": 1,
        "cars_with_lap_gaps": 1,
        "laps_in_gaps": 2,
    }
    assert {name: data.counts[name] for name in expected} == expected
    assert data.lap_telemetry.filter(race_id=1, driver_id="1001")["lap_time_s"].null_count() == 3
    fastest = data.race_results.filter(race_id=1).sort("driver_id")["fastest_laps"].to_list()
    assert fastest == [1, 1, 1]


def test_seasons_without_laps_have_results(tmp_path: Path) -> None:
    documents = season_documents()
    del documents["2021/1/1/lap-times.json"], documents["2021/1/3/lap-times.json"]
    data = load(tmp_path, documents)
    assert data.lap_telemetry.is_empty()
    assert data.race_results["fastest_laps"].null_count() == 6
    assert data.race_results["green_laps"].to_list() == [3] * 6
    assert data.counts["races_without_laps"] == 2
    assert data.quarantine.is_empty()


def test_more_caution_laps_than_laps_cost_the_number_of_green_laps(tmp_path: Path) -> None:
    documents = season_documents()
    del documents["2021/1/1/lap-times.json"], documents["2021/1/3/lap-times.json"]
    documents["2021/1/1/weekend-feed.json"]["weekend_race"][0]["number_of_caution_laps"] = 60
    data = load(tmp_path, documents)
    assert data.race_results["green_laps"].to_list() == [None] * 3 + [3] * 3
    (defect,) = data.quarantine.iter_rows(named=True)
    assert (defect["subject"], defect["value"], defect["consequence"]) == (
        "number_of_caution_laps",
        "60",
        "nulled",
    )


def test_a_race_without_laps_is_named_where_others_have_them(tmp_path: Path) -> None:
    documents = season_documents()
    del documents["2021/1/1/lap-times.json"]
    data = load(tmp_path, documents)
    assert data.race_results["race_id"].n_unique() == 2
    assert data.lap_telemetry["race_id"].unique().to_list() == [3]
    named = data.quarantine.select("race_id", "entity", "rule", "consequence").rows()
    assert named == [(1, "laps", "the feed has none, but of other races", "left out")]


def truncate(path: str) -> Callable[[Documents], None]:
    def change(documents: Documents) -> None:
        documents[path] = json.dumps(documents[path])[:-40]

    return change


def change_result(place: int, **changes: Any) -> Callable[[Documents], None]:
    return lambda documents: first_race(documents)["results"][place - 1].update(changes)


def drop_key(path: str, *keys: Any) -> Callable[[Documents], None]:
    def change(documents: Documents) -> None:
        part = documents[path]
        for key in keys[:-1]:
            part = part[key]
        del part[keys[-1]]

    return change


def put(path: str, value: Any, *keys: Any) -> Callable[[Documents], None]:
    def change(documents: Documents) -> None:
        part = documents[path]
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


RACES = "2021/race_list_basic.json"
WEEKEND = "2021/1/1/weekend-feed.json"
LAP_TIMES = "2021/1/1/lap-times.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate(RACES), r"race_list_basic.json is not valid JSON"),
        (lambda documents: documents.update({RACES: {"series_4": [1]}}), "list series_1; it has series_4"),
        (lambda documents: documents.update({RACES: []}), "Season 2021 is not in the feed: .* is empty"),
        (lambda documents: documents.update({RACES: None}), "Season 2021 is not in the feed: .* is empty"),
        (lambda documents: documents.pop(WEEKEND), "1 of 2 finished races can be used, .*does not exist"),
        (
            lambda documents: [race.update(race_season=2018) for race in documents[RACES]["series_1"]],
            "must list season 2021; it lists 2018",
        ),
    ],
)
def test_a_season_that_cannot_be_read_gets_one_line(
    tmp_path: Path, damage: Callable[[Documents], None], message: str
) -> None:
    documents = season_documents()
    damage(documents)
    with pytest.raises(SourceError, match=message) as refusal:
        load(tmp_path, documents)
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def longer_season() -> Documents:
    """A season of five races, of which one may be damaged."""
    documents = season_documents()
    documents[RACES]["series_1"] = [scheduled(race, 2 * race) for race in range(1, 6)]
    for race in (2, 4, 5):
        documents[f"2021/1/{race}/weekend-feed.json"] = weekend(race)
        documents[f"2021/1/{race}/lap-times.json"] = lap_times()
    return documents


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Return the results of `longer_season`."""
    return load(tmp_path_factory.mktemp("undamaged"), longer_season()).race_results


@pytest.mark.parametrize(
    ("damage", "entity", "message"),
    [
        (truncate(WEEKEND), "race", "1/1/weekend-feed.json is not valid JSON"),
        (lambda documents: documents.pop(WEEKEND), "race", "1/1/weekend-feed.json does not exist"),
        (drop_key(WEEKEND, "weekend_race", 0), "race", "it has run, but .* has no results"),
        (put(WEEKEND, None, "weekend_race"), "race", "it has run, but .* has no results"),
        (put(WEEKEND, [], "weekend_race", 0, "results"), "race", "it has run, but .* has no results"),
        (
            lambda documents: first_race(documents).update(results=first_race(documents)["results"][:1]),
            "race",
            "it must have two cars; 1 started",
        ),
        (put(WEEKEND, 77, "weekend_race", 0, "race_id"), "race", "must be of race 1; it is of 77"),
        (change_result(2, finishing_position=1), "race", "must be 1 to 3; missing: 2; taken twice: 1"),
        (change_result(3, finishing_position=9), "race", "must be 1 to 3; missing: 3; taken twice: none"),
        (change_result(2, finishing_position=None), "value", "its finish is missing; it is the only free"),
        (change_result(2, driver_id=1001), "value", "its driver id is another car's too"),
        (change_result(2, car_number="01"), "value", "its car number is another car's too"),
        (change_result(2, starting_position=1), "value", "its grid position is missing or another car's"),
        (change_result(2, starting_position=0), "value", "it gets the free one, 2"),
        (change_result(2, finishing_status=None), "value", "its status is missing"),
        (change_result(2, laps_completed=-1), "value", "its laps are those of the next car"),
        (change_result(2, driver_id=None, driver_fullname=None), "value", "neither driver id nor name"),
        (change_result(2, laps_led="many"), "value", "laps_led: .*valid integer"),
        (put(WEEKEND, 0, "weekend_race", 0, "actual_laps"), "value", "those of the car with the most"),
        (lambda d: first_race(d)["results"].append("no row"), "entry", "Input should be a valid dict"),
        (
            lambda documents: documents[RACES]["series_1"].append(scheduled(1, 2, average_speed=0)),
            "race",
            "the list has it twice",
        ),
        (put(RACES, "../../etc", "series_1", 0, "race_id"), "race", "race_id: .*valid integer"),
        (
            lambda documents: documents[RACES]["series_1"].append(scheduled(9, 2, race_season=2018)),
            "race",
            "it is in the list of season 2021",
        ),
        (put(RACES, None, "series_1", 0, "race_type_id"), "value", "by its name it is a points race"),
        (truncate(LAP_TIMES), "laps", "1/1/lap-times.json is not valid JSON"),
        (put(LAP_TIMES, float("nan"), "laps", 0, "Laps", 2, "LapTime"), "laps", "NaN is not a JSON number"),
        (put(LAP_TIMES, None, "laps", 0, "Laps"), "laps", "its laps are missing"),
        (put(LAP_TIMES, [], "laps"), "laps", "its document has no laps"),
        (put(LAP_TIMES, None, "laps", 0, "Laps", 2, "Lap"), "laps", "1 of its laps have no number"),
        (put(LAP_TIMES, 1, "laps", 0, "Laps", 2, "Lap"), "laps", "1 of its laps stand twice"),
        (put(LAP_TIMES, 0, "laps", 0, "Laps", 2, "RunningPos"), "laps", "1 of its laps have no position"),
        (put(LAP_TIMES, -4, "laps", 0, "Laps", 2, "LapTime"), "laps", "1 of its laps have a negative time"),
        (lambda documents: documents.update({LAP_TIMES: "[" * 200_000}), "laps", "not valid JSON"),
    ],
)
def test_a_defect_is_named_and_costs_its_race_at_most(
    tmp_path: Path,
    undamaged: pl.DataFrame,
    damage: Callable[[Documents], None],
    entity: str,
    message: str,
) -> None:
    documents = longer_season()
    damage(documents)
    data = load(tmp_path, documents)
    others = pl.col("race_id") > 2
    assert_frame_equal(data.race_results.filter(others), undamaged.filter(others))
    named = data.quarantine.filter(pl.col("entity") == entity, pl.col("rule").str.contains(message))
    assert named.height == 1, data.quarantine
    assert data.race_results["race_id"].n_unique() >= 4


def rename_in_results(old: str, new: str) -> Callable[[Documents], None]:
    def change(documents: Documents) -> None:
        for row in first_race(documents)["results"]:
            row[new] = row.pop(old)

    return change


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (
            "race_id: Field required (renamed? the feed has …)",
            lambda documents: documents[RACES]["series_1"].append({"raceid": 9}),
        ),
        ("every car: its laps led are not known", rename_in_results("laps_led", "led")),
        ("its grid is not known; …", rename_in_results("starting_position", "start")),
        ("no car has a number of laps", rename_in_results("laps_completed", "laps")),
        ("it has run, but … has no results", rename_in_results("finishing_position", "finish")),
        (
            "laps_led: Input should be a valid integer, …, got 'many' (str)",
            change_result(2, laps_led="many"),
        ),
        (
            "its finishes must be 1 to …; missing: …; taken twice: …",
            change_result(2, finishing_position=1),
        ),
        ("its driver id is another car's too", change_result(2, driver_id=1001)),
    ],
)
def test_documented_messages_are_those_of_the_reader(
    tmp_path: Path, message: str, damage: Callable[[Documents], None]
) -> None:
    assert f"`{message}`" in (ROOT / "docs" / "feed.md").read_text(encoding="utf-8")
    documents = longer_season()
    damage(documents)
    lines = defect_lines(load(tmp_path, documents).quarantine)
    pattern = ".+".join(map(re.escape, message.split("…")))
    assert any(re.search(pattern, line) for line in lines), lines


def test_a_season_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Season 1999 is not in the feed: .*1999/race_list_basic.json"):
        load(tmp_path, season_documents(), season=1999)


def test_a_base_that_does_not_exist_or_is_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    for base, message in (
        ("", "must not be empty"),
        (str(tmp_path / "nowhere"), "nowhere does not exist"),
        (str(tmp_path / "nothing.zip"), "nothing.zip does not exist"),
        (str(tmp_path / "broken.zip"), "BadZipFile"),
        ("gopher://feed", "cannot be read: ValueError Protocol not known"),
    ):
        with pytest.raises(SourceError, match=message):
            NascarFeedSource(base, TRACKS).load_season(2021)


def test_documents_are_limited_in_size(tmp_path: Path) -> None:
    folder = str(write(tmp_path, season_documents()))
    source = NascarFeedSource(folder, TRACKS, limits=WebLimits(max_bytes=100))
    with pytest.raises(SourceError, match=r"too large: the limit is 100 bytes"):
        source.load_season(2021)


def test_next_race_is_the_first_with_an_entry_list(tmp_path: Path) -> None:
    documents = season_documents()
    source = NascarFeedSource(str(write(tmp_path, documents)), TRACKS)
    assert source.next_race(2021) is None
    waiting = {"race_season": 2022, "average_speed": 0}
    dirt = {"track_id": 216, "track_name": "Bristol Motor Speedway Dirt"}
    races = [
        scheduled(21, 1, **waiting, **dirt),
        scheduled(22, 8, **waiting),
        scheduled(23, 15, **waiting),
    ]
    entries = [result(0, car_number=str(n), driver_id=n, starting_position=0) for n in (5, 6)]
    entries += [result(0, car_number="90", driver_id=None, driver_fullname=None)]
    documents = {"2022/race_list_basic.json": {"series_1": races}}
    documents["2022/1/22/weekend-feed.json"] = weekend(22, results=entries)
    write(tmp_path, documents)
    found = source.next_race(2021)
    assert isinstance(found, AnnouncedRace)
    EntryList.validate(found.entries)
    assert found.entries.select("race_order", "driver_id", "start_position").rows() == [
        (202202, "5", None),
        (202202, "6", None),
    ]
    assert [defect.partition(":")[0] for defect in found.defects] == [
        "No forecast of 2022 race 21 (Race 21, Bristol Motor Speedway Dirt)"
    ]


def test_a_damaged_entry_list_is_named_and_the_race_behind_it_forecast(tmp_path: Path) -> None:
    waiting = {"race_season": 2022, "average_speed": 0}
    entries = [result(0, car_number=str(n), driver_id=n, starting_position=0) for n in (5, 6)]
    documents = {
        "2022/race_list_basic.json": {"series_1": [scheduled(21, 1, **waiting), scheduled(22, 8, **waiting)]},
        "2022/1/21/weekend-feed.json": "<html>",
    }
    source = NascarFeedSource(str(write(tmp_path, documents)), TRACKS)
    reason = source.next_race(2021)
    assert isinstance(reason, NoNextRace)
    assert reason.why.startswith("No forecast of 2022 race 21 (Race 21, Kansas Speedway): ")
    assert "weekend-feed.json" in reason.why
    write(tmp_path, {"2022/1/22/weekend-feed.json": weekend(22, results=entries)})
    found = source.next_race(2021)
    assert isinstance(found, AnnouncedRace)
    assert found.entries["race_id"].unique().to_list() == [22]
    assert found.defects == (reason.before,)


def test_entries_that_did_not_qualify_are_left_out_of_the_next_race_and_named(tmp_path: Path) -> None:
    coming = scheduled(22, 8, race_season=2022, average_speed=0)
    entries = [result(0, car_number=str(n), driver_id=n, starting_position=n % 4) for n in (1, 2, 3, 4)]
    documents = {
        "2022/race_list_basic.json": {"series_1": [coming]},
        "2022/1/22/weekend-feed.json": weekend(22, results=entries),
    }
    found = NascarFeedSource(str(write(tmp_path, documents)), TRACKS).next_race(2021)
    assert isinstance(found, AnnouncedRace)
    assert found.entries["driver_id"].to_list() == ["1", "2", "3"]
    assert found.defects == ("Driver 0: it has no grid position, most entries have one (entry left out).",)


def test_nicknames_of_the_user_reach_drivers_without_an_id(tmp_path: Path) -> None:
    documents = season_documents()
    for race, name in ((1, "Rowdy Busch"), (3, "Kyle Busch")):
        rows = documents[f"2021/1/{race}/weekend-feed.json"]["weekend_race"][0]["results"]
        rows[0].update(driver_id=None, driver_fullname=name)
    nicknames = Nicknames({}, {"rowdy-busch": "kyle-busch"})
    source = NascarFeedSource(str(write(tmp_path, documents)), TRACKS, nicknames=nicknames)
    winners = source.load_season(2021).race_results.filter(finish_position=1)
    assert winners["driver_id"].to_list() == ["name:kyle-busch", "name:kyle-busch"]


def test_a_next_race_at_an_unknown_track_is_named_with_what_to_do(tmp_path: Path) -> None:
    moon = scheduled(21, 1, race_season=2022, average_speed=0, track_id=999, track_name="Moon Oval")
    source = NascarFeedSource(
        str(write(tmp_path, {"2022/race_list_basic.json": {"series_1": [moon]}})), TRACKS
    )
    reason = source.next_race(2021)
    assert isinstance(reason, NoNextRace)
    assert reason.why.startswith("No forecast of 2022 race 21 (")
    assert "'Moon Oval'" in reason.why
    assert "--tracks tracks.toml" in reason.why


@pytest.mark.parametrize(("series", "number"), [("xfinity", 2), ("truck", 3)])
def test_races_of_a_series_are_read_from_its_own_list_and_folder(
    tmp_path: Path, series: Series, number: int
) -> None:
    documents = season_documents()
    expected = load(tmp_path / "cup", documents)
    races = documents.pop("2021/race_list_basic.json")["series_1"]
    moved = {path.replace("2021/1/", f"2021/{number}/"): value for path, value in documents.items()}
    moved["2021/race_list_basic.json"] = {"series_1": [], f"series_{number}": races}
    source = NascarFeedSource(str(write(tmp_path / series, moved)), TRACKS, series=series)
    data = source.load_season(2021)
    assert_frame_equal(data.race_results, expected.race_results)
    assert_frame_equal(data.lap_telemetry, expected.lap_telemetry)
    del moved["2021/race_list_basic.json"][f"series_{number}"]
    write(tmp_path / series, moved)
    with pytest.raises(SourceError, match=f"must have a list series_{number}; it has series_1"):
        source.finished_races(2021)


class FlakyHandler(SimpleHTTPRequestHandler):
    """Serves a folder, records the requests, and fails them with the statuses in `failures`."""

    asked: list[str] = []
    failures: list[int] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.failures:
            self.send_error(self.failures.pop())
        else:
            super().do_GET()

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    write(tmp_path / "served", season_documents())
    FlakyHandler.asked, FlakyHandler.failures = [], []
    handler = partial(FlakyHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


@pytest.mark.server
def test_final_documents_are_requested_once(tmp_path: Path, server: str) -> None:
    source = NascarFeedSource(server, TRACKS, tmp_path / "cache", QUICK)
    first = source.load_season(2021)
    FlakyHandler.asked.clear()
    second = source.load_season(2021)
    assert_frame_equal(first.lap_telemetry, second.lap_telemetry)
    assert first.counts == second.counts
    assert set(FlakyHandler.asked) == {
        "/2021/race_list_basic.json",
        "/2021/1/3/weekend-feed.json",
        "/2021/1/3/lap-times.json",
    }
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.server
def test_passing_failures_are_tried_again_and_lasting_ones_are_named(server: str) -> None:
    source = NascarFeedSource(server, TRACKS, limits=QUICK)
    FlakyHandler.failures = [503, 500]
    assert source.load_season(2021).counts["races"] == 2
    FlakyHandler.failures = [503] * 3
    with pytest.raises(SourceError, match=r"http://127.*race_list_basic.json cannot be read: .*503"):
        source.load_season(2021)
    FlakyHandler.failures = [403]
    with pytest.raises(SourceError, match=r"Season 2021 is not in the feed"):
        source.load_season(2021)
    with pytest.raises(SourceError, match=r"Season 1999 is not in the feed"):
        source.load_season(1999)


@pytest.mark.server
def test_a_failure_never_passes_for_laps_that_do_not_exist(server: str) -> None:
    source = NascarFeedSource(server, TRACKS, limits=QUICK)
    path = "2021/1/1/lap-times.json"
    FlakyHandler.failures = [503] * 3
    with pytest.raises(SourceError, match="503") as refusal:
        source._reader.read_json(path)
    assert not isinstance(refusal.value, MissingDocumentError)


@pytest.mark.server
def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceError, match=r"http://127.0.0.1:9/2021/race_list_basic.json cannot be read"):
        NascarFeedSource("http://127.0.0.1:9", TRACKS, limits=QUICK).load_season(2021)


def count_directly(season: int) -> dict[str, int]:
    """Count what a season of the real feed holds with nothing but the standard library."""
    counts = dict.fromkeys(
        ("races", "cars", "non_starters", "laps", "laps_without_time", "cars_with_lap_gaps", "laps_in_gaps"),
        0,
    )
    with zipfile.ZipFile(REAL_FEED) as archive:
        races = json.loads(archive.read(f"{season}/race_list_basic.json"))["series_1"]
        for race in races:
            if race["race_type_id"] != 1 or "Dirt" in race["track_name"]:
                continue
            folder = f"{season}/1/{race['race_id']}"
            document = json.loads(archive.read(f"{folder}/weekend-feed.json"))["weekend_race"][0]
            rows = {json.dumps(row): row for row in document["results"]}.values()
            starters = [row for row in rows if row["finishing_position"] > 0]
            counts["races"] += 1
            counts["cars"] += len(starters)
            counts["non_starters"] += len(rows) - len(starters)
            ids = {row["driver_id"] for row in starters}
            for car in json.loads(archive.read(f"{folder}/lap-times.json"))["laps"]:
                if car["NASCARDriverID"] not in ids:
                    continue
                numbers = [lap["Lap"] for lap in car["Laps"]]
                missing = sum(b - a - 1 for a, b in pairwise(sorted(numbers)))
                counts["laps"] += len(numbers)
                counts["laps_in_gaps"] += missing
                counts["cars_with_lap_gaps"] += missing > 0
                counts["laps_without_time"] += sum(not lap["LapTime"] for lap in car["Laps"] if lap["Lap"])
    return counts


@pytest.mark.real
@needs_real_feed
@pytest.mark.parametrize(("season", "n_races", "n_left_out"), [(2020, 36, 0), (2021, 35, 1)])
def test_counts_of_real_seasons_are_those_of_the_files(season: int, n_races: int, n_left_out: int) -> None:
    data = NascarFeedSource(f"zip://::{REAL_FEED}", TRACKS).load_season(season)
    direct = count_directly(season)
    assert {name: data.counts[name] for name in direct} == direct
    assert (data.counts["races"], data.counts["races_left_out"]) == (n_races, n_left_out)
    assert data.race_results["race_id"].n_unique() == n_races
    assert data.race_results.height == direct["cars"]
    assert data.lap_telemetry.height == direct["laps"]
    RaceResults.validate(data.race_results)
    LapTelemetry.validate(data.lap_telemetry)


@pytest.mark.real
@needs_real_feed
def test_real_feed_and_results_table_have_the_same_races() -> None:
    source = NascarFeedSource(str(REAL_FEED), TRACKS)
    seasons = [source.load_season(season) for season in (2020, 2021)]
    feed = pl.concat([data.race_results for data in seasons])
    table = pl.read_parquet(REAL_RESULTS).select(
        season=pl.col("Season").cast(pl.Int64),
        round=pl.col("Race").cast(pl.Int64),
        finish_position=pl.col("Finish").cast(pl.Int64),
        start=pl.col("Start").cast(pl.Int64),
        laps=pl.col("Laps").cast(pl.Int64),
        status_of_table="Status",
    )
    both = feed.join(table, on=["season", "round", "finish_position"], how="left")
    assert both["laps"].null_count() == 0
    assert (both["laps"] == both["laps_completed"]).mean() > 0.99
    assert (both["start"] == both["start_position"]).mean() > 0.99
    assert ((both["status_of_table"] == "running") == both["running"]).mean() > 0.99


@pytest.mark.real
@needs_real_feed
def test_fastest_laps_of_real_races_add_up_to_the_timed_green_laps() -> None:
    data = NascarFeedSource(str(REAL_FEED), TRACKS).load_season(2021)
    races = data.race_results.group_by("race_id").agg(pl.first("green_laps"), pl.sum("fastest_laps"))
    untimed = (races["green_laps"] - races["fastest_laps"]).sum()
    assert untimed == data.counts["green_laps_untimed"] == 1


def test_finished_races_are_those_that_load_season_reads(tmp_path: Path) -> None:
    documents = season_documents()
    races = documents["2021/race_list_basic.json"]["series_1"]
    races.append(scheduled(8, 29, track_id=999, track_name="Nowhere Speedway"))
    races.append(scheduled(9, 30, average_speed=0.0))
    write(tmp_path, documents)
    source = NascarFeedSource(str(tmp_path), TRACKS)
    read = load(tmp_path, documents).race_results["race_id"].unique(maintain_order=True).to_list()
    assert list(source.finished_races(2021)) == read
    assert source.finished_races(2021)[1] == "2021 race 1 (Race 1, Kansas Speedway)"
    assert source.finished_races(2022) == {}
