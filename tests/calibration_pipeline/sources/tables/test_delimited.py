"""Text of tables: encodings, delimiters, decimal commas, blank and ragged lines; sheets of Excel."""

import importlib.util
import tempfile
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


SCANS = {
    "regular": TEXT.encode(),
    "mark": b"\xef\xbb\xbf" + TEXT.replace(",", ";").encode(),
    "line ends": TEXT.replace("\n", "\r\n").encode(),
    "blank lines": TEXT.replace("\n2022,Ross", "\n\n,,\n2022,Ross").encode(),
    "no final line end": TEXT.encode().rstrip(b"\n,") + b",",
    "quotes": TEXT.replace("Ross Chastain", '"Ross Chastain"').encode(),
    "latin 1": TEXT.encode("latin-1"),
    "utf-16": TEXT.encode("utf-16"),
    "ragged": (TEXT + "2022,A,1,2\n").encode(),
}


@pytest.mark.parametrize("form", SCANS)
def test_a_scan_has_the_rows_of_the_file(tmp_path: Path, form: str) -> None:
    """Test that text is scanned where it is regular, and read whole where it is not, with equal rows."""
    (tmp_path / "a.csv").write_bytes(SCANS[form])
    whole = TableFile(str(tmp_path / "a.csv"))
    scanned = TableFile(str(tmp_path / "a.csv"))
    frame = scanned.rows.collect()
    assert frame.equals(whole.read(list(whole.schema)))
    assert frame.rows()[:2] == (ROWS if RAGGED not in frame.columns else [(*row, None) for row in ROWS])
    assert scanned.decimal_comma == whole.decimal_comma == (form == "mark")


def test_a_regular_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """Test that the plan of the scan names the file, which a plan of rows in memory does not."""
    for form, is_scanned in {"regular": True, "mark": True, "quotes": False, "ragged": False}.items():
        (tmp_path / "a.csv").write_bytes(SCANS[form])
        assert ("a.csv" in TableFile(str(tmp_path / "a.csv")).rows.explain()) == is_scanned


@given(st.text(alphabet='ab,;\t\n\r"é', max_size=60))
def test_any_text_gives_the_same_rows_by_scan(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(text.encode())
        try:
            whole = TableFile(str(path))
            expected = whole.read(list(whole.schema))
        except SourceError:
            return
        assert TableFile(str(path)).rows.collect().equals(expected)
