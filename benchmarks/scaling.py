"""How the cost grows with seasons, scenarios, forecasters and series: python -m benchmarks.scaling.

Reads `pipeline_assets.csv` (the part `pipeline` with the cells 4x1000,4x10000,8x1000,13x1000), of its rows
those of the last machine and versions, and fits the seconds of each job to seasons S and scenarios N by
nonnegative least squares of relative errors:

    s(S, N) = constant + a S + b S^2 + c S N / 1000

From the laws it estimates a hub: many forecasters of scenarios, several series, each with its own store. The
waves of jobs are scheduled on workers, the longest task first.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from assets.orchestration.jobs import WAVES
from benchmarks.result_files import Row, markdown_table, output_parser, read_results, write_results
from calibration_pipeline.archetypes import ARCHETYPES

STEPS = {
    "season": "ingest",
    "season_scenarios": "scenarios",
    "next_race": "forecast",
    "scores_of_forecasters": "comparison",
}
"""Steps of several assets -> the job that has them."""
BY_SEASON, BY_ARCHETYPE = (
    ("ingest", "features", "networks", "scenarios"),
    ("archetypes", "scores", "pictures"),
)
"""Jobs with a run for each season, and for each archetype."""
BY_FORECASTER = ("scenarios", "archetypes", "state", "models", "scores", "forecast")
"""Jobs that a further forecaster repeats."""


class Law(NamedTuple):
    """Seconds of a job: constant, and coefficients of S, S^2 and S N / 1000; largest relative error."""

    constant: float
    by_season: float
    by_season_squared: float
    by_scenarios: float
    largest_error: float

    def seconds(self, seasons: int, scenarios: int) -> float:
        """Return the seconds at a size."""
        return float(np.dot(self[:4], _terms(seasons, scenarios)))


class Hub(NamedTuple):
    """Numbers of forecasters beside the network, series, seasons, and scenarios a race."""

    forecasters: int
    series: int
    seasons: int
    scenarios: int


HUBS = (Hub(50, 3, 13, 2000), Hub(22, 1, 9, 200))
"""The hub, and the trial of a tenth of its forecasters by season (`benchmarks.hub`)."""
WORKERS = (2, 8)


def job_of(step: str) -> str:
    """Return the job that has a step.

    Examples
    --------
    >>> job_of("causal_network"), job_of("season")
    ('networks', 'ingest')
    """
    jobs = {asset: job.name for wave in WAVES for job in wave for asset in job.assets}
    return STEPS.get(step) or jobs.get(step) or "checks"


def _terms(seasons: float, scenarios: float) -> list[float]:
    return [1.0, seasons, seasons**2, seasons * scenarios / 1000]


def fit_law(cells: Mapping[tuple[int, int], float]) -> Law:
    """Fit seconds by (seasons, scenarios).

    Examples
    --------
    >>> law = fit_law({(s, n): 3 + 2 * s + s * n / 1000 for s in (4, 13) for n in (1000, 10_000)})
    >>> round(law.constant, 3), round(law.by_season, 3), round(law.by_scenarios, 3)
    (3.0, 2.0, 1.0)
    """
    seconds = np.array(list(cells.values()))
    terms = np.array([_terms(*cell) for cell in cells]) / seconds[:, None]
    coefficients, _ = nnls(terms, np.ones(len(seconds)))
    return Law(*coefficients.tolist(), float(np.abs(terms @ coefficients - 1).max()))


def fit_laws(rows: Iterable[Mapping[str, str]]) -> dict[str, Law]:
    """Fit a law to each job that takes a tenth of a second or more, from rows of `pipeline_assets`."""
    cells: dict[str, dict[tuple[int, int], float]] = {}
    for row in rows:
        by_size = cells.setdefault(job_of(row["asset"]), {})
        size = int(row["seasons"]), int(row["scenarios"])
        by_size[size] = by_size.get(size, 0.0) + float(row["s"])
    return {name: fit_law(by_size) for name, by_size in cells.items() if min(by_size.values()) > 0}


def makespan(tasks: Sequence[float], n_workers: int) -> float:
    """Return the time of tasks on workers, the longest task first.

    Examples
    --------
    >>> makespan([3, 3, 2, 2, 2], 2)
    7.0
    """
    free = [0.0] * n_workers
    for task in sorted(tasks, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + task)
    return max(free)


def hub_tasks(hub: Hub, laws: Mapping[str, Law]) -> list[list[float]]:
    """Return the seconds of the tasks of each wave of a hub's series."""
    waves = []
    for wave in WAVES:
        tasks: list[float] = []
        for job in (job.name for job in wave if job.name in laws):
            parts = {**dict.fromkeys(BY_SEASON, hub.seasons), **dict.fromkeys(BY_ARCHETYPE, len(ARCHETYPES))}
            n_parts = parts.get(job, 1)
            n_forecasters = 1 + hub.forecasters * (job in BY_FORECASTER)
            whole = laws[job].seconds(hub.seasons, hub.scenarios)
            growth = 1 + hub.forecasters if job == "comparison" else 1
            tasks += [growth * whole / n_parts] * n_parts * n_forecasters
        waves.append(tasks)
    return waves


def estimate(hub: Hub, laws: Mapping[str, Law]) -> Row:
    """Return the hours of a hub's tasks, and of its run on workers."""
    waves = [tasks for tasks in hub_tasks(hub, laws) if tasks]
    hours = {
        f"hours_{n}_workers": f"{hub.series * sum(makespan(tasks, n) for tasks in waves) / 3600:.2f}"
        for n in WORKERS
    }
    return {**hub._asdict(), "core_hours": f"{hub.series * sum(map(sum, waves)) / 3600:.2f}", **hours}


def main() -> None:
    """Fit the laws, and estimate the hubs."""
    options = output_parser(__doc__).parse_args()
    measured = read_results("pipeline_assets", options.output)
    laws = fit_laws(row for row in measured if row["measured_on"] == measured[-1]["measured_on"])
    rows: list[Row] = [
        {"job": job, **{name: f"{value:.3g}" for name, value in law._asdict().items()}}
        for job, law in laws.items()
    ]
    hubs = [estimate(hub, laws) for hub in HUBS]
    write_results("scaling", rows, options.output)
    write_results("hubs", hubs, options.output)
    print(markdown_table(rows), markdown_table(hubs), sep="\n\n")


if __name__ == "__main__":
    main()
