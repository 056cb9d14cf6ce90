"""CORP reliability of binary events: forecasts recalibrated by isotonic regression, ties pooled first.

The module holds the fit, its decomposition of the Brier score and its refits to other outcomes. `reliability`
defines the events and their outcomes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from calibration_pipeline.stats.intervals import CONFIDENCE

TIE_DECIMALS = 12
"""Forecasts that agree to so many decimals are tied: they differ by rounding, as sums over positions do."""


@dataclass(frozen=True)
class Corp:
    """An isotonic regression of outcomes on forecasts.

    Attributes
    ----------
    forecast : ndarray
        Distinct forecasts, ascending, (levels,).
    weight : ndarray
        Cases at each, (levels,).
    recalibrated : ndarray
        Recalibrated probability at each, non-decreasing, (levels,).
    block : ndarray
        Number of the pool-adjacent-violators block of each, from 0, (levels,).
    level : ndarray
        Which distinct forecast each case has, (cases,).
    """

    forecast: NDArray[np.float64]
    weight: NDArray[np.float64]
    recalibrated: NDArray[np.float64]
    block: NDArray[np.int64]
    level: NDArray[np.int64]


class CorpTerms(NamedTuple):
    """Contributions of each case to the parts of the Brier score, (cases,) each; the means are the parts."""

    miscalibration: NDArray[np.float64]
    discrimination: NDArray[np.float64]
    uncertainty: NDArray[np.float64]


def fit_corp(forecast: NDArray, outcome: NDArray) -> Corp:
    """Recalibrate forecasts of a binary event by isotonic regression, tied forecasts pooled.

    The result does not depend on the order of the cases, tied or not.

    Parameters
    ----------
    forecast : ndarray
        Probabilities, (cases,), at least one.
    outcome : ndarray
        Whether the event happened, (cases,).

    Returns
    -------
    Corp

    References
    ----------
    Dimitriadis, Gneiting & Jordan (2021), doi:10.1073/pnas.2016191118; pool-adjacent-violators: Ayer et al.
    (1955), doi:10.1214/aoms/1177728423.

    Examples
    --------
    >>> corp = fit_corp(np.array([0.1, 0.1, 0.4, 0.8]), np.array([0, 1, 0, 1]))
    >>> corp.recalibrated.round(3)
    array([0.333, 0.333, 1.   ])
    """
    levels, level = np.unique(np.round(forecast, TIE_DECIMALS), return_inverse=True)
    weight = np.bincount(level).astype(np.float64)
    fit = isotonic_regression(np.bincount(level, weights=outcome) / weight, weights=weight)
    block = np.repeat(np.arange(fit.blocks.size - 1), np.diff(fit.blocks))
    return Corp(levels, weight, np.clip(fit.x, 0.0, 1.0), block, level)


def corp_terms(corp: Corp, forecast: NDArray, outcome: NDArray) -> CorpTerms:
    """Decompose the Brier score: miscalibration - discrimination + uncertainty, exactly.

    With p the forecast, q its recalibrated value, r the share of all cases in which the event happened and
    S(.) the mean squared error: S(p) - S(q), S(r) - S(q) and S(r). The terms of single cases let intervals
    take races as units; q is then treated as known, which is right to first order because q minimises S.

    Parameters
    ----------
    corp : Corp
        Fitted to the next two.
    forecast : ndarray
        Probabilities, (cases,).
    outcome : ndarray
        Whether the event happened, (cases,).

    Returns
    -------
    CorpTerms

    References
    ----------
    Dimitriadis, Gneiting & Jordan (2021), doi:10.1073/pnas.2016191118, equation 4; first order: the
    envelope theorem, Milgrom & Segal (2002), doi:10.1111/1468-0262.00296.

    Examples
    --------
    >>> p, y = np.array([0.1, 0.1, 0.4, 0.8]), np.array([0, 1, 0, 1])
    >>> parts = [float(part.mean()) for part in corp_terms(fit_corp(p, y), p, y)]
    >>> bool(np.isclose(parts[0] - parts[1] + parts[2], ((p - y) ** 2).mean()))
    True
    """
    uncertainty = (np.mean(outcome) - outcome) ** 2
    recalibrated = (corp.recalibrated[corp.level] - outcome) ** 2
    return CorpTerms((forecast - outcome) ** 2 - recalibrated, uncertainty - recalibrated, uncertainty)


def refit_corp(corp: Corp, successes: NDArray) -> NDArray[np.float64]:
    """Recalibrate the same forecasts to other outcomes.

    Parameters
    ----------
    corp : Corp
        Fit that provides the forecasts.
    successes : ndarray
        Cases in which the event happens, by distinct forecast, (replicates, levels).

    Returns
    -------
    ndarray
        Recalibrated probabilities, (replicates, levels).
    """
    share = successes / corp.weight
    fits = [isotonic_regression(row, weights=corp.weight).x for row in share]
    return np.clip(np.array(fits).reshape(share.shape), 0.0, 1.0)


def count_successes(corp: Corp, outcomes: NDArray) -> NDArray[np.int32]:
    """Return the number of cases with the event at each distinct forecast: (replicates, levels)."""
    by_level = np.argsort(corp.level, kind="stable")
    first = np.cumsum(corp.weight.astype(np.int64)) - corp.weight.astype(np.int64)
    return np.ascontiguousarray(np.add.reduceat(outcomes[by_level], first, dtype=np.int32).T)


def refitted_miscalibration(corp: Corp, successes: NDArray, refitted: NDArray) -> NDArray[np.float64]:
    """Return the miscalibration of each replicate, (replicates,).

    Parameters
    ----------
    corp : Corp
        Fit that provides the forecasts.
    successes, refitted : ndarray
        As in `refit_corp`, (replicates, levels).
    """
    share = successes / corp.weight
    gain = (corp.forecast - share) ** 2 - (refitted - share) ** 2
    return gain @ corp.weight / corp.weight.sum()


def curve_rows(corp: Corp, race: NDArray, refitted: NDArray | None = None) -> list[dict[str, object]]:
    """Return the blocks of a fit, ascending, with the band of consistency.

    Parameters
    ----------
    corp : Corp
        The fit.
    race : ndarray
        Race of each case, (cases,), any labels.
    refitted : ndarray, optional
        Recalibrated probabilities of outcomes that agree with the forecast, (replicates, levels), from
        `refit_corp`. Their central 95 % at a block's mean forecast is its band; without them it is null.

    Returns
    -------
    list of dict
        The columns of `CalibrationCurves` but its keys.
    """
    n_blocks = int(corp.block[-1]) + 1
    cases = np.bincount(corp.block, weights=corp.weight)
    mean = np.bincount(corp.block, weights=corp.weight * corp.forecast) / cases
    first = np.searchsorted(corp.block, np.arange(n_blocks))
    last = np.append(first[1:], corp.block.size) - 1
    races = np.unique(np.stack([corp.block[corp.level], np.unique(race, return_inverse=True)[1]]), axis=1)[0]
    columns = {
        "predicted": np.clip(mean, corp.forecast[first], corp.forecast[last]),
        "predicted_from": corp.forecast[first],
        "predicted_to": corp.forecast[last],
        "observed": corp.recalibrated[first],
        "n_cases": cases.astype(np.int64),
        "n_races": np.bincount(races, minlength=n_blocks),
    }
    bounds = {"lower": [None] * n_blocks, "upper": [None] * n_blocks}
    if refitted is not None:
        at_mean = np.array([np.interp(columns["predicted"], corp.forecast, row) for row in refitted])
        tails = np.quantile(at_mean, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], axis=0)
        bounds = dict(zip(bounds, tails.tolist(), strict=True))
    values = {name: column.tolist() for name, column in columns.items()} | bounds
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
