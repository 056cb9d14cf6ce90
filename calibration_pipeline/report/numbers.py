"""Number format of the report: fixed digits, a real minus sign, "n/a" for unknown values."""

import math

from calibration_pipeline.report.blocks import Cell

UNKNOWN = "n/a"
LARGEST_WRITTEN = 6
"""Largest power of ten of an e-value that is written as a number."""


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` with a fixed number of decimals and thousands separated.

    Parameters
    ----------
    value : float or None
        None and NaN read "n/a".
    digits : int
        Decimals.

    Examples
    --------
    >>> number(-0.1234), number(12345, 0), number(None), number(-0.0001, 2)
    ('−0.123', '12,345', 'n/a', '0.00')
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    text = f"{abs(value):,.{digits}f}"
    is_zero = not any(digit in text for digit in "123456789")
    return text if value >= 0 or is_zero else f"−{text}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage.

    Parameters
    ----------
    value : float or None
        Between 0 and 1.
    digits : int
        Decimals.

    Examples
    --------
    >>> percent(0.487), percent(None)
    ('48.7 %', 'n/a')
    """
    return UNKNOWN if value is None or math.isnan(value) else f"{number(100 * value, digits)} %"


def estimate(
    value: float | None,
    lower: float | None,
    upper: float | None,
    digits: int = 3,
    *,
    as_percent: bool = False,
) -> Cell:
    """Return an estimate with its interval.

    Parameters
    ----------
    value, lower, upper : float or None
        The estimate and both ends; without ends only the estimate is shown.
    digits : int
        Decimals.
    as_percent : bool
        The numbers are shares, to be read as percentages.

    Examples
    --------
    >>> estimate(0.801, 0.75, 0.85, 1, as_percent=True)[:2]
    ('80.1 %', '75.0 to 85.0 %')
    """
    show = percent if as_percent else number
    if lower is None or upper is None or math.isnan(lower) or math.isnan(upper):
        return Cell(show(value, digits))
    low = number(100 * lower if as_percent else lower, digits)
    return Cell(show(value, digits), f"{low} to {show(upper, digits)}")


def p_value(value: float) -> str:
    """Return a p-value as text with its relation: "= 0.018" or "< 0.001".

    Parameters
    ----------
    value : float
        Between 0 and 1.

    Examples
    --------
    >>> p_value(0.0182), p_value(0.0002)
    ('= 0.018', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"= {number(value)}"


def e_value(log10: float) -> str:
    """Return an e-value from its logarithm; large ones as a power of ten.

    Parameters
    ----------
    log10 : float
        Logarithm to base 10.

    Examples
    --------
    >>> e_value(-1.0), e_value(1.5), e_value(300.2)
    ('0.10', '31.6', '10^300')
    """
    if log10 > LARGEST_WRITTEN:
        return f"10^{log10:.0f}"
    return number(10**log10, 2 if log10 < 1 else 1 if log10 < 2 else 0)
