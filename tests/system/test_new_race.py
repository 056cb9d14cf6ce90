"""One new race: the command and the daemon materialize the same partitions, those that lineage asks for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import xarray as xr

from assets.cli import main
from assets.definitions import build_defs
from assets.instance import open_instance, prepare_home
from assets.orchestration.jobs import INGEST, WAVES
from assets.orchestration.sensors import SENSOR
from assets.orchestration.staleness import OF_SOURCE, Lineage
from assets.partitions import upstream_partitions
from assets.settings import Settings, load_settings
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.summaries import convergence_by_fold
from helpers.example_tables import write_results

SEASONS = [2024, 2025]
RACES = 8
Partition = tuple[str, str | None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table, a store and an instance: a whole run of two short seasons."""
    folder = tmp_path_factory.mktemp("whole")
    write_results(folder / "mine.csv", SEASONS, RACES)
    with settings_of(folder, folder / "mine.csv"):
        assert main(["run"]) == 0
    return folder


@contextmanager
def settings_of(folder: Path, table: Path) -> Iterator[Settings]:
    """Point settings and instance at a folder, and at a table of results."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "CALIBRATION_SOURCE": "tables",
            "CALIBRATION_RESULTS": table,
            "CALIBRATION_SEASONS": "2024,2025",
            "CALIBRATION_SCENARIOS": "100",
            "CALIBRATION_FOLD_RACES": "4",
            "CALIBRATION_EXECUTOR": "in_process",
            "CALIBRATION_STORE": folder / "store",
            "DAGSTER_HOME": folder / "home",
        }.items():
            patch.setenv(name, str(value))
        prepare_home()
        yield load_settings()


def add_race(table: Path) -> None:
    """Append the next race of the last season to the table."""
    write_results(table, SEASONS, RACES + 1)
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith(f"{SEASONS[0]},{RACES + 1},")))


def versions(lineage: Lineage) -> dict[Partition, str | None]:
    return {
        (asset, partition): lineage.version(asset, partition)
        for asset in lineage.keys
        for partition in lineage.partitions(asset)
    }


def records(lineage: Lineage) -> dict[Partition, int]:
    parts = [(asset, partition) for asset in lineage.keys for partition in lineage.partitions(asset)]
    return {part: record.storage_id for part in parts if (record := lineage.record(*part))}


def materialized_since(lineage: Lineage, before: dict[Partition, int]) -> set[Partition]:
    return {part for part, record in records(lineage).items() if record != before.get(part)}


def asked_for_by_lineage(
    lineage: Lineage, before: dict[Partition, str | None], after: dict[Partition, str | None]
) -> set[Partition]:
    """Return what was ingested, and each partition that reads a partition whose content has changed."""
    changed = {part for part, version in after.items() if before[part] != version}
    found = {(asset, "2025") for asset in OF_SOURCE}
    graph = lineage.graph
    for asset, partition in after:
        key = lineage.keys[asset]
        reads = {
            (parent.path[-1], read)
            for parent in graph.get(key).parent_keys
            for read in upstream_partitions(graph, parent, key, partition)
        }
        if reads & changed:
            found.add((asset, partition))
    return found


def update(folder: Path, table: Path) -> set[Partition]:
    """Bring a copy up to date by the command; return what was materialized."""
    with settings_of(folder, table) as settings, open_instance() as instance:
        lineage = Lineage(build_defs(settings).resolve_asset_graph(), settings, instance)
        before, content = records(lineage), versions(lineage)
        add_race(table)
        assert main(["run", "--update"]) == 0
        done = materialized_since(lineage, before)
        assert done == asked_for_by_lineage(lineage, content, versions(lineage))
        assert all(lineage.stale_reason(*part) is None for part in content)
    return done


def tick_until_quiet(folder: Path, table: Path) -> tuple[set[Partition], int]:
    """Bring a copy up to date by the sensor; return what was materialized, and by how many runs."""
    with settings_of(folder, table) as settings, open_instance() as instance:
        defs = build_defs(settings)
        repository = defs.get_repository_def()
        lineage = Lineage(defs.resolve_asset_graph(), settings, instance)
        before = records(lineage)
        add_race(table)
        cursor, n_runs, reports, jobs = None, 0, 0, []
        for _ in range(3 * len(WAVES)):
            context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
            answer = repository.get_sensor_def(SENSOR)(context)
            assert isinstance(answer, dg.SensorResult)
            cursor = answer.cursor
            for request in answer.run_requests or ():
                jobs.append(request.job_name)
                n_runs += 1
                reports += lineage.keys["calibration_report"] in (request.asset_selection or ())
                job = build_defs(settings).resolve_job_def(str(request.job_name))
                assert job.execute_in_process(
                    instance=instance,
                    partition_key=request.partition_key,
                    asset_selection=request.asset_selection,
                    tags=dict(request.tags),
                ).success
            if not answer.run_requests:
                break
        else:
            raise AssertionError(f"the sensor never becomes quiet: {jobs}")
        order = [job.name for wave in WAVES for job in wave]
        assert [order.index(str(name)) for name in jobs] == sorted(order.index(str(name)) for name in jobs)
        assert jobs.count(INGEST.name) == 1
        assert reports == 1
        return materialized_since(lineage, before), n_runs


@pytest.mark.slow
def test_a_whole_run_scores_races_out_of_sample(whole: Path) -> None:
    """The second season is scored; races without a state keep the raw forecast; every fit converged."""
    store, scored = whole / "store" / "tables" / "cup", []
    for archetype in ARCHETYPES:
        backtest = xr.open_dataset(store / "backtest" / archetype / "network.nc", engine="h5netcdf").load()
        scored += backtest["season"].values.tolist()
        assert (backtest["calibration_as_of"] < backtest["race_order"]).all()
        kept = backtest.isel(race=backtest["n_calibration_races"].values == 0)
        assert kept["raw"].equals(kept["recalibrated"].rename("raw"))
        fit = xr.open_datatree(store / "calibration_posterior" / archetype / "network.nc", engine="h5netcdf")
        assert float(convergence_by_fold(fit)["r_hat"].max()) < 1.05
    assert len(scored) >= RACES // 2, "those of archetypes that were forecast in the season before"
    assert set(scored) == {SEASONS[1]}


@pytest.fixture(scope="module")
def by_command(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> set[Partition]:
    """Return what the command materializes after a race."""
    folder = tmp_path_factory.mktemp("new_race") / "command"
    shutil.copytree(whole, folder)
    done = update(folder, whole / "mine.csv")
    write_results(whole / "mine.csv", SEASONS, RACES)
    return done


@pytest.mark.slow
def test_the_command_materializes_the_stale_partitions(by_command: set[Partition]) -> None:
    done = by_command
    archetypes = {partition for asset, partition in done if asset == "calibration_posterior"}
    assert len(archetypes) == 1, "only the archetype that raced"
    assert {partition for asset, partition in done if asset == "verdict"} <= archetypes
    forecasts = ("recalibrated_forecast", "backtest")
    assert {partition for asset, partition in done if asset in forecasts} == archetypes
    assert {asset for asset, partition in done if partition == "2024"} == set()
    assert ("causal_network", "2025") not in done, "the race lies within a fold"
    slices = {partition for asset, partition in done if asset == "archetype_races"}
    assert slices == {f"{archetype}|network" for archetype in ARCHETYPES}
    assert ("calibration_report", None) in done


@pytest.mark.soak
def test_the_daemon_materializes_what_the_command_does(
    whole: Path, by_command: set[Partition], tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "daemon")
    done, n_runs = tick_until_quiet(tmp_path / "daemon", whole / "mine.csv")
    assert done == by_command
    assert n_runs < len(done), "a run materializes the assets of a job together"


@pytest.mark.soak
def test_an_entry_list_is_noticed_and_forecast(whole: Path, tmp_path: Path) -> None:
    """Between two races the source adds the next one's entries: forecasts follow, and no fit."""
    shutil.copytree(whole, tmp_path / "thursday")
    table = whole / "mine.csv"
    write_results(table, SEASONS, RACES)
    add_race(table)
    ahead = (pl.col("season") == SEASONS[-1]) & (pl.col("round") == RACES + 1)
    outcome = pl.col("finish_position", "laps_completed", "laps_led", "status")
    pl.read_csv(table).with_columns(pl.when(~ahead).then(outcome)).write_csv(table)
    with settings_of(tmp_path / "thursday", table) as settings, open_instance() as instance:
        lineage = Lineage(build_defs(settings).resolve_asset_graph(), settings, instance)
        before = records(lineage)
        assert main(["run", "--update"]) == 0
        done = {asset for asset, _ in materialized_since(lineage, before)}
        assert {"race_forecast", "forecaster_chances", "calibration_report"} <= done
        assert not done & {"causal_network", "calibration_posterior", "calibration_metrics"}
        forecast = pl.read_parquet(lineage.path("forecast_chances", "network").read_bytes())
        assert forecast["race_id"].unique().to_list() == [100 * SEASONS[-1] + RACES + 1]
        before = records(lineage)
        assert main(["run", "--update"]) == 0
        assert materialized_since(lineage, before) == set()
