"""Diagnostics of a calibration from arrays: convergence, predictive checks, calibration, report.

The functions check the sampler's convergence, the fitted model against the observations, and the calibration
of probabilities and joint events. `generate_calibration_report` writes all of it as Markdown. Tables over
many races with race-clustered intervals are in `verification`, charts in `plots.charts`.
"""

import io
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import arviz as az
import numpy as np
import numpyro
import polars as pl
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from calibration_pipeline.archetypes import ARCHETYPES, parse_archetype
from calibration_pipeline.events.files import DEFAULT_EVENTS
from calibration_pipeline.events.language import Event, Outcomes, at_least, favourites, top
from calibration_pipeline.io.files import checked_target, write_atomically
from calibration_pipeline.marginal import model as marginal
from calibration_pipeline.marginal.checks import check_arrays
from calibration_pipeline.marginal.predictive import (
    map_parameters,
    race_log_likelihoods,
    replicate_finishes,
)
from calibration_pipeline.mcmc.convergence import Convergence, judge_convergence
from calibration_pipeline.mcmc.draws import Samples, read_draws
from calibration_pipeline.metrics import compute_all_metrics
from calibration_pipeline.models import track_archetype_calibration_model
from calibration_pipeline.plots import charts, figures
from calibration_pipeline.report.arrays import Judged, render_array_report
from calibration_pipeline.stats.real_arrays import check_real
from calibration_pipeline.verification.arrays import (
    FINISH,
    EventErrors,
    Variables,
    compare_events,
    one_race_curves,
    read_outcomes,
)
from calibration_pipeline.verification.reliability import reliability_bins

__all__ = [
    "Convergence",
    "assess_mcmc_convergence",
    "compute_joint_event_validation",
    "generate_calibration_report",
    "plot_calibration_curve",
    "posterior_predictive_check",
]

EVENT_TOLERANCE = 0.1
"""Joint-event errors beyond this are logged as a warning."""
EVENTS: tuple[Event, ...] = (
    top(5),
    at_least(1, favourites(1), top(5)),
    at_least(3, favourites(5), top(10)),
    *DEFAULT_EVENTS,
)
"""Events of `compute_joint_event_validation`."""

logger = logging.getLogger(__name__)


def posterior_predictive_check(
    mcmc_samples: Samples,
    predicted_probs: ArrayLike,
    observed: ArrayLike,
    track_archetype: str,
    *,
    season: ArrayLike | None = None,
    random_seed: int = 42,
) -> xr.DataTree:
    """Return the posterior predictive of a fitted marginal map with the observations, as ArviZ reads it.

    Parameters
    ----------
    mcmc_samples : numpyro.infer.MCMC, xarray.DataTree or mapping of str to array_like
        Result of `models.run_mcmc_calibration`: the MCMC object or its samples, flat (draw, ...) or by
        chain (chain, draw, ...). Flat draws count as one chain.
    predicted_probs : array_like
        Finish probabilities (n_races, n_drivers, n_positions), the same as in the fit.
    observed : array_like
        Finish positions (n_races, n_drivers), 1 is the winner, 0 marks padding.
    track_archetype : str
        Track archetype.
    season : array_like, optional
        Season of each race (n_races,), if the fit used it.
    random_seed : int
        Seed of the replicated finishes.

    Returns
    -------
    xarray.DataTree
        Groups `posterior`; `posterior_predictive` with replicated `finish_position` (chain, draw, race,
        driver), cars drawn one by one; `log_likelihood` of each race's finish (chain, draw, race), race noise
        integrated out, for `arviz.loo`; `observed_data` with `finish_position` (race, driver);
        `constant_data` with `predicted_probability` (race, driver, position); `sample_stats` with
        `diverging`, where the samples have it.

    Raises
    ------
    ValueError
        If the model refuses predictions, positions or archetype, a parameter is missing, or slopes and
        seasons do not match.

    Examples
    --------
    >>> samples = {"slope": np.ones(100), "intercept": np.zeros(100), "noise_sigma": np.zeros(100)}
    >>> tree = posterior_predictive_check(samples, np.full((1, 2, 2), 0.5), [[1, 2]], "road_course")
    >>> float(tree["log_likelihood/finish_position"].mean().round(3))  # log 1/4
    -1.386
    """
    check_arrays(observed, predicted_probs)
    position, probability = np.asarray(observed), np.asarray(predicted_probs)
    labels = None if season is None else np.asarray(season)
    # The model checks its arguments; NumPyro's own validation would refuse padding.
    with numpyro.validation_enabled(False), numpyro.handlers.block(), numpyro.handlers.seed(rng_seed=0):
        track_archetype_calibration_model(position, probability, track_archetype, labels)
    draws = read_draws(mcmc_samples)
    parameters = map_parameters(draws, labels, len(position))
    races = marginal.as_races(position, probability)
    shape = (draws.posterior.sizes["chain"], draws.posterior.sizes["draw"])
    replicated = replicate_finishes(races, parameters, random_seed)
    likelihood = race_log_likelihoods(races, parameters)
    stats = {} if draws.diverging is None else {"sample_stats": {"diverging": draws.diverging}}
    return az.from_dict(
        {
            "posterior": {str(name): values.values for name, values in draws.posterior.items()},
            "posterior_predictive": {FINISH: replicated.reshape(*shape, *position.shape)},
            "log_likelihood": {FINISH: likelihood.reshape(*shape, -1)},
            "observed_data": {FINISH: position},
            "constant_data": {"predicted_probability": probability},
            **stats,
        },
        dims={FINISH: ["race", "driver"], "predicted_probability": ["race", "driver", "position"]},
        coords={"position": np.arange(1, probability.shape[2] + 1)},
        attrs={"/": {"track_archetype": str(parse_archetype(track_archetype)), "random_seed": random_seed}},
    )


def assess_mcmc_convergence(mcmc_or_samples: Samples) -> Convergence:
    """Judge convergence by rank-normalised split R-hat, effective sample sizes and divergences.

    The limits are R-hat < 1.01 and bulk and tail ESS > 400 for every parameter, and no divergences.

    Parameters
    ----------
    mcmc_or_samples : numpyro.infer.MCMC, xarray.DataTree or mapping of str to array_like
        A mapping's arrays are (chain, draw, ...), or flat, (draw, ...): then R-hat is not computable and the
        effective sample sizes treat the draws as one chain. The optional key `diverging` marks the draws
        that diverged.

    Returns
    -------
    Convergence

    Raises
    ------
    ValueError
        If there are no draws, arrays disagree on chains or draws, or a draw is not finite.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Rank-normalization, folding, and localization,
    doi:10.1214/20-BA1221.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(size=(4, 1000))
    >>> assess_mcmc_convergence({"slope": draws}).converged
    True
    >>> assess_mcmc_convergence({"slope": draws.ravel()}).reasons
    ['R-hat not computable: samples are flat (no chain dimension)']
    """
    return judge_convergence(read_draws(mcmc_or_samples))


def plot_calibration_curve(
    predictions: ArrayLike,
    observations: ArrayLike,
    track_archetype: str,
    output_path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw predicted event probabilities against observed shares, with the 45° line.

    Cases fall into at most ten bins of about equal number; equal probabilities always share a bin. The
    intervals are Wilson's (1927, doi:10.1080/01621459.1927.10502953) and treat cases as independent.

    Parameters
    ----------
    predictions : array_like
        Event probabilities in [0, 1], any shape.
    observations : array_like
        Whether each event happened, 0 or 1, the same shape.
    track_archetype : str
        Track archetype, for the title.
    output_path : path, optional
        Where to store the picture, whole or not at all; its suffix sets the format, e.g. `.png`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the archetype is unknown, shapes differ or are empty, a value is masked or complex, a probability
        lies outside [0, 1], an observation is not 0 or 1, or `output_path` cannot be written there.
    """
    archetype = parse_archetype(track_archetype)
    check_real(predictions, "Argument predictions")
    check_real(observations, "Argument observations")
    probability, happened = np.asarray(predictions, dtype=np.float64), np.asarray(observations)
    if probability.shape != happened.shape or not probability.size:
        raise ValueError(
            "Arguments predictions and observations must have the same shape, at least one case, got "
            f"{probability.shape} and {happened.shape}."
        )
    _refuse("predictions", "lie in [0, 1]", probability, (probability >= 0) & (probability <= 1))
    _refuse("observations", "be 0 or 1", happened, (happened == 0) | (happened == 1))
    case = np.arange(probability.size)
    bins = reliability_bins(probability.ravel(), happened.ravel().astype(bool), case)
    keys = {"archetype": str(archetype), "forecast": "forecast", "event": "calibration"}
    curve = pl.DataFrame([keys | row for row in bins], infer_schema_length=None).drop("n_races")
    figure, ax = figures.figure_axes()
    charts.draw_calibration_curve(ax, curve)
    if output_path is not None:
        path = checked_target(output_path)
        formats = figure.canvas.get_supported_filetypes()
        if (suffix := path.suffix[1:].lower()) not in formats:
            raise ValueError(
                f"Argument output_path must end in one of {', '.join(formats)}; got {path.name!r}."
            )
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix)
        write_atomically(path, buffer.getvalue())
    return figure


def compute_joint_event_validation(
    predictions: Mapping[str, Variables],
    observations: Variables | Mapping[str, Variables],
    track_types: Sequence[str],
) -> EventErrors:
    """Return the absolute error of predicted against observed shares of joint events.

    Events are `EVENTS`, expressions such as `at_least(2, favourites(3), top(10))`. Events without their
    variables are skipped, by name, at log level info; errors beyond `EVENT_TOLERANCE` are logged as
    warnings. Events that every forecast predicts exactly, such as `top(5)`, are marked in `by_construction`
    of the result. A single race carries little information: for many races see
    `verification.joint_events.validate_events`.

    Parameters
    ----------
    predictions : mapping of str to array_like or mapping
        By archetype, the scenarios of a race: finish positions or real-valued scores (n_samples, n_cars),
        the latter ranked within each sample, smaller is better. Or a dict of variables: `finish_position`,
        `running`, `laps_led`, `incident` (the car retired), each (n_samples, n_cars), `team` and `make`,
        each (n_cars,).
    observations : array_like or mapping
        Results: finish positions (n_cars,), or a dict of the same variables, each (n_cars,); or a dict of
        these by archetype.
    track_types : sequence of str
        The archetypes to judge.

    Returns
    -------
    EventErrors
        A dict of (track_type, event) to |predicted - observed|, in [0, 1]; smaller is better. Its attribute
        `by_construction` has the keys whose error is 0 for every forecast.

    Raises
    ------
    ValueError
        If there is no archetype, one is unknown or lacks predictions, shapes do not match, a value is masked,
        complex, not finite or no position, or `running` and `incident` contradict each other.

    Examples
    --------
    >>> errors = compute_joint_event_validation({"short_track": [[1, 2], [2, 1]]}, [1, 2], ["short_track"])
    >>> errors["short_track", "at_least(1, favourites(1), top(5))"]
    0.0
    >>> ("short_track", "top(5)") in errors.by_construction
    True
    """
    errors = EventErrors()
    fixed = []
    for archetype, scenarios, result in _races(predictions, observations, track_types):
        compared, skipped = compare_events(EVENTS, scenarios, result)
        for event, reason in skipped.items():
            logger.info("Skipped %s at %s: %s.", event, archetype, reason)
        for event, found in compared.items():
            errors[archetype, event] = found.error
            if found.by_construction:
                fixed.append((archetype, event))
            if found.error > EVENT_TOLERANCE:
                logger.warning(
                    "%s at %s was predicted %.3f and happened %.3f: off by more than %g.",
                    event, archetype, found.predicted, found.observed, EVENT_TOLERANCE,
                )  # fmt: skip
    errors.by_construction = frozenset(fixed)
    return errors


def generate_calibration_report(
    mcmc_samples: Samples | Mapping[str, Samples],
    predictions: Mapping[str, Variables],
    observations: Variables | Mapping[str, Variables],
    track_archetypes: Sequence[str],
    output_path: str | os.PathLike[str],
) -> str:
    """Write a Markdown report: scores, calibration curves, joint events, R-hat and effective sample sizes.

    Pictures are stored beside the report and linked from it.

    Parameters
    ----------
    mcmc_samples : MCMC, DataTree or mapping
        Draws as `assess_mcmc_convergence` takes them, or a dict of these by archetype.
    predictions, observations : mapping, array_like or mapping
        As `compute_joint_event_validation` takes them. Scores are those of finish positions.
    track_archetypes : sequence of str
        The archetypes to report.
    output_path : path
        The Markdown file; it and its pictures replace older files, each whole or not at all.

    Returns
    -------
    str
        The text that was written.

    Raises
    ------
    ValueError
        If an argument is refused by `assess_mcmc_convergence` or `compute_joint_event_validation`, an
        archetype lacks samples, or `output_path` is not in an existing folder.
    """
    path = checked_target(output_path)
    judged = [
        _judge(archetype, scenarios, result)
        for archetype, scenarios, result in _races(predictions, observations, track_archetypes)
    ]
    samples = _by_archetype(mcmc_samples, track_archetypes, "mcmc_samples") or {"all": mcmc_samples}
    fits = {name: assess_mcmc_convergence(draws) for name, draws in samples.items()}
    text, pictures = render_array_report(judged, fits, path.stem)
    for name, png in pictures.items():
        write_atomically(path.with_name(name), png)
    write_atomically(path, text.encode())
    return text


def _races(
    predictions: Mapping[str, Variables],
    observations: Variables | Mapping[str, Variables],
    track_types: Sequence[str],
) -> list[tuple[str, Outcomes, Outcomes]]:
    """Read every archetype's scenarios and result."""
    if isinstance(track_types, str) or not track_types:
        raise ValueError(
            f"Argument track_types must name at least one archetype, in a list; got {track_types!r}."
        )
    archetypes = [parse_archetype(name) for name in track_types]
    simulated = _by_archetype(predictions, archetypes, "predictions")
    if simulated is None:
        raise ValueError("Argument predictions must be a dict by archetype.")
    happened = _by_archetype(observations, archetypes, "observations")
    if happened is None:
        happened = dict.fromkeys(archetypes, observations)
    return [(str(name), *read_outcomes(simulated[name], happened[name], name)) for name in archetypes]


def _by_archetype(values: object, archetypes: Sequence[str], argument: str) -> dict[str, Any] | None:
    """Return the values of a dict by archetype; None if `values` is no dict by archetype."""
    if not (isinstance(values, Mapping) and set(values) & set(ARCHETYPES)):
        return None
    if missing := [name for name in archetypes if name not in values]:
        raise ValueError(f"Argument {argument} lacks {', '.join(missing)}; it has {', '.join(values)}.")
    return {name: values[name] for name in archetypes}


def _judge(archetype: str, scenarios: Outcomes, result: Outcomes) -> Judged:
    position, actual = scenarios.finish_position, result.finish_position
    errors, skipped = compare_events(EVENTS, scenarios, result)
    return Judged(
        archetype,
        n_samples=position.shape[0],
        n_cars=actual.size,
        metrics=compute_all_metrics(position, actual),
        curves=one_race_curves(archetype, scenarios, result),
        errors=errors,
        skipped=skipped,
    )


def _refuse(name: str, rule: str, values: NDArray, good: NDArray) -> None:
    if not good.all():
        first = values[~good].ravel()[0]
        n_bad = int((~good).sum())
        raise ValueError(
            f"Argument {name} must {rule}; {n_bad} of {values.size} do not, the first is {first}."
        )
