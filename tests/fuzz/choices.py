"""Bytes as choices: a fuzzer's input, read as numbers, texts, and changes to valid documents."""

import contextlib
import copy
import struct
from collections.abc import Sequence
from typing import Any

import polars as pl

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 40, 99, 2021, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**400,
    0.0, -0.0, 0.5, 1e308, -1e-308, float("inf"), float("nan"), "", " ", "0", "-1", "1", "1.5", "NaN", "inf",
    "running", "Running ", "2021-02-30", "2021-02-28", "9999-12-31T23:59:59+14:00", "0001-01-01", "null",
    "Daytona International Speedway", "daytona", "é", "\x00", "\ud800", "a" * 2000, "'", '"', ",", "\n",
    "*#(i)", [], {}, [[]], [{}], {"": ""}, [None], [1, "a", None],
)  # fmt: skip

DTYPES = (
    pl.Int64, pl.Int8, pl.UInt64, pl.Int128, pl.Float32, pl.Float64, pl.String, pl.Categorical, pl.Boolean,
    pl.Date, pl.Datetime("us"), pl.Datetime("ns", "UTC"), pl.Duration, pl.Time, pl.Binary, pl.List(pl.Int64),
    pl.Struct({"a": pl.Int64}), pl.Decimal(10, 2), pl.Null,
)  # fmt: skip


class Choices:
    """Draws choices from bytes; where they end, the first of what there is to choose from.

    Parameters
    ----------
    data : bytes
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def are_left(self) -> bool:
        """Whether bytes are left."""
        return self.at < len(self.data)

    def bytes(self, n: int) -> bytes:
        """Return the next n bytes, fewer at the end."""
        taken = self.data[self.at : self.at + n]
        self.at += n
        return taken

    def number(self, below: int) -> int:
        """Return a number from 0."""
        size = 1 if below <= 256 else 4
        return int.from_bytes(self.bytes(size), "little") % below if below > 0 else 0

    def pick(self, options: Sequence[Any]) -> Any:
        """Return one of the options."""
        return options[self.number(len(options))]

    def text(self) -> str:
        """Return a text of at most 255 bytes."""
        return self.bytes(self.number(256)).decode(errors="surrogateescape")

    def value(self) -> Any:
        """Return something odd, a text or a number."""
        kind = self.number(8)
        if kind == 0:
            return self.text()
        if kind == 1:
            return int.from_bytes(self.bytes(8), "little", signed=True)
        if kind == 2 and len(data := self.bytes(8)) == 8:
            return struct.unpack("<d", data)[0]
        return copy.deepcopy(self.pick(ODD))

    def changed(self, document: Any, most: int = 8) -> Any:
        """Return a document with up to `most` parts replaced, removed, repeated or renamed."""
        document = copy.deepcopy(document)
        for _ in range(most):
            if not self.are_left:
                break
            self._change(document)
        return document

    def _change(self, document: Any) -> None:
        parent, key = document, None
        while isinstance(parent, dict | list) and parent:
            keys = list(parent) if isinstance(parent, dict) else range(len(parent))
            key = self.pick(keys)
            child = parent[key]
            if not (isinstance(child, dict | list) and child) or self.number(6) == 0:
                break
            parent = child
        if key is None or not isinstance(parent, dict | list):
            return
        match self.number(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case 1:
                parent[self.text()] = parent.pop(key)
            case 2 if isinstance(parent, list):
                parent.insert(0, self.value())
            case _:
                parent[key] = self.value()


def columns_of(choices: Choices, frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with columns of other types, other values, or none."""
    for _ in range(1 + choices.number(4)):
        name = choices.pick(frame.columns)
        values = [choices.value() for _ in range(frame.height)] if choices.number(2) else frame[name]
        with contextlib.suppress(pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
            column = pl.Series(name, values, strict=False).cast(choices.pick(DTYPES), strict=False)
            frame = frame.with_columns(column)
        if choices.number(8) == 0:
            frame = frame.drop(name) if frame.width > 1 else frame
    return frame
