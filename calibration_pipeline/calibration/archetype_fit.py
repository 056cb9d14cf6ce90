"""Latent fit of one archetype to all its races.

The fit is a DataTree with ArviZ's groups and the group `convergence`. Its group `constant_data` has the
curves of the races, from which the pooled fits and the state are computed (`pooling`, `state`).
"""

import logging
from functools import partial

import jax
import numpy as np
import polars as pl
import xarray as xr
from jax import Array
from numpy.typing import NDArray
from numpyro.infer import MCMC, Predictive

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.latent import (
    MASS_OUTSIDE_LIMIT,
    Evidence,
    latent_calibration_model,
    log_likelihood_by_race,
    mass_outside,
    no_evidence,
    summarise,
)
from calibration_pipeline.calibration.latent_predictive import observed_statistics, replicate
from calibration_pipeline.calibration.race_curves import (
    Observed,
    RaceCurves,
    Reference,
    observe,
    pad_races,
    reference_sharpness,
    tabulate,
)
from calibration_pipeline.calibration.surfaces import tabulate_surfaces
from calibration_pipeline.mcmc.convergence import LATEST, convergence_group
from calibration_pipeline.mcmc.draws import posterior_group, sample_stats_group
from calibration_pipeline.mcmc.nuts import check_stored_draws, run_nuts
from calibration_pipeline.mcmc.priors import SCALARS

PREDICTIVE_DRAWS = 100
PARAMETERS: dict[str, tuple[str, ...]] = {**dict.fromkeys(SCALARS, ()), "log_slope": ("season",)}
"""Stored parameter -> its dims after (chain, draw)."""
LOG_LIKELIHOOD_BATCH = 50

logger = logging.getLogger(__name__)


def fit_archetype(
    ensemble: xr.Dataset,
    race_results: pl.DataFrame,
    archetype: Archetype,
    seasons: list[int],
    *,
    n_warmup: int = 500,
    n_samples: int = 1500,
    n_chains: int = 4,
    seed: int = 42,
) -> xr.DataTree:
    """Fit the latent map of one archetype to all its races.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, races of this archetype, in race order.
    race_results : polars.DataFrame
        `RaceResults` of at least these races.
    archetype : Archetype
    seasons : list of int
        Seasons of the walk, in order; the season after the last is added.
    n_warmup, n_samples, n_chains, seed
        As for NUTS; at least 500 draws a chain, because the fit is stored.

    Returns
    -------
    xarray.DataTree
        `CalibrationPosterior`.

    Raises
    ------
    ValueError
        If `n_samples` is below 500, or a car of the ensemble has no result.
    """
    check_stored_draws(n_samples)
    observed = observe(ensemble, race_results)
    curves = tabulate(ensemble, observed, seed)
    surfaces = tabulate_surfaces(curves.order)
    settings = {"n_warmup": n_warmup, "n_samples": n_samples, "n_chains": n_chains, "seed": seed}

    n_races = ensemble.sizes["race"]
    season = np.searchsorted(seasons, ensemble["season"].values)
    evidence = gather_evidence(curves, season, np.ones(n_races, bool))
    likelihood = summarise(evidence, surfaces, len(seasons) + 1)
    mcmc = run_nuts(latent_calibration_model, (likelihood,), **settings)
    tree = _tree(mcmc, evidence, ensemble, observed, curves, seasons)
    tree["convergence"] = xr.DataTree(convergence_group({LATEST: (tree, n_divergences(tree))}))
    posterior = tree["posterior"].to_dataset()
    drawn = (posterior[name].values for name in ("log_slope", "noise_sigma", "intercept"))
    outside = mass_outside(evidence, *drawn)
    if outside > MASS_OUTSIDE_LIMIT:
        logger.warning(
            "%s: %.2g of the posterior mass lies outside the likelihood's tables, more than %.0e.",
            archetype,
            outside,
            MASS_OUTSIDE_LIMIT,
        )
    tree.attrs = {
        "archetype": str(archetype),
        "reference_slope": float(np.exp(evidence.reference.log_slope)),
        "reference_noise": float(evidence.reference.noise_sigma),
        "mass_outside_table": outside,
        "n_races": n_races,
        **settings,
    }
    return tree


def gather_evidence(curves: RaceCurves, season: NDArray, seen: NDArray[np.bool_]) -> Evidence:
    """Gather the evidence of one archetype's seen races.

    Parameters
    ----------
    curves : RaceCurves
        Padded.
    season : array of int, shape (race)
        Index of each race's season.
    seen : array of bool, shape (race)

    Returns
    -------
    Evidence
        Padded as if no race followed the last seen one, so that later races do not change a bit of a fit.
    """
    n_used = int(np.flatnonzero(seen)[-1]) + 1 if seen.any() else 0
    weight = pad_races(seen[:n_used].astype(np.float32))
    near = RaceCurves(*(values[: len(weight)] for values in curves))
    reference = reference_sharpness(near, weight) if seen.any() else Reference(0.0, 0.0)
    return Evidence(
        order=near.order,
        incident=near.incident,
        season=pad_races(season[:n_used].astype(np.int32)),
        weight=weight,
        reference=reference,
    )


def season_labels(seasons: list[int]) -> list[int]:
    """Seasons of the walk: the given ones and the season after the last."""
    return [*seasons, seasons[-1] + 1]


def n_divergences(fit: xr.DataTree) -> int:
    """Return the number of divergent transitions of a fit."""
    return int(fit["sample_stats"]["diverging"].sum())


def _tree(
    mcmc: MCMC,
    evidence: Evidence,
    ensemble: xr.Dataset,
    observed: Observed,
    curves: RaceCurves,
    seasons: list[int],
) -> xr.DataTree:
    labels = {"season": season_labels(seasons)}
    posterior = posterior_group(mcmc, PARAMETERS, labels)
    drawn = {name: posterior[name].values for name in PARAMETERS}
    shape = drawn["intercept"].shape
    prior = {
        name: values.reshape(*shape, *values.shape[1:])
        for name, values in prior_draws(len(labels["season"]), shape[0] * shape[1]).items()
    }
    races = {"race": ensemble["race"].values}
    n_races = len(races["race"])
    season = evidence.season[:n_races]

    def by_race(values: dict[str, NDArray]) -> xr.Dataset:
        """Arrays (chain, draw, race)."""
        return xr.Dataset({name: (("chain", "draw", "race"), v) for name, v in values.items()}, races)

    def predictive(samples: dict[str, NDArray]) -> xr.Dataset:
        few = {name: np.concatenate(thin(values, PREDICTIVE_DRAWS)) for name, values in samples.items()}
        replicated = replicate(ensemble, observed, season, evidence.reference, few, seed=n_races)
        return by_race(
            {name: v.reshape(shape[0], PREDICTIVE_DRAWS, n_races) for name, v in replicated.items()}
        )

    result = log_likelihood(evidence, drawn["log_slope"], drawn["noise_sigma"], drawn["intercept"])
    statistics = {name: ("race", v) for name, v in observed_statistics(ensemble, observed).items()}
    constant = {
        "season": ("race", season),
        "race_order": ("race", ensemble["race_order"].values),
        "fold": ("race", ensemble["fold"].values.astype(str)),
        "order_curve": (("race", "order_coefficient"), curves.order[:n_races]),
        "incident_curve": (("race", "incident_coefficient"), curves.incident[:n_races]),
        "reference_curve": (
            ("race", "reference_scenario", "order_coefficient"),
            curves.reference_order[:n_races],
        ),
        "front_curve": (("race", "order_coefficient"), curves.front[:n_races]),
        "reference_front_curve": (
            ("race", "reference_scenario", "order_coefficient"),
            curves.reference_front[:n_races],
        ),
    }
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": sample_stats_group(mcmc),
            "log_likelihood": by_race({"result": result[..., :n_races]}),
            "posterior_predictive": predictive(drawn),
            "prior": xr.Dataset(
                {name: (("chain", "draw", *dims), prior[name]) for name, dims in PARAMETERS.items()}, labels
            ),
            "prior_predictive": predictive(prior),
            "observed_data": xr.Dataset(statistics, races),
            "constant_data": xr.Dataset(constant, races),
        }
    )


def prior_draws(n_seasons: int, n_draws: int) -> dict[str, NDArray[np.float32]]:
    """Draw the parameters from their prior, by the model without evidence.

    Parameters
    ----------
    n_seasons, n_draws : int

    Returns
    -------
    dict
        Parameter -> (draw, ...).
    """
    drawn = _prior_draws(n_seasons, n_draws)
    return {name: np.asarray(drawn[name]) for name in PARAMETERS}


@partial(jax.jit, static_argnums=(0, 1))
def _prior_draws(n_seasons: int, n_draws: int) -> dict[str, Array]:
    prior = Predictive(latent_calibration_model, num_samples=n_draws)
    draws: dict[str, Array] = prior(jax.random.key(n_draws), no_evidence(n_seasons))
    return draws


def log_likelihood(
    evidence: Evidence, log_slope: NDArray, noise_sigma: NDArray, intercept: NDArray
) -> NDArray[np.float32]:
    """Log-likelihood of every race for every draw: (chain, draw, race).

    Parameters
    ----------
    evidence : Evidence
    log_slope : array, shape (chain, draw, season)
    noise_sigma, intercept : array, shape (chain, draw)
    """
    return np.asarray(_log_likelihood(evidence, (log_slope, noise_sigma, intercept)))


@jax.jit
def _log_likelihood(evidence: Evidence, drawn: tuple[Array, Array, Array]) -> Array:
    def at_draw(draw: tuple[Array, Array, Array]) -> Array:
        return log_likelihood_by_race(evidence, *draw)

    return jax.lax.map(lambda chain: jax.lax.map(at_draw, chain, batch_size=LOG_LIKELIHOOD_BATCH), drawn)


def thin(values: NDArray, n_draws: int) -> NDArray:
    """Select evenly spaced draws of (chain, draw, ...): (chain, n_draws, ...)."""
    return values[:, np.linspace(0, values.shape[1] - 1, n_draws).round().astype(int)]
