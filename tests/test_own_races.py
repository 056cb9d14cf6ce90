"""The version of one kind of track's races in a season: theirs alone, and all of theirs."""

from collections.abc import Callable
from hashlib import sha256

import dagster as dg
import numpy as np
import polars as pl
import pytest
import xarray as xr
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
)

from assets.definitions import build_defs
from assets.own_races import (
    VERSIONS,
    VERSIONS_BY_RACE,
    own_races,
    run_so_far,
    versions_by_archetype,
    versions_by_race,
)
from assets.settings import Settings
from assets.upkeep import PATH, Upkeep
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios.networks import fit_networks
from calibration_pipeline.schemas.frames import LapAggregates
from calibration_pipeline.sources.simulated import SimulatedSource
from calibration_pipeline.telemetry.features import build_driver_features, entry_list
from calibration_pipeline.tracks import compile_constraints

Value = pl.DataFrame | xr.Dataset
RACES = (("superspeedway", 1), ("short_track", 2), ("superspeedway", 3))
A_DRIVER = "a driver of race 2, car "


def frame(races: tuple[tuple[str, int], ...]) -> pl.DataFrame:
    """Return two cars a race, with texts too long to be stored in place."""
    cars = [(kind, race, f"a driver of race {race}, car {car}") for kind, race in races for car in (1, 2)]
    return pl.DataFrame(cars, schema=["archetype", "race_id", "driver"], orient="row")


def dataset(races: tuple[tuple[str, int], ...]) -> xr.Dataset:
    kinds, numbers = zip(*races, strict=True)
    finish = np.array([[number, number + 1] for number in numbers])
    return xr.Dataset(
        {"finish_position": (("race", "driver"), finish)},
        {"race": list(numbers), "archetype": ("race", np.array(kinds, object))},
    )


@pytest.mark.parametrize("make", [frame, dataset])
def test_a_race_changes_the_version_of_its_own_kind_alone(make: Callable[..., Value]) -> None:
    before = versions_by_archetype(make(RACES))
    assert before.keys() == set(ARCHETYPES)
    after = versions_by_archetype(make((("short_track", 0), *RACES, ("short_track", 4))))
    assert {kind for kind in before if before[kind] != after[kind]} == {"short_track"}
    gone = versions_by_archetype(make(RACES[:2]))
    assert {kind for kind in before if before[kind] != gone[kind]} == {"superspeedway"}


@pytest.mark.parametrize("make", [frame, dataset])
def test_own_races_are_those_of_the_kind(make: Callable[..., Value]) -> None:
    own = own_races(make(RACES), "superspeedway")
    assert versions_by_archetype(own)["superspeedway"] == versions_by_archetype(make(RACES))["superspeedway"]
    races = own["race_id"].unique() if isinstance(own, pl.DataFrame) else own["race"].values
    assert sorted(races) == [1, 3]


def test_values_and_attributes_count() -> None:
    before = versions_by_archetype(dataset(RACES))
    changed = dataset(RACES)
    changed["finish_position"][0, 0] = 9
    assert versions_by_archetype(changed)["superspeedway"] != before["superspeedway"]
    assert versions_by_archetype(changed)["short_track"] == before["short_track"]
    assert versions_by_archetype(dataset(RACES).assign_attrs(seed=2))["short_track"] != before["short_track"]


@pytest.mark.parametrize(
    "value",
    [
        pl.DataFrame({"race_id": [1]}),
        xr.Dataset({"a": ("race", [1])}),
        xr.Dataset({"a": ("race", [1, 2])}, {"archetype": list(ARCHETYPES)}),
        b"",
    ],
)
def test_what_knows_no_kinds_of_track_has_no_such_versions(value: object) -> None:
    assert versions_by_archetype(value) == {}


def ordered(*races: tuple[str, int]) -> pl.DataFrame:
    return frame(races).with_columns(race_order="race_id")


def test_what_was_run_so_far_ends_with_the_kind_s_last_race() -> None:
    results = ordered(*RACES, ("short_track", 4), ("intermediate", 5))
    assert run_so_far(results, "superspeedway")["race_id"].unique().sort().to_list() == [1, 2, 3]
    assert run_so_far(results, "road_course").is_empty()
    assert run_so_far(results, "road_course").columns == results.columns


def test_a_race_changes_the_versions_of_what_was_run_up_to_it_and_after() -> None:
    before = versions_by_race(ordered(*RACES))
    assert [(race, kind) for race, (kind, _) in before.items()] == [
        ("1", "superspeedway"),
        ("2", "short_track"),
        ("3", "superspeedway"),
    ]
    one_more = versions_by_race(ordered(*RACES, ("intermediate", 4)))
    assert {race: one for race, one in one_more.items() if race != "4"} == before
    changed = versions_by_race(ordered(*RACES).with_columns(pl.col("driver").replace(f"{A_DRIVER}1", "me")))
    assert changed["1"] == before["1"]
    assert all(changed[race] != before[race] for race in "23")
    assert len({version for _, version in one_more.values()}) == 4
    assert versions_by_race(frame(RACES)) == versions_by_race(dataset(RACES)) == {}


RESULTS, POSTERIOR = dg.AssetKey("race_results"), dg.AssetKey("calibration_posterior")
BACKTEST = dg.AssetKey("backtest")
NETWORK, FEATURES = dg.AssetKey("causal_network"), dg.AssetKey("driver_features")
BEFORE = {"2024": "a", "2025": "b"}


class Records:
    """Materializations of two seasons' results and of fits that read them, recorded and never made."""

    def __init__(self, instance: dg.DagsterInstance, settings: Settings | None = None) -> None:
        self.instance = instance
        settings = settings or Settings(seasons="2024,2025")
        self.upkeep = Upkeep(build_defs(settings), instance)

    def enter(
        self,
        key: dg.AssetKey,
        partition: str,
        tags: dict[str, str],
        own: dict[str, str],
        by_race: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        path = self.upkeep.manager_of(key).path_of(key.to_user_string(), partition)
        metadata = {
            PATH: dg.MetadataValue.path(str(path)),
            VERSIONS: dg.MetadataValue.json(own),
            VERSIONS_BY_RACE: dg.MetadataValue.json(by_race or {}),
        }
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=partition, tags=tags, metadata=metadata)
        )
        self.upkeep.forget([key], partition)

    def results(self, season: str, version: str, **own: str) -> None:
        self.enter(RESULTS, season, {DATA_VERSION_TAG: version}, own)

    def fit(self, archetype: str, read: dict[str, str], key: dg.AssetKey = POSTERIOR) -> None:
        used = sha256("".join(read.values()).encode()).hexdigest()
        code = self.upkeep.graph.get(key).code_version or ""
        tags = {CODE_VERSION_TAG: code, get_input_data_version_tag(RESULTS): used}
        self.enter(key, archetype, tags, {})

    def outdated(self) -> set[str]:
        found = {str(one): self.upkeep.outdated(POSTERIOR, one) for one in ("short_track", "superspeedway")}
        assert set(found.values()) <= {
            None,
            *(f"calibration_posterior [{one}] is older than race_results" for one in found),
        }
        return {one for one, reason in found.items() if reason}


@pytest.fixture
def records() -> Records:
    """Return records of results, and of fits that read them."""
    made = Records(dg.DagsterInstance.ephemeral())
    made.results("2024", "a", short_track="s1", superspeedway="f1")
    made.results("2025", "b", short_track="s2", superspeedway="f2")
    for archetype in ("short_track", "superspeedway"):
        made.fit(archetype, BEFORE)
    return made


def test_a_new_race_makes_its_own_kind_of_track_out_of_date(records: Records) -> None:
    assert records.outdated() == set()
    records.results("2025", "c", short_track="s3", superspeedway="f2")
    assert records.outdated() == {"short_track"}
    records.fit("short_track", {**BEFORE, "2025": "c"})
    assert records.outdated() == set()


def test_races_of_several_updates_add_up(records: Records) -> None:
    """The superspeedways' fit read the results of two updates ago."""
    records.results("2025", "c", short_track="s3", superspeedway="f2")
    records.fit("short_track", {**BEFORE, "2025": "c"})
    records.results("2024", "d", short_track="s4", superspeedway="f1")
    assert records.outdated() == {"short_track"}
    records.results("2025", "e", short_track="s3", superspeedway="f5")
    assert records.outdated() == {"short_track", "superspeedway"}


def test_what_was_read_must_be_known(records: Records) -> None:
    """Results that were stored while the fit ran, and results of which no parts were recorded."""
    records.fit("short_track", {**BEFORE, "2025": "something else"})
    records.results("2025", "c", short_track="s2", superspeedway="f2")
    assert records.outdated() == {"short_track"}
    records.results("2025", "d")
    assert records.outdated() == {"short_track", "superspeedway"}


def test_a_backtest_is_out_of_date_where_something_was_run_before_its_last_race() -> None:
    made = Records(dg.DagsterInstance.ephemeral())

    def results(season: str, version: str, *kinds: str, corrected: str = "") -> None:
        told = {f"{season}{n:02}": (kind, f"{n} {corrected}") for n, kind in enumerate(kinds, 1)}
        made.enter(RESULTS, season, {DATA_VERSION_TAG: version}, {}, told)

    def outdated() -> set[str]:
        kinds = ("short_track", "superspeedway")
        return {kind for kind in kinds if made.upkeep.outdated(BACKTEST, kind)}

    def backtest(**read: str) -> None:
        for kind in outdated() or ("short_track", "superspeedway"):
            made.fit(kind, {year.removeprefix("of_"): version for year, version in read.items()}, BACKTEST)

    results("2024", "a", "short_track", "superspeedway")
    results("2025", "b", "short_track")
    backtest(of_2024="a", of_2025="b")
    assert outdated() == set()
    results("2025", "c", "short_track", "road_course")  # of a third kind, after the last short track
    assert outdated() == set()
    results("2025", "d", "short_track", "road_course", "superspeedway")
    assert outdated() == {"superspeedway"}
    backtest(of_2024="a", of_2025="d")
    results("2024", "e", "short_track", "superspeedway", corrected="a season")
    assert outdated() == {"short_track", "superspeedway"}
    backtest(of_2024="e", of_2025="d")
    assert outdated() == set()
    made.enter(RESULTS, "2025", {DATA_VERSION_TAG: "g"}, {})  # what was run so far is not known
    assert outdated() == {"short_track", "superspeedway"}


@pytest.mark.parametrize(("fold_races", "starts_a_fold"), [(12, False), (3, True)])
def test_a_network_is_out_of_date_where_something_was_run_before_its_last_fold(
    fold_races: int, starts_a_fold: bool
) -> None:
    made = Records(dg.DagsterInstance.ephemeral(), Settings(seasons="2024,2025", fold_races=fold_races))

    def season(year: str, version: str, n_races: int, corrected: str = "") -> None:
        for key in (RESULTS, FEATURES):
            told = {f"{year}{n:02}": ("short_track", f"{n} {corrected}") for n in range(1, n_races + 1)}
            made.enter(key, year, {DATA_VERSION_TAG: version}, {}, told)

    def fit(*versions: str) -> None:
        used = sha256("".join(versions).encode()).hexdigest()
        code = made.upkeep.graph.get(NETWORK).code_version or ""
        read = {get_input_data_version_tag(key): used for key in (RESULTS, FEATURES)}
        made.enter(NETWORK, "2025", {CODE_VERSION_TAG: code, **read}, {})

    def is_outdated() -> bool:
        return made.upkeep.outdated(NETWORK, "2025") is not None

    season("2024", "a", 1)
    season("2025", "b", 1)
    fit("a", "b")
    assert not is_outdated()
    season("2025", "c", 2)
    assert not is_outdated()
    season("2025", "d", 3)  # the next race is the first of a new fold, where three are one
    assert is_outdated() is starts_a_fold
    fit("a", "d")
    season("2025", "e", 4)
    assert not is_outdated()
    season("2025", "f", 4, corrected="a race of the first fold")
    assert is_outdated() is starts_a_fold
    fit("a", "f")
    season("2024", "g", 1, corrected="an earlier season")
    assert is_outdated()


def test_a_fit_of_networks_reads_no_race_of_the_last_fold() -> None:
    """What lets a new race leave them as they are."""
    source = SimulatedSource((2024, 2025), compile_constraints())
    results = pl.concat(source.load_season(season).race_results for season in (2024, 2025))
    features = build_driver_features(entry_list(results), results, LapAggregates.empty())
    before = pl.col("race_order") <= 202520
    seen, known = results.filter(before), features.filter(before)
    one_less = pl.col("race_order") < 202520
    fits = [
        fit_networks(features, results, 2025, fold_races=None, seed=1)
        for features, results in ((known, seen), (known.filter(one_less), seen.filter(one_less)))
    ]
    xr.testing.assert_identical(*fits)
    assert fits[0]["network_as_of"].item() == 202436
