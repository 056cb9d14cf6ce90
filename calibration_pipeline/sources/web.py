"""Web client for documents, with throttling, retries with backoff, and limits on time, size and redirects.

All responses are untrusted. Time-outs of the event loop limit the time. A sleep before each request limits
the rate, and a lock serialises the clients of one server. No clock is read.
"""

import asyncio
import logging
import random
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from filelock import FileLock
from fsspec.asyn import get_loop, sync

from calibration_pipeline.io.addresses import safe_cause, without_credentials
from calibration_pipeline.sources.base import DefectError, MissingDocumentError, SourceError

if TYPE_CHECKING:
    from yarl import URL

logger = logging.getLogger(__name__)

CHUNK_BYTES = 2**18
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
# The live feed's store answers 403, not 404, for a missing document.
MISSING_STATUS = (403, 404, 410)
REDIRECTS = (301, 302, 303, 307, 308)
NOT_MODIFIED = 304
HEADERS = {"User-Agent": "calibration-pipeline", "Accept": "application/json", "Accept-Encoding": "gzip"}
# The characters of an address that needs no encoding: RFC 3986, appendix A.
ENCODED = re.compile(r"(?:[\w.~:/?@!$&'()*+,;=\[\]-]|%[0-9a-f]{2})+", re.ASCII | re.IGNORECASE)
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
        self._trouble = ""

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
        import_aiohttp()
        self._trouble = ""
        # The lock is waited for in the caller's thread: the event loop needs its own threads to find hosts.
        with _locked(self._turn):
            return sync(get_loop(), self._get, url, dict(validators))

    async def _get(self, url: str, validators: dict[str, str]) -> WebDocument | None:
        await self._rest()
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await self._retry(url, validators)
        except TimeoutError as error:
            reason = f"it took longer than {self._limits.total_s:g} s in all{self._trouble}"
            raise _unreadable(url, reason) from safe_cause(error, url)

    async def _retry(self, url: str, validators: dict[str, str]) -> WebDocument | None:
        limits = self._limits
        most = limits.first_delay_s
        for number in range(1, limits.tries + 1):
            try:
                return await self._try_once(url, validators)
            except _TransientError as failure:
                if number == limits.tries:
                    raise _unreadable(url, f"{failure} (try {number} of {limits.tries})") from failure
                if failure.retry_after > limits.longest_retry_after_s:
                    reason = (
                        f"{failure}; the server asks to come back in {failure.retry_after:.0f} s, "
                        f"longer than the {limits.longest_retry_after_s:g} s that are waited"
                    )
                    raise _unreadable(url, reason) from failure
                delay = failure.retry_after + random.SystemRandom().uniform(
                    0, min(most, limits.longest_delay_s)
                )
                self._trouble = f"; before that: {failure}"
                logger.warning("%s: %s; trying again in %.1f s.", without_credentials(url), failure, delay)
            most *= 2
            await asyncio.sleep(delay)
            await self._rest()
        raise _unreadable(url, "the limits allow no request")

    async def _try_once(self, url: str, validators: dict[str, str]) -> WebDocument | None:
        """Send one request, and turn failures into errors with a reason."""
        aiohttp = import_aiohttp()
        try:
            return await self._follow(aiohttp, url, validators)
        except (aiohttp.InvalidURL, aiohttp.ClientConnectorCertificateError) as error:
            raise _unreadable(url, _reason(error)) from safe_cause(error, url)
        except aiohttp.ConnectionTimeoutError as error:
            reason = f"no connection within {self._limits.connect_s:g} s"
            raise _TransientError(reason) from safe_cause(error, url)
        except aiohttp.SocketTimeoutError as error:
            reason = f"no answer, or no more of it, for {self._limits.read_s:g} s"
            raise _TransientError(reason) from safe_cause(error, url)
        except aiohttp.ClientPayloadError as error:
            raise _TransientError(f"the answer is cut short ({_reason(error)})") from safe_cause(error, url)
        except (aiohttp.ClientError, OSError, zlib.error) as error:
            raise _TransientError(_reason(error)) from safe_cause(error, url)

    async def _follow(self, aiohttp: ModuleType, url: str, validators: dict[str, str]) -> WebDocument | None:
        """Send the request, and follow redirects within the host."""
        limits = self._limits
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s, sock_read=limits.read_s)
        conditions = {VALIDATORS[name]: value for name, value in validators.items()}
        target = url
        async with aiohttp.ClientSession(
            timeout=timeout, headers=HEADERS, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            for hop in range(limits.max_redirects + 1):
                if hop:
                    await self._rest()
                address = _as_written(target)
                async with session.get(address, headers=conditions, allow_redirects=False) as response:
                    if response.status not in REDIRECTS:
                        return await self._answer(url, response, has_copy=bool(validators))
                    target = _redirected(url, target, response.headers.get("Location", ""))
        raise _unreadable(url, f"it redirects more than {limits.max_redirects} times")

    async def _answer(self, url: str, response: Any, *, has_copy: bool) -> WebDocument | None:
        """Return the document, or raise the error of the response's status."""
        status = f"HTTP {response.status} {_one_line(response.reason or '')[:60]}".strip()
        if response.status == NOT_MODIFIED and has_copy:
            return None
        if response.status in MISSING_STATUS:
            raise MissingDocumentError(f"{without_credentials(url)} does not exist ({status}).")
        if response.status in TRANSIENT_STATUS:
            raise _TransientError(status, _seconds_to_wait(response.headers))
        if response.status != 200:
            raise _unreadable(url, status)
        content = await self._body(url, response)
        content_type = _one_line(response.headers.get("Content-Type", ""))[:60]
        found = {name: response.headers[name] for name in VALIDATORS if name in response.headers}
        return WebDocument(content, content_type, found)

    async def _body(self, url: str, response: Any) -> bytes:
        """Read and decompress the body, with at most the limit in memory."""
        most = self._limits.max_bytes
        if (response.content_length or 0) > most:
            raise too_large(url, most)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise _unreadable(url, f"content encoding {encoding[:20]!r} was not asked for")
        unzip = None if encoding == "identity" else zlib.decompressobj(16 + zlib.MAX_WBITS)
        content = bytearray()
        received = 0
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            received += len(chunk)
            content += chunk if unzip is None else unzip.decompress(chunk, most + 1 - len(content))
            if max(received, len(content)) > most:
                raise too_large(url, most)
        if unzip is not None and not unzip.eof:
            raise _TransientError("the answer is cut short: its gzip stream does not end")
        return bytes(content)

    async def _rest(self) -> None:
        await asyncio.sleep(self._limits.spacing_s)


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


def import_aiohttp() -> ModuleType:
    """Return the module aiohttp, an optional dependency."""
    try:
        import aiohttp
    except ImportError as error:
        raise SourceError("Reading from the web needs the extra 'http' (aiohttp).") from error
    return aiohttp


def too_large(url: str, most: int) -> DefectError:
    """Return the error for a document of more than `most` bytes."""
    return DefectError(
        f"{without_credentials(url)} is too large: a document must have at most {most:,} bytes, decompressed."
    )


def _as_written(url: str) -> "str | URL":
    """Return an address whose query is sent unchanged.

    In a string, aiohttp decodes "%2F" and other escapes, which may break a signature in the query.
    """
    from yarl import URL

    try:
        URL(url)
    except ValueError:  # which aiohttp then names
        return url
    return URL(url, encoded=True) if ENCODED.fullmatch(url) else url


def _unreadable(url: str, reason: str) -> SourceError:
    return SourceError(f"{without_credentials(url)} cannot be read: {reason}.")


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _reason(error: Exception) -> str:
    return without_credentials(_one_line(f"{type(error).__name__} {error}"))[:200].rstrip(". ")


def _redirected(url: str, at: str, location: str) -> str:
    """Return the target of a redirect: on the same server, or from http to https on the same host."""
    try:
        target = urljoin(at, location)
        old, new = urlsplit(at), urlsplit(target)
        ports = {"http": 80, "https": 443}
        before = (old.scheme, old.hostname, old.port or ports.get(old.scheme))
        after = (new.scheme, new.hostname, new.port or ports.get(new.scheme))
    except ValueError as error:
        raise _unreadable(url, f"it redirects to {_one_line(location)[:100]!r}, no address") from error
    upgraded = before == ("http", old.hostname, 80) and after == ("https", old.hostname, 443)
    if not location or not (before == after or upgraded):
        shown = without_credentials(_one_line(target))[:150] if location else "nowhere"
        reason = f"it redirects to {shown}, but only redirects on its server, or to https there, are followed"
        raise _unreadable(url, reason)
    # A redirect brings its own credentials or keeps those of the server that it stays on.
    old_user, new_user = old.netloc.rpartition("@")[0], new.netloc.rpartition("@")[0]
    if old_user and not new_user:
        new = new._replace(netloc=f"{old_user}@{new.netloc}")
    if not new.query:
        new = new._replace(query=urlsplit(url).query)
    return new.geturl()


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
