"""Scenarios of known races in every form of a forecaster's file, and their raw scores by race and market."""

from pathlib import Path

import numpy as np
import polars as pl
import xarray as xr

from calibration_pipeline.comparison.market_scores import score_markets
from calibration_pipeline.comparison.race_probabilities import (
    RaceProbabilities,
    read_events,
    top_probabilities,
)
from calibration_pipeline.forecasters.folder import Forecasts as ReadForecasts
from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.forecasters.odds import Notation
from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head

LARGEST_PRICE = 0.9995


class KnownScenarios:
    """Scenarios of races, (scenario, car) each, with the names of the cars' drivers.

    Parameters
    ----------
    finish : dict of int to array
        race_id to finish positions, a permutation of 1..n in each scenario.
    entries : polars.DataFrame
        race_id, season, round, driver_id and driver; the cars of a race in the order of the arrays.
    """

    def __init__(self, finish: dict[int, np.ndarray], entries: pl.DataFrame) -> None:
        self.finish = finish
        self.cars = {race_id: entries.filter(race_id=race_id) for race_id in finish}

    @classmethod
    def of_ensemble(cls, ensemble: xr.Dataset, entries: pl.DataFrame) -> "KnownScenarios":
        """Return the scenarios of an ensemble, its cars in the order of the entries of each race."""
        finish, parts = {}, []
        for race_id in ensemble["race"].values.tolist():
            own = ensemble.sel(race=race_id)
            n = int(own["field_size"])
            slots = pl.DataFrame({"driver_id": own["driver_id"].values[:n].astype(str).tolist()})
            parts.append(slots.join(entries.filter(race_id=race_id), on="driver_id", maintain_order="left"))
            finish[race_id] = own["finish_position"].values[:, :n].astype(int)
        return cls(finish, pl.concat(parts))

    def probabilities(self, race_id: int) -> np.ndarray:
        """P(finish = position), (car, position)."""
        finish = self.finish[race_id]
        return finish_probabilities(finish[None], np.array([finish.shape[1]]))[0]

    def keyed(self, race_id: int, values: pl.DataFrame) -> pl.DataFrame:
        """Return a frame with season and round of the race before its columns."""
        race = self.cars[race_id].row(0, named=True)
        return values.select(
            pl.lit(race["season"]).alias("season"), pl.lit(race["round"]).alias("round"), pl.all()
        )

    def drivers(self, race_id: int) -> list[str]:
        """Names of the cars' drivers."""
        return self.cars[race_id]["driver"].to_list()

    def with_ties(self, width: int) -> "dict[int, np.ndarray]":
        """Return positions of which each `width` neighbours are equal to the best of them."""
        return {race_id: (finish - 1) // width * width + 1 for race_id, finish in self.finish.items()}

    def write_odds(self, path: Path, notation: Notation, power: float | None = None) -> None:
        """Write the event probabilities as odds.

        The margin is proportional: 20 %, or less where a price would exceed `LARGEST_PRICE`. With a power,
        prices are the probabilities to that power.
        """
        frames = []
        for race_id in self.finish:
            odds = {}
            for market, p in top_probabilities(self.probabilities(race_id)).items():
                price = p * min(1.2, LARGEST_PRICE / p.max()) if power is None else p**power
                odds[market] = [write_price(value, notation) for value in price.tolist()]
            frames.append(self.keyed(race_id, pl.DataFrame({"driver": self.drivers(race_id), **odds})))
        pl.concat(frames, how="diagonal").write_csv(path)

    def write_events(self, path: Path) -> None:
        """Write the event probabilities, a column a market."""
        frames = [
            self.keyed(
                race_id,
                pl.DataFrame(
                    {"driver": self.drivers(race_id), **top_probabilities(self.probabilities(race_id))}
                ),
            )
            for race_id in self.finish
        ]
        pl.concat(frames, how="diagonal").write_csv(path)

    def write_wide(self, path: Path, positions: dict[int, np.ndarray] | None = None) -> None:
        """Write a row a scenario and a column a driver: the positions, or others such as those with ties."""
        frames = []
        for race_id, finish in (positions or self.finish).items():
            scenarios = pl.DataFrame(finish, schema=self.drivers(race_id))
            frames.append(
                self.keyed(race_id, scenarios.select(pl.int_range(pl.len()).alias("scenario"), pl.all()))
            )
        pl.concat(frames, how="diagonal").write_csv(path)

    def long(self) -> pl.DataFrame:
        """Return a row a race, scenario and driver."""
        frames = []
        for race_id, finish in self.finish.items():
            scenario, car = np.indices(finish.shape).reshape(2, -1)
            drivers = pl.Series(self.drivers(race_id)).gather(car)
            columns = {"scenario": scenario, "driver": drivers, "finish_position": finish.ravel()}
            frames.append(self.keyed(race_id, pl.DataFrame(columns)))
        return pl.concat(frames)

    def write_long(self, path: Path) -> None:
        """Write a row a race, scenario and driver."""
        _write(self.long(), path)

    def write_hubverse(self, path: Path, output_type: str) -> None:
        """Write rows of an output type: sample, pmf or cdf of the finish position."""
        if output_type == "sample":
            rows = self.long().rename({"scenario": "output_type_id", "finish_position": "value"})
        else:
            rows = pl.concat(self._position_rows(race_id, output_type) for race_id in self.finish)
        _write(rows.with_columns(model_id=pl.lit("known"), output_type=pl.lit(output_type)), path)

    def _position_rows(self, race_id: int, output_type: str) -> pl.DataFrame:
        p = self.probabilities(race_id)
        values = p.cumsum(axis=1) if output_type == "cdf" else p
        car, position = np.indices(p.shape).reshape(2, -1)
        columns = {
            "driver": pl.Series(self.drivers(race_id)).gather(car),
            "output_type_id": position + 1,
            "value": values.ravel(),
        }
        return self.keyed(race_id, pl.DataFrame(columns))

    def scores(self, results: pl.DataFrame) -> pl.DataFrame:
        """Return race_id, market and score of the scenarios themselves."""
        races = {}
        for race_id, finish in self.finish.items():
            size = np.array([finish.shape[1]])
            pairs = head_to_head(finish[None], size)[0]
            drivers = self.cars[race_id]["driver_id"].to_list()
            races[race_id] = _race(race_id, drivers, results, self.probabilities(race_id), pairs)
        return _score(races)


def write_price(probability: float, notation: Notation) -> str:
    """Return an implied probability as a price, rounded as bookmakers and exchanges do."""
    p = probability
    if notation is Notation.AMERICAN:
        return f"{-100 * p / (1 - p):.0f}" if p > 0.5 else f"+{100 * (1 - p) / p:.0f}"
    if notation is Notation.DECIMAL:
        return f"{1 / p:.4f}"
    return f"{10_000 * (1 - p):.0f}/{10_000 * p:.0f}"


def scores_of_forecast(forecast: ReadForecasts, results: pl.DataFrame) -> pl.DataFrame:
    """Return race_id, market and raw score of a forecast that was read, of any form."""
    if forecast.form is Form.EVENTS:
        return _score(read_events(forecast.frame.with_columns(forecast=pl.lit("raw")), results)["raw"])
    values = forecast.values
    assert isinstance(values, xr.Dataset)
    size = values["field_size"].values
    pairs = None
    if forecast.form is Form.SCENARIOS:
        finish = values["finish_position"].values
        probability, pairs = finish_probabilities(finish, size), head_to_head(finish, size)
    else:
        probability = values["probability"].values
    races = {}
    for r, (race_id, n) in enumerate(zip(values["race"].values.tolist(), size.tolist(), strict=True)):
        drivers = values["driver_id"].values[r, :n].astype(str).tolist()
        own_pairs = None if pairs is None else pairs[r, :n, :n]
        races[race_id] = _race(race_id, drivers, results, probability[r, :n, :n], own_pairs)
    return _score(races)


def _race(
    race_id: int,
    drivers: list[str],
    results: pl.DataFrame,
    probability: np.ndarray,
    pairs: np.ndarray | None,
) -> RaceProbabilities:
    """Return the probabilities of a race, in the order of driver ids, with its result."""
    own = results.filter(race_id=race_id)
    finish = dict(own.select("driver_id", "finish_position").iter_rows())
    order = np.argsort(drivers)
    race = own.row(0, named=True)
    return RaceProbabilities(
        race_id, race["season"], race["race_order"], race["archetype"], np.array(drivers)[order],
        np.array([finish[drivers[k]] for k in order]),
        events=top_probabilities(probability[order]), finish=probability[order],
        head_to_head=None if pairs is None else pairs[np.ix_(order, order)],
    )  # fmt: skip


def _score(races: dict[int, RaceProbabilities]) -> pl.DataFrame:
    scores = score_markets("known", {"raw": races}, {})
    return scores.select("race_id", "market", "score").sort("race_id", "market")


def _write(rows: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        rows.write_parquet(path)
    else:
        rows.write_csv(path)
