"""Message on the fields in which a document differs from its model, in one line."""

import difflib
from collections import defaultdict
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MOST_NAMED = 3
LONGEST_VALUE = 40


def drift(error: ValidationError, document: Any) -> str:
    """Return the found and expected values of the first wrong fields of a document.

    A field that is wrong in many elements of a list is named once, with the number of elements.

    Parameters
    ----------
    error : pydantic.ValidationError
        Error of the document's model.
    document : object
        The document as parsed JSON.

    Returns
    -------
    str
        One line without a full stop, such as `results.0.laps: Field required, in 40 places; the feed has
        'laps_run'`.
    """
    groups: defaultdict[tuple[object, ...], list[ErrorDetails]] = defaultdict(list)
    for detail in error.errors(include_url=False, include_context=False):
        names = tuple("*" if isinstance(part, int) else part for part in detail["loc"])
        groups[*names, detail["type"]].append(detail)
    parts = [_sentence(group, document) for group in list(groups.values())[:MOST_NAMED]]
    if more := len(groups) - MOST_NAMED:
        parts += [f"{more} more fields"] if more > 0 else []
    return "; ".join(parts)


def _sentence(group: list[ErrorDetails], document: Any) -> str:
    first = group[0]
    field = ".".join(str(part) for part in first["loc"]) or "the document"
    places = f", in {len(group)} places" if len(group) > 1 else ""
    expected = _short(first["msg"], 120)
    if first["type"] == "missing":
        return f"{field}: {expected}{places}{_there_is(str(first['loc'][-1]), _parent(first, document))}"
    value = first["input"]
    return f"{field}: {expected}, got {_short(repr(value), LONGEST_VALUE)} ({type(value).__name__}){places}"


def _parent(error: ErrorDetails, document: Any) -> Any:
    """Return the object in which a field is missing."""
    found = document
    for part in error["loc"][:-1]:
        found = found[part]
    return found


def _there_is(field: str, parent: Any) -> str:
    """Return the part of a message on the present names: a similar name, else all names."""
    if not isinstance(parent, dict):
        return ""
    names = [str(name) for name in parent]
    if alike := difflib.get_close_matches(field, names, n=1, cutoff=0.7):
        return f" (renamed? the feed has {_short(repr(alike[0]), LONGEST_VALUE)})"
    listed = _short(", ".join(sorted(names)), 120) or "nothing"
    return f" (the feed has {listed})"


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
