"""Requests of documents from the web, with throttling, retries, and limits on time, size and redirects.

All responses are untrusted. Each document is requested in a thread, for which the caller waits up to the
limit: the time-outs of a socket do not end a response that drips. No clock is read.
"""

import io
import logging
import re
import ssl
import threading
import zlib
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from http.client import responses
from pathlib import Path
from urllib.parse import urljoin

from filelock import FileLock
from urllib3 import BaseHTTPResponse, Retry, Timeout, connection_from_url
from urllib3.exceptions import HostChangedError, HTTPError, InvalidHeader, MaxRetryError, ResponseError
from urllib3.util import make_headers, parse_url

from calibration_pipeline.io.addresses import safe_cause, without_credentials
from calibration_pipeline.sources.base import DefectError, MissingDocumentError, SourceError

logger = logging.getLogger(__name__)
# urllib3 logs addresses with their query, which is a credential: its records with a query are dropped.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(lambda record: "?" not in record.getMessage())

CHUNK_BYTES = 2**18
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
# The live feed's store answers 403, not 404, for a missing document.
MISSING_STATUS = (403, 404, 410)
HEADERS = make_headers(user_agent="calibration-pipeline", accept_encoding="gzip")
# Request header that revalidates a copy, by the response header of the copy.
VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


@dataclass(frozen=True)
class WebLimits:
    """Limits of requests on time, number, rate and size.

    Attributes
    ----------
    timeout : urllib3.Timeout
        Seconds to connect, and to wait for the response or its next bytes.
    retries : urllib3.Retry
        Number of further requests for a document, redirects included, and the waits after failures.
    total_s : float
        Seconds for one document in total: retries, waits and redirects included.
    spacing_s : float
        Seconds of rest before every request.
    max_bytes : int
        Size of a document, also after decompression.
    """

    timeout: Timeout = field(default=Timeout(connect=10.0, read=30.0))
    retries: Retry = field(default=Retry(3, backoff_factor=1.0, backoff_jitter=1.0, retry_after_max=60))
    total_s: float = 180.0
    spacing_s: float = 0.2
    max_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class WebDocument:
    """A document: its decompressed content, content type and validators."""

    content: bytes
    content_type: str = ""
    validators: dict[str, str] = field(default_factory=dict)


def request_document(
    url: str, limits: WebLimits, validators: Mapping[str, str], turn: Path | None = None
) -> WebDocument | None:
    """Return the document at `url`.

    Parameters
    ----------
    url : str
        An `http://` or `https://` address.
    limits : WebLimits
        Limits on time, number, rate and size.
    validators : mapping of str to str
        Headers `ETag` and `Last-Modified` of a copy that the caller has; empty if it has none.
    turn : Path, optional
        Lock file that callers for one server share, also of other processes. The lock is held from the rest
        before the first request to the document's last byte. All callers together are therefore as slow as
        a single one. A lock that cannot be taken is logged as a warning.

    Returns
    -------
    WebDocument or None
        None where the copy is up to date.

    Raises
    ------
    MissingDocumentError
        If the server has no such document.
    SourceError
        If it cannot be read within the limits.
    """
    request = _Request(url, limits, validators)
    with _locked(turn):
        threading.Thread(target=request.run, daemon=True).start()
        try:
            return request.answer.result(limits.total_s)
        except SourceError:
            raise
        except TimeoutError:
            raise _unreadable(url, f"it took longer than {limits.total_s:g} s{request.trouble}") from None
        except (HTTPError, ValueError) as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            raise _unreadable(url, reason) from safe_cause(error, url)
        finally:
            request.is_abandoned.set()


@dataclass
class _Request:
    """Request of one document in a thread, which ends soon after its caller stops waiting."""

    url: str
    limits: WebLimits
    validators: Mapping[str, str]
    answer: Future[WebDocument | None] = field(default_factory=Future)
    is_abandoned: threading.Event = field(default_factory=threading.Event)
    trouble: str = ""

    def run(self) -> None:
        """Request the document, and pass it or its error to the caller's thread."""
        try:
            self.answer.set_result(self._read())
        except BaseException as error:
            self.answer.set_exception(error)

    def _read(self) -> WebDocument | None:
        """Request the document until it is read or no retry is left, and follow redirects."""
        limits, retries, target = self.limits, self.limits.retries, self.url
        headers = HEADERS | {VALIDATORS[name]: value for name, value in self.validators.items()}
        headers |= make_headers(basic_auth=parse_url(target).auth_decoded_joined, basic_auth_encoding="utf-8")
        with connection_from_url(target, timeout=limits.timeout, headers=headers, retries=False) as pool:
            while True:
                if self.is_abandoned.wait(limits.spacing_s):
                    raise SystemExit
                response = None
                try:
                    path = parse_url(target).request_uri
                    response = pool.urlopen("GET", path, redirect=False, preload_content=False)
                    with closing(response):
                        location = response.get_redirect_location()
                        if not location:
                            return self._document(response)
                except (HTTPError, zlib.error) as failure:
                    if any(isinstance(each, ssl.SSLCertVerificationError) for each in failure.args):
                        raise
                    retries = retries.increment("GET", error=failure)
                    self.trouble = f"; before that: {failure}"
                    logger.warning("%s It is requested again.", _unreadable(self.url, failure))
                    with suppress(InvalidHeader, ValueError, OverflowError):  # no valid Retry-After: no wait
                        retries.sleep(response)
                else:
                    retries = retries.increment("GET", response=response)
                    target = urljoin(target, location)
                    if not pool.is_same_host(target):
                        raise HostChangedError(pool, target)

    def _document(self, response: BaseHTTPResponse) -> WebDocument | None:
        """Return the document of a response, or raise the error of its status."""
        if response.status == 200:
            found = {name: response.headers[name] for name in VALIDATORS if name in response.headers}
            return WebDocument(self._body(response), response.headers.get("Content-Type", "")[:60], found)
        if response.status == 304 and self.validators:
            return None
        status = f"HTTP {response.status} {responses.get(response.status, '')}".strip()
        if response.status in MISSING_STATUS:
            raise MissingDocumentError(f"{without_credentials(self.url)} does not exist ({status}).")
        if response.status in TRANSIENT_STATUS:
            raise ResponseError(status)
        raise _unreadable(self.url, status)

    def _body(self, response: BaseHTTPResponse) -> bytes:
        """Read and decompress the body, with at most the limit in memory.

        The decoder of urllib3 is not used: it takes a gzip stream that is cut short for a whole one.
        """
        most = self.limits.max_bytes
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise _unreadable(self.url, f"content encoding {encoding[:20]!r} was not asked for")
        unzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
        with io.BytesIO() as content:  # its memory is free after a failure
            while chunk := response.read1(CHUNK_BYTES, decode_content=False):
                if self.is_abandoned.is_set():
                    raise SystemExit
                content.write(chunk if unzip is None else unzip.decompress(chunk, most + 1 - content.tell()))
                if max(response.tell() + (response.length_remaining or 0), content.tell()) > most:
                    raise too_large(self.url, most)
            if unzip is not None and not unzip.eof:
                raise ResponseError("the answer is cut short: its gzip stream does not end")
            return content.getvalue()


def _locked(turn: Path | None) -> AbstractContextManager[object]:
    """Take the lock of the file `turn`, and return it; the end of its process releases it too."""
    try:
        if turn is not None:
            turn.parent.mkdir(parents=True, exist_ok=True)
            return FileLock(turn).acquire()
    except OSError as error:
        logger.warning("%s cannot be locked: other processes may ask at the same time (%s).", turn, error)
    return nullcontext()


def too_large(url: str, most: int) -> DefectError:
    """Return the error for a document of more than `most` bytes."""
    return DefectError(
        f"{without_credentials(url)} is too large: a document must have at most {most:,} bytes, decompressed."
    )


def _unreadable(url: str, reason: object) -> SourceError:
    """Return the error of a document, in one line and without credentials and control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(reason)).split())
    shown = re.sub(r"\?\S*", "", without_credentials(line))[:200].rstrip(". ")
    return SourceError(f"{without_credentials(url)} cannot be read: {shown}.")
