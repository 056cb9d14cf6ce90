"""The UI as people use it, in a real browser on a real server: graph, partition, plots, a run."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import polars as pl
import pytest

from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints
from helpers.paths import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]
RUN_MS = 300_000
PREFIX = "simulated/cup"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The UI of a small store: two seasons, and what one archetype needs for its fit."""
    from benchmarks.screenshots import serve_ui

    folder = tmp_path_factory.mktemp("ui")
    (folder / "mine").mkdir()
    entries = SimulatedSource([2024, 2025], compile_constraints()).load_season(2025).race_results
    book = entries.select("season", "round", "driver", win=1 / pl.len().over("race_id"))
    book.write_csv(folder / "mine" / "book.csv")
    environment = {
        "CALIBRATION_FORECASTERS": str(folder / "mine"),
        "DAGSTER_HOME": str(folder / "home"),
        "CALIBRATION_STORE": str(folder / "store"),
        "CALIBRATION_SEASONS": "2024,2025",
        "CALIBRATION_SCENARIOS": "100",
    }
    fit = ["--archetypes", "intermediate", "--select", "+calibration_posterior,event_probabilities"]
    command = [sys.executable, "-m", "assets.cli", "run", *fit]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with serve_ui(environment) as address:
        yield address


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[object]:  # noqa: ARG001
    from benchmarks.screenshots import SIZE, open_browser

    with open_browser() as browser:
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(30_000)
        yield page


def test_graph_shows_the_way_from_laps_to_the_report(page, address: str) -> None:
    from benchmarks.screenshots import GRAPH_SIZE, SIZE, open_graph

    page.set_viewport_size(GRAPH_SIZE)  # what is out of sight is not drawn
    open_graph(page, address)
    for asset in ("lap_telemetry", "lap_aggregates", "driver_features", "calibration_report"):
        page.get_by_text(asset, exact=True).first.wait_for()
    page.set_viewport_size(SIZE)
    page.goto(
        f"{address}/assets/{PREFIX}/calibration_report?view=lineage&lineageScope=upstream&lineageDepth=20"
    )
    page.get_by_text("lap_telemetry", exact=True).first.wait_for()
    page.goto(f"{address}/assets/{PREFIX}/lap_telemetry?view=lineage&lineageScope=downstream&lineageDepth=20")
    page.get_by_text("calibration_report", exact=True).first.wait_for()


def test_a_forecasters_file_leads_to_the_leaderboard(page, address: str) -> None:
    from benchmarks.screenshots import GRAPH_SIZE, SIZE, open_partition

    open_partition(page, address, f"{PREFIX}/event_probabilities", "book")
    for entry in ("files", "overrounds", "left_out"):
        page.get_by_text(entry, exact=True).first.wait_for()
    page.get_by_text("mine/book.csv").first.wait_for()
    page.set_viewport_size(GRAPH_SIZE)  # what is out of sight is not drawn
    page.goto(
        f"{address}/assets/{PREFIX}/event_probabilities?view=lineage&lineageScope=downstream&lineageDepth=20"
    )
    for asset in ("market_scores", "leaderboard"):
        page.get_by_text(asset, exact=True).first.wait_for()
    page.set_viewport_size(SIZE)


def test_an_archetype_shows_its_numbers_checks_and_pictures(page, address: str) -> None:
    from benchmarks.screenshots import open_partition

    open_partition(page, address, f"{PREFIX}/calibration_posterior", "intermediate|network")
    for entry in ("worst_r_hat", "next_slope", "identification"):
        page.get_by_text(entry, exact=True).first.wait_for()
    slope = page.locator("tr").filter(has=page.get_by_text("slope", exact=True))
    slope.get_by_text("Show Markdown").click()
    picture = page.locator("img[alt=plot]").first
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 100
    page.goto(f"{address}/assets/{PREFIX}/calibration_posterior?view=checks")
    page.get_by_text("r_hat", exact=True).first.click()
    page.get_by_text("must be below 1.05; the worst is").first.wait_for()


def test_columns_are_described(page, address: str) -> None:
    page.goto(f"{address}/assets/{PREFIX}/driver_features?view=overview")
    page.get_by_text("Deviation from running_form on this archetype, shrunk").first.wait_for()


def test_one_partition_is_materialized_by_hand(page, address: str) -> None:
    from benchmarks.screenshots import open_partition

    open_partition(page, address, f"{PREFIX}/lap_aggregates", "2025")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="Launch 1 run").click()
    launched = page.get_by_text(re.compile("Launched run [0-9a-f]{8}")).first.inner_text()
    page.goto(f"{address}/runs")
    # The innermost element that holds both is the run's row.
    run = page.locator("div", has_text=launched.split()[-1]).filter(has_text="Manually launched").last
    run.get_by_text("Success", exact=True).wait_for(timeout=RUN_MS)
    assert "partition: 2025" in run.inner_text()
