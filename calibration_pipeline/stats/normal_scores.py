"""Normal scores of positions in a field, on a scale on which a mean makes sense."""

import polars as pl
from scipy.special import ndtri


def normal_score(position: pl.Expr, field_size: pl.Expr) -> pl.Expr:
    """Return the normal score of a position in its field, `Phi^-1((n - position + 1/2) / n)`.

    Larger is better. Positions below 1 or above n count as 1 and n.

    Examples
    --------
    >>> cars = pl.DataFrame({"position": [1, 2, 3]})
    >>> cars.select(normal_score(pl.col("position"), pl.lit(3)).round(2)).to_series().to_list()
    [0.97, 0.0, -0.97]
    """
    n = field_size.cast(pl.Float64)
    share = ((n - position + 0.5) / n).clip(0.5 / n, 1 - 0.5 / n)
    return share.map_batches(ndtri, return_dtype=pl.Float64, is_elementwise=True)
