"""The command line: quick help, one message for each mistake, exit codes, runs that survive being killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import xarray as xr
from polars.testing import assert_frame_equal

from assets.cli import main
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.summaries import convergence_by_fold

ROOT = Path(__file__).parents[1]
REAL_FEED = ROOT.parent / "shared" / "data" / "nascar_feed_2020_2021.zip"
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
    assert "simulated or nascar_feed" in error
    assert not (project / ".dagster_home").exists()


def test_unknown_archetype_and_asset_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["run", "--archetypes", "dirt"]) == 2
    assert "short_track" in capsys.readouterr().err
    assert main(["run", "--select", "race_result"]) == 1
    error = capsys.readouterr().err
    assert "'race_result'" in error
    assert "race_results" in error


def test_report_says_when_there_is_none(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["report"]) == 1
    assert "no report" in capsys.readouterr().err


def test_report_prints_the_newest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, source in ((100, "simulated"), (0, "nascar_feed")):
        folder = project / "data" / "store" / source
        folder.mkdir(parents=True)
        for suffix in (".html", ".md"):
            page = folder / f"calibration_report{suffix}"
            page.write_text(f"[report] of {source}")
            os.utime(page, (time.time() - age,) * 2)
    assert main(["report"]) == 0
    out = capsys.readouterr().out
    assert "[report] of nascar_feed" in out
    assert "of simulated" not in out
    assert "nascar_feed/calibration_report.html" in out.replace("\n", "")


def test_run_tells_progress_and_stores(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *INGEST]) == 0
    out = capsys.readouterr().out
    for line in (
        "track_constraints",
        "lap_telemetry, race_results [2024]",
        "lap_telemetry, race_results [2025]",
    ):
        assert line in out
    assert "DEBUG" not in out
    stored = project / "data" / "store" / "simulated" / "race_results" / "2025.parquet"
    assert pl.read_parquet(stored)["season"].unique().to_list() == [2025]
    assert (project / ".dagster_home" / "dagster.yaml").exists()


def test_failure_names_asset_partition_and_cause_and_keeps_what_was_there(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feed = project / "feed"
    feed.mkdir()
    earlier = project / "data" / "store" / "nascar_feed" / "race_results" / "2021.parquet"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"the last good version")
    code = main(["run", "--source", "nascar_feed", "--feed-url", str(feed), "--seasons", "2021"])
    error = capsys.readouterr().err
    assert code == 1
    assert "lap_telemetry, race_results [2021]: Season 2021 is not in the feed" in error
    assert "Traceback" not in error
    assert earlier.read_bytes() == b"the last good version"
    assert "Stack Trace" in (project / ".dagster_home" / "calibration.log").read_text()


def test_missing_upstream_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["run", "--select", "lap_aggregates", "--seasons", "2025"]) == 1
    assert "lap_telemetry [2025] has not been materialized" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_run_leaves_nothing_half_written_and_the_next_completes(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CALIBRATION_STORE": str(tmp_path / "store"),
        "DAGSTER_HOME": str(tmp_path / "home"),
    }
    seasons = ["--select", "+driver_features", "--seasons", "2025"]
    command = [sys.executable, "-u", "-m", "assets.cli", "run", *seasons]
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    whole = {path: pl.read_parquet(path) for path in (tmp_path / "store").rglob("*.parquet")}
    assert len(whole) == 5
    for after_s in (0.0, 0.2, 0.5):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert any("track_constraints" in line for line in process.stdout)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path, frame in whole.items():
            assert_frame_equal(pl.read_parquet(path), frame)
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    for path, frame in whole.items():
        assert_frame_equal(pl.read_parquet(path), frame)


@pytest.mark.slow
def test_whole_run_ends_with_table_and_report(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--seasons", "2024,2025", "--scenarios", "200"]) == 0
    out = capsys.readouterr().out
    for archetype in ("Superspeedway", "Intermediate", "Short track", "Road course"):
        assert archetype in out
    report = project / "data" / "store" / "simulated" / "calibration_report.html"
    assert str(report) in out.replace("\n", "")
    assert "<html" in report.read_text()


@pytest.mark.real
@pytest.mark.skipif(not REAL_FEED.exists(), reason=f"optional real seasons are absent: {REAL_FEED}")
def test_two_real_seasons_end_in_a_report_of_four_archetypes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2021 is scored, out of sample; races without a fit keep the raw forecast; every fit converged."""
    options = ["--source", "nascar_feed", "--seasons", "2020,2021", "--feed-url", str(REAL_FEED)]
    assert main(["run", *options, "--scenarios", "300"]) == 0
    assert "calibration_report.html" in capsys.readouterr().out.replace("\n", "")
    store = project / "data" / "store" / "nascar_feed"
    n_scored = 0
    for archetype in ARCHETYPES:
        backtest = xr.open_dataset(store / "backtest" / f"{archetype}.nc", engine="h5netcdf").load()
        n_scored += backtest.sizes["race"]
        assert set(backtest["season"].values.tolist()) == {2021}
        assert (backtest["calibration_as_of"] < backtest["race_order"]).all()
        kept = backtest.isel(race=backtest["n_calibration_races"].values == 0)
        assert kept["raw"].equals(kept["recalibrated"].rename("raw"))
        fit = xr.open_datatree(store / "calibration_posterior" / f"{archetype}.nc", engine="h5netcdf")
        assert float(convergence_by_fold(fit)["r_hat"].max()) < 1.05
    assert n_scored == 35
