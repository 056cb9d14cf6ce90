"""Marginal calibration map: recalibration of any table of finish probabilities, by archetype.

The map replaces the probability p_k of a car's position k by w_k = sigmoid(slope * logit p_k + intercept),
renormalised over positions. Slope 1 means calibrated; below 1 the forecasts were overconfident. The plain
model here is the definition; `run_mcmc_calibration` samples its posterior from a table of the same
likelihood, some hundred times faster.
"""

import logging
from collections.abc import Mapping

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpy.typing import NDArray
from numpyro.infer import MCMC

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.calibration.summaries import INFORMED
from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.marginal.checks import (
    check_arrays,
    check_parameters,
    check_values,
    season_index,
)
from calibration_pipeline.mcmc.nuts import run_nuts
from calibration_pipeline.mcmc.priors import SCALARS, prior_sd, sample_parameter
from calibration_pipeline.stats.race_noise import even_normals, spread_noise
from calibration_pipeline.stats.ranking import is_permutation
from calibration_pipeline.stats.sinkhorn import sinkhorn

__all__ = [
    "compute_calibration_summary",
    "predict_with_calibrated_model",
    "run_mcmc_calibration",
    "track_archetype_calibration_model",
]

MIN_DRAWS = 500
INTERVAL = 0.95
PREDICTION_POINTS = 512
NOISE_STRATA = 64
LOG_ZERO = -1e9
TABLE_TOLERANCE = 0.05
TABLE_CHECK_DRAWS = 16
PRIOR_SD = {name: prior_sd(name) for name in ("slope", "intercept", "slope_mu", "slope_sigma", "noise_sigma")}
"""Parameter of the summary -> its prior standard deviation."""

logger = logging.getLogger(__name__)


def track_archetype_calibration_model(
    observed_finish_positions: ArrayLike | None,
    predicted_finish_probs: ArrayLike,
    track_archetype: str,
    season: ArrayLike | None = None,
) -> None:
    """NumPyro model of the marginal map for the races of one archetype.

    slope = exp(slope_mu + slope_sigma * z), one for each season (or one for all);
    race-level sharpness: log slope_r = log slope + noise_sigma * eps_r;
    finish ~ Categorical(w), w_k = sigmoid(slope_r * logit p_k + intercept), renormalised over positions;
    slope_mu ~ N(0, 0.3), slope_sigma ~ HalfNormal(0.25), noise_sigma ~ HalfNormal(0.5),
    intercept ~ N(0, 0.5), z and eps standard normal.

    Parameters
    ----------
    observed_finish_positions : array_like, shape (n_races, n_drivers), or None
        Position 1 is the winner, 0 marks padding. None draws them (the prior or posterior predictive);
        rows of zeros in the probabilities then mark padding, whose draws are meaningless.
    predicted_finish_probs : array_like, shape (n_races, n_drivers, n_positions)
        Rows sum to 1; clipped to [1e-6, 1 - 1e-6] before the logit. Positions beyond a race's field have
        probability 0 for all its cars. Rows of padding are not read.
    track_archetype : str
        The archetype that the races belong to.
    season : array_like, shape (n_races,), optional
        The season of each race, any integer labels. Slopes of seasons are then partially pooled, in
        increasing order of the labels.

    Raises
    ------
    ValueError
        If the archetype is unknown, shapes disagree, or values break the rules above.
    """
    parse_archetype(track_archetype)
    check_arrays(observed_finish_positions, predicted_finish_probs)
    probabilities = jnp.asarray(predicted_finish_probs)
    if observed_finish_positions is None:
        position = (probabilities > 0).any(axis=-1).astype(int)
    else:
        position = jnp.asarray(observed_finish_positions)
    if not isinstance(position, jax.core.Tracer) and not isinstance(probabilities, jax.core.Tracer):
        check_values(np.asarray(position), np.asarray(probabilities))
    races = marginal.as_races(position, probabilities)

    slope_mu, slope_sigma, noise_sigma, intercept = map(sample_parameter, SCALARS)
    if season is None:
        z = numpyro.sample("slope_z", dist.Normal(0.0, 1.0))
        slope = race_slope = numpyro.deterministic("slope", jnp.exp(slope_mu + slope_sigma * z))
    else:
        seasons, index = season_index(season, len(position))
        with numpyro.plate("seasons", len(seasons)):
            z = numpyro.sample("slope_z", dist.Normal(0.0, 1.0))
        slope = numpyro.deterministic("slope", jnp.exp(slope_mu + slope_sigma * z))
        race_slope = slope[index]
    with numpyro.plate("races", len(position)):
        eps = numpyro.sample("race_noise", dist.Normal(0.0, 1.0))
        logits = marginal.log_probabilities(races, jnp.log(race_slope) + noise_sigma * eps, intercept)
        finish = marginal.FinishPosition(jnp.maximum(logits, LOG_ZERO)).mask(races.is_car).to_event(1)
        observed = None if observed_finish_positions is None else races.position
        numpyro.sample("finish_position", finish, obs=observed)


def run_mcmc_calibration(
    observed_data: ArrayLike,
    predicted_probs: ArrayLike,
    track_archetype: str,
    n_warmup: int = 500,
    n_samples: int = 1000,
    random_seed: int = 42,
    n_chains: int = 4,
    *,
    season: ArrayLike | None = None,
) -> tuple[dict[str, jax.Array], MCMC]:
    """Fit the marginal map to the races of one archetype with NUTS.

    The posterior is that of `track_archetype_calibration_model`, with its race noise integrated out. NUTS
    reads a table of each season's likelihood, so that its cost does not grow with the number of races. The
    table is compared with the exact likelihood at posterior draws; where they differ, a wider table is used.

    Parameters
    ----------
    observed_data, predicted_probs, track_archetype, season
        As in `track_archetype_calibration_model`.
    n_warmup, n_samples, n_chains : int
        Fewer than 500 draws a chain are logged as a warning. Chains run in parallel where the process
        called `calibration_pipeline.mcmc.nuts.use_host_devices` first.
    random_seed : int

    Returns
    -------
    samples : dict of str to jax.Array
        Flat draws (n_chains * n_samples,) of `slope`, `intercept`, `slope_mu`, `slope_sigma` and
        `noise_sigma`. With seasons `slope` is (draws, n_seasons), and `slope_next` (draws,) is the
        slope of a season not seen.
    mcmc : numpyro.infer.MCMC
        The same draws by chain, with the sampler's statistics.

    Raises
    ------
    ValueError
        If the archetype is unknown, shapes disagree, or values break the rules of the model.

    Examples
    --------
    >>> observed = np.array([[1, 2, 3], [2, 1, 3]] * 3)
    >>> predicted = np.full((6, 3, 3), 1 / 3)
    >>> samples, mcmc = run_mcmc_calibration(observed, predicted, "road_course", n_samples=500, n_chains=2)
    >>> samples["slope"].shape
    (1000,)
    >>> sorted(compute_calibration_summary(samples, "road_course"))[:3]
    ['archetype', 'intercept_contraction', 'intercept_lower']
    """
    parse_archetype(track_archetype)
    check_arrays(observed_data, predicted_probs)
    position, probabilities = np.asarray(observed_data), np.asarray(predicted_probs)
    check_values(position, probabilities)
    _warn_of_input(position, n_samples)
    labels = np.zeros(len(position), dtype=int) if season is None else season
    seasons, index = season_index(labels, len(position))
    races = marginal.as_races(position, probabilities)
    for n_nodes, box in marginal.TABLES:
        tables = marginal.season_tables(marginal.tabulate(races, n_nodes, box), index, len(seasons))
        mcmc = run_nuts(
            marginal.tabulated_model,
            (tables,),
            n_warmup=n_warmup,
            n_samples=n_samples,
            n_chains=n_chains,
            seed=random_seed,
        )
        draws = mcmc.get_samples()
        some = np.linspace(0, n_chains * n_samples - 1, TABLE_CHECK_DRAWS).astype(int)
        error = marginal.table_error(
            races,
            tables,
            index,
            np.asarray(draws["log_slope"])[some],
            np.asarray(draws["intercept"])[some],
            np.asarray(draws["noise_sigma"])[some],
        )
        if error <= TABLE_TOLERANCE:
            break
        logger.info("Likelihood table on log slope %s is off by %.2g nats at posterior draws.", box, error)
    else:
        logger.warning("The widest likelihood table is off by %.2g nats at posterior draws.", error)
    return _public_samples(draws, has_seasons=season is not None, seed=random_seed), mcmc


def predict_with_calibrated_model(
    samples: Mapping[str, ArrayLike], predicted_probs: ArrayLike, track_archetype: str
) -> NDArray[np.float64]:
    """Recalibrate finish probabilities of future races.

    The posterior mean of w, over 512 even quantiles of a new race's log sharpness, log slope + noise_sigma *
    eps, each with its draw's intercept (no random numbers). With seasons, the slope is that of a season not
    seen. Where a race has as many cars as positions, `sinkhorn` then makes its table coherent: columns
    sum to 1 as well.

    Parameters
    ----------
    samples : mapping of str to array_like
        From `run_mcmc_calibration`.
    predicted_probs : array_like, shape (n_races, n_drivers, n_positions)
        Rows sum to 1; a row of zeros is padding.
    track_archetype : str
        The archetype that the samples belong to.

    Returns
    -------
    ndarray, shape (n_races, n_drivers, n_positions), float64
        Rows sum to 1; 0 in padding.

    Raises
    ------
    ValueError
        If the archetype is unknown, a parameter is missing, has no draws or one out of range (a slope is
        above 0), or probabilities break the rules.

    Examples
    --------
    >>> sure = [[[0.9, 0.1], [0.1, 0.9]]]
    >>> samples = {"slope": [0.5], "intercept": [0.0], "noise_sigma": [0.0]}
    >>> predict_with_calibrated_model(samples, sure, "short_track").round(3).tolist()  # 3 : 1, not 9 : 1
    [[[0.75, 0.25], [0.25, 0.75]]]
    """
    parse_archetype(track_archetype)
    check_parameters(samples, ("slope", "intercept", "noise_sigma"))
    check_arrays(None, predicted_probs)
    probabilities = np.asarray(predicted_probs)
    position = (probabilities != 0).any(axis=-1).astype(int)
    check_values(position, probabilities)
    races = marginal.as_races(position, probabilities)
    slope = samples["slope_next"] if "slope_next" in samples else samples["slope"]
    points = _predictive_points(np.log(slope), samples["intercept"], samples["noise_sigma"])
    mean = marginal.mean_probabilities(races, *points)
    return _coherent(
        np.asarray(mean, dtype=np.float64), np.asarray(races.is_car), np.asarray(races.is_position)
    )


def compute_calibration_summary(
    samples: Mapping[str, ArrayLike], track_archetype: str
) -> dict[str, float | str | list[str]]:
    """Summarise the posterior of a calibration, and its contraction from the prior.

    Parameters
    ----------
    samples : mapping of str to array_like
        From `run_mcmc_calibration`.
    track_archetype : str

    Returns
    -------
    dict
        For each of slope, intercept, slope_mu, slope_sigma and noise_sigma: `{name}_mean`, `{name}_sd`,
        `{name}_lower` and `{name}_upper` (95 % highest-density interval) and `{name}_contraction` =
        1 - posterior variance / prior variance: near 0 the posterior is the prior. With seasons, `slope` is
        that of a season not seen, and `slope_season_{i}` (from 0, in order) those seen. In addition
        `archetype` and `notes`: caveats, among them the parameters whose contraction is below `INFORMED`.

    Raises
    ------
    ValueError
        If the archetype is unknown, or a parameter is missing, has no draws or one out of range.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=4000)
    >>> flat = dict.fromkeys(["intercept", "slope_mu", "slope_sigma", "noise_sigma"], draws)
    >>> summary = compute_calibration_summary({"slope": 0.7 + 0.1 * draws, **flat}, "short_track")
    >>> round(summary["slope_mean"], 1), round(summary["slope_contraction"], 2)
    (0.7, 0.95)
    """
    archetype = parse_archetype(track_archetype)
    check_parameters(samples, PRIOR_SD)
    draws = {name: np.asarray(samples[name], dtype=np.float64) for name in PRIOR_SD}
    prior_sd = dict(PRIOR_SD)
    notes = []
    if draws["slope"].ndim > 1:
        by_season = {f"slope_season_{i}": values for i, values in enumerate(draws["slope"].T)}
        draws |= {"slope": np.asarray(samples["slope_next"], dtype=np.float64), **by_season}
        prior_sd |= dict.fromkeys(by_season, PRIOR_SD["slope"])
    else:
        notes.append("One season only: slope_mu and slope_sigma stay close to their prior.")
    contraction = {name: float(1.0 - draws[name].var() / prior_sd[name] ** 2) for name in draws}
    summary: dict[str, float | str | list[str]] = {"archetype": str(archetype)}
    for name, values in draws.items():
        lower, upper = az.hdi(values, prob=INTERVAL)
        summary[f"{name}_mean"] = float(values.mean())
        summary[f"{name}_sd"] = float(values.std())
        summary[f"{name}_lower"], summary[f"{name}_upper"] = float(lower), float(upper)
        summary[f"{name}_contraction"] = contraction[name]
    uninformed = [name for name, value in contraction.items() if value < INFORMED]
    if uninformed:
        names = ", ".join(uninformed)
        notes.append(
            f"The data inform {names} little (contraction below {INFORMED}): the posterior is near the prior."
        )
    summary["notes"] = notes
    return summary


def _warn_of_input(position: NDArray, n_samples: int) -> None:
    if n_samples < MIN_DRAWS:
        logger.warning("%d draws a chain are few: use %d or more for results to keep.", n_samples, MIN_DRAWS)
    n_odd = sum(not is_permutation(race[race > 0]) for race in position.astype(np.int64))
    if n_odd:
        logger.warning(
            "Observed positions of %d of %d races are not a permutation; they are used unchanged.",
            n_odd,
            len(position),
        )


def _predictive_points(
    log_slope: ArrayLike, intercept: ArrayLike, noise_sigma: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log sharpness of a new race and intercept, at even quantiles of the former: each (point,)."""
    draws = (np.asarray(values, dtype=np.float64).ravel() for values in (log_slope, intercept, noise_sigma))
    mean, shift, scale = np.broadcast_arrays(*draws)
    sharpness, draw = spread_noise(mean, scale, even_normals(NOISE_STRATA), PREDICTION_POINTS)
    return sharpness, shift[draw]


def _public_samples(draws: Mapping[str, jax.Array], *, has_seasons: bool, seed: int) -> dict[str, jax.Array]:
    samples = {name: draws[name] for name in PRIOR_SD if name != "slope"}
    slope = jnp.exp(draws["log_slope"])
    if not has_seasons:
        return {"slope": slope[:, 0], **samples}
    z = jax.random.normal(jax.random.fold_in(jax.random.key(seed), 1), slope.shape[:1])
    slope_next = jnp.exp(samples["slope_mu"] + samples["slope_sigma"] * z)
    return {"slope": slope, "slope_next": slope_next, **samples}


def _coherent(table: NDArray[np.float64], is_car: NDArray, is_position: NDArray) -> NDArray[np.float64]:
    """Renormalise rows; make square tables coherent. Cars may stand anywhere among the drivers.

    No probability is smaller than the map's smallest input: `sinkhorn` nearly stops at a table in which one
    car is certain of a position that others have as well.
    """
    inside = is_car[..., None] & is_position[:, None, :]
    table = np.where(inside, np.maximum(table, marginal.PROBABILITY_FLOOR), 0.0)
    table /= np.where(is_car, table.sum(axis=-1), 1.0)[..., None]
    n_cars = is_car.sum(axis=1)
    square = n_cars == is_position.sum(axis=1)
    cars_first = np.argsort(~is_car, axis=1, kind="stable")[..., None]
    ordered = np.take_along_axis(table, cars_first, axis=1)
    ordered[square] = sinkhorn(ordered[square], n_cars[square])
    np.put_along_axis(table, cars_first, ordered, axis=1)
    return table
