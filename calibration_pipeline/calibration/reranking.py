r"""Recalibrated scenarios of a user's ensemble: the cars of each scenario are ranked again.

A scenario is taken as :math:`x_i = u_i + r_i` with the recovered utilities u and residuals r. Given the order
the residuals are drawn from their law (`draw_scores`); ranking by :math:`s u_i + r_i` is then the race that
the same luck would have made of sharpness s. An ensemble with dependence between cars keeps it, in its
residuals; at s = 1 every scenario comes back as it was.

The law of the user's luck is not known. It is taken as a mixture of the reverse Plackett-Luce (bad luck has
the heavy tail) and its mirror image, the ordinary one (good luck has), in the share that the race's scenarios
are likeliest under; symmetric luck, as the normal, comes out as about half of each.

Retirements follow likewise: from a scenario's retirements its chaos is drawn, and cars retire, or run on, as
the shifted logit makes them more or less likely to (thinning, Lewis & Shedler 1979, Nav. Res. Logist. Q.
26:403, doi:10.1002/nav.3800260304).
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit

from calibration_pipeline.scenarios.log_strengths import recover_utilities, running_order
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.stats.quadrature import gauss_hermite
from calibration_pipeline.stats.ranking import first_to_last

ORDER_OUTCOMES = ("laps_completed", "laps_led", "fastest_laps")
"""Outcomes of cars that no longer belong to them once the order has changed."""
STREAM = 7
MIXTURE_STEPS = 30


def rerank_races(ensemble: xr.Dataset, recalibration: Mapping[int, Recalibration], seed: int) -> xr.Dataset:
    """Rank the cars of every scenario again.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, with or without `running`.
    recalibration : mapping
        race_id -> `Recalibration` with arrays (scenario). Races that are missing keep their scenarios.
    seed : int
        A race's scenarios are the same for the same seed, whatever other races there are.

    Returns
    -------
    xarray.Dataset
        The ensemble with finish_position and running changed, and without `ORDER_OUTCOMES`: who led a lap
        in another order is not known. Without `running` retirements are left alone.
    """
    finish = ensemble["finish_position"].values.copy()
    running = ensemble["running"].values.copy() if "running" in ensemble else None
    sizes = ensemble["field_size"].values.tolist()
    for r, (race, n) in enumerate(zip(ensemble["race"].values.tolist(), sizes, strict=True)):
        if race not in recalibration:
            continue
        change = recalibration[race]
        rng = np.random.default_rng([seed, race, STREAM])
        utility = ensemble["utility"].values[r, :n].astype(np.float64)
        before = after = np.ones((len(finish[r]), n), bool)
        if running is not None:
            before = running[r, :, :n].copy()
            at_no_chaos = ensemble["incident_logit"].values[r, :n].astype(np.float64)
            chaos_scale = float(ensemble["chaos_scale"].values[r])
            after = shift_incidents(before, at_no_chaos, chaos_scale, np.asarray(change.incident_shift), rng)
            running[r, :, :n] = after
        sharpness = np.exp(np.asarray(change.log_sharpness, np.float64))
        finish[r, :, :n] = rerank(finish[r, :, :n], before, after, utility, sharpness, rng)
    changed = {"finish_position": finish} | ({} if running is None else {"running": running})
    kept = ensemble.drop_vars(ORDER_OUTCOMES, errors="ignore")
    return kept.assign({name: (ensemble[name].dims, values) for name, values in changed.items()})


def rerank(
    finish: NDArray,
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    utility: NDArray,
    sharpness: NDArray,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Rank one race's cars again, scenario by scenario.

    Cars that stay out keep their places. The other places go to the running cars, by score; cars that are
    newly out fall behind them, to a random depth among the retired.

    Parameters
    ----------
    finish : array of int, shape (scenario, car)
        A permutation of 1..n in every scenario.
    before, after : array of bool, shape (scenario, car)
        Which cars were running, and which are now; at least one in every scenario.
    utility : array, shape (car)
        Under the reverse Plackett-Luce.
    sharpness : array, shape (scenario)
    rng : numpy.random.Generator

    Returns
    -------
    array of int16, shape (scenario, car)
        At sharpness 1, and with the same cars running, `finish`.
    """
    n_scenarios, n_cars = finish.shape
    score = sharpen(running_order(finish, before), utility, sharpness, rng)
    place = np.arange(1, n_cars + 1)
    by_finish = finish.argsort(axis=1)
    still_out = np.take_along_axis(~before & ~after, by_finish, axis=1)
    open_place = np.cumsum(~still_out, axis=1)
    for_retired = still_out | (open_place > after.sum(axis=1, keepdims=True))
    places = place[for_retired.argsort(axis=1, kind="stable")]

    depth = running_order(finish, ~before & ~after) / (n_cars + 1)
    newly_out = before & ~after
    if newly_out.any():
        depth = np.where(newly_out, rng.random(finish.shape), depth)
    # First the running by score, then the retired by depth; ties, which rounding can make, as they were.
    key = np.take_along_axis(np.where(after, -score, np.inf), by_finish, axis=1)
    depth = np.take_along_axis(np.where(after, 0.0, depth), by_finish, axis=1)
    sequence = np.take_along_axis(by_finish, np.lexsort((depth, key), axis=1), axis=1)
    new = np.empty((n_scenarios, n_cars), np.int16)
    np.put_along_axis(new, sequence, places.astype(np.int16), axis=1)
    return new


def sharpen(
    order: NDArray, utility: NDArray, sharpness: NDArray, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw scores that made an order, and give them another sharpness.

    Parameters
    ----------
    order : array of int, shape (scenario, car)
        Ranks of the running cars, 0 for the others.
    utility : array, shape (car)
        Under the reverse Plackett-Luce.
    sharpness : array, shape (scenario)
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (scenario, car)
        Scores, larger is ahead; at sharpness 1 in the order of `order`.
    """
    mirrored = np.where(order > 0, order.max(axis=1, keepdims=True) + 1 - order, 0)
    slowness = recover_utilities(mirrored)
    gain = log_probability(order, utility) - log_probability(mirrored, slowness)
    has_bad_luck = rng.random(len(order)) < _share_of_first(gain)
    more = (sharpness - 1)[:, None]
    bad_luck = draw_scores(order, utility, rng) + more * utility
    good_luck = -draw_scores(mirrored, slowness, rng) - more * slowness
    return np.where(has_bad_luck[:, None], bad_luck, good_luck)


def _share_of_first(gain: NDArray) -> NDArray[np.float64]:
    """Probability of each scenario that it is from the first of two laws, mixed in the likeliest share.

    By EM (Dempster, Laird & Rubin 1977, sec. 4.3); `gain` is the log-likelihood under the first less that
    under the second, (scenario).
    """
    prior_logit = 0.0
    for _ in range(MIXTURE_STEPS):
        share = expit(gain + prior_logit).mean()
        prior_logit = logit(np.clip(share, 1e-6, 1 - 1e-6))
    return expit(gain + prior_logit)


def log_probability(order: NDArray, utility: NDArray) -> NDArray[np.float64]:
    """Log-probability of each scenario's running order under the reverse Plackett-Luce law: (scenario).

    Parameters
    ----------
    order : array of int, shape (scenario, car)
        Ranks of the running cars, 0 for the others.
    utility : array, shape (car)
    """
    _, inside, slowness, log_rate = _rates(order, utility)
    return np.subtract(slowness, log_rate, out=np.zeros(order.shape), where=inside).sum(axis=1)


def _rates(order: NDArray, utility: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Cars first to last, which of them run, their -u, and the log of the summed e^-u up to each."""
    cars = first_to_last(order)
    inside = np.take_along_axis(order > 0, cars, axis=1)
    slowness = np.where(inside, -utility[cars], -np.inf)
    return cars, inside, slowness, np.logaddexp.accumulate(slowness, axis=1)


def draw_scores(order: NDArray, utility: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    r"""Draw the scores that made an order, from their law given the order.

    Under the reverse Plackett-Luce :math:`x_i = u_i - G_i`, so :math:`e^{x_i}` is exponential with rate
    :math:`w_i = e^{-u_i}`: a clock, and the first to ring is the last car's. The gaps between rings are
    exponential with the summed rates of the cars still racing, whatever the order (Maddison, Tarlow & Minka
    2014, A* Sampling, NIPS 27, sec. 3; for counterfactuals, as here, Oberst & Sontag 2019, PMLR 97:4881).

    Parameters
    ----------
    order : array of int, shape (scenario, car)
        Ranks of the running cars, 0 for the others.
    utility : array, shape (car)
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (scenario, car)
        Scores in the order of `order`, the first car's largest. Cars that did not run have a score from
        the law without an order, u - G.
    """
    cars, inside, _, log_rate = _rates(order, utility)
    log_gap = np.where(inside, np.log(rng.exponential(size=order.shape)) - log_rate, -np.inf)
    ordered = np.logaddexp.accumulate(log_gap[:, ::-1], axis=1)[:, ::-1]
    score = np.empty(order.shape)
    np.put_along_axis(score, cars, ordered, axis=1)
    return np.where(order > 0, score, utility - rng.gumbel(size=order.shape))


def shift_incidents(
    running: NDArray[np.bool_],
    incident_logit: NDArray,
    chaos_scale: float,
    shift: NDArray,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Retire cars, or let retired cars run on, as a shift of the incident logit asks for.

    A scenario's chaos is drawn from its law given who retired. It makes p of each car's logit, and p' of the
    shifted one: a running car retires with probability (p' - p) / (1 - p), a retired one runs on with 1 - p'
    / p. At shift 0 nothing changes.

    Parameters
    ----------
    running : array of bool, shape (scenario, car)
    incident_logit : array, shape (car)
        At chaos 0.
    chaos_scale : float
    shift : array, shape (scenario)
    rng : numpy.random.Generator

    Returns
    -------
    array of bool, shape (scenario, car)
        A scenario whose cars would all retire stays as it was.
    """
    chaos = _draw_chaos(running, incident_logit, chaos_scale, rng)
    at = incident_logit + chaos_scale * chaos[:, None]
    shifted = at + shift[:, None]
    retires = -np.expm1(log_expit(-shifted) - log_expit(-at))
    runs_on = -np.expm1(log_expit(shifted) - log_expit(at))
    luck = rng.random(running.shape)
    changed = np.where(running, luck >= retires, luck < runs_on)
    return np.where(changed.any(axis=1, keepdims=True), changed, running)


def _draw_chaos(
    running: NDArray[np.bool_], incident_logit: NDArray, chaos_scale: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw each scenario's chaos, one of the quadrature's nodes, given who retired: (scenario)."""
    nodes, weights = gauss_hermite()
    at = incident_logit[:, None] + chaos_scale * nodes
    log_probability = running @ log_expit(-at) + ~running @ log_expit(at) + np.log(weights)
    return nodes[(log_probability + rng.gumbel(size=log_probability.shape)).argmax(axis=1)]
