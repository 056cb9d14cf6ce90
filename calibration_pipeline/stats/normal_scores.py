"""Normal scores: places in a field on a scale on which a mean makes sense."""

import polars as pl
from scipy.special import ndtri


def normal_score(place: pl.Expr, field_size: pl.Expr) -> pl.Expr:
    """Return the normal score of a place in its field, `Phi^-1((n - place + 1/2) / n)`: larger is better.

    Places outside 1..n, which mean running positions may be, count as the nearest place.

    Examples
    --------
    >>> places = pl.DataFrame({"place": [1, 2, 3]})
    >>> places.select(normal_score(pl.col("place"), pl.lit(3)).round(2)).to_series().to_list()
    [0.97, 0.0, -0.97]
    """
    n = field_size.cast(pl.Float64)
    share = ((n - place + 0.5) / n).clip(0.5 / n, 1 - 0.5 / n)
    return share.map_batches(ndtri, return_dtype=pl.Float64, is_elementwise=True)
