"""The asset graph: what is in it, how it is cut, what depends on what."""

import datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.contracts import BOUNDARIES
from assets.definitions import build_defs
from assets.partitions import (
    earlier_and_own_seasons,
    earlier_seasons,
    partitions_read,
    season_partitions,
)
from assets.plan import plan, select_assets
from assets.schedule import Schedule
from assets.settings import load_settings
from calibration_pipeline.archetypes import ARCHETYPES

ROOT = Path(__file__).parents[1]
GRAPH = {
    "track_constraints": set(),
    "simulated_truth": {"track_constraints"},
    "lap_telemetry": {"track_constraints"},
    "race_results": {"track_constraints"},
    "lap_aggregates": {"lap_telemetry"},
    "driver_features": {"race_results", "lap_aggregates"},
    "causal_network": {"race_results", "driver_features"},
    "scenario_ensemble": {"driver_features", "causal_network"},
    "calibration_posterior": {"race_results", "scenario_ensemble"},
    "recalibrated_ensemble": {
        "driver_features",
        "causal_network",
        "scenario_ensemble",
        "calibration_posterior",
    },
    "backtest": {"race_results", "scenario_ensemble", "recalibrated_ensemble", "calibration_posterior"},
    "pooled_posterior": {"calibration_posterior"},
    "model_comparison": {"calibration_posterior", "pooled_posterior"},
    "calibration_metrics": {"scenario_ensemble", "recalibrated_ensemble", "backtest"},
    "calibration_curves": {"scenario_ensemble", "recalibrated_ensemble", "backtest"},
    "joint_event_validation": {"race_results", "scenario_ensemble", "recalibrated_ensemble"},
    "verdict": {"backtest", "calibration_metrics", "joint_event_validation"},
    **{
        name: {"race_results", "lap_aggregates", "driver_features", "causal_network", "calibration_posterior"}
        for name in ("race_forecast", "forecast_chances", "forecast_events", "forecast_scenarios")
    },
    "report_pictures": {
        "calibration_metrics",
        "joint_event_validation",
        "calibration_curves",
        "backtest",
        "calibration_posterior",
    },
    "calibration_report": {
        "report_pictures",
        "calibration_metrics",
        "joint_event_validation",
        "calibration_curves",
        "verdict",
        "backtest",
        "calibration_posterior",
        "model_comparison",
        "race_forecast",
        "forecast_chances",
        "forecast_events",
    },
    "catalogue": {"calibration_report"},
}
WITHOUT_CONTRACT = {"calibration_report", "catalogue"}


@pytest.fixture
def defs(project: Path) -> dg.Definitions:  # noqa: ARG001
    return build_defs(load_settings({"seasons": "2020,2021"}))


def name(key: dg.AssetKey) -> str:
    return key.to_user_string()


def test_graph_is_the_documented_one(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    parents = {name(node.key): {name(key) for key in node.parent_keys} for node in graph.asset_nodes}
    assert parents == GRAPH


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


def test_checks_are_cut_like_their_assets_and_described(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        spec = graph.get_check_spec(key)
        assert spec.description
        assert spec.description.endswith(".")
        assert spec.partitions_def == graph.get(key.asset_key).partitions_def


def test_truth_is_there_only_where_it_is_known(project: Path) -> None:  # noqa: ARG001
    feed = build_defs(load_settings({"source": "nascar_feed", "seasons": "2020,2021"}))
    assert dg.AssetKey("simulated_truth") not in feed.resolve_asset_graph().get_all_asset_keys()


def test_seasons_are_those_asked_for_and_grow_by_themselves(project: Path) -> None:  # noqa: ARG001
    assert season_partitions(2020, 2021).get_partition_keys() == ["2020", "2021"]
    this_year = datetime.date.today().year
    assert season_partitions(2020, None).get_partition_keys()[-1] == str(this_year)
    assert season_partitions(2020, this_year).get_partition_keys()[-1] == str(this_year)


@pytest.mark.parametrize(
    ("mapping", "season", "wanted"),
    [
        (earlier_and_own_seasons, "2020", ["2020"]),
        (earlier_and_own_seasons, "2022", ["2020", "2021", "2022"]),
        (earlier_seasons, "2020", []),
        (earlier_seasons, "2022", ["2020", "2021"]),
    ],
)
def test_a_season_sees_only_the_past(
    mapping: dg.TimeWindowPartitionMapping, season: str, wanted: list[str]
) -> None:
    cut = season_partitions(2020, 2023)
    upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(
        downstream_partitions_subset=cut.subset_with_partition_keys([season]),
        downstream_partitions_def=cut,
        upstream_partitions_def=cut,
    )
    assert list(upstream.partitions_subset.get_partition_keys()) == wanted


def test_everything_is_made_once_after_all_that_it_reads(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    done: set[tuple[str, str | None]] = set()
    planned = plan(defs, select_assets(defs, None))
    for run, waits_for in planned.items():
        own = {(name(key), run.partition) for key in run.keys}
        before = {(name(key), other.partition) for other in waits_for for key in other.keys}
        read = {
            (name(parent), part)
            for key in run.keys
            for parent in graph.get(key).parent_keys
            for part in partitions_read(graph, parent, key, run.partition)
        }
        assert before <= done
        assert not own & done
        assert read <= own | before
        done |= own
    assert {one for one, _ in done} == GRAPH.keys()


def test_what_a_run_makes_keeps_nothing_waiting(defs: dg.Definitions) -> None:
    """Seasons are read side by side, and what reads all fits goes beside what follows from one of them."""
    planned = plan(defs, select_assets(defs, None))
    together = {frozenset(map(name, run.keys)) for run in planned}
    season = {"lap_telemetry", "race_results", "lap_aggregates"}
    coming = {"forecast_chances", "forecast_events", "forecast_scenarios", "race_forecast"}
    recalibrated = {"recalibrated_ensemble", "backtest", "joint_event_validation", "calibration_metrics"}
    assert together == {
        frozenset({"track_constraints"}),
        frozenset(season),
        frozenset({"simulated_truth"}),
        frozenset({"driver_features"}),
        frozenset({"causal_network", "scenario_ensemble"}),
        frozenset({"calibration_posterior"}),
        frozenset({"pooled_posterior", "model_comparison"}),
        frozenset(coming),
        frozenset(recalibrated | {"calibration_curves", "verdict", "report_pictures"}),
        frozenset({"calibration_report", "catalogue"}),
    }
    waits = {
        (first, run.partition): {one.partition for one in waits_for if "race_results" in map(name, one.keys)}
        for run, waits_for in planned.items()
        for first in map(name, run.keys)
    }
    assert waits["driver_features", "2020"] == {"2020"}
    assert waits["driver_features", "2021"] == {"2020", "2021"}
    assert waits["lap_telemetry", "2021"] == set()
    kinds = [run.partition for run in planned if "verdict" in map(name, run.keys)]
    assert kinds == list(ARCHETYPES)


def test_of_one_partition_is_made_side_by_side_what_can_be(defs: dg.Definitions) -> None:
    """An update has one kind of track to make, where a whole run has four."""
    planned = plan(defs, select_assets(defs, None), apart=True)
    scored = {
        name(key): {name(one) for before in waits_for for one in before.keys}
        for run, waits_for in planned.items()
        if run.partition == "road_course"
        for key in run.keys
    }
    alone = [run for run in planned if len(run.keys) == 1 and run.partition == "road_course"]
    assert {name(key) for run in alone for key in run.keys} == scored.keys()
    assert "backtest" not in scored["joint_event_validation"]
    assert "joint_event_validation" not in scored["calibration_metrics"] | scored["calibration_curves"]
    assert {"joint_event_validation", "calibration_metrics"} <= scored["verdict"]
    together = [frozenset(map(name, run.keys)) for run in planned if run.partition == "2021"]
    assert frozenset({"causal_network", "scenario_ensemble"}) in together


def test_archetypes_left_out_are_not_waited_for(defs: dg.Definitions) -> None:
    planned = plan(defs, select_assets(defs, "calibration_posterior,verdict"), ["road_course"])
    assert [(sorted(map(name, run.keys)), run.partition, len(waits)) for run, waits in planned.items()] == [
        (["calibration_posterior"], "road_course", 0),
        (["verdict"], "road_course", 0),
    ]


def test_what_most_waits_for_is_started_first_and_nothing_before_what_it_reads(
    defs: dg.Definitions,
) -> None:
    planned = plan(defs, select_assets(defs, None))
    schedule = Schedule(defs, planned, None, pytest.fail)
    left, order = set(planned), []
    while not schedule.is_done():
        runs = schedule.start(2, lambda _: False)
        assert runs
        assert not any(planned[run] & left for run in runs)
        for run in runs:
            schedule.finish(run)
            left.discard(run)
        order += runs
    assert sorted(order, key=str) == sorted(planned, key=str)
    first_of = [min(map(name, run.keys)) for run in order]
    assert first_of[:3] == ["track_constraints", "lap_aggregates", "lap_aggregates"]
    assert first_of.index("simulated_truth") > first_of.index("causal_network")
    assert first_of.index("backtest") < first_of.index("model_comparison")


@pytest.mark.parametrize(
    ("selection", "archetypes", "most"),
    [
        # beside what follows from each fit go the coming race and the pooled fit
        (None, [], len(ARCHETYPES) + 2),
        ("calibration_posterior", [], len(ARCHETYPES)),
        ("+driver_features", [], 2),
        ("calibration_posterior,verdict", ["road_course"], 2),
        ("calibration_posterior,pooled_posterior,model_comparison", ["road_course"], 1),
        ("track_constraints", [], 1),
        ("model_comparison,calibration_report", [], 1),
    ],
)
def test_a_chain_of_runs_needs_no_processes(
    defs: dg.Definitions, selection: str | None, archetypes: list[str], most: int
) -> None:
    planned = plan(defs, select_assets(defs, selection), archetypes)
    schedule = Schedule(defs, planned, None, pytest.fail)
    assert schedule.most_at_a_time(schedule.start(9, lambda _: False)) == most


def test_of_what_is_begun_only_what_follows_may_go_side_by_side(defs: dg.Definitions) -> None:
    """A new race changes the last season, which no other season reads."""
    schedule = Schedule(defs, plan(defs, select_assets(defs, "+driver_features")), None, pytest.fail)
    (tracks,) = schedule.start(9, lambda _: False)
    schedule.finish(tracks)
    seasons = schedule.start(9, lambda _: False)
    assert {run.partition: schedule.most_at_a_time([run]) for run in seasons} == {"2020": 2, "2021": 1}


def test_a_full_pool_keeps_only_its_runs_waiting(defs: dg.Definitions) -> None:
    planned = plan(defs, select_assets(defs, "calibration_posterior,simulated_truth"), ["road_course"])
    schedule = Schedule(defs, planned, None, pytest.fail)
    started = schedule.start(9, lambda pool: pool == "mcmc")
    assert [min(map(name, run.keys)) for run in started] == ["simulated_truth"] * 2
    assert schedule.pools() == {"mcmc"}
    assert [run.partition for run in schedule.start(9, lambda _: False)] == ["road_course"]
    assert schedule.start(9, lambda _: False) == []


def test_selection_by_name_and_by_expression(defs: dg.Definitions) -> None:
    by_name = {name(key) for key in select_assets(defs, "race_results, lap_telemetry")}
    assert by_name == {"race_results", "lap_telemetry"}
    upstream = {name(key) for key in select_assets(defs, "+lap_aggregates")}
    assert upstream == {"track_constraints", "lap_telemetry", "lap_aggregates"}
    coming = {name(key) for key in select_assets(defs, "forecast_chances")}
    assert coming == {"race_forecast", "forecast_chances", "forecast_events", "forecast_scenarios"}
    group = {name(key) for key in select_assets(defs, 'group:"telemetry"')}
    assert group == {"lap_aggregates", "driver_features"}


def test_archetypes_have_one_order() -> None:
    from assets.partitions import ARCHETYPE_PARTITIONS

    assert ARCHETYPE_PARTITIONS.get_partition_keys() == list(ARCHETYPES)


def test_workspace_names_the_definitions() -> None:
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert entry["python_module"]["module_name"] == "assets.definitions"
