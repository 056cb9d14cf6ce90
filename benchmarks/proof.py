"""Tests of the calibration models: simulation-based calibration, recovery, and coverage of intervals.

    python -m benchmarks.proof sbc-latent --simulations 1000
    python -m benchmarks.proof sbc-marginal --simulations 300
    python -m benchmarks.proof sbc-network --simulations 100
    python -m benchmarks.proof recovery --simulations 4
    python -m benchmarks.proof permutations --simulations 60

Each part draws its picture or prints its table for docs/proof.md.
"""

import argparse
import logging
import time
from itertools import product
from pathlib import Path

import jax
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.network_sbc import draw_fields, fit_simulated
from benchmarks.sbc import judge_ranks, latent_ranks, marginal_ranks, recover
from calibration_pipeline.calibration.latent_plain import Fields
from calibration_pipeline.calibration.race_curves import Reference
from calibration_pipeline.mcmc.nuts import use_host_devices
from calibration_pipeline.models import run_mcmc_calibration
from calibration_pipeline.plots.figures import BLUE, GREY, VERMILION
from calibration_pipeline.stats.plackett_luce import rank_columns

HELD = (
    pl.col("truth")
    .is_between("lower", "upper")
    .filter((pl.col("quantity") != "noise_sigma") | (pl.col("truth") > 0))
)
"""Whether intervals contain the true value. A noise of 0 is omitted: it is the end of its range."""
FAILURE_RATE = 0.01
"""Probability that the ranks of any quantity of a right map leave their band."""
SLOPES, NOISES, INTERCEPTS, RACES = (
    (0.5, 0.7, 1.0, 1.4, 2.0),
    (0.0, 0.25, 0.5),
    (-0.5, 0.0, 0.5),
    (12, 36, 108),
)
LEVELS = (0.5, 0.8, 0.95)
BY_ARCHETYPE = ("incident_weight", "damage_weight", "front_sharpness")
"""Parameters of the network whose ranks are judged."""


def fields(n_races: int, n_cars: int, n_seasons: int, seed: int = 0) -> Fields:
    """Return races of a simulator with a reference slope different from 1, for example with team effects."""
    rng = np.random.default_rng(seed)
    shape = (n_races, n_cars)
    return Fields(
        log_strength=rng.normal(0, 1, shape).astype(np.float32),
        incident_logit=rng.normal(-2, 0.4, shape).astype(np.float32),
        chaos_scale=np.full(n_races, 0.6, np.float32),
        is_car=np.ones(shape, bool),
        season=np.arange(n_races) * n_seasons // n_races,
        reference=Reference(-0.15, 0.2),
    )


def bell_forecasts(n_races: int, n_cars: int, seed: int = 0) -> NDArray[np.float64]:
    """Return finish probabilities around a predicted order: (race, driver, position)."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(n_cars), (n_races, 1)), axis=1)[..., None]
    bell = np.exp(-0.5 * ((np.arange(n_cars) - order) / (0.2 * n_cars)) ** 2) + 0.01
    return bell / bell.sum(axis=-1, keepdims=True)


def judge(ranks: pl.DataFrame) -> pl.DataFrame:
    """Compare the ranks with bands that a right map leaves with probability `FAILURE_RATE`."""
    return judge_ranks(ranks, 1 - FAILURE_RATE / ranks["quantity"].n_unique())


def draw_bands(judged: pl.DataFrame) -> Figure:
    """Draw the rank distribution of each quantity minus the uniform distribution, with its band."""
    parts = judged.partition_by("quantity", maintain_order=True)
    n_rows = -(-len(parts) // 3)
    figure = Figure(figsize=(9, 2.3 * n_rows + 0.4), layout="constrained")
    axes = figure.subplots(n_rows, 3, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, part in zip(axes, parts, strict=False):
        ax.fill_between(part["u"], part["lower"], part["upper"], color=BLUE, alpha=0.2, label="band")
        ax.plot(part["u"], part["difference"], color=BLUE if part["inside"].all() else VERMILION)
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set_title(part["quantity"][0], fontsize=10)
    for ax in axes[len(parts) :]:
        ax.set_visible(False)
    figure.supxlabel("Rank of the truth, as a share")
    figure.supylabel("Share of simulations − uniform")
    return figure


def report_ranks(ranks: pl.DataFrame, path: Path) -> None:
    """Draw the bands, and print the departures."""
    judged = judge(ranks)
    draw_bands(judged).savefig(path, dpi=110)
    print_departures(judged)


def print_departures(judged: pl.DataFrame) -> None:
    """Print each quantity's largest departure and whether it stays inside its band."""
    for part in judged.partition_by("quantity", maintain_order=True):
        worst = part["difference"].abs().max()
        inside = "inside" if part["inside"].all() else "OUTSIDE"
        print(f"| {part['quantity'][0]} | {worst:.4f} | {inside} |")


def recovery(n_replicates: int) -> pl.DataFrame:
    """Fit known parameters over the grid; return the table of `recover` with slope, n_races and noise."""
    tables = []
    for n_races in RACES:
        races = fields(n_races, 36, 1)
        for i, (slope, noise, shift) in enumerate(product(SLOPES, NOISES, INTERCEPTS)):
            truth = {"log_slope": np.full(2, np.log(slope)), "noise_sigma": noise, "intercept": shift}
            cell = recover(races, 2, truth, n_replicates, seed=1000 * i)
            labels = {"n_races": pl.lit(n_races), "slope": pl.lit(slope), "noise": pl.lit(noise)}
            tables.append(cell.filter(pl.col("quantity") != "log_slope[1]").with_columns(**labels))
        print(f"{n_races} races done", flush=True)
    return pl.concat(tables)


def draw_recovery(found: pl.DataFrame) -> Figure:
    """Draw estimates with intervals over the true values, a column for each number of races."""
    rows = {"log_slope[0]": "Log slope", "noise_sigma": "Race noise", "intercept": "Incident intercept"}
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(len(rows), len(RACES), sharey="row")
    rng = np.random.default_rng(0)
    for line, (quantity, label) in zip(axes, rows.items(), strict=True):
        for ax, n_races in zip(line, RACES, strict=True):
            part = found.filter(quantity=quantity, n_races=n_races)
            truth, mean = part["truth"].to_numpy(), part["mean"].to_numpy()
            width = 0.06 * np.ptp(truth)
            x = truth + rng.uniform(-width, width, len(truth))
            error = np.abs(part.select("lower", "upper").to_numpy().T - mean)
            ax.errorbar(x, mean, error, fmt=".", color=BLUE, alpha=0.35, markersize=4, linewidth=0.8)
            ends = np.array([truth.min() - width, truth.max() + width])
            ax.plot(ends, ends, color=VERMILION, linewidth=1)
            inside = part.select(HELD.mean()).item()
            ax.set_title(f"{n_races} races: {inside:.0%} inside", fontsize=10)
        line[0].set_ylabel(label)
    figure.supxlabel("Truth")
    return figure


def recovery_table(found: pl.DataFrame) -> pl.DataFrame:
    """Return the coverage of intervals, the mean error in posterior sds and the root mean square error."""
    return found.group_by("quantity", "n_races", maintain_order=True).agg(
        inside=HELD.mean(),
        n=HELD.len(),
        bias_in_sd=((pl.col("mean") - pl.col("truth")) / pl.col("sd")).mean(),
        rmse=((pl.col("mean") - pl.col("truth")) ** 2).mean().sqrt(),
    )


def permutation_coverage(n_replicates: int, distortion: float, n_cars: int = 20) -> pl.DataFrame:
    """Return the coverage of the marginal map's slope intervals where finish positions are permutations.

    Results come from a reverse Plackett-Luce law with team effects and race-level noise. Forecasts are the
    finish probabilities of a law with `distortion` times the log strengths. The true slope is that of a
    fit to 1,000 races.
    """
    pool, drawn = 1000, 2000
    rng = np.random.default_rng(7)
    utility = rng.normal(0, 0.8, (pool, n_cars)).astype(np.float32)
    team = np.arange(n_cars) // 4

    @jax.jit
    def positions(key: jax.Array, scale: float) -> jax.Array:
        def draw_positions(arguments: tuple[jax.Array, jax.Array]) -> jax.Array:
            race_key, strength = arguments
            keys = jax.random.split(race_key, 3)
            day = 0.4 * jax.random.normal(keys[0], (drawn, n_cars // 4))[:, team]
            sharpness = jax.numpy.exp(0.2 * jax.random.normal(keys[1], (drawn, 1)))
            luck = jax.random.gumbel(keys[2], (drawn, n_cars))
            score = sharpness * (scale * strength + day) - luck
            return rank_columns(score.T, jax.numpy.ones((n_cars, drawn), bool))

        return jax.lax.map(draw_positions, (jax.random.split(key, pool), utility))

    counts = np.asarray(positions(jax.random.key(1), distortion))
    places = np.arange(1, n_cars + 1)
    forecast = ((counts[:, :, :, None] == places).sum(axis=2) + 0.5) / (drawn + n_cars / 2)
    results = np.asarray(positions(jax.random.key(2), 1.0)).transpose(0, 2, 1)
    reference, _ = run_mcmc_calibration(results[:, 0], forecast, "intermediate", 300, 500, 1, 2)
    true_slope = float(np.median(reference["slope"]))
    rows = []
    for n_races in RACES:
        slopes, shifts = [], []
        for i in range(n_replicates):
            races = rng.choice(pool, n_races, replace=False)
            finish = results[races, rng.integers(1, drawn, n_races)]
            samples, _ = run_mcmc_calibration(finish, forecast[races], "intermediate", 300, 500, i, 2)
            slopes.append(np.asarray(samples["slope"]))
            shifts.append(float(np.mean(samples["intercept"])))
        draws = np.array(slopes)
        row: dict[str, float] = {"distortion": distortion, "true slope": true_slope, "races": n_races}
        row["true intercept"] = float(np.median(reference["intercept"]))
        for level in LEVELS:
            lower, upper = np.quantile(draws, ((1 - level) / 2, (1 + level) / 2), axis=1)
            row[f"{level:.0%}"] = float(((lower < true_slope) & (true_slope < upper)).mean())
        row["mean estimate"] = float(draws.mean())
        row["mean intercept"] = float(np.mean(shifts))
        row["sd of estimates / posterior sd"] = float(draws.mean(axis=1).std() / draws.std(axis=1).mean())
        rows.append({**row, "replicates": n_replicates})
        print(rows[-1], flush=True)
    return pl.DataFrame(rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "part", choices=["sbc-latent", "sbc-marginal", "sbc-network", "recovery", "permutations"]
    )
    parser.add_argument(
        "--simulations", type=int, required=True, help="number of simulations, or of replicates of a cell"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulations, 1")
    parser.add_argument(
        "--images", type=Path, default=Path("docs/images"), help="folder of pictures, docs/images"
    )
    options = parser.parse_args()
    use_host_devices()
    logging.disable(logging.WARNING)
    options.images.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if options.part == "sbc-latent":
        ranks = latent_ranks(fields(18, 24, 3), 4, options.simulations, options.seed)
        report_ranks(ranks, options.images / "sbc_latent.png")
    elif options.part == "sbc-marginal":
        season = np.repeat([0, 1], 3)
        ranks = marginal_ranks(bell_forecasts(6, 10), season, options.simulations, options.seed)
        report_ranks(ranks, options.images / "sbc_marginal.png")
    elif options.part == "sbc-network":
        print_departures(
            judge(fit_simulated(draw_fields(80, 24), BY_ARCHETYPE, options.simulations, options.seed))
        )
    elif options.part == "recovery":
        found = recovery(options.simulations)
        draw_recovery(found).savefig(options.images / "recovery.png", dpi=110)
        with pl.Config(tbl_rows=-1):
            print(recovery_table(found))
            print(recovery_table(found.filter(pl.col("slope").is_between(0.6, 1.6))))
    else:
        permutation_coverage(options.simulations, 1.0)
        permutation_coverage(options.simulations, 1.5)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
