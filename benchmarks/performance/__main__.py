"""Measure speed and memory on this machine, and write docs/performance.md.

    python -m benchmarks.performance                       # everything but the grid of whole pipelines
    python -m benchmarks.performance scores samplers
    python -m benchmarks.performance pipeline --cells 4x1000,4x10000,13x1000
    python -m benchmarks.performance --small               # tiny sizes, to see that it works; writes nothing

A part that needs a package or a device which is not there says so and is skipped. `make bench` makes an
environment that has all of them.
"""

import argparse
import logging
import time
from importlib import import_module
from pathlib import Path

from benchmarks.performance.page import Section, publish

PARTS = ("startup", "scores", "scenarios", "telemetry", "samplers", "devices", "pipeline", "new_race")


def measure(part: str, small: bool, cells: str) -> Section:
    """Measure one part."""
    module = import_module(f"benchmarks.performance.{part}")
    sizes = module.SMALL if small else module.FULL
    section: Section = (
        module.measure(sizes, module.read_cells(cells)) if part == "pipeline" else module.measure(sizes)
    )
    return section


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--cells", default="4x2000", help="of the pipeline: seasons x scenarios, 4x2000,...")
    parser.add_argument("--small", action="store_true", help="tiny sizes; print, and leave the page as it is")
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"), help="docs/performance.md")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for part in options.parts or PARTS:
        started = time.perf_counter()
        section = measure(part, options.small, options.cells)
        print(f"{section.text}\n\n{part}: {time.perf_counter() - started:.0f} s\n", flush=True)
        if not options.small:
            publish(options.page, part, section)


if __name__ == "__main__":
    main()
