"""Sums over earlier races: the only way by which a feature may read a result.

Time is counted in races run, not in days. A race's *clock* is the number of races in the results before it,
so consecutive races are one unit apart, whoever took part.
"""

from collections.abc import Sequence

import polars as pl


def with_clock(cars: pl.DataFrame, race_results: pl.DataFrame) -> pl.DataFrame:
    """Add the number of races run before each row's race, and the last of them.

    Parameters
    ----------
    cars : polars.DataFrame
        Rows with `race_order`.
    race_results : polars.DataFrame
        Rows with `race_order`, of races that have run.

    Returns
    -------
    polars.DataFrame
        `cars`, sorted by race_order, with `clock` (races) and `feature_as_of` (race_order of the last race
        before the row's, 0 for none).
    """
    calendar = (
        race_results.select(pl.col("race_order").unique().sort())
        .with_columns(clock=pl.int_range(1, pl.len() + 1), feature_as_of="race_order")
        .set_sorted("race_order")
    )
    return (
        cars.sort("race_order")
        .join_asof(calendar, on="race_order", strategy="backward", allow_exact_matches=False)
        .with_columns(pl.col("clock", "feature_as_of").fill_null(0))
    )


def past_sums(
    cars: pl.DataFrame, past: pl.DataFrame, value: pl.Expr, by: Sequence[str], half_life: float
) -> pl.DataFrame:
    """Add exponentially weighted sums over the races before each row's own, by the columns `by`.

    Within a race the mean over its rows with equal `by` counts as one observation. Races without a value do
    not count. An observation k races back weighs `2 ** (-k / half_life)`. A row's own race and later
    ones cannot enter: the sums are joined to it from the last race strictly before it.

    Parameters
    ----------
    cars : polars.DataFrame
        Rows with `by`, race_order and clock.
    past : polars.DataFrame
        Observations with the same columns. Races at and after a row's race are not read for it.
    value : polars.Expr
        The observation, on the columns of `past`; null where there is none.
    by : sequence of str
        Columns that the observations share with the row, e.g. the driver. Empty: all observations.
    half_life : float
        Races; `math.inf` for equal weights.

    Returns
    -------
    polars.DataFrame
        `cars`, sorted by race_order, with `total` (weighted sum of the values) and `weight` (sum of the
        weights), 0 where there is no observation.
    """
    keys = ["_all", *by]
    growth = 2.0 ** (pl.col("clock") / half_life)
    decay = 2.0 ** (-pl.col("clock") / half_life)
    sums = (
        past.with_columns(_all=0)
        .group_by(*keys, "race_order", "clock", maintain_order=True)
        .agg(value.mean().alias("value"))
        .filter(pl.col("value").is_not_null())
        .sort("race_order", maintain_order=True)
        .select(
            *keys,
            "race_order",
            total=(pl.col("value") * growth).cum_sum().over(keys),
            weight=growth.cum_sum().over(keys),
        )
    )
    return (
        cars.with_columns(_all=0)
        .sort("race_order", maintain_order=True)
        .join_asof(
            sums,
            on="race_order",
            by=keys,
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,  # sorted above; polars cannot check within groups
        )
        .with_columns(pl.col("total", "weight").fill_null(0.0) * decay)
        .drop("_all")
    )


def past_mean(
    cars: pl.DataFrame,
    past: pl.DataFrame,
    value: pl.Expr,
    by: Sequence[str] = (),
    *,
    half_life: float,
    prior: float | str | None = 0.0,
    pseudo_count: float = 0.0,
    null_if_unseen: bool = False,
) -> pl.DataFrame:
    """Add an exponentially weighted mean over the races before each row's own, shrunk to a prior.

    `(total + pseudo_count * prior) / (weight + pseudo_count)` with the sums of `past_sums`: the prior
    counts as much as `pseudo_count` races that have just run.

    Parameters
    ----------
    cars, past, value, by, half_life
        As in `past_sums`. The new column has the name of `value`.
    prior : float, str or None
        Value of a row without observations: a number, a column of `cars`, or null.
    pseudo_count : float
        Races.
    null_if_unseen : bool
        Return null, not the prior, where there is no observation.

    Returns
    -------
    polars.DataFrame
        `cars`, sorted by race_order, with the mean.
    """
    prior_mean = pl.col(prior) if isinstance(prior, str) else pl.lit(prior, pl.Float64)
    shrunk_total = pl.col("total") + pseudo_count * prior_mean if pseudo_count else pl.col("total")
    mean = (
        pl.when(pl.col("weight") > 0)
        .then(shrunk_total / (pl.col("weight") + pseudo_count))
        .otherwise(None if null_if_unseen else prior_mean)
    )
    return (
        past_sums(cars, past, value, by, half_life)
        .with_columns(mean.alias(value.meta.output_name()))
        .drop("total", "weight")
    )
