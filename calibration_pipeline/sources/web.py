"""Requests of documents from the web, with throttling, retries, and limits on time, size and redirects.

All responses are untrusted. Each document is requested in a thread, for which the caller waits up to the
limit: the time-outs of a socket do not end a response that drips. No clock is read.
"""

import io
import logging
import ssl
import threading
import zlib
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

from filelock import FileLock
from urllib3 import BaseHTTPResponse, Retry, Timeout, connection_from_url
from urllib3.exceptions import HostChangedError, HTTPError, InvalidHeader, ResponseError
from urllib3.util import make_headers, parse_url

from calibration_pipeline.io.addresses import safe_cause, without_credentials
from calibration_pipeline.sources.base import DefectError, MissingDocumentError, SourceError

logger = logging.getLogger(__name__)
# urllib3 logs addresses with their query, which is a credential: its records with a query are dropped.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(lambda record: "?" not in record.getMessage())

CHUNK_BYTES = 2**18
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
    content_type: str
    validators: dict[str, str]


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
        Lock file that callers for one server share, also of other processes: together they are as slow as
        one. It is held until the document is read. A lock that cannot be taken is logged as a warning.

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
    with ExitStack() as stack:
        if turn is not None:
            try:
                stack.enter_context(FileLock(turn))
            except OSError as error:
                logger.warning("%s cannot be locked: other processes may ask as well (%s).", turn, error)
        stack.callback(request.is_abandoned.set)
        threading.Thread(target=request.run, daemon=True).start()
        try:
            return request.answer.result(limits.total_s)
        except SourceError:
            raise
        except TimeoutError:
            raise _unreadable(url, f"it took longer than {limits.total_s:g} s{request.trouble}") from None
        except (HTTPError, ValueError) as error:
            # A MaxRetryError names the last failure as its reason.
            raise _unreadable(url, getattr(error, "reason", error)) from safe_cause(error, url)


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
        retries, target = self.limits.retries, self.url
        headers = HEADERS | {VALIDATORS[name]: value for name, value in self.validators.items()}
        headers |= make_headers(basic_auth=parse_url(target).auth_decoded_joined, basic_auth_encoding="utf-8")
        with connection_from_url(target, timeout=self.limits.timeout, headers=headers, retries=False) as pool:
            while not self.is_abandoned.wait(self.limits.spacing_s):
                response = None
                try:
                    path = parse_url(target).request_uri
                    response = pool.urlopen("GET", path, redirect=False, preload_content=False)
                    with closing(response):
                        if not (location := response.get_redirect_location()):
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
        return None

    def _document(self, response: BaseHTTPResponse) -> WebDocument | None:
        """Return the document of a response, or raise the error of its status."""
        status = f"HTTP {response.status}"
        match response.status:
            case 200:
                headers = response.headers
                validators = {name: headers[name] for name in VALIDATORS if name in headers}
                return WebDocument(self._body(response), headers.get("Content-Type", "")[:60], validators)
            case 304 if self.validators:
                return None
            case 403 | 404 | 410:  # The live feed's store answers 403, not 404, for a missing document.
                raise MissingDocumentError(f"{without_credentials(self.url)} does not exist ({status}).")
            case 408 | 425 | 429 | 500 | 502 | 503 | 504:
                raise ResponseError(f"{status} {response.reason}")
        raise _unreadable(self.url, f"{status} {response.reason}")

    def _body(self, response: BaseHTTPResponse) -> bytes:
        """Read and decompress the body, with at most the limit in memory."""
        most = self.limits.max_bytes
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise _unreadable(self.url, f"content encoding {encoding[:20]!r} was not asked for")
        # The decoder of urllib3 takes a gzip stream that is cut short for a whole one.
        unzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
        with io.BytesIO() as content:  # its memory is free after a failure
            while chunk := response.read1(CHUNK_BYTES, decode_content=False):
                if self.is_abandoned.is_set():
                    raise SystemExit
                content.write(unzip.decompress(chunk, most + 1 - content.tell()) if unzip else chunk)
                if max(response.tell() + (response.length_remaining or 0), content.tell()) > most:
                    raise too_large(self.url, most)
            if unzip and not unzip.eof:
                raise ResponseError("the answer is cut short: its gzip stream does not end")
            return content.getvalue()


def too_large(url: str, most: int) -> DefectError:
    """Return the error for a document of more than `most` bytes."""
    return DefectError(f"{without_credentials(url)} is too large: the limit is {most:,} bytes, decompressed.")


def _unreadable(url: str, reason: object) -> SourceError:
    """Return the error of a document, in one line and without credentials and control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(reason)).split())
    shown = without_credentials(line).partition("?")[0][:200].rstrip(". ")
    return SourceError(f"{without_credentials(url)} cannot be read: {shown}.")
