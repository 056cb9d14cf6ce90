"""All samplers on one map and one number of races: the process that `samplers` starts.

The time of the first run includes compilation; then the samplers run in turns. The effective sample size is
the smallest bulk value over the parameters, of all chains (Vehtari et al. 2021, doi:10.1214/20-BA1221).
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import arviz as az
import numpy as np

from benchmarks.performance.jax_samplers import (
    Draws,
    Length,
    Sampler,
    blackjax_sampler,
    gradient_seconds,
    numpyro_sampler,
    public,
)
from benchmarks.performance.problems import (
    ARCHETYPE,
    LatentProblem,
    MarginalProblem,
    latent_problem,
    marginal_problem,
)
from benchmarks.performance.timing import answer
from benchmarks.sbc import gather
from calibration_pipeline.calibration.latent import latent_calibration_model, summarise
from calibration_pipeline.calibration.latent_plain import plain_latent_model
from calibration_pipeline.calibration.surfaces import tabulate_surfaces
from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.mcmc.nuts import TARGET_ACCEPT, run_nuts, use_host_devices
from calibration_pipeline.models import run_mcmc_calibration, track_archetype_calibration_model

OURS = "this project"
DEFAULT_ACCEPT = 0.8
"""Default target acceptance of the other samplers."""
LARGEST_DIFFERENCE = 0.35
"""Limit on the difference of two samplers' posterior means, in posterior standard deviations."""
FEW_DRAWS = 30
Makers = dict[str, Callable[[], Sampler]]


def shipped(model: Callable[..., Any], arguments: tuple, length: Length, seed: int) -> Draws:
    """Sample with this project's NUTS."""
    settings = {"n_warmup": length.n_warmup, "n_samples": length.n_samples, "n_chains": length.n_chains}
    return public(run_nuts(model, arguments, **settings, seed=seed).get_samples(group_by_chain=True))


def nutpie_sampler(model: Any, length: Length) -> Sampler:
    """Return nutpie's NUTS for a PyMC model, compiled."""
    import nutpie

    compiled = nutpie.compile_pymc_model(model)

    def sample(seed: int) -> Draws:
        trace = nutpie.sample(
            compiled,
            draws=length.n_samples,
            tune=length.n_warmup,
            chains=length.n_chains,
            target_accept=length.target_accept,
            seed=seed + 1,
            progress_bar=False,
        )
        return public({name: values.values for name, values in trace["posterior"].dataset.items()})

    def gradient_seconds() -> float:
        started = time.perf_counter()
        trace = nutpie.sample(
            compiled, draws=FEW_DRAWS, tune=FEW_DRAWS, chains=1, cores=1, seed=1, progress_bar=False
        )
        seconds = time.perf_counter() - started
        steps = [trace[group]["n_steps"].sum().item() for group in ("sample_stats", "warmup_sample_stats")]
        return seconds / sum(steps)

    return Sampler(sample, gradient_seconds)


def latent_makers(problem: LatentProblem, length: Length, tabulated: bool) -> Makers:
    """Return the samplers of the latent map by name."""
    from benchmarks.performance import pymc_models

    def table() -> tuple:
        evidence = gather(problem.fields, problem.retired, problem.running_order)
        return (summarise(evidence, tabulate_surfaces(evidence.order), problem.n_seasons),)

    def ours(seed: int) -> Draws:
        return shipped(latent_calibration_model, arguments if tabulated else table(), length, seed)

    if tabulated:
        model, arguments = latent_calibration_model, table()
        return _makers(ours, model, arguments, length, lambda: pymc_models.tabulated_latent(*arguments))
    model, arguments = plain_latent_model, tuple(problem)
    return _makers(ours, model, arguments, length, lambda: pymc_models.plain_latent(problem))


def marginal_makers(problem: MarginalProblem, length: Length, tabulated: bool) -> Makers:
    """Return the samplers of the marginal map by name."""
    from benchmarks.performance import pymc_models

    finish, probabilities, season = problem

    def ours(seed: int) -> Draws:
        if tabulated:
            return shipped(model, arguments, length, seed)
        settings = (length.n_warmup, length.n_samples, seed, length.n_chains)
        _, mcmc = run_mcmc_calibration(finish, probabilities, ARCHETYPE, *settings, season=season)
        return public(mcmc.get_samples(group_by_chain=True))

    if tabulated:
        surfaces = marginal.tabulate(marginal.as_races(finish, probabilities))
        tables = marginal.season_tables(surfaces, season, int(season.max()) + 1)
        model, arguments = marginal.tabulated_model, (tables,)
        return _makers(ours, model, arguments, length, lambda: pymc_models.tabulated_marginal(tables))
    model, arguments = track_archetype_calibration_model, (finish, probabilities, ARCHETYPE, season)
    return _makers(ours, model, arguments, length, lambda: pymc_models.plain_marginal(problem))


def _makers(
    ours: Callable[[int], Draws],
    model: Callable[..., Any],
    arguments: tuple,
    length: Length,
    pymc: Callable[[], Any],
) -> Makers:
    return {
        OURS: lambda: Sampler(ours, lambda: gradient_seconds(model, arguments)),
        "NumPyro": lambda: numpyro_sampler(model, arguments, length),
        "PyMC with nutpie": lambda: nutpie_sampler(pymc(), length),
        "BlackJAX": lambda: blackjax_sampler(model, arguments, length),
    }


def effective(draws: Draws) -> float:
    """Return the smallest bulk effective sample size over the parameters."""
    chains = [np.asarray(values, np.float64).reshape(*values.shape[:2], -1) for values in draws.values()]
    return min(float(az.ess(each, method="bulk")) for values in chains for each in np.moveaxis(values, -1, 0))


def difference(draws: Draws, reference: Draws) -> float:
    """Return the largest difference of two posterior means, in posterior standard deviations."""
    return max(
        float(np.max(np.abs(draws[name].mean((0, 1)) - known.mean((0, 1))) / known.std((0, 1))))
        for name, known in reference.items()
    )


def measure(
    kind: str, n_races: int, tabulated: bool, length: list[int], turns: int, only_ours: bool = False
) -> list[dict]:
    """Measure the samplers of a map.

    Returns
    -------
    list of dict
        For each sampler: seconds and effective samples of the first run and of every later run, and the
        seconds of one gradient. With `only_ours`, the other samplers have only the gradient.
    """
    use_host_devices(length[0])
    logging.disable(logging.WARNING)
    arguments = (Length(*length, TARGET_ACCEPT if tabulated else DEFAULT_ACCEPT), tabulated)
    makers = (
        latent_makers(latent_problem(n_races), *arguments)
        if kind == "latent"
        else marginal_makers(marginal_problem(n_races), *arguments)
    )
    rows: dict[str, dict[str, Any]] = {}
    running: dict[str, Sampler] = {}
    reference: Draws = {}
    for name, make in makers.items():
        started = time.perf_counter()
        sampler = make()
        rows[name] = {"sampler": name, "first": None, "warm": []}
        if name == OURS or not only_ours:
            draws = sampler.sample(0)
            rows[name]["first"] = [time.perf_counter() - started, effective(draws)]
            reference = reference or draws
            if (apart := difference(draws, reference)) > LARGEST_DIFFERENCE:
                raise ValueError(f"Means of {name} are {apart:.2f} sd from ours: {kind}, {n_races} races.")
            running[name] = sampler
        rows[name]["gradient"] = sampler.gradient_seconds()
    for turn in range(1, turns + 1):
        for name, sampler in running.items():
            started = time.perf_counter()
            draws = sampler.sample(turn)
            rows[name]["warm"].append([time.perf_counter() - started, effective(draws)])
    return list(rows.values())


if __name__ == "__main__":
    answer(measure)
