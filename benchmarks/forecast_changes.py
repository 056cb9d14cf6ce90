"""Raw and recalibrated forecasts of the causal network beside those of an earlier commit.

    python -m benchmarks.forecast_changes --results cup_results.parquet --before 60337c8

Both commits forecast the same seasons with the same seed, walk-forward: *old* is the earlier commit, *new* is
today's. benchmarks/results/forecast_changes.csv holds the quantities of each forecast, and the differences of
their log scores, paired by race. Intervals are race-clustered, 95 %.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks import forecast_cases
from benchmarks.evaluation import EVERYTHING, OVALS, groups, options_parser, season_range, season_text
from benchmarks.forecast_cases import Cases, read_cases
from benchmarks.result_files import Row, estimated, markdown_table, write_results
from benchmarks.worktree import ROOT, check_out
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.stats.intervals import Estimate, clustered_mean
from calibration_pipeline.verification.verdicts.slopes import head_to_head_slope, retirement_slope, win_slope

KEY = ("seasons",)
NEW_CAR = season_range("2022-2023")
ERAS = (season_range("2016-2020"), season_range("2021-2023"), NEW_CAR)
"""Parts of the evaluated seasons. Archetypes are listed for all evaluated seasons and for the new car."""
COMPARISONS = (
    ("new raw", "old raw"),
    ("new recalibrated", "new raw"),
    ("new recalibrated", "old raw"),
    ("new recalibrated", "old recalibrated"),
)
"""Pairs of forecasts: the log scores of the second are subtracted from those of the first."""
N_SIMULATIONS = 20_000
SCORES: Mapping[str, Callable[[Cases], tuple[NDArray, ...]]] = {
    "log_score": lambda cases: _arrays(cases.cars, "log_score", "race"),
    "winner_log_score": lambda cases: _arrays(
        cases.cars.filter("won").with_columns(pl.col("win").log()), "win", "race"
    ),
    "retirements_log_score": lambda cases: (score_counts(cases.races), cases.races["race"].to_numpy()),
}
"""Quantity -> score of each case, and the case's race."""
SLOPES: Mapping[str, Callable[[Cases], Estimate | None]] = {
    "win_temperature": lambda cases: win_slope(*_arrays(cases.cars, "win", "won", "race")),
    "head_to_head_slope": lambda cases: head_to_head_slope(*_arrays(cases.pairs, "ahead", "won", "race")),
    "retirement_slope": lambda cases: retirement_slope(*_arrays(cases.cars, "retire", "retired", "race")),
}
"""Quantity -> estimate; 1 is calibrated."""


def _arrays(frame: pl.DataFrame, *columns: str) -> tuple[NDArray, ...]:
    return tuple(frame[column].to_numpy() for column in columns)


def score_counts(races: pl.DataFrame) -> NDArray[np.float64]:
    """Return the log score of the number of retirements of each race, nats; larger is better.

    The probability of a number is (count + 1/2) / (S + n/2) for S scenarios and n possible numbers, 0 to all
    cars: the rule of `finish_probabilities`.

    Parameters
    ----------
    races : polars.DataFrame
        As `Cases.races`.

    Examples
    --------
    >>> races = pl.DataFrame({"retired": [1], "scenarios": [[2, 1, 0]]})
    >>> np.exp(score_counts(races)).round(6).tolist()
    [0.333333]
    """
    counts = [np.array(numbers) for numbers in races["scenarios"].to_list()]
    return np.log(
        [
            (numbers[k] + 0.5) / (numbers.sum() + numbers.size / 2)
            for k, numbers in zip(races["retired"].to_list(), counts, strict=True)
        ]
    )


def retirement_moments(races: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the variance of the number of retirements over the scenarios of each race."""
    moments = []
    for numbers in races["scenarios"].to_list():
        share, number = np.array(numbers) / sum(numbers), np.arange(len(numbers))
        mean = share @ number
        moments.append((mean, share @ (number - mean) ** 2))
    mean, variance = np.array(moments).T
    return mean, variance


def retirement_z(races: pl.DataFrame) -> float:
    """Return observed minus forecast retirements of all races, in standard deviations of the forecast."""
    mean, variance = retirement_moments(races)
    return float((races["retired"].to_numpy() - mean).sum() / np.sqrt(variance.sum()))


def largest_retirement_z(races: pl.DataFrame, seed: int = 1) -> tuple[float, float]:
    """Return the largest absolute `retirement_z` over archetypes, and its p-value.

    The p-value is the probability of at least that value for a calibrated forecast: one scenario of each race
    takes the place of the result, in `N_SIMULATIONS` simulations.

    Parameters
    ----------
    races : polars.DataFrame
        As `Cases.races`.
    seed : int
    """
    rng = np.random.default_rng(seed)
    observed, simulated = [], []
    for _, part in races.group_by("archetype", maintain_order=True):
        mean, variance = retirement_moments(part)
        drawn = np.zeros(N_SIMULATIONS)
        for numbers in part["scenarios"].to_list():
            drawn += rng.choice(len(numbers), N_SIMULATIONS, p=np.array(numbers) / sum(numbers))
        simulated.append(np.abs(drawn - mean.sum()) / np.sqrt(variance.sum()))
        observed.append(abs(retirement_z(part)))
    largest = max(observed)
    return largest, float(((np.max(simulated, axis=0) >= largest).sum() + 1) / (N_SIMULATIONS + 1))


def change_rows(forecasts: Mapping[str, Cases], seasons: range) -> list[Row]:
    """Return the quantities of each forecast and the differences of log scores, by seasons and races.

    Parameters
    ----------
    forecasts : mapping
        'old raw', 'old recalibrated', 'new raw' and 'new recalibrated' to cases of the same races and cars.
    seasons : range
        All seasons of the cases. `ERAS` outside them are not listed.

    Raises
    ------
    ValueError
        If the races or results differ.
    """
    _check_same_results(forecasts)
    listed = {seasons: True} | {era: era == NEW_CAR for era in ERAS if set(era) < set(seasons)}
    rows: list[Row] = []
    for era, with_archetypes in listed.items():
        for group in (EVERYTHING, OVALS, *(map(str, ARCHETYPES) if with_archetypes else ())):
            chosen = {name: _select(cases, era, group) for name, cases in forecasts.items()}
            n_races = chosen["new raw"].races.height
            if not n_races:
                continue
            quantities = [*_quantity_rows(chosen)]
            if with_archetypes and group == EVERYTHING:
                quantities += _largest_z_rows(chosen)
            label = {"seasons": season_text(era), "races": group, "n_races": n_races}
            rows += [
                {**label, "quantity": quantity, "forecast": forecast, **estimated("value", estimate)}
                for quantity, forecast, estimate in quantities
            ]
    return rows


def _check_same_results(forecasts: Mapping[str, Cases]) -> None:
    known = {
        "cars": ("race", "archetype", "won", "retired"),
        "pairs": ("race", "archetype", "won"),
        "races": ("race", "archetype", "retired"),
    }
    first, *others = forecasts.values()
    for name, columns in known.items():
        expected = getattr(first, name).select(columns)
        if not all(getattr(cases, name).select(columns).equals(expected) for cases in others):
            raise ValueError("Argument forecasts must hold the same races and results.")


def _select(cases: Cases, seasons: range, group: str) -> Cases:
    inside = [frame.filter(pl.col("season").is_in(list(seasons))) for frame in cases]
    return Cases(*(frame.filter(groups(frame["archetype"].to_numpy())[group]) for frame in inside))


def _quantity_rows(forecasts: Mapping[str, Cases]) -> Iterator[tuple[str, str, Estimate | None]]:
    """Yield quantity, forecast or difference of forecasts, and estimate."""
    for quantity, score in SCORES.items():
        scored = {name: score(cases) for name, cases in forecasts.items()}
        for name, (values, race) in scored.items():
            yield quantity, name, clustered_mean(values, race)
        for first, second in COMPARISONS:
            (values, race), (reference, _) = scored[first], scored[second]
            yield quantity, f"{first} - {second}", clustered_mean(values - reference, race)
    for quantity, slope in SLOPES.items():
        for name, cases in forecasts.items():
            yield quantity, name, slope(cases)
    races = forecasts["new raw"].races
    yield "retirements", "observed", clustered_mean(*_arrays(races, "retired", "race"))
    for name, cases in forecasts.items():
        yield "retirements", name, _without_interval(retirement_moments(cases.races)[0].mean(), races.height)
        yield "retirements_z", name, _without_interval(retirement_z(cases.races), races.height)


def _largest_z_rows(forecasts: Mapping[str, Cases]) -> Iterator[tuple[str, str, Estimate]]:
    for name, cases in forecasts.items():
        largest, p_value = largest_retirement_z(cases.races)
        yield "largest_retirements_z", name, _without_interval(largest, cases.races.height)
        yield "largest_retirements_z_p", name, _without_interval(p_value, cases.races.height)


def _without_interval(value: float, n_races: int) -> Estimate:
    return Estimate(value, None, None, n_races, n_races)


def forecast(tree: Path, results_path: str, seasons: range, n_scenarios: int) -> dict[str, Cases]:
    """Return the raw and the recalibrated cases of the packages in a folder, from a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, forecast_cases.__file__, str(Path(results_path).resolve())]
        subprocess.run(  # noqa: S603
            [*command, season_text(seasons), str(n_scenarios), folder],
            check=True,
            env={**os.environ, "PYTHONPATH": str(tree)},
        )
        return {name: read_cases(name, Path(folder)) for name in ("raw", "recalibrated")}


def main() -> None:
    """Run the benchmark."""
    parser = options_parser(__doc__, "2016-2023", 4000)
    parser.add_argument("--before", required=True, help="earlier commit that is compared with")
    options = parser.parse_args()
    arguments = (options.results, options.seasons, options.scenarios)
    with check_out(options.before) as earlier:
        trees = {"old": earlier, "new": ROOT}
        forecasts = {
            f"{age} {name}": cases
            for age, tree in trees.items()
            for name, cases in forecast(tree, *arguments).items()
        }
    run = {"scenarios": options.scenarios, "before_commit": options.before}
    rows = [{**run, **row} for row in change_rows(forecasts, options.seasons)]
    print(markdown_table(rows))
    write_results("forecast_changes", rows, options.output, KEY)


if __name__ == "__main__":
    main()
