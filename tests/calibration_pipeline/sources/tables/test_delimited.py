"""Text of tables: encodings, delimiters, decimal commas, blank and ragged lines; sheets of Excel."""

import importlib.util
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration_pipeline.sources import SourceError
from calibration_pipeline.sources.tables.delimited import RAGGED, decode_text, find_delimiter
from calibration_pipeline.sources.tables.reader import TableFile

TEXT = "season,driver,rating\n2022,Daniel Suárez,98.5\n2022,Ross Chastain,\n"
ROWS = [("2022", "Daniel Suárez", "98.5"), ("2022", "Ross Chastain", None)]
SHEET = """<?xml version="1.0"?>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>
<row><c t="inlineStr"><is><t>season</t></is></c><c t="inlineStr"><is><t>driver</t></is></c></row>
<row><c><v>2022</v></c><c t="inlineStr"><is><t>Ann</t></is></c></row></sheetData></worksheet>"""
OTHER_PARTS = {
    "[Content_Types].xml": """<?xml version="1.0"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="xml" ContentType="application/xml"/></Types>""",
    "xl/workbook.xml": """<?xml version="1.0"?>
<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"
xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">
<sheets><sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>""",
    "xl/_rels/workbook.xml.rels": """<?xml version="1.0"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1"
Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"
Target="worksheets/sheet1.xml"/></Relationships>""",
    "_rels/.rels": """<?xml version="1.0"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1"
Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
Target="xl/workbook.xml"/></Relationships>""",
}


def read(folder: Path, content: bytes, name: str = "t.csv") -> TableFile:
    path = folder / name
    path.write_bytes(content)
    return TableFile(str(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_any_encoding_and_delimiter_gives_the_same_table(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    file = read(tmp_path, TEXT.replace(",", delimiter).encode(encoding))
    assert file.read(["season", "driver", "rating"]).rows() == ROWS
    assert file.decimal_comma is (delimiter != ",")


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))))
def test_text_in_utf_8_and_utf_16_survives(text: str) -> None:
    assert decode_text(text.encode("utf-8-sig")).decode() == text
    assert decode_text(text.encode("utf-16")).decode() == text


@pytest.mark.parametrize(
    ("header", "expected"),
    [(b"a;b,c;d", ";"), (b'"a;b",c', ","), (b"alone", ","), (b"\n\na\tb", "\t")],
)
def test_the_most_frequent_delimiter_outside_of_quotes_counts(header: bytes, expected: str) -> None:
    assert find_delimiter(header) == expected


def test_blank_rows_are_dropped_and_ragged_lines_marked(tmp_path: Path) -> None:
    file = read(tmp_path, b"a,b\n,\n1,2\n\nNA,-\n3,4,5\n6\n")
    assert file.read(["a", "b", RAGGED]).rows() == [("1", "2", None), ("3", "4", "3,4,5"), ("6", None, None)]
    assert RAGGED not in read(tmp_path, b"a,b\n1,2\n").schema


def write_sheet(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**OTHER_PARTS, "xl/worksheets/sheet1.xml": SHEET}.items():
            archive.writestr(name, text)


@pytest.mark.skipif(importlib.util.find_spec("fastexcel") is None, reason="fastexcel is not installed")
def test_the_first_sheet_of_a_workbook_is_read(tmp_path: Path) -> None:
    write_sheet(tmp_path / "t.xlsx")
    file = TableFile(str(tmp_path / "t.xlsx"))
    assert file.read(["season", "driver"]).cast(pl.String).rows() == [("2022", "Ann")]


@pytest.mark.parametrize("installed", [True, False])
def test_a_workbook_that_cannot_be_read_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if not installed:
        write_sheet(tmp_path / "t.xlsx")
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
        with pytest.raises(SourceError, match=r"needs fastexcel: pip install .*\[xlsx\]', or save it as CSV"):
            _ = TableFile(str(tmp_path / "t.xlsx")).schema
    with pytest.raises(SourceError, match=r"broken\.xlsx is not a table in Excel: File is not a zip file"):
        _ = read(tmp_path, b"no workbook", "broken.xlsx").schema
