"""What a command costs before it does anything: `--help` and its neighbours, beside an empty Python.

Each is a process of its own, as in a terminal.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.timing import in_turn, ratios, shown

ROOT = Path(__file__).parents[2]
EMPTY = "`python -c pass`"
COMMANDS = {
    EMPTY: ["-c", "pass"],
    "`calibration-pipeline --help`": ["-m", "assets.cli", "--help"],
    "`calibration-pipeline run --help`": ["-m", "assets.cli", "run", "--help"],
    "`calibration-pipeline settings`": ["-m", "assets.cli", "settings"],
}


class Sizes(NamedTuple):
    """How often each command runs."""

    n_turns: int


FULL, SMALL = Sizes(15), Sizes(1)


def measure(sizes: Sizes) -> Section:
    """Measure every command."""

    def start(words: list[str]) -> None:
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)  # noqa: S603

    taken = in_turn(
        {name: lambda words=words: start(words) for name, words in COMMANDS.items()}, sizes.n_turns
    )
    rows = [[name, shown(times), shown(ratios(times, taken[EMPTY]))] for name, times in taken.items()]
    text = table(["command", "s", f"of {EMPTY}"], rows)
    return Section(f"{machine(['pydantic-settings', 'rich'])}\n\n{text}", {})
