"""The planted faults of the example's forecasters are recovered by the three maps and the reader of odds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.archetype_fit import fit_archetype
from calibration_pipeline.calibration.race_curves import (
    observe,
    read_curves,
    reference_sharpness,
    tabulate_orders,
    tabulate_races,
    tabulate_reference,
)
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import Forecasts, list_forecasters, read_forecaster
from calibration_pipeline.models import run_mcmc_calibration
from calibration_pipeline.walk_forward.events import (
    filter_events,
    fit_events,
    race_states,
    recalibrate_events,
)
from examples.forecasters import (
    FLATNESS,
    FLOOR,
    LARGEST_PRICE,
    LONGSHOT_BIAS,
    LUCK_KEPT,
    MARGIN,
    Scenarios,
    flatten,
    main,
    simulate_seasons,
    write_position_probabilities,
)
from helpers.simulated_seasons import without_laps

pytestmark = pytest.mark.soak

SEASONS = range(2022, 2026)
SEED = 42
N_SCENARIOS = 5000
"""Scenarios behind the flat model: the noise of few scenarios pulls the slope of its positions to 0."""
N_ORDERS = 32
KNOWN_SCENARIOS = 1000
MARKETS = {"win": 1, "top 5": 5, "top 10": 10}
QUICK = {"n_warmup": 250, "n_samples": 500, "n_chains": 2, "seed": 1}


class Planted(NamedTuple):
    """Forecasts of the forecasters with faults, as they are read; the right scenarios by race_id; results."""

    forecasts: dict[str, Forecasts]
    right: dict[int, Scenarios]
    results: pl.DataFrame

    def of_archetype(self, name: str, archetype: Archetype) -> xr.Dataset:
        values = self.forecasts[name].values
        assert isinstance(values, xr.Dataset)
        return values.isel(race=values["archetype"].values == str(archetype))

    def right_values(
        self, dataset: xr.Dataset, values: Callable[[Scenarios], np.ndarray]
    ) -> list[np.ndarray]:
        """Return values of the right scenarios by race, the cars (last axis) in the order of a dataset."""
        found = []
        for r, race_id in enumerate(dataset["race"].values.tolist()):
            race = self.right[race_id]
            cars = dataset["driver_id"].values[r, : len(race.driver_ids)].astype(str).tolist()
            found.append(values(race)[..., [race.driver_ids.index(car) for car in cars]])
        return found


def position_shares(race: Scenarios) -> np.ndarray:
    """Shares of scenarios by position and car."""
    return np.stack([(race.finish == k).mean(axis=0) for k in range(1, len(race.drivers) + 1)])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("example")
    options = {"first": SEASONS[0], "last": SEASONS[-1], "seed": SEED, "scenarios": KNOWN_SCENARIOS}
    main([str(folder), *(f"--{name}={value}" for name, value in options.items())])
    many = simulate_seasons(SEASONS, N_SCENARIOS, 1.0, SEED)
    write_position_probabilities(many, folder / "flat.csv")
    features, results = without_laps(list(SEASONS), seed=SEED)
    races = RacesInForce(features)
    forecasts = {
        each.name: read_forecaster(each, races, results, fold_races=None, seed=1)
        for each in list_forecasters(folder).forecasters
        if each.name != "right"
    }
    right = {race.race_id: race for race in simulate_seasons(SEASONS, KNOWN_SCENARIOS, 1.0, SEED)}
    return Planted(forecasts, right, results)


def test_the_margin_is_found(planted: Planted) -> None:
    """20 %, less where a price is at its largest; the rest of the difference is the rounding of odds."""
    rows = []
    for race_id, race in planted.right.items():
        for market, top in MARKETS.items():
            right = np.clip((race.finish <= top).mean(axis=0), FLOOR, 1 - FLOOR)
            price = (1 + MARGIN) * flatten(right, LONGSHOT_BIAS, top)
            capped = bool((price > LARGEST_PRICE).any())
            rows.append((race_id, market, np.minimum(price, LARGEST_PRICE).sum() / top - 1, capped))
    written = pl.DataFrame(rows, schema=["race_id", "market", "written", "capped"], orient="row")
    found = planted.forecasts["bookmaker"].overrounds
    joined = found.join(written, on=["race_id", "market"])
    assert joined.height == found.height == 3 * 36 * len(SEASONS)
    assert_allclose(joined["overround"], joined["written"], atol=1.5e-3)
    free = joined.filter(~pl.col("capped"))
    assert free.height > 0.9 * joined.height
    assert_allclose(free["overround"], MARGIN, atol=1.5e-3)
    assert free["overround"].mean() == pytest.approx(MARGIN, abs=1e-4)


def test_the_bias_to_longshots_is_found_and_removed(planted: Planted) -> None:
    """The event map's slope is 1 / 0.8 in every market; top 5 and top 10 exclude 1, the win does not."""
    forecasts = planted.forecasts["bookmaker"].frame
    posterior = fit_events(forecasts, planted.results, list(SEASONS), fold_races=None, **QUICK)
    for market in MARKETS:
        fit = posterior[market]["posterior"].to_dataset().sel(season=list(SEASONS))
        slope = np.exp(fit["log_slope"].mean(("archetype", "season")).values)
        lower, upper = np.quantile(slope, (0.025, 0.975))
        assert lower < 1 / LONGSHOT_BIAS < upper, market
        assert market == "win" or lower > 1, market
        assert (np.quantile(fit["intercept"].mean("archetype"), (0.025, 0.975)) * [-1, 1] > 0).all()
    state = filter_events(forecasts, planted.results, posterior, seed=1)
    recalibrated = recalibrate_events(forecasts, race_states(state))
    right = pl.DataFrame(
        [
            (race_id, driver, market, p)
            for race_id, race in planted.right.items()
            for market, top in MARKETS.items()
            for driver, p in zip(race.driver_ids, (race.finish <= top).mean(axis=0).tolist(), strict=True)
        ],
        schema=["race_id", "driver_id", "market", "right"],
        orient="row",
    )
    keys = ["race_id", "driver_id", "market"]
    joined = right.join(forecasts, on=keys).join(recalibrated, on=keys, suffix="_recalibrated")
    late = joined.filter(pl.col("race_id") > 100 * SEASONS[-1], pl.col("market") != "win")
    raw, new = (
        (late[name] - late["right"]).abs().mean() for name in ("probability", "probability_recalibrated")
    )
    assert new < 0.6 * raw


@pytest.mark.parametrize("archetype", ARCHETYPES)
def test_the_slope_of_the_flat_model_is_found(planted: Planted, archetype: Archetype) -> None:
    """1 / 0.6 by the marginal map, within the interval.

    The best slope for results of the right law is near it, and not exactly: the map renormalises positions by
    division, and the flat model by a shift of logits. At superspeedways all cars are nearly equal, and the
    noise of the scenarios behind the flat model pulls the best slope further down.
    """
    own = planted.of_archetype("flat", archetype)
    finish = observe(own, planted.results).finish_position
    samples, _ = run_mcmc_calibration(finish, own["probability"].values, str(archetype), random_seed=1)
    lower, upper = np.quantile(samples["slope"], (0.025, 0.975))
    assert 1 < lower < 1 / FLATNESS < upper
    counts = planted.right_values(own, position_shares)
    flat = [own["probability"].values[r, : len(p), : len(p)] for r, p in enumerate(counts)]

    def loss(slope: float) -> float:
        total = 0.0
        for right, probability in zip(counts, flat, strict=True):
            w = expit(slope * logit(probability))
            total -= (right.T * np.log(w / w.sum(axis=1, keepdims=True))).sum()
        return total

    best = minimize_scalar(loss, bounds=(0.5, 3.0), method="bounded").x
    assert lower < best < upper
    assert best == pytest.approx(1 / FLATNESS, rel=0.2 if archetype is Archetype.SUPERSPEEDWAY else 0.1)


@pytest.mark.parametrize("archetype", ARCHETYPES)
def test_the_slope_of_the_overconfident_simulator_is_found(planted: Planted, archetype: Archetype) -> None:
    """By the latent map: the sharpness of the right scenarios over that of its own.

    It is .67 and not .6: luck and the form of the day have .6 of their scale, but retirements, wrecks and
    lost laps are luck, too, and have the right frequency. 24 races of superspeedways do not exclude 1.
    """
    own = planted.of_archetype("overconfident", archetype)
    races = tabulate_races(own, planted.results, seed=1)
    fit = fit_archetype(own, planted.results, races, archetype, list(SEASONS), **QUICK)
    seen = fit["posterior"].to_dataset().sel(season=list(SEASONS))
    lower, upper = np.quantile(np.exp(seen["log_slope"].mean("season")), (0.025, 0.975))
    curves = read_curves(races)
    orders = np.zeros((own.sizes["race"], N_ORDERS, own.sizes["driver"]), np.int16)
    for r, finish in enumerate(planted.right_values(own, lambda race: race.finish[:N_ORDERS])):
        orders[r, :, : finish.shape[1]] = finish
    weight = np.ones(own.sizes["race"])
    right_curves = tabulate_orders(own["utility"].values, orders)
    right = curves._replace(reference_order=tabulate_reference(right_curves))
    log_slopes = [float(reference_sharpness(each, weight).log_slope) for each in (right, curves)]
    expected = np.exp(log_slopes[0] - log_slopes[1])
    assert lower < expected < upper
    assert archetype is Archetype.SUPERSPEEDWAY or upper < 1
    assert LUCK_KEPT < expected < LUCK_KEPT + 0.1
