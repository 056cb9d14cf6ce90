"""The command line: quick help, one message for each mistake, exit codes, whole runs."""

import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import xarray as xr
from upath import UPath

from assets.cli import main
from assets.definitions import build_defs
from assets.orchestration.staleness import Lineage
from assets.orchestration.tasks import with_missing_inputs
from assets.settings import load_settings
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.summaries import convergence_by_fold
from calibration_pipeline.schemas.partition_keys import is_chosen
from calibration_pipeline.sources.news import read_news
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.terminal.log import log_to
from calibration_pipeline.tracks import compile_constraints
from helpers.clusters import start
from helpers.example_tables import write_results, write_table
from helpers.paths import REAL_DATA, ROOT

REAL_FEED = REAL_DATA / "nascar_feed_2020_2021.zip"
INGEST = ["--select", "track_constraints,lap_telemetry,race_results", "--seasons", "2024,2025"]


def test_help_loads_nothing_heavy() -> None:
    """Help answers at once because it imports neither Dagster nor JAX."""
    code = (
        "import sys\nfrom assets.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'dagster', 'jax', 'numpyro', 'arviz', 'polars', 'xarray'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


def test_settings_shows_values_and_origins(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / ".env").write_text("CALIBRATION_SEED=7\n")
    monkeypatch.delenv("CALIBRATION_STORE")
    monkeypatch.setenv("CALIBRATION_SCENARIOS", "300")
    assert main(["settings", "--source", "nascar_feed", "--seasons", "2020,2021"]) == 0
    lines = {words[0]: words[1:] for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert lines["CALIBRATION_SOURCE"] == ["nascar_feed", "option"]
    assert lines["CALIBRATION_SEASONS"] == ["2020-2021", "option"]
    assert lines["CALIBRATION_SCENARIOS"] == ["300", "environment"]
    assert lines["CALIBRATION_SEED"] == ["7", ".env"]
    assert lines["CALIBRATION_STORE"] == ["data/store", "default"]


@pytest.mark.parametrize("command", ["run", "report", "settings", "ui"])
def test_wrong_setting_gets_one_line_and_exit_code_2(
    project: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--source", "telepathy"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "CALIBRATION_SOURCE" in error
    assert "simulated, nascar_feed or tables" in error
    assert not (project / ".dagster_home").exists()


def test_values_with_brackets_are_shown_as_they_are(
    project: Path,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Brackets are no markup of the terminal."""
    assert main(["settings", "--store", "[red]/a[/b]"]) == 0
    assert "[red]/a[/b]" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "verify"])
def test_seasons_that_the_source_cannot_have_get_one_line(
    project: Path,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    assert main([command, "--seasons", "2016-2019"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Season 2016 cannot be simulated" in error


@pytest.mark.soak
def test_tables_have_the_seasons_that_are_in_them(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = project / "mine.csv"
    write_results(table, [2022, 2023], 2)
    tables = ["--source", "tables", "--results", str(table)]
    assert main(["settings", *tables]) == 0
    assert "2022-2023" in capsys.readouterr().out
    assert main(["run", *tables, "--select", "+driver_features"]) == 0
    assert "Seasons 2022-2023 of tables" in capsys.readouterr().out
    stored = pl.read_parquet(project / "data" / "store" / "tables" / "cup" / "race_results" / "2023.parquet")
    assert stored["race_order"].unique().sort().to_list() == [202301, 202302]
    assert main(["run", *tables, "--seasons", "2021"]) == 1
    assert f"Season 2021 is not in {table}; it has 2022, 2023" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "tables"], "source tables reads it: --results PATH"),
        (["--results", "mine.csv"], "is for source tables alone"),
        (["--source", "tables", "--results", "none.csv"], "none.csv does not exist"),
        (["--source", "nascar_feed", "--feed-url", "none.zip"], "none.zip does not exist"),
        (["--source", "nascar_feed", "--feed-url", "."], "has no season with a finished race"),
    ],
)
@pytest.mark.parametrize("command", ["run", "settings"])
def test_missing_and_idle_tables_get_one_line(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(project)
    assert main([command, *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_local_feed_has_the_seasons_that_are_in_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(project / "feed.zip", "w") as archive:
        for name in (
            "2999/race_list_basic.json",
            "2020/race_list_basic.json",
            "2021/1/3/weekend-feed.json",
            "notes/2019/x.txt",
            "1.txt",
        ):
            archive.writestr(name, "{}")
    assert main(["settings", "--source", "nascar_feed", "--feed-url", str(project / "feed.zip")]) == 0
    assert "2020-2021" in capsys.readouterr().out


def test_a_single_archetype_needs_the_fits_of_all_and_no_scores_of_others(project: Path) -> None:  # noqa: ARG001
    settings = load_settings()
    with dg.DagsterInstance.ephemeral() as instance:
        lineage = Lineage(build_defs(settings).resolve_asset_graph(), settings, instance)
        wanted = {
            (asset, partition)
            for asset in lineage.keys
            for partition in lineage.partitions(asset)
            if is_chosen(partition, ["intermediate"])
        }
        added = with_missing_inputs(lineage, wanted) - wanted
    others = {f"{archetype}|network" for archetype in ARCHETYPES} - {"intermediate|network"}
    assert added == {
        (asset, other) for asset in ("archetype_races", "calibration_posterior") for other in others
    }


def test_unknown_archetype_and_asset_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["run", "--archetypes", "dirt"]) == 2
    assert "short_track" in capsys.readouterr().err
    assert main(["run", "--select", "race_result"]) == 1
    error = capsys.readouterr().err
    assert "'race_result'" in error
    assert "race_results" in error
    assert main(["run", "--select", "race_results("]) == 1
    assert "'race_results(' is no selection of assets" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_on_a_full_disk_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The command's own line names the full disk; a traceback of the log would hide that line."""
    with log_to(Path("/dev/full"), verbose=False):
        logging.getLogger("assets.somewhere").error("there is no room for this")
    assert capfd.readouterr() == ("", "")


def test_refresh_needs_a_race_of_the_feed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["run", "--refresh", "2025"]) == 2
    assert "must be a season and a round, as in 2025-5; got '2025'" in capsys.readouterr().err
    assert main(["run", "--refresh", "2025-5"]) == 1
    assert "Race 5 of 2025 needs no refresh: it is simulated." in capsys.readouterr().err


def test_refresh_needs_a_season_in_force(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["run", "--seasons", "2024-2025", "--refresh", "2020-5"]) == 2
    assert (
        "Option --refresh must be a race of the seasons in force, 2024-2025; got '2020-5'. "
        "Option --seasons sets the seasons."
    ) in " ".join(capsys.readouterr().err.split())


def test_a_refreshed_race_of_an_old_season_is_news(project: Path) -> None:
    """Only the last two seasons are asked for news, and a season that was refreshed."""
    source = SimulatedSource([2022, 2023, 2024], compile_constraints())
    for season in source.seasons:
        path = project / "race_results" / f"{season}.parquet"
        path.parent.mkdir(exist_ok=True)
        source.load_season(season).race_results.write_parquet(path)
    asked = [read_news(source, UPath(project), source.seasons, refreshed=again)[0] for again in ([], [2022])]
    assert [list(news) for news in asked] == [[2023, 2024], [2022, 2023, 2024]]


def test_a_store_that_cannot_be_reached_gets_one_line(
    project: Path,  # noqa: ARG001
    no_credentials: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CALIBRATION_STORE", f"{no_credentials}/prefix")
    assert main(["report"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("A file cannot be read or written: NoCredentialsError Unable to locate")
    assert error.count("\n") == 1


def test_a_home_that_cannot_be_written_gets_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "file").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(project / "file" / "home"))
    for command in ("run", "ui", "verify"):
        assert main([command]) == 1
        assert capsys.readouterr().err.startswith(
            "DAGSTER_HOME cannot be written: [Errno 20] Not a directory"
        )


def test_a_missing_report_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["report"]) == 1
    assert "no report" in capsys.readouterr().err


def test_report_prints_the_newest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, source in ((100, "simulated"), (0, "nascar_feed")):
        folder = project / "data" / "store" / source / "cup"
        folder.mkdir(parents=True)
        for suffix in (".html", ".md"):
            page = folder / f"calibration_report{suffix}"
            page.write_text(f"[report] of {source}")
            os.utime(page, (time.time() - age,) * 2)
    assert main(["report"]) == 0
    out = capsys.readouterr().out
    assert "[report] of nascar_feed" in out
    assert "of simulated" not in out
    assert "nascar_feed/cup/calibration_report.html" in out.replace("\n", "")


def test_run_prints_progress_and_stores(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *INGEST]) == 0
    out = capsys.readouterr().out
    for line in (
        "track_constraints",
        "lap_telemetry, quarantine, race_results [2024]",
        "lap_telemetry, quarantine, race_results [2025]",
    ):
        assert line in out
    assert "DEBUG" not in out
    assert "Report:" not in out
    stored = project / "data" / "store" / "simulated" / "cup" / "race_results" / "2025.parquet"
    assert pl.read_parquet(stored)["season"].unique().to_list() == [2025]
    assert (project / ".dagster_home" / "dagster.yaml").exists()


def test_failure_names_asset_partition_and_cause_and_keeps_the_stored_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feed = project / "feed"
    feed.mkdir()
    earlier = project / "data" / "store" / "nascar_feed" / "cup" / "race_results" / "2021.parquet"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"the last good version")
    code = main(["run", "--source", "nascar_feed", "--feed-url", str(feed), "--seasons", "2021"])
    error = capsys.readouterr().err
    assert code == 1
    assert "lap_telemetry, quarantine, race_results [2021]: Season 2021 is not in the feed" in error
    assert "Traceback" not in error
    assert earlier.read_bytes() == b"the last good version"
    assert "Stack Trace" in (project / ".dagster_home" / "calibration.log").read_text()


@pytest.mark.slow
def test_a_selection_brings_the_inputs_that_are_missing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(project / "mine.csv", {2022: 1})
    command = [
        "run",
        "--source",
        "tables",
        "--results",
        str(project / "mine.csv"),
        "--select",
        "lap_aggregates",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "lap_telemetry [2022] is an input that is missing, and is materialized" in out
    telemetry = project / "data" / "store" / "tables" / "cup" / "lap_telemetry" / "2022.parquet"
    before = telemetry.stat().st_mtime_ns
    assert main(command) == 0
    assert "is missing" not in capsys.readouterr().out
    assert telemetry.stat().st_mtime_ns == before


@pytest.mark.slow
def test_an_interrupt_within_a_step_ends_the_run_as_interrupted(project: Path) -> None:
    """Dagster records a failed step. The step runs in the command's own process."""
    words = ["run", "--seasons", "2024", "--select", "+driver_features,causal_network"]
    process = start(words, {"DAGSTER_HOME": str(project / "home")})
    assert process.stdout is not None
    with process.stdout:
        out = next(line for line in process.stdout if "✓ track_constraints" in line)
        process.send_signal(signal.SIGINT)
        out += process.stdout.read()
    assert process.wait(timeout=60) == 130, out
    assert "Interrupted; what was finished is kept." in out
    assert "InterruptedError" not in out


@pytest.mark.soak
def test_a_run_with_a_closed_output_ends_with_its_processes(project: Path) -> None:
    words = ["run", "--seasons", "2024,2025", "--select", "+driver_features", "--executor", "process_pool"]
    process = start(words, {"DAGSTER_HOME": str(project / "home")}, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout:
        next(line for line in process.stdout if "✓ lap_telemetry" in line)
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


@pytest.mark.soak
def test_a_table_of_your_own_ends_in_a_report(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = project / "mine.csv"
    write_results(table, [2022, 2023], 14)
    options = ["--source", "tables", "--results", str(table), "--scenarios", "200", "--fold-races", "7"]
    assert main(["run", *options]) == 0
    assert "calibration_report.html" in capsys.readouterr().out.replace("\n", "")
    report = project / "data" / "store" / "tables" / "cup" / "calibration_report.md"
    text = report.read_text().replace("\\", "")
    assert table.name in text
    assert str(table) not in text


@pytest.mark.soak
@pytest.mark.parametrize("update", [[], ["--update"]])
def test_one_archetype_on_a_fresh_store_is_scored_and_reported(
    project: Path, capsys: pytest.CaptureFixture[str], update: list[str]
) -> None:
    options = ["--seasons", "2024,2025", "--scenarios", "100", "--archetypes", "intermediate", *update]
    assert main(["run", *options]) == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert "calibration_posterior [road_course|network] is an input that is missing" in out
    store = project / "data" / "store" / "simulated" / "cup"
    for asset in ("recalibrated_forecast", "backtest", "verdict"):
        assert [path.stem for path in (store / asset).glob("*/*")] == ["network"]
        assert (store / asset / "intermediate").is_dir()
    assert "Intermediate" in (store / "calibration_report.md").read_text()


@pytest.mark.soak
@pytest.mark.real
@pytest.mark.skipif(not REAL_FEED.exists(), reason=f"optional real seasons are absent: {REAL_FEED}")
def test_two_real_seasons_end_in_a_report_of_four_archetypes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2021 is scored, out of sample; races without a fit keep the raw forecast; every fit converged."""
    options = ["--source", "nascar_feed", "--seasons", "2020,2021", "--feed-url", str(REAL_FEED)]
    assert main(["run", *options, "--scenarios", "300"]) == 0
    assert "calibration_report.html" in capsys.readouterr().out.replace("\n", "")
    store = project / "data" / "store" / "nascar_feed" / "cup"
    n_scored = 0
    for archetype in ARCHETYPES:
        backtest = xr.open_dataset(store / "backtest" / archetype / "network.nc", engine="h5netcdf").load()
        n_scored += backtest.sizes["race"]
        assert set(backtest["season"].values.tolist()) == {2021}
        assert (backtest["calibration_as_of"] < backtest["race_order"]).all()
        kept = backtest.isel(race=backtest["n_calibration_races"].values == 0)
        assert kept["raw"].equals(kept["recalibrated"].rename("raw"))
        fit = xr.open_datatree(store / "calibration_posterior" / archetype / "network.nc", engine="h5netcdf")
        assert float(convergence_by_fold(fit)["r_hat"].max()) < 1.05
    assert n_scored == 35
