"""The maps find truths from their own prior: the ranks of the truths are uniform."""

import numpy as np
import polars as pl
import pytest

from benchmarks.proof import FAILURE_RATE, bell_forecasts, fields, judge
from benchmarks.sbc import event_ranks, judge_ranks, latent_ranks, marginal_ranks
from helpers.planted_events import planted_events


def ranks_of(pit: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"quantity": "slope", "pit": pit})


def test_bands_hold_uniform_ranks():
    """Of ten sets of ranks, judged together, a 99.9 % band holds all."""
    pit = np.random.default_rng(0).random(1000)
    ranks = ranks_of(pit).with_columns(quantity=pl.int_range(pl.len()) // 100)
    assert judge_ranks(ranks, 0.999)["inside"].all()


@pytest.mark.parametrize(("a", "b"), [(1.6, 1.0), (0.6, 0.6), (2.2, 2.2)])
@pytest.mark.slow
def test_bands_detect_a_wrong_posterior(a, b):
    """Truths that lie too high, and posteriors that are too narrow or too wide, leave the band."""
    pit = np.random.default_rng(1).beta(a, b, 250)
    assert not judge_ranks(ranks_of(pit), 1 - FAILURE_RATE / 9)["inside"].all()


def outside(ranks: pl.DataFrame) -> list[str]:
    return judge(ranks).filter(~pl.col("inside"))["quantity"].unique().to_list()


@pytest.mark.parametrize(
    "n_simulations", [pytest.param(40, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.soak)]
)
def test_latent_map_finds_its_truths(n_simulations):
    """All parameters, each season's slope, and the log-likelihood."""
    ranks = latent_ranks(fields(18, 24, 3), 4, n_simulations, seed=5)
    assert ranks["quantity"].n_unique() == 9
    assert outside(ranks) == []


@pytest.mark.soak
def test_marginal_map_finds_its_truths():
    """All parameters, each season's slope, and the log-likelihood."""
    season = np.repeat([0, 1], 3)
    ranks = marginal_ranks(bell_forecasts(6, 10), season, 80, seed=5)
    assert ranks["quantity"].n_unique() == 7
    assert outside(ranks) == []


@pytest.mark.soak
def test_event_map_finds_its_truths():
    """All parameters of two archetypes, each season's slopes, and the log-likelihood."""
    races, _ = planted_events(1.0, 16, "top 5", n_cars=16)
    archetype, season = np.tile([0, 1], 8), np.repeat([0, 1], 8)
    ranks = event_ranks(races, archetype, season, 100, seed=5)
    assert ranks["quantity"].n_unique() == 12
    assert outside(ranks) == []
