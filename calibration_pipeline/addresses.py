"""Addresses as they may be told: logs, messages and records never hold what opens a door."""

import re


def without_credentials(text: str) -> str:
    """Return `text` without users, passwords and queries of addresses in it.

    >>> without_credentials("https://user:secret@feed.example/a?token=1 is down")
    'https://feed.example/a is down'
    """
    without_users = re.sub(r"(?<=://)[^/\s]*@", "", text)
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\"]*", r"\1", without_users)


def has_credentials(address: str) -> bool:
    """Tell whether an address holds what is not to be told.

    >>> has_credentials("https://user:secret@feed.example/a"), has_credentials("s3://bucket/prefix")
    (True, False)
    """
    return without_credentials(address) != address


def tellable_cause(error: BaseException, address: str) -> BaseException | None:
    """Return `error` as the cause of another, None where it may repeat an address that has credentials."""
    return None if has_credentials(address) else error
