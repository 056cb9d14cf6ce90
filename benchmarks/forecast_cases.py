"""Cases of the network's raw and recalibrated forecasts: tables of cars, pairs of cars and races.

    python benchmarks/forecast_cases.py cup_results.parquet 2016-2023 4000 FOLDER

The command is part of `forecast_changes`. It runs with the packages on PYTHONPATH, of today or of an earlier
commit. Therefore this module imports only functions that both commits have.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from benchmarks.evaluation import car_log_score, draw_seasons, load_races, season_range, walk_networks
from benchmarks.recalibration import recalibrate_seasons
from calibration_pipeline.calibration.race_curves import observe
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head
from calibration_pipeline.schemas.datasets import car_mask
from calibration_pipeline.verification.cases import car_pairs


class Cases(NamedTuple):
    """Forecast probabilities and outcomes of the races of a forecast.

    All frames have the columns race, season and archetype.

    Attributes
    ----------
    cars : polars.DataFrame
        log_score (of the finish position, nats), win (probability), won, retire (probability), retired.
    pairs : polars.DataFrame
        ahead (probability), won.
    races : polars.DataFrame
        retired (number of cars), scenarios (list, number of scenarios by number of retirements from 0 to that
        of all cars).
    """

    cars: pl.DataFrame
    pairs: pl.DataFrame
    races: pl.DataFrame


def list_cases(ensembles: Sequence[xr.Dataset], results: pl.DataFrame) -> Cases:
    """List the cases of a forecast, season by season.

    Parameters
    ----------
    ensembles : sequence of xarray.Dataset
        `ScenarioEnsemble` of each season.
    results : polars.DataFrame
        `RaceResults`.
    """
    seasons = [_list_season(ensemble, results) for ensemble in ensembles]
    return Cases(*(pl.concat(frames) for frames in zip(*seasons, strict=True)))


def _list_season(ensemble: xr.Dataset, results: pl.DataFrame) -> Cases:
    car, observed = car_mask(ensemble).values, observe(ensemble, results)
    drawn, size = ensemble["finish_position"].values, ensemble["field_size"].values
    finish, is_retired = observed.finish_position, car & (observed.running_order == 0)
    out = ~ensemble["running"].values & car[:, None, :]
    race_index, pairs = np.nonzero(car)[0], car_pairs(car)

    def label(index: NDArray) -> dict[str, NDArray]:
        archetype = ensemble["archetype"].values.astype(str)
        return {
            "race": ensemble["race"].values[index],
            "season": ensemble["season"].values[index],
            "archetype": archetype[index],
        }

    cars = {
        "log_score": car_log_score(ensemble, results)[0],
        "win": finish_probabilities(drawn, size)[..., 0][car],
        "won": finish[car] == 1,
        "retire": (out.sum(axis=1)[car] + 0.5) / (ensemble.sizes["scenario"] + 1),
        "retired": is_retired[car],
    }
    of_pairs = {
        "ahead": head_to_head(drawn, size)[pairs],
        "won": finish[pairs[0], pairs[1]] < finish[pairs[0], pairs[2]],
    }
    of_races = {
        "retired": is_retired.sum(axis=1),
        "scenarios": [
            np.bincount(numbers, minlength=n + 1).tolist()
            for numbers, n in zip(out.sum(axis=2), size.tolist(), strict=True)
        ],
    }
    return Cases(
        pl.DataFrame(label(race_index) | cars),
        pl.DataFrame(label(pairs[0]) | of_pairs),
        pl.DataFrame(label(np.arange(len(car))) | of_races),
    )


def forecast(results_path: str, seasons: range, n_scenarios: int) -> dict[str, Cases]:
    """Forecast all seasons but the first; return the cases of `seasons`, raw and recalibrated.

    The recalibration of a season reads the forecasts of all seasons before it.
    """
    features, results = load_races(results_path, seasons[-1])
    walk = features["season"].unique().sort().to_list()[1:]
    networks = walk_networks(features, results, walk)
    raw = draw_seasons(features, networks, n_scenarios)
    recalibrated = recalibrate_seasons(features, networks, raw, results, seasons)
    scored = [ensemble for season, ensemble in zip(walk, raw, strict=True) if season in seasons]
    return {"raw": list_cases(scored, results), "recalibrated": list_cases(recalibrated, results)}


def write_cases(forecasts: Mapping[str, Cases], folder: Path) -> None:
    """Write the cases of each forecast to a folder, a Parquet file a frame."""
    for forecast_name, cases in forecasts.items():
        for frame_name, frame in cases._asdict().items():
            frame.write_parquet(folder / f"{forecast_name}_{frame_name}.parquet")


def read_cases(forecast_name: str, folder: Path) -> Cases:
    """Read the cases of a forecast, as written by `write_cases`."""
    return Cases(*(pl.read_parquet(folder / f"{forecast_name}_{name}.parquet") for name in Cases._fields))


def main() -> None:
    """Write the cases of the forecasts of the packages on PYTHONPATH."""
    results_path, seasons, n_scenarios, folder = sys.argv[1:]
    use_host_devices()
    write_cases(forecast(results_path, season_range(seasons), int(n_scenarios)), Path(folder))


if __name__ == "__main__":
    main()
