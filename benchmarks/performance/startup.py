"""Start-up time of commands, beside that of an empty Python process."""

import subprocess
import sys
from typing import NamedTuple

from benchmarks.performance.timing import in_turn, measured_on, ratios
from benchmarks.result_files import Row, repeated
from benchmarks.worktree import ROOT

EMPTY = "python -c pass"
COMMANDS = {
    EMPTY: ["-c", "pass"],
    "calibration-pipeline --help": ["-m", "assets.cli", "--help"],
    "calibration-pipeline run --help": ["-m", "assets.cli", "run", "--help"],
    "calibration-pipeline settings": ["-m", "assets.cli", "settings"],
    "import assets.definitions": ["-c", "import assets.definitions"],
}


class Sizes(NamedTuple):
    """Number of turns."""

    n_turns: int


FULL, SMALL = Sizes(15), Sizes(1)


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Measure every command."""

    def start(words: list[str]) -> None:
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)  # noqa: S603

    taken = in_turn(
        {name: lambda words=words: start(words) for name, words in COMMANDS.items()}, sizes.n_turns
    )
    machine = measured_on(["pydantic-settings", "rich"])
    rows: list[Row] = [
        {
            "command": name,
            **repeated("s", times),
            **repeated("ratio", ratios(times, taken[EMPTY])),
            "measured_on": machine,
        }
        for name, times in taken.items()
    ]
    return {"startup": rows}
