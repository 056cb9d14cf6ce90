"""Careers of drivers and teams: seats of a season, drift of skills, retirements and rookies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.sources.simulated.cast import FIRST_DRIVER_NUMBER, N_FULL_TIME, SEAT_TEAM, TEAMS

# Spread of drivers' and teams' strength, over all archetypes and within each (ARCHETYPES order).
_SKILL_SD, _TEAM_SD = 0.55, 0.55
_SKILL_DEVIATION_SD = np.array([0.30, 0.20, 0.25, 0.45])
_TEAM_DEVIATION_SD = np.array([0.15, 0.20, 0.15, 0.15])


@dataclass(frozen=True)
class Roster:
    """Drivers and teams of a season; seats are fixed, full-time seats first.

    Attributes
    ----------
    driver : numpy.ndarray
        Driver number of each seat, (seat,), int.
    skill : numpy.ndarray
        Skill of each seat's driver, (seat, archetype).
    experience : numpy.ndarray
        Seasons raced before, (seat,), int.
    team_strength : numpy.ndarray
        Strength of each team, (team, archetype).
    next_driver : int
        Number of the next driver who has never raced.
    """

    driver: NDArray[np.int64]
    skill: NDArray[np.float64]
    experience: NDArray[np.int64]
    team_strength: NDArray[np.float64]
    next_driver: int


def first_roster(rng: np.random.Generator) -> Roster:
    """Return the drivers and teams of the first season."""
    n_seats, n_teams = SEAT_TEAM.size, len(TEAMS)
    # The large teams are the strong ones, and part-timers are weaker: mean strength falls along the lists.
    team = np.linspace(0.55, -0.55, n_teams) + rng.normal(0, 0.6 * _TEAM_SD, n_teams)
    skill = rng.normal(0, _SKILL_SD, n_seats) - 0.6 * (np.arange(n_seats) >= N_FULL_TIME)
    return Roster(
        driver=FIRST_DRIVER_NUMBER + np.arange(n_seats),
        skill=skill[:, None] + _SKILL_DEVIATION_SD * rng.normal(size=(n_seats, len(ARCHETYPES))),
        experience=rng.integers(0, 15, n_seats),
        team_strength=team[:, None] + _TEAM_DEVIATION_SD * rng.normal(size=(n_teams, len(ARCHETYPES))),
        next_driver=FIRST_DRIVER_NUMBER + n_seats,
    )


def next_roster(roster: Roster, rng: np.random.Generator) -> Roster:
    """Return the roster of the following season: skills drift, drivers retire or move, rookies enter."""
    n_seats, n_archetypes = roster.skill.shape
    full_time = np.arange(n_seats) < N_FULL_TIME

    seat = np.arange(n_seats)
    moving = rng.choice(N_FULL_TIME, size=4, replace=False)
    seat[moving] = seat[np.roll(moving, 1)]
    driver, skill, experience = roster.driver[seat], roster.skill[seat], roster.experience[seat] + 1

    drift = rng.normal(0, 0.10, (n_seats, 1)) + rng.normal(0, 0.07, (n_seats, n_archetypes))
    skill = 0.97 * skill + drift + 0.15 / experience[:, None]

    leaving = rng.random(n_seats) < np.where(full_time, np.where(experience > 12, 0.20, 0.05), 0.25)
    n_rookies = int(leaving.sum())
    rookie = rng.normal(-0.3, _SKILL_SD, (n_rookies, 1)) - 0.3 * ~full_time[leaving, None]
    driver[leaving] = roster.next_driver + np.arange(n_rookies)
    skill[leaving] = rookie + _SKILL_DEVIATION_SD * rng.normal(size=(n_rookies, n_archetypes))
    experience[leaving] = 0

    shape = roster.team_strength.shape
    step = rng.normal(0, 0.15, (shape[0], 1)) + rng.normal(0, 0.06, shape)
    return Roster(
        driver, skill, experience, 0.95 * roster.team_strength + step, roster.next_driver + n_rookies
    )
