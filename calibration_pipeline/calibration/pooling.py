"""Pooled fits of all archetypes, and the comparison of raw, per-archetype and pooled calibration.

One fit has all races (`latest`). Each fold has a fit to the races before it. The group `slow` holds the
parameters of these fits that the state needs.

Leave-one-out by Pareto-smoothed importance sampling (Vehtari, Gelman & Gabry 2017,
doi:10.1007/s11222-016-9696-4), races as the units.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import arviz as az
import jax
import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from numpyro.infer import MCMC

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.archetype_fit import (
    MAP_PARAMETERS,
    PARAMETERS,
    gather_evidence,
    log_likelihood,
    season_labels,
)
from calibration_pipeline.calibration.latent import (
    Evidence,
    pooled_calibration_model,
    summarise,
)
from calibration_pipeline.calibration.race_curves import read_curves
from calibration_pipeline.calibration.state import (
    MIN_CALIBRATION_RACES,
    fold_ranges,
    read_calendar,
    thin_slow_parameters,
)
from calibration_pipeline.calibration.surfaces import tabulate_surfaces
from calibration_pipeline.mcmc.convergence import LATEST, convergence_group
from calibration_pipeline.mcmc.draws import posterior_group, sample_stats_group
from calibration_pipeline.mcmc.nuts import run_nuts
from calibration_pipeline.schemas.datasets import races_of
from calibration_pipeline.schemas.frames import ModelComparison

COMMON = ("slope_mu", "slope_sigma", "archetype_sigma")
"""Parameters that all archetypes share."""
POOLED_PARAMETERS: dict[str, tuple[str, ...]] = dict.fromkeys(COMMON, ()) | {
    name: ("archetype", *dims) for name, dims in PARAMETERS.items() if name not in COMMON
}
"""Stored parameter -> its dims after (chain, draw)."""


def fit_pooled(
    curves: xr.Dataset,
    seasons: list[int],
    *,
    n_warmup: int = 500,
    n_samples: int = 1500,
    n_chains: int = 4,
    seed: int = 42,
) -> xr.DataTree:
    """Fit all archetypes together: to all races, and for each fold to the races before it.

    Parameters
    ----------
    curves : xarray.Dataset
        `RaceCurves` of the races of all archetypes, in order of time.
    seasons : list of int
        Seasons of the walk; the season after the last is added.
    n_warmup, n_samples, n_chains, seed
        As for NUTS.

    Returns
    -------
    xarray.DataTree
        `PooledPosterior`, and the group log_likelihood. Folds with fewer than `MIN_CALIBRATION_RACES` races
        before them have no fit.
    """
    races = _split_archetypes(curves)
    arrays = [read_curves(part) for part in races]
    surfaces = [tabulate_surfaces(own.order) for own in arrays]
    settings = {"n_warmup": n_warmup, "n_samples": n_samples, "n_chains": n_chains, "seed": seed}
    labels: dict[str, Sequence[object]] = {
        "archetype": [str(a) for a in ARCHETYPES],
        "season": season_labels(seasons),
    }

    calendar = read_calendar(curves)
    race_order = calendar.race_order
    n_seen = {fold: own.start for fold, own in fold_ranges(calendar) if own.start >= MIN_CALIBRATION_RACES}
    n_seen[LATEST] = len(race_order)
    evidence = {
        fold: [
            gather_evidence(
                own,
                np.searchsorted(seasons, part["season"].values),
                np.isin(part["race_order"].values, race_order[:n]),
            )
            for own, part in zip(arrays, races, strict=True)
        ]
        for fold, n in n_seen.items()
    }
    sampled = {
        fold: sample_pooled(parts, surfaces, len(seasons) + 1, **settings) for fold, parts in evidence.items()
    }
    # JAX samples the later folds in the background, while the first are diagnosed.
    convergence = convergence_group((fold, _draws(mcmc, labels)) for fold, mcmc in sampled.items())
    slow = [
        _slow_parameters(mcmc, evidence[fold], race_order[: n_seen[fold]]) for fold, mcmc in sampled.items()
    ]
    tree = _latest_tree(sampled[LATEST], evidence[LATEST], surfaces, races, labels)
    tree["slow"] = xr.DataTree(xr.concat(slow, dim=xr.Variable("fold", list(sampled))))
    tree["convergence"] = xr.DataTree(convergence)
    tree.attrs = {"n_races": len(race_order), **settings}
    return tree


def _split_archetypes(curves: xr.Dataset) -> list[xr.Dataset]:
    """Return the curves of each archetype's races."""
    return [races_of(curves, str(archetype)) for archetype in ARCHETYPES]


def _slow_parameters(mcmc: MCMC, evidence: Sequence[Evidence], race_order: NDArray) -> xr.Dataset:
    """Return one fold of the group `slow`, of a fit to races of these race_orders."""
    samples = {
        name: np.asarray(values).reshape(-1, *values.shape[2:])
        for name, values in mcmc.get_samples(group_by_chain=True).items()
    }
    slow = thin_slow_parameters(samples, [part.reference for part in evidence])
    return xr.Dataset(
        {
            "slope_sigma": ("draw", slow.slope_sigma),
            "archetype_sigma": ("draw", slow.archetype_sigma),
            "noise_sigma": (("draw", "archetype"), np.asarray(slow.noise_sigma).T),
            "reference_log_slope": ("archetype", np.array([r.log_slope for r in slow.references])),
            "reference_noise": ("archetype", np.array([r.noise_sigma for r in slow.references])),
            "reference_front_tilt": ("archetype", np.array([r.front_tilt for r in slow.references])),
            "n_races": ("archetype", np.array([part.weight.sum() for part in evidence], np.int32)),
            "as_of": np.int32(race_order.max(initial=0)),
        },
        {"archetype": [str(a) for a in ARCHETYPES]},
    )


def _draws(mcmc: MCMC, labels: Mapping[str, Sequence[object]]) -> tuple[dict[str, NDArray], int]:
    """Return a fit's draws (chain, draw, ...) by parameter, and its number of divergent transitions."""
    drawn = posterior_group(mcmc, POOLED_PARAMETERS, labels)
    n_diverging = int(sample_stats_group(mcmc)["diverging"].sum())
    return {name: drawn[name].values for name in POOLED_PARAMETERS}, n_diverging


def _latest_tree(
    mcmc: MCMC,
    evidence: Sequence[Evidence],
    surfaces: Sequence[NDArray[np.float32]],
    races: Sequence[xr.Dataset],
    labels: Mapping[str, Sequence[object]],
) -> xr.DataTree:
    posterior = posterior_group(mcmc, POOLED_PARAMETERS, labels)
    drawn = [posterior[name].values for name in MAP_PARAMETERS]
    by_archetype = [
        log_likelihood(part, own, *(values[:, :, a] for values in drawn))
        for a, (part, own) in enumerate(zip(evidence, surfaces, strict=True))
    ]
    result = {"result": (("chain", "draw", "race"), np.concatenate(by_archetype, axis=-1))}
    race_id = np.concatenate([part["race"].values for part in races])
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": sample_stats_group(mcmc),
            "log_likelihood": xr.Dataset(result, {"race": race_id}),
        }
    )


def sample_pooled(
    evidence: Sequence[Evidence], surfaces: Sequence[NDArray[np.float32]], n_seasons: int, **settings: int
) -> MCMC:
    """Sample the posterior of the pooled map.

    Parameters
    ----------
    evidence : sequence of Evidence
        Of each archetype.
    surfaces : sequence of array
        `surfaces.tabulate_surfaces` of each archetype's curves.
    n_seasons : int
        Seasons of the walk.
    **settings
        n_warmup, n_samples, n_chains and seed, as for `run_nuts`.
    """
    likelihoods = [summarise(*races, n_seasons) for races in zip(evidence, surfaces, strict=True)]
    likelihood = jax.tree.map(lambda *arrays: np.stack(arrays), *likelihoods)
    return run_nuts(pooled_calibration_model, (likelihood,), **settings)


def compare_calibrations(
    curves: xr.Dataset, fits: Mapping[Archetype, xr.DataTree], pooled: xr.DataTree
) -> pl.DataFrame:
    """Compare raw, per-archetype and pooled calibration by leave-one-out log score, races as units.

    Parameters
    ----------
    curves : xarray.Dataset
        `RaceCurves` of the races of all archetypes.
    fits : mapping
        Archetype -> `CalibrationPosterior` of these races.
    pooled : xarray.DataTree
        As returned by `fit_pooled` for these races.

    Returns
    -------
    polars.DataFrame
        `ModelComparison`: one row a model, the best first. No rows with fewer than two races, which have no
        standard error.
    """
    if curves.sizes["race"] < 2:
        return ModelComparison.empty()
    raw = np.concatenate([_raw_log_likelihood(part) for part in _split_archetypes(curves)])
    own: NDArray = np.concatenate([fits[a]["log_likelihood"]["result"].values for a in ARCHETYPES], axis=-1)
    elpd = {
        "raw": _elpd_of_fixed_forecast(raw, n_samples=own.shape[0] * own.shape[1]),
        "per archetype": _leave_one_out(own),
        "pooled": _leave_one_out(pooled["log_likelihood"]["result"].to_numpy()),
    }
    compared = az.compare(elpd, round_to="none").rename_axis("model").reset_index()
    table = pl.DataFrame(compared.to_dict("list"))
    worst_k = {name: 0.0 if name == "raw" else float(e.pareto_k.max()) for name, e in elpd.items()}
    return table.select(
        "model",
        pl.col("rank").cast(pl.Int64),
        *(pl.col(name).cast(pl.Float64) for name in ("elpd", "se", "elpd_diff", "dse", "p", "weight")),
        n_races=pl.lit(len(raw), pl.Int64),
        worst_pareto_k=pl.col("model").replace_strict(worst_k),
    )


def _raw_log_likelihood(curves: xr.Dataset) -> NDArray[np.float32]:
    """Log-likelihood of an archetype's races under the raw forecasts: (race)."""
    arrays, n_races = read_curves(curves), curves.sizes["race"]
    evidence = gather_evidence(arrays, np.zeros(n_races, int), np.ones(n_races, bool))
    nothing, unchanged = np.zeros((1, 1)), np.zeros((1, 1, 1))
    return log_likelihood(evidence, tabulate_surfaces(arrays.order), unchanged, nothing, nothing)[0, 0]


def _leave_one_out(log_likelihood: NDArray) -> Any:
    groups = xr.Dataset({"result": (("chain", "draw", "race"), log_likelihood)})
    posterior = xr.Dataset({"draws": (("chain", "draw"), log_likelihood.sum(axis=-1))})
    fit = xr.DataTree.from_dict({"posterior": posterior, "log_likelihood": groups})
    with warnings.catch_warnings():  # the comparison reports the largest Pareto k
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto distribution")
        return az.loo(fit, pointwise=True)


def _elpd_of_fixed_forecast(log_likelihood: NDArray, n_samples: int) -> Any:
    """Return the ELPD of a forecast without fitted parameters: the sum of the races' log-likelihoods."""
    each = xr.DataArray(log_likelihood.astype(np.float64), dims="race")
    return az.ELPDDataLOO(
        elpd=float(each.sum()),
        se=float(np.sqrt(len(each) * each.var())),
        p=0.0,
        n_samples=n_samples,
        n_data_points=len(each),
        scale="log",
        warning=False,
        good_k=0.7,
        elpd_i=each,
        pareto_k=xr.zeros_like(each),
    )
