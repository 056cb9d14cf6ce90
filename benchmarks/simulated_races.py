"""Simulated races of a known law, for `intervals` and `verdict_errors`.

A law has three sources of dependence between the cars of a race: chaos, which causes several incidents
together, team effects, and race-level noise of the sharpness.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from calibration_pipeline.events.files import DEFAULT_EVENTS
from calibration_pipeline.events.language import Outcomes
from calibration_pipeline.stats.quadrature import gauss_hermite
from calibration_pipeline.stats.ranking import rank

FIELD_SIZES = (36, 37, 38, 39, 40)
CARS_A_TEAM, N_MAKES = 3, 3
EVENTS = tuple(event for event in DEFAULT_EVENTS if "laps_led" not in event.needs)


@dataclass(frozen=True)
class Law:
    """Parameters of a law: running cars finish in reverse Plackett-Luce order, retired cars behind them.

    Attributes
    ----------
    skill : factor on the cars' log strengths
    incident : logit of the probability that a car retires in a race of average chaos
    chaos : coefficient of a race's chaos, N(0, 1), in that logit
    team : standard deviation of the team effects
    noise : standard deviation of a race's log sharpness
    sharpness : factor on log strengths and team effects
    together : whether the cars of a race share its chaos; otherwise they retire independently, as often
    incident_spread : standard deviation of the cars' own deviations in the logit of retirement
    """

    skill: float
    incident: float
    chaos: float
    team: float
    noise: float
    sharpness: float = 1.0
    together: bool = True
    incident_spread: float = 0.0


LAWS = {
    "short track": Law(skill=1.2, incident=-2.5, chaos=0.7, team=0.3, noise=0.2),
    "superspeedway": Law(skill=0.5, incident=-1.2, chaos=0.8, team=0.3, noise=0.3),
}


@dataclass(frozen=True)
class Field:
    """Cars of a race: utility, proneness to incidents (a standard score), team and make, each (car,)."""

    utility: NDArray[np.float64]
    proneness: NDArray[np.float64]
    team: NDArray[np.int64]
    make: NDArray[np.str_]


@dataclass(frozen=True)
class Scenarios:
    """Finish positions and running status at the finish, each (scenario, car)."""

    finish: NDArray[np.int64]
    running: NDArray[np.bool_]

    def outcomes(self, field: Field, favourite_rank: NDArray) -> Outcomes:
        """Return the scenarios in the form that joint events read."""
        return Outcomes(
            finish_position=self.finish,
            favourite_rank=favourite_rank,
            running=self.running,
            team=field.team.astype(str),
            make=field.make,
        )

    def head(self, n: int) -> "Scenarios":
        """Return the first `n` scenarios."""
        return Scenarios(self.finish[:n], self.running[:n])

    def tail(self, n: int) -> "Scenarios":
        """Return the last `n` scenarios."""
        return Scenarios(self.finish[-n:], self.running[-n:])

    @property
    def favourite_rank(self) -> NDArray[np.int64]:
        """Rank of each car by its mean finish position, (car,)."""
        return rank(self.finish.mean(axis=0))


def draw_fields(rng: np.random.Generator, law: Law, n_races: int) -> list[Field]:
    """Draw the fields of races; the spread of log strengths differs between races."""
    fields = []
    for size in rng.choice(FIELD_SIZES, n_races):
        team = np.arange(size) // CARS_A_TEAM
        strength = rng.normal(0, 0.6, team[-1] + 1)[team] + rng.normal(0, 0.8, size)
        make = np.array([f"make {k}" for k in rng.integers(N_MAKES, size=team[-1] + 1)])[team]
        utility = law.skill * rng.lognormal(0, 0.2) * strength
        proneness = rng.normal(size=size) if law.incident_spread else np.zeros(size)
        fields.append(Field(utility, proneness, team, make))
    return fields


def draw_scenarios(rng: np.random.Generator, law: Law, field: Field, n_scenarios: int) -> Scenarios:
    """Draw scenarios of one race."""
    n_cars = field.utility.size
    shape = (n_scenarios, n_cars)
    chaos = rng.normal(size=(n_scenarios, 1))
    incident = law.incident + law.incident_spread * field.proneness
    chance = expit(incident + law.chaos * chaos) if law.together else _mean_incident(incident, law.chaos)
    out = rng.random(shape) < chance
    team = law.team * rng.normal(size=(n_scenarios, field.team[-1] + 1))[:, field.team]
    sharpness = law.sharpness * np.exp(law.noise * rng.normal(size=(n_scenarios, 1)))
    pace = sharpness * (field.utility + team) - rng.gumbel(size=shape)
    finish = rank(np.where(out, 1e3 + rng.random(shape), -pace).astype(np.float32))
    return Scenarios(finish, ~out)


def draw_races(
    rng: np.random.Generator, law: Law, fields: Sequence[Field], n_scenarios: int, **changes: float
) -> list[Scenarios]:
    """Draw scenarios of every race under the law with `changes`."""
    changed = replace(law, **changes)
    return [draw_scenarios(rng, changed, field, n_scenarios) for field in fields]


def _mean_incident(incident: NDArray, chaos: float) -> NDArray[np.float64]:
    """Return the probability that each car retires, averaged over chaos, (car,)."""
    nodes, weights = gauss_hermite(31)
    return weights @ expit(incident + chaos * nodes[:, None])
