"""Laws of cost by stage, and the estimate of a hub from them."""

import numpy as np
import polars as pl
import pytest
import xarray as xr

from benchmarks.hub import differing
from benchmarks.scaling import Hub, estimate, fit_law, fit_laws

SIZES = [(4, 1000), (4, 10_000), (8, 1000), (13, 1000)]


def test_a_law_is_recovered_from_its_own_times() -> None:
    law = fit_law({(s, n): 5 + 0.3 * s**2 + 0.7 * s * n / 1000 for s, n in SIZES})
    assert law[:4] == pytest.approx((5, 0, 0.3, 0.7), abs=1e-6)
    assert law.seconds(40, 2000) == pytest.approx(5 + 0.3 * 1600 + 0.7 * 80)
    assert law.largest_error < 1e-9


def test_a_hub_repeats_what_each_forecaster_needs_and_shares_the_rest() -> None:
    """Networks are fitted once a series; the scores of every forecaster are divided over the workers."""
    seconds = {"causal_network": 26.0, "backtest": 8.0}
    rows = [
        {"seasons": str(s), "scenarios": str(n), "asset": name, "s": str(value)}
        for s, n in SIZES
        for name, value in seconds.items()
    ]
    laws = fit_laws(rows)
    assert laws["networks"].seconds(13, 2000) == pytest.approx(26)
    found = estimate(Hub(50, 3, 13, 2000), laws)
    hours = 3 * (26 + 51 * 8) / 3600
    assert float(str(found["core_hours"])) == pytest.approx(hours, abs=0.01)
    # Thirteen networks of 2 s on eight workers take two rounds, 204 scores of 2 s take 26 rounds.
    assert float(str(found["hours_8_workers"])) == pytest.approx(3 * (4 + 52) / 3600, abs=0.01)


def test_stored_files_that_differ_are_named(tmp_path) -> None:
    arrays = xr.Dataset({"x": ("race", np.arange(3.0))})
    for name, shift in (("one", 0.0), ("two", 1e-9), ("three", 1e-3)):
        (tmp_path / name).mkdir()
        (arrays + shift).to_netcdf(tmp_path / name / "a.nc", engine="h5netcdf")
        pl.DataFrame({"x": [shift > 1e-6]}).write_parquet(tmp_path / name / "b.parquet")
    assert differing(tmp_path / "one", tmp_path / "two") == []
    assert differing(tmp_path / "one", tmp_path / "three") == ["a.nc", "b.parquet"]
    (tmp_path / "two" / "c.parquet").write_bytes(b"more")
    assert differing(tmp_path / "one", tmp_path / "two") == ["c.parquet"]
