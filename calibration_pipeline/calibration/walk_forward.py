"""Latent fits of one archetype: for every fold on the races before it, and on all races (`latest`).

A fit is one DataTree. Its root groups are the latest fit, as ArviZ knows them; the group `walk_forward` holds
the posterior that each fold's races were recalibrated with.
"""

from typing import Any

import arviz as az
import jax
import numpy as np
import polars as pl
import xarray as xr
from jax import Array
from numpy.typing import NDArray
from numpyro.infer import MCMC, Predictive

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.curves import N_NODES
from calibration_pipeline.calibration.inference import run_nuts
from calibration_pipeline.calibration.latent import (
    Evidence,
    latent_calibration_model,
    log_likelihood_by_race,
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

MIN_CALIBRATION_RACES = 3
PREDICTIVE_DRAWS = 100
PARAMETERS = ("slope_mu", "slope_sigma", "noise_sigma", "intercept", "log_slope")
SCHEMA_VERSION = "1"
LOG_LIKELIHOOD_BATCH = 50


def fit_archetype(
    ensemble: xr.Dataset,
    race_results: pl.DataFrame,
    archetype: Archetype,
    seasons: list[int],
    *,
    n_warmup: int = 500,
    n_samples: int = 1000,
    n_chains: int = 4,
    seed: int = 42,
) -> xr.DataTree:
    """Fit the latent map of one archetype, for every fold and for what comes after them.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, races of this archetype, of all folds, in race order.
    race_results : polars.DataFrame
        `RaceResults` of at least these races.
    archetype : Archetype
    seasons : list of int
        Seasons of the walk, in order; one more is added for what comes.
    n_warmup, n_samples, n_chains, seed
        As for NUTS; at least 500 draws a chain, because the result is kept.

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
        raise ValueError(f"Argument n_samples must be at least 500 where a fit is kept, got {n_samples}.")
    observed = observe(ensemble, race_results)
    curves = tabulate(ensemble, observed)
    settings = {"n_warmup": n_warmup, "n_samples": n_samples, "n_chains": n_chains, "seed": seed}

    season = np.searchsorted(seasons, ensemble["season"].values)

    def fit(seen: NDArray[np.bool_]) -> tuple[MCMC, Evidence]:
        evidence = gather_evidence(curves, season, seen)
        likelihood = summarise(evidence, len(seasons) + 1)
        return run_nuts(latent_calibration_model, (likelihood,), **settings), evidence

    race_order = ensemble["race_order"].values
    folds = {}
    for fold in np.unique(ensemble["fold"].values):
        seen = race_order < race_order[ensemble["fold"].values == fold].min()
        if seen.sum() >= MIN_CALIBRATION_RACES:
            folds[str(fold)] = _fold_posterior(fit(seen)[0], seasons, race_order[seen])
    mcmc, evidence = fit(np.ones(len(race_order), bool))
    tree = _latest_tree(mcmc, evidence, ensemble, observed, seasons)
    tree["walk_forward"] = xr.DataTree(_join_folds(folds, seasons, n_chains, n_samples))
    tree.attrs = {
        "archetype": str(archetype),
        "reference_slope": float(np.exp(evidence.reference.log_slope[0])),
        "reference_noise": float(evidence.reference.noise_sigma[0]),
        "n_races": len(race_order),
        "min_races": MIN_CALIBRATION_RACES,
        "schema_version": SCHEMA_VERSION,
        **settings,
    }
    return tree


def gather_evidence(curves: RaceCurves, season: NDArray, seen: NDArray[np.bool_]) -> Evidence:
    """Gather the evidence of one archetype's races, as far as they are seen.

    Parameters
    ----------
    curves : RaceCurves
        Padded.
    season : array of int, shape (race)
        Index of each race's season.
    seen : array of bool, shape (race)
    """
    n_padded = len(curves.order)
    n_pad = n_padded - len(seen)
    weight = np.pad(seen.astype(np.float32), (0, n_pad))
    reference = reference_sharpness(curves, weight) if seen.any() else Reference(0.0, 0.0)
    return Evidence(
        order=curves.order,
        incident=curves.incident,
        archetype=np.zeros(n_padded, np.int32),
        season=np.pad(season, (0, n_pad)).astype(np.int32),
        weight=weight,
        reference=Reference(*(np.array([value], np.float32) for value in reference)),
    )


def no_evidence(n_archetypes: int) -> Evidence:
    """Make evidence of no race: under it the posterior is the prior."""
    curves = np.zeros((1, N_NODES), np.float32)
    none = np.zeros(1, np.int32)
    nothing = np.zeros(n_archetypes, np.float32)
    return Evidence(curves, curves, none, none, none.astype(np.float32), Reference(nothing, nothing))


def season_labels(seasons: list[int]) -> list[int]:
    """Seasons of the walk: those given and the coming one."""
    return [*seasons, seasons[-1] + 1]


def _parameter_dataset(mcmc: MCMC, seasons: list[int]) -> xr.Dataset:
    samples = mcmc.get_samples(group_by_chain=True)
    dims = {"log_slope": ("chain", "draw", "season")}
    return xr.Dataset(
        {
            name: (dims.get(name, ("chain", "draw")), np.asarray(samples[name], np.float32))
            for name in PARAMETERS
        },
        {"season": season_labels(seasons)},
    )


def _fold_posterior(mcmc: MCMC, seasons: list[int], race_order: NDArray) -> xr.Dataset:
    posterior = _parameter_dataset(mcmc, seasons)
    diverging = mcmc.get_extra_fields()["diverging"]
    return posterior.assign(
        diverging=("chain", np.asarray(diverging).reshape(posterior.sizes["chain"], -1).sum(axis=1)),
        calibration_as_of=np.int32(race_order.max()),
        n_calibration_races=np.int32(len(race_order)),
    )


def _join_folds(
    folds: dict[str, xr.Dataset], seasons: list[int], n_chains: int, n_samples: int
) -> xr.Dataset:
    if folds:
        return xr.concat(list(folds.values()), dim=xr.Variable("fold", list(folds)))
    draws = ("fold", "chain", "draw")
    shape = (0, n_chains, n_samples)
    empty: dict[str, Any] = {name: (draws, np.zeros(shape, np.float32)) for name in PARAMETERS}
    labels = season_labels(seasons)
    empty["log_slope"] = ((*draws, "season"), np.zeros((*shape, len(labels)), np.float32))
    per_fold = {
        name: ("fold", np.zeros(0, np.int32)) for name in ("calibration_as_of", "n_calibration_races")
    }
    diverging = {"diverging": (("fold", "chain"), np.zeros((0, n_chains), np.int64))}
    return xr.Dataset({**empty, **per_fold, **diverging}, {"season": labels, "fold": np.zeros(0, "<U6")})


def _latest_tree(
    mcmc: MCMC, evidence: Evidence, ensemble: xr.Dataset, observed: Observed, seasons: list[int]
) -> xr.DataTree:
    n_races = ensemble.sizes["race"]
    races = {"race": ensemble["race"].values}
    coords = {"season": season_labels(seasons), **races}
    tree = az.from_numpyro(mcmc, coords=coords, dims={"log_slope": ["season"]})
    posterior = _parameter_dataset(mcmc, seasons)
    tree["posterior"] = xr.DataTree(posterior)
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]

    per_race = ("chain", "draw", "race")
    drawn = {name: posterior[name].values for name in PARAMETERS}
    total = log_likelihood(evidence, drawn["log_slope"][:, :, None], drawn["noise_sigma"], drawn["intercept"])
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"result": (per_race, total[..., :n_races])}, races))

    key = jax.random.key(int(mcmc.num_samples))
    n_prior = n_chains * n_draws
    prior = Predictive(latent_calibration_model, num_samples=n_prior)(
        key, summarise(no_evidence(1), len(seasons) + 1)
    )
    prior = {
        name: np.asarray(prior[name]).reshape(n_chains, n_draws, *prior[name].shape[1:])
        for name in PARAMETERS
    }
    dims = {"log_slope": ("chain", "draw", "season")}
    tree["prior"] = xr.DataTree(
        xr.Dataset(
            {name: (dims.get(name, ("chain", "draw")), values) for name, values in prior.items()},
            {"season": season_labels(seasons)},
        )
    )
    season = evidence.season[:n_races]
    reference = Reference(evidence.reference.log_slope[0], evidence.reference.noise_sigma[0])
    for group, samples in {"posterior_predictive": drawn, "prior_predictive": prior}.items():
        few = {name: np.concatenate(thin(values, PREDICTIVE_DRAWS)) for name, values in samples.items()}
        replicated = replicate(ensemble, observed, season, reference, few, seed=n_races)
        tree[group] = xr.DataTree(
            xr.Dataset(
                {
                    name: (per_race, np.asarray(values).reshape(n_chains, PREDICTIVE_DRAWS, n_races))
                    for name, values in replicated.items()
                },
                races,
            )
        )
    statistics = {
        name: ("race", np.asarray(v)) for name, v in observed_statistics(ensemble, observed).items()
    }
    tree["observed_data"] = xr.DataTree(xr.Dataset(statistics, races))
    constant = {
        "season": ("race", season),
        "order_curve": (("race", "coefficient"), evidence.order[:n_races]),
        "incident_curve": (("race", "coefficient"), evidence.incident[:n_races]),
    }
    tree["constant_data"] = xr.DataTree(xr.Dataset(constant, races))
    return tree


def log_likelihood(
    evidence: Evidence, log_slope: NDArray, noise_sigma: NDArray, intercept: NDArray
) -> NDArray[np.float32]:
    """Log-likelihood of every race for every draw: (chain, draw, race).

    Parameters
    ----------
    evidence : Evidence
    log_slope : array, shape (chain, draw, archetype, season)
    noise_sigma, intercept : array, shape (chain, draw, archetype), or without archetypes where there is one
    """
    chains, draws = log_slope.shape[:2]
    per_archetype = [values.reshape(chains, draws, -1) for values in (noise_sigma, intercept)]
    return np.asarray(_log_likelihood(evidence, (log_slope, *per_archetype)))


@jax.jit
def _log_likelihood(evidence: Evidence, drawn: tuple[Array, Array, Array]) -> Array:
    def one(draw: tuple[Array, Array, Array]) -> Array:
        return log_likelihood_by_race(evidence, *draw)

    return jax.lax.map(lambda chain: jax.lax.map(one, chain, batch_size=LOG_LIKELIHOOD_BATCH), drawn)


def thin(values: NDArray, n_draws: int) -> NDArray:
    """Pick evenly spaced draws of (chain, draw, ...): (chain, n_draws, ...)."""
    return values[:, np.linspace(0, values.shape[1] - 1, n_draws).round().astype(int)]
