"""Measure speed and memory on this machine: benchmarks/results/ and docs/performance.md.

    python -m benchmarks.performance                       # all parts
    python -m benchmarks.performance scores samplers       # some parts
    python -m benchmarks.performance pipeline --cells 4x1000,4x10000,13x1000
    python -m benchmarks.performance --small               # tiny sizes, as a test; writes no file

A part is skipped with a message if a package or a device is missing. `make bench` installs the packages.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from importlib import import_module

from benchmarks.pages import write_pages
from benchmarks.performance.timing import SkippedError
from benchmarks.result_files import Row, markdown_table, write_results

PARTS = (
    "commits",
    "startup",
    "scores",
    "scenarios",
    "telemetry",
    "samplers",
    "marginal",
    "devices",
    "pipeline",
    "new_race",
    "forecasters",
)
CELL = ("seasons", "scenarios")
KEYS = {"pipeline": CELL, "pipeline_assets": CELL}
"""Result file -> columns of a measurement; rows of other measurements stay in the file."""


def measure(part: str, small: bool, cells: str) -> dict[str, Sequence[Row]]:
    """Measure one part; return the rows of each of its result files."""
    module = import_module(f"benchmarks.performance.{part}")
    sizes = module.SMALL if small else module.FULL
    arguments = [module.read_cells(cells)] if part == "pipeline" else []
    found: dict[str, Sequence[Row]] = module.measure(sizes, *arguments)
    return found


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--cells", default="4x2000", help="of the pipeline: seasons x scenarios, 4x2000,...")
    parser.add_argument("--small", action="store_true", help="tiny sizes; print the results, write no file")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for part in options.parts or PARTS:
        started = time.perf_counter()
        try:
            found = measure(part, options.small, options.cells)
        except SkippedError as reason:
            print(f"{part}: skipped, {reason}\n", flush=True)
            continue
        for name, rows in found.items():
            print(markdown_table(rows), end="\n\n")
            if not options.small:
                write_results(name, rows, key=KEYS.get(name, ()))
        print(f"{part}: {time.perf_counter() - started:.0f} s\n", flush=True)
    if not options.small:
        write_pages()


if __name__ == "__main__":
    main()
