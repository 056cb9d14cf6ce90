"""Locks of dependencies: what the pipeline runs with is a part of what the tests run with."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / lock).read_text()))


def test_the_pipeline_runs_with_the_versions_that_are_tested() -> None:
    tested = pins("requirements.lock")
    running = pins("requirements-run.lock")
    assert len(running) < len(tested)
    assert {name: tested.get(name) for name in running} == running


def test_the_lock_of_the_pipeline_has_what_it_and_its_ui_declare() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["ui"]
    names = {canonicalize_name(Requirement(line).name) for line in declared}
    running = pins("requirements-run.lock")
    assert names <= running.keys()
    assert not {"pytest", "mypy", "ruff", "playwright", "moto", "dask", "pyarrow"} & running.keys()


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-run.lock", "benchmarks/requirements.lock"]
)
def test_a_lock_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert all(
        "--hash=sha256:" in pin for pin in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    )
