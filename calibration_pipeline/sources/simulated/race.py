"""Simulation of one race: grid, speed, wrecks, luck, classification and every lap.

This module simulates the race of given cars; `season` selects the cars. Arrays over cars are (car,), over
laps (lap,) with lap 0 the grid, over both (car, lap).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from calibration_pipeline.sources.simulated.laws import GOOD_LUCK_SHARE, LUCK_DF, WRECK_CHAOS, RaceLaw
from calibration_pipeline.stats.ranking import rank

type Floats = NDArray[np.float64]
type Ints = NDArray[np.int64]
type Bools = NDArray[np.bool_]

RUNNING = "running"
ACCIDENT = "accident"
CAUSES = (ACCIDENT, "engine", "suspension", "electrical", "transmission", "brakes", "overheating")
CAUSE_SHARES = (0.58, 0.14, 0.08, 0.07, 0.06, 0.04, 0.03)

GRID_SPEED_WEIGHT = 0.8
ABILITY_SAVES = 0.25
MAX_WRECKS = 5
WRECK_SPREAD = 1.5
LATE_WRECKS = 0.6
DAMAGE_COST = 0.8
DAMAGE_LAPS_SHARE = 0.15
CAUTION_AFTER_ACCIDENT, CAUTION_AFTER_OTHER = 0.70, 0.20
STAGE_ENDS = (0.25, 0.50)
PACE_SPREAD = 0.004
SETUP_SPREAD = 0.002
TRAFFIC_COST = 0.004
LAP_NOISE = 0.003
SHUFFLE_MEMORY = 0.97
GREEN_PIT_STOP_S = 32.0
UNTIMED_SHARE = 0.004


@dataclass(frozen=True)
class RaceOutcome:
    """Outcome of one race; arrays are (car,) unless stated otherwise.

    Attributes
    ----------
    start_position, finish_position, laps_completed : numpy.ndarray
        Grid, official finish (both permutations of 1..n) and laps.
    running : numpy.ndarray
        Whether the car was running at the finish.
    status : numpy.ndarray
        'running' or the cause of retirement.
    speed : numpy.ndarray
        Speed before luck: sharpness * (ability + effects of the day) + the grid's effect.
    chaos : float
        The race's chaos, N(0, 1).
    race_laps, n_cautions : int
        Laps run in the race and its caution periods.
    yellow : numpy.ndarray
        Laps under caution, (lap,).
    position : numpy.ndarray
        Running position, (car, lap), 0 once the car has stopped.
    lap_time_s : numpy.ndarray
        Lap time, (car, lap), s; NaN where there is none.
    """

    start_position: Ints
    finish_position: Ints
    laps_completed: Ints
    running: Bools
    status: NDArray[np.str_]
    speed: Floats
    chaos: float
    race_laps: int
    n_cautions: int
    yellow: Bools
    position: Ints
    lap_time_s: Floats

    @property
    def laps_led(self) -> Ints:
        """Laps on which the car was first, lap 0 not among them: (car,)."""
        return (self.position[:, 1:] == 1).sum(axis=1)

    @property
    def green_laps(self) -> int:
        """Laps not under caution."""
        return int((~self.yellow[1:]).sum())

    @property
    def fastest_laps(self) -> Ints:
        """Green laps on which the car was fastest, ties to the car ahead: (car,); adds to `green_laps`."""
        green = ~self.yellow
        green[0] = False
        time, position = self.lap_time_s[:, green], self.position[:, green]
        ahead_first = np.where(np.isnan(time), np.inf, time) + 1e-6 * position
        return np.bincount(ahead_first.argmin(axis=0), minlength=len(time))


@dataclass(frozen=True)
class _Incidents:
    """Incidents of a race: stops, retirements and damage by car, and the laps of cautions."""

    stop_lap: Ints
    retired: Bools
    status: NDArray[np.str_]
    damaged: Bools
    caution_starts: Ints


def run_race(
    ability: Floats,
    team: Ints,
    law: RaceLaw,
    sharpness: float,
    scheduled_laps: int,
    length_miles: float,
    rng: np.random.Generator,
) -> RaceOutcome:
    """Simulate one race.

    Parameters
    ----------
    ability : numpy.ndarray
        Driver's skill plus team's strength at this archetype, (car,).
    team : numpy.ndarray
        Index of each car's team, (car,).
    law : RaceLaw
        Law of the archetype.
    sharpness : float
        Factor on differences in speed.
    scheduled_laps : int
        Laps scheduled.
    length_miles : float
        Length of a lap.
    rng : numpy.random.Generator
        The race's own generator.

    Returns
    -------
    RaceOutcome
    """
    n_cars = ability.size
    chaos = float(rng.normal())
    team_day = rng.normal(0, law.team_day_sd, team.max() + 1)[team]
    pace = sharpness * (ability + team_day + rng.normal(0, law.car_day_sd, n_cars))
    start = _positions(GRID_SPEED_WEIGHT * _standardised(pace) + rng.normal(size=n_cars))
    speed = pace + law.start_effect * _normal_scores(start)

    extra_laps = rng.integers(2, 8) if rng.random() < law.overtime else 0
    race_laps = scheduled_laps + int(extra_laps)
    incidents = _incidents(ability, speed, law, chaos, race_laps, rng)
    performance = speed + _luck(law.luck_scale, n_cars, rng)
    performance -= DAMAGE_COST * law.luck_scale * incidents.damaged * rng.exponential(size=n_cars)

    running = ~incidents.retired
    laps_down = _laps_down(performance, running, incidents.damaged, law, race_laps, rng)
    laps = np.where(running, race_laps - laps_down, incidents.stop_lap - 1)
    finish = np.empty(n_cars, dtype=np.int64)
    finish[np.lexsort((-performance, ~running, -laps))] = np.arange(1, n_cars + 1)

    yellow = _yellow_laps(incidents.caution_starts, law, chaos, race_laps, rng)
    end = np.where(running, finish, _positions(performance))
    position = _running_order(start, end, _standardised(pace), laps, law.shuffle, race_laps, rng)
    green_lap_s = 3600 * length_miles / law.mph
    return RaceOutcome(
        start_position=start,
        finish_position=finish,
        laps_completed=laps,
        running=running,
        status=incidents.status,
        speed=speed,
        chaos=chaos,
        race_laps=race_laps,
        n_cautions=int((yellow[1:] & ~yellow[:-1]).sum()),
        yellow=yellow,
        position=position,
        lap_time_s=_lap_times(position, yellow, _standardised(pace), green_lap_s, law, rng),
    )


def _incidents(
    ability: Floats, speed: Floats, law: RaceLaw, chaos: float, race_laps: int, rng: np.random.Generator
) -> _Incidents:
    """Draw cars that stop alone and wrecks that take a window of the pack; the earliest stop counts."""
    n_cars = ability.size
    logit = law.incident_intercept + law.chaos_scale * chaos - ABILITY_SAVES * (ability - ability.mean())
    alone = rng.random(n_cars) < expit(logit)
    cause = rng.choice(CAUSES, size=n_cars, p=CAUSE_SHARES)
    alone_lap = np.where(alone, rng.integers(1, race_laps + 1, n_cars), race_laps + 1)

    n_wrecks = min(rng.poisson(law.wrecks * np.exp(WRECK_CHAOS * chaos)), MAX_WRECKS)
    wreck_lap = np.ceil(race_laps * (1 - rng.random((n_wrecks, 1))) ** LATE_WRECKS).astype(np.int64)
    pack = rank(-speed + WRECK_SPREAD * rng.normal(size=(n_wrecks, n_cars))) - 1
    behind_first = pack - rng.integers(0, n_cars, (n_wrecks, 1))
    caught = (behind_first >= 0) & (behind_first < 2 + rng.poisson(law.wreck_size, (n_wrecks, 1)))
    caught &= alone_lap > wreck_lap
    out = caught & (rng.random(caught.shape) < law.wreck_retires)
    wrecked_lap = np.where(out, wreck_lap, race_laps + 1).min(axis=0, initial=race_laps + 1)

    stop_lap = np.minimum(alone_lap, wrecked_lap)
    retired = stop_lap <= race_laps
    in_wreck = wrecked_lap <= race_laps
    status = np.where(in_wreck, ACCIDENT, np.where(retired, cause, RUNNING))
    shown = np.where(cause == ACCIDENT, CAUTION_AFTER_ACCIDENT, CAUTION_AFTER_OTHER)
    single = alone & ~in_wreck & (rng.random(n_cars) < shown)
    return _Incidents(
        stop_lap=stop_lap,
        retired=retired,
        status=status,
        damaged=caught.any(axis=0) & ~retired,
        caution_starts=np.concatenate([wreck_lap.ravel(), alone_lap[single]]),
    )


def _luck(scale: float, n_cars: int, rng: np.random.Generator) -> Floats:
    """Draw two-piece Student-t luck: the bad tail is `scale` wide, the good one a share of it."""
    luck = rng.standard_t(LUCK_DF, n_cars)
    return scale * np.where(luck > 0, GOOD_LUCK_SHARE, 1.0) * luck


def _laps_down(
    performance: Floats,
    running: Bools,
    damaged: Bools,
    law: RaceLaw,
    race_laps: int,
    rng: np.random.Generator,
) -> Ints:
    """Count laps behind the winner at the finish; 0 for at least one running car."""
    gap = (performance[running].max() - performance) / performance[running].std()
    down = np.maximum(np.ceil((gap - law.lead_lap_sd) / law.lap_sd), 0).astype(np.int64)
    repairs = rng.geometric(1 / (1 + DAMAGE_LAPS_SHARE * race_laps), performance.size)
    down += np.where(damaged | (rng.random(performance.size) < law.trouble), repairs, 0)
    return np.clip(down - down[running].min(), 0, race_laps // 2)


def _yellow_laps(
    incident_starts: Ints, law: RaceLaw, chaos: float, race_laps: int, rng: np.random.Generator
) -> Bools:
    """Draw the laps under caution, (lap,): incidents, stage ends, debris; the first lap is green."""
    n_debris = rng.poisson(law.debris_cautions * np.exp(0.25 * chaos))
    stages = np.round(race_laps * np.array(STAGE_ENDS)).astype(np.int64)
    starts = np.concatenate([incident_starts, stages + 1, rng.integers(2, race_laps, n_debris)])
    lengths = 2 + rng.poisson(law.caution_laps - 2, starts.size)
    change = np.zeros(race_laps + 2, dtype=np.int64)
    np.add.at(change, starts, 1)
    np.add.at(change, np.minimum(starts + lengths, race_laps + 1), -1)
    yellow = np.cumsum(change)[:-1] > 0
    yellow[:2] = False
    return yellow


def _running_order(
    start: Ints,
    end: Ints,
    pace: Floats,
    laps: Ints,
    shuffle: float,
    race_laps: int,
    rng: np.random.Generator,
) -> Ints:
    """Rank the cars lap by lap: from the grid through the order of pace to the finish, (car, lap).

    A car's latent performance is a mixture of its grid, pace and finish whose weights move with the
    race, plus first-order autoregressive noise that vanishes at both ends; each lap ranks the cars that
    complete it.
    """
    from scipy.signal import lfilter  # every process loads this module, and few draw a race

    time = np.linspace(0, 1, race_laps + 1)
    from_grid, to_finish = (1 - time) ** 8, time**3
    noise = rng.normal(0, np.sqrt(1 - SHUFFLE_MEMORY**2), (start.size, race_laps + 1))
    noise = lfilter([1.0], [1.0, -SHUFFLE_MEMORY], noise, axis=1)
    latent = (
        np.outer(_normal_scores(start), from_grid)
        + np.outer(pace, 1 - from_grid - to_finish)
        + np.outer(_normal_scores(end), to_finish)
        + shuffle * 2 * np.sqrt(time * (1 - time)) * noise
    )
    active = np.arange(race_laps + 1) <= laps[:, None]
    order = np.argsort(np.where(active, -latent, np.inf), axis=0, kind="stable")
    position = np.empty_like(order)
    np.put_along_axis(position, order, np.arange(1, start.size + 1)[:, None], axis=0)
    return np.where(active, position, 0)


def _lap_times(
    position: Ints, yellow: Bools, pace: Floats, green_lap_s: float, law: RaceLaw, rng: np.random.Generator
) -> Floats:
    """Draw lap times, (car, lap), s: pace, tyres, traffic and stops; slow under caution."""
    n_cars, n_laps = position.shape
    lap = np.arange(n_laps)
    since_yellow = lap - np.maximum.accumulate(np.where(yellow, lap, 0))
    window = law.fuel_laps - rng.integers(0, max(law.fuel_laps // 8, 1), (n_cars, 1))
    tyre_age = since_yellow % window
    stops = (tyre_age == 0) & (since_yellow > 0)
    relative = (
        1
        - PACE_SPREAD * pace[:, None]
        - SETUP_SPREAD * rng.normal(size=(n_cars, 1))
        + law.falloff * tyre_age
        + TRAFFIC_COST * position / n_cars
        + LAP_NOISE * rng.normal(size=position.shape)
    )
    relative = np.where(yellow, law.caution_factor * rng.uniform(0.95, 1.15, n_laps), relative)
    seconds = np.round(green_lap_s * relative + GREEN_PIT_STOP_S * stops, 3)
    untimed = (position > 1) & (rng.random(position.shape) < UNTIMED_SHARE)
    return np.where((position == 0) | (lap == 0) | untimed, np.nan, seconds)


def _positions(performance: Floats) -> Ints:
    """Return positions from 1, the largest performance first."""
    return rank(-performance)


def _normal_scores(position: Ints) -> Floats:
    """Return the normal scores of positions, the largest for the first."""
    return -ndtri((position - 0.5) / position.size)


def _standardised(values: Floats) -> Floats:
    """Return values less their mean, over their standard deviation."""
    return (values - values.mean()) / values.std()
