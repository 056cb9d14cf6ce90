"""Documents of a timing feed as parsed JSON: from the web, a folder or a zip, with limits.

Everything read here is untrusted: documents are limited in size, parsed strictly, and cached only once
they are whole and final.
"""

import hashlib
import json
import logging
import os
import time
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import fsspec
from fsspec.core import url_to_fs

from calibration_pipeline.sources.base import SourceError

logger = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
RETRY_DELAYS_S = (0.5, 2.0, 8.0)
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
# The live feed's store answers 403, not 404, for what it does not have.
MISSING_STATUS = (403, 404, 410)


class MissingDocumentError(SourceError):
    """The feed has no such document."""


class FeedReader:
    """Reads JSON documents below a base URL.

    Parameters
    ----------
    base_url : str
        `https://…`, a folder, a zip (`zip://::/path.zip`, or the path of a `.zip` file): anything that
        fsspec opens.
    cache_dir : Path, optional
        Folder for documents that will not change any more; used for the web only.

    Raises
    ------
    SourceError
        If `base_url` is empty.
    """

    def __init__(self, base_url: str, cache_dir: Path | None = None) -> None:
        if not base_url.strip():
            raise SourceError("The feed's base URL must not be empty.")
        self.base_url = base_url.strip().rstrip("/")
        self.is_remote = self.base_url.startswith(("http://", "https://"))
        key = hashlib.sha256(self.base_url.encode()).hexdigest()[:16]
        self._cache = cache_dir / key if cache_dir is not None and self.is_remote else None

    def read_json(self, path: str, *, final: bool = False) -> Any:
        """Return the parsed document at `path` below the base URL.

        Parameters
        ----------
        path : str
            Made of the feed's fixed names and of integers, never of text from a document.
        final : bool
            Whether the document will not change any more, so that a cached copy will do.

        Raises
        ------
        MissingDocumentError
            If there is no such document.
        SourceError
            If it cannot be read, is too large or is not JSON.
        """
        cached = self._cache / path if final and self._cache else None
        if cached is not None and cached.is_file():
            return _parse(cached.read_bytes(), str(cached))
        content = self._read(path)
        document = _parse(content, self.url(path))
        if cached is not None:
            _write_atomically(cached, content)
        return document

    def folders(self) -> list[str]:
        """Return the names of the folders right below the base URL.

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
        except self._failures as error:
            raise SourceError(f"{self.base_url} cannot be read: {_reason(error)}.") from error
        names = (str(one["name"]).rstrip("/") for one in found if one["type"] == "directory")
        return sorted(name.rpartition("/")[2] for name in names)

    def url(self, path: str) -> str:
        """Return where `path` lies, as messages name it."""
        return f"{self.base_url}/{path}"

    @cached_property
    def _filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system and the path in it of the base URL."""
        if not self.is_remote:
            return self._local_filesystem()
        timeout = import_aiohttp().ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        headers = {"User-Agent": "calibration-pipeline"}
        return url_to_fs(self.base_url, client_kwargs={"timeout": timeout, "headers": headers})

    def _local_filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        is_zip = self.base_url.endswith(".zip") and "::" not in self.base_url
        absent = SourceError(f"The feed's base URL {self.base_url} does not exist.")
        try:
            filesystem, root = url_to_fs(f"zip://::{self.base_url}" if is_zip else self.base_url)
        except FileNotFoundError as error:
            raise absent from error
        if root and not filesystem.exists(root):
            raise absent
        return filesystem, root

    @cached_property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What reading may raise; anything else is a bug and passes."""
        local = (OSError, EOFError, ImportError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
        return (*local, import_aiohttp().ClientError) if self.is_remote else local

    def _read(self, path: str) -> bytes:
        """Read a document, trying again what may pass."""
        delays = iter(RETRY_DELAYS_S if self.is_remote else ())
        while True:
            try:
                return self._read_once(path)
            except SourceError:
                raise
            except self._failures as error:
                delay = next(delays, None) if _may_pass(error) else None
                if delay is None:
                    raise self._refusal(path, error) from error
                logger.warning("%s: %s; trying again in %s s", self.url(path), _reason(error), delay)
            time.sleep(delay)

    def _read_once(self, path: str) -> bytes:
        filesystem, root = self._filesystem
        # With a size given and no blocks, fsspec streams the body at once; asked for the size, it would
        # call every failure a missing file.
        options = {"block_size": 0, "size": 1} if self.is_remote else {}
        chunks: list[bytes] = []
        size = 0
        with filesystem.open(f"{root}/{path}" if root else path, "rb", **options) as file:
            while chunk := file.read(CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_DOCUMENT_BYTES:
                    raise SourceError(
                        f"{self.url(path)} is too large: a document must have at most "
                        f"{MAX_DOCUMENT_BYTES:,} bytes."
                    )
                chunks.append(chunk)
        return b"".join(chunks)

    def _refusal(self, path: str, error: Exception) -> SourceError:
        """Return the one error that says what could not be read, where and why."""
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if missing or getattr(error, "status", None) in MISSING_STATUS:
            return MissingDocumentError(f"{self.url(path)} does not exist.")
        return SourceError(f"{self.url(path)} cannot be read: {_reason(error)}.")


def import_aiohttp() -> ModuleType:
    """Import what fsspec reads the web with; it is optional."""
    try:
        import aiohttp
    except ImportError as error:
        raise SourceError("Reading from the web needs the extra 'http' (aiohttp).") from error
    return aiohttp


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help."""
    if isinstance(error, FileNotFoundError | ImportError | ValueError):
        return False
    return getattr(error, "status", PASSING_STATUS[0]) in PASSING_STATUS


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200].rstrip(". ")


def _parse(content: bytes, where: str) -> Any:
    """Parse strict JSON: NaN and infinities are refused."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not valid JSON ({len(content):,} bytes): {error}.") from error


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_bytes(content)
    beside.replace(path)
