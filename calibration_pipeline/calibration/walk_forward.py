"""Latent fits of one archetype: for every fold on the races before it, and on all races (`latest`).

An archetype's fits are one DataTree. Its root groups are ArviZ's groups of the latest fit. The group
`walk_forward` has the posterior of each fold, `convergence` the diagnostics of all fits.
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
    reference_sharpness,
    tabulate,
)
from calibration_pipeline.calibration.surfaces import tabulate_surfaces
from calibration_pipeline.mcmc.convergence import LATEST, convergence_group
from calibration_pipeline.mcmc.draws import posterior_group, sample_stats_group
from calibration_pipeline.mcmc.nuts import run_nuts
from calibration_pipeline.mcmc.priors import SCALARS

MIN_CALIBRATION_RACES = 3
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
    """Fit the latent map of one archetype, for every fold and on all races.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, races of this archetype, of all folds, in race order.
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
        `CalibrationPosterior`. Folds with fewer than `MIN_CALIBRATION_RACES` races before them are not in
        `walk_forward`: their races keep the raw forecast.

    Raises
    ------
    ValueError
        If `n_samples` is below 500, or a car of the ensemble has no result.
    """
    if n_samples < 500:
        raise ValueError(f"Argument n_samples must be at least 500 for a stored fit, got {n_samples}.")
    observed = observe(ensemble, race_results)
    curves = tabulate(ensemble, observed, seed)
    surfaces = tabulate_surfaces(curves.order)
    settings = {"n_warmup": n_warmup, "n_samples": n_samples, "n_chains": n_chains, "seed": seed}

    season = np.searchsorted(seasons, ensemble["season"].values)

    def fit(seen: NDArray[np.bool_]) -> tuple[MCMC, Evidence]:
        evidence = gather_evidence(curves, season, seen)
        likelihood = summarise(evidence, surfaces, len(seasons) + 1)
        return run_nuts(latent_calibration_model, (likelihood,), **settings), evidence

    race_order = ensemble["race_order"].values
    folds = {}
    for fold in dict.fromkeys(ensemble["fold"].values):  # in order of time
        seen = race_order < race_order[ensemble["fold"].values == fold].min()
        if seen.sum() >= MIN_CALIBRATION_RACES:
            folds[str(fold)] = _fold_posterior(fit(seen)[0], seasons, race_order[seen])
    mcmc, evidence = fit(np.ones(len(race_order), bool))
    tree = _latest_tree(mcmc, evidence, ensemble, observed, seasons)
    tree["walk_forward"] = xr.DataTree(_join_folds(folds, seasons, n_chains, n_samples))
    tree["convergence"] = xr.DataTree(_convergence(folds, tree))
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
        "n_races": len(race_order),
        "min_races": MIN_CALIBRATION_RACES,
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
    """
    n_pad = len(curves.order) - len(seen)
    weight = np.pad(seen.astype(np.float32), (0, n_pad))
    reference = reference_sharpness(curves, weight) if seen.any() else Reference(0.0, 0.0)
    return Evidence(
        order=curves.order,
        incident=curves.incident,
        season=np.pad(season, (0, n_pad)).astype(np.int32),
        weight=weight,
        reference=reference,
    )


def season_labels(seasons: list[int]) -> list[int]:
    """Seasons of the walk: the given ones and the season after the last."""
    return [*seasons, seasons[-1] + 1]


def _fold_posterior(mcmc: MCMC, seasons: list[int], race_order: NDArray) -> xr.Dataset:
    diverging = mcmc.get_extra_fields(group_by_chain=True)["diverging"]
    return posterior_group(mcmc, PARAMETERS, {"season": season_labels(seasons)}).assign(
        diverging=("chain", np.asarray(diverging).sum(axis=1)),
        calibration_as_of=np.int32(race_order.max()),
        n_calibration_races=np.int32(len(race_order)),
    )


def _join_folds(
    folds: dict[str, xr.Dataset], seasons: list[int], n_chains: int, n_samples: int
) -> xr.Dataset:
    if folds:
        return xr.concat(list(folds.values()), dim=xr.Variable("fold", list(folds)))
    labels = season_labels(seasons)
    sizes = {"fold": 0, "chain": n_chains, "draw": n_samples, "season": len(labels)}

    def empty(dims: tuple[str, ...], dtype: type) -> tuple[tuple[str, ...], NDArray]:
        return dims, np.zeros([sizes[dim] for dim in dims], dtype)

    return xr.Dataset(
        {
            **{
                name: empty(("fold", "chain", "draw", *dims), np.float32) for name, dims in PARAMETERS.items()
            },
            "calibration_as_of": empty(("fold",), np.int32),
            "n_calibration_races": empty(("fold",), np.int32),
            "diverging": empty(("fold", "chain"), np.int64),
        },
        {"season": labels, "fold": np.zeros(0, "<U6")},
    )


def _convergence(folds: dict[str, xr.Dataset], latest: xr.DataTree) -> xr.Dataset:
    by_fold = {
        fold: ({name: posterior[name].values for name in PARAMETERS}, int(posterior["diverging"].sum()))
        for fold, posterior in folds.items()
    }
    return convergence_group({**by_fold, LATEST: (latest, n_divergences(latest))})


def n_divergences(fit: xr.DataTree) -> int:
    """Return the number of divergent transitions of a tree's latest fit."""
    return int(fit["sample_stats"]["diverging"].sum())


def _latest_tree(
    mcmc: MCMC, evidence: Evidence, ensemble: xr.Dataset, observed: Observed, seasons: list[int]
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
        "order_curve": (("race", "order_coefficient"), evidence.order[:n_races]),
        "incident_curve": (("race", "incident_coefficient"), evidence.incident[:n_races]),
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
