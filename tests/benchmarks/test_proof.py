"""The latent map recovers planted truths, without bias to speak of where data outweigh the prior."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from benchmarks.proof import fields
from benchmarks.sbc import recover

N_REPLICATES = 40
CELLS = [(0.7, 0.25, 0.5, 36), (1.4, 0.5, -0.5, 36), (1.0, 0.25, 0.0, 108)]


def found_in(slope: float, noise: float, shift: float, n_races: int, n_replicates: int) -> pl.DataFrame:
    truth = {"log_slope": np.full(2, np.log(slope)), "noise_sigma": noise, "intercept": shift}
    return recover(fields(n_races, 36, 1), 2, truth, n_replicates, seed=n_races).filter(
        pl.col("quantity") != "log_slope[1]"
    )


@pytest.mark.soak
def test_a_planted_truth_is_recovered():
    """One history: estimates near the truth, and every interval within sight of it."""
    found = found_in(0.7, 0.25, 0.5, 36, 1)
    assert found["quantity"].to_list() == ["log_slope[0]", "noise_sigma", "intercept"]
    np.testing.assert_allclose(found["truth"], [np.log(0.7), 0.25, 0.5], rtol=1e-6)
    assert ((found["mean"] - found["truth"]).abs() < 4 * found["sd"]).all()


@pytest.mark.soak
@pytest.mark.parametrize(("slope", "noise", "shift", "n_races"), CELLS)
def test_intervals_hold_planted_truths_as_often_as_they_should(slope, noise, shift, n_races):
    """No less often than 999 in 1,000 sets of 95 % intervals; mean estimates within half a posterior sd."""
    found = found_in(slope, noise, shift, n_races, N_REPLICATES)
    for part in found.partition_by("quantity"):
        inside = part.select(pl.col("truth").is_between("lower", "upper").sum()).item()
        assert inside >= binom.ppf(0.001, N_REPLICATES, 0.95), part["quantity"][0]
        bias = (part["mean"] - part["truth"]).mean() / part["sd"].mean()
        assert abs(bias) < 0.5 + 3 / np.sqrt(N_REPLICATES), part["quantity"][0]
