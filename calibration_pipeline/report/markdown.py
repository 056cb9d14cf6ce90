"""Markdown renderer of the report, for terminals, diffs and code hosts: the sections of the HTML page."""

from collections.abc import Iterator, Sequence

from calibration_pipeline.io.escaping import escape_cell, escape_text
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
from calibration_pipeline.report.document import build_document


def render_markdown(content: ReportContent, figures: str | None = None) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    content : ReportContent
        Verdicts, tables and provenance. All text is escaped.
    figures : str, optional
        Folder, relative to the Markdown file, that holds `report_pictures` as `<key>.png`. Without it,
        the figures' descriptions replace them.

    Returns
    -------
    str
    """
    document = build_document(content)
    parts = [f"# {escape_text(document.title)}", escape_text(document.question)]
    parts.append(_table(document.matrix))
    parts += render_block(document.legend, figures)
    parts += [escape_text(note) for note in document.notes]
    parts.append(_table(document.summary))
    for section in document.sections:
        parts.append(f"## {escape_text(section.heading)}")
        parts += [text for block in section.blocks for text in render_block(block, figures)]
    return "\n\n".join(parts) + "\n"


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
            yield escape_text(block.text)
        case Bullets():
            yield "\n".join(f"- {escape_text(item)}" for item in block.items)
        case Definitions():
            yield "\n".join(
                f"- **{escape_text(term)}**: {escape_text(meaning)}" for term, meaning in block.items
            )
        case References():
            yield "\n".join(f"- {escape_text(work)}, <{address}>" for work, address in block.items)
        case Table():
            yield _table(block)
        case Gallery():
            if block.summary:
                yield f"**{escape_text(block.summary)}**"
            yield from (_picture(picture, figures) for picture in block.pictures)


def _table(table: Table) -> str:
    rule = ["---" if index < table.n_text else "---:" for index in range(len(table.columns))]
    width = len(table.columns)
    rows = [_group(row, width) if len(row) == 1 < width else _cells(row) for row in table.rows]
    lines = [[escape_cell(name) for name in table.columns], rule, *rows]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{escape_text(table.caption)}**\n\n{grid}"


def _cells(row: Sequence[Cell]) -> list[str]:
    return [escape_cell(f"{cell.text} ({cell.small})" if cell.small else cell.text) for cell in row]


def _group(row: Sequence[Cell], width: int) -> list[str]:
    """Return the heading line of the rows below it."""
    return [f"**{escape_cell(row[0].text)}**", *[""] * (width - 1)]


def _picture(picture: Picture, figures: str | None) -> str:
    if figures is None:
        return f"*Figure: {escape_text(picture.alt)}*"
    return f"![{escape_text(picture.alt)}]({figures}/{picture.key}.png)\n\n{escape_text(picture.caption)}"
