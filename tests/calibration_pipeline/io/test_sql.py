"""The catalogue: SQL queries of the stored values, and no access to anything else."""

import re
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest
from upath import UPath

from assets.cli import main
from assets.flow.report import catalogue
from assets.settings import Settings
from calibration_pipeline.io.sql import (
    TABLES,
    build_catalogue,
    create_views,
    run_query,
    stored_tables,
    view_columns,
)
from calibration_pipeline.io.stored_files import write_atomically
from calibration_pipeline.io.stored_values import encode
from calibration_pipeline.schemas.contracts import BOUNDARIES, BY_FORECASTER, BY_FORECASTER_AND_SEASON
from calibration_pipeline.sources.quarantine import QuarantineLog
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints
from helpers.clusters import BUCKET, object_store
from helpers.paths import ROOT

DOCUMENT = ROOT / "docs" / "sql.md"
EXAMPLES = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def results() -> pl.DataFrame:
    return SimulatedSource([2024], compile_constraints()).load_season(2024).race_results


def fill(store: UPath, results: pl.DataFrame) -> None:
    """Store two seasons of results, and every other table without rows."""
    for asset in TABLES:
        where = f"{asset}/my model" if asset in BY_FORECASTER else asset
        where = f"{asset}/my model/2025" if asset in BY_FORECASTER_AND_SEASON else where
        frames = {f"{where}.parquet": BOUNDARIES[asset].empty()}
        if asset == "race_results":
            frames = {f"{asset}/{key}.parquet": results for key in ("2024", "2025")}
        for name, frame in frames.items():
            write_atomically(store / name, encode(frame))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, results: pl.DataFrame) -> UPath:
    """Return a store that tests only query."""
    store = UPath(tmp_path_factory.mktemp("queried") / "store" / "simulated" / "cup")
    fill(store, results)
    return store


@pytest.fixture
def own_store(tmp_path: Path, store: UPath) -> UPath:
    """Return a copy, for a test that changes it."""
    return UPath(shutil.copytree(store, tmp_path / "store" / "simulated" / "cup"))


def test_a_view_holds_all_partitions(store: UPath, results: pl.DataFrame) -> None:
    answer = run_query(store, "SELECT count(*) AS cars, max(season) AS newest FROM race_results", 5)
    assert answer.columns == ("cars", "newest")
    assert answer.rows == [(2 * results.height, 2024)]
    assert set(stored_tables(store)) == set(TABLES)


def test_a_table_of_several_forecasters_names_each(tmp_path: Path) -> None:
    events = pl.concat(
        [
            BOUNDARIES["forecast_events"].empty(),
            pl.DataFrame({"event": ["count(dnf) >= 8"], "predicted": [0.5]}),
        ],
        how="diagonal",
    )
    store = UPath(tmp_path) / "cup [2025] *?"  # no pattern
    for forecaster in ("network", "my.model"):
        write_atomically(store / "forecast_events" / f"{forecaster}.parquet", encode(events))
    answer = run_query(store, "SELECT forecaster, event FROM forecast_events ORDER BY 1", 5)
    assert answer.rows == [("my.model", "count(dnf) >= 8"), ("network", "count(dnf) >= 8")]


def test_a_table_by_forecaster_and_season_names_each_forecaster(tmp_path: Path) -> None:
    log = QuarantineLog(2025)
    log.add("race", "left out", "it lacks a car", place="sim.csv", race_id=1)
    store = UPath(tmp_path) / "cup [2025] *?"  # no pattern
    for partition in ("network/2024", "my.model/2024", "my.model/2025"):
        write_atomically(store / "scenario_quarantine" / f"{partition}.parquet", encode(log.frame()))
    answer = run_query(store, "SELECT forecaster, rule FROM scenario_quarantine ORDER BY 1", 5)
    whole = run_query(store, "FROM scenario_quarantine", 1)
    assert whole.columns == tuple(view_columns("scenario_quarantine"))
    names = ("my.model", "my.model", "network")
    assert answer.rows == [(name, "it lacks a car") for name in names]


def test_only_so_many_rows_are_returned(store: UPath) -> None:
    assert len(run_query(store, "FROM race_results", 7).rows) == 7


def test_an_object_store_is_asked_alike(results: pl.DataFrame) -> None:
    store = UPath("memory://catalogue-test/simulated/cup")
    fill(store, results)
    assert run_query(store, "SELECT count(*) FROM race_results", 1).rows == [(2 * results.height,)]


@pytest.mark.server
def test_a_real_object_store_is_asked_alike_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: pl.DataFrame
) -> None:
    with object_store(tmp_path) as reach:
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
        store = UPath(f"s3://{BUCKET}/store/simulated/cup")
        fill(store, results)
        assert run_query(store, "SELECT count(*) FROM race_results", 1).rows == [(2 * results.height,)]
        with pytest.raises(ValueError, match="disabled by configuration"):
            run_query(store, "SELECT * FROM read_parquet('s3://another/x.parquet')", 1)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_questions_of_the_documentation_are_answered(store: UPath, example: str) -> None:
    assert run_query(store, example, 100).columns


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("", "one query at a time; got 0"),
        ("FROM race_results; FROM verdict", "one query at a time; got 2"),
        ("COPY race_results TO 'stolen.csv'", "Only queries are answered; got a statement COPY"),
        ("CREATE TABLE t (a INTEGER)", "Only queries are answered; got a statement CREATE"),
        ("ATTACH 'other.duckdb'", "Only queries are answered; got a statement ATTACH"),
        ("EXPLAIN ANALYZE FROM race_results", "Only queries are answered; got a statement EXPLAIN"),
        ("SET enable_external_access = true", "Only queries are answered; got a statement SET"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("FROM '/etc/passwd.csv'", "disabled by configuration"),
        ("FROM read_blob('/etc/passwd')", "disabled by configuration"),
        ("FROM read_json('/etc/passwd')", "disabled by configuration"),
        ("FROM sniff_csv('/etc/passwd')", "disabled by configuration"),
        ("FROM glob('/etc/*')", "disabled by configuration"),
        ("FROM parquet_metadata('/etc/passwd')", "disabled by configuration"),
        ("FROM query('FROM read_text(''/etc/passwd'')')", "disabled by configuration"),
        ("FROM sqlite_scan('/etc/passwd', 't')", "disabled by configuration"),
        ("FROM postgres_scan('host=127.0.0.1', 'public', 't')", "postgres_scan does not exist"),
        ("FROM duckdb_secrets()", "disabled by configuration"),
        ("SELECT getenv('HOME')", "getenv does not exist"),
        ("SELECT * FROM read_text('https://example.org/')", "disabled by configuration"),
        ("SELECT * FROM read_parquet('s3://bucket/x.parquet')", "disabled by configuration"),
        ("SELECT * FROM read_parquet('{store}_other/x.parquet')", "disabled by configuration"),
        ("SELECT * FROM read_text('/proc/self/environ')", "disabled by configuration"),
        ("COPY (SELECT 1) TO '{store}/race_results/2026.parquet'", "got a statement COPY"),
        ("EXPORT DATABASE 'stolen'", "Only queries are answered"),
        ("INSTALL httpfs", "Only queries are answered"),
        ("LOAD httpfs", "Only queries are answered"),
        ("CREATE SECRET s (TYPE s3)", "Only queries are answered"),
        ("DROP VIEW race_results", "Only queries are answered"),
        ("INSERT INTO race_results SELECT * FROM race_results", "Only queries are answered"),
        ("CALL pragma_version()", "Only queries are answered"),
        ("PRAGMA database_list", "Only queries are answered"),
        ("PREPARE p AS SELECT 1", "Only queries are answered"),
        ("CHECKPOINT", "Only queries are answered"),
        ("USE memory", "Only queries are answered"),
        ("SELECT * FROM read_parquet('{store}/../other/x.parquet')", "disabled by configuration"),
        ("FROM nothing", r"nothing does not exist(.|\n)*Tables: blend_weights, "),
        ("SELEC 1", "syntax error"),
    ],
)
def test_statements_that_do_not_query_the_store_are_refused(
    store: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(store.parents[2].rglob("*"))
    with pytest.raises(ValueError, match=problem):
        run_query(store, question.format(store=store), 5)
    assert list(tmp_path.rglob("*")) == []
    assert sorted(store.parents[2].rglob("*")) == before


def test_a_damaged_table_is_named_and_the_others_are_answered(own_store: UPath) -> None:
    damaged = own_store / "race_results" / "2025.parquet"
    damaged.write_bytes(damaged.read_bytes()[:200])
    assert run_query(own_store, "FROM verdict", 5).rows == []
    with pytest.raises(ValueError, match=r"race_results cannot be read: .*2025\.parquet"):
        run_query(own_store, "FROM race_results", 5)


def test_the_asset_holds_views_with_described_columns(
    store: UPath, tmp_path: Path, results: pl.DataFrame
) -> None:
    made = catalogue(Settings(store=str(store.parents[1])), calibration_report=store)
    views = {record.data["view"]: record.data["rows"] for record in made.metadata["views"].records}
    assert views["race_results"] == 2 * results.height
    (tmp_path / "catalogue.duckdb").write_bytes(made.value[".duckdb"])
    with duckdb.connect(tmp_path / "catalogue.duckdb", read_only=True) as connection:
        views = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
        about = connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'lap_telemetry' AND column_name = 'lap'"
        ).fetchall()
        rows = connection.execute("SELECT count(*) FROM race_results").fetchall()
    assert views == set(TABLES)
    assert about == [("Lap, 0 is the grid",)]
    assert rows == [(2 * results.height,)]


def test_a_table_of_an_earlier_contract_is_read_without_its_new_columns(own_store: UPath) -> None:
    """A stored table may lack a column that was added to its contract later."""
    verdicts = BOUNDARIES["verdict"].empty()
    older = verdicts.drop("races_needed")
    write_atomically(own_store / "verdict.parquet", encode(older))
    assert run_query(own_store, "FROM verdict", 5).columns == tuple(older.columns)
    with pytest.raises(ValueError, match='"races_needed" not found'):
        run_query(own_store, "SELECT races_needed FROM verdict", 5)
    _, views = build_catalogue(own_store)
    assert set(views["view"]) == set(TABLES)


def test_the_asset_names_tables_that_cannot_be_read(own_store: UPath) -> None:
    (own_store / "verdict.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"must be materialized again: verdict: .*verdict\.parquet"):
        catalogue(Settings(store=str(own_store.parents[1])), calibration_report=own_store)


def test_views_of_an_empty_store_are_none(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        assert create_views(connection, UPath(tmp_path)) == {}
        assert connection.execute("SHOW TABLES").fetchall() == []


def test_the_command_answers_lists_and_refuses(
    store: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    options = ["--store", str(store.parents[1])]
    assert main(["sql", *options, "SELECT count(*) AS cars FROM race_results WHERE round = 1"]) == 0
    assert "cars" in capsys.readouterr().out
    assert main(["sql", *options, "FROM race_results"]) == 0
    out = capsys.readouterr().out
    assert "Only the first 200 rows are shown" in out
    header = next(line for line in out.splitlines() if "race_id" in line)
    assert "finish_position" in header, "in a pipe a row is one line"
    assert main(["sql", *options]) == 0
    assert "Lap, 0 is the grid" in capsys.readouterr().out
    assert main(["sql", *options, "DROP VIEW race_results"]) == 1
    assert "Only queries are answered" in capsys.readouterr().err
    assert main(["sql", "--store", str(store / "elsewhere")]) == 1
    assert "calibration-pipeline run stores them" in capsys.readouterr().err
