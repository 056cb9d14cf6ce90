"""Fits and sampling on CPU and GPU side by side, where there is a GPU."""

from typing import Any, NamedTuple

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.timing import measure_apart, ratios, shown

MODULE = "benchmarks.performance.device_run"
LIMIT_S = 1800
QUANTITIES = {
    "latent": "latent map, {n_races:,} races, 4 x (500 + 1000), s",
    "marginal": "marginal map, {n_races:,} races, 4 x (500 + 1000), s",
    "scenarios": "{n_scenarios:,} scenarios of 40 cars, s",
}


class Sizes(NamedTuple):
    """Races of a fit, scenarios of a turn, and turns."""

    n_races: int
    n_scenarios: int
    turns: int


FULL, SMALL = (Sizes(360, 2**17, 3), Sizes(1440, 2**20, 1)), (Sizes(8, 256, 1),)


def measure(cells: tuple[Sizes, ...]) -> Section:
    """Measure both devices, each size in a process of its own; or say that there is no GPU."""
    platform, name = measure_apart(MODULE, {"sizes": None}, LIMIT_S)
    if platform == "cpu":
        return Section(
            "No GPU on this machine: not measured. JAX finds one where its CUDA plugin is installed.", {}
        )
    rows = [row for sizes in cells for row in lines(on("cpu", sizes), on("cuda", sizes), sizes)]
    return Section(
        f"{machine(['jax', 'numpyro'])} GPU: {name}. Compiling not counted.\n\n"
        + table(["", "CPU", "GPU", "CPU ÷ GPU"], rows),
        {},
    )


def on(device: str, sizes: Sizes) -> dict[str, list[float]]:
    """Measure on one device."""
    request = {"sizes": sizes, "on_cpu": device == "cpu"}
    found: dict[str, list[float]] = measure_apart(MODULE, request, LIMIT_S, {"JAX_PLATFORMS": device})
    return found


def lines(cpu: dict[str, list[float]], gpu: dict[str, list[float]], sizes: Sizes) -> list[list[str]]:
    """Write what was measured on both, a line a quantity."""
    labels: dict[str, Any] = sizes._asdict()
    return [
        [text.format(**labels), shown(cpu[name]), shown(gpu[name]), shown(ratios(cpu[name], gpu[name]))]
        for name, text in QUANTITIES.items()
    ]
