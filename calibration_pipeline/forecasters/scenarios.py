"""Scenarios of a forecaster, in any form of file, brought to a `ScenarioEnsemble`.

A scenario's values are positions, or scores of which the higher or the lower ones are better. Cars that were
not at the start are removed and the others ranked; equal values are ranked at random. A race that cannot be
used is quarantined.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import rankdata

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.car_matching import FieldMatch
from calibration_pipeline.forecasters.field_matching import TWICE, RacesInForce, named
from calibration_pipeline.io.netcdf_probe import MAX_RACE_VALUES
from calibration_pipeline.scenarios.stacking import MIN_SCENARIOS, common_outcomes, stack_races
from calibration_pipeline.sources.quarantine import DefectLog, Row
from calibration_pipeline.stats.ranking import rank_at_random

FINISH = "finish_position"
LEAST_CORRELATION = 0.1
"""Least absolute correlation with earlier finishes from which a direction is guessed."""
GUESSED_RACES = 50
LEAST_CARS = 5
PRESERVED = (FINISH, "running")
"""Outcomes that stay valid where a car is removed."""


class RaceScores(NamedTuple):
    """Scenarios of one race, as the file has them.

    Attributes
    ----------
    labels : list of str
        Cars with a value.
    scores : array of float, shape (scenario, label)
        Positions or scores, NaN where there is none.
    outcomes : dict of str to array
        Other outcomes: (scenario, label), or (scenario) for `RACE_OUTCOMES`.
    repeated : list of str
        Labels that occur twice.
    """

    labels: list[str]
    scores: NDArray[np.float64]
    outcomes: dict[str, NDArray]
    repeated: list[str]


class ScenarioSource(Protocol):
    """One file of scenarios.

    Attributes
    ----------
    path : str
        Its name in messages, without credentials.
    keys : polars.DataFrame
        Distinct races: race_id, or season and round.
    by : str
        Column of the entries that the labels are matched to.
    are_positions : bool or None
        Whether the file names the values as positions; None where it does not name them.
    higher_is_better : bool or None
        Direction that the file states.
    """

    path: str
    keys: pl.DataFrame
    by: str
    are_positions: bool | None
    higher_is_better: bool | None

    def read(self, key: Row) -> RaceScores:
        """Return the scenarios of a row of `keys`."""
        ...


def read_scenarios(
    sources: Sequence[ScenarioSource],
    races: RacesInForce,
    results: pl.DataFrame | None,
    log: DefectLog,
    fold_races: int | None,
    seed: int,
) -> xr.Dataset:
    """Read the scenarios of a forecaster.

    Parameters
    ----------
    sources : sequence of ScenarioSource
    races : RacesInForce
    results : polars.DataFrame or None
        `RaceResults`: earlier finishes, from which the direction of scores is guessed.
    log : DefectLog
        Gets races that are left out, ties, and the direction of scores.
    fold_races : int or None
        Races in a fold, None for a season.
    seed : int
        Seed of the order of equal values.

    Returns
    -------
    xarray.Dataset
        As `stack_races` returns it. Laps are dropped where a car was removed from some race.

    Raises
    ------
    ForecasterError
        If no race is in force, a race is in two files, or the direction of scores cannot be guessed.
    """
    found: dict[int, dict[str, NDArray]] = {}
    by_id = {race["race_id"]: race for race in races.races.iter_rows(named=True)}
    found_keys = races.locate([source.keys for source in sources], log)
    for source, located in zip(sources, found_keys, strict=True):
        usable = _usable(source, located, races, by_id, log)
        ascending = _stated_direction(source)
        if ascending is None:  # all races are read before the first one can be ranked, and not kept
            matched = {race["race_id"]: (key, match) for race, key, match, _ in usable}
            ascending = _guess_direction(source, matched, races, results, log)
            if ascending is None:
                continue
            usable = ((by_id[i], key, match, source.read(key)) for i, (key, match) in matched.items())
        n_read = 0
        for race, _, match, scores in usable:
            n_read, race_id = n_read + 1, race["race_id"]
            if race_id in found:
                raise ForecasterError(f"{source.path}: {race['label']} is in another file as well.")
            drivers = races.cars(race_id)["driver_id"].to_list()
            outcomes = _rank(scores, match, drivers, ascending, np.random.default_rng([seed, race_id]))
            n_tied = int(outcomes.pop("has_ties").sum())
            if fault := _find_fault(outcomes):
                log.add(race, fault[0], value=fault[1])
                continue
            if n_tied:
                rule = "equal values in a scenario are ranked at random"
                log.add(race, rule, entity="value", consequence="corrected", subject="scenarios",
                        value=f"{n_tied} of {len(scores.scores)} scenarios")  # fmt: skip
            found[race_id] = outcomes
        if n_read and source.higher_is_better is not None:
            better = "higher" if source.higher_is_better else "lower"
            log.notes.append(f"Of the values in scenarios the {better} ones are better: the file states it.")
    return _stack(found, races, log, fold_races)


def _usable(
    source: ScenarioSource,
    located: pl.DataFrame,
    races: RacesInForce,
    by_id: Mapping[int, Row],
    log: DefectLog,
) -> Iterator[tuple[Row, Row, FieldMatch, RaceScores]]:
    """Yield race, key in the file, match of the cars, and scenarios of the races that can be ranked."""
    for key in located.sort("found").iter_rows(named=True):
        race = by_id[key["found"]]
        scores = source.read(key)
        if scores.repeated:
            log.add(race, TWICE, value=named(scores.repeated))
            continue
        n_scenarios, n_labels = scores.scores.shape
        if n_scenarios < MIN_SCENARIOS:
            log.add(race, f"there must be at least {MIN_SCENARIOS} scenarios", value=n_scenarios)
            continue
        if n_scenarios * n_labels > MAX_RACE_VALUES:
            rule = f"scenarios times cars must be at most {MAX_RACE_VALUES:,}"
            log.add(race, rule, value=n_scenarios * n_labels)
            continue
        match = races.match(scores.labels, race["race_id"], source.by)
        if races.refuse_incomplete(match, race, log):
            continue
        of_entered = np.isin(scores.labels, list(match.drivers))
        if source.are_positions and (below := scores.scores[(scores.scores < 1) & of_entered]).size:
            log.add(race, "a position must be 1 or more; 0 is none", value=f"{below.min():g}")
            continue
        gaps = np.isnan(scores.scores) & of_entered
        if gaps.any():
            scenario, car = np.argwhere(gaps)[0].tolist()
            n, first = int(gaps.any(axis=1).sum()), f"{scores.labels[car]} in number {scenario + 1}"
            rule = "every car must have a number in every scenario"
            log.add(race, rule, value=f"none in {n} scenarios, first {first}")
            continue
        yield race, key, match, scores


def _stated_direction(source: ScenarioSource) -> bool | None:
    """Return whether the lowest value wins, None where the file does not say it."""
    if source.higher_is_better is not None:
        return not source.higher_is_better
    return True if source.are_positions else None


def _guess_direction(
    source: ScenarioSource,
    matched: Mapping[int, tuple[Row, FieldMatch]],
    races: RacesInForce,
    results: pl.DataFrame | None,
    log: DefectLog,
) -> bool | None:
    """Return whether the lowest value wins, and note the reason.

    None where it is not known and the forecaster has other seasons: these races are left out.
    """
    if not matched:
        return True
    if source.are_positions is None and all(
        _are_positions(source.read(key).scores) for key, _ in matched.values()
    ):
        return True
    chosen = list(matched.items())[:: max(len(matched) // GUESSED_RACES, 1)]
    correlations = [
        value
        for race_id, (key, match) in chosen
        if (value := _correlation(source.read(key), match, race_id, races, results)) is not None
    ]
    mean = float(np.mean(correlations)) if correlations else 0.0
    # Twice the standard error of the mean where scores and finishes are independent.
    n_cars = np.mean([len(match.drivers) for _, match in matched.values()])
    if not correlations or abs(mean) < max(LEAST_CORRELATION, 2 / np.sqrt(len(correlations) * n_cars)):
        reason = f"their mean rank correlation with earlier finishes is {mean:.2f}" if correlations else (
            "no race has earlier finishes of its drivers"
        )  # fmt: skip
        unknown = f"it is not known whether higher or lower scores are better, because {reason}"
        remedy = "add a column higher_is_better of true or false."
        if not races.other_seasons:
            raise ForecasterError(f"{source.path}: {unknown}: {remedy}")
        log.notes.append(f"Scenarios of {len(matched)} races are left out: {unknown}. To state it, {remedy}")
        return None
    log.notes.append(
        f"Of the values in scenarios the {'lower' if mean > 0 else 'higher'} ones are better: guessed from "
        f"the mean rank correlation {mean:.2f} with earlier finishes in {len(correlations)} races."
    )
    return mean > 0


def _are_positions(scores: NDArray[np.float64]) -> bool:
    """Return whether the values of a race are whole, from 1 to the number of cars, and 1 in each scenario."""
    n_cars = scores.shape[1]
    known = scores[~np.isnan(scores)]
    whole = bool((known == np.floor(known)).all())
    return whole and known.max() <= n_cars and bool((np.nanmin(scores, axis=1) == 1).all())


def _correlation(
    scores: RaceScores, match: FieldMatch, race_id: int, races: RacesInForce, results: pl.DataFrame | None
) -> float | None:
    """Return the rank correlation of mean scores with the drivers' mean finish in races before."""
    if results is None:
        return None
    race = races.races.row(by_predicate=pl.col("race_id") == race_id, named=True)
    order = 100 * pl.col("season") + pl.col("round")
    earlier = results.filter(order < 100 * race["season"] + race["round"])
    finishes = dict(earlier.group_by("driver_id").agg(pl.col("finish_position").mean()).iter_rows())
    means = dict(zip(scores.labels, scores.scores.mean(axis=0).tolist(), strict=True))
    pairs = [
        (means[label], finishes[driver]) for label, driver in match.drivers.items() if driver in finishes
    ]
    if len(pairs) < LEAST_CARS:
        return None
    ranks = rankdata(np.array(pairs), axis=0)
    if (ranks.std(axis=0) == 0).any():
        return None
    return float(np.corrcoef(ranks.T)[0, 1])


def _rank(
    scores: RaceScores, match: FieldMatch, drivers: Sequence[str], ascending: bool, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the outcomes of the cars entered, by grid, with finishes 1..n; and which scenarios have ties."""
    label_of = {driver: label for label, driver in match.drivers.items()}
    columns = [scores.labels.index(label_of[driver]) for driver in drivers]
    values = scores.scores[:, columns]
    finish, has_ties = rank_at_random(values if ascending else -values, rng)
    others = scores.outcomes if not match.absent else {
        name: outcome for name, outcome in scores.outcomes.items() if name in PRESERVED
    }  # fmt: skip
    outcomes: dict[str, Any] = {FINISH: finish.astype(np.int16)}
    for name, outcome in others.items():
        outcomes[name] = outcome[:, columns] if outcome.ndim == 2 else outcome
    return {**outcomes, "has_ties": has_ties}


def _find_fault(outcomes: Mapping[str, NDArray]) -> tuple[str, str] | None:
    """Return the rule that outcomes of a race break, and the value; None if they are valid."""
    largest = np.iinfo(np.int16).max
    for name, values in outcomes.items():
        if (
            not np.isfinite(values).all()
            or (values % 1 != 0).any()
            or values.min() < 0
            or values.max() > largest
        ):
            return f"{name} must hold whole numbers from 0 to {largest}", f"{values.min()} to {values.max()}"
    if (running := outcomes.get("running")) is not None:
        if running.max() > 1:
            return "running must be true or false", f"{running.max()}"
        if not (running > 0).any(axis=1).all():
            n = int((~(running > 0).any(axis=1)).sum())
            return "some car must be running at the finish", f"none in {n} scenarios"
    return None


def _stack(
    found: Mapping[int, dict[str, NDArray]], races: RacesInForce, log: DefectLog, fold_races: int | None
) -> xr.Dataset:
    """Return the races as one ensemble, and note outcomes and scenarios that are not as in the file."""
    dropped = sorted({name for race in found.values() for name in race} - set(common_outcomes(found)))
    if dropped:
        log.notes.append(f"{', '.join(dropped)}: not in all races, or a car was removed; not read.")
    n_scenarios = {len(outcomes[FINISH]) for outcomes in found.values()}
    if len(n_scenarios) > 1:
        log.notes.append(
            f"Races have {min(n_scenarios):,} to {max(n_scenarios):,} scenarios; fewer are repeated."
        )
    return stack_races(found, races.slots(found), fold_races)
