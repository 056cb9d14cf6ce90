"""Tables of the outcome nodes, estimated from earlier races: retirements, laps lost, cautions, stints.

Each archetype's estimate is shrunk to the estimate of all archetypes by `PSEUDO_RACES` pseudo-races.
"""

from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.scenarios.network.stints import STINTS
from calibration_pipeline.stats.normal_scores import normal_score

QUANTILES = np.linspace(0.0, 1.0, 33)
PSEUDO_RACES = 4.0
DISPERSIONS = np.linspace(0.0, 5.0, 41)
# Defaults without an informative earlier race.
DEFAULT_LAPS_PER_CAUTION = 5.5
DEFAULT_DISPERSION = 1.5


def outcome_tables(slots: pl.DataFrame, weight: NDArray) -> dict[str, NDArray]:
    """Estimate the tables of `network.model.Parameters` that are not sampled.

    Parameters
    ----------
    slots : polars.DataFrame
        Earlier races, as returned by `history.join_history`.
    weight : array, shape (race)
        Weight of each race, in the order of `race_index`.

    Returns
    -------
    dict of arrays
        Parameter name -> table, archetype axis first.
    """
    cars = slots.with_columns(
        weight=pl.Series(weight.astype(np.float64))[slots["race_index"].to_numpy()],
        race_laps=pl.col("race_laps").fill_null(pl.col("laps_completed").max().over("race_id")),
    )
    races = cars.filter(pl.col("slot") == 0)
    share = pl.col("laps_completed") / pl.col("race_laps")
    lost = (1 - share).clip(0, 1)
    cautious = races.filter(pl.col("green_laps").is_not_null() & (pl.col("n_cautions") > 0))
    return {
        "retirement_share": _quantile_table(cars.filter(~pl.col("running")), share.clip(0, 1)),
        "laps_lost": _quantile_table(cars.filter(pl.col("running") & ~pl.col("damage")), lost),
        "damage_laps_lost": _quantile_table(cars.filter("damage"), lost),
        "overtime_share": _quantile_table(
            races.filter(pl.col("scheduled_laps").is_not_null()),
            pl.col("race_laps") / pl.col("scheduled_laps") - 1,
        ),
        "laps_per_caution": _mean_table(
            cautious,
            (pl.col("race_laps") - pl.col("green_laps")) / pl.col("n_cautions"),
            DEFAULT_LAPS_PER_CAUTION,
        ),
        **_stint_tables(cars, "lead", "laps_led"),
        **_stint_tables(cars, "fastest", "fastest_laps"),
    }


def _shrunk_weights(rows: pl.DataFrame, archetype: str) -> NDArray:
    """Weights of all rows in an archetype's estimate: its own races, and the others as pseudo-races."""
    weight = rows["weight"].to_numpy()
    own = (rows["archetype"] == archetype).to_numpy()
    n_races = max(rows.select(pl.col("race_id").n_unique()).item(), 1)
    per_race = weight.sum() / n_races
    others = weight[~own].sum()
    scale = min(PSEUDO_RACES * per_race / others, 1.0) if others > 0 else 0.0
    return np.where(own, weight, weight * scale)


def _quantile_table(rows: pl.DataFrame, value: pl.Expr) -> NDArray[np.float32]:
    values = rows.select(value.alias("value"))["value"].to_numpy()
    if len(values) == 0:
        return np.zeros((len(ARCHETYPES), len(QUANTILES)), np.float32)
    order = np.argsort(values)
    table = []
    for archetype in ARCHETYPES:
        weight = _shrunk_weights(rows, archetype)[order]
        middle = np.cumsum(weight) - weight / 2
        table.append(np.interp(QUANTILES, middle / weight.sum(), values[order]))
    return np.array(table, np.float32)


def _mean_table(rows: pl.DataFrame, value: pl.Expr, default: float) -> NDArray[np.float32]:
    values = rows.select(value.alias("value"))["value"].to_numpy()
    if len(values) == 0:
        return np.full(len(ARCHETYPES), default, np.float32)
    return np.array([np.average(values, weights=_shrunk_weights(rows, a)) for a in ARCHETYPES], np.float32)


@cache
def stints_with_laps(race_laps: int) -> NDArray[np.float64]:
    """Return the distribution of the number of stints with a lap: (dispersion, number of stints).

    The rows are those of `DISPERSIONS`, the columns 0 to `STINTS`; by simulation, since laps are whole.
    """
    end = np.round(_stint_ends() * race_laps)
    n = (np.diff(end, axis=-1, prepend=0) > 0).sum(axis=-1)
    return (n[..., None] == np.arange(STINTS + 1)).mean(axis=1)


@cache
def _stint_ends() -> NDArray[np.float64]:
    """Return the share of the race run at the end of each simulated stint: (dispersion, draw, stint)."""
    length = np.random.default_rng(0).exponential(size=(2000, STINTS)) ** DISPERSIONS[:, None, None]
    reach = np.cumsum(length, axis=-1)
    return reach / reach[..., -1:]


def _stint_tables(cars: pl.DataFrame, name: str, column: str) -> dict[str, NDArray]:
    """Weights of (start, finish, finish squared) on holding a lap, and the dispersion of the stints.

    Each archetype has its own, shrunk to those of all archetypes by pseudo-races. The weights fit the shares
    of the square roots of laps, between counting laps and counting cars, by multinomial logistic regression.
    Car i, which holds a stint with probability p_i, holds a lap with probability 1 - E (1 - p_i)^M, M the
    number of stints with laps. The dispersion of their lengths equates the expected number of cars with a lap
    with the observed number.
    """
    known = cars.filter(
        (pl.col(column).sum() > 0).over("race_id") & pl.col(column).is_not_null().all().over("race_id")
    )
    if known.is_empty():
        weights = np.tile(np.array([0.5, 1.5, 1.0], np.float32), (len(ARCHETYPES), 1))
        return {
            f"{name}_weight": weights,
            f"{name}_dispersion": np.full(len(ARCHETYPES), DEFAULT_DISPERSION, np.float32),
        }
    known = known.with_columns(race=pl.col("race_id").rle_id())
    race, slot = known["race"].to_numpy(), known["slot"].to_numpy()
    n = known["field_size"].to_numpy()
    finish = 1.0 - 2.0 * (known["finish_position"].to_numpy() - 1) / np.maximum(n - 1, 1)
    start = known.select(normal_score(pl.col("slot") + 1, pl.col("field_size"))).to_series().to_numpy()
    shape = (int(race.max()) + 1, int(slot.max()) + 1)
    covariates = np.zeros((*shape, 3))
    covariates[race, slot] = np.stack([start, finish, finish**2], axis=-1)
    absent = np.ones(shape, bool)
    absent[race, slot] = False
    laps = np.zeros(shape)
    laps[race, slot] = known[column].to_numpy()
    share = np.sqrt(laps) / np.sqrt(laps).sum(axis=1, keepdims=True)
    first = known.filter(pl.col("slot") == 0)

    def fit(weight: NDArray) -> NDArray[np.float64]:
        def loss(beta: NDArray) -> tuple[float, NDArray]:
            score = np.where(absent, -1e9, covariates @ beta)
            residual = softmax(score, axis=1) - share
            value = -(weight[:, None] * share * log_softmax(score, axis=1)).sum() + 0.05 * beta @ beta
            return float(value), np.einsum("r,rd,rdc->c", weight, residual, covariates) + 0.1 * beta

        return np.asarray(minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B").x)

    weights = np.array([fit(_shrunk_weights(first, archetype)) for archetype in ARCHETYPES])
    own = weights[first["archetype"].replace_strict(list(ARCHETYPES), range(len(ARCHETYPES))).to_numpy()]
    held = softmax(np.where(absent, -1e9, np.einsum("rdc,rc->rd", covariates, own)), axis=1)
    first = first.with_columns(holders=pl.Series((laps > 0).sum(axis=1).astype(np.float64)))
    observed = _mean_table(first, pl.col("holders"), 0.0)
    none = (1 - held[..., None]) ** np.arange(STINTS + 1)
    dispersion = np.zeros(len(ARCHETYPES), np.float32)
    for i, archetype in enumerate(ARCHETYPES):
        weight = _shrunk_weights(first, archetype)
        n_laps = int(np.average(laps.sum(axis=1), weights=weight))
        expected = (1 - np.einsum("rim,dm->rid", none, stints_with_laps(n_laps))).sum(axis=1)
        by_dispersion = np.average(expected, axis=0, weights=weight)
        dispersion[i] = np.interp(-observed[i], -by_dispersion, DISPERSIONS)
    return {f"{name}_weight": weights.astype(np.float32), f"{name}_dispersion": dispersion}
