"""Result files of the benchmarks: benchmarks/results/<name>.csv, one a measurement.

A row is a mapping of column to text or number. A repeated measurement fills three columns: `seconds` (the
median), `seconds_lowest` and `seconds_highest`; an estimate fills `gain`, `gain_lower` and `gain_upper`.
"""

import argparse
import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from calibration_pipeline.stats.intervals import Estimate

RESULTS = Path(__file__).parent / "results"
Row = Mapping[str, object]


def output_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option `--output`, the folder of result files."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"folder of result files, {RESULTS}")
    return parser


def read_results(name: str, folder: Path = RESULTS) -> list[dict[str, str]]:
    """Return the rows of a result file, every cell as text; none if there is no file."""
    path = folder / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_results(name: str, rows: Sequence[Row], folder: Path = RESULTS, key: Sequence[str] = ()) -> None:
    """Write a result file.

    Parameters
    ----------
    name : str
        Name of the measurement.
    rows : sequence of mapping
        They share their columns.
    folder : Path
    key : sequence of str
        Columns that identify a measurement: stored rows of other measurements stay. Without a key, the rows
        replace the whole file.
    """
    new = {tuple(str(row[column]) for column in key) for row in rows}
    stored = [row for row in read_results(name, folder) if tuple(row[column] for column in key) not in new]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*stored, *rows])


def repeated(name: str, values: Sequence[float]) -> dict[str, str]:
    """Return the columns of a repeated measurement, with three digits.

    Examples
    --------
    >>> repeated("s", [3.0, 1.0, 2.0])
    {'s': '2.00', 's_lowest': '1.00', 's_highest': '3.00'}
    >>> repeated("s", [1234.5])
    {'s': '1234', 's_lowest': '', 's_highest': ''}
    """
    ends = (min(values), max(values)) if len(values) > 1 else ("", "")
    cells = zip(("", "_lowest", "_highest"), (statistics.median(values), *ends), strict=True)
    return {name + end: _three_digits(value) if value != "" else "" for end, value in cells}


def _three_digits(value: float) -> str:
    """Write a number with three digits, or all digits before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def estimated(name: str, estimate: Estimate | None, digits: int = 4) -> dict[str, str]:
    """Return the columns of an estimate with its interval; empty cells for missing numbers.

    Examples
    --------
    >>> estimated("gain", Estimate(0.5, 0.25, None, 9, 9), digits=2)
    {'gain': '0.50', 'gain_lower': '0.25', 'gain_upper': ''}
    """
    values = (estimate.estimate, estimate.lower, estimate.upper) if estimate else (None, None, None)
    cells = zip(("", "_lower", "_upper"), values, strict=True)
    return {name + end: "" if value is None else f"{value:.{digits}f}" for end, value in cells}


def shown(row: Mapping[str, str], name: str) -> str:
    """Write a repeated measurement for a reader: median (lowest to highest).

    Examples
    --------
    >>> shown({"s": "2345", "s_lowest": "1.00", "s_highest": "3456"}, "s"), shown({"s": "2.5"}, "s")
    ('2,345 (1.00 to 3,456)', '2.5')
    """
    median, *ends = (_with_commas(row.get(name + end, "")) for end in ("", "_lowest", "_highest"))
    return f"{median} ({ends[0]} to {ends[1]})" if all(ends) else median


def _with_commas(number: str) -> str:
    return f"{int(number):,}" if number.isdecimal() else number


def shown_estimate(row: Mapping[str, str], name: str) -> str:
    """Write a signed estimate with its interval for a reader.

    Examples
    --------
    >>> shown_estimate({"gain": "0.50", "gain_lower": "-0.25", "gain_upper": "1.00"}, "gain")
    '+0.50 [-0.25, +1.00]'
    """
    value, *ends = (_signed(row[name + end]) for end in ("", "_lower", "_upper"))
    return f"{value} [{', '.join(ends)}]" if value else ""


def _signed(number: str) -> str:
    return number if not number or number.startswith("-") else f"+{number}"


def markdown_table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table; the columns except the first are aligned to the right.

    Examples
    --------
    >>> print(markdown_table([{"a": "x", "b": 1}]))
    | a | b |
    |---|---:|
    | x | 1 |
    """
    lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    head, *body = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([head, f"|---|{'---:|' * (len(rows[0]) - 1)}", *body])
