"""Settings: their sources, their order of precedence, and messages for wrong values."""

import datetime
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.settings import Settings, SettingsError, load_settings, origins
from benchmarks.settings_page import settings_page
from calibration_pipeline.analysis.provenance import setting_values
from calibration_pipeline.scenarios.network.structure import VARIANTS
from calibration_pipeline.seasons import Seasons, parse_seasons, span
from calibration_pipeline.tracks import SERIES
from helpers.paths import ROOT


def test_defaults_need_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE", "EXECUTOR"):
        monkeypatch.delenv(f"CALIBRATION_{name}")
    settings = load_settings()
    assert settings.source == "simulated"
    assert (settings.scenarios, settings.seed, settings.fold_races) == (2000, 42, None)
    assert settings.season_list == [2022, 2023, 2024, 2025]
    assert settings.era_starts == (2022,)
    assert str(settings.store_path) == str(project / "data" / "store" / "simulated" / "cup")
    assert set(origins().values()) == {"default"}


def test_options_win_over_environment_over_file_over_defaults(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CALIBRATION_STORE")
    (project / ".env").write_text(
        "CALIBRATION_SEED=1\nCALIBRATION_SCENARIOS=300\nCALIBRATION_SOURCE=nascar_feed\n"
    )
    monkeypatch.setenv("CALIBRATION_SCENARIOS", "400")
    monkeypatch.setenv("CALIBRATION_SOURCE", "nascar_feed")
    options = {"source": "simulated", "store": None}
    settings = load_settings(options)
    assert (settings.seed, settings.scenarios, settings.source) == (1, 400, "simulated")
    came_from = origins(options)
    assert came_from["seed"] == ".env"
    assert came_from["scenarios"] == "environment"
    assert came_from["source"] == "option"
    assert came_from["store"] == "default"


def test_variables_of_others_in_the_file_are_ignored(project: Path) -> None:
    (project / ".env").write_text(
        "CALIBRATION_POSTGRES_URL=postgresql+psycopg2://x\nOTHER=1\nCALIBRATION_SEED=5\n"
    )
    assert load_settings().seed == 5


def test_a_file_that_is_no_text_is_named(project: Path) -> None:
    (project / ".env").write_bytes(b"CALIBRATION_SEED=\xe1\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read: 'utf-8' codec"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("events", "abfs://x/a.toml", "it cannot be read: Install adlfs"),
        ("tracks", "/lost/tracks.toml", "it cannot be read: No such file"),
        ("tracks", "http://[", "it cannot be read: Invalid IPv6 URL"),
        ("events", "http://[", "it cannot be read: Invalid IPv6 URL"),
        ("events", "~nobody-here/a.toml", "home directory"),
        ("forecasters", "~nobody-here/mine", "home directory"),
        ("forecasters", "/lost/mine", "cannot be listed: No such file"),
        ("store", "~nobody-here/store", "home directory"),
    ],
)
def test_a_path_or_address_that_leads_nowhere_is_named(
    project: Path,  # noqa: ARG001
    name: str,
    value: str,
    problem: str,
) -> None:
    with pytest.raises(SettingsError, match=problem) as refusal:
        load_settings({name: value})
    assert f"CALIBRATION_{name.upper()} (from option)" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_sources_never_share_a_folder(project: Path) -> None:  # noqa: ARG001
    simulated, feed = load_settings(), load_settings({"source": "nascar_feed"})
    assert simulated.store_path != feed.store_path


def test_series_never_share_a_folder(project: Path) -> None:  # noqa: ARG001
    cup, truck = (load_settings({"source": "nascar_feed", "series": name}) for name in ("cup", "truck"))
    assert cup.key_prefix == ("nascar_feed", "cup")
    assert truck.key_prefix == ("nascar_feed", "truck")
    assert truck.store_path.parts[-2:] == ("nascar_feed", "truck")


def test_simulated_seasons_are_of_the_cup_alone(project: Path) -> None:  # noqa: ARG001
    with pytest.raises(
        SettingsError, match=r"CALIBRATION_SERIES \(from option\) .*cup, xfinity or truck"
    ) as refusal:
        load_settings({"series": "truck"})
    assert "got 'truck' (source is simulated: add --source nascar_feed" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tracks_of_a_file_are_checked_and_change_what_values_depend_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    track = '[[track]]\nname = "Moon"\narchetype = "{}"\nlength_miles = 1.5\nlaps = 200\n'
    (project / "tracks.toml").write_text(track.format("intermediate"))
    settings = load_settings({"tracks": "tracks.toml"})
    assert settings.tracks == str(project / "tracks.toml")
    before = setting_values(settings, settings.season_list)["tracks"]
    assert before != setting_values(load_settings(), settings.season_list)["tracks"]
    (project / "tracks.toml").write_text(track.format("short_track"))
    assert setting_values(settings, settings.season_list)["tracks"] != before
    (project / "tracks.toml").write_text(track.format("oval"))
    with pytest.raises(
        SettingsError, match=r"CALIBRATION_TRACKS .*track 1 \(Moon\): archetype must be .*'oval'"
    ):
        load_settings({"tracks": "tracks.toml"})


def test_object_store_is_an_address(project: Path) -> None:  # noqa: ARG001
    path = load_settings({"store": "memory://bucket/calibration"}).store_path
    assert path.protocol == "memory"
    assert path.parts[-2:] == ("simulated", "cup")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("series", "indycar", "cup, xfinity or truck"),
        ("source", "telepathy", "simulated, nascar_feed or tables"),
        ("forecasters", "", "a folder with forecasts of your own"),
        ("forecaster", "mine", "there are network"),
        ("margin", "proportional", "multiplicative, shin or power"),
        ("scenarios", "12", "100 to 100000"),
        ("scenarios", "many", "100 to 100000"),
        ("seed", "-1", "0 to"),
        ("fold_races", "0", "at least 1"),
        ("seasons", "2023-2020", "2023-2020 is no ascending range"),
        ("seasons", "next", "not years and ranges of years"),
        ("seasons", "2020-,2022", "not years and ranges of years"),
        ("seasons", "2020-9999", "up to this year"),
        ("eras", "2022-", "not years, separated by commas"),
        ("eras", "2022,2018", "not ascending"),
    ],
)
def test_wrong_value_gets_one_line_that_names_it(project: Path, name: str, value: str, allowed: str) -> None:  # noqa: ARG001
    with pytest.raises(SettingsError) as raised:
        load_settings({name: value})
    message = str(raised.value)
    assert "\n" not in message
    for part in (f"CALIBRATION_{name.upper()}", "from option", allowed, repr(value)):
        assert part in message


def test_tables_need_results_and_nothing_else_has_them(project: Path) -> None:  # noqa: ARG001
    for options, message in (
        (
            {"source": "tables"},
            r"CALIBRATION_RESULTS \(from default\).*source tables reads it: --results PATH",
        ),
        (
            {"results": "a.csv"},
            r"CALIBRATION_RESULTS \(from option\) is for source tables alone; .* simulated",
        ),
        (
            {"source": "nascar_feed", "laps": "a.csv"},
            r"CALIBRATION_LAPS \(from option\) is for source tables",
        ),
        (
            {"source": "nascar_feed", "columns": "a.toml"},
            r"CALIBRATION_COLUMNS \(from option\) is for source tables",
        ),
        ({"source": "tables", "laps": "a.csv"}, r"CALIBRATION_RESULTS"),
    ):
        with pytest.raises(SettingsError, match=message) as refusal:
            load_settings(options)
        assert "\n" not in str(refusal.value)


def test_another_source_overrides_the_tables_of_weaker_origins(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".env").write_text("CALIBRATION_SOURCE=tables\nCALIBRATION_RESULTS=a.csv\n")
    assert load_settings().source == "tables"
    assert load_settings({"source": "simulated"}).source == "simulated"
    monkeypatch.setenv("CALIBRATION_RESULTS", "b.csv")
    monkeypatch.setenv("CALIBRATION_SOURCE", "simulated")
    with pytest.raises(SettingsError, match=r"CALIBRATION_RESULTS \(from environment\) is for source tables"):
        load_settings()


def test_paths_are_made_absolute_and_addresses_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    settings = load_settings({"source": "tables", "results": "a.csv", "laps": "s3://bucket/laps.parquet"})
    assert (settings.results, settings.laps) == (str(project / "a.csv"), "s3://bucket/laps.parquet")
    feed = load_settings({"source": "nascar_feed", "feed_url": "feed.zip"})
    assert feed.feed_url == str(project / "feed.zip")
    assert load_settings({"source": "nascar_feed"}).feed_url.startswith("https://")
    (project / "mine").mkdir()
    assert load_settings({"forecasters": "mine"}).forecasters == str(project / "mine")


def test_the_only_forecaster_of_a_user_is_shown_first(project: Path) -> None:
    """Its own name, of whatever form, or the network's where there are several; a setting overrides."""
    folder = project / "mine"
    folder.mkdir()
    shown = []
    for name in ("odds.csv", "a.nc"):
        (folder / name).write_text("season,round,driver,win\n2022,1,Ann,0.1\n" if name == "odds.csv" else "")
        shown.append(load_settings({"forecasters": str(folder)}).shown_forecaster)
    assert shown == ["odds", "network"]
    for name in ("odds", "a"):
        settings = load_settings({"forecasters": str(folder), "forecaster": name})
        assert settings.shown_forecaster == name


def test_default_seasons_of_files_are_not_known_before_they_are_read(project: Path) -> None:  # noqa: ARG001
    assert load_settings({"source": "nascar_feed"}).seasons_in_force.years[0] == 2020
    for options in (
        {"source": "nascar_feed", "feed_url": "feed.zip"},
        {"source": "tables", "results": "a.csv"},
    ):
        with pytest.raises(SettingsError, match="not known before it is read"):
            _ = load_settings(options).seasons_in_force
        assert load_settings(options | {"seasons": "2021"}).season_list == [2021]


def test_open_seasons_reach_the_current_year(project: Path) -> None:  # noqa: ARG001
    settings = load_settings({"seasons": "2024-"})
    assert settings.seasons_in_force.is_open
    assert settings.season_list[-1] == datetime.date.today().year


@given(first=st.integers(1949, 2026), length=st.integers(1, 30))
def test_list_and_range_mean_the_same(first: int, length: int) -> None:
    last = min(first + length - 1, 2026)
    listed = ",".join(str(year) for year in range(first, last + 1))
    expected = Seasons(tuple(range(first, last + 1)), is_open=False)
    assert parse_seasons(listed, 2026) == parse_seasons(f"{first}-{last}", 2026) == expected


@given(st.sets(st.integers(1949, 2026), min_size=1))
def test_any_seasons_are_read_as_they_are_written(years: set[int]) -> None:
    listed = tuple(sorted(years))
    assert parse_seasons(span(listed), 2026) == Seasons(listed, is_open=False)


def test_every_series_of_the_catalogue_can_be_set() -> None:
    assert get_args(Settings.model_fields["series"].annotation) == SERIES


def test_spellings_of_a_file_are_checked(project: Path) -> None:
    path = project / "names.toml"
    path.write_text("[drivers]\n'Ann Other' = 1\n")
    expected = r"CALIBRATION_NICKNAMES .*\[drivers\] Ann Other: it must be a list of names; got 1"
    with pytest.raises(SettingsError, match=expected):
        load_settings({"nicknames": str(path)})
    path.write_text("[drivers]\n'Ann Other' = ['Anna Other']\n")
    mine = {"nicknames": str(path), "source": "tables", "results": "a.csv", "seasons": "2022"}
    known = [load_settings(options) for options in (mine, mine | {"nicknames": None})]
    values, plain = (setting_values(settings, settings.season_list) for settings in known)
    assert values["source"] != plain["source"]


def test_every_variant_of_the_network_can_be_set_and_no_other():
    assert get_args(Settings.model_fields["network"].annotation) == tuple(VARIANTS)
    with pytest.raises(SettingsError, match=r"CALIBRATION_NETWORK .*no_incidents.*got 'other'"):
        load_settings({"network": "other"})


def test_page_of_settings_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "write docs/settings.md: python -m benchmarks.settings_page"
