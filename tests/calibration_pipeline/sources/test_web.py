"""The web client for tables, and its limit on time."""

import gzip
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calibration_pipeline.sources import SourceError
from calibration_pipeline.sources.base import MissingDocumentError
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.sources.web import WebClient, WebLimits


class Served(SimpleHTTPRequestHandler):
    """Serves a folder; of `/drip`, one byte of the headers every 50 ms."""

    def do_GET(self) -> None:
        if self.path != "/drip":
            super().do_GET()
            return
        for byte in b"HTTP/1.1 200 OK\r\nServer: " + b"x" * 40:
            self.wfile.write(bytes([byte]))
            if stopped.wait(0.05):
                return

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


stopped = threading.Event()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    stopped.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(tmp_path))) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        stopped.set()
        http.shutdown()
        thread.join()


def test_a_table_on_the_web_is_read_with_the_web_client(tmp_path: Path, address: str) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"season,driver\n2021,Ann\n"))
    assert TableFile(f"{address}/t.csv.gz").read(["driver"])["driver"].to_list() == ["Ann"]
    with pytest.raises(MissingDocumentError, match=r"absent.csv does not exist \(HTTP 404") as error:
        TableFile(f"{address}/absent.csv?token=secret").read(["driver"])
    assert "secret" not in str(error.value)


def test_headers_that_drip_are_limited_in_all(address: str) -> None:
    limits = WebLimits(total_s=0.4, spacing_s=0.0, tries=1)
    with pytest.raises(SourceError, match=r"it took longer than 0.4 s in all"):
        WebClient(limits).get(f"{address}/drip", {})


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:port/a"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        WebClient(WebLimits(spacing_s=0.0, tries=1)).get(url, {})
