"""`run --update` materializes what is missing, damaged or stale, and nothing else."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import polars as pl
import pytest

from assets.cli import main
from assets.definitions import build_defs
from assets.settings import Settings
from calibration_pipeline.archetypes import ARCHETYPES
from helpers.example_tables import write_table
from helpers.stored import content, empty, flip, truncate
from helpers.stored_runs import SMALL, copied, make

pytestmark = pytest.mark.slow
WHOLE = ["run", "--seasons", "2024,2025", "--scenarios", "100"]


@pytest.fixture
def store(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the store of a copy of it all, at which settings and instance point."""
    return copied(small_run, tmp_path, monkeypatch)


def remade(capsys: pytest.CaptureFixture[str], command: list[str]) -> set[str]:
    """Update, and return the materialized partitions as the progress lines name them."""
    capsys.readouterr()
    assert main([*command, "--update"]) == 0
    lines = capsys.readouterr().out.splitlines()
    made = [" ".join(line.split()[1:-2]).partition(" [") for line in lines if line.startswith("  ✓")]
    return {asset + bracket + rest for assets, bracket, rest in made for asset in assets.split(", ")}


def name(path: str) -> str:
    """Return how progress names the asset and partition of a file."""
    asset, *partition = Path(path).with_suffix("").parts
    return f"{asset} [{'|'.join(partition)}]" if partition else asset


def test_an_up_to_date_store_is_left_alone(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.*")}
    assert main([*SMALL, "--update"]) == 0
    assert "Everything is there, and up to date." in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.*")} == before


@pytest.mark.parametrize(
    "lost", ["track_constraints.parquet", "race_results/2024.parquet", "simulated_truth/2024.nc"]
)
def test_only_a_deleted_file_is_materialized_again(
    store: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    """Downstream partitions stay, because the values are equal."""
    before = content(store)
    (store / lost).unlink()
    assert remade(capsys, SMALL) == {name(lost)}
    assert content(store) == before


@pytest.mark.parametrize(
    ("spoilt", "spoil"),
    [
        ("simulated_truth/2025.nc", truncate),
        ("simulated_truth/2025.nc", flip),
        ("race_results/2025.parquet", flip),
        ("race_results/2025.parquet", empty),
    ],
)
def test_a_spoilt_file_is_named_and_materialized_again(
    store: Path, capsys: pytest.CaptureFixture[str], spoilt: str, spoil: Callable[[bytes], bytes]
) -> None:
    before = content(store)
    (store / spoilt).write_bytes(spoil((store / spoilt).read_bytes()))
    assert remade(capsys, SMALL) == {name(spoilt)}
    assert content(store) == before


def test_a_reader_of_a_spoilt_file_names_it_in_a_line_and_stores_nothing(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = store / "driver_features" / "2025.parquet"
    before = features.read_bytes()
    spoilt = store / "race_results" / "2024.parquet"
    spoilt.write_bytes(truncate(spoilt.read_bytes()))
    assert main(["run", "--seasons", "2024,2025", "--select", "driver_features"]) == 1
    error = capsys.readouterr().err
    assert f"race_results [2024] cannot be read from {spoilt}" in error
    assert "Traceback" not in error
    assert features.read_bytes() == before


def test_another_schema_version_is_named_and_materialized_again(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = store / "lap_aggregates" / "2024.parquet"
    before = lost.read_bytes()
    frame = pl.read_parquet(lost)
    frame.write_parquet(lost, metadata={"schema_version": "1"})
    assert remade(capsys, SMALL) == {"lap_aggregates [2024]"}
    assert lost.read_bytes() == before


def of_table(table: Path) -> list[str]:
    """Return the command that materializes the features of a table."""
    return ["run", "--source", "tables", "--results", str(table), "--select", "+driver_features"]


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table of two seasons, and the store and the instance of its run."""
    folder = tmp_path_factory.mktemp("table_run")
    write_table(folder / "mine.csv", {2022: 2, 2023: 1})
    return make(folder, of_table(folder / "mine.csv"))


@pytest.fixture
def table(table_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return that table as it was, with settings and instance pointing at a copy of what its run stored."""
    copied(table_run, tmp_path, monkeypatch)
    write_table(table_run / "mine.csv", {2022: 2, 2023: 1})  # its path is a setting, and must not change
    return table_run / "mine.csv"


def test_readers_of_a_changed_value_are_updated(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source has corrected a season: its readers follow, others do not."""
    store, command = tmp_path / "data" / "store" / "tables" / "cup", of_table(table)
    earlier = content(store)
    table.write_text(table.read_text().replace("2023,1,daytona,Ann,1,1", "2023,1,daytona,Cy,1,1"))
    assert main([*command[:-1], "race_results"]) == 0
    assert remade(capsys, command) == {"driver_features [2023]", "lap_telemetry [2023]"}
    changed = {path for path, data in content(store).items() if data != earlier[path]}
    assert changed == {"race_results/2023.parquet", "driver_features/2023.parquet"}
    assert remade(capsys, command) == set()


def test_a_file_that_no_run_recorded_is_kept_if_it_can_be_read(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = content(store)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "another_home"))
    (store / "driver_features" / "2024.parquet").unlink()
    assert remade(capsys, SMALL) == {"driver_features [2024]"}
    assert content(store) == before


def test_a_finished_race_that_the_season_lacks_is_read_and_nothing_is_read_twice(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = of_table(table)
    season_2023 = {"lap_telemetry [2023]", "race_results [2023]", "quarantine [2023]"}
    assert remade(capsys, command) == set()
    write_table(table, {2022: 2, 2023: 3})
    assert remade(capsys, command) == {*season_2023, "driver_features [2023]"}
    assert remade(capsys, command) == set()
    write_table(table, {2022: 2, 2023: 3, 2024: 1})
    assert {f"{name} [2024]" for name in ("race_results", "driver_features")} <= remade(capsys, command)
    assert remade(capsys, command) == set()


def test_a_corrected_result_is_read_by_the_update(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results change after the race, as by a disqualification; other seasons are left alone."""
    command = of_table(table)
    rows = table.read_text()
    table.write_text(
        rows.replace("2022,1,daytona,Ann,1,1", "2022,1,daytona,Ann,1,2").replace(
            "2022,1,daytona,Bo,2,2", "2022,1,daytona,Bo,2,1"
        )
    )
    assert main([*command, "--update"]) == 0
    out = capsys.readouterr().out
    assert "race_results [2022] was read before the source changed" in out
    assert "race_results [2023] was read" not in out
    stored = pl.read_parquet(tmp_path / "data/store/tables/cup/race_results/2022.parquet")
    assert stored.filter(round=1, finish_position=1)["driver"].to_list() == ["Bo"]
    assert remade(capsys, command) == set()


def test_a_source_without_an_answer_does_not_stop_the_update(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*of_table(table), "--seasons", "2022"]
    table.write_text("nothing that a table holds")
    (tmp_path / "data" / "store" / "tables" / "cup" / "driver_features" / "2022.parquet").unlink()
    assert main([*command, "--update"]) == 0
    out = capsys.readouterr().out
    assert "Not known whether the source has changed: " in out
    assert str(table) in out.replace("\n", "")
    assert "✓ driver_features [2022]" in out


@pytest.fixture(scope="module")
def printed() -> io.StringIO:
    """Buffer of the text that the run of `whole` prints."""
    return io.StringIO()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, printed: io.StringIO) -> Path:
    """Return a folder with all that a run makes."""
    with redirect_stdout(printed):
        return make(tmp_path_factory.mktemp("whole"), WHOLE)


@pytest.fixture
def whole_store(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied(whole, tmp_path, monkeypatch)


@pytest.mark.soak
def test_a_whole_run_ends_with_table_and_report(whole: Path, printed: io.StringIO) -> None:
    out = printed.getvalue()
    for archetype in ARCHETYPES:
        assert f"\n{archetype.label}" in out
    report = whole / "data" / "store" / "simulated" / "cup" / "calibration_report.html"
    assert str(report) in out.replace("\n", "")
    assert "<html" in report.read_text(encoding="utf-8")


@pytest.mark.soak
def test_one_deleted_file_of_each_asset_is_materialized_again_and_nothing_else(
    whole_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All at once, of the last season and of one archetype; the report stays as it was."""
    before = content(whole_store)
    kinds = {path.partition("/")[0]: path for path in sorted(before) if "superspeedway" not in path}
    kinds["catalogue"] = "catalogue.duckdb"
    lost = {path for path in kinds.values() if not path.endswith(".md")}
    graph = build_defs(Settings(seasons="2024,2025")).resolve_asset_graph()
    assert {name(path).split()[0] for path in lost} == {
        node.key.path[-1] for node in graph.asset_nodes if node.group_name != "probabilities"
    }
    for path in lost:
        (whole_store / path).unlink()
    assert remade(capsys, WHOLE) == {name(path) for path in lost}
    assert content(whole_store) == before
    assert remade(capsys, WHOLE) == set()


@pytest.mark.soak
def test_assets_of_one_step_are_materialized_together(
    whole_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was killed between the files of the next race leaves some of them."""
    before = content(whole_store)
    (whole_store / "forecast_chances" / "network.parquet").unlink()
    forecast = ("race_forecast", "forecast_chances", "forecast_events", "forecast_scenarios")
    assert remade(capsys, WHOLE) >= {f"{name} [network]" for name in forecast}
    assert content(whole_store) == before


@pytest.mark.soak
@pytest.mark.usefixtures("whole_store")
def test_changed_scenarios_reach_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """More scenarios a race: every archetype's numbers follow; networks and features do not."""
    more = [*WHOLE[:-1], "120"]
    made_again = remade(capsys, more)
    assert {"scenario_ensemble [network|2024]", "scenario_ensemble [network|2025]"} <= made_again
    assert {f"calibration_posterior [{archetype}|network]" for archetype in ARCHETYPES} <= made_again
    assert "calibration_report" in made_again
    assert not any(
        name.startswith(("causal_network", "driver_features", "race_results")) for name in made_again
    )
    assert remade(capsys, more) == set()
