"""Whether the three maps find the truth in data from their own models.

Simulation-based calibration: parameters are drawn from the prior and results from the parameters; the map is
fitted as it is shipped. Over many such simulations the rank of the truth among posterior draws is uniform,
for every parameter and for the log-likelihood, which reacts to mistakes that no single parameter shows (Talts
et al. 2018, arXiv:1804.06788; Modrák et al. 2023, doi:10.1214/23-BA1404). Ranks are judged by their
distribution function with a simultaneous band (Säilynoja, Bürkner & Vehtari 2022,
doi:10.1007/s11222-022-10090-6). Recovery: the same with truths that are planted.
"""

from collections.abc import Mapping

import jax
import numpy as np
import polars as pl
from arviz_stats.ecdf_utils import compute_ecdf, get_pointwise_confidence_band, simulate_confidence_bands
from numpy.typing import ArrayLike, NDArray
from numpyro.infer import Predictive

from calibration_pipeline.calibration.archetype_fit import PARAMETERS, log_likelihood, thin
from calibration_pipeline.calibration.latent import Evidence, latent_calibration_model, summarise
from calibration_pipeline.calibration.latent_plain import Fields, plain_latent_model
from calibration_pipeline.calibration.race_curves import tabulate_incidents, tabulate_orders
from calibration_pipeline.calibration.surfaces import tabulate_surfaces
from calibration_pipeline.event_map.model import BOX, plain_event_model, pooled_event_model, tabulate
from calibration_pipeline.event_map.races import EventRaces
from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.marginal.predictive import race_log_likelihoods
from calibration_pipeline.mcmc.nuts import run_nuts
from calibration_pipeline.mcmc.priors import PRIOR_SLOPE_MU
from calibration_pipeline.models import run_mcmc_calibration, track_archetype_calibration_model
from calibration_pipeline.stats.race_noise import NoiseTables, read_tables, sampler_tables, tabulate_noise

N_CHAINS = 2
N_WARMUP = 250
N_SAMPLES = 400
KEPT_DRAWS = 49
"""Draws kept of a chain, near independent: ranks are then 0, ..., 98."""
BAND_SIMULATIONS = 5000
MARGINAL = ("slope_mu", "slope_sigma", "noise_sigma", "intercept")
EVENT = ("slope_mu", "slope_sigma", "archetype_sigma", "noise_sigma", "intercept", "log_slope")


def gather(fields: Fields, retired: ArrayLike, running_order: ArrayLike) -> Evidence:
    """Return the evidence that results are, of races whose fields are known.

    Parameters
    ----------
    fields : Fields
    retired, running_order : array_like, shape (race, driver)
        As drawn by `latent_plain.plain_latent_model`.
    """
    is_car = np.asarray(fields.is_car)
    out = np.asarray(retired, bool) & is_car
    order = tabulate_orders(np.asarray(fields.log_strength), np.asarray(running_order)[:, None, :])
    incident = tabulate_incidents(
        np.asarray(fields.incident_logit), np.asarray(fields.chaos_scale), out, is_car
    )
    weight = np.ones(len(is_car), np.float32)
    return Evidence(order[:, 0], incident, np.asarray(fields.season), weight, fields.reference)


def latent_ranks(fields: Fields, n_seasons: int, n_simulations: int, seed: int) -> pl.DataFrame:
    """Rank truths from the latent map's prior among the draws of its fits.

    Parameters
    ----------
    fields : Fields
        Of the races of every simulation.
    n_seasons : int
        Seasons of the walk; those without races are coming ones.
    n_simulations, seed : int

    Returns
    -------
    polars.DataFrame
        simulation, quantity, rank (0 to 2 `KEPT_DRAWS`), pit (the rank as a share, ties with the ends broken
        at random: uniform on [0, 1] if the fits are right).
    """
    prior = Predictive(plain_latent_model, num_samples=n_simulations)
    drawn = {name: np.asarray(v) for name, v in prior(jax.random.key(seed), fields, n_seasons).items()}
    ranks = []
    for i in range(n_simulations):
        evidence = gather(fields, drawn["retired"][i], drawn["running_order"][i])
        surfaces = tabulate_surfaces(evidence.order)
        samples = _fit_latent(evidence, n_seasons, seed + i)
        found = {name: thin(values, KEPT_DRAWS) for name, values in samples.items()}
        truth = {name: drawn[name][i][None, None] for name in PARAMETERS}
        for values in (found, truth):
            known = (values[name] for name in ("log_slope", "noise_sigma", "intercept"))
            values["log_likelihood"] = log_likelihood(evidence, surfaces, *known).sum(axis=-1)
        ranks.append(_ranks(_flat(truth), _flat(found)))
    return _rank_table(ranks, seed)


def recover(
    fields: Fields, n_seasons: int, truth: Mapping[str, ArrayLike], n_replicates: int, seed: int
) -> pl.DataFrame:
    """Fit the latent map to results under planted truths.

    Parameters
    ----------
    fields : Fields
        Of the races of every replicate.
    n_seasons : int
    truth : mapping
        log_slope (season), noise_sigma (), intercept ().
    n_replicates, seed : int

    Returns
    -------
    polars.DataFrame
        replicate, quantity, truth, mean, sd, lower, upper (central 95 %).
    """
    planted = {
        name: np.broadcast_to(np.asarray(value, np.float32), (n_replicates, *np.shape(value)))
        for name, value in truth.items()
    }
    model = Predictive(plain_latent_model, planted, condition_deterministic=True)
    drawn = {name: np.asarray(v) for name, v in model(jax.random.key(seed), fields, n_seasons).items()}
    tables = []
    for i in range(n_replicates):
        evidence = gather(fields, drawn["retired"][i], drawn["running_order"][i])
        draws_of = _fit_latent(evidence, n_seasons, seed + i)
        found = _flat({name: draws_of[name] for name in truth})
        known = _flat({name: values[i][None, None] for name, values in planted.items()})
        draws = np.array(list(found.values()))
        lower, upper = np.quantile(draws, (0.025, 0.975), axis=1)
        tables.append(
            pl.DataFrame(
                {
                    "replicate": [i] * len(found),
                    "quantity": list(found),
                    "truth": [float(known[name][0]) for name in found],
                    "mean": draws.mean(axis=1),
                    "sd": draws.std(axis=1),
                    "lower": lower,
                    "upper": upper,
                }
            )
        )
    return pl.concat(tables)


def _fit_latent(evidence: Evidence, n_seasons: int, seed: int) -> dict[str, NDArray]:
    """Parameter -> draws (chain, draw, ...)."""
    mcmc = run_nuts(
        latent_calibration_model,
        (summarise(evidence, tabulate_surfaces(evidence.order), n_seasons),),
        n_warmup=N_WARMUP,
        n_samples=N_SAMPLES,
        n_chains=N_CHAINS,
        seed=seed,
    )
    samples = mcmc.get_samples(group_by_chain=True)
    return {name: np.asarray(samples[name]) for name in PARAMETERS}


def marginal_ranks(predicted_probs: NDArray, season: NDArray, n_simulations: int, seed: int) -> pl.DataFrame:
    """Rank truths from the marginal map's prior among the draws of its fits.

    The model draws the cars one by one, so this proves the code. The coverage of intervals where finishes are
    permutations is another question.

    Parameters
    ----------
    predicted_probs : array, shape (race, driver, position)
    season : array of int, shape (race)
    n_simulations, seed : int

    Returns
    -------
    polars.DataFrame
        As `latent_ranks`.
    """
    prior = Predictive(track_archetype_calibration_model, num_samples=n_simulations)
    arguments = (jax.random.key(seed), None, predicted_probs, "intermediate", season)
    drawn = {name: np.asarray(v) for name, v in prior(*arguments).items()}
    index = np.unique(season, return_inverse=True)[1]
    ranks = []
    for i in range(n_simulations):
        finish = drawn["finish_position"][i]
        samples, _ = run_mcmc_calibration(
            finish,
            predicted_probs,
            "intermediate",
            N_WARMUP,
            N_SAMPLES,
            seed + i,
            N_CHAINS,
            season=season,
        )
        found = {name: np.asarray(samples[name]) for name in (*MARGINAL, "slope")}
        found = {name: v.reshape(N_CHAINS, N_SAMPLES, *v.shape[1:]) for name, v in found.items()}
        found = {name: thin(v, KEPT_DRAWS) for name, v in found.items()}
        truth = {name: drawn[name][i][None, None] for name in found}
        races = marginal.as_races(finish, predicted_probs)
        for values in (found, truth):
            flat = {name: v.reshape(-1, *v.shape[2:]).astype(np.float32) for name, v in values.items()}
            flat["log_slope"] = np.log(flat["slope"])[:, index]
            values["log_likelihood"] = race_log_likelihoods(races, flat).sum(axis=-1)[None]
        ranks.append(_ranks(_flat(truth), _flat(found)))
    return _rank_table(ranks, seed)


def event_tables(
    races: EventRaces,
    archetype: NDArray[np.int_],
    season: NDArray[np.int_],
    n_archetypes: int,
    n_seasons: int,
) -> NoiseTables:
    """Return the event map's likelihood of all races, as the sampler reads it.

    Parameters
    ----------
    races : EventRaces
    archetype, season : array of int, shape (race)
    n_archetypes, n_seasons : int
    """
    tables = tabulate_noise(tabulate(races))
    sums = np.zeros((n_archetypes, n_seasons, *tables.shape[1:]), np.float32)
    np.add.at(sums, (archetype, season), tables)
    return sampler_tables(sums, BOX, PRIOR_SLOPE_MU)


def event_ranks(
    races: EventRaces, archetype: NDArray[np.int_], season: NDArray[np.int_], n_simulations: int, seed: int
) -> pl.DataFrame:
    """Rank truths from the event map's prior among the draws of its fits.

    The model draws the cars one by one, so this proves the code. Recovery where the number of winners is
    fixed is another question.

    Parameters
    ----------
    races : EventRaces
        Of every simulation; `happened` is not read.
    archetype, season : array of int, shape (race)
    n_simulations, seed : int

    Returns
    -------
    polars.DataFrame
        As `latent_ranks`.
    """
    sizes = int(archetype.max()) + 1, int(season.max()) + 1
    prior = Predictive(plain_event_model, num_samples=n_simulations)
    arguments = (jax.random.key(seed), races, archetype, season, *sizes)
    drawn = {name: np.asarray(v) for name, v in prior(*arguments).items()}
    ranks = []
    for i in range(n_simulations):
        happened = drawn["event"][i].astype(bool) & np.asarray(races.is_car)
        tables = event_tables(races._replace(happened=happened), archetype, season, *sizes)
        mcmc = run_nuts(
            pooled_event_model,
            (tables,),
            n_warmup=N_WARMUP,
            n_samples=N_SAMPLES,
            n_chains=N_CHAINS,
            seed=seed + i,
        )
        samples = mcmc.get_samples(group_by_chain=True)
        found = {name: thin(np.asarray(samples[name]), KEPT_DRAWS) for name in EVENT}
        truth = {name: drawn[name][i][None, None] for name in EVENT}
        for values in (found, truth):
            known = (values[name] for name in ("log_slope", "noise_sigma", "intercept"))
            values["log_likelihood"] = np.asarray(_event_log_likelihood(tables, *known))
        ranks.append(_ranks(_flat(truth), _flat(found)))
    return _rank_table(ranks, seed)


@jax.jit
def _event_log_likelihood(
    tables: NoiseTables, log_slope: jax.Array, noise_sigma: jax.Array, intercept: jax.Array
) -> jax.Array:
    """Log-likelihood of all races at draws (chain, draw)."""

    def at(slope: jax.Array, noise: jax.Array, shift: jax.Array) -> jax.Array:
        return read_tables(tables, slope, noise[:, None], shift[:, None]).sum()

    return jax.vmap(jax.vmap(at))(log_slope, noise_sigma, intercept)


def judge_ranks(ranks: pl.DataFrame, probability: float) -> pl.DataFrame:
    """Hold the ranks' distribution functions against the uniform one.

    Parameters
    ----------
    ranks : polars.DataFrame
        quantity, pit.
    probability : float
        That a band holds the whole distribution function of a quantity whose ranks are uniform.

    Returns
    -------
    polars.DataFrame
        quantity, u, difference (distribution function minus u), lower, upper (its band around 0), inside.
    """
    n = ranks.height // ranks["quantity"].n_unique()
    u = np.arange(1, n) / n
    rng = np.random.default_rng(n)
    pointwise = simulate_confidence_bands(n, 1, u, probability, BAND_SIMULATIONS, rng)
    lower, upper = get_pointwise_confidence_band(pointwise, n, u)
    tables = [
        pl.DataFrame({"u": u, "difference": compute_ecdf(part["pit"].to_numpy(), u) - u}).select(
            quantity=pl.lit(str(name[0])),
            u="u",
            difference="difference",
            lower=pl.Series(lower - u),
            upper=pl.Series(upper - u),
        )
        for name, part in ranks.group_by("quantity", maintain_order=True)
    ]
    return pl.concat(tables).with_columns(inside=pl.col("difference").is_between("lower", "upper"))


def _flat(values: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Scalar quantities by name, all chains together: name or name[i] -> (draw)."""
    quantities: dict[str, NDArray] = {}
    for name, array in values.items():
        rows = array.reshape(array.shape[0] * array.shape[1], -1)
        labels = [name] if array.ndim == 2 else [f"{name}[{i}]" for i in range(rows.shape[1])]
        quantities.update(zip(labels, rows.T, strict=True))
    return quantities


def _ranks(truth: Mapping[str, NDArray], draws: Mapping[str, NDArray]) -> dict[str, int]:
    return {name: int((values < truth[name]).sum()) for name, values in draws.items()}


def _rank_table(ranks: list[dict[str, int]], seed: int) -> pl.DataFrame:
    table = pl.DataFrame(ranks).with_row_index("simulation")
    long = table.unpivot(index="simulation", variable_name="quantity", value_name="rank")
    spread = np.random.default_rng(seed).random(long.height)
    n_ranks = N_CHAINS * KEPT_DRAWS + 1
    return long.with_columns(pit=(pl.col("rank") + pl.Series(spread)) / n_ranks)
