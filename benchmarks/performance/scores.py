"""Exact CRPS: of ensembles, and of finish positions, against scoringrules and plain NumPy.

Every contestant's values are held against ours before anything is timed. The ensembles are given both ways
round in memory: scenarios first, as `compute_crps` documents them, and each prediction's members together, as
scoringrules likes them. Left out are estimators of something else (`pwm` and `fair` are the fair version,
`akr` an approximation) and the quadratic one (`nrg`).
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import scoringrules
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.timing import in_turn, ratios, shown, spread
from calibration_pipeline.metrics import compute_crps
from calibration_pipeline.plots.figures import BLUE, GREY, figure_axes, rows_height
from calibration_pipeline.scenarios.probabilities import place_counts
from calibration_pipeline.stats.ranking import rank
from calibration_pipeline.verification.scores import discrete_crps

TOLERANCE = 1e-10
BACKENDS = ("numpy", "numba")
ESTIMATORS = ("qd", "int")
OURS = "`compute_crps`"
DISCRETE = "`discrete_crps`, from the stored table"
Run = Callable[[], float]


class Sizes(NamedTuple):
    """Members, predictions (cars of whole fields), cars of a field, and turns."""

    n_samples: int
    n_predictions: int
    n_cars: int
    n_turns: int


FULL = Sizes(1500, 4000, 40, 7)
SMALL = Sizes(30, 40, 20, 2)


def plain_crps(x: NDArray, y: NDArray) -> float:
    """E|X - y| - E|X - X'| / 2, written out with one sort."""
    n = len(x)
    weight = (2 * np.arange(1, n + 1) - n - 1) / n**2
    half_spread = (weight[:, None] * np.sort(x, axis=0)).sum(axis=0)
    return float((np.abs(x - y).mean(axis=0) - half_spread).mean())


def backends() -> list[str]:
    """Backends of scoringrules that are there."""
    return [name for name in BACKENDS if find_spec(name)]


def ensemble_runs(x: NDArray, y: NDArray) -> dict[str, Run]:
    """Return every way to score ensembles (n_samples, n_predictions), however they lie in memory."""
    members_last = np.moveaxis(x, 0, -1)

    def foreign(backend: str, estimator: str) -> Run:
        def run() -> float:
            each = scoringrules.crps_ensemble(y, members_last, estimator=estimator, backend=backend)
            return float(each.mean())

        return run

    runs: dict[str, Run] = {OURS: lambda: compute_crps(x, y), "plain NumPy": lambda: plain_crps(x, y)}
    for backend in backends():
        for estimator in ESTIMATORS:
            runs[f"scoringrules, {backend}, `{estimator}`"] = foreign(backend, estimator)
    return runs


def position_runs(finish: NDArray, y: NDArray) -> dict[str, Run]:
    """Return every way to score finishes (race, scenario, car): ours, and others on what they take."""
    n_races, n_scenarios, n_cars = finish.shape
    size, observed = np.full(n_races, n_cars), y.ravel()
    table_ = place_counts(finish, size) / n_scenarios
    members = np.moveaxis(finish, 1, 0).reshape(n_scenarios, -1).astype(float)

    def counted() -> float:
        return float(discrete_crps(place_counts(finish, size) / n_scenarios, y).mean())

    def foreign(backend: str) -> Run:
        flat = table_.reshape(-1, n_cars)
        return lambda: float(scoringrules.rps_score(observed, flat, backend=backend).mean())

    runs: dict[str, Run] = {
        DISCRETE: lambda: float(discrete_crps(table_, y).mean()),
        "`discrete_crps`, counting the scenarios first": counted,
    }
    runs |= {
        f"scoringrules, {backend}, `rps_score`, from the table": foreign(backend) for backend in backends()
    }
    as_ensemble = ensemble_runs(np.ascontiguousarray(members.T).T, observed.astype(float))
    return runs | {f"{name}, of the scenarios' positions": run for name, run in as_ensemble.items()}


def agree(runs: dict[str, Run]) -> float:
    """Return the common value of all runs.

    Raises
    ------
    ValueError
        If one differs from the first by more than `TOLERANCE`.
    """
    values = {name: run() for name, run in runs.items()}
    expected = next(iter(values.values()))
    wrong = {name: value for name, value in values.items() if not abs(value - expected) <= TOLERANCE}
    if wrong:
        raise ValueError(f"Values must agree within {TOLERANCE:g}: expected {expected}, got {wrong}.")
    return expected


def examples(sizes: Sizes) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Ensembles with observations, and finishes (race, scenario, car) with results (race, car)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sizes.n_samples, sizes.n_predictions))
    y = rng.normal(size=sizes.n_predictions)
    n_races = sizes.n_predictions // sizes.n_cars
    pace = rng.normal(size=(n_races, 1, sizes.n_cars))
    finish, result = (rank(pace + rng.gumbel(size=(n_races, n, sizes.n_cars))) for n in (sizes.n_samples, 1))
    return x, y, finish, result[:, 0]


def measure(sizes: Sizes) -> Section:
    """Measure both ways to score, and hold the values against each other."""
    x, y, finish, result = examples(sizes)
    scenarios_first = ensemble_runs(x, y)
    together = ensemble_runs(np.ascontiguousarray(x.T).T, y)
    agree({**scenarios_first, **{f"{name}, together": run for name, run in together.items()}})
    positions = position_runs(finish, result)
    agree(positions)
    first, last = in_turn(scenarios_first, sizes.n_turns), in_turn(together, sizes.n_turns)
    by_position = in_turn(positions, sizes.n_turns)
    ensembles = [
        [name, *(cell for taken in (first, last) for cell in _cells(taken[name], taken[OURS]))]
        for name in first
    ]
    places = [[name, *_cells(taken, by_position[DISCRETE])] for name, taken in by_position.items()]
    missing = [name for name in BACKENDS if name not in backends()]
    notes = [f"Skipped: the {name} backend, which is not installed." for name in missing]
    text = "\n\n".join(
        [
            machine(["numpy", "scoringrules", *(["numba"] if not missing else [])]),
            f"Ensembles of {sizes.n_samples:,} members, {sizes.n_predictions:,} predictions, "
            f"{sizes.n_turns} turns; all values agree within {TOLERANCE:g}.",
            table(
                ["ensembles", "scenarios first, ms", "÷ ours", "members together, ms", "÷ ours"],
                ensembles,
            ),
            f"Finish positions of {sizes.n_predictions:,} cars in {sizes.n_samples:,} scenarios:",
            table(["finish positions", "ms", "÷ ours"], places),
            "![Time of exact CRPS, by tool](images/performance_scores.png)",
            *notes,
        ]
    )
    return Section(text, {"performance_scores": draw(first, last, by_position)})


def _cells(taken: list[float], ours: list[float]) -> list[str]:
    return [shown([1000 * one for one in taken]), shown(ratios(taken, ours))]


def draw(
    first: dict[str, list[float]], last: dict[str, list[float]], by_position: dict[str, list[float]]
) -> Figure:
    """Draw the median times, ours in colour."""
    bars = [(f"{name}, scenarios first", spread(taken)) for name, taken in first.items()]
    bars += [(f"{name}, members together", spread(taken)) for name, taken in last.items()]
    bars += [(name, spread(taken)) for name, taken in by_position.items()]
    figure, ax = figure_axes(8, rows_height(len(bars), 0.22))
    for row, (name, taken) in enumerate(bars):
        color = BLUE if name.startswith("`") else GREY
        ax.hlines(row, 1000 * taken.lowest, 1000 * taken.highest, color=color)
        ax.plot(1000 * taken.median, row, "o", color=color)
    ax.set_yticks(range(len(bars)), [name.replace("`", "") for name, _ in bars], fontsize="small")
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="ms, median and range; blue: this project")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    ax.grid(axis="x", alpha=0.3)
    return figure
