"""Position probabilities as backtests: the scores of the backtest that they come from."""

import numpy as np
import pytest
import xarray as xr

from calibration_pipeline.comparison.market_scores import score_markets
from calibration_pipeline.comparison.race_probabilities import add_independent_pairs, read_backtests
from calibration_pipeline.markets import HEAD_TO_HEAD
from calibration_pipeline.verification.backtest import backtest_positions
from helpers.compared_forecasters import ARCHETYPES, make_backtests, results_of


@pytest.fixture(scope="module")
def backtests() -> list[xr.Dataset]:
    return make_backtests({"network": 1.0}, n_races=12)["network"]


def positions(backtests: list[xr.Dataset]) -> dict[str, xr.Dataset]:
    """The probabilities of both archetypes, as a forecaster issues them."""
    joint = xr.concat(backtests, dim="race")
    coordinates = joint.drop_vars(["raw", "recalibrated"]).coords
    return {name: xr.Dataset({"probability": joint[name]}, coordinates) for name in ("raw", "recalibrated")}


def split_positions(backtests: list[xr.Dataset], races: list[int]) -> dict[str, xr.Dataset]:
    states = xr.concat(backtests, dim="race")[["calibration_as_of", "n_calibration_races"]].reset_coords()
    return backtest_positions(positions(backtests), results_of(backtests), states, races)


def test_scores_are_those_of_the_backtest(backtests: list[xr.Dataset]) -> None:
    races = np.concatenate([part["race"].values for part in backtests]).tolist()
    split = split_positions(backtests, races)
    assert {name for name, part in split.items() if part.sizes["race"]} == set(ARCHETYPES)
    network = read_backtests(backtests)
    pairs = [add_independent_pairs(part) for part in split.values()]
    own = score_markets("flat", read_backtests(pairs), network)
    expected = score_markets("network", network, network)
    keys = ["forecast", "race_id", "market"]
    joined = own.join(expected, on=keys, suffix="_network")
    assert joined.height == own.height == expected.height
    same = joined.filter(joined["market"] != HEAD_TO_HEAD)
    np.testing.assert_allclose(same["score"], same["score_network"], atol=1e-12)
    np.testing.assert_allclose(same["log_score"], same["log_score_network"], atol=1e-9)


def test_other_races_are_left_out(backtests: list[xr.Dataset]) -> None:
    kept = backtests[0]["race"].values[:2].tolist()
    split = split_positions(backtests, kept)
    found = {name: part["race"].values.tolist() for name, part in split.items() if part.sizes["race"]}
    assert found == {ARCHETYPES[0]: kept}
