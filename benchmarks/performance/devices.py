"""Fits and sampling on CPU and GPU side by side, where there is a GPU."""

from typing import Any, NamedTuple

from benchmarks.performance.page import Section, machine, table
from benchmarks.performance.timing import measure_apart, ratios, shown

MODULE = "benchmarks.performance.device_run"
LIMIT_S = 900
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


FULL, SMALL = Sizes(360, 2**17, 3), Sizes(8, 256, 1)


def measure(sizes: Sizes) -> Section:
    """Measure both devices, each in a process of its own; or say that there is no GPU."""
    platform, name = measure_apart(MODULE, {"sizes": None}, LIMIT_S)
    if platform == "cpu":
        return Section(
            "No GPU on this machine: not measured. JAX finds one where its CUDA plugin is installed.", {}
        )
    found: dict[str, dict[str, list[float]]] = {}
    for device in ("cpu", platform):
        environment = {"JAX_PLATFORMS": "cpu" if device == "cpu" else "cuda"}
        found[device] = measure_apart(
            MODULE, {"sizes": sizes, "on_cpu": device == "cpu"}, LIMIT_S, environment
        )
    return Section(
        f"{machine(['jax', 'numpyro'])} GPU: {name}. {sizes.turns} turns, compiling not counted.\n\n"
        + table(["", "CPU", "GPU", "CPU ÷ GPU"], list(lines(found["cpu"], found[platform], sizes))),
        {},
    )


def lines(cpu: dict[str, list[float]], gpu: dict[str, list[float]], sizes: Sizes) -> list[list[str]]:
    """Write what was measured on both, a line a quantity."""
    labels: dict[str, Any] = sizes._asdict()
    return [
        [text.format(**labels), shown(cpu[name]), shown(gpu[name]), shown(ratios(cpu[name], gpu[name]))]
        for name, text in QUANTITIES.items()
    ]
