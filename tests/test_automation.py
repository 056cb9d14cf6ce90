"""What is asked for by itself: new data up to the report, in order and once; nothing past a failed check."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator
from hollow_assets import WHOLE, Asked, Hollow

from assets.automation import AFTER_RACE_WEEKENDS, EVERY_MORNING, automate, is_running
from assets.definitions import ASSETS, build_defs
from assets.settings import Settings
from calibration_pipeline.archetypes import ARCHETYPES

SEASONS = ["2024", "2025"]
SEASON_CHAIN = ["lap_aggregates", "driver_features", "causal_network", "scenario_ensemble"]
KINDS = sorted(str(archetype) for archetype in ARCHETYPES)
OF_KINDS = (
    "calibration_posterior",
    "recalibrated_ensemble",
    "backtest",
    "calibration_metrics",
    "calibration_curves",
    "joint_event_validation",
    "verdict",
    "report_pictures",
)
COMING = ("race_forecast", "forecast_chances", "forecast_events", "forecast_scenarios")
OF_ALL = ("pooled_posterior", "model_comparison", *COMING, "calibration_report", "catalogue")
LAST_STEPS: list[Asked] = [dict.fromkeys(OF_KINDS, KINDS), {name: [WHOLE] for name in OF_ALL}]
INGESTED = ("lap_telemetry", "race_results")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hollow]:
    """Everything made once, by the conditions themselves, from the seasons that were ingested."""
    store = tmp_path_factory.mktemp("store")
    defs = build_defs(Settings(seasons=",".join(SEASONS), store=str(store)))
    with dg.DagsterInstance.ephemeral() as instance:
        made = Hollow(defs, instance)
        assert made.ask() == {"track_constraints": [WHOLE]}
        made.make(["track_constraints"])
        for season in SEASONS:
            made.make(INGESTED, season)
        assert made.until_quiet() == [*({name: SEASONS} for name in SEASON_CHAIN), *LAST_STEPS]
        yield made


@pytest.fixture
def hollow(everything: Hollow) -> Iterator[Hollow]:
    """The same, with nothing to do, before and after each test."""
    assert everything.ask() == {}
    yield everything
    assert everything.ask() == {}


@pytest.mark.slow
def test_new_races_reach_the_report_once_and_in_order_and_warnings_stop_nothing(hollow: Hollow) -> None:
    hollow.failing = {("race_results", "laps_led_add_up"), ("calibration_posterior", "divergences")}
    hollow.make(INGESTED, "2025")
    assert hollow.until_quiet() == [*({name: ["2025"]} for name in SEASON_CHAIN), *LAST_STEPS]


@pytest.mark.slow
def test_a_failed_check_stops_what_follows_until_it_passes(hollow: Hollow) -> None:
    """Nothing that reads the broken results is asked for, though the earlier season's are good."""
    hollow.failing = {("race_results", "finishes_are_permutations")}
    hollow.make(INGESTED, "2025")
    assert hollow.until_quiet() == [{"lap_aggregates": ["2025"]}]
    hollow.failing = {("calibration_posterior", "r_hat")}
    hollow.make(INGESTED, "2025")
    asked = hollow.until_quiet()
    assert asked == [*({name: ["2025"]} for name in SEASON_CHAIN), LAST_STEPS[0]], "no report of a bad fit"
    assert hollow.make(OF_KINDS, KINDS[0]) == {"calibration_posterior"}, "its run stops as well"
    hollow.failing = set()
    for kind in KINDS:
        hollow.make(OF_KINDS, kind)
    assert hollow.until_quiet() == LAST_STEPS[1:]


@pytest.mark.soak
def test_a_corrected_season_is_carried_into_later_ones_and_the_report_waits_for_all(hollow: Hollow) -> None:
    """A later season waits for the earlier one, and the report for the fit that is still running."""
    hollow.make(INGESTED, "2024")
    for name, seasons in zip(SEASON_CHAIN, (["2024"], SEASONS, SEASONS, SEASONS), strict=True):
        assert hollow.ask() == {name: seasons}
        hollow.obey({name: seasons})
    assert hollow.ask() == LAST_STEPS[0]
    for kind in KINDS[1:]:
        hollow.make(OF_KINDS, kind)
    chosen = frozenset(dg.AssetKey(name) for name in OF_KINDS)
    running = hollow.instance.create_run_for_job(
        hollow.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=chosen),
        asset_selection=chosen,
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": KINDS[0]},
    )
    assert hollow.ask() == {}
    hollow.instance.report_run_failed(running)
    hollow.make(OF_KINDS, KINDS[0])
    assert hollow.until_quiet() == LAST_STEPS[1:]


def test_the_week_begins_on_monday_morning_in_new_york(project: Path) -> None:
    defs = build_defs(Settings(seasons="2024,2025", store=str(project)))
    schedule = defs.resolve_schedule_def("after_race_weekend")
    assert schedule.execution_timezone == "America/New_York"
    for month, day in ((2, 16), (7, 6)):
        monday = datetime.datetime(2026, month, day, 6, tzinfo=ZoneInfo("America/New_York"))
        friday = (monday - datetime.timedelta(days=3)).timestamp()
        assert (
            next(schedule_execution_time_iterator(friday, AFTER_RACE_WEEKENDS, "America/New_York")) == monday
        )
    context = dg.build_schedule_context(
        scheduled_execution_time=monday, repository_def=defs.get_repository_def()
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2025"
    selected = defs.resolve_job_def("ingest_season").asset_layer.selected_asset_keys
    assert {key.to_user_string() for key in selected} == {*INGESTED, "simulated_truth"}


def test_only_a_running_season_can_be_overdue(project: Path) -> None:  # noqa: ARG001
    this_year = datetime.date.today().year
    for settings, overdue in (
        (Settings(source="nascar_feed"), True),
        (Settings(seasons=str(this_year)), True),
        (Settings(seasons="2022,2023"), False),
    ):
        assert is_running(settings) is overdue
        specs = [spec for asset in automate(ASSETS, settings) for spec in asset.specs]
        due = {spec.key.to_user_string() for spec in specs if spec.freshness_policy}
        assert due == (
            {spec.key.to_user_string() for spec in specs} - {"track_constraints"} if overdue else set()
        )


def test_the_coming_race_is_forecast_anew_in_the_mornings_of_a_running_season(project: Path) -> None:  # noqa: ARG001
    """Entry lists and grids are announced between races, when no result is new."""
    this_year = datetime.date.today().year
    for seasons, every_morning in ((str(this_year), True), ("2022,2023", False)):
        graph = build_defs(Settings(seasons=seasons)).resolve_asset_graph()
        for name in ("race_forecast", "forecast_scenarios", "verdict"):
            condition = graph.get(dg.AssetKey(name)).automation_condition
            assert condition is not None
            crons = {getattr(node, "cron_schedule", None) for node in all_of(condition)} - {None}
            assert crons == ({EVERY_MORNING} if every_morning and name != "verdict" else set())


def all_of(condition: dg.AutomationCondition) -> Iterator[dg.AutomationCondition]:
    yield condition
    for child in condition.children:
        yield from all_of(child)
