"""Failures of services: the feed, the object store, and the database of Dagster's records."""

import http.client
import itertools
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from upath import UPath

from assets.instance import POSTGRES_VARIABLE
from faults.bench import ALL, TO_FEATURES, TO_NETWORK, Bench, ended, feed_cache, in_the_soak_alone
from faults.ledger import Ledger
from helpers.clusters import BUCKET, free_port, object_store
from helpers.postgres_server import binaries, restartable
from helpers.stored import assert_same_values, content, flip, truncate


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Serve on loopback; yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def files_of(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_args) -> None:
            """Stay quiet."""

    return Files


class Broken(BaseHTTPRequestHandler):
    """Answers every request with 500."""

    def do_GET(self) -> None:
        self.send_error(500)

    def log_message(self, *_args) -> None:
        """Stay quiet."""


@contextmanager
def down(how: str, port: int) -> Iterator[None]:
    """Let the feed refuse connections, or answer 500, meanwhile."""
    if how == "refused":
        yield
    else:
        with serving(Broken, port):
            yield


@in_the_soak_alone
def test_a_feed_that_is_down_fails_only_the_assets_that_read_it(
    bench: Bench, undisturbed: Bench, ledger: Ledger, tmp_path: Path
) -> None:
    for how in ("refused", "500"):
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        web = bench.copied(tmp_path / how, CALIBRATION_FEED_URL=address)
        with serving(files_of(undisturbed.feed), port):
            web.update()  # what the bench holds is of another feed
        shutil.rmtree(feed_cache(address))
        with down(how, port):
            assert_stands(web, undisturbed, port)
        ledger.enter("feed down", how, 2, "named it; materialized the assets that do not read it")


def assert_stands(web: Bench, undisturbed: Bench, port: int) -> None:
    """Assets that read the feed fail and change nothing; other assets are materialized."""
    web.lose("driver_features/2025.parquet", "calibration_report.*", "race_results/2024.parquet")
    before = content(web.store)
    failed = web.run("--update")
    assert failed.code == 1, failed.out
    assert f"127.0.0.1:{port}/2024/race_list_basic.json cannot be read" in failed.out
    assert content(web.store) == before
    shutil.copy(undisturbed.store / "race_results" / "2024.parquet", web.store / "race_results")
    made = web.update()
    assert "✓ driver_features [2025]" in made.out
    assert web.select != ALL or "Not known whether races have finished since" in made.out
    web.assert_mended(undisturbed)


@in_the_soak_alone
def test_spoilt_cached_documents_are_requested_again(
    bench: Bench, undisturbed: Bench, ledger: Ledger, tmp_path: Path
) -> None:
    ingest = ("--select", "race_results,lap_telemetry")
    with serving(files_of(undisturbed.feed)) as address:
        web = bench.copied(tmp_path / "web", CALIBRATION_FEED_URL=address)
        cache = feed_cache(address)
        try:
            assert web.run(*ingest).code == 0
            copies = sorted(cache.rglob("*.json"))
            assert len(copies) > 10
            for n, copy in enumerate(copies):
                spoilt = copy.with_name(f"{copy.name}.label") if n % 3 == 2 else copy
                spoilt.write_bytes((truncate, flip)[n % 2](spoilt.read_bytes()))
            assert web.run(*ingest).code == 0
            web.update()  # the report is of another feed
        finally:
            shutil.rmtree(cache)
        web.assert_mended(undisturbed)
    ledger.enter("spoilt file", "feed cache (JSON)", len(copies), "deleted them and requested them again")


def failing(target: str, every: int, failed: list[str]) -> type[BaseHTTPRequestHandler]:
    """Return a proxy that fails every so many requests: 503, 500 and a connection cut, in turn."""
    host, count, lock = urlsplit(target).netloc, itertools.count(1), threading.Lock()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                number = next(count)
            if number % every == 0:
                failed.append(f"{self.command} {self.path}")
                how = number // every % 3
                self.close_connection = True
                if how < 2:
                    self.send_response((503, 500)[how])
                    self.send_header("Content-Length", "0")
                    self.send_header("Connection", "close")
                    self.end_headers()
                return
            connection = http.client.HTTPConnection(host, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815

        def log_message(self, *_args) -> None:
            """Stay quiet."""

    return Proxy


@in_the_soak_alone
def test_an_object_store_that_fails_every_third_request_costs_time_alone(
    undisturbed: Bench, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    with object_store(tmp_path) as reach, serving(failing(reach["AWS_ENDPOINT_URL"], 3, failed)) as address:
        kept = {
            name: undisturbed.environment[name]
            for name in ("CALIBRATION_FEED_URL", "JAX_COMPILATION_CACHE_DIR")
        }
        store = f"s3://{BUCKET}/mine"
        env = {**kept, **reach, "AWS_ENDPOINT_URL": address, "CALIBRATION_STORE": store}
        far = Bench(tmp_path / "far", TO_NETWORK, env)
        far.folder.mkdir()
        done = far.run()
        assert done.code == 0, done.out
        done = far.update()
        assert "Everything is there, and up to date." in done.out
        assert len(failed) > 50
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
        there = UPath(f"{store}/nascar_feed/cup")
        here = tmp_path / "here"
        for path in there.rglob("*.*"):
            target = here / str(path.relative_to(there))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(undisturbed.store / str(path.relative_to(there)), target)
        assert_same_values(there, here)
        assert len(content(here)) == 15
    ledger.enter("object store fails", "every third request", len(failed), "asked again, and ended well")


@in_the_soak_alone
@pytest.mark.skipif(binaries() is None, reason="Postgres is not installed: apt-get install postgresql")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_postgres_restarted_in_the_middle_ends_the_run_at_worst(
    undisturbed: Bench, ledger: Ledger, tmp_path: Path, how: signal.Signals
) -> None:
    """Postgres closes its connections or crashes. Stored files stay; the next run completes."""
    kept = {
        name: undisturbed.environment[name] for name in ("CALIBRATION_FEED_URL", "JAX_COMPILATION_CACHE_DIR")
    }
    with restartable() as server:
        bench = Bench(tmp_path / "bench", TO_FEATURES, {**kept, POSTGRES_VARIABLE: server.address})
        bench.folder.mkdir()
        process = bench.start()
        assert process.stdout is not None
        printed = ""
        while "✓ lap_telemetry" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        server.stop(how)
        server.start()
        done = ended(process)
        survived = done.code == 0
        assert survived or "Details:" in done.out, done.out
        bench.update()
        here = tmp_path / "here"
        for path in content(bench.store):
            (here / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(undisturbed.store / path, here / path)
        assert_same_values(bench.store, here)
    outcome = "ended well" if survived else "ended in a line; the next run made the rest"
    ledger.enter("Postgres restarted", {signal.SIGINT: "connections cut"}.get(how, "crashed"), 1, outcome)
