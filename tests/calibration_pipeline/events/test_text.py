"""Events as text: the parser, the user's file, and the command line."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.cli import main
from assets.settings import SettingsError, load_settings
from calibration_pipeline.calibration.archetype_races import join_archetype_races
from calibration_pipeline.calibration.race_curves import tabulate_races
from calibration_pipeline.events.files import DEFAULT_EVENTS, judged_events, read_events
from calibration_pipeline.events.language import (
    Event,
    at_least,
    both_teammates,
    count,
    dnf,
    favourites,
    led,
    running,
    same_make,
    top,
)
from calibration_pipeline.events.text import LANGUAGE, LONGEST_TEXT, parse_event, parse_events
from calibration_pipeline.io.stored_values import encode
from calibration_pipeline.scenarios.fit.by_fold import fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.schemas.frames import LapAggregates
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.telemetry.features import build_driver_features, entry_list
from calibration_pipeline.tracks import compile_constraints
from helpers.paths import ROOT

NUMBERS = st.integers(1, 40)


def combined(events: st.SearchStrategy[Event]) -> st.SearchStrategy[Event]:
    pairs = st.tuples(events, events)
    return st.one_of(
        events.map(lambda a: ~a), pairs.map(lambda ab: ab[0] & ab[1]), pairs.map(lambda ab: ab[0] | ab[1])
    )


CAR_EVENTS = st.recursive(
    st.one_of(st.sampled_from([running, dnf]), NUMBERS.map(top), NUMBERS.map(led)), combined, max_leaves=6
)
RACE_EVENTS = st.recursive(
    st.one_of(
        st.builds(lambda a, k: count(a) >= k, CAR_EVENTS, NUMBERS),
        st.builds(lambda k, m, a: at_least(k, favourites(k + m), a), NUMBERS, NUMBERS, CAR_EVENTS),
        CAR_EVENTS.map(same_make),
    ),
    combined,
    max_leaves=4,
)
PAIR_EVENTS = st.recursive(CAR_EVENTS.map(both_teammates), combined, max_leaves=4)


@given(st.one_of(CAR_EVENTS, RACE_EVENTS, PAIR_EVENTS).filter(lambda event: len(str(event)) <= LONGEST_TEXT))
def test_written_events_are_parsed(event: Event) -> None:
    read = parse_event(str(event))
    assert read == event
    assert (read.cases, read.needs) == (event.cases, event.needs)


NAMES = ["top", "led", "count", "at_least", "favourites", "running", "dnf", "same_make", "and", "lambda"]
WORDS = st.one_of(st.sampled_from(NAMES), st.sampled_from("(),&|~>=-*.5"), st.just(">="))


@settings(max_examples=400)
@given(st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_is_an_event_or_is_refused(text: str) -> None:
    refusal = ""
    try:
        event = parse_event(text)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert re.fullmatch(r"Event .*, character \d+: .*", refusal, flags=re.DOTALL)
    else:
        assert parse_event(str(event)) == event


@pytest.mark.parametrize("text", ["~" * 400 + "dnf", "(" * 240 + "dnf" + ")" * 240, "same_make(" * 49])
def test_deep_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested more than 30 deep|no expression"):
        parse_event(text)


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("  top( 5 )&running ", top(5) & running),
        ("top(5)\n & running", top(5) & running),
        ("~top(5) & led(1) | dnf", (~top(5) & led(1)) | dnf),
        ("dnf | top(5) & led(1)", dnf | (top(5) & led(1))),
        ("(count(dnf)>=8) & same_make(top(3))", (count(dnf) >= 8) & same_make(top(3))),
        ("~(count(dnf) >= 8)", ~(count(dnf) >= 8)),
        *((str(event), event) for event in DEFAULT_EVENTS),
    ],
)
def test_spaces_and_precedence(text: str, event: Event) -> None:
    assert parse_event(text) == event


@pytest.mark.parametrize(("form", "example", "meaning"), LANGUAGE)
def test_every_form_has_an_example_that_is_read(form: str, example: str, meaning: str) -> None:
    assert str(parse_event(example)) == example
    assert meaning
    assert form in ROOT.joinpath("docs", "events.md").read_text().replace("\\|", "|")


KNOWN = "Known are at_least, both_teammates, count, dnf, favourites, led, running, same_make, top."


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("tpo(5)", 1, f"'tpo' is not known, did you mean 'top'? {KNOWN}"),
        ("top(5) & runing", 10, f"'runing' is not known, did you mean 'running'? {KNOWN}"),
        ("  fastest(1)", 3, f"'fastest' is not known. {KNOWN}"),
        ("both_teammates(top(0))", 16, "Argument positions must be at least 1, got 0."),
        ("at_least(4, favourites(3), dnf)", 1, "Argument number must lie in 1..3 (of favourites(3)), got 4."),
        ("at_least(2, dnf, favourites(3))", 13, "at_least takes favourites(m) here, got an event: "),
        (
            "at_least(2, favourites(3))",
            1,
            "at_least takes 3 arguments, got 2: at_least(k, favourites(m), a).",
        ),
        ("top", 1, "top takes arguments: top(k)."),
        ("running(5)", 1, "running takes no arguments."),
        ("top(places=5)", 1, "arguments have no names."),
        ("top(-5)", 5, "numbers are whole, from 1."),
        ("top(1.5)", 5, "numbers are whole, from 1."),
        ("top(True)", 5, "numbers are whole, from 1."),
        ("top(5) and running", 1, "'and', 'or' and 'not' are written &, | and ~."),
        ("not dnf", 1, "'and', 'or' and 'not' are written &, | and ~."),
        ("count(dnf)", 1, "a count is compared, as in count(dnf) >= 8."),
        ("count(dnf) > 7", 1, "counts are compared by >= alone, once, as in count(dnf) >= 8."),
        ("count(dnf) >= 0", 15, "a count is compared with a whole number from 1"),
        (
            "count(dnf) >= 8 & same_make(dnf)",
            15,
            "a count is compared with a whole number from 1, in parenth",
        ),
        ("top(5) >= 3", 1, "only a count is compared"),
        ("count(both_teammates(dnf)) >= 2", 1, "Argument event must be about cars"),
        ("top(5) & (count(dnf) >= 8)", 1, "Events combine only over the same cases"),
        ("favourites(3)", 1, "favourites(m) stands in at_least"),
        ("5", 1, "a number is no event."),
        ("top(5) ≥ 3", 8, "the character '≥' is not known."),
        ("__import__('os')", 12, 'the character "\'" is not known.'),
        ("top(5", 4, "this is no expression."),
        ("", 1, "this is no expression."),
        ("top(5) + dnf", 1, "this is no part of an event. Signs are & | ~ ( ) and >= after a count"),
    ],
)
def test_unknown_words_are_named_with_their_position(text: str, position: int, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Event {text!r}, character {position}: {reason}")):
        parse_event(text)


def test_long_text_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 500 characters, got 501"):
        parse_event("dnf".ljust(501))


# --- the user's file ---

EVENTS = '[events]\n"podium sweep" = "same_make(top(3))"\n"big one" = "count(dnf)>=12"\n'


def test_named_events_are_judged_beside_the_default_ones(project: Path) -> None:
    path = project / "events.toml"
    path.write_text(EVENTS)
    events = load_settings({"events": str(path)}).events
    assert events == str(path)
    assert read_events(events) == {"podium sweep": same_make(top(3)), "big one": count(dnf) >= 12}
    assert judged_events(events) == (*DEFAULT_EVENTS, count(dnf) >= 12)
    assert judged_events(None) == DEFAULT_EVENTS
    path.write_text("[events]\n")
    assert judged_events(events) == DEFAULT_EVENTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[events]\n"x" = "tpo(5)"', "'x': Event 'tpo(5)', character 1: 'tpo' is not known"),
        ('[events]\n"x" = 5', "'x' must be an expression in quotes, got 5"),
        ('[event]\n"x" = "dnf"', "it must hold one table [events] and nothing else, got 'event'"),
        ('[events]\n[other]\n"x" = "dnf"', "and nothing else, got 'events', 'other'"),
        ('events = "dnf"', "it must hold one table [events]"),
        ("", "got nothing"),
        ("[events", "it is no TOML: "),
        ("a = " + 5000 * "[", "it is nested too deep"),
        (
            '[events]\n"x" = "top(1000001)"',
            "'x': Event 'top(1000001)', character 5: numbers are at most 1,000,000",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "events", "settings"])
def test_a_wrong_file_is_refused_before_anything_runs(
    project: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_events(text)
    path = project / "events.toml"
    path.write_text(text)
    assert main([command, "--events", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("CALIBRATION_EVENTS", "from option", str(path), message):
        assert part in error


def test_a_file_that_is_not_there_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(
        SettingsError, match=r"got 'none.toml' \(it cannot be read: No such file or directory\)"
    ):
        load_settings({"events": "none.toml"})


def test_a_file_of_megabytes_or_of_no_text_is_refused(project: Path) -> None:
    path = project / "events.toml"
    for content, problem in (
        (b"#" * 1_000_001, "at most 1,000,000 bytes"),
        (b"\xe1", "it cannot be read: 'utf-8' codec"),
    ):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=problem):
            load_settings({"events": str(path)})


# --- the command line ---


def test_the_language_and_the_events_are_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "events.toml"
    path.write_text(EVENTS)
    assert main(["events", "--events", str(path)]) == 0
    out = capsys.readouterr().out
    for text in (
        *(form for form, _, _ in LANGUAGE),
        *map(str, DEFAULT_EVENTS),
        "big one",
        "count(dnf) >= 12",
    ):
        assert text in out
    assert main(["events"]) == 0
    assert "none, --events names their file" in capsys.readouterr().out


def test_an_event_that_is_none_and_a_store_without_scenarios(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["events", "tpo(5)"]) == 2
    assert "did you mean 'top'" in capsys.readouterr().err
    assert main(["events", "top(5)"]) == 1
    error = capsys.readouterr().err
    assert str(project / "data" / "store" / "simulated" / "cup") in error
    assert "calibration-pipeline run" in error


@pytest.fixture(scope="module")
def seasons() -> tuple[pl.DataFrame, xr.Dataset]:
    """Results of some races of two seasons, and scenarios of them in which the order is drawn by lot."""
    source = SimulatedSource([2022, 2023], compile_constraints())
    results = pl.concat([source.load_season(season).race_results for season in (2022, 2023)])
    results = results.filter(pl.col("round") < 12, archetype="intermediate").sort("race_id", "start_position")
    races = results.unique("race_id", maintain_order=True)
    sizes = results.group_by("race_id", maintain_order=True).len()["len"].to_numpy()
    width, rng = sizes.max(), np.random.default_rng(1)
    place = np.zeros((races.height, 50, width), np.int16)
    cars = {
        name: np.full((races.height, width), "", "<U40") for name in ("driver_id", "team", "make", "name")
    }
    start = np.zeros((races.height, width), np.int16)
    for r, (race, n) in enumerate(zip(races["race_id"], sizes, strict=True)):
        of_race = results.filter(race_id=race)
        place[r, :, :n] = rng.permuted(np.tile(np.arange(1, n + 1), (50, 1)), axis=1)
        start[r, :n] = of_race["start_position"]
        for name, column in {
            "driver_id": "driver_id",
            "name": "driver",
            "team": "team",
            "make": "make",
        }.items():
            cars[name][r, :n] = of_race[column].to_list()
    car = ("race", "driver")
    per_race = {name: races[name].to_numpy().astype(np.int32) for name in ("season", "round", "race_order")}
    text = {"track_id": races["track_id"].to_list(), "archetype": ["intermediate"] * races.height}
    ensemble = xr.Dataset(
        {
            "finish_position": (("race", "scenario", "driver"), place),
            "running": (("race", "scenario", "driver"), place > 0),
            "utility": (car, np.zeros(start.shape, np.float32)),
            "incident_logit": (car, np.zeros(start.shape, np.float32)),
            "chaos_scale": ("race", np.zeros(races.height, np.float32)),
        },
        {
            "race": races["race_id"].to_numpy(),
            **{name: ("race", values) for name, values in (per_race | text).items()},
            "fold": ("race", ["2023-1"] * races.height),
            "field_size": ("race", sizes.astype(np.int16)),
            "network_as_of": ("race", np.zeros(races.height, np.int32)),
            **{name: (car, values) for name, values in cars.items()},
            "start_position": (car, start),
        },
    )
    return results, ensemble


@pytest.fixture(scope="module")
def joined(seasons: tuple[pl.DataFrame, xr.Dataset]) -> Callable[..., xr.DataTree]:
    """Return a function that joins scenarios of some seasons, which no network drew, with results."""
    results, ensemble = seasons
    features = build_driver_features(entry_list(results), results, LapAggregates.empty())
    no_networks = fit_networks(fold_history(features.clear(), results, 2022, None), None, seed=1)

    def join(years: list[int], race_results: pl.DataFrame, n_curves: int | None = None) -> xr.DataTree:
        parts = [ensemble.isel(race=ensemble["season"].values == year) for year in years]
        curves = [tabulate_races(part, results, seed=1) for part in parts]
        return join_archetype_races(
            parts, race_results, features, [no_networks], curves[:n_curves], "intermediate", years
        )

    return join


def store(project: Path, asset: str, value: xr.Dataset | xr.DataTree) -> Path:
    """Store an asset's partition of intermediate tracks, and return its path."""
    path = project / "data" / "store" / "simulated" / "cup" / asset / "intermediate" / "network.nc"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(value))
    return path


@pytest.mark.slow
def test_an_event_is_judged_on_stored_values(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    seasons: tuple[pl.DataFrame, xr.Dataset],
    joined: Callable[..., xr.DataTree],
) -> None:
    results, ensemble = seasons
    store(project, "archetype_races", joined([2022, 2023], results))
    store(project, "recalibrated_forecast", ensemble)

    assert main(["events", "top(10)"]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "Intermediate" in line]
    of_season = ensemble.isel(race=ensemble["season"].values == 2023)
    size = of_season["field_size"].values
    assert row[1:4] == [f"{10 * size.size / size.sum():.3f}"] * 3
    assert row[-2:] == [str(size.sum()), str(size.size)]

    assert main(["events", "led(1)"]) == 0
    assert "Intermediate: not judged, laps_led is absent from the ensemble." in capsys.readouterr().out

    # A run of later seasons alone: its first season is not scored.
    store(project, "archetype_races", joined([2023], results))
    stored = store(project, "recalibrated_forecast", of_season)
    assert main(["events", "top(10)"]) == 0
    assert "Intermediate: not judged, there are no races." in capsys.readouterr().out

    stored.write_bytes(stored.read_bytes()[:100])
    assert main(["events", "top(10)"]) == 1
    assert "recalibrated_forecast [intermediate|network] cannot be read" in capsys.readouterr().err


def test_a_forecast_is_joined_with_the_results_of_all_its_cars(
    seasons: tuple[pl.DataFrame, xr.Dataset], joined: Callable[..., xr.DataTree]
) -> None:
    with pytest.raises(ValueError, match="Race results must have every car of the ensembles"):
        joined([2022, 2023], seasons[0].filter(season=2022))


def test_curves_of_other_races_are_refused(
    seasons: tuple[pl.DataFrame, xr.Dataset], joined: Callable[..., xr.DataTree]
) -> None:
    with pytest.raises(ValueError, match="Argument curves must have the races of the ensembles, got 2 and 4"):
        joined([2022, 2023], seasons[0], n_curves=1)
