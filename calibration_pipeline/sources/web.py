"""Web client for documents, with throttling, retries with backoff, and limits on time, size and redirects.

All responses are untrusted. Each document is requested in a thread, for which the caller waits up to the
limit. A sleep before each request limits the rate, and a lock serialises the clients of one server. No clock
is read.
"""

import logging
import random
import re
import ssl
import threading
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin

from filelock import FileLock
from urllib3 import BaseHTTPResponse, Timeout, connection_from_url, exceptions
from urllib3.util import parse_url

from calibration_pipeline.io.addresses import safe_cause, without_credentials
from calibration_pipeline.sources.base import DefectError, MissingDocumentError, SourceError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 2**18
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
# The live feed's store answers 403, not 404, for a missing document.
MISSING_STATUS = (403, 404, 410)
REDIRECTS = (301, 302, 303, 307, 308)
NOT_MODIFIED = 304
HEADERS = {"User-Agent": "calibration-pipeline", "Accept-Encoding": "gzip"}
# Request header that revalidates a copy, by the response header of the copy.
VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


@dataclass(frozen=True)
class WebLimits:
    """Limits of a web client on time, size, retries, redirects and rate.

    Attributes
    ----------
    connect_s, read_s : float
        Seconds to connect, and to wait for the response or its next bytes.
    total_s : float
        Seconds for one document in total: tries, waits and redirects included.
    spacing_s : float
        Seconds of rest before every request.
    tries : int
        Number of requests for a document where a failure may be transient.
    first_delay_s, longest_delay_s : float
        The wait before try n + 1 is drawn between 0 and `first_delay_s` times 2 to the n - 1, capped.
    longest_retry_after_s : float
        A longer wait that a server asks for is not waited; the request fails.
    max_bytes : int
        Size of a document, also after decompression.
    max_redirects : int
        Number of redirects that are followed, on the same host only.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    total_s: float = 180.0
    spacing_s: float = 0.2
    tries: int = 4
    first_delay_s: float = 1.0
    longest_delay_s: float = 20.0
    longest_retry_after_s: float = 60.0
    max_bytes: int = 64 * 2**20
    max_redirects: int = 3


@dataclass(frozen=True)
class WebDocument:
    """A document: its decompressed content, content type and validators."""

    content: bytes
    content_type: str = ""
    validators: dict[str, str] = field(default_factory=dict)


class _TransientError(Exception):
    """Transient failure; `retry_after` is the wait in seconds that the server asks for."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class WebClient:
    """Client that requests one document at a time.

    Parameters
    ----------
    limits : WebLimits
        Limits on time, size, retries, redirects and rate.
    turn : Path, optional
        Lock file that clients of one server share, also of other processes. A client holds the lock for a
        document, from the sleep before its first request to its last byte. All clients together are
        therefore as slow as a single client. A lock that cannot be taken is logged as a warning.
    """

    def __init__(self, limits: WebLimits, turn: Path | None = None) -> None:
        self._limits = limits
        self._turn = turn

    def get(self, url: str, validators: Mapping[str, str]) -> WebDocument | None:
        """Return the document at `url`.

        Parameters
        ----------
        url : str
            An `http://` or `https://` address.
        validators : mapping of str to str
            Headers `ETag` and `Last-Modified` of a copy that the caller has; empty if it has none.

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
        request = _Request(self._limits, url, validators)
        with _locked(self._turn):
            threading.Thread(target=request.run, daemon=True).start()
            try:
                return request.answer.result(self._limits.total_s)
            except TimeoutError as error:
                reason = f"it took longer than {self._limits.total_s:g} s in all{request.trouble}"
                raise _unreadable(url, reason) from safe_cause(error, url)
            finally:
                request.is_abandoned.set()


@dataclass
class _Request:
    """Request of one document in a thread, which ends soon after its caller stops waiting."""

    limits: WebLimits
    url: str
    validators: Mapping[str, str]
    answer: Future[WebDocument | None] = field(default_factory=Future)
    is_abandoned: threading.Event = field(default_factory=threading.Event)
    trouble: str = ""

    def run(self) -> None:
        """Request the document, and pass it or its error to the caller's thread."""
        try:
            self.answer.set_result(self._retry())
        except BaseException as error:
            self.answer.set_exception(error)

    def _retry(self) -> WebDocument | None:
        limits, url, delay = self.limits, self.url, 0.0
        for number in range(1, limits.tries + 1):
            self._rest(delay + limits.spacing_s)
            try:
                return self._try_once()
            except _TransientError as failure:
                if failure.retry_after > limits.longest_retry_after_s:
                    reason = (
                        f"{failure}; the server asks to come back in {failure.retry_after:.0f} s, "
                        f"longer than the {limits.longest_retry_after_s:g} s that are waited"
                    )
                    raise _unreadable(url, reason) from safe_cause(failure, url)
                if number == limits.tries:
                    reason = f"{failure} (try {number} of {limits.tries})"
                    raise _unreadable(url, reason) from safe_cause(failure, url)
                most = min(limits.first_delay_s * 2 ** (number - 1), limits.longest_delay_s)
                delay = failure.retry_after + random.SystemRandom().uniform(0, most)
                self.trouble = f"; before that: {failure}"
                logger.warning("%s: %s; trying again in %.1f s.", without_credentials(url), failure, delay)
        raise _unreadable(url, "the limits allow no request")

    def _try_once(self) -> WebDocument | None:
        """Send one request, and turn failures into errors with a reason."""
        try:
            return self._follow()
        except (exceptions.HTTPError, HTTPException, OSError, zlib.error) as error:
            cause, reason = safe_cause(error, self.url), _reason(error)
            is_untrusted = any(isinstance(each, ssl.SSLCertVerificationError) for each in error.args)
            if is_untrusted or isinstance(error, exceptions.LocationValueError):
                raise _unreadable(self.url, reason) from cause
            if isinstance(error, exceptions.ReadTimeoutError):
                reason = f"no answer, or no more of it, for {self.limits.read_s:g} s"
            elif type(error) is exceptions.ConnectTimeoutError:  # its subclasses are other failures
                reason = f"no connection within {self.limits.connect_s:g} s"
            raise _TransientError(reason) from cause

    def _follow(self) -> WebDocument | None:
        """Send the request, and follow redirects within the host."""
        limits, target = self.limits, self.url
        timeout = Timeout(connect=limits.connect_s, read=limits.read_s)
        conditions = {VALIDATORS[name]: value for name, value in self.validators.items()}
        for hop in range(limits.max_redirects + 1):
            self._rest(limits.spacing_s if hop else 0.0)
            address = parse_url(target)
            headers = HEADERS | conditions
            if address.auth:
                headers["Authorization"] = f"Basic {b64encode(unquote_to_bytes(address.auth)).decode()}"
            with (
                connection_from_url(target, timeout=timeout, retries=False) as pool,
                closing(
                    pool.urlopen(
                        "GET", address.request_uri, headers=headers, redirect=False, preload_content=False
                    )
                ) as response,
            ):
                if response.status not in REDIRECTS:
                    return self._answer(response)
                target = _redirected(self.url, target, response.headers.get("Location", ""))
        raise _unreadable(self.url, f"it redirects more than {limits.max_redirects} times")

    def _answer(self, response: BaseHTTPResponse) -> WebDocument | None:
        """Return the document, or raise the error of the response's status."""
        status = f"HTTP {response.status} {_one_line(response.reason or '')[:60]}".strip()
        if response.status == NOT_MODIFIED and self.validators:
            return None
        if response.status in MISSING_STATUS:
            raise MissingDocumentError(f"{without_credentials(self.url)} does not exist ({status}).")
        if response.status in TRANSIENT_STATUS:
            raise _TransientError(status, _seconds_to_wait(response.headers))
        if response.status != 200:
            raise _unreadable(self.url, status)
        content_type = _one_line(response.headers.get("Content-Type", ""))[:60]
        found = {name: response.headers[name] for name in VALIDATORS if name in response.headers}
        return WebDocument(self._body(response), content_type, found)

    def _body(self, response: BaseHTTPResponse) -> bytes:
        """Read and decompress the body, with at most the limit in memory."""
        most = self.limits.max_bytes
        declared = response.headers.get("Content-Length", "0")
        if not re.fullmatch(r"[0-9]{1,18}", declared):
            raise _TransientError(f"Content-Length {_one_line(declared)[:20]!r} is not a number")
        if int(declared) > most:
            raise too_large(self.url, most)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise _unreadable(self.url, f"content encoding {encoding[:20]!r} was not asked for")
        unzip = None if encoding == "identity" else zlib.decompressobj(16 + zlib.MAX_WBITS)
        content, received = bytearray(), 0
        while chunk := response.read1(CHUNK_BYTES, decode_content=False):
            self._rest(0.0)
            received += len(chunk)
            content += chunk if unzip is None else unzip.decompress(chunk, most + 1 - len(content))
            if max(received, len(content)) > most:
                raise too_large(self.url, most)
        if unzip is not None and not unzip.eof:
            raise _TransientError("the answer is cut short: its gzip stream does not end")
        return bytes(content)

    def _rest(self, seconds: float) -> None:
        """Sleep; end the thread if the caller does not wait any more."""
        if self.is_abandoned.wait(seconds):
            raise SystemExit


@contextmanager
def _locked(turn: Path | None) -> Iterator[None]:
    """Hold the lock of the file `turn`; the end of its process releases it too."""
    with ExitStack() as stack:
        if turn is not None:
            try:
                turn.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(turn))
            except OSError as error:
                logger.warning(
                    "%s cannot be locked: other processes may ask at the same time (%s).", turn, error
                )
        yield


def too_large(url: str, most: int) -> DefectError:
    """Return the error for a document of more than `most` bytes."""
    return DefectError(
        f"{without_credentials(url)} is too large: a document must have at most {most:,} bytes, decompressed."
    )


def _unreadable(url: str, reason: str) -> SourceError:
    return SourceError(f"{without_credentials(url)} cannot be read: {reason}.")


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _reason(error: Exception) -> str:
    return without_credentials(_one_line(f"{type(error).__name__} {error}"))[:200].rstrip(". ")


def _redirected(url: str, at: str, location: str) -> str:
    """Return the target of a redirect: on the same server, or from http to https on the same host."""
    try:
        old, new = parse_url(at), parse_url(urljoin(at, location))
        secure = connection_from_url(f"https://{old.host}")
        is_upgrade = old.scheme == "http" and old.port in (None, 80) and secure.is_same_host(new.url)
        is_followed = bool(location) and (is_upgrade or connection_from_url(at).is_same_host(new.url))
    except ValueError as error:
        raise _unreadable(url, f"it redirects to {_one_line(location)[:100]!r}, no address") from error
    if not is_followed:
        shown = without_credentials(_one_line(new.url))[:150] if location else "nowhere"
        reason = f"it redirects to {shown}, but only redirects on its server, or to https there, are followed"
        raise _unreadable(url, reason)
    # A redirect brings its own credentials or keeps those of the server that it stays on.
    return new._replace(auth=new.auth or old.auth, query=new.query or parse_url(url).query).url


def _seconds_to_wait(headers: Mapping[str, str]) -> float:
    """Return the seconds of `Retry-After`; a date counts from the server's own `Date`."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", asked):
        return float(asked)
    try:
        until, now = parsedate_to_datetime(asked), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
