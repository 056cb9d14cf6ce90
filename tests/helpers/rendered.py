"""Markdown as readers see it, for tests, and texts that try to become Markdown, HTML or links."""

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

BARE_LINK = re.compile(r"(https?://|www(?=\.))([-.\w]+)|([-.\w+]+)@([-\w]+(?:\.[-\w]+)+)", re.IGNORECASE)
"""Bare links as remark-gfm, the renderer of Dagster's UI, finds them after it has removed the backslashes."""
HOSTILE = [
    "![x](https://evil.example/pixel.png)",
    "![x][1] [1]: https://evil.example/pixel.png",
    "[click](javascript:alert(1))",
    "[1]: https://evil.example",
    "<https://evil.example> <me@evil.example> <=me@evil>",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</td></table><iframe src='https://evil.example'>",
    "https://evil.example/a|b`c\\d",
    "see www.evil.example, or HTTPS://EVIL.EXAMPLE.",
    "x-www.evil.example _http://evil.example/_",
    "mailto:me@evil.example",
    "*Kyle* **Busch** _x_ __y__ ~~z~~ ~w~",
    "`code` ``more`` ```",
    "a | b \\| c \\\\| d",
    "# heading ##",
    "- item",
    "+ item",
    "1. item",
    "2) item",
    "> quote",
    "---",
    "- - -",
    "***",
    "___",
    "===",
    "~~~",
    "[x] done",
    "[^1]: note",
    "&lt;b&gt; &#60;i&#62; &amp;",
    "one\n\n# two\n| a |\n|---|",
    "    indented",
    "trailing backslash \\",
]
ORDINARY = [
    "Dale Earnhardt Jr.",
    "José Ñandú-O'Brien III",
    "Нарайн Картикеян",
    "角田裕毅",
    "Team Penske, No. 12 (Ford) / Wood Brothers & Co: 100 % + 1 = 101",
    "top(5) & running",
    "count(dnf) >= 8",
    "both_teammates(top(10))",
    "p < 0.05, |gap| <= 0.1, slope_mu > 1",
    "-0.07",
    "-1.5 to 2.0",
    "2024 season, round 1.",
    'left out: no results ("404")',
]


class RenderedMarkdown(HTMLParser):
    """Elements and text of rendered Markdown: CommonMark with GitHub's tables and strikethrough.

    Attributes
    ----------
    elements : set of str
    text : str
    addresses : list of str
        Targets of links, and sources of images.
    bare_links : list of str
        Bare links in the text outside code; this renderer leaves them alone, others make them links.
    """

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.text = ""
        self.addresses: list[str] = []
        self._outside_code = ""
        self._in_code = False
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))
        self.close()
        self.bare_links = [link[0] for link in BARE_LINK.finditer(self._outside_code)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        self._in_code |= tag == "code"

    def handle_endtag(self, tag: str) -> None:
        if tag == "code":
            self._in_code = False
            self._outside_code += "\0"

    def handle_data(self, data: str) -> None:
        self.text += data
        self._outside_code += "" if self._in_code else data


def on_one_line(text: str) -> str:
    """Return a text as a renderer displays it, spaces and line ends joined."""
    return " ".join(text.split())
