"""Delete-a-group jackknife over scenarios: error of the scores from the finite number of scenarios."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration_pipeline.scenarios.probabilities import (
    position_counts,
    smoothed_positions,
    smoothed_wins,
    win_counts,
)
from calibration_pipeline.verification.cases import Cases, car_pairs

N_GROUPS = 10


def with_counts(cases: Cases, scenarios: Mapping[str, NDArray]) -> Cases:
    """Return the cases with the number of scenarios of each car at each position.

    Parameters
    ----------
    cases : Cases
        Of a backtest.
    scenarios : mapping
        Forecast to finishes, (race, scenario, driver), as from `cases.backtest_scenarios`.
    """
    size = cases.mask.sum(axis=1)
    counts = {name: position_counts(finish, size)[cases.mask] for name, finish in scenarios.items()}
    return replace(cases, counts=counts)


def leave_groups_out(cases: Cases, scenarios: Mapping[str, NDArray]) -> Iterator[Cases]:
    """Yield the cases without the first tenth of the scenarios, then without the second, and so on.

    Groups are consecutive, so that scenarios that depend on their neighbours are in one group.

    Parameters
    ----------
    cases : Cases
        Of a backtest.
    scenarios : mapping
        Forecast to finishes, (race, scenario, driver); at least `N_GROUPS` scenarios each.

    Yields
    ------
    Cases
        `N_GROUPS` times, with the forecasts of `scenarios` replaced.
    """
    size, pairs = cases.mask.sum(axis=1), car_pairs(cases.mask)
    positions, wins = {}, {}
    for name, finish in scenarios.items():
        groups = np.array_split(finish, N_GROUPS, axis=1)
        positions[name] = np.array([position_counts(group, size)[cases.mask] for group in groups])
        wins[name] = np.array([win_counts(group, size)[pairs] for group in groups])
    for group in range(N_GROUPS):
        probability, head_to_head, counts = dict(cases.probability), dict(cases.head_to_head), {}
        for name in scenarios:
            counts[name] = positions[name].sum(axis=0) - positions[name][group]
            n_left = int(counts[name][0].sum())
            probability[name] = smoothed_positions(counts[name], n_left, cases.field_size[:, None])
            head_to_head[name] = smoothed_wins(wins[name].sum(axis=0) - wins[name][group], n_left)
        yield replace(cases, probability=probability, head_to_head=head_to_head, counts=counts)


def jackknife_error(without: Sequence[float]) -> float:
    """Return the standard error of an estimate from its values without each group of scenarios.

    Parameters
    ----------
    without : sequence of float
        The estimate without group 1, 2, ...

    References
    ----------
    Kott (2001), The delete-a-group jackknife, Journal of Official Statistics 17(4); Efron & Tibshirani
    (1993), An Introduction to the Bootstrap, equation 11.5.

    Examples
    --------
    >>> round(jackknife_error([1.0, 2.0, 3.0]), 3)
    1.155
    """
    values = np.asarray(without)
    return float(np.sqrt((values.size - 1) * np.var(values)))
