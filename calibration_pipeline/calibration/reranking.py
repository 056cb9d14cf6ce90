r"""Recalibration of a user's scenarios by re-ranking the cars of each scenario.

A scenario has scores :math:`x_i = u_i + r_i` with recovered log-strengths u and residuals r. Given the order,
the residuals are drawn from their law (`draw_scores`). The recalibrated order ranks :math:`s u_i + r_i`: the
same luck at sharpness s. The residuals keep dependence between cars. At s = 1 every scenario is unchanged.

The front group then gets its own sharpness. Given the order of the new front group, its residuals are drawn,
and ranked at sharpness :math:`s e^t` with the front tilt t. Under the reverse Plackett-Luce law the order of
the group depends on the other cars only through which cars it holds, so that the new law is exact. At t = 0
the order is unchanged.

The law of the user's luck is unknown. It is modelled as a mixture of the reverse Plackett-Luce law (bad luck
has the heavy tail) and its mirror image, the ordinary law (good luck has the heavy tail). The share is the
maximum-likelihood estimate from the race's scenarios; for symmetric luck, such as normal, it is about a half.

Retirements are recalibrated likewise: a scenario's chaos is drawn given its retirements. Cars then retire or
run on by thinning with the shifted logit (Lewis & Shedler 1979, Nav. Res. Logist. Q. 26:403,
doi:10.1002/nav.3800260304).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit

from calibration_pipeline.calibration.race_curves import CHAOS_REACH, N_CHAOS_NODES, front_group
from calibration_pipeline.scenarios.log_strengths import recover_log_strengths, running_order
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.stats.quadrature import even_nodes
from calibration_pipeline.stats.ranking import first_to_last

ORDER_OUTCOMES = ("laps_completed", "laps_led", "fastest_laps")
"""Outcomes of cars that are unknown in a changed order."""
STREAM = 7
MIXTURE_STEPS = 30


def rerank_races(ensemble: xr.Dataset, recalibration: Mapping[int, Recalibration], seed: int) -> xr.Dataset:
    """Re-rank the cars of every scenario.

    Parameters
    ----------
    ensemble : xarray.Dataset
        `ScenarioEnsemble`, with or without `running`.
    recalibration : mapping
        race_id -> `Recalibration` with arrays (scenario). Races that are missing keep their scenarios.
    seed : int
        A race's scenarios depend on the seed, and not on the other races.

    Returns
    -------
    xarray.Dataset
        The ensemble with recalibrated finish_position and running, without `ORDER_OUTCOMES`: they are
        unknown in another order. An ensemble without `running` keeps its retirements.
    """
    finish = ensemble["finish_position"].values.copy()
    running = ensemble["running"].values.copy() if "running" in ensemble else None
    sizes = ensemble["field_size"].values.tolist()
    for r, (race, n) in enumerate(zip(ensemble["race"].values.tolist(), sizes, strict=True)):
        if race not in recalibration:
            continue
        change = recalibration[race]
        rng = np.random.default_rng([seed, race, STREAM])
        log_strength = ensemble["utility"].values[r, :n].astype(np.float64)
        before = after = np.ones((len(finish[r]), n), bool)
        if running is not None:
            before = running[r, :, :n].copy()
            at_no_chaos = ensemble["incident_logit"].values[r, :n].astype(np.float64)
            chaos_scale = float(ensemble["chaos_scale"].values[r])
            after = shift_incidents(before, at_no_chaos, chaos_scale, np.asarray(change.incident_shift), rng)
            running[r, :, :n] = after
        sharpness, tilt = (
            np.exp(np.broadcast_to(np.asarray(values, np.float64), len(before)))
            for values in (change.log_sharpness, change.front_tilt)
        )
        finish[r, :, :n] = rerank(finish[r, :, :n], before, after, log_strength, sharpness, tilt, rng)
    changed = {"finish_position": finish} | ({} if running is None else {"running": running})
    kept = ensemble.drop_vars(ORDER_OUTCOMES, errors="ignore")
    return kept.assign({name: (ensemble[name].dims, values) for name, values in changed.items()})


def rerank(
    finish: NDArray,
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    log_strength: NDArray,
    sharpness: NDArray,
    front_factor: NDArray,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """Re-rank one race's cars, scenario by scenario.

    Cars that stay retired keep their positions. The other positions go to the running cars, by score. Newly
    retired cars fall behind them, to a random depth among the retired.

    Parameters
    ----------
    finish : array of int, shape (scenario, car)
        A permutation of 1..n in every scenario.
    before, after : array of bool, shape (scenario, car)
        Whether a car runs before and after recalibration; at least one does in every scenario.
    log_strength : array, shape (car)
        Under the reverse Plackett-Luce.
    sharpness : array, shape (scenario)
    front_factor : array, shape (scenario)
        Factor on the sharpness of the front group.
    rng : numpy.random.Generator

    Returns
    -------
    array of int16, shape (scenario, car)
        Equal to `finish` at sharpness 1 and factor 1 with the same running cars.
    """
    n_scenarios, n_cars = finish.shape
    order = running_order(finish, before)
    luck = draw_luck(order, log_strength, rng)
    score = sharpen(order, luck, sharpness, rng)
    position = np.arange(1, n_cars + 1)
    by_finish = finish.argsort(axis=1)
    still_out = np.take_along_axis(~before & ~after, by_finish, axis=1)
    open_place = np.cumsum(~still_out, axis=1)
    for_retired = still_out | (open_place > after.sum(axis=1, keepdims=True))
    positions = position[for_retired.argsort(axis=1, kind="stable")]

    depth = running_order(finish, ~before & ~after) / (n_cars + 1)
    newly_out = before & ~after
    if newly_out.any():
        depth = np.where(newly_out, rng.random(finish.shape), depth)
    # Running cars by score, then retired cars by depth. Ties from rounding keep the finish order.
    key = np.take_along_axis(np.where(after, -score, np.inf), by_finish, axis=1)
    depth = np.take_along_axis(np.where(after, 0.0, depth), by_finish, axis=1)
    sequence = np.take_along_axis(by_finish, np.lexsort((depth, key), axis=1), axis=1)
    if (front_factor != 1).any():
        sequence = _reorder_front(sequence, after, score, luck, sharpness, front_factor, rng)
    new = np.empty((n_scenarios, n_cars), np.int16)
    np.put_along_axis(new, sequence, positions.astype(np.int16), axis=1)
    return new


def _reorder_front(
    sequence: NDArray,
    running: NDArray[np.bool_],
    score: NDArray,
    luck: "Luck",
    sharpness: NDArray,
    front_factor: NDArray,
    rng: np.random.Generator,
) -> NDArray:
    """Draw the order of the front group again; `sequence` holds the cars from first to last.

    Under the mirrored law the order given the group is not that law among the group's cars. Its scenarios
    keep their order.
    """
    rank = np.empty(sequence.shape, np.int64)
    np.put_along_axis(rank, sequence, np.arange(1, sequence.shape[1] + 1)[None], axis=1)
    front = front_group(np.where(running, rank, 0))
    old, more = sharpness[:, None], (sharpness * front_factor - sharpness)[:, None]
    drawn = draw_scores(front, old * luck.log_strength, rng) + more * luck.log_strength
    again = np.where(luck.has_bad_luck[:, None], drawn, score)
    key = np.take_along_axis(np.where(front > 0, -again, np.inf), sequence, axis=1)
    return np.take_along_axis(sequence, key.argsort(axis=1, kind="stable"), axis=1)


class Luck(NamedTuple):
    """Law of the luck of each scenario.

    Attributes
    ----------
    log_strength : (car), under the reverse Plackett-Luce law
    slowness : (car), negative log-strengths under its mirror image
    has_bad_luck : (scenario), whether a scenario follows the first of these laws
    """

    log_strength: NDArray
    slowness: NDArray
    has_bad_luck: NDArray[np.bool_]


def draw_luck(order: NDArray, log_strength: NDArray, rng: np.random.Generator) -> Luck:
    """Fit the two laws of the luck, and draw which one a scenario follows.

    Parameters
    ----------
    order : array of int, shape (scenario, car)
        Ranks of the running cars, 0 for the others.
    log_strength : array, shape (car)
        Under the reverse Plackett-Luce.
    rng : numpy.random.Generator
    """
    mirrored = _mirror(order)
    slowness = recover_log_strengths(mirrored)
    gain = log_probability(order, log_strength) - log_probability(mirrored, slowness)
    return Luck(log_strength, slowness, rng.random(len(order)) < _share_of_first(gain))


def sharpen(order: NDArray, luck: Luck, sharpness: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw scores given an order, and change their sharpness.

    Parameters
    ----------
    order : array of int, shape (scenario, car)
        Ranks of the running cars, 0 for the others.
    luck : Luck
    sharpness : array, shape (scenario)
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (scenario, car)
        Scores, larger is ahead; at sharpness 1 in the order of `order`.
    """
    more = sharpness[:, None] - 1
    bad_luck = draw_scores(order, luck.log_strength, rng) + more * luck.log_strength
    good_luck = -draw_scores(_mirror(order), luck.slowness, rng) - more * luck.slowness
    return np.where(luck.has_bad_luck[:, None], bad_luck, good_luck)


def _mirror(order: NDArray) -> NDArray:
    """Return the ranks from the last car to the first."""
    return np.where(order > 0, order.max(axis=1, keepdims=True) + 1 - order, 0)


def _share_of_first(gain: NDArray) -> NDArray[np.float64]:
    """Posterior probability of each scenario under the first law of a two-law mixture with fitted share.

    By EM (Dempster, Laird & Rubin 1977, sec. 4.3); `gain` is the log-likelihood under the first less that
    under the second, (scenario).
    """
    prior_logit = 0.0
    for _ in range(MIXTURE_STEPS):
        share = expit(gain + prior_logit).mean()
        prior_logit = logit(np.clip(share, 1e-6, 1 - 1e-6))
    return expit(gain + prior_logit)


def log_probability(order: NDArray, log_strength: NDArray) -> NDArray[np.float64]:
    """Log-probability of each scenario's running order under the reverse Plackett-Luce law: (scenario).

    Parameters
    ----------
    order : array of int, shape (scenario, car)
        Ranks of the running cars, 0 for the others.
    log_strength : array, shape (car) or (scenario, car)
    """
    _, inside, slowness, log_rate = _rates(order, log_strength)
    return np.subtract(slowness, log_rate, out=np.zeros(order.shape), where=inside).sum(axis=1)


def _rates(order: NDArray, log_strength: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Cars first to last, which of them run, their -u, and the log of the summed e^-u up to each."""
    cars = first_to_last(order)
    inside = np.take_along_axis(order > 0, cars, axis=1)
    by_rank = np.take_along_axis(np.broadcast_to(log_strength, order.shape), cars, axis=1)
    slowness = np.where(inside, -by_rank, -np.inf)
    return cars, inside, slowness, np.logaddexp.accumulate(slowness, axis=1)


def draw_scores(order: NDArray, log_strength: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    r"""Draw scores from their law given an order.

    Under the reverse Plackett-Luce :math:`x_i = u_i - G_i`, so :math:`e^{x_i}` is exponential with rate
    :math:`w_i = e^{-u_i}`: a clock, and the first to ring is the last car's. The gaps between rings are
    exponential with the summed rates of the cars still racing, whatever the order (Maddison, Tarlow & Minka
    2014, A* Sampling, NIPS 27, sec. 3; for counterfactuals, as here, Oberst & Sontag 2019, PMLR 97:4881).

    Parameters
    ----------
    order : array of int, shape (scenario, car)
        Ranks of the running cars, 0 for the others.
    log_strength : array, shape (car) or (scenario, car)
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (scenario, car)
        Scores in the order of `order`, the first car's largest. Cars that did not run have a score from
        the unconditional law, u - G.
    """
    cars, inside, _, log_rate = _rates(order, log_strength)
    log_gap = np.where(inside, np.log(rng.exponential(size=order.shape)) - log_rate, -np.inf)
    ordered = np.logaddexp.accumulate(log_gap[:, ::-1], axis=1)[:, ::-1]
    score = np.empty(order.shape)
    np.put_along_axis(score, cars, ordered, axis=1)
    return np.where(order > 0, score, log_strength - rng.gumbel(size=order.shape))


def shift_incidents(
    running: NDArray[np.bool_],
    incident_logit: NDArray,
    chaos_scale: float,
    shift: NDArray,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Retire running cars, or let retired cars run on, by a shift of the incident logit.

    A scenario's chaos is drawn given its retirements. At this chaos a car retires with probability p, and p'
    with the shifted logit. A running car retires with probability (p' - p) / (1 - p), a retired car runs on
    with 1 - p' / p. At shift 0 nothing changes.

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
        A scenario whose cars would all retire is unchanged.
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
    """Draw each scenario's chaos, one of the quadrature's nodes, given its retirements: (scenario)."""
    nodes, weights = even_nodes(N_CHAOS_NODES, CHAOS_REACH)
    at = incident_logit[:, None] + chaos_scale * nodes
    log_probability = running @ log_expit(-at) + ~running @ log_expit(at) + np.log(weights)
    return nodes[(log_probability + rng.gumbel(size=log_probability.shape)).argmax(axis=1)]
