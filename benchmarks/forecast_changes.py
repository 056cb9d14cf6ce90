"""Raw forecasts of the causal network beside those of an earlier commit: results/forecast_changes.csv.

    python -m benchmarks.forecast_changes --results cup_results.parquet --seasons 2021-2023 --before 60337c8

Both commits fit and draw the same seasons with the same seed, walk-forward. Log scores are paired by race;
slopes and temperatures stand beside each other. All intervals are race-clustered, 95 %.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from benchmarks.evaluation import (
    car_log_score,
    draw_seasons,
    groups,
    load_races,
    options_parser,
    season_range,
    season_text,
    walk_networks,
)
from benchmarks.result_files import Row, estimated, markdown_table, write_results
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.stats.intervals import clustered_mean
from calibration_pipeline.verification.cases import car_pairs
from calibration_pipeline.verification.scores import head_to_head_slope

ROOT = Path(__file__).parents[1]
KEY = ("seasons", "scenarios", "before_commit", "races", "quantity")


def list_cars_and_pairs(
    ensembles: Sequence[xr.Dataset], results: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return forecasts and outcomes, a row for each car and for each pair of cars.

    Parameters
    ----------
    ensembles : sequence of xarray.Dataset
        `ScenarioEnsemble` of each season.
    results : polars.DataFrame
        `RaceResults`.

    Returns
    -------
    cars : polars.DataFrame
        race, archetype, log_score (of the finish position, nats), win, won, retire, retired.
    pairs : polars.DataFrame
        race, archetype, ahead (probability), won.
    """
    cars, pairs = [], []
    for ensemble in ensembles:
        car = car_mask(ensemble).values
        observed = observe(ensemble, results)
        drawn, size = ensemble["finish_position"].values, ensemble["field_size"].values
        n_scenarios = ensemble.sizes["scenario"]
        out = (~ensemble["running"].values).sum(axis=1)
        log_score, race = car_log_score(ensemble, results)
        race_index = np.nonzero(car)[0]
        archetype = ensemble["archetype"].values.astype(str)
        cars.append(
            pl.DataFrame(
                {
                    "race": race,
                    "archetype": archetype[race_index],
                    "log_score": log_score,
                    "win": finish_probabilities(drawn, size)[..., 0][car],
                    "won": observed.finish_position[car] == 1,
                    "retire": (out[car] + 0.5) / (n_scenarios + 1),
                    "retired": observed.running_order[car] == 0,
                }
            )
        )
        at = car_pairs(car)
        finish = observed.finish_position
        pairs.append(
            pl.DataFrame(
                {
                    "race": ensemble["race"].values[at[0]],
                    "archetype": archetype[at[0]],
                    "ahead": head_to_head(drawn, size)[at],
                    "won": finish[at[0], at[1]] < finish[at[0], at[2]],
                }
            )
        )
    return pl.concat(cars), pl.concat(pairs)


def change_rows(
    before: tuple[pl.DataFrame, pl.DataFrame], after: tuple[pl.DataFrame, pl.DataFrame]
) -> list[Row]:
    """Return a row for each group of races and quantity: before, after, and the paired change of scores.

    Parameters
    ----------
    before, after : pair of polars.DataFrame
        As returned by `list_cars_and_pairs`, of the same races and cars.

    Raises
    ------
    ValueError
        If the races or results differ.
    """
    # Late: this module also runs with the packages of an earlier commit, which may lack it.
    from calibration_pipeline.verification.verdicts.slopes import retirement_slope, win_slope

    known = ("race", "archetype", "won", "retired")
    if not before[0].select(known).equals(after[0].select(known)):
        raise ValueError("Arguments before and after must hold the same races and results.")
    rows: list[Row] = []
    for group, chosen in groups(after[0]["archetype"].to_numpy()).items():
        old, new = (cars.filter(chosen) for cars, _ in (before, after))
        if new.is_empty():
            continue
        of_pairs = groups(after[1]["archetype"].to_numpy())[group]
        old_pairs, new_pairs = (pairs.filter(of_pairs) for _, pairs in (before, after))
        winners = [cars.filter("won") for cars in (old, new)]
        scores = {
            "log_score": (old["log_score"], new["log_score"], new["race"]),
            "winner_log_score": (winners[0]["win"].log(), winners[1]["win"].log(), winners[1]["race"]),
        }
        slopes = {
            "win_temperature": tuple(win_slope(*_arrays(cars, "win", "won")) for cars in (old, new)),
            "head_to_head_slope": tuple(
                head_to_head_slope(*_arrays(pairs, "ahead", "won")) for pairs in (old_pairs, new_pairs)
            ),
            "retirement_slope": tuple(
                retirement_slope(*_arrays(cars, "retire", "retired")) for cars in (old, new)
            ),
        }
        label = {"races": group, "n_races": new["race"].n_unique()}
        for quantity, (first, second, races) in scores.items():
            race = races.to_numpy()
            values = [column.to_numpy() for column in (first, second)]
            rows.append(
                {
                    **label,
                    "quantity": quantity,
                    **estimated("before", clustered_mean(values[0], race)),
                    **estimated("after", clustered_mean(values[1], race)),
                    **estimated("change", clustered_mean(values[1] - values[0], race)),
                }
            )
        for quantity, (earlier, later) in slopes.items():
            rows.append(
                {
                    **label,
                    "quantity": quantity,
                    **estimated("before", earlier),
                    **estimated("after", later),
                    **estimated("change", None),
                }
            )
    return rows


def _arrays(cases: pl.DataFrame, probability: str, outcome: str) -> tuple[NDArray, NDArray, NDArray]:
    """Return probabilities, outcomes and races, as slopes are fitted to them."""
    return cases[probability].to_numpy(), cases[outcome].to_numpy(), cases["race"].to_numpy()


def forecast(results_path: str, seasons: range, n_scenarios: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fit and draw the seasons with the packages of this process; return cars and pairs."""
    features, results = load_races(results_path, seasons[-1])
    ensembles = draw_seasons(features, walk_networks(features, results, seasons), n_scenarios)
    return list_cars_and_pairs(ensembles, results)


def forecast_before(
    commit: str, results_path: str, seasons: range, n_scenarios: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the same from the packages of an earlier commit, in a worktree and a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "earlier"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), commit], check=True, capture_output=True)  # noqa: S603
        try:
            command = [sys.executable, __file__, str(Path(results_path).resolve()), season_text(seasons)]
            subprocess.run(  # noqa: S603
                [*command, str(n_scenarios), folder], check=True, env={**os.environ, "PYTHONPATH": str(tree)}
            )
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True, capture_output=True)  # noqa: S603
        return tuple(pl.read_parquet(Path(folder) / f"{name}.parquet") for name in ("cars", "pairs"))  # type: ignore[return-value]


def main() -> None:
    """Run the benchmark."""
    parser = options_parser(__doc__, "2021-2023", 4000)
    parser.add_argument("--before", required=True, help="earlier commit that is compared with")
    options = parser.parse_args()
    arguments = (options.results, options.seasons, options.scenarios)
    before = forecast_before(options.before, *arguments)
    run = {"seasons": season_text(options.seasons), "scenarios": options.scenarios}
    rows = change_rows(before, forecast(*arguments))
    labelled = [{**run, "before_commit": options.before, **row} for row in rows]
    print(markdown_table(labelled))
    write_results("forecast_changes", labelled, options.output, KEY)


def store(results_path: str, seasons: str, n_scenarios: str, folder: str) -> None:
    """Write the forecasts of the packages on PYTHONPATH to a folder."""
    parts = forecast(results_path, season_range(seasons), int(n_scenarios))
    for name, frame in zip(("cars", "pairs"), parts, strict=True):
        frame.write_parquet(Path(folder) / f"{name}.parquet")


if __name__ == "__main__":
    if __package__:
        main()
    else:
        store(*sys.argv[1:])
