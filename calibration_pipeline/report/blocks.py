"""What a section of a report is built from. Renderers know how to write these, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell of a table: the value, and its interval in smaller print."""

    text: str
    small: str = ""


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
    """Terms and what they mean."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class References:
    """Works that a method was taken from: pairs of citation and address."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows below column heads.

    The first `n_text` columns are words, the rest numbers; `folded` tables open on request. A row of one cell
    names the rows below it.
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
    """Figures that stand side by side where there is room; those with a `summary` are folded behind it."""

    pictures: Sequence[Picture]
    summary: str = ""


Block = Text | Bullets | Definitions | References | Table | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and what follows it; `anchor` is where links lead, `verdict` stands beside the heading."""

    anchor: str
    heading: str
    blocks: Sequence[Block]
    verdict: str = ""
