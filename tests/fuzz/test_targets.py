"""Everything that is read, from any bytes: it is taken, or refused with the error that is documented.

A few inputs of each target of `make fuzz`, the same in each run, and within a time each.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import Target, targets
from helpers.paths import ROOT

LIMIT_S = 60
EXAMPLES = 8
QUICK = {"events": 200, "events_toml": 200, "feed_text": 100, "settings": 40}
"""Targets that take a few milliseconds an input get more."""
TARGETS = targets()


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail where the block takes longer."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"an input takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(seed: bytes, at: list[tuple[int, int]]) -> bytes:
    """Return a valid input with some bytes replaced."""
    data = bytearray(seed)
    for place, byte in at:
        data[place % len(data)] = byte
    return bytes(data)


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Any bytes, and valid inputs that are damaged."""
    changes = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6)
    return st.binary(max_size=300) | st.builds(damaged, st.sampled_from(target.seeds), changes)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "ensembles_netcdf"])
@pytest.mark.slow
def test_any_bytes_are_taken_or_refused(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=QUICK.get(name, EXAMPLES),
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(data=inputs(target))
    def run(data: bytes) -> None:
        with within(LIMIT_S):
            target.run(data)

    for seed in target.seeds[:2]:
        target.run(seed)
    run()


def try_damaged_netcdf() -> None:
    """Try each input in a child, as the probe does, which may die."""
    target, chance = TARGETS["ensembles_netcdf"], random.Random(1)  # noqa: S311
    for seed in target.seeds:
        target.run(seed)
        for _ in range(15):
            target.run(
                damaged(seed, [(chance.randrange(len(seed)), chance.randrange(256)) for _ in range(3)])
            )


@pytest.mark.slow
def test_damaged_netcdf_is_taken_or_refused() -> None:
    """In a process of its own, where JAX has not started: it forks for each input."""
    done = subprocess.run(
        [sys.executable, "-c", "from fuzz import test_targets; test_targets.try_damaged_netcdf()"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
