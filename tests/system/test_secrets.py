"""Credentials are written nowhere: not in records, logs, stored files or printed text."""

import base64
import contextlib
import functools
import json
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from assets.cli import main
from assets.instance import POSTGRES_VARIABLE
from assets.settings import (
    SettingsError,
    export_credentials,
    from_public_json,
    load_settings,
    to_public_json,
)
from calibration_pipeline.forecasters.folder import ForecasterFiles
from calibration_pipeline.forecasters.season_scenarios import read_season_scenarios
from calibration_pipeline.sources import SeasonData
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.tracks import compile_constraints
from helpers.clusters import free_port, start
from helpers.example_ensembles import entry_list
from helpers.feed_layout import write_feed
from helpers.paths import ROOT
from helpers.postgres_server import PASSWORD, binaries, postgres

USER, WORD = "someone", "feed-password"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "object-store-secret",
    "AWS_SESSION_TOKEN": "object-store-token",
}
INGEST = ["run", "--source", "nascar_feed", "--seasons", "2021", "--select"]
SEASON = [*INGEST, "track_constraints,lap_telemetry,race_results"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve two races of a season; yield an address with user and password."""
    folder = tmp_path_factory.mktemp("feed")
    data = SimulatedSource([2021], compile_constraints()).load_season(2021)
    results = data.race_results.filter(pl.col("round") <= 2)
    laps = data.lap_telemetry.filter(pl.col("race_id").is_in(results["race_id"].unique().to_list()))
    write_feed(folder, {2021: SeasonData(results, laps, {}, [])})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{USER}:{WORD}@127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def cells(database: Path) -> Iterator[bytes]:
    """Yield what is in a SQLite file, unpacked: Dagster packs some of it."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608
                for cell in row:
                    data = cell.encode() if isinstance(cell, str) else cell
                    if isinstance(data, bytes):
                        yield data
                        with contextlib.suppress(zlib.error):
                            yield zlib.decompress(data)


def leaks(folder: Path, printed: str) -> list[str]:
    """Return the places that contain one of the secrets, in any form."""
    words = [*SECRETS.values(), WORD, PASSWORD, base64.b64encode(f"{USER}:{WORD}".encode()).decode()]
    places = {"printed text": [printed.encode()]}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    contents = {path: path.read_bytes() for path in files}  # first: SQLite deletes a log that it has read
    for path, content in contents.items():
        places[str(path)] = [content, *(cells(path) if content.startswith(b"SQLite format 3") else ())]
    return [
        f"{word} in {place}"
        for place, found in places.items()
        for word in words
        for content in found
        if word.encode() in content
    ]


def test_leaks_finds_secrets_in_files_and_databases(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(f"http://{USER}:{WORD}@host")
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (?)", (zlib.compress(PASSWORD.encode() * 9),))
        connection.commit()
    assert {line.partition(" in ")[0] for line in leaks(tmp_path, "object-store-token")} == {
        WORD,
        PASSWORD,
        "object-store-token",
    }


@pytest.mark.slow
def test_a_run_and_a_failed_run_leak_no_secret(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], feed: str
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CALIBRATION_FEED_URL", feed)
    assert main(["settings", "--source", "nascar_feed"]) == 0
    assert main([*SEASON, "--verbose"]) == 0
    monkeypatch.setenv("CALIBRATION_FEED_URL", feed.replace("127.0.0.1", "nowhere.invalid"))
    assert main([*SEASON, "--verbose"]) == 1
    monkeypatch.setenv("CALIBRATION_FEED_URL", f"https://{USER}:{WORD}@host:port")
    assert main([*SEASON, "--verbose"]) == 1
    printed = "".join(capsys.readouterr())
    assert "http://127.0.0.1:" in printed
    assert "nowhere.invalid" in printed
    assert leaks(project, printed) == []


@pytest.mark.soak
@pytest.mark.server
def test_steps_in_processes_of_their_own_are_given_the_credentials_and_record_none(
    tmp_path: Path, feed: str
) -> None:
    """The address comes as an option: no process but the first has it in its environment."""
    env = {**SECRETS, "CALIBRATION_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(tmp_path / "home")}
    address = feed.replace(f"{USER}:{WORD}@", "")
    cache = ROOT / "data" / "feed_cache" / sha256(address.encode()).hexdigest()[:16]
    try:
        run = start([*SEASON, "--executor", "process_pool", "--feed-url", feed], env)
        printed, _ = run.communicate(timeout=900)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    assert run.returncode == 0, printed
    assert leaks(tmp_path, printed) == []


@pytest.mark.soak
@pytest.mark.server
@pytest.mark.skipif(binaries() is None, reason="Postgres is not installed: apt-get install postgresql")
def test_the_database_password_is_written_nowhere(tmp_path: Path) -> None:
    env = {**SECRETS, "CALIBRATION_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(tmp_path / "home")}
    with postgres() as address:
        env[POSTGRES_VARIABLE] = address
        run = start(["run", "--select", "track_constraints", "--executor", "process_pool", "--verbose"], env)
        printed, _ = run.communicate(timeout=900)
    assert run.returncode == 0, printed
    assert leaks(tmp_path, printed) == []


@pytest.mark.soak
def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    address = f"postgresql+psycopg2://{USER}:{PASSWORD}@127.0.0.1:{free_port()}/dagster"
    env = {
        POSTGRES_VARIABLE: address,
        "CALIBRATION_STORE": str(tmp_path / "store"),
        "DAGSTER_HOME": str(tmp_path / "home"),
    }
    run = start(["run", "--select", "track_constraints", "--verbose"], env)
    printed, _ = run.communicate(timeout=900)
    assert run.returncode == 1
    assert "127.0.0.1" in printed
    assert leaks(tmp_path, printed) == []


ADDRESS = f"https://{USER}:{WORD}@127.0.0.1:1/a"


def test_settings_travel_without_credentials_and_are_completed_from_the_environment(
    project: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(
        {"source": "tables", "results": f"{ADDRESS}.csv", "laps": f"{ADDRESS}.csv?token={WORD}"}
    )
    recorded = to_public_json(settings)
    assert WORD not in recorded
    public = json.loads(recorded)
    assert public["results"] == public["laps"] == "https://127.0.0.1:1/a.csv"
    for name in ("CALIBRATION_RESULTS", "CALIBRATION_LAPS"):
        monkeypatch.setenv(name, "")  # so that the variables are removed after the test
    export_credentials(settings)
    assert from_public_json(recorded) == settings
    monkeypatch.setenv("CALIBRATION_RESULTS", f"https://{USER}:{WORD}@elsewhere/a.csv")
    assert from_public_json(recorded).results == "https://127.0.0.1:1/a.csv"


@pytest.mark.slow
def test_errors_name_addresses_without_credentials(project: Path) -> None:  # noqa: ARG001
    with pytest.raises(SettingsError, match=r"CALIBRATION_EVENTS .*127\.0\.0\.1:1/a\.toml") as refusal:
        load_settings({"events": f"{ADDRESS}.toml"})
    assert WORD not in str(refusal.value)
    with pytest.raises(SettingsError, match="credentials belong into the variables of the store") as refusal:
        load_settings({"store": f"ftp://{USER}:{WORD}@host/store"})
    assert WORD not in str(refusal.value)
    with pytest.raises(SourceError, match=r"https://127\.0\.0\.1:1/a\.csv cannot be read") as refused:
        _ = TableFile(f"{ADDRESS}.csv").schema
    assert WORD not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    files = ForecasterFiles("a", (f"{ADDRESS}.nc",))
    with pytest.raises(ValueError, match=r"https://127\.0\.0\.1:1/a\.nc ") as unread:
        read_season_scenarios(files, entry_list(), None, fold_races=None, seed=1)
    assert WORD not in str(unread.value)
    assert unread.value.__cause__ is None
