"""Parser of joint events written as text, on a command line or in a file; no text is executed.

>>> parse_event("led(1) & top(10)")
led(1) & top(10)
>>> parse_event("at_least(2, favorites(3), top(10))")
Traceback (most recent call last):
    ...
ValueError: Event 'at_least(2, favorites(3), top(10))', character 13: 'favorites' is not known, did you mean \
'favourites'? Known are at_least, both_teammates, count, dnf, favourites, led, running, same_make, top.
"""

import ast
import difflib
import re
import tomllib
import warnings
from collections.abc import Callable

from calibration_pipeline.events.language import (
    Count,
    Event,
    Favourites,
    at_least,
    both_teammates,
    count,
    dnf,
    favourites,
    led,
    running,
    same_make,
    top,
)

LANGUAGE: tuple[tuple[str, str, str], ...] = (
    ("top(k)", "top(5)", "the car finishes in the first k"),
    ("led(k)", "led(1)", "the car leads at least k laps"),
    ("running", "running", "the car is running at the finish"),
    ("dnf", "dnf", "the car is not running at the finish"),
    ("a & b", "top(5) & running", "both are true"),
    ("a | b", "led(1) | top(10)", "at least one is true"),
    ("~a", "~running", "a is not true"),
    ("count(a) >= k", "count(dnf) >= 8", "a is true for at least k cars of the race"),
    (
        "at_least(k, favourites(m), a)",
        "at_least(2, favourites(3), top(10))",
        "a is true for at least k of the m cars that are expected to finish best",
    ),
    ("both_teammates(a)", "both_teammates(top(10))", "a is true for both cars of a pair of teammates"),
    ("same_make(a)", "same_make(top(3))", "all cars for which a is true, at least one, are of one make"),
)
"""Form, example and meaning of each element of the language; k and m are whole numbers from 1."""
LONGEST_TEXT = 500
DEEPEST = 30
LARGEST = 1_000_000

_Value = int | Event | Count | Favourites
_NAMES: dict[str, Event] = {"running": running, "dnf": dnf}
_FUNCTIONS: dict[str, tuple[Callable[..., _Value], tuple[type, ...]]] = {
    "top": (top, (int,)),
    "led": (led, (int,)),
    "favourites": (favourites, (int,)),
    "count": (count, (Event,)),
    "at_least": (at_least, (int, Favourites, Event)),
    "both_teammates": (both_teammates, (Event,)),
    "same_make": (same_make, (Event,)),
}
_KNOWN = sorted([*_NAMES, *_FUNCTIONS])
_KINDS: dict[type, str] = {
    int: "a number",
    Event: "an event",
    Count: "a count",
    Favourites: "favourites(m)",
}
_ALONE = {
    int: "a number is no event",
    Count: "a count is compared, as in count(dnf) >= 8",
    Favourites: "favourites(m) stands in at_least, as in at_least(2, favourites(3), top(10))",
}


class _RefusalError(Exception):
    """Reason why a part of the text is no event, and the offset at which that part begins."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


def parse_event(text: str) -> Event:
    """Return the event that `text` expresses; ``parse_event(str(event)) == event``.

    Parameters
    ----------
    text : str
        In the language of `LANGUAGE`, with parentheses; of at most 500 characters, nested at most 30 deep.
        ``~`` binds tighter than ``&``, ``&`` tighter than ``|``, and a count's comparison is put in
        parentheses where it is combined.

    Raises
    ------
    ValueError
        If it is no event; the message names the part, its character (from 1) and the known names.

    Examples
    --------
    >>> parse_event("top(5)&(running|led(1))")
    top(5) & (running | led(1))
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"An event must have at most {LONGEST_TEXT} characters, got {len(text)}.")
    try:
        return _event(_value(_tree(text), 1), 0)
    except _RefusalError as refusal:
        raise ValueError(f"Event {text!r}, character {refusal.offset + 1}: {refusal}") from None


def parse_events(text: str) -> dict[str, Event]:
    r"""Return the named events of a TOML document.

    Parameters
    ----------
    text : str
        One table ``[events]`` of lines ``"name" = "expression"``.

    Raises
    ------
    ValueError
        If it is no TOML, holds anything but that table, or an expression is refused; the message names the
        event.

    Examples
    --------
    >>> parse_events('[events]\n"podium sweep" = "same_make(top(3))"')
    {'podium sweep': same_make(top(3))}
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is no TOML: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if set(document) != {"events"} or not isinstance(document["events"], dict):
        found = ", ".join(repr(name) for name in document) or "nothing"
        raise ValueError(f"it must hold one table [events] and nothing else, got {found}")
    events = {}
    for name, expression in document["events"].items():
        if not isinstance(expression, str):
            raise ValueError(f"{name!r} must be an expression in quotes, got {expression!r}")
        try:
            events[name] = parse_event(expression)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
    return events


def _tree(text: str) -> ast.expr:
    """Return the syntax tree of `text`, parsed as a Python expression and never executed."""
    line = re.sub(r"[\t\r\n]", " ", text)
    strange = re.search(r"[^\w\s(),&|~<>=!+\-*/.]", line, flags=re.ASCII)
    if strange:
        raise _RefusalError(strange.start(), f"the character {strange[0]!r} is not known.")
    indent = len(line) - len(line.lstrip())
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(line.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        offset = max(getattr(error, "offset", None) or 1, 1) - 1
        raise _RefusalError(min(offset + indent, len(text)), "this is no expression.") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.expr):
            node.col_offset += indent
    return tree


def _value(node: ast.expr, depth: int) -> _Value:
    if depth > DEEPEST:
        raise _RefusalError(node.col_offset, f"it is nested more than {DEEPEST} deep.")
    match node:
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            if number > LARGEST:
                raise _RefusalError(node.col_offset, f"numbers are at most {LARGEST:,}.")
            return number
        case ast.Name(id=name):
            return _named(name, node)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _called(name, arguments, node, depth)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~_event(_value(operand, depth + 1), operand.col_offset)
        case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() as sign, right=right):
            first = _event(_value(left, depth + 1), left.col_offset)
            second = _event(_value(right, depth + 1), right.col_offset)
            return _built(lambda: first & second if isinstance(sign, ast.BitAnd) else first | second, node)
        case ast.Compare(left=left, ops=[ast.GtE()], comparators=[right]):
            return _compared(left, right, depth)
    raise _RefusalError(node.col_offset, _advice(node))


def _named(name: str, node: ast.expr) -> Event:
    if name in _NAMES:
        return _NAMES[name]
    if name in _FUNCTIONS:
        raise _RefusalError(node.col_offset, f"{name} takes arguments: {_form(name)}.")
    raise _unknown(name, node)


def _called(name: str, arguments: list[ast.expr], node: ast.expr, depth: int) -> _Value:
    if name in _NAMES:
        raise _RefusalError(node.col_offset, f"{name} takes no arguments.")
    if name not in _FUNCTIONS:
        raise _unknown(name, node)
    function, kinds = _FUNCTIONS[name]
    if len(arguments) != len(kinds):
        expected = "1 argument" if len(kinds) == 1 else f"{len(kinds)} arguments"
        raise _RefusalError(node.col_offset, f"{name} takes {expected}, got {len(arguments)}: {_form(name)}.")
    values = [_value(argument, depth + 1) for argument in arguments]
    for value, kind, argument in zip(values, kinds, arguments, strict=True):
        if not isinstance(value, kind):
            raise _RefusalError(
                argument.col_offset,
                f"{name} takes {_KINDS[kind]} here, got {_KINDS[type(value)]}: {_form(name)}.",
            )
    return _built(lambda: function(*values), node)


def _compared(left: ast.expr, right: ast.expr, depth: int) -> Event:
    counted = _value(left, depth + 1) if isinstance(left, ast.Call) else None
    if not isinstance(counted, Count):
        raise _RefusalError(
            left.col_offset,
            "only a count is compared, in parentheses where it is combined, as in (count(dnf) >= 8) & ...",
        )
    number = _value(right, depth + 1) if isinstance(right, ast.Constant) else None
    if not isinstance(number, int) or number < 1:
        raise _RefusalError(
            right.col_offset,
            "a count is compared with a whole number from 1, in parentheses where it is combined.",
        )
    return counted >= number


def _built[T](build: Callable[[], T], node: ast.expr) -> T:
    try:
        return build()
    except ValueError as error:
        raise _RefusalError(node.col_offset, str(error)) from None


def _event(value: _Value, offset: int) -> Event:
    if isinstance(value, Event):
        return value
    raise _RefusalError(offset, f"{_ALONE[type(value)]}.")


def _unknown(name: str, node: ast.expr) -> _RefusalError:
    near = difflib.get_close_matches(name, _KNOWN, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return _RefusalError(node.col_offset, f"{name!r} is not known{hint} Known are {', '.join(_KNOWN)}.")


def _form(name: str) -> str:
    return next(form for form, _, _ in LANGUAGE if f"{name}(" in form)


def _advice(node: ast.expr) -> str:
    match node:
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return "'and', 'or' and 'not' are written &, | and ~."
        case ast.Compare():
            return "counts are compared by >= alone, once, as in count(dnf) >= 8."
        case ast.Call(keywords=[_, *_]):
            return "arguments have no names."
        case ast.Constant() | ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return "numbers are whole, from 1."
    known = ", ".join(_KNOWN)
    return f"this is no part of an event. Signs are & | ~ ( ) and >= after a count, names are {known}."
