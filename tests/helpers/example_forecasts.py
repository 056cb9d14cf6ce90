"""Forecasts of example races in several forms, with known probabilities, and the entries of the races."""

from pathlib import Path

import numpy as np
import polars as pl

from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.tables import ForecastTable, open_table
from calibration_pipeline.sources.quarantine import DefectLog

NAMES = (
    "Kyle Larson", "Daniel Suárez", "Ricky Stenhouse Jr.", "Martin Truex Jr.", "A.J. Allmendinger",
    "Chase Elliott", "Denny Hamlin", "Ryan Blaney", "Joey Logano", "William Byron", "Kyle Busch",
    "Ross Chastain",
)  # fmt: skip
NUMBERS = ("5", "99", "47", "19", "16", "9", "11", "12", "22", "24", "8", "01")
RACES = (202201, 202202, 202203)


def entries(races: tuple[int, ...] = RACES, names: tuple[str, ...] = NAMES) -> pl.DataFrame:
    """Entries of races of one field, the first name on pole."""
    rows = [
        {
            "race_id": 5000 + race, "season": race // 100, "round": race % 100, "race_order": race,
            "track_id": "kansas", "archetype": "intermediate", "race_date": None, "driver_id": f"id-{k}",
            "driver": name, "car_number": NUMBERS[k], "team": None, "make": "Ford", "start_position": k + 1,
        }
        for race in races
        for k, name in enumerate(names)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"race_date": pl.Date, "team": pl.String})


def in_force(races: tuple[int, ...] = RACES) -> RacesInForce:
    """The example races as races in force."""
    return RacesInForce(entries(races))


def win_probabilities(race: int, n_cars: int = len(NAMES)) -> np.ndarray:
    """Win probabilities of a race, by car; they sum to 1."""
    weight = np.exp(np.random.default_rng(race).normal(0, 0.8, n_cars))
    return weight / weight.sum()


def event_table(races: tuple[int, ...] = RACES) -> pl.DataFrame:
    """Win and top-5 probabilities, a row a race and car."""
    frames = []
    for race in races:
        win = win_probabilities(race)
        top5 = win**0.4
        top5 *= 5 / top5.sum()
        frames.append(
            pl.DataFrame(
                {"season": race // 100, "round": race % 100, "driver": NAMES, "win": win, "top5": top5}
            )
        )
    return pl.concat(frames)


def opened(path: Path, frame: pl.DataFrame, name: str = "sim.csv") -> ForecastTable:
    """Write a frame as CSV or Parquet, and open it."""
    if name.endswith(".parquet"):
        frame.write_parquet(path / name)
    else:
        frame.write_csv(path / name)
    return open_table(str(path / name))


def log() -> DefectLog:
    """An empty log."""
    return DefectLog("sim")


def finish_matrix(race: int, n_cars: int = len(NAMES)) -> np.ndarray:
    """P(finish = position) of a race, (car, position); rows and columns sum to 1."""
    strength = np.random.default_rng(race).normal(0, 0.5, n_cars)
    matrix = np.exp(-np.outer(strength, np.linspace(-1, 1, n_cars)))
    for _ in range(200):
        matrix /= matrix.sum(axis=0)
        matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def position_table(races: tuple[int, ...] = RACES) -> pl.DataFrame:
    """Position probabilities, a row a race, car and position."""
    car, position = np.indices((len(NAMES), len(NAMES))).reshape(2, -1)
    frames = [
        pl.DataFrame(
            {
                "season": race // 100,
                "round": race % 100,
                "driver": np.array(NAMES)[car],
                "position": position + 1,
                "probability": finish_matrix(race).ravel(),
            }
        )
        for race in races
    ]
    return pl.concat(frames)


def finishes(race: int, n_scenarios: int = 150, n_cars: int = len(NAMES)) -> np.ndarray:
    """Finishes of a race, (scenario, car), in which the first cars are faster."""
    rng = np.random.default_rng(race)
    score = np.linspace(1.5, -1.5, n_cars) - rng.gumbel(size=(n_scenarios, n_cars))
    return (-score).argsort(axis=1).argsort(axis=1) + 1


def wide_scenarios(races: tuple[int, ...] = RACES, n_scenarios: int = 150) -> pl.DataFrame:
    """Scenarios, a row each and drivers in columns."""
    frames = []
    for race in races:
        finish = pl.DataFrame(finishes(race, n_scenarios), schema=list(NAMES))
        scenario = pl.int_range(n_scenarios, eager=True)
        keys = finish.select(season=race // 100, round=race % 100, scenario=scenario)
        frames.append(pl.concat([keys, finish], how="horizontal"))
    return pl.concat(frames)


def results(races: tuple[int, ...] = (202101, 202102)) -> pl.DataFrame:
    """Results of earlier races, in which the first cars are ahead."""
    return pl.concat(
        [
            entries((race,)).select(
                "race_id", "season", "round", "driver_id", finish_position=pl.col("start_position")
            )
            for race in races
        ]
    )
