"""Text of delimited tables as programs write it: encoding, delimiter and ragged lines, brought to one form.

Spreadsheets of many countries write semicolons, UTF-16 or Latin-1. The result is UTF-8 with one number of
fields a line.
"""

import codecs
import csv
import io
from typing import IO

DELIMITERS = (",", ";", "\t")
HEADER_BYTES = 2**16
CHUNK_BYTES = 2**20
RAGGED = "ragged line"
"""Added column that holds the text of lines with more fields than the header."""
LONGEST_LINE_SHOWN = 200


def decode_text(content: bytes) -> bytes:
    """Return the text as UTF-8 without a byte-order mark.

    UTF-16 is recognised by its mark, or by a zero in every second byte of the header. Text that is neither
    UTF-8 nor UTF-16 is read as Windows-1252, which contains Latin-1.

    Examples
    --------
    >>> decode_text("Suárez".encode("latin-1")).decode()
    'Suárez'
    >>> decode_text("year;track".encode("utf-16")).decode()
    'year;track'
    """
    if content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8) :]
    elif encoding := _utf_16(content):
        return content.decode(encoding, errors="replace").encode()
    if _is_utf_8(content):
        return content
    # Five bytes have no character in Windows-1252; Latin-1 has all.
    text = content.decode("cp1252", errors="replace")
    return (content.decode("latin-1") if "\ufffd" in text else text).encode()


def find_delimiter(content: bytes) -> str:
    """Return the delimiter that is most frequent in the header, outside of quotes.

    Examples
    --------
    >>> find_delimiter(b'year;"last, first";track')
    ';'
    """
    header = content[:HEADER_BYTES].decode(errors="replace").lstrip("\r\n").split("\n", 1)[0]
    outside = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=outside.count)


def mark_ragged_lines(content: bytes, delimiter: str) -> bytes:
    """Return the table with as many fields in each line as in the header, and the column `RAGGED`.

    Further fields are dropped, and the line is kept in the added column. The column is left out where no
    line has more fields than the header.
    """
    lines = csv.reader(io.StringIO(content.decode(errors="replace"), newline=""), delimiter=delimiter)
    header = next(lines, [])
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, lineterminator="\n")
    writer.writerow([*header, RAGGED])
    for line in lines:
        missing = [""] * (len(header) - len(line))
        is_ragged = len(line) > len(header)
        shown = delimiter.join(line)[:LONGEST_LINE_SHOWN] if is_ragged else ""
        writer.writerow([*line[: len(header)], *missing, shown])
    return written.getvalue().encode()


def find_regular_delimiter(file: IO[bytes]) -> str | None:
    r"""Return the delimiter of a table that can be scanned as it is, None for any other text.

    Such a table is UTF-8 without quotes, and every line has as many fields as the header. The text is read in
    chunks.

    Examples
    --------
    >>> find_regular_delimiter(io.BytesIO(b"year;track")), find_regular_delimiter(io.BytesIO(b"a,b\n1,2,3"))
    (';', None)
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    delimiter, n_delimiters, rest = "", 0, b""
    while True:
        chunk = file.read(CHUNK_BYTES)
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            return None
        *lines, rest = (rest + chunk).split(b"\n") if chunk else (rest, b"")
        if b'"' in chunk or b"\0" in chunk or len(rest) > CHUNK_BYTES:
            return None
        if not delimiter and lines:
            if not lines[0].strip():
                return None
            delimiter = find_delimiter(lines[0])
            n_delimiters = lines[0].count(delimiter.encode())
        if any(line.count(delimiter.encode()) != n_delimiters for line in lines if line):
            return None
        if not chunk:
            return delimiter or None


def _utf_16(content: bytes) -> str | None:
    """Return the UTF-16 encoding of the text, None for another one."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = content[: HEADER_BYTES // 64]
    if len(head) > 1 and head[1::2].count(0) > len(head) // 4:
        return "utf-16-le"
    if len(head) > 1 and head[::2].count(0) > len(head) // 4:
        return "utf-16-be"
    return None


def _is_utf_8(content: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(content)
    try:
        for begin in range(0, len(content), HEADER_BYTES):
            decoder.decode(view[begin : begin + HEADER_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
