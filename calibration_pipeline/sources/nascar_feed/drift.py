"""Message on the fields in which a document differs from its model, in one line."""

import difflib
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MOST_NAMED = 3
LONGEST_VALUE = 40


def drift(error: ValidationError, document: Any) -> str:
    """Return the found and expected values of the first wrong fields of a document.

    Parameters
    ----------
    error : pydantic.ValidationError
        Error of the document's model.
    document : object
        The document as parsed JSON: the object that holds the fields.

    Returns
    -------
    str
        One line without a full stop, such as `race_id: Field required (renamed? the feed has 'raceid')`.
    """
    details = error.errors(include_url=False, include_context=False)
    parts = [_sentence(detail, document) for detail in details[:MOST_NAMED]]
    if (more := len(details) - MOST_NAMED) > 0:
        parts.append("1 more field" if more == 1 else f"{more} more fields")
    return "; ".join(parts)


def _sentence(detail: ErrorDetails, document: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "the document"
    expected = _short(detail["msg"], 120)
    if detail["type"] == "missing":
        return f"{field}: {expected}{_there_is(field, document)}"
    value = detail["input"]
    return f"{field}: {expected}, got {_short(repr(value), LONGEST_VALUE)} ({type(value).__name__})"


def _there_is(field: str, document: Any) -> str:
    """Return the part of a message on the present names: a similar name, else all names."""
    if not isinstance(document, dict):
        return ""
    names = [str(name) for name in document]
    if alike := difflib.get_close_matches(field, names, n=1, cutoff=0.7):
        return f" (renamed? the feed has {_short(repr(alike[0]), LONGEST_VALUE)})"
    listed = _short(", ".join(sorted(names)), 120) or "nothing"
    return f" (the feed has {listed})"


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
