"""Addresses without credentials, the only form that logs, messages and records hold."""

import re
import sys

from upath import UPath


def without_credentials(text: str) -> str:
    """Return `text` with the users, passwords and queries of its addresses removed.

    Of an address with "?" before "@", only the scheme is left: a password may have "?", and a query "@".

    >>> without_credentials("https://user:secret@feed.example/a?token=1 is down")
    'https://feed.example/a is down'
    >>> without_credentials("'https://feed.example/a?token=it's' and https://feed.example?token=a@b")
    "'https://feed.example/a' and https://"
    """
    plain = re.sub(r"(?<=://)[^/?\s]*\?[^/\s]*@[^\s'\"]*", "", text)
    without_users = re.sub(r"(?<=://)[^/\s]*@", "", plain)
    # A quote ends a query unless the query continues after it.
    return re.sub(r"(://[^\s?'\"]*)\?(?:[^\s'\"]|['\"]+(?=[\w%&=~+-]))*", r"\1", without_users)


def has_credentials(address: str) -> bool:
    """Return whether an address holds a user, a password or a query.

    >>> has_credentials("https://user:secret@feed.example/a"), has_credentials("s3://bucket/prefix")
    (True, False)
    """
    return without_credentials(address) != address


def safe_cause(error: BaseException, address: str) -> BaseException | None:
    """Return `error` as the cause of another error, None if it may repeat an address with credentials."""
    return None if has_credentials(address) else error


def fresh_path(address: str) -> UPath:
    """Return the path of an address; its file system keeps no listings, because others write there too.

    >>> fresh_path("memory://bucket/a").exists()
    False
    """
    return UPath(address, use_listings_cache=False) if "://" in address else UPath(address)


def is_on_the_web(address: str) -> bool:
    """Return whether an address begins with `http://` or `https://`.

    >>> is_on_the_web("HTTPS://feed.example"), is_on_the_web("s3://bucket/prefix")
    (True, False)
    """
    return address.lower().startswith(("http://", "https://"))


def split_query(address: str) -> tuple[str, str]:
    """Return an address without its final slash, and its query that starts with "?".

    Only web addresses have a query; otherwise the query is empty.

    Raises
    ------
    ValueError
        If the address is empty, or on the web and cannot be split.

    Examples
    --------
    >>> split_query("https://feed.example/cacher/?token=1"), split_query("/data/feed/")
    (('https://feed.example/cacher', '?token=1'), ('/data/feed', ''))
    """
    base, query = address.strip(), ""
    if is_on_the_web(base):
        if "#" in base or re.search(r"\s", base):
            raise ValueError("it must have neither '#' nor a space: write %23 and %20")
        if without_credentials(base).endswith("://"):
            raise ValueError("it must have a host, and no '?' before '@': write %3F and %40")
        base, mark, query = base.partition("?")
        query = mark + query if query else ""
    base = base.rstrip("/")
    if not base:
        raise ValueError("it must not be empty")
    return base, query


def is_local(path: UPath) -> bool:
    """Return whether a path is on a local disk, not in an object store."""
    return path.protocol in ("", "file", "local")


def is_remote(address: str | None) -> bool:
    """Return whether an address names another file system than this machine's disks.

    >>> is_remote("s3://bucket/results.parquet"), is_remote("zip://::/data/feed.zip"), is_remote(None)
    (True, False, False)
    """
    innermost = (address or "").rpartition("::")[2].lower()
    return "://" in innermost and not innermost.startswith(("file://", "local://"))


def storage_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the errors by which a file system says that it cannot be read or written, and others.

    Those of S3 and of the web that are no `OSError`, such as missing credentials, exist once their packages
    are loaded; an `ImportError` says that the package of a file system is not installed.
    """
    packages = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"))
    loaded = [(sys.modules[module], name) for module, name in packages if module in sys.modules]
    return (OSError, ImportError, *others, *(getattr(module, name) for module, name in loaded))
