"""Results of cars: the rule of finish positions, the running order, and the join to a forecast's cars."""

import polars as pl

RUNNING_ORDER = (
    pl.when("running").then(pl.col("finish_position").rank("ordinal").over("race_id", "running")).otherwise(0)
)
"""Order of the running cars of `RaceResults` rows, 1 for the first, 0 for retired cars."""


def finish_is_permuted(by: str) -> pl.Expr:
    """Return the expression whether each row's finish position is its rank within a group.

    It is true in all rows if and only if the finish positions of every group are a permutation of 1..n.

    Parameters
    ----------
    by : str
        Column of the group: race_id, or scenario.
    """
    position = pl.col("finish_position")
    return position.rank("ordinal").over(by) == position


def join_results(cars: pl.DataFrame, race_results: pl.DataFrame, holder: str) -> pl.DataFrame:
    """Join cars with their results.

    Parameters
    ----------
    cars : polars.DataFrame
        race_id, driver_id, and any other columns; a row a car.
    race_results : polars.DataFrame
        race_id, driver_id, finish_position, and any other columns of `RaceResults`.
    holder : str
        Owner of the cars, for the message: `ensemble` or `features`.

    Returns
    -------
    polars.DataFrame
        The rows of `cars` in order, with the columns of `race_results`.

    Raises
    ------
    ValueError
        If a car has no result.
    """
    joined = cars.join(race_results, on=["race_id", "driver_id"], how="left", maintain_order="left")
    missing = joined.filter(pl.col("finish_position").is_null())
    if not missing.is_empty():
        first = missing.row(0, named=True)
        raise ValueError(
            f"Race results must have every car of the {holder}; {missing.height} are missing, "
            f"the first is driver_id {first['driver_id']!r} in race_id {first['race_id']}."
        )
    return joined
