"""Blocks of a report: the element types of a section that every renderer supports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell of a table: the value, and its interval in smaller print.

    `verdict` colours the cell as that verdict; `anchor` makes the value a link to that section.
    """

    text: str
    small: str = ""
    verdict: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of short statements."""

    items: Sequence[str]


@dataclass(frozen=True)
class Definitions:
    """Terms with their meanings."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class References:
    """Bibliography of the methods: pairs of citation and address."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows below column heads.

    The first `n_text` columns are text, the rest numbers; `folded` tables open on request. A row of one cell
    is the heading of the rows below it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    n_text: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure. `key` is unique in the report and serves as a file name; `draw` returns a PNG image."""

    key: str
    alt: str
    caption: str
    draw: Callable[[], bytes]


@dataclass(frozen=True)
class Gallery:
    """Figures side by side where there is room; with a `summary` they are folded behind it."""

    pictures: Sequence[Picture]
    summary: str = ""


Block = Text | Bullets | Definitions | References | Table | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and its blocks; `anchor` is the link target."""

    anchor: str
    heading: str
    blocks: Sequence[Block]
