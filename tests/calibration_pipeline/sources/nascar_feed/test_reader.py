"""The feed over the web: a server on loopback that stalls, truncates, refuses, lies and is half done."""

import asyncio
import base64
import gzip
import json
import logging
import re
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal
from urllib3 import Timeout

from calibration_pipeline.sources import SourceError
from calibration_pipeline.sources.base import AnnouncedRace, MissingDocumentError
from calibration_pipeline.sources.nascar_feed.reader import FeedReader
from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource
from calibration_pipeline.sources.quarantine import describe_quarantine, races_left_out
from calibration_pipeline.sources.web import WebLimits
from calibration_pipeline.tracks import compile_constraints
from helpers.example_feed import LAPS, lap_times, scheduled, weekend
from helpers.paths import ROOT

TRACKS = compile_constraints()
RACES = "/2021/race_list_basic.json"
QUICK = WebLimits(
    timeout=Timeout(connect=2.0, read=0.3),
    retries=WebLimits().retries.new(total=2, backoff_factor=0.01, backoff_jitter=0.0),
    total_s=5.0,
    spacing_s=0.0,
    max_bytes=200_000,
)
GZIP = {"Content-Encoding": "gzip"}


@dataclass
class Answer:
    """Answer of the server: `wait_s` and `pause` before the headers, `between_s` between the body's bytes."""

    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    declared: int | None = -1
    wait_s: float = 0.0
    pause: bool = False
    stop_at: int | None = None
    between_s: float | None = None


class Feed(ThreadingHTTPServer):
    """Documents by path, with ETags; answers that are set once or for good go before them.

    A request without the query that the feed wants is refused.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.documents: dict[str, bytes] = {}
        self.once: dict[str, list[Answer]] = {}
        self.always: dict[str, Answer] = {}
        self.query = ""
        self.arrived: Callable[[float], Any] = lambda _: None
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.is_over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, document: Any) -> None:
        self.documents[path] = document if isinstance(document, bytes) else json.dumps(document).encode()

    @property
    def paths(self) -> list[str]:
        """Paths of the requests since the last read of this property."""
        paths = [path for path, _ in self.asked]
        self.asked.clear()
        return paths

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        if self.once.get(path):
            return self.once[path].pop(0)
        if path in self.always:
            return self.always[path]
        if path not in self.documents:
            return Answer(b"<Error>AccessDenied</Error>", 403)
        body = self.documents[path]
        etag = f'"{zlib.crc32(body)}"'
        if headers.get("If-None-Match") == etag:
            return Answer(b"", 304, {"ETag": etag})
        return Answer(body, headers={"ETag": etag, "Content-Type": "application/json"})

    def handle_error(self, *args: Any) -> None:
        """A client that hangs up is what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Feed

    def do_GET(self) -> None:
        self.server.arrived(time.monotonic())
        headers = dict(self.headers)
        path, mark, query = self.path.partition("?")
        self.server.asked.append((path, headers))
        allowed = mark + query == self.server.query
        answer = self.server.answer(path, headers) if allowed else Answer(b"no token", 403)
        self.server.is_over.wait(answer.wait_s)
        if answer.pause:
            self.server.is_over.wait(10)
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.declared is not None and answer.status != 304:
            self.send_header(
                "Content-Length", str(len(answer.body) if answer.declared < 0 else answer.declared)
            )
        self.end_headers()
        if answer.between_s is not None:
            for byte in answer.body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.is_over.wait(answer.between_s):
                    return
        elif answer.stop_at is not None:
            self.wfile.write(answer.body[: answer.stop_at])
            self.wfile.flush()
            self.server.is_over.wait(10)
        else:
            self.wfile.write(answer.body)

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def feed() -> Iterator[Feed]:
    """Two points races that have run, and the season's list."""
    with Feed() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        server.put(RACES, {"series_1": [scheduled(1, 1), scheduled(3, 16)]})
        for race_id in (1, 3):
            server.put(f"/2021/1/{race_id}/weekend-feed.json", weekend(race_id))
            server.put(f"/2021/1/{race_id}/lap-times.json", lap_times())
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()


def read(feed: Feed, limits: WebLimits = QUICK, path: str = RACES) -> Any:
    return FeedReader(feed.url, limits=limits).read_json(path[1:])


def refusal(feed: Feed, limits: WebLimits = QUICK) -> str:
    with pytest.raises(SourceError) as error:
        read(feed, limits)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{feed.url}{RACES} ")
    return message


def test_a_server_that_stalls_is_asked_again_then_given_up(feed: Feed) -> None:
    feed.once[RACES] = [Answer(pause=True), Answer(feed.documents[RACES], stop_at=30)]
    assert len(read(feed)["series_1"]) == 2
    assert feed.paths == [RACES] * 3
    feed.always[RACES] = Answer(pause=True)
    assert "Read timed out. (read timeout=0.3)" in refusal(feed)
    assert feed.paths == [RACES] * 3


def test_a_server_that_drips_is_cut_off_in_all(feed: Feed) -> None:
    feed.always[RACES] = Answer(feed.documents[RACES], between_s=0.05)
    message = refusal(feed, replace(QUICK, total_s=0.7))
    assert message.endswith("cannot be read: it took longer than 0.7 s.")
    assert feed.paths == [RACES]
    feed.once[RACES] = [Answer(status=503)]
    message = refusal(feed, replace(QUICK, total_s=0.7))
    assert "0.7 s; before that: HTTP 503 Service Unavailable." in message


def test_a_body_that_is_cut_short_is_asked_for_again_never_parsed(feed: Feed) -> None:
    whole = feed.documents[RACES]
    zipped = gzip.compress(whole)
    feed.once[RACES] = [
        Answer(b'{"series_1": []}', declared=5000),
        Answer(zipped[:-20], headers=GZIP),
    ]
    assert len(read(feed)["series_1"]) == 2
    assert feed.paths == [RACES] * 3
    feed.always[RACES] = Answer(zipped[:-20], headers=GZIP)
    feed.asked.clear()
    assert "cut short: its gzip stream does not end." in refusal(feed)
    feed.always[RACES] = Answer(b"no gzip at all", headers=GZIP)
    assert "incorrect header check." in refusal(feed)
    assert feed.paths == [RACES] * 6
    feed.always[RACES] = Answer(b"...", headers={"Content-Encoding": "br"})
    assert "content encoding 'br' was not asked for" in refusal(feed)


def test_bodies_that_break_off_are_not_kept_in_memory(feed: Feed) -> None:
    feed.always[RACES] = Answer(b" " * 4_000_000, declared=4_000_001)
    tracemalloc.start()
    assert "IncompleteRead" in refusal(feed, replace(QUICK, max_bytes=5_000_000))
    assert tracemalloc.get_traced_memory()[1] < 7_000_000
    tracemalloc.stop()
    assert feed.paths == [RACES] * 3


def test_compressed_answers_are_decompressed(feed: Feed) -> None:
    feed.always[RACES] = Answer(gzip.compress(feed.documents[RACES]), headers=GZIP)
    assert read(feed) == json.loads(feed.documents[RACES])
    assert feed.asked[0][1]["accept-encoding"] == "gzip"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_that_may_pass_are_tried_again(
    feed: Feed, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    feed.once[RACES] = [Answer(b"<html>busy</html>", status)] * 2
    assert len(read(feed)["series_1"]) == 2
    assert feed.paths == [RACES] * 3
    assert sum(f"HTTP {status} " in line and "requested again" in line for line in caplog.messages) == 2
    feed.always[RACES] = Answer(status=status)
    assert f"cannot be read: HTTP {status}" in refusal(feed)
    assert feed.paths == [RACES] * 3


@pytest.mark.parametrize("status", [400, 401, 451, 206, 304])
def test_failures_that_last_are_not_tried_again(feed: Feed, status: int) -> None:
    feed.always[RACES] = Answer(b"" if status == 304 else b"{}", status)
    assert f"cannot be read: HTTP {status}" in refusal(feed)
    assert feed.paths == [RACES]


def test_the_reason_of_a_status_is_printed_without_control_characters_and_credentials(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = b"HTTP/1.1 401 \x1b[31mAsk http://a:secret@b/c?token=d or /e?token=f\r\n\r\n"
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.wfile.write(response))
    assert refusal(feed).endswith(" cannot be read: HTTP 401 [31mAsk http://b/c or /e.")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_missing_documents_differ_from_failed_requests(feed: Feed, status: int) -> None:
    feed.always[RACES] = Answer(status=status)
    with pytest.raises(MissingDocumentError, match=rf"race_list_basic.json does not exist \(HTTP {status}"):
        read(feed)
    assert feed.paths == [RACES]
    source = NascarFeedSource(feed.url, TRACKS, limits=QUICK)
    with pytest.raises(SourceError, match=r"The feed refuses: .* answers no season's list"):
        source.finished_races(2021)
    feed.put("/2020/race_list_basic.json", {"series_1": []})
    assert source.finished_races(2021) == {}


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("1", 1.0), ("3600", 2.0), ("Wed, 01 Jan 2200 00:00:00 GMT", 2.0)]
    + [(asked, 0.0) for asked in ("-5", "soon", "9" * 5000, "Wed, 01 Jan 99999999999 00:00:00 GMT")],
)
def test_retry_after_is_honoured_up_to_its_limit(feed: Feed, asked: str, waited: float) -> None:
    times: list[float] = []
    feed.arrived = times.append
    feed.once[RACES] = [Answer(status=429, headers={"Retry-After": asked})]
    limits = replace(QUICK, retries=QUICK.retries.new(retry_after_max=2))
    assert len(read(feed, limits)["series_1"]) == 2
    assert times[1] - times[0] >= waited


def test_waits_double_after_the_second_failure(feed: Feed) -> None:
    times: list[float] = []
    feed.arrived = times.append
    feed.once[RACES] = [Answer(status=503)] * 3
    read(feed, replace(QUICK, retries=WebLimits().retries.new(backoff_factor=0.2, backoff_jitter=0.0)))
    assert times[2] - times[1] >= 0.4
    assert times[3] - times[2] >= 0.8


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (
            b"<!DOCTYPE html><html>Under repair</html>",
            "text/html",
            "40 bytes, content type 'text/html'), not JSON: the",
        ),
        (b"\n <Error/>", "application/json", "is a web page"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "image/png", "is not valid JSON (10 bytes, content type 'image/png')"),
        (b"", "application/json", "is not valid JSON (0 bytes"),
        (b'{"series_1": [NaN]}', "application/json", "NaN is not a JSON number"),
        (b'{"series_1": [1e999]}', "application/json", "1e999 is not a JSON number"),
        (b'{"series_1": [', "text/plain", "is not valid JSON (14 bytes, content type 'text/plain')"),
        (b"[" * 100_000, "application/json", "is not valid JSON"),
    ],
)
def test_answers_that_are_not_json_are_named(
    feed: Feed, body: bytes, content_type: str, message: str
) -> None:
    feed.always[RACES] = Answer(body, headers={"Content-Type": content_type})
    found = refusal(feed)
    assert message in found
    assert ("is a web page (HTML or XML" in found) == body.lstrip().startswith(b"<")
    assert feed.paths == [RACES]


def test_a_document_has_a_largest_size(feed: Feed) -> None:
    large = b" " * 200_001
    message = "is too large: the limit is 200,000 bytes, decompressed."
    answers = (
        Answer(b"{", declared=10**9),
        Answer(large, declared=None),
        Answer(gzip.compress(b" " * 50_000_000), headers=GZIP),
        Answer(gzip.compress(b" " * 50_000_000), headers=GZIP, declared=None),
        Answer(gzip.compress(b" " * 50_000_000)),
    )
    tracemalloc.start()
    for answer in answers:
        feed.always[RACES] = answer
        assert message in refusal(feed)
        assert feed.paths == [RACES]
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    feed.always[RACES] = Answer(b" " * 199_998 + b"{}", declared=None)
    assert read(feed) == {}


def test_redirects_lead_only_within_the_server(feed: Feed) -> None:
    feed.put("/moved.json", {"here": 1})
    for location in ("/moved.json", f"{feed.url}/moved.json", "../moved.json#part"):
        feed.always[RACES] = Answer(status=302, headers={"Location": location})
        assert read(feed) == {"here": 1}
        assert feed.paths == [RACES, "/moved.json"]
    feed.always["/moved.json"] = Answer(status=301, headers={"Location": RACES})
    assert "too many redirects" in refusal(feed)
    assert len(feed.paths) == 3
    port = feed.server_address[1]
    for location in (
        "file:///etc/passwd",
        "http://feed.example/a?token=x",
        f"https://127.0.0.1:{port}/",
        "http://127.0.0.1:9/",
        "//feed.example/a?token=x",
        "//[?token=x",
        "mailto:a?token=x",
        "http://127.0.0.1:99999/?token=x",
        "",
    ):
        feed.always[RACES] = Answer(status=302, headers={"Location": location})
        assert "token" not in refusal(feed)
        assert feed.paths == [RACES]
    feed.always[RACES] = Answer(status=302, headers={"Location": "http://feed.example/a"})
    assert "Tried to open a foreign host with url: http://feed.example/a." in refusal(feed)


def test_credentials_are_sent_and_never_printed(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    url = feed.url.replace("http://", "http://someone:secret%2F€@")
    reader = FeedReader(url, limits=QUICK)
    assert reader.read_json(RACES[1:])["series_1"]
    scheme, encoded = feed.asked[0][1]["authorization"].split()
    assert (scheme, base64.b64decode(encoded).decode()) == ("Basic", "someone:secret/€")
    feed.always[RACES] = Answer(status=500)
    with pytest.raises(SourceError) as error:
        NascarFeedSource(url, TRACKS, limits=QUICK).finished_races(2021)
    assert feed.url in str(error.value)
    assert "secret" not in str(error.value) + caplog.text + reader.base_url + reader.url("x")


SECRET = "a%2Fsecret's=="  # noqa: S105


def test_a_query_goes_with_every_request_and_into_no_message_and_no_file(
    feed: Feed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feed.query = f"?v=1&token={SECRET}"
    feed.once[RACES] = [
        Answer(status=503),
        Answer(status=302, headers={"Location": f"/moved.json{feed.query}"}),
    ]
    feed.put("/moved.json", json.loads(feed.documents[RACES]))
    url = f"{feed.url}/{feed.query}"
    source = NascarFeedSource(url, TRACKS, tmp_path, QUICK)
    assert source.load_season(2021).counts["races"] == 2
    assert feed.paths[:3] == [RACES, RACES, "/moved.json"]
    assert list(source.finished_races(2021)) == [1, 3]
    (cache,) = tmp_path.iterdir()
    assert not [path for path in cache.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    logged = caplog.text + FeedReader(url, limits=QUICK).url("x") + "".join(map(str, cache.rglob("*")))
    assert "HTTP 503" in logged
    assert "token" not in logged
    assert FeedReader(feed.url, tmp_path)._cache.folder == cache  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
        b"HTTP/1.1 503 Busy\r\nno header\r\n\r\n",
        b"HTTP/1.1 429 Busy\r\nRetry-After: soon\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /a?token=%s\r\n\r\n" % SECRET.encode(),
        b"HTTP/1.1 302 Found\r\nLocation: //[?token=%s\r\n\r\n" % SECRET.encode(),
    ],
)
def test_a_failed_request_s_query_is_in_no_log_and_in_none_of_its_causes(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, response: bytes
) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.wfile.write(response))
    for name in (None, "urllib3", "urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry"):
        caplog.set_level(logging.DEBUG, name)
    with pytest.raises(SourceError, match="cannot be read") as error:
        FeedReader(f"{feed.url}/?token={SECRET}", limits=QUICK).read_json(RACES[1:])
    assert "Starting new HTTP connection" in caplog.text
    assert "secret" not in caplog.text + "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://feed.example/a?token=secret#part", "neither '#' nor a space"),
        ("https://feed.example/a?token=1 secret", "neither '#' nor a space"),
        ("https://someone:1?secret@feed.example/a", "no '\\?' before '@'"),
        ("https://feed.example?token=1@secret", "no '\\?' before '@'"),
        ("https://?secret", "must have a host"),
        (" / ", "must not be empty"),
    ],
)
def test_an_address_that_cannot_be_split_is_refused_and_not_repeated(url: str, message: str) -> None:
    with pytest.raises(SourceError, match=f"The feed's base URL cannot be used: .*{message}") as error:
        FeedReader(url)
    assert "secret" not in "".join(traceback.format_exception(error.value))


def test_requests_are_spaced(feed: Feed) -> None:
    times: list[float] = []
    feed.arrived = times.append
    NascarFeedSource(feed.url, TRACKS, limits=replace(QUICK, spacing_s=0.15)).load_season(2021)
    assert len(times) == 6
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.15


READER = """
import sys
from dataclasses import replace
from pathlib import Path

from calibration_pipeline.sources.nascar_feed.reader import FeedReader
from calibration_pipeline.sources.web import WebLimits

url, cache, season, spacing_s = sys.argv[1:]
reader = FeedReader(url, Path(cache), replace(WebLimits(), spacing_s=float(spacing_s)))
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    reader.read_json(f"{season}/{number}.json")
"""


def arrivals(feed: Feed, cache: Path, n_processes: int, spacing_s: float) -> list[float]:
    """Return when ten requests of each process arrived, in order; the processes share a cache."""
    times: list[float] = []
    feed.arrived = times.append
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, feed.url, str(cache), str(2001 + season), str(spacing_s)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for season in range(n_processes)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("go\n")
            reader.stdin.flush()
        assert [reader.wait(120) for reader in readers] == [0] * n_processes
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    return sorted(times)


@pytest.mark.server
def test_two_processes_ask_no_more_often_than_one(feed: Feed, tmp_path: Path) -> None:
    """The feed answers slowly: the rest between requests starts after the answer."""
    answer_s, spacing_s = 0.15, 0.15
    for season, number in product((2001, 2002), range(10)):
        feed.always[f"/{season}/{number}.json"] = Answer(wait_s=answer_s)
    alone = arrivals(feed, tmp_path / "alone", 1, spacing_s)
    together = arrivals(feed, tmp_path / "together", 2, spacing_s)
    assert len(together) == 2 * len(alone) == 20
    assert min(later - earlier for earlier, later in pairwise(together)) >= answer_s + spacing_s
    rate_alone, rate_together = [(len(t) - 1) / (t[-1] - t[0]) for t in (alone, together)]
    assert rate_together < 1.5 * rate_alone


def test_readers_that_share_a_cache_rest_one_after_the_other(feed: Feed, tmp_path: Path) -> None:
    """Each reader opens its own lock, as another process would. Alone, each would need four rests."""
    limits = replace(QUICK, spacing_s=0.1)
    readers = [FeedReader(feed.url, tmp_path, limits) for _ in range(3)]
    started = time.monotonic()
    with ThreadPoolExecutor(len(readers)) as pool:
        for _ in range(4):
            answers = list(pool.map(lambda reader: reader.read_json(RACES[1:]), readers))
            assert answers == [json.loads(feed.documents[RACES])] * 3
    assert time.monotonic() - started >= 12 * 0.1


def test_a_lock_that_cannot_be_opened_gives_a_warning(
    feed: Feed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert FeedReader(feed.url, tmp_path / "cache", QUICK).read_json(RACES[1:])
    assert ".turn cannot be locked: other processes may ask as well" in caplog.text


def test_final_documents_are_asked_for_once_and_others_only_for_changes(feed: Feed, tmp_path: Path) -> None:
    source = NascarFeedSource(feed.url, TRACKS, tmp_path, QUICK)
    first = source.load_season(2021)
    following = "/2022/race_list_basic.json"
    assert len(feed.paths) == 6
    again = NascarFeedSource(feed.url, TRACKS, tmp_path, QUICK)
    second = again.load_season(2021)
    assert_frame_equal(first.race_results, second.race_results)
    assert_frame_equal(first.lap_telemetry, second.lap_telemetry)
    conditions = {path: headers.get("If-None-Match") for path, headers in feed.asked if path != following}
    assert set(feed.paths) == {RACES, following, "/2021/1/3/weekend-feed.json", "/2021/1/3/lap-times.json"}
    assert all(conditions.values())
    assert list(again.finished_races(2021)) == [1, 3]
    ((path, headers),) = feed.asked
    assert path == RACES
    assert headers["If-None-Match"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_change_is_seen_and_a_race_that_is_followed_becomes_final(feed: Feed, tmp_path: Path) -> None:
    source = NascarFeedSource(feed.url, TRACKS, tmp_path, QUICK)
    source.load_season(2021)
    feed.put(RACES, {"series_1": [scheduled(1, 1), scheduled(3, 16), scheduled(4, 31)]})
    feed.put("/2021/1/4/weekend-feed.json", weekend(4))
    feed.put("/2021/1/4/lap-times.json", lap_times())
    feed.asked.clear()
    assert source.load_season(2021).counts["races"] == 3
    assert "/2021/1/3/weekend-feed.json" in feed.paths
    source.load_season(2021)
    assert not [path for path in feed.paths if "/3/" in path or "/1/1/" in path]


def test_last_modified_alone_does_too(feed: Feed, tmp_path: Path) -> None:
    stamp = "Sun, 16 May 2021 20:00:00 GMT"
    feed.once[RACES] = [Answer(b'{"n": 1}', headers={"Last-Modified": stamp}), Answer(b"", 304)]
    reader = FeedReader(feed.url, tmp_path, QUICK)
    assert [reader.read_json(RACES[1:]) for _ in range(2)] == [{"n": 1}] * 2
    assert feed.asked[1][1]["If-Modified-Since"] == stamp


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("", lambda copy: copy[:-3]),
        ("", lambda copy: copy.replace(b"Ford", b"Fjord")),
        (".label", lambda label: label[:-3]),
        (".label", lambda label: label.replace(b'"final":true', b'"final":"yes"')),
    ],
)
def test_a_damaged_copy_is_deleted_and_requested_again(
    feed: Feed,
    tmp_path: Path,
    suffix: str,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = NascarFeedSource(feed.url, TRACKS, tmp_path, QUICK)
    before = source.load_season(2021)
    (copy,) = tmp_path.glob("*/2021/1/1/weekend-feed.json")
    damaged = copy.with_name(copy.name + suffix)
    content = damaged.read_bytes()
    damaged.write_bytes(damage(content))
    assert damaged.read_bytes() != content
    feed.asked.clear()
    assert_frame_equal(source.load_season(2021).race_results, before.race_results)
    assert "/2021/1/1/weekend-feed.json" in feed.paths
    (line,) = caplog.messages
    assert str(copy) in line
    assert "is discarded, and the document is requested again" in line
    source.load_season(2021)
    assert "/2021/1/1/weekend-feed.json" not in feed.paths


def test_a_cache_that_cannot_be_written_costs_a_warning(
    feed: Feed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    source = NascarFeedSource(feed.url, TRACKS, tmp_path / "file", QUICK)
    assert source.load_season(2021).counts["races"] == 2
    assert any(re.search("cannot be cached, .*/file/.*/2021", line) for line in caplog.messages)


def test_a_final_document_that_cannot_be_used_is_asked_for_again(feed: Feed, tmp_path: Path) -> None:
    path = "/2021/1/1/weekend-feed.json"
    good = feed.documents[path]
    feed.put(path, {"error": "try later"})
    source = NascarFeedSource(feed.url, TRACKS, tmp_path, QUICK)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"1 of 2 finished races can be used.* one weekend_race"):
            source.load_season(2021)
    feed.documents[path] = good
    assert source.load_season(2021).counts["races"] == 2


def test_a_refused_document_of_a_known_season_is_an_error(feed: Feed, tmp_path: Path) -> None:
    source = NascarFeedSource(feed.url, TRACKS, tmp_path, QUICK)
    assert len(source.finished_races(2021)) == 2
    feed.always[RACES] = Answer(status=403)
    with pytest.raises(SourceError, match=r"was there before and now is not: .*HTTP 403") as error:
        source.finished_races(2021)
    assert not isinstance(error.value, MissingDocumentError)


def half_a_season(feed: Feed) -> NascarFeedSource:
    waiting = scheduled(9, 29, average_speed=0.0)
    feed.put(RACES, {"series_1": [scheduled(1, 1), scheduled(3, 15), waiting]})
    return NascarFeedSource(feed.url, TRACKS, limits=QUICK)


NOT_STARTED = [row | {"finishing_position": 0} for row in weekend(3)["weekend_race"][0]["results"]]
WEEKEND, LAP_TIMES = "/2021/1/3/weekend-feed.json", "/2021/1/3/lap-times.json"


@pytest.mark.parametrize(
    ("path", "document", "message"),
    [
        (WEEKEND, None, r"results are not there yet: .*weekend-feed.json does not exist \(HTTP 403"),
        (WEEKEND, weekend(3, results=[]), "results are not there yet: .*weekend-feed.json has no finish"),
        (WEEKEND, weekend(3, results=NOT_STARTED), "results are not there yet"),
        (WEEKEND, {"weekend_race": []}, "results are not there yet"),
        (LAP_TIMES, None, "laps are not there yet: .*lap-times.json is missing or empty"),
        (LAP_TIMES, {"laps": [], "flags": []}, "laps are not there yet"),
        (LAP_TIMES, lap_times(), f"laps are not all there yet: .*ends at lap {LAPS} of 9"),
    ],
)
def test_the_newest_race_may_not_be_all_there_yet(
    feed: Feed, path: str, document: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = half_a_season(feed)
    if document is None:
        del feed.documents[path]
    else:
        feed.put(path, document)
    if "of 9" in message:
        feed.put(WEEKEND, weekend(3, actual_laps=9))
    data = source.load_season(2021)
    assert data.race_results["race_id"].unique().to_list() == [1]
    counts = {name: data.counts[name] for name in ("races", "races_awaited", "races_not_run", "cars", "laps")}
    assert counts == {"races": 1, "races_awaited": 1, "races_not_run": 2, "cars": 3, "laps": 3 * (LAPS + 1)}
    (line,) = races_left_out(data.quarantine)
    assert re.search(rf"2021 race 3 \(Race 3, Kansas Speedway\): it has run, but its {message}", line)
    assert f"Left out: {line}" in caplog.messages


def test_a_race_whose_laps_never_came_is_news_once_a_later_season_has_run(feed: Feed) -> None:
    source = half_a_season(feed)
    feed.put(RACES, {"series_1": [scheduled(1, 1), scheduled(3, 15)]})
    del feed.documents[LAP_TIMES]
    awaited = source.version(2021)
    assert source.load_season(2021).race_results["race_id"].unique().to_list() == [1]
    later = scheduled(11, 16, race_season=2022, race_date="2022-02-20T15:00:00")
    feed.put(RACES.replace("2021", "2022"), {"series_1": [later]})
    a_year_on = NascarFeedSource(feed.url, TRACKS, limits=QUICK)
    assert a_year_on.version(2021) != awaited
    assert sorted(a_year_on.load_season(2021).race_results["race_id"].unique()) == [1, 3]


def test_a_cancelled_race_has_no_number_before_the_next_one(feed: Feed) -> None:
    races = [scheduled(1, 1), scheduled(2, 8, average_speed=0.0), scheduled(3, 15)]
    feed.put(RACES, {"series_1": [*races, scheduled(4, 29, average_speed=0.0)]})
    feed.put("/2021/1/4/weekend-feed.json", weekend(4, results=NOT_STARTED))
    announced = NascarFeedSource(feed.url, TRACKS, limits=QUICK).next_race(2021)
    assert isinstance(announced, AnnouncedRace)
    assert announced.entries.select("race_id", "round").row(0) == (4, 3)


def test_an_older_race_must_be_there(feed: Feed) -> None:
    source = half_a_season(feed)
    del feed.documents["/2021/1/1/weekend-feed.json"]
    with pytest.raises(SourceError, match=r"/2021/1/1/weekend-feed.json does not exist"):
        source.load_season(2021)


def test_a_document_that_is_refused_for_good_costs_its_race(feed: Feed) -> None:
    feed.put(RACES, {"series_1": [scheduled(race, 1 + race) for race in (1, 3, 4, 5)]})
    for race_id in (4, 5):
        feed.put(f"/2021/1/{race_id}/weekend-feed.json", weekend(race_id))
        feed.put(f"/2021/1/{race_id}/lap-times.json", lap_times())
    feed.always["/2021/1/3/weekend-feed.json"] = Answer(status=403)
    data = NascarFeedSource(feed.url, TRACKS, limits=QUICK).load_season(2021)
    assert sorted(data.race_results["race_id"].unique()) == [1, 4, 5]
    assert data.counts["races_awaited"] == 0
    (line,) = races_left_out(data.quarantine)
    assert re.search(r"2021 race 3 .*/2021/1/3/weekend-feed.json does not exist \(HTTP 403", line)


def test_a_newest_race_that_is_there_but_wrong_is_no_race_to_wait_for(feed: Feed) -> None:
    source = half_a_season(feed)
    results = weekend(3)["weekend_race"][0]["results"]
    feed.put(WEEKEND, weekend(3, results=results[:1] + results[2:]))
    with pytest.raises(SourceError, match="its finishes must be 1 to 2; missing: 2"):
        source.load_season(2021)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"laps_lead": row.pop("laps_led")}, "every car: its laps led are not known"),
        (
            lambda row: row.update(laps_completed="all of them"),
            r"laps_completed: Input .* valid integer.*, got 'all of them' \(str\)",
        ),
        (
            lambda row: row.update(car_number=[1], driver_id="x", team_name={}, laps_led="many"),
            r"1 more field \(value nulled\)",
        ),
        (lambda row: row.update(driver_id={"id": 4}), r"driver_id: .*got {'id': 4} \(dict\)"),
        (lambda row: row.update(finishing_position=2**70), r"its finishes must be 1 to 3; missing: 1, 2, 3"),
    ],
)
def test_drift_is_named_by_field(feed: Feed, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    document = weekend(1)
    race = document["weekend_race"][0]
    race["results"] = [change(row) or row for row in race["results"]]
    feed.put("/2021/1/1/weekend-feed.json", document)
    feed.put(RACES, {"series_1": [scheduled(1, 1), scheduled(3, 3), scheduled(4, 4)]})
    feed.put("/2021/1/4/weekend-feed.json", weekend(4))
    feed.put("/2021/1/4/lap-times.json", lap_times())
    data = NascarFeedSource(feed.url, TRACKS, limits=QUICK).load_season(2021)
    found = describe_quarantine(data.quarantine)
    assert re.search(message, found), found
    assert "\n" not in found


def test_fields_that_are_new_are_no_drift(feed: Feed) -> None:
    for path, body in list(feed.documents.items()):
        feed.put(path, json.loads(body) | {"new_field": {"a": [1]}})
    data = NascarFeedSource(feed.url, TRACKS, limits=QUICK).load_season(2021)
    assert (data.counts["races"], races_left_out(data.quarantine)) == (2, [])


def test_it_reads_from_within_an_event_loop(feed: Feed) -> None:
    async def run() -> Any:
        return read(feed)

    assert len(asyncio.run(run())["series_1"]) == 2


def test_half_of_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"lone": "\\ud800", "pair": "\\ud83c\\udfc1", "text": "\\\\ud800"}')
    document = FeedReader(str(tmp_path)).read_json("a.json")
    assert document == {"lone": "\ufffd", "pair": "\U0001f3c1", "text": "\\ud800"}


def test_a_feed_without_credentials_is_named(no_credentials: str) -> None:
    reader = FeedReader(f"{no_credentials}/feed")
    for read in (reader.folders, lambda: reader.read_json("a.json")):
        with pytest.raises(
            SourceError, match=r"s3://bucket/feed.* cannot be read: NoCredentialsError Unable"
        ):
            read()
