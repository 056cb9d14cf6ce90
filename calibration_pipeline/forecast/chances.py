"""Probabilities of the next race by car and event, with Monte Carlo errors and intervals.

A forecast probability is a mean over scenarios, each with its own draw of the calibration's state.
Probabilities of cars are smoothed by half a count, as in the backtest. A probability has two uncertainties.
The Monte Carlo error, from the finite number of scenarios, is sqrt(p (1 - p) / n). The interval covers the
calibration: scenarios are redrawn with one draw of the state at a time. All redraws have the same random
numbers (Glasserman & Yao 1992, doi:10.1287/mnsc.38.6.884), so that only the calibration differs. The interval
holds 90 % of these probabilities, shifted to the forecast. The uncertainty of the causal network's parameters
is in the probability, not in the interval.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.calibration.state import DRAWN
from calibration_pipeline.events.counts import scenario_outcomes
from calibration_pipeline.events.language import Event, Outcomes
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.scenarios.summaries import CHANCES, car_chances

FITS = 100
SCENARIOS_A_FIT = 1024
INTERVAL = 0.9
FINISH_QUANTILES = {"finish_median": 0.5, "finish_lower": 0.1, "finish_upper": 0.9}

type Simulate = Callable[[Recalibration | None, int], xr.Dataset]
"""Recalibration of arrays (scenario) or None, and number of scenarios -> ensemble of one race."""


def recalibration_of_each_fit(
    state: xr.Dataset, n_fits: int, n_scenarios: int, seed: int
) -> list[Recalibration]:
    """Return the recalibrations of evenly spaced draws of the state, race-level noise the same in all.

    Parameters
    ----------
    state : xarray.Dataset
        `calibration.state.DRAWN` (draw), before the race.
    n_fits, n_scenarios, seed : int
    """
    flat = {name: state[name].values for name in DRAWN}
    noise = np.random.default_rng(seed).standard_normal(n_scenarios)
    chosen = np.linspace(0, flat["log_slope"].size - 1, n_fits).round().astype(int)
    return [
        Recalibration(
            log_sharpness=(flat["log_slope"][k] + flat["noise_sigma"][k] * noise).astype(np.float32),
            incident_shift=np.full(n_scenarios, flat["intercept"][k], np.float32),
            front_tilt=np.full(n_scenarios, flat["front_tilt"][k], np.float32),
        )
        for k in chosen
    ]


def chances_by_fit(
    simulate: Simulate, state: xr.Dataset, events: Sequence[Event], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return probabilities under `FITS` draws of the state: cars (fit, car, chance), events (fit, event)."""
    cars, happens = [], []
    for change in recalibration_of_each_fit(state, FITS, SCENARIOS_A_FIT, seed):
        ensemble = simulate(change, SCENARIOS_A_FIT)
        cars.append(car_chances(_cars(ensemble)))
        outcomes = scenario_outcomes(ensemble, 0)
        happens.append([_event_chance(outcomes, event)[0] for event in events])
    return np.array(cars), np.array(happens).reshape(len(cars), len(events))


def interval_around(estimate: NDArray, by_fit: NDArray) -> tuple[NDArray, NDArray]:
    """Return the ends of the interval of probabilities: quantiles over fits, shifted to the estimate.

    Parameters
    ----------
    estimate : array, shape (...)
    by_fit : array, shape (fit, ...)
    """
    tails = ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2)
    change = by_fit - by_fit[0]  # exactly 0 where all fits agree
    lower, upper = np.quantile(change - change.mean(axis=0), tails, axis=0)
    return np.clip(estimate + lower, 0, 1), np.clip(estimate + upper, 0, 1)


def chance_table(forecast: xr.Dataset, by_fit: NDArray | None) -> pl.DataFrame:
    """Return the probabilities of every car of the forecast's race.

    Parameters
    ----------
    forecast : xarray.Dataset
        `ScenarioEnsemble` of one race.
    by_fit : array, shape (fit, car, chance), optional
        As returned by `chances_by_fit`; None for a raw forecast, which has no interval.

    Returns
    -------
    polars.DataFrame
        `ForecastChances`, the likeliest winner first.
    """
    race = _cars(forecast)
    estimate = car_chances(race)
    n = forecast.sizes["scenario"]
    ends = None if by_fit is None else interval_around(estimate, by_fit)
    columns: dict[str, object] = {
        "race_id": np.full(race.sizes["driver"], race["race"].item()),
        "driver_id": race["driver_id"].values.astype(str),
        "driver": race["name"].values.astype(str),
        "car_number": race["car_number"].values.astype(str) if "car_number" in race.coords else None,
        "start_position": race["start_position"].values.astype(np.int64),
    }
    for c, name in enumerate(CHANCES):
        p = estimate[:, c]
        columns[name] = p
        for end in (0, 1):
            columns[f"{name}_{('lower', 'upper')[end]}"] = None if ends is None else ends[end][:, c]
        columns[f"{name}_error"] = np.sqrt(p * (1 - p) / n)
    finish = race["finish_position"].transpose("scenario", "driver").values
    for name, level in FINISH_QUANTILES.items():
        columns[name] = np.quantile(finish, level, axis=0, method="inverted_cdf").astype(np.int64)
    floats = {name: pl.Float64 for name in columns if name.startswith(CHANCES)}
    table = pl.DataFrame(columns, schema_overrides={**floats, "car_number": pl.String})
    return table.with_columns(pl.col(pl.Float64).fill_nan(None), pl.col("car_number").replace("", None)).sort(
        "win", "top5", "top10", descending=True, maintain_order=True
    )


def event_table(forecast: xr.Dataset, events: Sequence[Event], by_fit: NDArray | None) -> pl.DataFrame:
    """Return the probabilities of joint events in the forecast's race.

    Parameters
    ----------
    forecast : xarray.Dataset
        `ScenarioEnsemble` of one race.
    events : sequence of Event
        Events whose variables the forecast has, see `known_events`.
    by_fit : array, shape (fit, event), optional
        As returned by `chances_by_fit`.

    Returns
    -------
    polars.DataFrame
        `ForecastEvents`.
    """
    outcomes = scenario_outcomes(forecast, 0)
    estimates = [_event_chance(outcomes, event) for event in events]
    estimate = np.array([chance for chance, _, _ in estimates])
    ends = None if by_fit is None or not events else interval_around(estimate, by_fit)
    return pl.DataFrame(
        {
            "race_id": np.full(len(events), forecast["race"].values[0]),
            "event": [str(event) for event in events],
            "about": [event.cases for event in events],
            "n_cases": [n for _, _, n in estimates],
            "predicted": estimate,
            "lower": None if ends is None else ends[0],
            "upper": None if ends is None else ends[1],
            "monte_carlo_error": [error for _, error, _ in estimates],
        },
        schema={
            "race_id": pl.Int64,
            "event": pl.String,
            "about": pl.String,
            "n_cases": pl.Int64,
            **dict.fromkeys(("predicted", "lower", "upper", "monte_carlo_error"), pl.Float64),
        },
    )


def scenario_table(forecast: xr.Dataset) -> pl.DataFrame:
    """Return the scenarios in long form, one row a scenario and car, as `ForecastScenarios`."""
    race = _cars(forecast)
    shape = (race.sizes["scenario"], race.sizes["driver"])

    def column(name: str) -> NDArray | None:
        return race[name].transpose("scenario", "driver").values.ravel() if name in race else None

    return pl.DataFrame(
        {
            "race_id": np.full(shape[0] * shape[1], race["race"].item()),
            "scenario": np.repeat(race["scenario"].values, shape[1]),
            "driver_id": np.tile(race["driver_id"].values.astype(str), shape[0]),
            "finish_position": column("finish_position"),
            "running": column("running"),
            "laps_led": column("laps_led"),
            "fastest_laps": column("fastest_laps"),
        },
        schema_overrides={
            "race_id": pl.Int64,
            "scenario": pl.Int64,
            "finish_position": pl.Int64,
            "running": pl.Boolean,
            "laps_led": pl.Int64,
            "fastest_laps": pl.Int64,
        },
    )


def known_events(forecast: xr.Dataset, events: Sequence[Event]) -> list[Event]:
    """Return the events whose outcomes the scenarios have, with at least one case."""
    outcomes = scenario_outcomes(forecast, 0)
    return [event for event in events if event.of_cases(outcomes).shape[-1]]


def _cars(forecast: xr.Dataset) -> xr.Dataset:
    race = forecast.isel(race=0)
    return race.isel(driver=slice(int(race["field_size"])))


def _event_chance(outcomes: Outcomes, event: Event) -> tuple[float, float, int]:
    """Return the mean share of an event's cases that happen, its Monte Carlo error, and the cases."""
    happens = event.evaluate(outcomes)
    share = happens.mean(axis=-1)
    error = share.std(ddof=1) / np.sqrt(share.size)
    return float(share.mean()), float(error), happens.shape[-1]
