r"""Markdown escaping: text that comes from a source or a user is displayed as it is written.

Names of drivers, teams and tracks, messages, and lines on quarantined races may hold Markdown, HTML or links.
Renderers follow CommonMark with GitHub's tables, strikethrough and bare links
(https://github.github.com/gfm). A backslash protects a character from each of them except the last: some
renderers look for bare links after they have removed the backslashes. A bare link therefore becomes inline
code, in which nothing is interpreted.

Escapes stay few, so that the Markdown itself is readable: `count(dnf) >= 8`, `slope_mu` and `p < 0.05` need
none. The HTML report does not use this module: its templates escape every text.
"""

import re
from html import unescape

_IGNORED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, which a terminal obeys, and marks that reverse the direction of the text after them."""
_LINK = re.compile(
    r"(?:(?<![\w+.-])[\w+.-]+://|www\.)[^\s`|\\]*|(?<![\w+.-])[\w+.-]+@[\w-]+(?:\.[\w-]+)+", re.IGNORECASE
)
"""A bare link or a mail address. It matches more than GitHub's rules make a link."""
_SPECIAL = re.compile(r"[\\`*~\[\]]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that format text, make links, or start footnotes. Within a word `_` does nothing."""
_TAG = re.compile(r"<(?!\s|=\s|$)")
"""Start of a tag. In `p < 0.05` and `gap <= 0.1` it is none."""
_ENTITY = re.compile(r"&(?=#?\w+;)")
_BLOCK = re.compile(r"^(?:[>#]|[-+](?=[\s-]|$))|#$")
"""Start of a quote, heading, list item or rule, and the end of a heading."""
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
_ESCAPED = re.compile(r"`(?P<code>[^`]+)`|\\(?P<character>.)|&(?:amp|lt);")
"""Everything that `escape_text` writes in place of a character or a link."""


def plain_text(text: str) -> str:
    r"""Return `text` without control characters and marks of direction; line breaks and tabs become spaces.

    Examples
    --------
    >>> plain_text("Ann\x1b[2J\tLee")
    'Ann[2J Lee'
    """
    return _IGNORED.sub(lambda found: " " if found[0].isspace() else "", text)


def escape_markup(text: str) -> str:
    r"""Return `text` so that `rich` displays it as it is written, without control characters.

    Examples
    --------
    >>> escape_markup("[red]Ann\x1b[2J")
    '\\[red]Ann[2J'
    """
    from rich.markup import escape  # late: a command that prints its help needs no rich

    return escape(plain_text(text))


def escape_text(text: str) -> str:
    r"""Return `text` so that Markdown displays it as it is written, on one line.

    Parameters
    ----------
    text : str
        The whole text of a paragraph, list item, heading or link label, or a part of one.

    Examples
    --------
    >>> escape_text("count(dnf) >= 8")
    'count(dnf) >= 8'
    >>> escape_text("![x](https://example.com/x.png) <b>")
    '!\\[x\\](`https://example.com/x.png`) &lt;b>'
    """
    line = " ".join(plain_text(text).split())
    parts, end = [], 0
    for link in _LINK.finditer(line):
        code = link[0].rstrip(".,:;!?'\")")
        parts += [_escape(line[end : link.start()]), f"`{code}`"]
        end = link.start() + len(code)
    escaped = "".join([*parts, _escape(line[end:])])
    return _NUMBERED.sub(r"\1\\\2", _BLOCK.sub(r"\\\g<0>", escaped))


def unescape_text(text: str) -> str:
    r"""Return a text that `escape_text` escaped as it was, for a display that is no Markdown.

    Examples
    --------
    >>> unescape_text("!\\[x\\](`https://example.com/x.png`) &lt;b>")
    '![x](https://example.com/x.png) <b>'
    """
    return _ESCAPED.sub(lambda found: found["code"] or found["character"] or unescape(found[0]), text)


def escape_cell(text: str) -> str:
    r"""Return `text` so that a cell of a Markdown table displays it as it is written.

    Parameters
    ----------
    text : str
        The whole text of the cell.

    Examples
    --------
    >>> escape_cell("|gap| <= 0.1")
    '\\|gap\\| <= 0.1'
    """
    return escape_text(text).replace("|", r"\|")


def _escape(text: str) -> str:
    """Escape text that holds no bare link."""
    without_tags = _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))
    return _SPECIAL.sub(r"\\\g<0>", without_tags)
