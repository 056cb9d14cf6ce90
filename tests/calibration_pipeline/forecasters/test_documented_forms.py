"""The examples in docs/forecasters.md are read as the forms that the page says."""

import io
import re
import runpy
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import (
    Forecasts,
    Form,
    list_forecasters,
    read_forecaster,
    split_models,
)
from helpers.example_forecasts import entries
from helpers.paths import ROOT

PAGE = (ROOT / "docs" / "forecasters.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```csv (\w+)\n(.*?)```", PAGE, flags=re.DOTALL))
RACES = RacesInForce(entries((202401,), ("Ann", "Bob", "Cid")))


def read(folder: Path) -> dict[str, Forecasts]:
    listed = split_models(list_forecasters(folder).forecasters)
    return {each.name: read_forecaster(each, RACES, None, fold_races=None, seed=1) for each in listed}


def repeated(text: str) -> str:
    """Return an example of scenarios as often as a race needs."""
    rows = pl.read_csv(io.StringIO(text))
    parts = [rows.with_columns(pl.col("scenario") + 10 * k) for k in range(60)]
    return pl.concat(parts).write_csv()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("wide", Form.SCENARIOS), ("long", Form.SCENARIOS), ("positions", Form.POSITIONS),
        ("matrix", Form.POSITIONS), ("events", Form.EVENTS), ("odds", Form.EVENTS),
    ],
)  # fmt: skip
def test_an_example_has_its_form(tmp_path: Path, name: str, form: Form) -> None:
    text = BLOCKS[name]
    assert len(text.splitlines()) <= 10
    (tmp_path / f"{name}.csv").write_text(repeated(text) if form is Form.SCENARIOS else text)
    forecast = read(tmp_path)[name]
    assert forecast.form is form
    assert forecast.quarantine.filter(consequence="left out").is_empty()


def test_the_example_of_positions_spreads_the_rest(tmp_path: Path) -> None:
    (tmp_path / "positions.csv").write_text(BLOCKS["positions"])
    values = read(tmp_path)["positions"].values["probability"].values[0]
    np.testing.assert_allclose(values, [[0.6, 0.3, 0.1], [0.3, 0.35, 0.35], [0.1, 0.45, 0.45]])


def test_the_example_of_hubverse_has_two_forecasters(tmp_path: Path) -> None:
    (tmp_path / "hub.csv").write_text(BLOCKS["hubverse"])
    assert {name: each.form for name, each in read(tmp_path).items()} == {
        "flat": Form.POSITIONS,
        "sharp": Form.EVENTS,
    }


def test_the_example_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example)
    runpy.run_path("example.py")
    forecast = read(tmp_path)["simulator"]
    assert forecast.form is Form.SCENARIOS
    assert forecast.values["finish_position"].shape == (1, 1000, 3)


def test_every_block_of_the_page_is_read() -> None:
    assert set(BLOCKS) == {"wide", "long", "positions", "matrix", "events", "odds", "hubverse"}
