"""Tests of Markdown escaping: CommonMark as markdown-it renders it, and GitHub's rules for bare links."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calibration_pipeline.io.escaping import escape_cell, escape_text, unescape_text
from helpers.rendered import HOSTILE, ORDINARY, RenderedMarkdown, on_one_line

CHARACTERS = list("ab1. \n\t<>&;#|`\\*_~[]()!:/@=-+^'\"{}$é")
PIECES = ["http://", "www.", "a.b", "@", "![", "](", "<a", ">", "`", "``", "|", "\\", "&lt;", "_", "*"]
TEXTS = st.text(st.sampled_from(CHARACTERS), max_size=20) | st.lists(
    st.sampled_from([*PIECES, " ", "\n"]), max_size=12
).map("".join)
BEFORE = ["", "- ", "## "]


def check_text(text: str, before: str) -> None:
    page = RenderedMarkdown(before + escape_text(text))
    assert page.elements <= {"p", "ul", "li", "h2", "code"}
    assert page.text.strip() == on_one_line(text)
    assert page.bare_links == []


def check_cell(text: str) -> None:
    page = RenderedMarkdown(f"| name | next |\n| --- | --- |\n| {escape_cell(text)} | 1 |\n")
    assert page.elements <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert page.text.split("next", 1)[1].strip() == f"{on_one_line(text)}\n1".strip()
    assert page.bare_links == []


@pytest.mark.parametrize("text", HOSTILE + ORDINARY)
@pytest.mark.parametrize("before", BEFORE)
def test_every_text_is_displayed_as_it_is_written(text: str, before: str) -> None:
    check_text(text, before)


@pytest.mark.parametrize("text", HOSTILE + ORDINARY)
def test_every_cell_is_displayed_as_it_is_written(text: str) -> None:
    check_cell(text)


@given(TEXTS, st.sampled_from(BEFORE))
@example("a\\|`b", "")
@example("www.", "")
def test_any_text_is_displayed_as_it_is_written(text: str, before: str) -> None:
    check_text(text, before)


@given(TEXTS)
@example("\\")
@example("\\|")
def test_any_cell_is_displayed_as_it_is_written(text: str) -> None:
    check_cell(text)


@given(TEXTS)
@example("race_results [2025] breaks")
@example("`http://a.b/&lt;`")
def test_any_text_comes_back_as_it_was(text: str) -> None:
    """Test that a terminal can show what was escaped for the UI."""
    assert unescape_text(escape_text(text)) == on_one_line(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_needs_no_escape(text: str) -> None:
    assert escape_text(text) == text


def test_control_characters_are_removed() -> None:
    assert escape_text("a\x1b[31mb\x00c\u202ed\te") == r"a\[31mbcd e"


@pytest.mark.parametrize("unit", ["a", "a.", "a@", "a@b.", "www", "://", "[", "<", "&", "_", "-", "1"])
def test_a_long_text_is_escaped_fast(unit: str) -> None:
    """Test that the time does not grow with the square of the length."""
    assert escape_text(unit * 100_000)
