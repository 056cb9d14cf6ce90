"""Runs in processes of their own: however their command ends, they end with it."""

import multiprocessing
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from assets import launch
from assets.definitions import build_defs
from assets.instance import open_records, prepare_home
from assets.launch import Launcher
from assets.progress import Progress
from assets.settings import Settings


class UnexpectedError(Exception):
    """What a command did not expect."""


def tell_much() -> None:
    """Tell more than a pipe holds, as a run does whose pictures are in its metadata."""
    for _ in range(100):
        launch._events.put("a picture" * 1000)


@pytest.fixture
def instance(project: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    monkeypatch.setenv("DAGSTER_HOME", str(project / "home"))
    prepare_home()
    with open_records() as one:
        yield one


def lose(instance: dg.DagsterInstance) -> None:
    """Fail while runs tell how they go."""
    console = Console(quiet=True)
    defs = build_defs(Settings(seasons="2025", processes=2))
    with console.status("") as status, Launcher(defs, instance, Progress(console, status), {}) as launcher:
        for _ in range(2):
            launcher._pool()[0].submit(tell_much)
        raise UnexpectedError


def test_what_runs_is_not_waited_for_where_nobody_hears_it(instance: dg.DagsterInstance) -> None:
    """A command that failed so waited for ever for runs that could not tell how they went."""
    with pytest.raises(UnexpectedError):
        lose(instance)
    for process in multiprocessing.active_children():
        process.join(timeout=60)
    assert not multiprocessing.active_children()
