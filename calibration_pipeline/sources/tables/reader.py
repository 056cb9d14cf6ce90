"""Tables in Parquet, CSV and Excel files, on a disk or at an address, read with limits, not interpreted.

All files are untrusted: they are limited in bytes and rows, also after decompression, and read as data alone.
`delimited` brings text to one form, `columns` interprets the columns.
"""

import csv
import gzip
import importlib.util
import io
import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import IO

import polars as pl
from fsspec.core import url_to_fs
from polars.exceptions import PanicException, PolarsError
from upath import UPath

from calibration_pipeline.io.addresses import (
    is_local,
    is_on_the_web,
    safe_cause,
    storage_errors,
    without_credentials,
)
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.tables.delimited import (
    HEADER_BYTES,
    decode_text,
    find_delimiter,
    find_regular_delimiter,
    mark_ragged_lines,
)
from calibration_pipeline.sources.web import WebLimits, request_document

MAX_BYTES = 2**30
MAX_ROWS = 50_000_000
MAX_COLUMNS = 1_000
MAX_CELLS = 200_000_000
"""Rows times columns in memory at a time."""
WEB_LIMITS = WebLimits(total_s=1800.0, spacing_s=0.0, max_bytes=MAX_BYTES)
CHUNK_BYTES = 2**20
FORMS = (".parquet", ".csv", ".csv.gz", ".tsv", ".txt", ".xlsx")
# Texts that mean a missing value; R writes NA, pandas nan, spreadsheets #N/A.
NULL_VALUES = ["", "NA", "NaN", "nan", "N/A", "n/a", "#N/A", "null", "NULL", "None", "-"]


class TableFile:
    """One table, read from its file once and then served column by column.

    Parameters
    ----------
    path : str
        Path or address (anything that fsspec opens) that ends in one of `FORMS`. Text may be delimited by
        comma, semicolon or tab.

    Raises
    ------
    SourceError
        If it ends in something else.
    """

    def __init__(self, path: str) -> None:
        self._address = path
        self._delimiter: str | None = None
        self.path = without_credentials(path)
        name = path.partition("?")[0].lower() if "://" in path else path.lower()
        if not name.endswith(FORMS):
            raise SourceError(f"A table must be a file ending in {', '.join(FORMS)}; got {self.path!r}.")
        self._is_parquet = name.endswith(".parquet")
        self._is_excel = name.endswith(".xlsx")
        self._is_compressed = name.endswith(".gz")

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns and their types; of a text file, all are text.

        Raises
        ------
        SourceError
            If the file does not exist, is too large, or is not a table of its format.
        """
        try:
            schema = dict(self._frame.collect_schema())
        except (PolarsError, PanicException) as error:
            raise self._damaged(error) from error
        rows = self._collect(self._frame.select(pl.len())).item()
        if rows > MAX_ROWS:
            raise self._too_large(f"{MAX_ROWS:,} rows")
        return schema

    def read(self, columns: Sequence[str], where: pl.Expr | None = None) -> pl.DataFrame:
        """Return some columns, of the rows for which `where` holds.

        Raises
        ------
        SourceError
            As `schema` does.
        """
        if missing := [name for name in columns if name not in self.schema]:
            raise SourceError(f"{self.path} has no column {', '.join(missing)}.")
        rows = self._frame if where is None else self._frame.filter(where)
        most = MAX_CELLS // max(len(columns), 1)
        frame = self._collect(rows.select(columns).head(most + 1))
        if frame.height > most:
            raise self._too_large(f"{MAX_CELLS:,} cells at a time")
        return frame

    @cached_property
    def decimal_comma(self) -> bool:
        """Whether numbers may have a decimal comma: in text that another character delimits."""
        if self._delimiter is None and not self._is_parquet:
            _ = self._frame
        return self._delimiter not in (None, ",")

    @property
    def attributes(self) -> dict[str, str]:
        """Metadata that a writer of Parquet added to the file; empty for other formats."""
        if not self._is_parquet:
            return {}
        path = None if is_on_the_web(self._address) else UPath(self._address)
        is_here = path is not None and is_local(path) and path.is_file()
        file = path.path if path is not None and is_here else io.BytesIO(self._read())
        try:
            metadata = pl.read_parquet_metadata(file)
        except (PolarsError, PanicException) as error:
            raise self._damaged(error) from error
        return {name: value for name, value in metadata.items() if not name.startswith("ARROW")}

    @cached_property
    def rows(self) -> pl.LazyFrame:
        """All rows, to be read in batches where the file allows it; cells of a text file are text.

        A file on a local disk is scanned if it is Parquet, or a text of regular lines in UTF-8. Any other
        file is in memory.

        Raises
        ------
        SourceError
            As `schema` does.
        """
        if self._is_excel or self._is_compressed or is_on_the_web(self._address):
            return self._frame
        path = UPath(self._address)
        if not is_local(path) or not path.is_file():
            return self._frame
        if path.stat().st_size > MAX_BYTES:
            raise self._too_large(f"{MAX_BYTES:,} bytes")
        try:
            if self._is_parquet:
                return pl.scan_parquet(path.path)
            with path.open("rb") as file:
                self._delimiter = find_regular_delimiter(file)
            if self._delimiter is None:
                return self._frame
            rows = pl.scan_csv(
                path.path, infer_schema=False, null_values=NULL_VALUES, separator=self._delimiter
            )
            if len(rows.collect_schema()) > MAX_COLUMNS:
                raise self._too_large(f"{MAX_COLUMNS:,} columns")
            return rows.filter(~pl.all_horizontal(pl.all().is_null()))
        except (OSError, PolarsError, PanicException) as error:
            raise self._damaged(error) from error

    @cached_property
    def _frame(self) -> pl.LazyFrame:
        content = self._read()
        try:
            if self._is_parquet:
                return pl.scan_parquet(io.BytesIO(content))
            frame = self._read_excel(content) if self._is_excel else self._read_text(content)
        except (PolarsError, PanicException) as error:
            raise self._damaged(error) from error
        # Rows that are blank in every column.
        return frame.filter(~pl.all_horizontal(pl.all().is_null())).lazy()

    def _read_text(self, content: bytes) -> pl.DataFrame:
        content = decode_text(content)
        self._delimiter = find_delimiter(content)
        self._refuse_large(content)
        try:
            # Read as a whole: a lazy scan lets rows pass that have more fields than the header.
            return self._parse(content)
        except PolarsError as error:
            if "more fields" not in str(error):
                raise
            return self._parse(mark_ragged_lines(content, self._delimiter))

    def _parse(self, content: bytes) -> pl.DataFrame:
        return pl.read_csv(
            io.BytesIO(content),
            infer_schema=False,
            null_values=NULL_VALUES,
            separator=self._delimiter or ",",
        )

    def _read_excel(self, content: bytes) -> pl.DataFrame:
        """Return the first sheet; its cells keep their types."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        except zipfile.BadZipFile as error:
            raise self._damaged(error) from error
        if size > MAX_BYTES:
            raise self._too_large(f"{MAX_BYTES:,} bytes")
        if importlib.util.find_spec("fastexcel") is None:
            raise SourceError(
                f"{self.path} needs fastexcel: pip install 'calibration-pipeline[xlsx]', or save it as CSV."
            )
        frame = pl.read_excel(io.BytesIO(content), engine="calamine")
        if frame.height * frame.width > MAX_CELLS:
            raise self._too_large(f"{MAX_CELLS:,} cells")
        return frame

    def _refuse_large(self, content: bytes) -> None:
        """Refuse a CSV file that would take much more memory than it has bytes, as one of commas does."""
        head = content[:HEADER_BYTES].decode(errors="replace")
        try:
            n_columns = len(next(csv.reader(io.StringIO(head), delimiter=self._delimiter or ","), []))
        except csv.Error as error:
            raise self._damaged(error) from error
        n_rows = content.count(b"\n") + 1
        if n_columns > MAX_COLUMNS or (n_columns > 1 and len(head) == HEADER_BYTES and "\n" not in head):
            raise self._too_large(f"{MAX_COLUMNS:,} columns")
        if n_rows > MAX_ROWS or n_rows * n_columns > MAX_CELLS:
            raise self._too_large(f"{MAX_ROWS:,} rows and {MAX_CELLS:,} cells")

    def _too_large(self, most: str) -> SourceError:
        return SourceError(f"{self.path} is too large: a table must have at most {most}.")

    def _read(self) -> bytes:
        """Return the file's content, decompressed."""
        try:
            return self._read_once()
        except FileNotFoundError as error:
            cause = safe_cause(error, self._address)
            raise SourceError(f"{self.path} does not exist.") from cause
        except storage_errors(EOFError, ValueError, zlib.error) as error:
            if isinstance(error, SourceError):
                raise
            reason = without_credentials(" ".join(f"{type(error).__name__} {error}".split()))
            cause = safe_cause(error, self._address)
            raise SourceError(f"{self.path} cannot be read: {reason[:200].rstrip('. ')}.") from cause

    def _read_once(self) -> bytes:
        if is_on_the_web(self._address):
            document = request_document(self._address, WEB_LIMITS, {})
            opened: IO[bytes] = io.BytesIO(b"" if document is None else document.content)
        else:
            filesystem, path = url_to_fs(self._address)
            opened = filesystem.open(path, "rb")
        chunks: list[bytes] = []
        size = 0
        with opened as raw:
            file = gzip.GzipFile(fileobj=raw) if self._is_compressed else raw
            while chunk := file.read(CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise self._too_large(f"{MAX_BYTES:,} bytes")
                chunks.append(chunk)
        return b"".join(chunks)

    def _collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        try:
            return frame.collect()
        except (PolarsError, PanicException) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> SourceError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        form = "Parquet" if self._is_parquet else "Excel" if self._is_excel else "CSV"
        return SourceError(f"{self.path} is not a table in {form}: {reason.rstrip('.')}.")
