"""The fit of the causal network finds the parameters of races that are drawn from the network."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from benchmarks.network_sbc import draw_fields, draw_history, draw_truth, fit_simulated
from benchmarks.proof import BY_ARCHETYPE, judge
from calibration_pipeline.scenarios.fit.posterior import N_ARCHETYPES

# Who retires at the first archetype is pure luck; the others differ.
PLANTED = {
    "incident_weight_common": [0.5, -0.4, 0.3, -0.2, 0.1],
    "incident_weight_deviation": [-1.0, 0.0, 0.4, -0.4],
    "damage_weight_common": [0.4, 0.3, -0.3, 0.2, -0.1],
    "damage_weight_deviation": [-0.3, 0.3, 0.0, 0.1],
    "front_log_sharpness_common": -0.4,
    "front_log_sharpness_deviation": [0.2, 0.0, -0.2, 0.1],
}


@pytest.mark.slow
def test_histories_are_races():
    """Running cars have each position once, and only running cars are damaged."""
    fields = draw_fields(6, 12)
    history = draw_history(fields, draw_truth(1, PLANTED), 1)
    running = history.running_order > 0
    for order, n_running in zip(history.running_order, running.sum(axis=1), strict=True):
        assert sorted(order[order > 0]) == list(range(1, n_running + 1))
    assert (history.incident == ~running).all()
    assert not (history.damage & history.incident).any()


def test_planted_sites_are_kept_and_the_others_drawn():
    truths = [draw_truth(seed, PLANTED) for seed in (1, 2)]
    common, deviation = (np.array(PLANTED[f"incident_weight_{part}"]) for part in ("common", "deviation"))
    for truth in truths:
        expected = (1 + deviation)[:, None] * common
        np.testing.assert_allclose(truth["incident_weight"], expected, rtol=1e-6)
    assert (truths[0]["pace_weight"] != truths[1]["pace_weight"]).all()
    assert truths[0]["incident_weight"].shape == (N_ARCHETYPES, 5)


@pytest.mark.soak
def test_truths_from_the_prior_are_found():
    """Ranks among posterior draws are uniform: weights of incidents and damage, sharpness at the front."""
    found = fit_simulated(draw_fields(80, 24), BY_ARCHETYPE, 50, seed=5)
    assert found["quantity"].n_unique() == N_ARCHETYPES * (2 * 5 + 1)
    assert judge(found).filter(~pl.col("inside"))["quantity"].unique().to_list() == []


@pytest.mark.soak
def test_parameters_by_archetype_are_recovered():
    """Intervals hold planted truths as often as they should, and estimates have no common error."""
    found = fit_simulated(draw_fields(120, 24), BY_ARCHETYPE, 20, seed=7, planted=PLANTED)
    for part in found.partition_by("quantity"):
        inside = part.select(pl.col("truth").is_between("lower", "upper").sum()).item()
        assert inside >= binom.ppf(1e-4, len(part), 0.95), part["quantity"][0]
    luck = found.filter(pl.col("quantity").str.starts_with("incident_weight[superspeedway"))
    other = found.filter(pl.col("quantity").str.starts_with("incident_weight[short_track, incident_form"))
    assert luck["truth"].abs().max() == 0
    assert luck["mean"].abs().mean() < 0.12
    assert abs(other["mean"].mean() - 0.7) < 0.12
    front = found.filter(pl.col("quantity").str.starts_with("front_sharpness"))
    log_error = (front["mean"] / front["truth"]).log()
    assert abs(log_error.mean()) < 0.1
