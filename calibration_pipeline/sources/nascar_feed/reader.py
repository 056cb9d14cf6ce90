"""Documents of a timing feed as parsed JSON: from the web, a folder or a zip, with limits.

All documents are untrusted: they are limited in size, parsed strictly, and cached only when they are whole.
"""

import gzip
import hashlib
import io
import json
import math
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import fsspec
from fsspec.core import url_to_fs

from calibration_pipeline.io.addresses import (
    is_on_the_web,
    safe_cause,
    split_query,
    storage_errors,
    without_credentials,
)
from calibration_pipeline.sources.base import DefectError, MissingDocumentError, SourceError
from calibration_pipeline.sources.nascar_feed.cache import FeedCache, KeptDocument
from calibration_pipeline.sources.web import WebLimits, request_document, too_large

CHUNK_BYTES = 2**20
TURN = ".turn"
GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
# Exceptions of reading files beside `storage_errors`; any other exception is a bug and passes.
FAILURES = (EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


class FeedReader:
    """Reads JSON documents below a base URL.

    Parameters
    ----------
    base_url : str
        `https://…`, a folder, a zip (`zip://::/path.zip`, or the path of a `.zip` file): anything that
        fsspec opens. The query of a web address, as in `https://…?token=…`, is a credential: it is part
        of every request, and of no message.
    cache_dir : Path, optional
        Folder for copies of documents; used for the web only. Readers that share it take turns.
    limits : WebLimits, optional
        Limits of web requests; for files, only the size is limited.

    Raises
    ------
    SourceError
        If `base_url` is empty, or a web address that cannot be split into address and query.
    """

    def __init__(self, base_url: str, cache_dir: Path | None = None, limits: WebLimits | None = None) -> None:
        try:
            self._address, self._query = split_query(base_url)
        except ValueError as error:
            raise SourceError(f"The feed's base URL cannot be used: {error}.") from None
        self.base_url = without_credentials(self._address)
        self.is_remote = is_on_the_web(self._address)
        self._limits = limits or WebLimits()
        self.has_answered = False
        key = hashlib.sha256(self.base_url.encode()).hexdigest()[:16]
        self._cache = FeedCache(cache_dir / key) if cache_dir is not None and self.is_remote else None
        self._turn = self._cache.folder / TURN if self._cache is not None else None

    def read_json(self, path: str, *, final: bool = False) -> Any:
        """Return the parsed document at `path` below the base URL.

        Parameters
        ----------
        path : str
            Consists of the feed's fixed names and of integers, never of text from a document.
        final : bool
            Whether the document will not change any more. A copy that was kept as final is then used.

        Raises
        ------
        MissingDocumentError
            If there is no such document.
        SourceError
            If it cannot be read, is too large or is not JSON.
        """
        if self.is_remote:
            return self._read_web(path, final=final)[1]
        return _parse(self._read_file(path), self.url(path), self._limits.max_bytes)

    def digest(self, path: str, *, final: bool = False) -> str:
        """Return the SHA-256 of the content of the document at `path`; parameters and errors as `read_json`.

        A document in a folder or a zip is not parsed.
        """
        content = self._read_web(path, final=final)[0] if self.is_remote else self._read_file(path)
        return hashlib.sha256(content).hexdigest()

    def invalidate(self, path: str) -> None:
        """Have the document at `path` requested again, final or not, because it cannot be used."""
        if self._cache is not None:
            self._cache.invalidate(path)

    def folders(self) -> list[str]:
        """Return the names of the folders directly below the base URL.

        Raises
        ------
        SourceError
            If the base URL is on the web, does not exist or cannot be read.
        """
        if self.is_remote:
            raise SourceError(f"{self.base_url} is on the web, where folders cannot be listed.")
        try:
            filesystem, root = self._filesystem
            found = filesystem.ls(root, detail=True)
        except SourceError:
            raise
        except storage_errors(*FAILURES) as error:
            cause = safe_cause(error, self._address)
            raise SourceError(f"{self.base_url} cannot be read: {_reason(error)}.") from cause
        names = (str(entry["name"]).rstrip("/") for entry in found if entry["type"] == "directory")
        return sorted(name.rpartition("/")[2] for name in names)

    def url(self, path: str) -> str:
        """Return the address of `path` in messages, without credentials."""
        return f"{self.base_url}/{path}"

    def _read_web(self, path: str, *, final: bool) -> tuple[bytes, Any]:
        """Return content and document of a final copy, else from the web; other copies are revalidated."""
        where = self.url(path)
        kept = self._cache.load(path) if self._cache is not None else None
        if kept is not None and kept.final and final:
            return kept.content, _parse(kept.content, where, self._limits.max_bytes)
        try:
            address = f"{self._address}/{path}{self._query}"
            validators = kept.validators if kept is not None else {}
            answer = request_document(address, self._limits, validators, self._turn)
        except MissingDocumentError as error:
            if kept is None or self._cache is None:
                raise
            raise DefectError(
                f"{where} was there before and now is not: {error} The feed refuses to answer, has moved, "
                f"or has taken it back; its copy lies in {self._cache.folder}."
            ) from error
        if answer is not None:
            document = _parse(answer.content, where, self._limits.max_bytes, answer.content_type)
            if self._cache is not None and (final or answer.validators):
                self._cache.keep(path, KeptDocument(answer.content, final, answer.validators))
            self.has_answered = True
            return answer.content, document
        if kept is None or self._cache is None:
            raise SourceError(
                f"{where} cannot be read: the server reports it as unchanged, but there is no copy."
            )
        document = _parse(kept.content, where, self._limits.max_bytes)
        if final:
            self._cache.keep(path, KeptDocument(kept.content, final, kept.validators))
        self.has_answered = True
        return kept.content, document

    @cached_property
    def _filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """File system of the base URL, and its path there."""
        is_zip = self._address.endswith(".zip") and "::" not in self._address
        absent = SourceError(f"The feed's base URL {self.base_url} does not exist.")
        try:
            address = f"zip://::{self._address}" if is_zip else self._address
            filesystem, root = url_to_fs(address, use_listings_cache=False)
        except FileNotFoundError as error:
            raise absent from safe_cause(error, self._address)
        if root and not filesystem.exists(root):
            raise absent
        return filesystem, root

    def _read_file(self, path: str) -> bytes:
        most = self._limits.max_bytes
        content = bytearray()
        try:
            filesystem, root = self._filesystem
            with filesystem.open(f"{root}/{path}" if root else path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    content += chunk
                    if len(content) > most:
                        raise too_large(self.url(path), most)
        except SourceError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            cause = safe_cause(error, self._address)
            raise MissingDocumentError(f"{self.url(path)} does not exist.") from cause
        except storage_errors(*FAILURES) as error:
            cause = safe_cause(error, self._address)
            raise DefectError(f"{self.url(path)} cannot be read: {_reason(error)}.") from cause
        return bytes(content)


def _reason(error: Exception) -> str:
    return without_credentials(" ".join(f"{type(error).__name__} {error}".split()))[:200].rstrip(". ")


def _parse(content: bytes, where: str, max_bytes: int, content_type: str = "") -> Any:
    """Parse strict JSON: NaN and infinities are refused, halves of a surrogate pair become U+FFFD.

    A gzip file is decompressed first, up to `max_bytes`.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a JSON number")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text[:20])

    try:
        if content[:2] == GZIP:  # without its header Content-Encoding
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise too_large(where, max_bytes)
        content = content.removeprefix(BYTE_ORDER_MARK)
        document = json.loads(content, parse_constant=refuse, parse_float=finite)
        if b"\\ud" in content or b"\\uD" in content:
            text = json.dumps(document, ensure_ascii=False).encode("utf-16", "surrogatepass")
            document = json.loads(text.decode("utf-16", "replace"))
        return document
    except SourceError:
        raise
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
        declared_type = f", content type {content_type!r}" if content_type else ""
        size = f"{len(content):,} bytes{declared_type}"
        if content.lstrip()[:1] == b"<":
            raise DefectError(
                f"{where} is a web page (HTML or XML; {size}), not JSON: the feed has moved, is under "
                "repair or refuses to answer."
            ) from error
        raise DefectError(f"{where} is not valid JSON ({size}): {_reason_of_parser(error)}.") from error


def _reason_of_parser(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
