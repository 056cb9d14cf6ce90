"""Sequential monitoring: evidence against calibration after each race, valid however often one looks.

A statistic of each market is computed for the result of a race and for each of its scenarios. If the forecast
is calibrated, the result is one more scenario, so its rank is uniform, whatever the dependence between cars.
`stats.e_processes` turns the ranks into e-processes. Probabilities within a statistic count the result as one
more scenario, too: the ranks are exactly uniform for any number of scenarios.

The statistics are prerank functions: their histograms are multivariate rank histograms (Gneiting et al. 2008,
doi:10.1007/s11749-008-0114-x; Allen, Ziegel & Ginsbourger 2024, doi:10.1002/qj.4647).
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logit

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.events.counts import Race, read_races
from calibration_pipeline.markets import ALL_MARKETS, RACE_MARKETS, TOP_EVENTS
from calibration_pipeline.scenarios.probabilities import finish_probabilities, smoothed_wins
from calibration_pipeline.schemas.monitoring import CalibrationMonitoring
from calibration_pipeline.stats.e_processes import log_e_process, log_mean
from calibration_pipeline.verification.cases import JUDGED, check_forecasts, table
from calibration_pipeline.verification.scores import discrete_crps

ALARM = 20.0
"""E-value of an alarm; the e-process of a calibrated forecast reaches it with probability at most 1/20."""
LOG10_ALARM = math.log10(ALARM)
SPANS = {"log10_e_season": "season", "log10_e_start": "start"}
DIGITS = 9
"""Decimals of a statistic: values that differ by rounding alone are ties."""
N_BINS = 8


def monitor_forecasts(ensembles: Mapping[str, xr.Dataset], results: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return ranks and e-values of all markets after each race.

    Parameters
    ----------
    ensembles : mapping of str to xarray.Dataset
        `raw` and `recalibrated`, `ScenarioEnsemble` datasets of the same races of one archetype, in their
        order in time.
    results : polars.DataFrame
        `RaceResults` of at least these races and cars.
    seed : int
        Seed of the ranks at ties; the random numbers of a race depend on nothing but the seed and its id.

    Returns
    -------
    polars.DataFrame
        `CalibrationMonitoring`. Ensembles or results without `running` have no rows on retirements.

    Raises
    ------
    ValueError
        If the forecasts differ from these two, a car lacks a result, or the finishes of a race are no
        permutation.
    """
    check_forecasts(ensembles)
    empty = table([], CalibrationMonitoring)
    return pl.concat([empty, *(_monitor(name, ensembles[name], results, seed) for name in JUDGED)])


def race_ranks(race: Race, rng: np.random.Generator) -> dict[str, float]:
    """Return the rank of the result's statistic among the scenarios', by market, each in (0, 1).

    Parameters
    ----------
    race : Race
    rng : numpy.random.Generator
        Chooses a place among ties.
    """
    statistics = race_statistics(race)
    uniform = dict(zip(RACE_MARKETS, rng.random(len(RACE_MARKETS)), strict=True))
    return {market: _randomised_rank(values, uniform[market]) for market, values in statistics.items()}


def race_statistics(race: Race) -> dict[str, NDArray[np.float64]]:
    """Return the statistic of each market, for the result first, then for the scenarios.

    - win, top 5, top 10, head to head: the sum of logit p over the cases that happen, the score of Cox's
      calibration slope at 1. The statistic is small where the result is an upset: the forecast is too sure
      if ranks are small, and too cautious if they are large.
    - finish distribution: minus the CRPS, summed over cars; small where cars finish far from the forecast.
    - who retires: the sum of logit p over the retired cars, among scenarios with as many retired cars.
    - how many retire: the number of retired cars.

    Parameters
    ----------
    race : Race

    Returns
    -------
    dict
        Market to (1 + scenario,); fewer scenarios in `who retires`. Without `running` no market of
        retirements.

    References
    ----------
    Cox (1958), Two further applications of a model for binary regression, doi:10.1093/biomet/45.3-4.562.
    """
    finish = np.concatenate([race.result.finish_position[None], race.scenarios.finish_position])
    first, second = np.triu_indices(finish.shape[1], k=1)
    statistics = {event: _slope_score(finish <= places) for event, places in TOP_EVENTS.items()}
    statistics["head to head"] = _slope_score(finish[:, first] < finish[:, second])
    statistics["finish distribution"] = -_total_crps(finish)
    if race.result.running is not None and race.scenarios.running is not None:
        retired = ~np.concatenate([race.result.running[None], race.scenarios.running])
        number = retired.sum(axis=1)
        statistics["who retires"] = _slope_score(retired)[number == number[0]]
        statistics["how many retire"] = number.astype(np.float64)
    return {market: values.round(DIGITS) for market, values in statistics.items()}


def list_alarms(monitoring: pl.DataFrame) -> pl.DataFrame:
    """Return the e-processes that reached `ALARM`, at their first race with such an e-value.

    Parameters
    ----------
    monitoring : polars.DataFrame
        `CalibrationMonitoring`.

    Returns
    -------
    polars.DataFrame
        archetype, forecast, market, span ('season' or 'start'), season, race_id, race (its number within the
        archetype's season), log10_e (the largest of the season or of all races).
    """
    process = ["archetype", "forecast", "market", "span"]
    values = [name for name in monitoring.columns if name not in SPANS]
    races = pl.col("race_id").cum_count().over("archetype", "forecast", "market", "season")
    return (
        monitoring.with_columns(race=races.cast(pl.Int64))
        .unpivot(list(SPANS), index=[*values, "race"], variable_name="span", value_name="log10_e")
        .with_columns(pl.col("span").replace_strict(SPANS, return_dtype=pl.String))
        .with_columns(block=pl.when(span="season").then("season").otherwise(0))
        .filter(pl.col("log10_e").max().over(*process, "block") >= LOG10_ALARM)
        .group_by(*process, "block", maintain_order=True)
        .agg(
            pl.col("season", "race_id", "race").filter(pl.col("log10_e") >= LOG10_ALARM).first(),
            pl.col("log10_e").max(),
        )
        .drop("block")
    )


def pool_archetypes(monitoring: pl.DataFrame) -> pl.DataFrame:
    """Return the mean of the e-values of all markets over the archetypes, after each race of any archetype.

    An archetype keeps its e-value at the races of others. It has the e-value 1 before its first race, and at
    a season's start. The mean over all archetypes is again an e-process: given all races before, a race of
    one archetype is a fair bet, and the others stand still.

    Parameters
    ----------
    monitoring : polars.DataFrame
        `CalibrationMonitoring` of any archetypes.

    Returns
    -------
    polars.DataFrame
        forecast, season, race_order, log10_e_season, log10_e_start.
    """
    together = monitoring.filter(market=ALL_MARKETS)
    races = together.select("forecast", "season", "race_order").unique().sort("race_order")
    of_race = ["archetype", "forecast", "season", "race_order"]
    filled = (
        races.join(pl.DataFrame({"archetype": [str(name) for name in ARCHETYPES]}), how="cross")
        .join(together.select(*of_race, *SPANS), on=of_race, how="left")
        .sort("race_order")
        .with_columns(
            pl.col("log10_e_season").forward_fill().over("archetype", "forecast", "season"),
            pl.col("log10_e_start").forward_fill().over("archetype", "forecast"),
        )
        .with_columns(pl.col(list(SPANS)).fill_null(0.0))
    )
    largest = pl.col(list(SPANS)).max()
    mean = ((pl.col(list(SPANS)) - largest) * math.log(10)).exp().mean().log(10) + largest
    pooled = filled.group_by("forecast", "season", "race_order").agg(mean)
    return pooled.sort("forecast", "race_order")


def rank_histograms(monitoring: pl.DataFrame) -> pl.DataFrame:
    """Return histograms of the ranks by market, with the 95 % range of the shares of uniform ranks.

    Parameters
    ----------
    monitoring : polars.DataFrame
        `CalibrationMonitoring` of one archetype.

    Returns
    -------
    polars.DataFrame
        archetype, forecast, market, bin (from 0), share, lower, upper, n_races; bins have equal width.
    """
    from scipy.stats import binom  # every process loads this module

    ranks = monitoring.drop_nulls("rank")
    group = ["archetype", "forecast", "market"]
    counts = (
        ranks.with_columns(bin=(pl.col("rank") * N_BINS).floor().cast(pl.Int64))
        .group_by(*group, "bin")
        .agg(share=pl.len())
    )
    sizes = ranks.group_by(group, maintain_order=True).agg(n_races=pl.len().cast(pl.Int64))
    every = sizes.join(pl.DataFrame({"bin": range(N_BINS)}), how="cross")
    lower, upper = binom.interval(0.95, every["n_races"].to_numpy(), 1 / N_BINS)
    return (
        every.with_columns(lower=lower, upper=upper)
        .join(counts, on=[*group, "bin"], how="left", maintain_order="left")
        .with_columns(pl.col("share").fill_null(0))
        .with_columns(pl.col("share", "lower", "upper") / pl.col("n_races"))
    )


def _monitor(forecast: str, ensemble: xr.Dataset, results: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return the rows of one forecast."""
    races, ids = read_races(ensemble, results, [])[0], ensemble["race"].values
    if not races:
        return table([], CalibrationMonitoring)
    own = ensemble.coords.get("n_scenarios", xr.full_like(ensemble["race"], ensemble.sizes["scenario"]))
    by_race = [
        race_ranks(_first_scenarios(race, n), np.random.default_rng([seed, race_id]))
        for race, race_id, n in zip(races, ids, own.values, strict=True)
    ]
    markets = [market for market in by_race[0] if all(market in ranks for ranks in by_race)]
    ranks = np.array([[ranks[market] for market in markets] for ranks in by_race]).T
    season = ensemble["season"].values
    processes = [log_e_process(ranks, season), log_e_process(ranks, np.zeros(len(races)))]
    in_season, in_all = (np.vstack([log_e, log_mean(log_e)]) / math.log(10) for log_e in processes)
    n_races, n_markets = len(races), len(markets) + 1
    return pl.DataFrame(
        {
            "archetype": np.tile(ensemble["archetype"].values, n_markets),
            "forecast": [forecast] * (n_races * n_markets),
            "market": np.repeat([*markets, ALL_MARKETS], n_races),
            "race_id": np.tile(ids, n_markets),
            "season": np.tile(season, n_markets),
            "race_order": np.tile(ensemble["race_order"].values, n_markets),
            "rank": [*ranks.ravel().tolist(), *[None] * n_races],
            "log10_e_season": in_season.ravel(),
            "log10_e_start": in_all.ravel(),
        },
        schema=table([], CalibrationMonitoring).schema,
    )


def _first_scenarios(race: Race, number: int) -> Race:
    """Return a race with its first scenarios; the others of a user's forecaster repeat them."""
    scenarios, running = race.scenarios, race.scenarios.running
    first = replace(
        scenarios,
        finish_position=scenarios.finish_position[:number],
        running=None if running is None else running[:number],
    )
    return replace(race, scenarios=first)


def _slope_score(happened: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the sum of logit p over the cases that happen, (scenario,); p is a case's share of scenarios."""
    return happened @ logit(smoothed_wins(happened.sum(axis=0), len(happened)))


def _total_crps(finish: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the CRPS of the scenarios' own probabilities, summed over the cars, (scenario,)."""
    n_cars = finish.shape[1]
    probability = finish_probabilities(finish[None], np.array([n_cars]))[0]
    position = np.broadcast_to(np.arange(1, n_cars + 1), (n_cars, n_cars))
    crps = discrete_crps(np.broadcast_to(probability[:, None], (n_cars, n_cars, n_cars)), position)
    return crps[np.arange(n_cars), finish - 1].sum(axis=1)


def _randomised_rank(statistic: NDArray[np.float64], uniform: float) -> float:
    """Return the rank of the first value among all, in (0, 1): a random place among its ties."""
    smaller = np.count_nonzero(statistic < statistic[0])
    ties = np.count_nonzero(statistic == statistic[0])
    return float((smaller + uniform * ties) / statistic.size)
