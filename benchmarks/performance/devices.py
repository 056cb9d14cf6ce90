"""Fits and scenario sampling on CPU and GPU."""

from typing import NamedTuple

from benchmarks.performance.timing import SkippedError, measure_apart, measured_on, ratios
from benchmarks.result_files import Row, repeated

MODULE = "benchmarks.performance.device_run"
LIMIT_S = 1800
QUANTITIES = {
    "latent": "latent map, {n_races:,} races, 4 x (500 + 1000)",
    "marginal": "marginal map, {n_races:,} races, 4 x (500 + 1000)",
    "scenarios": "{n_scenarios:,} scenarios of 40 cars",
}


class Sizes(NamedTuple):
    """Races of a fit, scenarios of a turn, and turns."""

    n_races: int
    n_scenarios: int
    turns: int


FULL, SMALL = (Sizes(360, 2**17, 3), Sizes(1440, 2**20, 1)), (Sizes(8, 256, 1),)


def measure(cells: tuple[Sizes, ...]) -> dict[str, list[Row]]:
    """Measure both devices, each size in a separate process.

    Raises
    ------
    SkippedError
        If JAX finds no GPU.
    """
    platform, name = measure_apart(MODULE, {"sizes": None}, LIMIT_S)
    if platform == "cpu":
        raise SkippedError("no GPU: JAX finds one where its CUDA plugin is installed")
    machine = f"{measured_on(['jax', 'numpyro'])}; GPU: {name}"
    rows: list[Row] = []
    for sizes in cells:
        cpu, gpu = measure_device("cpu", sizes), measure_device("cuda", sizes)
        rows += [
            {
                "measurement": text.format(**sizes._asdict()),
                **repeated("cpu_s", cpu[quantity]),
                **repeated("gpu_s", gpu[quantity]),
                **repeated("cpu_over_gpu", ratios(cpu[quantity], gpu[quantity])),
                "measured_on": machine,
            }
            for quantity, text in QUANTITIES.items()
        ]
    return {"devices": rows}


def measure_device(device: str, sizes: Sizes) -> dict[str, list[float]]:
    """Return the seconds of each quantity on one device."""
    request = {"sizes": sizes, "on_cpu": device == "cpu"}
    found: dict[str, list[float]] = measure_apart(MODULE, request, LIMIT_S, {"JAX_PLATFORMS": device})
    return found
