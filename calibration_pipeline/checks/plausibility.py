"""Plausibility of a season's results and of forecasts: what no contract refuses, and real racing rarely has.

The limits are set so that every race of the Cup seasons 2013 to 2023 keeps within them (a test).
"""

import numpy as np
import polars as pl
import xarray as xr

LEAST_FIELD = 20
LEAST_SHARE_OF_FIELD = 0.6
"""Share of the season's median field."""
LAPS_BOUNDS = (0.5, 1.3)
"""Laps that were run against the scheduled ones: a race counts from half its distance on."""
LEAST_RUNNING = 0.3
"""Share of the field that runs at the end."""
LEAST_CORRELATION = 0.05
"""Mean rank correlation of start and finish over a season."""
ENOUGH_RACES = 5


def implausible_results(race_results: pl.DataFrame) -> list[str]:
    """Return what is implausible in a season's results, a sentence each.

    Parameters
    ----------
    race_results : polars.DataFrame
        Schema `RaceResults`, of one season.
    """
    winner = pl.col("finish_position") == 1
    races = (
        race_results.group_by("race_order", "round", "track_id")
        .agg(
            n=pl.len(),
            laps=pl.col("race_laps").first(),
            scheduled=pl.col("scheduled_laps").first(),
            running=pl.col("running").mean(),
            winner_runs=pl.col("running").filter(winner).first(),
            behind=pl.col("laps_completed").max() - pl.col("laps_completed").filter(winner).first(),
            date=pl.col("race_date").first(),
            correlation=pl.corr("start_position", "finish_position", method="spearman"),
        )
        .sort("race_order")
        .with_columns(usual=pl.col("n").median(), share=pl.col("laps") / pl.col("scheduled"))
        .with_columns(before=pl.col("date").cum_max().shift(1))
    )
    rules = (
        (pl.col("n") < LEAST_FIELD, "{n} cars started"),
        (pl.col("n") < LEAST_SHARE_OF_FIELD * pl.col("usual"), "{n} cars started, {usual:.0f} usually do"),
        (~pl.col("share").is_between(*LAPS_BOUNDS), "{laps} laps were run, {scheduled} are usual"),
        (pl.col("running") < LEAST_RUNNING, "{running:.0%} of the cars ran at the end"),
        (~pl.col("winner_runs"), "the winner did not run at the end"),
        (pl.col("behind") > 0, "a car completed {behind} more laps than the winner"),
        (pl.col("date") < pl.col("before"), "its date {date} is before that of an earlier round, {before}"),
    )
    found = [
        f"round {row['round']} ({row['track_id']}): {text.format(**row)}"
        for broken, text in rules
        for row in races.filter(broken).iter_rows(named=True)
    ]
    mean = races["correlation"].fill_nan(None).drop_nulls().mean()
    if races.height >= ENOUGH_RACES and isinstance(mean, float) and mean < LEAST_CORRELATION:
        found.append(f"start and finish of the season have a rank correlation of {mean:.2f} only")
    return found


def implausible_forecast(ensemble: xr.Dataset) -> list[str]:
    """Return what is implausible in the scenarios of races, a sentence each.

    Parameters
    ----------
    ensemble : xarray.Dataset
        Schema `ScenarioEnsemble`.
    """
    return [
        f"race {race}: {size} cars are forecast"
        for race, size in zip(ensemble["race"].values, ensemble["field_size"].values, strict=True)
        if size < LEAST_FIELD
    ]


def rank_correlation(backtest: xr.Dataset) -> float:
    """Return the mean rank correlation of expected and observed finish; NaN without races.

    A negative one means that the forecasts are upside down. Races in which all cars are expected to finish
    alike are left out.

    Parameters
    ----------
    backtest : xarray.Dataset
        Schema `Backtest`.
    """
    from scipy.stats import rankdata  # every process loads this module

    position = np.arange(1, backtest.sizes["position"] + 1)
    expected = (backtest["raw"].transpose("race", "driver", "position").values * position).sum(axis=-1)
    observed = backtest["finish_position"].transpose("race", "driver").values
    correlations = [
        np.corrcoef(rankdata(row[cars > 0]), cars[cars > 0])[0, 1]
        for row, cars in zip(expected, observed, strict=True)
        if np.ptp(row[cars > 0]) > 0
    ]
    return float(np.mean(correlations)) if correlations else float("nan")
