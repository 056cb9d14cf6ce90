"""An undisturbed run to compare with, copies of it to break, and the table of what was done to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.bench import SAMPLE, SOAK, Bench, write_races
from faults.ledger import LEDGER, Ledger
from helpers.paths import ROOT

DOCS = ROOT / "docs" / "faults.md"


@pytest.fixture(scope="session", params=[SAMPLE, SOAK])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return what a run left that nothing disturbed: up to the features, in the soak everything."""
    made = Bench(tmp_path_factory.mktemp("faults") / "undisturbed", request.param)
    write_races(made.feed)
    done = made.run()
    assert done.code == 0, done.out
    made.assert_readable()
    assert made.unlike_records() == set()
    return made


@pytest.fixture
def bench(undisturbed: Bench, tmp_path: Path) -> Bench:
    """Return a copy of it."""
    return undisturbed.copied(tmp_path / "bench")


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """Return the book in which each test enters what it injected and what was lost."""
    return LEDGER


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Print the table; the soak writes it into the documentation as well."""
    if not LEDGER.rows:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(LEDGER.table())
    if terminalreporter.config.option.markexpr == "soak":
        LEDGER.write_into(DOCS)
