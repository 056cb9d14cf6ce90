"""Benchmarks of speed and memory with tiny sizes, their result files and pages. No test asserts a time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pages import DOCS, PICTURES, TABLES, put_section, render_page
from benchmarks.performance import new_race, pipeline, samplers, scenarios, scores, telemetry
from benchmarks.performance.timing import TooSlowError, in_turn, measure_apart
from benchmarks.result_files import markdown_table, read_results, write_results
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import compile_constraints
from helpers.paths import ROOT

LOCK = ROOT / "benchmarks" / "requirements.lock"


def test_runs_take_turns() -> None:
    """Each program runs one extra turn that does not count, and no program runs twice in a row."""
    seen: list[str] = []
    taken = in_turn({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2)
    assert seen == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 2, "b": 2}


def test_a_table_replaces_the_text_between_its_marks() -> None:
    page = "Prose.\n<!-- a -->\nold\n<!-- end of a -->\nMore.\n<!-- b -->\nkept\n<!-- end of b -->\n"
    for text in ("first", "second"):
        page = put_section(page, "a", text)
    assert page == (
        "Prose.\n<!-- a -->\n\nsecond\n\n<!-- end of a -->\nMore.\n<!-- b -->\nkept\n<!-- end of b -->\n"
    )


def test_a_new_measurement_keeps_the_rows_of_others(tmp_path) -> None:
    key = ("seasons",)
    write_results("runs", [{"seasons": 4, "s": "9.0"}, {"seasons": 13, "s": "20"}], tmp_path, key)
    write_results("runs", [{"seasons": 4, "s": "8.0"}], tmp_path, key)
    assert read_results("runs", tmp_path) == [{"seasons": "13", "s": "20"}, {"seasons": "4", "s": "8.0"}]
    write_results("runs", [{"seasons": 40, "s": ""}], tmp_path)
    assert read_results("runs", tmp_path) == [{"seasons": "40", "s": ""}]


@pytest.mark.parametrize(
    "page", ["", "<!-- a -->", "<!-- end of a --><!-- a -->", "<!-- a --><!-- end of a -->" * 2]
)
def test_a_page_without_its_marks_is_refused(page) -> None:
    with pytest.raises(ValueError, match="<!-- a --> and then <!-- end of a -->, each once"):
        put_section(page, "a", "text")


@pytest.mark.parametrize("page", TABLES)
def test_tables_of_pages_agree_with_the_result_files(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert render_page(page, text) == text, "write the tables: python -m benchmarks.pages"


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_are_drawn_from_the_result_files(picture: str) -> None:
    result, draw = PICTURES[picture]
    assert draw(read_results(result)).axes
    assert f"images/{picture}.png" in (DOCS / "performance.md").read_text(encoding="utf-8")


def test_exact_scores_agree() -> None:
    """The scores agree in both layouts, from scenarios and from the table, for every installed tool."""
    x, y, finish, result = scores.examples(scores.SMALL)
    expected = scores.agree(scores.ensemble_runs(x, y))
    assert scores.agree(scores.ensemble_runs(np.asfortranarray(x), y)) == pytest.approx(expected, abs=1e-12)
    assert scores.agree(scores.position_runs(finish, result)) > 0


def test_a_score_that_disagrees_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must agree within 1e-10: expected 1.0, got \{'wrong': 1.1\}"):
        scores.agree({"right": lambda: 1.0, "wrong": lambda: 1.1})


def test_scores_are_measured() -> None:
    rows = scores.measure(scores.SMALL)["scores"]
    ours = [row for row in rows if row["tool"] == "compute_crps"]
    assert [row["predictions"] for row in ours] == [
        "ensembles, scenarios first",
        "ensembles, members together",
    ]
    assert {row["ratio"] for row in ours} == {"1.00"}
    assert rows[0].keys() == read_results("scores")[0].keys()


def test_plain_tools_answer_as_the_aggregation(tmp_path) -> None:
    """All columns of all cars agree, on generated laps with cautions."""
    from polars.testing import assert_frame_equal

    from benchmarks.performance import aggregating

    paths = telemetry.write_laps(tmp_path, 2 * telemetry.N_CARS * telemetry.N_LAPS)
    ours = aggregating.ours(paths)
    assert ours.height == 2 * telemetry.N_CARS
    assert ours.null_count().sum_horizontal().item() == 0
    for other in (aggregating.plain_duckdb, aggregating.plain_polars):
        assert_frame_equal(other(paths).select(ours.columns), ours, check_dtypes=False, rel_tol=1e-9)


def test_a_wrong_answer_about_laps_is_refused() -> None:
    right, wrong = {"sums": {"rows": 2.0, "green_pace": 0.1}}, {"sums": {"rows": 2.0, "green_pace": 0.2}}
    with pytest.raises(
        ValueError, match="plain Polars must give our answer over 1 files, differs in green_pace"
    ):
        telemetry.check_answers({"ours": right, "plain Polars": wrong}, 1)


@pytest.mark.slow
def test_a_process_of_its_own_answers_fails_or_is_too_slow(tmp_path) -> None:
    telemetry.write_laps(tmp_path, telemetry.N_CARS * telemetry.N_LAPS)
    module, request = "benchmarks.performance.aggregating", {"tool": "ours", "folder": str(tmp_path)}
    found = measure_apart(module, request, 120)
    assert found["sums"]["rows"] == telemetry.N_CARS
    assert 2**25 < found["peak"] < 2**31
    with pytest.raises(RuntimeError, match=r"No module named benchmarks\.performance\.nowhere"):
        measure_apart("benchmarks.performance.nowhere", {}, 120)
    with pytest.raises(TooSlowError, match=r"over 0 s"):
        measure_apart(module, request, 0.01)


def test_scenarios_in_numpy_are_races() -> None:
    finish = scenarios.numpy_batch(8, 50, seed=0)
    np.testing.assert_array_equal(np.sort(finish, axis=1), np.tile(np.arange(1, 9), (50, 1)))
    assert finish[:, 0].mean() < finish[:, -1].mean()


def test_a_scaled_run_is_marked() -> None:
    """The effective samples are those of the smaller cell; the time is scaled by the ratio of gradients."""
    cell = samplers.Cell("latent", 3600, (4, 300, 300), 1, others=False)
    ours = {"sampler": samplers.OURS, "first": [8.0, 800.0], "warm": [[2.0, 1000.0]], "gradient": 0.1}
    other = {"sampler": "BlackJAX", "first": None, "warm": [], "gradient": 0.6}
    before = [ours, {"sampler": "BlackJAX", "first": [9.0, 80.0], "warm": [[10.0, 100.0]], "gradient": 0.2}]
    samplers.scale_up([ours, other], before)
    rows = samplers.table_rows(cell, [ours, other])
    columns = ("sampler", "first_s", "s", "ess", "first_ess_per_s", "ess_per_s", "ratio", "scaled")
    assert [[row[column] for column in columns] for row in rows] == [
        ["this project", "8.0", "2.00", "1000", "100.0", "500", "1.00", "false"],
        ["BlackJAX", "", "30.0", "100", "", "3.33", "150", "true"],
    ]
    assert {"comparison", *rows[0], "measured_on"} == read_results("samplers")[0].keys()


def test_cells_that_do_not_fit_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "memory_bytes", lambda: 24 * 10**9)
    assert pipeline.refused(pipeline.Cell(4, 100_000)) is None
    reason = "refused: 3 x 20 GB of ensembles exceed 24 GB of memory"
    found = pipeline.measure(pipeline.SMALL, [pipeline.Cell(40, 100_000)])
    assert found.keys() == {"pipeline"}
    assert [row["note"] for row in found["pipeline"]] == [reason]
    assert found["pipeline"][0].keys() == read_results("pipeline")[0].keys()


def test_pipelines_are_measured_by_asset() -> None:
    steps = {
        "fit": {"seconds": 3.0, "peak": 2**21, "partitions": 2},
        "draw": {"seconds": 5.0, "peak": 2**20, "partitions": 1},
    }
    cell = pipeline.Cell(4, 1000)
    found = {"wall": 10.0, "peak": 2**22, "stored": 2**20, "assets": steps}
    assert list(pipeline.overview_row(cell, found).values()) == [4, 1000, "10", "8", "4", "19", "1", ""]
    rows = pipeline.asset_rows(cell, found)
    assert [list(row.values()) for row in rows] == [
        [4, 1000, "draw", "5.0", "1"],
        [4, 1000, "fit", "3.0", "2"],
    ]
    assert {*rows[0], "measured_on"} == read_results("pipeline_assets")[0].keys()


@pytest.mark.slow
def test_a_process_has_a_later_date() -> None:
    """The settings accept future seasons in a process that has imported the module."""
    code = (
        "import benchmarks.performance.later, datetime\n"
        "from assets import settings\n"
        "from dagster._time import get_current_datetime\n"
        "now = datetime.datetime.now(datetime.UTC).year\n"
        "assert settings.datetime.datetime.now(datetime.UTC).year - now == 7\n"
        "assert get_current_datetime().year - now == 7\n"
    )
    environment = {**os.environ, pipeline.LATER: "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_table_is_as_wide_as_its_header() -> None:
    widths = {line.count("|") for line in markdown_table([{"a": "1", "b": "2", "c": "3"}]).splitlines()}
    assert widths == {4}


def test_the_lock_of_the_benchmarks_fits_the_project() -> None:
    """Both locks pin equal versions, every package has hashes, and no host is named."""

    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([^ ]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE))

    ours, theirs = pins(ROOT / "requirements.lock"), pins(LOCK)
    assert {"pymc", "nutpie", "blackjax", "numba"} <= theirs.keys()
    assert not {"pymc", "nutpie", "blackjax"} & ours.keys()
    assert {name: version for name, version in theirs.items() if ours.get(name, version) != version} == {}
    assert "://" not in LOCK.read_text(encoding="utf-8")
    blocks = re.split(r"^(?=[\w.-]+==)", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.slow
def test_a_race_held_back_is_the_tables_last(tmp_path) -> None:
    """The source of tables reads all laps of all races, a year earlier than simulated."""
    read = []
    for with_last in (False, True):
        n_races, n_laps = new_race.write_tables(tmp_path, 1, with_last=with_last)
        source = TablesSource(
            str(tmp_path / "results.parquet"), str(tmp_path / "laps.parquet"), compile_constraints()
        )
        season = source.load_season(new_race.FIRST_SEASON)
        assert season.lap_telemetry.height == n_laps
        read.append(season.race_results["race_id"].unique().sort().to_list())
        assert len(read[-1]) == n_races
    before, after = read
    assert after[:-1] == before
