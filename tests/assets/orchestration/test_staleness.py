"""Staleness: recorded inputs of a partition, settings that it depends on, and reasons."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.cli import main
from assets.definitions import build_defs
from assets.flow import telemetry
from assets.instance import open_instance, prepare_home
from assets.orchestration.jobs import WAVES
from assets.orchestration.staleness import Lineage
from assets.orchestration.tasks import all_tasks, in_order_of_jobs
from assets.settings import Settings, load_settings
from assets.storage.io_manager import DEPENDS_ON
from benchmarks.settings_page import dependents
from calibration_pipeline.analysis.provenance import setting_values
from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.io.stored_values import DOCUMENTS
from calibration_pipeline.io.value_cache import ValueCache
from calibration_pipeline.schemas.contracts import BOUNDARIES
from helpers.example_tables import write_table
from helpers.paths import ROOT
from helpers.stored_runs import SMALL, copied

ASSETS = ROOT / "assets"
NAMES = {
    "fold_length": "fold_races",
    "season_list": "seasons",
    "era_starts": "eras",
    "feed_url": "source",
    "results": "source",
    "shown_forecaster": "forecaster",
}
"""Attributes of the settings → the names that assets declare."""
NOT_IN_VALUES = {"store_path", "key_prefix", "series"}


@pytest.fixture
def instance(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    copied(small_run, tmp_path, monkeypatch)
    prepare_home()
    with open_instance() as one:
        yield one


def lineage(instance: dg.DagsterInstance, **options: object) -> Lineage:
    settings = load_settings({"seasons": "2024,2025", **options})
    return Lineage(build_defs(settings).resolve_asset_graph(), settings, instance)


def stale(lineage: Lineage) -> dict[tuple[str, str | None], str]:
    """Return the stored partitions that are stale, with the reasons."""
    parts = [(asset, partition) for asset in lineage.keys for partition in lineage.partitions(asset)]
    reasons = {part: lineage.stale_reason(*part) for part in parts if lineage.path(*part).exists()}
    return {part: reason for part, reason in reasons.items() if reason}


def functions_with_settings(module: ast.Module) -> dict[str, set[str]]:
    """Return function → the attributes of its parameter `settings` that it reads, helpers included."""
    functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}

    def read(node: ast.FunctionDef) -> set[str]:
        names = {
            child.attr
            for child in ast.walk(node)
            if isinstance(child, ast.Attribute)
            and isinstance(child.value, ast.Name)
            and child.value.id == "settings"
        }
        called = {
            child.func.id
            for child in ast.walk(node)
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id in functions
        }
        return names.union(*(read(functions[name]) for name in called - {node.name}))

    return {name: read(node) for name, node in functions.items()}


def test_assets_declare_the_settings_that_their_functions_read() -> None:
    """Whatever else an asset declares, it depends on through `source` or the tracks."""
    defs = build_defs(Settings())
    modules = [functions_with_settings(ast.parse(path.read_text())) for path in sorted(ASSETS.rglob("*.py"))]
    read = {name: attributes for functions in modules for name, attributes in functions.items()}
    checked = set()
    for asset in defs.resolve_asset_graph().assets_defs:
        if not asset.keys:
            continue
        function = asset.op.compute_fn.decorated_fn.__name__  # type: ignore[union-attr]
        attributes = read[function] - NOT_IN_VALUES
        wanted = {NAMES.get(name, name) for name in attributes if name not in ("source", "laps")}
        for spec in asset.specs:
            declared = set(spec.metadata.get(DEPENDS_ON, ()))
            missing = wanted - declared - ({"seed"} if "source" in declared else set())
            missing -= {"forecasters", "nicknames"} if "forecaster_files" in declared else set()
            missing -= {"margin"} if "event" not in spec.key.path[-1] else set()  # positions have no odds
            assert not missing, f"{spec.key.to_user_string()} reads {missing}"
            checked.add(spec.key.path[-1])
    assert checked == {*BOUNDARIES, *DOCUMENTS}


def test_the_margin_of_odds_makes_event_forecasters_and_the_report_stale() -> None:
    of_events = ["event_probabilities", "event_quarantine", "next_events"]
    assert dependents()["margin"] == [*of_events, "calibration_report"]


def test_setting_values_come_back_from_a_record_as_they_are() -> None:
    """Records hold JSON: a value of another type would differ from its record for ever."""
    values = setting_values(Settings(), [2024, 2025])
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": 7}, "seed was 42, is 7"), ({"seasons": "2023-2025"}, "first_season was 2024, is 2023")],
)
@pytest.mark.slow
def test_changed_settings_make_dependents_stale_and_are_named(
    instance: dg.DagsterInstance, options: dict[str, object], message: str
) -> None:
    assert stale(lineage(instance)) == {}
    found = stale(lineage(instance, **options))
    of_source = {"lap_telemetry", "race_results", "quarantine", "simulated_truth"}
    assert {asset for asset, _ in found if "settings" in found[asset, _]} == of_source
    assert all(reason.endswith(message) for reason in found.values() if "settings" in reason)


@pytest.mark.parametrize("options", [{"scenarios": 500}, {"network": "ordinary"}, {"fold_races": 5}])
def test_settings_of_later_assets_leave_seasons_and_features_up_to_date(
    instance: dg.DagsterInstance, options: dict[str, object]
) -> None:
    assert stale(lineage(instance, **options)) == {}


def test_every_setting_has_assets_that_depend_on_it() -> None:
    found = dependents()
    assert {"track_constraints", "race_results", "calibration_report"} <= set(found["tracks"])
    assert found["network"] == ["causal_network", *FORECAST, "calibration_report"]
    assert {"scenario_ensemble", "calibration_report"} <= set(found["forecasters"])
    assert "fold_history" in found["fold_races"]
    assert set(found["events"]) == {"joint_event_validation", *FORECAST, "calibration_report"}
    verdicts = {"verdict", "event_verdict", "position_verdict"}
    assert set(found["eras"]) == {"joint_event_validation", *verdicts, "calibration_report"}
    fits = {"calibration_posterior", "pooled_posterior", "calibration_state"}
    assert {"race_results"} | fits <= set(found["seed"])
    assert "archetype_races" not in {asset for assets in found.values() for asset in assets}


def test_a_failed_check_is_named_without_escapes(instance: dg.DagsterInstance) -> None:
    """The UI renders the description of an evaluation as Markdown; a terminal does not."""
    there = lineage(instance)
    message = "race_results [2025] breaks its contract: *rating* is no_number"
    failed = dg.AssetCheckEvaluation(
        there.keys["race_results"],
        "contract",
        False,
        {},
        description=escape_text(message),
        blocking=True,
        partition="2025",
    )
    instance.report_runless_asset_event(failed)
    found = there.failed_checks({"race_results"})
    assert found == {("race_results", "2025"): f"race_results [2025]: check contract failed: {message}"}


FORECAST = ("forecast_chances", "forecast_events", "forecast_scenarios", "race_forecast")


def test_an_input_that_is_gone_or_new_makes_stale(instance: dg.DagsterInstance) -> None:
    one_season = stale(lineage(instance, seasons="2025"))
    assert one_season["driver_features", "2025"].endswith(
        "read another version of lap_aggregates [2024], race_results [2024]"
    )


@pytest.mark.slow
def test_the_version_that_counts_is_the_one_that_was_read(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are replaced while features are computed from what was there before."""
    there = lineage(instance)
    results = there.path("race_results", "2025")
    build = telemetry.build_driver_features

    def replace_meanwhile(entries: pl.DataFrame, *others: pl.DataFrame) -> pl.DataFrame:
        if entries["season"][0] == 2025:
            results.write_bytes(there.path("race_results", "2024").read_bytes())
        return build(entries, *others)

    there.path("driver_features", "2025").unlink()
    monkeypatch.setattr(telemetry, "build_driver_features", replace_meanwhile)
    assert main([*SMALL[:3], "--select", "driver_features"]) == 0
    reason = lineage(instance).stale_reason("driver_features", "2025")
    assert reason == "driver_features [2025] read another version of race_results [2025]"


@pytest.mark.slow
def test_content_that_is_written_again_unchanged_makes_nothing_stale(instance: dg.DagsterInstance) -> None:
    before = lineage(instance).record("race_results", "2024")
    assert main([*SMALL[:3], "--select", "race_results,lap_telemetry"]) == 0
    after = lineage(instance).record("race_results", "2024")
    assert before is not None
    assert after is not None
    assert after.storage_id > before.storage_id
    assert stale(lineage(instance)) == {}


def test_another_schema_version_is_named(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = lineage(instance)
    for module in ("calibration_pipeline.analysis.records", "calibration_pipeline.io.stored_values"):
        monkeypatch.setattr(f"{module}.SCHEMA_VERSION", "999")
    monkeypatch.setattr("calibration_pipeline.io.stored_values._cache", ValueCache())
    assert there.stale_reason("driver_features", "2024") == (
        "driver_features [2024] is stored with schema version 4, this program reads 999: "
        "materialize it again."
    )


@pytest.mark.soak
def test_sources_on_one_instance_do_not_see_each_other(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Partitions, checks, records and updates; the same seasons in both."""
    table = tmp_path / "mine.csv"
    write_table(table, {2024: 2, 2025: 2})
    options = ["--source", "tables", "--results", str(table)]
    assert stale(lineage(instance, source="tables", results=str(table))) == {}
    assert main(["run", "--update", *options, "--select", "+driver_features"]) == 0
    assert stale(lineage(instance)) == {}
    assert stale(lineage(instance, source="tables", results=str(table))) == {}
    for source in ("simulated", "tables"):
        key = dg.AssetKey([source, "cup", "driver_features"])
        assert instance.get_materialized_partitions(key) == {"2024", "2025"}
        check = dg.AssetCheckKey(dg.AssetKey([source, "cup", "race_results"]), "contract")
        history = instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
        assert {record.partition for record in history} == {"2024", "2025"}
    write_table(table, {2024: 2, 2025: 3})
    assert main(["run", "--update", *options, "--select", "+driver_features"]) == 0
    runs = instance.get_runs(dg.RunsFilter(tags={"calibration/source": "tables"}))
    assert len(runs) > 0
    assert all(key.path[0] == "tables" for run in runs for key in run.asset_selection or ())
    assert stale(lineage(instance)) == {}


def test_runs_start_in_the_order_of_jobs_and_those_of_a_job_by_what_they_read(
    instance: dg.DagsterInstance,
) -> None:
    found = lineage(instance)
    everything = {(asset, partition) for asset in found.keys for partition in found.partitions(asset)}
    for wave in WAVES:
        tasks = in_order_of_jobs(found, reversed(all_tasks(found, wave, everything)))
        jobs = [job.name for job in wave if found.partitions(job.assets[0])]
        assert list(dict.fromkeys(task.job.name for task in tasks)) == jobs
        if wave[0].name == "features":
            assert [task.partition for task in tasks] == ["2025", "2024"]  # which reads both seasons
