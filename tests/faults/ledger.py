"""The table of faults: fault, place, count, outcome of the run, and losses."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

BEGIN, END = "<!-- faults: made by make soak -->", "<!-- end of faults -->"
HEAD = ("fault", "where", "times", "what the run did", "lost")


@dataclass
class Ledger:
    """Rows by fault and place, in the order in which they were entered."""

    rows: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=dict)

    def enter(self, fault: str, where: str, times: int, did: str, lost: str = "nothing") -> None:
        """Enter a fault that the run survived; the same fault and place adds to the count."""
        before = self.rows.get((fault, where), (0, did, lost))[0]
        self.rows[fault, where] = (before + times, did, lost)
        self.log(f"{fault}, {where}: {did}; lost: {lost}")

    def log(self, text: str) -> None:
        """Print a line of progress, which pytest shows with `-s`."""
        sys.stdout.write(f"  {text}\n")
        sys.stdout.flush()

    def table(self) -> str:
        """Return the rows as Markdown."""
        lines = [HEAD, ("---", "---", "---:", "---", "---")]
        lines += [
            (fault, where, str(times), did, lost) for (fault, where), (times, did, lost) in self.rows.items()
        ]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def write_into(self, page: Path) -> None:
        """Put the table between the page's markers. Rows of faults that were not tried this time stay."""
        text = page.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        old, _, after = rest.partition(END)
        kept = Ledger()
        for line in old.strip().splitlines()[2:]:
            fault, where, times, did, lost = re.split(r" \| ", line.strip("| "))
            if fault not in {name for name, _ in self.rows}:
                kept.rows[fault, where] = (int(times), did, lost)
        kept.rows |= self.rows
        page.write_text(f"{before}{BEGIN}\n\n{kept.table()}\n\n{END}{after}", encoding="utf-8")


LEDGER = Ledger()
