"""Time of the exact CRPS of ensembles and of finish positions, beside scoringrules and plain NumPy.

All values are compared before the timing starts. Ensembles have two memory layouts: scenarios first, as
`compute_crps` documents, and the members of each prediction together, as scoringrules expects. The comparison
omits estimators of other quantities (`pwm` and `fair` estimate the fair version, `akr` is an approximation)
and the quadratic estimator (`nrg`).
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import scoringrules
from numpy.typing import NDArray

from benchmarks.performance.timing import in_turn, measured_on, ratios
from benchmarks.result_files import Row, repeated
from calibration_pipeline.metrics import compute_crps
from calibration_pipeline.scenarios.probabilities import position_counts
from calibration_pipeline.stats.ranking import rank
from calibration_pipeline.verification.scores import discrete_crps

TOLERANCE = 1e-10
BACKENDS = ("numpy", "numba")
ESTIMATORS = ("qd", "int")
OURS = "compute_crps"
DISCRETE = "discrete_crps, from the stored table"
Run = Callable[[], float]


class Sizes(NamedTuple):
    """Number of members, of predictions (cars of whole fields), of cars in a field, and of turns."""

    n_samples: int
    n_predictions: int
    n_cars: int
    n_turns: int


FULL = Sizes(1500, 4000, 40, 7)
SMALL = Sizes(30, 40, 20, 2)


def plain_crps(x: NDArray, y: NDArray) -> float:
    """Return the mean of E|X - y| - E|X - X'| / 2, computed with one sort."""
    n = len(x)
    weight = (2 * np.arange(1, n + 1) - n - 1) / n**2
    half_spread = (weight[:, None] * np.sort(x, axis=0)).sum(axis=0)
    return float((np.abs(x - y).mean(axis=0) - half_spread).mean())


def backends() -> list[str]:
    """Return the installed backends of scoringrules."""
    return [name for name in BACKENDS if find_spec(name)]


def ensemble_runs(x: NDArray, y: NDArray) -> dict[str, Run]:
    """Return all methods that score ensembles (n_samples, n_predictions), in any memory layout."""
    members_last = np.moveaxis(x, 0, -1)

    def foreign(backend: str, estimator: str) -> Run:
        def run() -> float:
            each = scoringrules.crps_ensemble(y, members_last, estimator=estimator, backend=backend)
            return float(each.mean())

        return run

    runs: dict[str, Run] = {OURS: lambda: compute_crps(x, y), "plain NumPy": lambda: plain_crps(x, y)}
    for backend in backends():
        for estimator in ESTIMATORS:
            runs[f"scoringrules, {backend}, {estimator}"] = foreign(backend, estimator)
    return runs


def position_runs(finish: NDArray, y: NDArray) -> dict[str, Run]:
    """Return all methods that score finish positions (race, scenario, car)."""
    n_races, n_scenarios, n_cars = finish.shape
    size, observed = np.full(n_races, n_cars), y.ravel()
    table_ = position_counts(finish, size) / n_scenarios
    members = np.moveaxis(finish, 1, 0).reshape(n_scenarios, -1).astype(float)

    def counted() -> float:
        return float(discrete_crps(position_counts(finish, size) / n_scenarios, y).mean())

    def foreign(backend: str) -> Run:
        flat = table_.reshape(-1, n_cars)
        return lambda: float(scoringrules.rps_score(observed, flat, backend=backend).mean())

    runs: dict[str, Run] = {
        DISCRETE: lambda: float(discrete_crps(table_, y).mean()),
        "discrete_crps, counting the scenarios first": counted,
    }
    runs |= {
        f"scoringrules, {backend}, rps_score, from the table": foreign(backend) for backend in backends()
    }
    as_ensemble = ensemble_runs(np.ascontiguousarray(members.T).T, observed.astype(float))
    return runs | {f"{name}, of the scenarios' positions": run for name, run in as_ensemble.items()}


def agree(runs: dict[str, Run]) -> float:
    """Check that all methods agree, and return their common value.

    Raises
    ------
    ValueError
        If a value differs from the first by more than `TOLERANCE`.
    """
    values = {name: run() for name, run in runs.items()}
    expected = next(iter(values.values()))
    wrong = {name: value for name, value in values.items() if not abs(value - expected) <= TOLERANCE}
    if wrong:
        raise ValueError(f"Values must agree within {TOLERANCE:g}: expected {expected}, got {wrong}.")
    return expected


def examples(sizes: Sizes) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return ensembles with observations, and finish positions (race, scenario, car) with results."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sizes.n_samples, sizes.n_predictions))
    y = rng.normal(size=sizes.n_predictions)
    n_races = sizes.n_predictions // sizes.n_cars
    pace = rng.normal(size=(n_races, 1, sizes.n_cars))
    finish, result = (rank(pace + rng.gumbel(size=(n_races, n, sizes.n_cars))) for n in (sizes.n_samples, 1))
    return x, y, finish, result[:, 0]


def measure(sizes: Sizes) -> dict[str, list[Row]]:
    """Compare the values of all methods, then measure their times."""
    x, y, finish, result = examples(sizes)
    methods = {
        "ensembles, scenarios first": ensemble_runs(x, y),
        "ensembles, members together": ensemble_runs(np.ascontiguousarray(x.T).T, y),
        "finish positions": position_runs(finish, result),
    }
    first, together, positions = methods.values()
    agree({**first, **{f"{name}, together": run for name, run in together.items()}})
    agree(positions)
    packages = [name for name in ("numpy", "scoringrules", "numba") if find_spec(name)]
    machine = measured_on(packages)
    rows: list[Row] = []
    for predictions, runs in methods.items():
        taken = in_turn(runs, sizes.n_turns)
        ours = next(iter(taken.values()))
        rows += [
            {
                "predictions": predictions,
                "tool": name,
                **repeated("ms", [1000 * s for s in seconds]),
                **repeated("ratio", ratios(seconds, ours)),
                "measured_on": machine,
            }
            for name, seconds in taken.items()
        ]
    return {"scores": rows}
