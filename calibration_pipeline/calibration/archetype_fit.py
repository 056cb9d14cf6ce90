"""Latent fit of one archetype to all its races.

The fit is a DataTree with ArviZ's groups and the group `convergence`.
"""

import logging

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from numpyro.infer import MCMC

from calibration_pipeline.archetypes import Archetype
from calibration_pipeline.calibration.latent import (
    MASS_OUTSIDE_LIMIT,
    Evidence,
    latent_calibration_model,
    mass_outside,
    summarise,
)
from calibration_pipeline.calibration.latent_predictive import observed_statistics, replicate
from calibration_pipeline.calibration.race_curves import (
    INCIDENT_SHIFT_BOX,
    CurveArrays,
    Observed,
    Reference,
    observe,
    read_curves,
    reference_sharpness,
)
from calibration_pipeline.calibration.surfaces import read_surface, tabulate_surfaces
from calibration_pipeline.mcmc.convergence import LATEST, convergence_group
from calibration_pipeline.mcmc.draws import posterior_group, sample_stats_group
from calibration_pipeline.mcmc.nuts import check_stored_draws, run_nuts
from calibration_pipeline.mcmc.priors import HALF_NORMAL, NORMAL, SCALARS
from calibration_pipeline.stats.chebyshev import basis_values

PREDICTIVE_DRAWS = 100
PARAMETERS: dict[str, tuple[str, ...]] = {**dict.fromkeys(SCALARS, ()), "log_slope": ("season",)}
"""Stored parameter -> its dims after (chain, draw)."""
MAP_PARAMETERS = ("log_slope", "noise_sigma", "intercept")
"""Parameters that the likelihood of a race depends on."""

logger = logging.getLogger(__name__)


def fit_archetype(
    ensemble: xr.Dataset,
    race_results: pl.DataFrame,
    curves: xr.Dataset,
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
    curves : xarray.Dataset
        `RaceCurves` of these races.
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
    arrays = read_curves(curves)
    surfaces = tabulate_surfaces(arrays.order)
    settings = {"n_warmup": n_warmup, "n_samples": n_samples, "n_chains": n_chains, "seed": seed}

    n_races = ensemble.sizes["race"]
    season = np.searchsorted(seasons, curves["season"].values)
    evidence = gather_evidence(arrays, season, np.ones(n_races, bool))
    likelihood = summarise(evidence, surfaces, len(seasons) + 1)
    mcmc = run_nuts(latent_calibration_model, (likelihood,), **settings)
    tree = _tree(mcmc, evidence, surfaces, ensemble, observed, seasons)
    tree["convergence"] = xr.DataTree(convergence_group([(LATEST, (tree, n_divergences(tree)))]))
    posterior = tree["posterior"].to_dataset()
    drawn = (posterior[name].values for name in MAP_PARAMETERS)
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


def gather_evidence(curves: CurveArrays, season: NDArray, seen: NDArray[np.bool_]) -> Evidence:
    """Gather the evidence of one archetype's seen races.

    Parameters
    ----------
    curves : CurveArrays
    season : array of int, shape (race)
        Index of each race's season.
    seen : array of bool, shape (race)

    Returns
    -------
    Evidence
        Without the races after the last seen one, so that later races do not change a bit of a fit.
    """
    n_used = int(np.flatnonzero(seen)[-1]) + 1 if seen.any() else 0
    weight = seen[:n_used].astype(np.float32)
    near = CurveArrays(*(values[:n_used] for values in curves))
    reference = reference_sharpness(near, weight) if seen.any() else Reference(0.0, 0.0)
    return Evidence(
        order=near.order,
        incident=near.incident,
        season=season[:n_used].astype(np.int32),
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
    surfaces: NDArray[np.float32],
    ensemble: xr.Dataset,
    observed: Observed,
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

    def by_race(values: dict[str, NDArray]) -> xr.Dataset:
        """Arrays (chain, draw, race)."""
        return xr.Dataset({name: (("chain", "draw", "race"), v) for name, v in values.items()}, races)

    def predictive(samples: dict[str, NDArray]) -> xr.Dataset:
        few = {name: np.concatenate(thin(values, PREDICTIVE_DRAWS)) for name, values in samples.items()}
        replicated = replicate(ensemble, observed, evidence.season, evidence.reference, few, seed=n_races)
        return by_race(
            {name: v.reshape(shape[0], PREDICTIVE_DRAWS, n_races) for name, v in replicated.items()}
        )

    result = log_likelihood(evidence, surfaces, *(drawn[name] for name in MAP_PARAMETERS))
    statistics = {name: ("race", v) for name, v in observed_statistics(ensemble, observed).items()}
    constant = {name: ("race", ensemble[name].values) for name in ("season", "race_order")}
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": sample_stats_group(mcmc),
            "log_likelihood": by_race({"result": result}),
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
    """Draw the parameters from their prior: without evidence the model's walk is a plain random walk.

    Parameters
    ----------
    n_seasons, n_draws : int

    Returns
    -------
    dict
        Parameter -> (draw, ...).
    """
    rng = np.random.default_rng(n_draws)
    drawn = {name: scale * rng.standard_normal(n_draws) for name, scale in NORMAL.items()}
    drawn |= {name: np.abs(scale * rng.standard_normal(n_draws)) for name, scale in HALF_NORMAL.items()}
    steps = drawn["slope_sigma"][:, None] * rng.standard_normal((n_draws, n_seasons - 1))
    walk = np.cumsum(steps, axis=1)
    drawn["log_slope"] = drawn["slope_mu"][:, None] + np.pad(walk, ((0, 0), (1, 0)))
    return {name: drawn[name].astype(np.float32) for name in PARAMETERS}


def log_likelihood(
    evidence: Evidence,
    surfaces: NDArray[np.float32],
    log_slope: NDArray,
    noise_sigma: NDArray,
    intercept: NDArray,
) -> NDArray[np.float32]:
    """Log-likelihood of every race for every draw, running order and incidents: (chain, draw, race).

    Parameters
    ----------
    evidence : Evidence
    surfaces : array, shape (race, log sharpness, noise)
        `surfaces.tabulate_surfaces` of the archetype's curves; those after the evidence are not read.
    log_slope : array, shape (chain, draw, season)
    noise_sigma, intercept : array, shape (chain, draw)

    Returns
    -------
    array, shape (chain, draw, race)
        Relative to that of the raw log-strengths under the plain reverse Plackett-Luce law.
    """
    reference = evidence.reference
    noise = np.hypot(reference.noise_sigma, noise_sigma)
    basis = basis_values(intercept, evidence.incident.shape[-1], *INCIDENT_SHIFT_BOX)
    values = basis @ np.asarray(evidence.incident, np.float64).T
    for race, (season, surface) in enumerate(zip(evidence.season, surfaces, strict=False)):
        values[..., race] += read_surface(surface, reference.log_slope + log_slope[..., season], noise)
    return values.astype(np.float32)


def thin(values: NDArray, n_draws: int) -> NDArray:
    """Select evenly spaced draws of (chain, draw, ...): (chain, n_draws, ...)."""
    return values[:, np.linspace(0, values.shape[1] - 1, n_draws).round().astype(int)]
