"""Argument checks of arrays: plain real numbers, of a size whose squares and sums stay finite."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_NUMBER = 1e100
"""Largest absolute value that scores and diagnostics take: squares of differences must not overflow."""


def check_real(values: ArrayLike, name: str) -> None:
    """Check that values are real numbers without a mask.

    Parameters
    ----------
    values : array_like
    name : str
        Start of the message, as "Argument predictions".

    Raises
    ------
    ValueError
        If the values are complex, or are or contain a masked array: a conversion would lose the mask.

    Examples
    --------
    >>> check_real([1.0, 2], "Argument predictions")
    >>> check_real(np.array([1j]), "Argument predictions")
    Traceback (most recent call last):
    ValueError: Argument predictions must be real numbers, got complex ones: pass their real part.
    """
    if _has_mask(values):
        raise ValueError(
            f"{name} must be an array without a mask, got a masked array: leave out the masked cases, and "
            "pass the others as a plain array."
        )
    if np.iscomplexobj(values):
        raise ValueError(f"{name} must be real numbers, got complex ones: pass their real part.")


def check_size(values: NDArray, name: str) -> None:
    """Check that no number exceeds `LARGEST_NUMBER`; NaN passes.

    Raises
    ------
    ValueError
        If an absolute value is larger.
    """
    size = np.abs(np.asarray(values, dtype=np.float64))
    n_large = int((size > LARGEST_NUMBER).sum())
    if n_large:
        largest = values.flat[np.nanargmax(size)]
        raise ValueError(
            f"{name} must lie within ±{LARGEST_NUMBER:g}, got {n_large} of {values.size} values beyond, the "
            f"largest is {largest:.6g}: choose larger units, or remove placeholders."
        )


def _has_mask(values: object) -> bool:
    if isinstance(values, list | tuple):
        return any(_has_mask(item) for item in values)
    return isinstance(values, np.ma.MaskedArray)
