"""Four forecasters of the simulated seasons, whose faults are known: a folder for the setting `forecasters`.

    python examples/forecasters.py mine
    calibration-pipeline run --forecasters mine

| file | form | fault |
|---|---|---|
| right.nc | scenarios | none: it knows the law of the simulated races and the grid |
| overconfident.csv | scenarios in wide form, with ties | luck and form of the day are 0.6 of the right ones |
| flat.csv | position probabilities | logits of the right probabilities times 0.6, shifted to sum to 1 |
| bookmaker.csv | American odds, win to top 10 | favourite-longshot bias, logits times 0.8; margin of 20 % |

`docs/forecasters.md` explains the forms. The functions `write_…` show how to write your own forecasts.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata

from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

LUCK_KEPT, FLATNESS, LONGSHOT_BIAS, MARGIN = 0.6, 0.6, 0.8, 0.2
TIE_WIDTH = 0.05
"""Performances are rounded to this width before the over-confident simulator ranks them."""
TOP = {"win": 1, "top5": 5, "top10": 10}
LOST_LAPS, RETIRED = -1e3, -2e3
"""Performances of cars that lost laps, and of retired cars."""
MOST_WRECKS, TROUBLE = 5, 0.04
"""Largest number of wrecks, and share of cars that lose laps in the pits."""
LARGEST_PRICE = 0.995
FLOOR = 1e-4
"""Smallest probability, and smallest distance from 1."""


class Scenarios(NamedTuple):
    """Scenarios of one race: performance and running, both (scenario, car), and the cars' drivers.

    Cars finish in the order of performance. Cars that lost laps are behind the others, and retired cars last.
    """

    season: int
    round: int
    race_id: int
    driver_ids: list[str]
    drivers: list[str]
    performance: NDArray
    running: NDArray

    @property
    def finish(self) -> NDArray:
        """Finish positions, (scenario, car)."""
        return (-self.performance).argsort(axis=1).argsort(axis=1) + 1

    def keyed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a frame with the race's season and round before its columns."""
        return frame.select(pl.lit(self.season).alias("season"), pl.lit(self.round).alias("round"), pl.all())


def simulate_race(
    cars: pl.DataFrame, law: xr.Dataset, n_scenarios: int, luck_kept: float, rng: np.random.Generator
) -> Scenarios:
    """Draw scenarios of one race by the law of the simulated seasons.

    A car's speed is its ability with an effect of the day, about which the grid tells something, and of the
    grid. Luck is a two-piece Student t. Cars retire alone, with a chance that chaos raises, or in wrecks.
    Damaged cars lose laps, and a few others in the pits; their order, and that of retired cars, is random.
    """
    value = {str(name): float(law[name]) for name in law.data_vars if not law[name].dims}
    driver_ids, drivers = cars["driver_id"].to_list(), cars["driver"].to_list()
    ability = (law["skill"] + law["team_strength"]).sel(driver=driver_ids).values
    shape = n_scenarios, n_cars = (n_scenarios, len(drivers))
    mean, variance = effect_of_the_day(cars["start_position"], ability, value)
    day = mean + luck_kept * rng.normal(0, np.sqrt(variance), shape)
    pace = value["sharpness"] * (ability + day)
    start = (
        cars["start_position"].to_numpy() if cars["start_position"].null_count() == 0 else (n_cars + 1) / 2
    )
    speed = pace - value["start_effect"] * ndtri((start - 0.5) / n_cars)
    luck = rng.standard_t(4, shape)
    luck *= value["luck_scale"] * np.where(luck > 0, 0.5, 1.0)

    chaos = rng.normal(size=(n_scenarios, 1))
    alone = rng.random(shape) < expit(
        value["incident_intercept"] + value["chaos_scale"] * chaos - 0.25 * (ability - ability.mean())
    )
    caught, wrecked = draw_wrecks(speed, chaos, value, rng)
    performance = speed + luck_kept * luck
    slow = caught | (rng.random(shape) < TROUBLE)
    performance[slow] = LOST_LAPS + rng.random(slow.sum())
    retired = alone | wrecked
    performance[retired] = RETIRED + rng.random(retired.sum())
    season, number, race_id = (int(cars[name][0]) for name in ("season", "round", "race_id"))
    return Scenarios(season, number, race_id, driver_ids, drivers, performance, ~retired)


def draw_wrecks(
    speed: NDArray, chaos: NDArray, value: dict[str, float], rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Draw the cars that wrecks catch, and those of them that retire. A wreck catches a part of the pack."""
    n_scenarios, n_cars = speed.shape
    n_wrecks = rng.poisson(value["wrecks"] * np.exp(0.2 * chaos))
    caught, wrecked = np.zeros((2, *speed.shape), bool)
    for wreck in range(min(n_wrecks.max(), MOST_WRECKS)):
        place = (1.5 * rng.normal(size=speed.shape) - speed).argsort(axis=1).argsort(axis=1)
        behind_first = place - rng.integers(0, n_cars, (n_scenarios, 1))
        size = 2 + rng.poisson(value["wreck_size"], (n_scenarios, 1))
        now = (n_wrecks > wreck) & (behind_first >= 0) & (behind_first < size)
        caught |= now
        wrecked |= now & (rng.random(speed.shape) < value["wreck_retires"])
    return caught, wrecked


def effect_of_the_day(
    start: pl.Series, ability: NDArray, value: dict[str, float]
) -> tuple[NDArray | float, float]:
    """Return mean and variance of the cars' effects of the day, given the grid if it is set.

    Qualifying ranks 0.8 times the standardised pace plus N(0, 1): a normal observation of the effect.
    """
    variance = value["team_day_sd"] ** 2 + value["car_day_sd"] ** 2
    if start.null_count():
        return 0.0, variance
    centred = value["sharpness"] * (ability - ability.mean())
    spread = np.sqrt(centred.var() + value["sharpness"] ** 2 * variance)
    weight = 0.8 * value["sharpness"] / spread
    observed = -np.hypot(0.8, 1.0) * ndtri((start.to_numpy() - 0.5) / start.len())
    gain = variance * weight / (1 + weight**2 * variance)
    return gain * (observed - 0.8 * centred / spread), variance / (1 + weight**2 * variance)


def simulate_seasons(seasons: range, n_scenarios: int, luck_kept: float, seed: int) -> Iterator[Scenarios]:
    """Draw scenarios of every race of the seasons, and of the next race."""
    # One more season, so that the next race has forecasts.
    source = SimulatedSource([*seasons, seasons[-1] + 1], compile_constraints(), seed=seed)
    entries = {season: source.load_season(season).race_results for season in seasons}
    entries[seasons[-1] + 1] = source.next_race(seasons[-1]).entries
    for season, cars in entries.items():
        truth = source.truth(season)
        for (race_id,), field in cars.group_by("race_id", maintain_order=True):
            rng = np.random.default_rng([seed, int(race_id), round(10 * luck_kept)])
            law = truth.sel(archetype=field["archetype"][0])
            yield simulate_race(field, law, n_scenarios, luck_kept, rng)


def write_scenarios(races: list[Scenarios], path: Path) -> None:
    """Write scenarios as NetCDF: finish_position and running by race, scenario and driver.

    The `driver` axis is as wide as the widest field. Free slots of a smaller field hold '', 0 and False.
    """
    width = max(len(race.drivers) for race in races)
    shape = (len(races), len(races[0].running), width)
    driver_id = np.full((len(races), width), "", dtype="<U32")
    finish, running = np.zeros(shape, np.int16), np.zeros(shape, bool)
    for r, race in enumerate(races):
        n = len(race.drivers)
        driver_id[r, :n], finish[r, :, :n], running[r, :, :n] = race.driver_ids, race.finish, race.running
    outcome = ("race", "scenario", "driver")
    xr.Dataset(
        {"finish_position": (outcome, finish), "running": (outcome, running)},
        {"race": [race.race_id for race in races], "driver_id": (("race", "driver"), driver_id)},
    ).to_netcdf(
        path, engine="h5netcdf", encoding={"finish_position": {"zlib": True}, "running": {"zlib": True}}
    )


def write_wide_csv(races: list[Scenarios], path: Path) -> None:
    """Write scenarios as a CSV with a row a scenario and a column a driver: positions, with ties."""
    frames = []
    for race in races:
        rounded = np.round(race.performance / TIE_WIDTH)
        score = np.where(race.running, rounded, rounded.min() - 1)
        positions = rankdata(-score, method="min", axis=1).astype(int)
        scenarios = pl.DataFrame(positions, schema=race.drivers)
        frames.append(race.keyed(scenarios.select(pl.int_range(pl.len()).alias("scenario"), pl.all())))
    pl.concat(frames, how="diagonal").write_csv(path)


def write_position_probabilities(races: Iterable[Scenarios], path: Path) -> None:
    """Write probabilities of positions as a long CSV: the right ones, too flat."""
    frames = []
    for race in races:
        finish, n = race.finish, len(race.drivers)
        right = np.stack([(finish == k).mean(axis=0) for k in range(1, n + 1)], axis=1)
        flat = np.array([flatten(car, FLATNESS, 1) for car in np.clip(right, FLOOR, 1 - FLOOR)])
        rows = {
            "driver": np.repeat(race.drivers, n),
            "position": np.tile(np.arange(1, n + 1), n),
            "probability": flat.ravel().round(6),
        }
        frames.append(race.keyed(pl.DataFrame(rows)))
    pl.concat(frames).write_csv(path)


def write_odds(races: list[Scenarios], path: Path) -> None:
    """Write American odds: the right probabilities with a favourite-longshot bias and a margin."""
    frames = []
    for race in races:
        odds = {}
        for market, top in TOP.items():
            right = np.clip((race.finish <= top).mean(axis=0), FLOOR, 1 - FLOOR)
            price = (1 + MARGIN) * flatten(right, LONGSHOT_BIAS, top)
            odds[market] = american_odds(np.minimum(price, LARGEST_PRICE))
        frames.append(race.keyed(pl.DataFrame({"driver": race.drivers, **odds})))
    pl.concat(frames).write_csv(path)


def flatten(probability: NDArray, factor: float, total: int) -> NDArray:
    """Return probabilities with logits `factor` times as far apart, which sum to `total`."""
    flat = factor * logit(probability)
    shift = brentq(lambda shift: expit(flat + shift).sum() - total, -20, 20)
    return expit(flat + shift)


def american_odds(price: NDArray) -> list[str]:
    """Return prices as American odds: +400 pays four for one, -150 asks 1.5 for one."""
    return [f"{-100 * p / (1 - p):.0f}" if p > 0.5 else f"+{100 * (1 - p) / p:.0f}" for p in price]


def main(arguments: list[str] | None = None) -> None:
    """Write the four forecasters."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--first", type=int, default=2022, help="first season")
    parser.add_argument("--last", type=int, default=2025, help="last season")
    parser.add_argument("--scenarios", type=int, default=800, help="scenarios of a race")
    parser.add_argument("--seed", type=int, default=42, help="seed of the simulated source")
    options = parser.parse_args(arguments)
    seasons = range(options.first, options.last + 1)
    options.folder.mkdir(parents=True, exist_ok=True)
    right, overconfident = (
        list(simulate_seasons(seasons, options.scenarios, luck_kept, options.seed))
        for luck_kept in (1.0, LUCK_KEPT)
    )
    write_scenarios(right, options.folder / "right.nc")
    write_wide_csv(overconfident, options.folder / "overconfident.csv")
    write_position_probabilities(right, options.folder / "flat.csv")
    write_odds(right, options.folder / "bookmaker.csv")
    print(f"Forecasts of {len(right)} races by four forecasters are in {options.folder}.")  # noqa: T201


if __name__ == "__main__":
    main()
