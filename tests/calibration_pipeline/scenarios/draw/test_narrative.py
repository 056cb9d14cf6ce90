"""Interventions on a race, and conditions on evidence."""

import re

import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from calibration_pipeline.scenarios import SkeletonNarrative
from calibration_pipeline.scenarios.draw.narrative import move_on_grid
from calibration_pipeline.scenarios.draw.pins import effective_sample_size, resample
from calibration_pipeline.scenarios.fit.by_fold import DRAWN, fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.schemas.datasets import ScenarioEnsemble
from helpers.paths import ROOT
from helpers.simulated_seasons import without_laps

pytestmark = pytest.mark.slow

N = 20_000
DOCS = ROOT / "docs" / "forecasts.md"


@pytest.fixture(scope="module")
def race() -> tuple[pl.DataFrame, xr.Dataset]:
    """Features of one race at a superspeedway, and the network fitted before it."""
    features, results = without_laps([2022])
    before = (frame.filter(pl.col("round") <= 12) for frame in (features, results))
    network = fit_networks(fold_history(*before, 2022, 12), 12, seed=1)
    wild = features.filter(pl.col("archetype") == "superspeedway", pl.col("round") > 12)
    return wild.filter(pl.col("race_order") == wild["race_order"].min()), network


@pytest.fixture(scope="module")
def narrative(race) -> SkeletonNarrative:
    return SkeletonNarrative(*race)


@pytest.fixture(scope="module")
def free(narrative) -> xr.Dataset:
    return narrative.generate_scenarios(N, seed=1)


def out_of(ensemble: xr.Dataset) -> np.ndarray:
    """Cars out, by scenario."""
    return (~ensemble["running"]).sum("driver").values[0]


@pytest.mark.soak
def test_evidence_on_a_site_agrees_with_rejection(narrative, free):
    """Likelihood weighting for many cautions agrees with the free scenarios that have as many."""
    many = int(free["n_cautions"].quantile(0.85))
    seen = narrative.condition(n_cautions=many).generate_scenarios(N, seed=2)
    ScenarioEnsemble.validate(seen.drop_attrs(), lazy=True)
    assert (seen["n_cautions"] == many).all()
    among_free = out_of(free)[free["n_cautions"].values[0] == many]
    error = np.hypot(
        among_free.std() / np.sqrt(len(among_free)),
        out_of(seen).std() / np.sqrt(seen.attrs["effective_sample_size"]),
    )
    assert abs(out_of(seen).mean() - among_free.mean()) < 4 * error
    assert out_of(seen).mean() > out_of(free).mean() + 4 * error


def test_evidence_downstream_changes_its_causes(narrative, free):
    """A favourite that finishes last has mostly retired; a forward pass cannot show this."""
    favourite = str(free["driver_id"].values[0][free["finish_position"].mean("scenario").values[0].argmin()])
    last = narrative.condition(
        where=lambda race: race["finish_position"].sel(driver_id=favourite) >= len(race["driver_id"]) - 4
    ).generate_scenarios(500, seed=3)
    slot = int((last["driver_id"].values[0] == favourite).argmax())
    assert (last["finish_position"].values[0, :, slot] >= last.sizes["driver"] - 4).all()
    fell_out = 1 - last["running"].values[0, :, slot].mean()
    assert fell_out > 2 * (1 - free["running"].values[0, :, slot].mean())


def test_doing_is_not_seeing(narrative, free):
    """An intervention on incidents leaves the race's chaos unchanged; evidence of incidents changes it."""
    cars = narrative._features["driver_id"].to_list()[:6]
    incidents = dict.fromkeys(cars, True)
    done = out_of(narrative.do(incident=incidents).generate_scenarios(N, seed=4)) - len(cars)
    seen = out_of(narrative.condition(incident=incidents).generate_scenarios(N, seed=4)) - len(cars)
    others = [slot for slot, driver in enumerate(free["driver_id"].values[0]) if driver not in cars]
    expected = (~free["running"].values[0][:, others]).sum(axis=1)
    error = expected.std() / np.sqrt(N)
    assert abs(done.mean() - expected.mean()) < 6 * error
    assert seen.mean() > expected.mean() + 20 * error


def test_evidence_of_an_incident_agrees_with_quadrature(race):
    """P(a second car out | six cars out) by weights equals the integral over chaos."""
    features, network = race
    point = network.copy()
    for name in DRAWN:
        point[name] = network[name].mean("draw").broadcast_like(network[name]).transpose(*network[name].dims)
    narrative = SkeletonNarrative(features, point)
    free = narrative.generate_scenarios(10, seed=1)
    logit, scale = free["incident_logit"].values[0], float(free["chaos_scale"][0])
    drivers = free["driver_id"].values[0].tolist()
    chaos = np.linspace(-6, 6, 2001)
    out = 1 / (1 + np.exp(-(logit[:, None] + scale * chaos)))
    posterior = norm.pdf(chaos) * out[:6].prod(axis=0)
    expected = (posterior * out[6:]).sum(axis=1) / posterior.sum()
    seen = narrative.condition(incident=dict.fromkeys(drivers[:6], True)).generate_scenarios(N, seed=5)
    got = 1 - seen["running"].values[0].mean(axis=0)[6:]
    error = np.sqrt(expected * (1 - expected) / seen.attrs["effective_sample_size"])
    assert np.abs((got - expected) / error).max() < 4.5


def test_without_the_leaders_incident_he_never_falls_out(narrative, free):
    leader = str(free["driver_id"].values[0, 0])
    spared = narrative.do(incident={leader: False}).generate_scenarios(2000, seed=6)
    assert spared["running"].values[0, :, 0].all()
    assert spared["finish_position"].values[0, :, 0].mean() < free["finish_position"].values[0, :, 0].mean()


def test_starting_further_back_moves_the_car_and_closes_the_gap(narrative, free):
    driver = str(free["driver_id"].values[0, 0])
    moved = narrative.do(start_position={driver: 30}).generate_scenarios(N, seed=7)
    slot = int((moved["driver_id"].values[0] == driver).argmax())
    assert moved["start_position"].values[0, slot] == 30
    assert sorted(moved["start_position"].values[0]) == list(range(1, moved.sizes["driver"] + 1))
    assert moved["finish_position"].values[0, :, slot].mean() > free["finish_position"].values[0, :, 0].mean()


def test_a_narrative_is_left_as_it_was(narrative, free):
    narrative.do(n_cautions=3).condition(n_cautions=4)
    xr.testing.assert_identical(narrative.generate_scenarios(50, seed=1), free.isel(scenario=slice(50)))


def test_intervention_beats_evidence_on_the_same_variable(narrative):
    both = narrative.condition(n_cautions=4).do(n_cautions=12).generate_scenarios(200, seed=1)
    assert (both["n_cautions"] == 12).all()


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        ({"n_cautions": 31}, "n_cautions must be a whole number from 0 to 30, got 31"),
        ({"n_cautions": 2.5}, "n_cautions must be a whole number"),
        ({"incident": {"nobody": True}}, r"incident must map driver_id's .* not in the race: \['nobody'\]"),
        ({"start_position": {"nobody": 1}}, r"start_position must map driver_id's"),
        ({"chaos": float("nan")}, "chaos must be finite"),
    ],
)
def test_impossible_interventions_are_refused(narrative, intervention, message):
    with pytest.raises(ValueError, match=message):
        narrative.do(**intervention)


def test_two_cars_cannot_start_in_one_place(narrative):
    first, second = narrative._features["driver_id"].to_list()[:2]
    with pytest.raises(ValueError, match="a position of its own from 1 to"):
        narrative.do(start_position={first: 3, second: 3})


def test_evidence_that_never_happens_is_refused(narrative):
    with pytest.raises(ValueError, match=r"too improbable.* 200,000 scenarios must be at least .*, got 0"):
        narrative.condition(where=lambda race: race["race_laps"] < 0).generate_scenarios(100, seed=1)


def test_conditions_must_give_a_bool_for_each_scenario(narrative):
    with pytest.raises(ValueError, match="where must give a bool for each scenario"):
        narrative.condition(where=lambda race: race["finish_position"] == 1).generate_scenarios(100, seed=1)


@given(st.lists(st.floats(-30, 5), min_size=1, max_size=40), st.integers(1, 300))
def test_resampling_takes_each_draw_as_often_as_it_weighs(log_weight, n):
    """Systematic resampling: counts differ from n times the weight by less than one."""
    log_weight = np.array(log_weight)
    kept = resample(log_weight, n, np.random.default_rng(0))
    weight = np.exp(log_weight - log_weight.max())
    expected = n * weight / weight.sum()
    assert (np.abs(np.bincount(kept, minlength=len(weight)) - expected) < 1 + 1e-6).all()
    assert 1 - 1e-9 <= effective_sample_size(log_weight) <= len(weight) + 1e-9


@given(st.permutations(range(1, 9)), st.integers(1, 8))
def test_moving_a_car_keeps_the_order_of_the_others(grid, place):
    features = pl.DataFrame({"driver_id": list("abcdefgh"), "start_position": grid})
    moved = move_on_grid(features, {"c": place})
    assert moved.filter(driver_id="c")["start_position"].item() == place
    assert sorted(moved["start_position"]) == list(range(1, 9))
    others = [frame.filter(pl.col("driver_id") != "c") for frame in (features, moved)]
    assert others[0].sort("start_position")["driver_id"].equals(others[1].sort("start_position")["driver_id"])


def test_the_example_in_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code[1], names)  # noqa: S102
    leader, slot = names["leader"], "driver_id"
    means = {
        name: float(
            names[name].isel(race=0).swap_dims(driver=slot)["finish_position"].sel(driver_id=leader).mean()
        )
        for name in ("as_it_is", "from_the_back", "unharmed", "beaten")
    }
    assert means["unharmed"] < means["as_it_is"] < means["from_the_back"]
    assert means["beaten"] > 20
    assert (names["wild"]["n_cautions"] == 10).all()
    worth, _, proposals = capsys.readouterr().out.split()
    assert 1000 <= float(worth) <= int(proposals)
