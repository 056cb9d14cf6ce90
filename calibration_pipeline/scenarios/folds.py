"""Folds: consecutive blocks of races that are forecast from one fit, on the races before the block.

A fold is named after its season and its number within it, e.g. '2021-2'. Names do not sort in time.
"""

import polars as pl

FOLD_RACES_SHORT_HISTORY = 12
SEASONS_OF_LONG_HISTORY = 6


def default_fold_races(n_seasons: int) -> int | None:
    """Races in a fold: None (a season) for long histories, fewer where history is short.

    Parameters
    ----------
    n_seasons : int
        Seasons of the history.

    Examples
    --------
    >>> default_fold_races(2), default_fold_races(10)
    (12, None)
    """
    return None if n_seasons >= SEASONS_OF_LONG_HISTORY else FOLD_RACES_SHORT_HISTORY


def fold_name(season: pl.Expr, round_: pl.Expr, fold_races: int | None) -> pl.Expr:
    """Name of the fold that a race belongs to, known as soon as its season and round are.

    Parameters
    ----------
    season, round_ : polars.Expr
        Integer columns; rounds count from 1.
    fold_races : int or None
        Races in a fold; None makes the season one fold.

    Returns
    -------
    polars.Expr
        String expression such as '2021-2'.

    Raises
    ------
    ValueError
        If `fold_races` is less than 1.

    Examples
    --------
    >>> races = pl.DataFrame({"season": [2021, 2021], "round": [12, 13]})
    >>> races.select(fold=fold_name(pl.col("season"), pl.col("round"), 12))["fold"].to_list()
    ['2021-1', '2021-2']
    """
    if fold_races is not None and fold_races < 1:
        raise ValueError(f"Argument fold_races must be at least 1 or None, got {fold_races}.")
    block = pl.lit(1) if fold_races is None else (round_ - 1) // fold_races + 1
    return pl.concat_str(season.cast(pl.String), pl.lit("-"), block.cast(pl.String))


def first_race_order(fold: str, fold_races: int | None) -> int:
    """`race_order` at which a fold begins: its fits see only races before.

    Examples
    --------
    >>> first_race_order("2021-2", 12)
    202113
    """
    season, block = (int(part) for part in fold.split("-"))
    return 100 * season + 1 + (block - 1) * (fold_races or 0)


def open_fold(rounds: pl.Series, season: int, fold_races: int | None) -> str:
    """Fold of the race that follows the last run race of a season.

    Parameters
    ----------
    rounds : polars.Series
        Rounds of the season that have run, possibly none.
    season : int
    fold_races : int or None

    Examples
    --------
    >>> open_fold(pl.Series([1, 2, 12]), 2021, 12), open_fold(pl.Series(range(1, 37)), 2021, 4)
    ('2021-2', '2021-10')
    """
    following = int(rounds.max() or 0) + 1  # type: ignore[arg-type]
    return str(pl.select(fold_name(pl.lit(season), pl.lit(following), fold_races)).item())
