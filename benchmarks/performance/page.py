"""The page docs/performance.md: its tables and pictures stand between marks, its prose around them stays."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from calibration_pipeline.plots.figures import figure_png

CPU_INFO = Path("/proc/cpuinfo")


class Section(NamedTuple):
    """What a part measured: Markdown, and pictures by name.

    A picture of the name `costs` is shown where the text holds `![...](images/costs.png)`.
    """

    text: str
    pictures: Mapping[str, Figure]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table; the columns but the first stand to the right.

    Examples
    --------
    >>> print(table(["a", "b"], [["x", "1"]]))
    | a | b |
    |---|---:|
    | x | 1 |
    """
    rules = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join([_line(columns), f"|{'|'.join(rules)}|", *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine(packages: Sequence[str]) -> str:
    """Say what a part was measured on, with the versions of packages."""
    processor = platform.processor() or platform.machine()
    if CPU_INFO.exists():
        processor = next(iter(re.findall(r"model name\s*: (.*)", CPU_INFO.read_text())), processor)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Measured on {processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}."


def put_section(page: str, name: str, text: str) -> str:
    r"""Return the page with a part's text between the part's marks.

    Raises
    ------
    ValueError
        If the page does not have both marks, once and in order.

    Examples
    --------
    >>> put_section("Before <!-- a --> old <!-- end of a --> after", "a", "new")
    'Before <!-- a -->\n\nnew\n\n<!-- end of a --> after'
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed or page.count(start) > 1 or page.count(end) > 1:
        raise ValueError(f"The page must hold {start} and then {end}, each once.")
    return f"{before}{start}\n\n{text}\n\n{end}{after}"


def publish(path: Path, name: str, section: Section) -> None:
    """Write a part into the page, and its pictures beside it."""
    page = put_section(path.read_text(encoding="utf-8"), name, section.text)
    images = path.parent / "images"
    images.mkdir(exist_ok=True)
    for picture, figure in section.pictures.items():
        (images / f"{picture}.png").write_bytes(figure_png(figure, dpi=110))
    path.write_text(page, encoding="utf-8")
