"""Requests of documents: tables on the web, the limit on time, certificates."""

import datetime
import gzip
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from calibration_pipeline.sources import SourceError
from calibration_pipeline.sources.base import MissingDocumentError
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.sources.web import WebLimits, request_document


class Served(SimpleHTTPRequestHandler):
    """Serves a folder; of `/drip` and `/drip_body`, one byte of the headers or the body every 50 ms."""

    def do_GET(self) -> None:
        if not self.path.startswith("/drip"):
            super().do_GET()
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"\r\n" * (self.path == "/drip_body"))
        while not stopped.wait(0.05):
            self.wfile.write(b"x")

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
    limits = WebLimits(total_s=0.4, spacing_s=0.0)
    with pytest.raises(SourceError, match=r"it took longer than 0.4 s\.$"):
        request_document(f"{address}/drip", limits, {})


def test_the_thread_of_a_body_that_drips_ends_after_the_limit(address: str) -> None:
    before = set(threading.enumerate())
    with pytest.raises(SourceError, match=r"it took longer than 0.4 s\.$"):
        request_document(f"{address}/drip_body", WebLimits(total_s=0.4, spacing_s=0.0), {})
    for thread in set(threading.enumerate()) - before:
        if "process_request" not in thread.name:  # a thread of the server
            thread.join(5)
            assert not thread.is_alive()


def certificate(folder: Path) -> Path:
    """Write a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_that_does_not_verify_is_refused_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED") as error:
            request_document(f"https://user:secret@127.0.0.1:{http.server_address[1]}/a", WebLimits(), {})
        http.shutdown()
        thread.join()
    assert "secret" not in str(error.value)
    assert "requested again" not in caplog.text


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:port/a"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        request_document(url, WebLimits(), {})
