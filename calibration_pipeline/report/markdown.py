"""The report as Markdown: the HTML page's twin, section by section, for terminals, diffs and code hosts."""

import re
from collections.abc import Iterator, Sequence

from calibration_pipeline.report.blocks import (
    Block,
    Bullets,
    Cell,
    Definitions,
    Gallery,
    Picture,
    References,
    Table,
    Text,
)
from calibration_pipeline.report.content import ReportContent
from calibration_pipeline.report.document import VerdictLine, build_document
from calibration_pipeline.report.words import VERDICTS

SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def render_markdown(content: ReportContent, figures: str | None = None) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    content : ReportContent
        Verdicts, tables and provenance. All text is escaped.
    figures : str, optional
        Folder, relative to the Markdown file, that holds `report_pictures` as `<key>.png`. Without it the
        figures' descriptions stand in their place.

    Returns
    -------
    str
    """
    document = build_document(content)
    parts = [f"# {escape(document.title)}", escape(document.question)]
    parts.append("\n".join(_verdict(line) for line in document.verdicts))
    parts += [escape(note) for note in document.notes]
    parts.append(_table(document.summary))
    for section in document.sections:
        badge = f" ({VERDICTS[section.verdict].badge.lower()})" if section.verdict else ""
        parts.append(f"## {escape(section.heading)}{badge}")
        parts += [text for block in section.blocks for text in render_block(block, figures)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""Return `text` so that Markdown shows it as it is, on one line.

    Parameters
    ----------
    text : str
        Any text.

    Examples
    --------
    >>> escape("a|b <i>")
    'a\\|b \\<i\\>'
    """
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _verdict(line: VerdictLine) -> str:
    reason = f" {escape(line.reason)}" if line.reason else ""
    badge = VERDICTS[line.verdict].badge
    return f"- **{escape(line.label)}: {badge.lower()}.** {escape(line.meaning)}{reason}"


def render_block(block: Block, figures: str | None) -> Iterator[str]:
    """Yield the paragraphs of one block.

    Parameters
    ----------
    block : Block
        Any block.
    figures : str or None
        Folder of the figures, as in `render_markdown`.
    """
    match block:
        case Text():
            yield escape(block.text)
        case Bullets():
            yield "\n".join(f"- {escape(item)}" for item in block.items)
        case Definitions():
            yield "\n".join(f"- **{escape(term)}**: {escape(meaning)}" for term, meaning in block.items)
        case References():
            yield "\n".join(f"- {escape(work)}, <{address}>" for work, address in block.items)
        case Table():
            yield _table(block)
        case Gallery():
            if block.summary:
                yield f"**{escape(block.summary)}**"
            yield from (_picture(picture, figures) for picture in block.pictures)


def _table(table: Table) -> str:
    rule = ["---" if index < table.n_text else "---:" for index in range(len(table.columns))]
    width = len(table.columns)
    rows = [_group(row, width) if len(row) == 1 < width else _cells(row) for row in table.rows]
    lines = [[escape(name) for name in table.columns], rule, *rows]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{escape(table.caption)}**\n\n{grid}"


def _cells(row: Sequence[Cell]) -> list[str]:
    return [escape(f"{cell.text} ({cell.small})" if cell.small else cell.text) for cell in row]


def _group(row: Sequence[Cell], width: int) -> list[str]:
    """Return the line that names the rows below it."""
    return [f"**{escape(row[0].text)}**", *[""] * (width - 1)]


def _picture(picture: Picture, figures: str | None) -> str:
    if figures is None:
        return f"*Figure: {escape(picture.alt)}*"
    return f"![{escape(picture.alt)}]({figures}/{picture.key}.png)\n\n{escape(picture.caption)}"
