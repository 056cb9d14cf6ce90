"""The blend: weighted means of the members' probabilities, and mixtures of their scenarios.

Weights are `BlendWeights`, by market for event probabilities; those of the finish distribution serve the
probabilities of positions, of pairs of cars, and whole scenarios. Members without a weight in a race are left
out; the weights of those that have the race are scaled to a sum of 1. `pool_weights` has the sources.

A linear pool of calibrated forecasts that differ is less sure than it could be (Ranjan & Gneiting 2010,
doi:10.1111/j.1467-9868.2009.00726.x). The blend is not recalibrated.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray

from calibration_pipeline.forecasters.folder import NETWORK
from calibration_pipeline.markets import FINISH
from calibration_pipeline.scenarios.stacking import CAR_OUTCOMES, RACE_OUTCOMES, recover_race
from calibration_pipeline.verification.cases import JUDGED
from calibration_pipeline.verification.verdicts.estimates import PROBABILITY_CLIP

EVENT = ("race_id", "market", "forecast")
OUTCOMES = (*CAR_OUTCOMES, *RACE_OUTCOMES)


def blend_events(events: Mapping[str, pl.DataFrame], weights: pl.DataFrame) -> pl.DataFrame:
    """Return the weighted means of event probabilities.

    Win probabilities of a member are first divided by their sum in the race, as in the log score that the
    weights maximise.

    Parameters
    ----------
    events : mapping of str to polars.DataFrame
        Forecaster to race_id, driver_id, market, forecast and probability, as from
        `race_probabilities.list_events`.
    weights : polars.DataFrame
        `BlendWeights`.

    Returns
    -------
    polars.DataFrame
        race_id, driver_id, market, forecast and probability, for each race, market and forecast in which a
        member has a weight.

    Raises
    ------
    ValueError
        If two members have different cars in a race.
    """
    total = pl.col("probability").sum().over(EVENT).clip(lower_bound=PROBABILITY_CLIP)
    members = [
        frame.select(
            *EVENT,
            "driver_id",
            probability=pl.col("probability") / pl.when(market="win").then(total).otherwise(1.0),
            forecaster=pl.lit(name, pl.String),
        )
        for name, frame in events.items()
    ]
    joined = pl.concat(members).join(
        weights.select(*EVENT, "forecaster", "weight"), on=[*EVENT, "forecaster"]
    )
    pooled = joined.group_by(*EVENT, "driver_id", maintain_order=True).agg(
        probability=(pl.col("weight") * pl.col("probability")).sum() / pl.col("weight").sum(),
        n_members=pl.len(),
    )
    unequal = pooled.filter(pl.col("n_members") < pl.col("n_members").max().over(EVENT))
    if unequal.height:
        first = unequal.row(0, named=True)
        raise ValueError(
            f"Argument events must have one field a race, got driver_id {first['driver_id']!r} from "
            f"{first['n_members']} members alone in market {first['market']} of race_id {first['race_id']}."
        )
    return pooled.select("race_id", "driver_id", "market", "forecast", "probability")


def blend_backtest(backtests: Mapping[str, xr.Dataset], weights: pl.DataFrame) -> xr.Dataset:
    """Return the weighted means of probabilities of positions and pairs, as a backtest.

    Parameters
    ----------
    backtests : mapping of str to xarray.Dataset
        Forecaster to `Backtest` of one archetype. The network is one of them; the blend has its races.
    weights : polars.DataFrame
        `BlendWeights`.

    Returns
    -------
    xarray.Dataset
        `Backtest`; coordinates are the network's, and `calibration_as_of` and `n_calibration_races` the
        largest of the members.

    Raises
    ------
    ValueError
        If the network is missing, a member has other cars in a race, or no member of a race has a weight.
    """
    base = _base(backtests)
    pooled = base.copy(deep=True)
    slots = {name: _slots(base, own, name) for name, own in backtests.items()}
    for forecast in JUDGED:
        shares, names = _shares(weights, forecast), (forecast, f"{forecast}_head_to_head")
        given = {name: [own[of].values for of in names] for name, own in backtests.items()}
        finish, pairs = (pooled[of].values for of in names)
        finish[:], pairs[:] = 0.0, 0.0
        for r, race_id in enumerate(base["race"].values.tolist()):
            for name, share in _members(slots, shares, race_id).items():
                row, cars = slots[name][race_id]
                own_finish, own_pairs = (values[row] for values in given[name])
                n_cars = cars.size
                finish[r, :n_cars, :n_cars] += share * own_finish[cars, :n_cars]
                pairs[r, :n_cars, :n_cars] += share * own_pairs[np.ix_(cars, cars)]
    as_of = ("calibration_as_of", "n_calibration_races")
    return pooled.assign_coords({name: ("race", _largest(backtests, base, name)) for name in as_of})


def mix_scenarios(
    ensembles: Mapping[str, xr.Dataset], weights: pl.DataFrame, forecast: str, n_scenarios: int, seed: int
) -> xr.Dataset:
    """Return whole scenarios of the members, in numbers in proportion to their weights.

    The numbers are the weights times `n_scenarios`, rounded by largest remainders. Scenarios of a member are
    drawn without replacement until all are used.

    Parameters
    ----------
    ensembles : mapping of str to xarray.Dataset
        Forecaster to `ScenarioEnsemble`. The network is one of them; the mixture has its races.
    weights : polars.DataFrame
        `BlendWeights`.
    forecast : str
        raw or recalibrated: whose weights.
    n_scenarios : int
        Scenarios of each race.
    seed : int
        The scenarios of a race depend on nothing but the ensembles, the weights, the seed and its id.

    Returns
    -------
    xarray.Dataset
        `ScenarioEnsemble` of the outcomes that the network and all members with scenarios in the mixture
        have, with the coordinate `n_scenarios`. Log-strengths and incident logits are recovered from the
        mixture.

    Raises
    ------
    ValueError
        If the network is missing, a member has other cars in a race, or no member of a race has a weight.
    """
    base = _base(ensembles)
    shares = _shares(weights, forecast)
    slots = {name: _slots(base, own, name) for name, own in ensembles.items()}
    numbers = [_numbers(_members(slots, shares, r), n_scenarios) for r in base["race"].values.tolist()]
    drawn = {NETWORK, *(name for of_race in numbers for name in of_race)}
    names = [outcome for outcome in OUTCOMES if all(outcome in ensembles[name] for name in drawn)]
    kept = base[[*names, "utility", "incident_logit", "chaos_scale"]].isel(scenario=[0] * n_scenarios)
    mixed = kept.assign_coords(scenario=np.arange(n_scenarios)).copy(deep=True)
    arrays = {str(name): mixed[name].values for name in mixed.data_vars}
    for r, (race_id, of_race) in enumerate(zip(base["race"].values.tolist(), numbers, strict=True)):
        rng = np.random.default_rng([seed, race_id])
        order = rng.permutation(n_scenarios)
        first = 0
        for name, number in of_race.items():
            row, cars = slots[name][race_id]
            own = ensembles[name].isel(race=row)
            chosen = _draw(own.sizes["scenario"], number, rng)
            places, first = order[first : first + number], first + number
            for outcome in names:
                values = own[outcome].values[chosen]
                if outcome in CAR_OUTCOMES:
                    arrays[outcome][r, places, : cars.size] = values[:, cars]
                else:
                    arrays[outcome][r, places] = values
        n_cars = int(base["field_size"].values[r])
        running = arrays["running"][r, :, :n_cars] if "running" in names else None
        recover_race(arrays, r, arrays["finish_position"][r, :, :n_cars], running)
    return mixed.assign_coords(n_scenarios=("race", np.full(base.sizes["race"], n_scenarios, np.int32)))


def round_shares(shares: Iterable[float], total: int) -> list[int]:
    """Return whole numbers in proportion to shares that sum to 1, by largest remainders.

    Parameters
    ----------
    shares : iterable of float
    total : int

    Examples
    --------
    >>> round_shares([0.55, 0.25, 0.2], 10)
    [6, 2, 2]
    """
    exact = np.array(list(shares)) * total
    number = np.floor(exact).astype(int)
    largest = np.argsort(number - exact, kind="stable")
    number[largest[: total - number.sum()]] += 1
    return [int(n) for n in number]


def _base(members: Mapping[str, xr.Dataset]) -> xr.Dataset:
    if NETWORK not in members:
        raise ValueError(f"The members of the blend must include {NETWORK}, got {', '.join(members)}.")
    return members[NETWORK]


def _shares(weights: pl.DataFrame, forecast: str) -> dict[int, dict[str, float]]:
    """Return the weights of forecasts of the whole field, by race and forecaster."""
    shares: dict[int, dict[str, float]] = {}
    own = weights.filter(market=FINISH, forecast=forecast).sort("forecaster")
    for race_id, name, weight in own.select("race_id", "forecaster", "weight").iter_rows():
        shares.setdefault(race_id, {})[name] = weight
    return shares


def _members(
    races: Mapping[str, Collection[int]], shares: Mapping[int, Mapping[str, float]], race_id: int
) -> dict[str, float]:
    """Return the members that have the race and a weight, to their weights, which sum to 1."""
    found = {name: share for name, share in shares.get(race_id, {}).items() if race_id in races.get(name, ())}
    total = sum(found.values())
    if not total > 0:
        raise ValueError(
            f"Argument weights must have a member of race_id {race_id} in market {FINISH}, got none of "
            f"{', '.join(races)}."
        )
    return {name: share / total for name, share in found.items()}


def _numbers(shares: Mapping[str, float], n_scenarios: int) -> dict[str, int]:
    """Return the numbers of scenarios of the members that have any."""
    rounded = zip(shares, round_shares(shares.values(), n_scenarios), strict=True)
    return {name: number for name, number in rounded if number}


def _slots(base: xr.Dataset, own: xr.Dataset, name: str) -> dict[int, tuple[int, NDArray[np.intp]]]:
    """Return, by race of a member, its row and the slots of its cars in the order of the base's, (car,)."""
    wanted, given = _cars(base), _cars(own)
    slots = {}
    for row, race_id in enumerate(given):
        if race_id not in wanted:
            continue
        slot = {car: place for place, car in enumerate(given[race_id])}
        if different := slot.keys() ^ wanted[race_id]:
            raise ValueError(
                f"Members of the blend must have one field in race_id {race_id}; {name} differs in "
                f"{', '.join(sorted(different))}."
            )
        slots[race_id] = row, np.array([slot[car] for car in wanted[race_id]], np.intp)
    return slots


def _cars(races: xr.Dataset) -> dict[int, list[str]]:
    """Return the drivers of each race, in the order of races and slots."""
    drivers, sizes = races["driver_id"].values.astype(str).tolist(), races["field_size"].values.tolist()
    by_race = zip(races["race"].values.tolist(), drivers, sizes, strict=True)
    return {race_id: cars[:n_cars] for race_id, cars, n_cars in by_race}


def _largest(datasets: Mapping[str, xr.Dataset], base: xr.Dataset, name: str) -> NDArray[np.int32]:
    """Return the largest value of a race's coordinate over the members, (race,)."""
    races = base["race"].values
    aligned = [own[name].reindex(race=races, fill_value=0).values for own in datasets.values()]
    return np.max(aligned, axis=0).astype(np.int32)


def _draw(size: int, number: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return `number` indices below `size`; each once before any again."""
    rounds = -(-number // size)
    return np.concatenate([rng.permutation(size) for _ in range(rounds)])[:number]
