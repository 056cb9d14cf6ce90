"""The code location: assets, checks, their partitions, and the order in which a run materializes them."""

import datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.definitions import build_defs
from assets.orchestration.jobs import WAVES
from assets.orchestration.staleness import Lineage
from assets.orchestration.tasks import all_tasks, with_inseparable
from assets.partitions import (
    ARCHETYPE_PARTITIONS,
    earlier_and_own_seasons,
    season_partitions,
)
from assets.runner.selection import select_assets
from assets.settings import Settings, load_settings
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.schemas.contracts import BOUNDARIES
from calibration_pipeline.schemas.partition_keys import by_archetype
from calibration_pipeline.seasons import parse_seasons
from helpers.paths import ROOT

WITHOUT_CONTRACT = {"calibration_report", "catalogue"}


@pytest.fixture
def settings(project: Path) -> Settings:  # noqa: ARG001
    return load_settings({"seasons": "2020,2021"})


@pytest.fixture
def defs(settings: Settings) -> dg.Definitions:
    return build_defs(settings)


def name(key: dg.AssetKey) -> str:
    return key.path[-1]


def test_every_asset_is_of_its_source_and_series(defs: dg.Definitions) -> None:
    assert {tuple(key.path[:-1]) for key in defs.resolve_asset_graph().get_all_asset_keys()} == {
        ("simulated", "cup")
    }


def test_every_asset_is_described_owned_and_bound_by_a_contract(defs: dg.Definitions) -> None:
    for node in defs.resolve_asset_graph().asset_nodes:
        assert node.description
        assert node.kinds
        assert node.owners == ["team:calibration"]
        assert node.code_version
        assert node.group_name != "default"
        if name(node.key) not in WITHOUT_CONTRACT:
            assert name(node.key) in BOUNDARIES
            assert node.metadata["dagster/column_schema"].columns
            assert dg.AssetCheckKey(node.key, "contract") in defs.resolve_asset_graph().asset_check_keys


def test_checks_are_partitioned_like_their_assets_and_described(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        spec = graph.get_check_spec(key)
        assert spec.description
        assert spec.description.endswith(".")
        assert spec.partitions_def == graph.get(key.asset_key).partitions_def


def test_truth_is_there_only_where_it_is_known(project: Path) -> None:  # noqa: ARG001
    feed = build_defs(load_settings({"source": "nascar_feed", "seasons": "2020,2021"}))
    assert "simulated_truth" not in map(name, feed.resolve_asset_graph().get_all_asset_keys())


def test_seasons_follow_the_settings_and_grow_by_themselves(project: Path) -> None:  # noqa: ARG001
    this_year = datetime.date.today().year
    assert season_partitions(parse_seasons("2020-2021", this_year)).get_partition_keys() == ["2020", "2021"]
    assert season_partitions(parse_seasons("2020-", this_year)).get_partition_keys()[-1] == str(this_year)


@pytest.mark.parametrize(("last", "with_deadline"), [(0, True), (-1, False)])
def test_assets_of_a_running_season_alone_have_a_deadline(
    project: Path,  # noqa: ARG001
    last: int,
    *,
    with_deadline: bool,
) -> None:
    """But the track catalogue: races do not change it."""
    year = datetime.date.today().year + last
    graph = build_defs(load_settings({"seasons": f"{year - 2}-{year}"})).resolve_asset_graph()
    due = {name(node.key) for node in graph.asset_nodes if node.freshness_policy}
    everything = {name(node.key) for node in graph.asset_nodes}
    assert due == (everything - {"track_constraints"} if with_deadline else set())


@pytest.mark.parametrize(
    ("season", "wanted"),
    [
        ("2020", ["2020"]),
        ("2022", ["2020", "2021", "2022"]),
    ],
)
def test_a_season_sees_only_the_past(season: str, wanted: list[str]) -> None:
    seasons = season_partitions(parse_seasons("2020-2023", 2026))
    upstream = earlier_and_own_seasons.get_upstream_mapped_partitions_result_for_partitions(
        downstream_partitions_subset=seasons.subset_with_partition_keys([season]),
        downstream_partitions_def=seasons,
        upstream_partitions_def=seasons,
    )
    assert list(upstream.partitions_subset.get_partition_keys()) == wanted


def test_every_asset_is_materialized_once_after_its_inputs(defs: dg.Definitions, settings: Settings) -> None:
    """A wave reads earlier waves alone, and a run of it these and what it has materialized itself."""
    done: set[tuple[str, str | None]] = set()
    with dg.DagsterInstance.ephemeral() as instance:
        lineage = Lineage(defs.resolve_asset_graph(), settings, instance)
        everything = {(asset, part) for asset in lineage.keys for part in lineage.partitions(asset)}
        for wave in WAVES:
            before = set(done)
            for task in all_tasks(lineage, wave, everything):
                own: set[tuple[str, str | None]] = set()
                for asset in task.assets:
                    assert {read for read, _ in lineage.inputs(asset, task.partition)} <= before | own
                    own.add((asset, task.partition))
                assert not own & done
                done |= own
    assert done == everything


def test_selection_by_name_and_by_expression(defs: dg.Definitions, settings: Settings) -> None:
    assert select_assets(defs, "race_results, lap_telemetry") == [
        "lap_telemetry",
        "quarantine",
        "race_results",
    ]
    upstream = select_assets(defs, "+lap_aggregates")
    assert upstream == ["track_constraints", "lap_telemetry", "lap_aggregates"]
    assert set(select_assets(defs, 'group:"telemetry"')) == {"lap_aggregates", "driver_features"}
    with dg.DagsterInstance.ephemeral() as instance:
        lineage = Lineage(defs.resolve_asset_graph(), settings, instance)
        together = with_inseparable(lineage, select_assets(defs, "forecast_chances"))
    assert set(together) == {"race_forecast", "forecast_chances", "forecast_events", "forecast_scenarios"}


def test_archetypes_have_one_order() -> None:
    keys = ARCHETYPE_PARTITIONS.get_partitions_def_for_dimension("archetype").get_partition_keys()
    assert keys == list(ARCHETYPES)
    assert set(ARCHETYPE_PARTITIONS.get_partition_keys()) == {f"{name}|network" for name in ARCHETYPES}
    values = {f"{archetype}|network": str(archetype) for archetype in reversed(ARCHETYPES)}
    assert list(by_archetype(values).items()) == [(archetype, str(archetype)) for archetype in ARCHETYPES]


def test_workspace_names_the_definitions() -> None:
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert entry["python_module"]["module_name"] == "assets.definitions"
