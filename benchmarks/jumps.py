"""Planted jumps of the calibration, followed race by race and season by season: benchmarks/results/jumps.csv.

    python -m benchmarks.jumps

Histories have four seasons of 36 races of 36 cars. Results are drawn from the reverse Plackett-Luce law with
the planted log slope. Forecasts have slope 1. The state is filtered with the slow parameters of `SLOW`. The
map that moves once a season is fitted to the earlier seasons of each archetype, for the first
`MAP_HISTORIES`. `lost` compares the state with the planted slope, nats a car. A jump of the front tilt
changes the order of the front group alone; the map has no front tilt.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.result_files import Row, markdown_table, output_parser, write_results
from benchmarks.state_laws import cumulative_probability
from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.calibration.latent import Evidence, latent_calibration_model, summarise
from calibration_pipeline.calibration.race_curves import Reference, front_group, tabulate_orders
from calibration_pipeline.calibration.state import (
    RACES_A_SEASON,
    SlowParameters,
    front_log_likelihood,
    order_log_likelihood,
    slope_dynamics,
    tilt_dynamics,
)
from calibration_pipeline.calibration.surfaces import tabulate_surfaces
from calibration_pipeline.mcmc.nuts import run_nuts, use_host_devices
from calibration_pipeline.scenarios.network.structure import FRONT_CARS
from calibration_pipeline.stats.state_filter import POINTS, Dynamics, State, filter_races, mean_by_draw

N_HISTORIES, MAP_HISTORIES, N_SEASONS, N_CARS, JUMP = 60, 4, 4, 36, -0.4
N_RACES = N_SEASONS * RACES_A_SEASON
SLOW = {"slope_sigma": 0.08, "archetype_sigma": 0.07}
"""As fitted to real seasons; the simulated races have no noise."""
PLANTED = {"no jump": N_RACES, "at a season's start": 2 * RACES_A_SEASON, "in mid-season": 90}
"""Name -> first race of the lower slope."""
ARCHETYPE = np.arange(N_RACES) % len(ARCHETYPES)
SEASON = np.arange(N_RACES) // RACES_A_SEASON
NUTS = {"n_warmup": 300, "n_samples": 500, "n_chains": 2, "seed": 1}


def draw_curves(rng: np.random.Generator, log_slope: NDArray) -> NDArray[np.float32]:
    """Draw results of races, and tabulate their orders: (race, coefficient)."""
    log_strength = rng.normal(size=(len(log_slope), N_CARS))
    order = _rank(np.exp(log_slope)[:, None] * log_strength - rng.gumbel(size=log_strength.shape))
    return _tabulate(log_strength, order)


def draw_front_curves(rng: np.random.Generator, tilt: NDArray) -> tuple[NDArray, NDArray]:
    """Draw results whose front group has another sharpness, and tabulate all stages and the front group's."""
    log_strength = rng.normal(size=(len(tilt), N_CARS))
    order = _rank(log_strength - rng.gumbel(size=log_strength.shape))
    again = np.exp(tilt)[:, None] * log_strength - rng.gumbel(size=log_strength.shape)
    order = _rank(np.where(order <= FRONT_CARS, again + N_CARS, -order))
    return _tabulate(log_strength, order), _tabulate(log_strength, front_group(order))


def _rank(score: NDArray) -> NDArray[np.int_]:
    """Rank the cars by score, the largest first."""
    return 1 + np.argsort(np.argsort(-score, axis=1), axis=1)


def _tabulate(log_strength: NDArray, order: NDArray) -> NDArray[np.float32]:
    return tabulate_orders(log_strength.astype(np.float32), order[:, None].astype(np.int16))[:, 0]


def draw_truth(rng: np.random.Generator, law: Dynamics) -> NDArray[np.float64]:
    """Draw the log slope of each race of a history from the law itself: (race)."""
    starts = np.diff(SEASON, prepend=0) > 0
    jumps = rng.random(N_RACES) < np.where(starts, law.season_jump_probability, law.jump_probability)
    steps = np.where(jumps, law.jump_sigma, law.walk_sigma[0]) * rng.normal(size=N_RACES)
    steps[0] = law.initial_sigma * rng.normal()
    deviation = law.deviation_sigma[0] * rng.normal(size=len(ARCHETYPES))
    kept, truth = 0.5 ** (1 / law.deviation_half_life), np.cumsum(steps)
    for race in range(N_RACES):
        new = np.sqrt(1 - kept**2) * law.deviation_sigma[0] * rng.normal(size=len(ARCHETYPES))
        deviation = kept * deviation + new if race else deviation
        truth[race] += deviation[ARCHETYPE[race]]
    return truth


def slow_parameters(n_draws: int) -> SlowParameters:
    """Return the slow parameters, the same in every draw."""
    constant = {name: np.full(n_draws, value) for name, value in SLOW.items()}
    noise = np.zeros((len(ARCHETYPES), n_draws))
    return SlowParameters(**constant, noise_sigma=noise, references=[Reference(0.0, 0.0)] * len(ARCHETYPES))


def filter_histories(curves: list[NDArray]) -> tuple[list[State], NDArray, NDArray]:
    """Filter histories side by side: states, log evidence and log-likelihoods, (race, history, ...)."""
    single = slow_parameters(1)
    likelihood = np.concatenate([order_log_likelihood(ARCHETYPE, c, single) for c in curves], axis=1)
    law = slope_dynamics(slow_parameters(len(curves)))
    filtered = filter_races(likelihood, ARCHETYPE, np.diff(SEASON, prepend=0) > 0, law, len(ARCHETYPES))
    return filtered.before, filtered.log_evidence, likelihood


def state_means(states: list[State]) -> NDArray[np.float64]:
    """Return the mean log slope before each race: (race, history)."""
    return np.array([mean_by_draw(s, int(a)) for s, a in zip(states, ARCHETYPE, strict=True)])


def map_means(curves: NDArray) -> NDArray[np.float64]:
    """Return the mean log slope of the map fitted to earlier seasons, for each race: (race)."""
    means = np.zeros(N_RACES)
    for archetype in range(len(ARCHETYPES)):
        own = archetype == ARCHETYPE
        order = curves[own]
        surfaces = tabulate_surfaces(order)
        for season in range(1, N_SEASONS):
            weight = (SEASON[own] < season).astype(np.float32)
            evidence = Evidence(order, np.zeros((len(order), 2)), SEASON[own], weight, Reference(0.0, 0.0))
            fit = run_nuts(latent_calibration_model, (summarise(evidence, surfaces, N_SEASONS + 1),), **NUTS)
            means[own & (season == SEASON)] = fit.get_samples()["log_slope"][:, season].mean()
    return means


def races_until_half(means: NDArray, first: int) -> NDArray[np.float64]:
    """Return the races from the jump until half of it is found; infinite if it is not found: (history)."""
    found = means[first:] < JUMP / 2
    return np.where(found.any(axis=0), found.argmax(axis=0), np.inf)


def jump_row(name: str, first: int) -> Row:
    """Return the row of one planted jump."""
    truth = np.where(np.arange(N_RACES) < first, 0.0, JUMP)
    curves = [draw_curves(np.random.default_rng([first, k]), truth) for k in range(N_HISTORIES)]
    states, evidence, likelihood = filter_histories(curves)
    nearest = np.abs(POINTS - truth[:, None]).argmin(axis=1)
    known = likelihood[np.arange(N_RACES), :, nearest]
    lost = (known - evidence) / N_CARS
    row = {"planted": name, "lost": f"{lost.mean():.4f}", "coverage": "", "state_races": "", "map_races": ""}
    if first < N_RACES:
        by_map = np.stack([map_means(c) for c in curves[:MAP_HISTORIES]], axis=1)
        row["state_races"] = f"{np.median(races_until_half(state_means(states), first)):.0f}"
        row["map_races"] = f"{np.median(races_until_half(by_map, first)):.0f}"
    return row


def tilt_row(first: int) -> Row:
    """Return the row of a jump of the front tilt; `lost` is of the orders of front groups."""
    tilt = np.where(np.arange(N_RACES) < first, 0.0, JUMP)
    drawn = [draw_front_curves(np.random.default_rng([9, k]), tilt) for k in range(N_HISTORIES)]
    slopes = filter_histories([order for order, _ in drawn])[0]
    mean = state_means(slopes)
    single = slow_parameters(1)
    likelihood = np.concatenate(
        [front_log_likelihood(ARCHETYPE, front, single, mean[:, k]) for k, (_, front) in enumerate(drawn)],
        axis=1,
    )
    law = tilt_dynamics()
    law = law._replace(
        walk_sigma=np.repeat(law.walk_sigma, N_HISTORIES),
        deviation_sigma=np.repeat(law.deviation_sigma, N_HISTORIES),
    )
    filtered = filter_races(likelihood, ARCHETYPE, np.diff(SEASON, prepend=0) > 0, law, len(ARCHETYPES))
    # The tilt is relative to the slope of all stages; the planted one is the sum.
    nearest = np.abs(POINTS - (tilt[:, None] - mean)[..., None]).argmin(axis=-1)
    known = np.take_along_axis(likelihood, nearest[..., None], axis=-1)[..., 0]
    found = races_until_half(filtered.mean + mean, first)
    return {
        "planted": "front tilt, at a season's start",
        "lost": f"{(known - filtered.log_evidence).mean() / N_CARS:.4f}",
        "coverage": "",
        "state_races": f"{np.median(found):.0f}",
        "map_races": "",
    }


def law_row() -> Row:
    """Return the coverage of 95 % intervals over histories drawn from the law itself."""
    law = slope_dynamics(slow_parameters(1))
    truth = np.stack([draw_truth(np.random.default_rng([7, k]), law) for k in range(N_HISTORIES)], axis=1)
    curves = [draw_curves(np.random.default_rng([8, k]), truth[:, k]) for k in range(N_HISTORIES)]
    states, _, _ = filter_histories(curves)
    below = np.array(
        [
            cumulative_probability(s, int(a), x[:, None])[:, 0]
            for s, a, x in zip(states, ARCHETYPE, truth, strict=True)
        ]
    )
    covered = ((below > 0.025) & (below < 0.975)).mean()
    return {
        "planted": "from the law",
        "lost": "",
        "coverage": f"{covered:.3f}",
        "state_races": "",
        "map_races": "",
    }


def main() -> None:
    """Run the benchmark."""
    options = output_parser(__doc__).parse_args()
    use_host_devices()
    rows: list[Row] = [jump_row(name, first) for name, first in PLANTED.items()]
    rows += [tilt_row(PLANTED["at a season's start"]), law_row()]
    print(markdown_table(rows), flush=True)
    write_results("jumps", rows, options.output)


if __name__ == "__main__":
    main()
