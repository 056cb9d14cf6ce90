"""Races whose law is known, with results and with forecasts that are right or wrong on purpose.

Used by `intervals` and `verdict_errors`. A law has what makes cars of one race dependent: chaos that takes
many out together, teams that share their day, and races that are more of a lottery than others.
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
    """How a race comes about; cars still running are in reverse Plackett-Luce order, the others behind them.

    Attributes
    ----------
    skill : standard deviation of the cars' utilities
    incident : logit of the chance that a car drops out in a race of average chaos
    chaos : how much a race's chaos, N(0, 1), adds to that logit
    team : standard deviation of what a team's cars share on the day
    noise : standard deviation of a race's log sharpness
    sharpness : utilities and team effects are multiplied by it
    together : whether cars of a race share its chaos; if not, each drops out on its own, as often
    """

    skill: float
    incident: float
    chaos: float
    team: float
    noise: float
    sharpness: float = 1.0
    together: bool = True


LAWS = {
    "short track": Law(skill=1.2, incident=-2.5, chaos=0.7, team=0.3, noise=0.2),
    "superspeedway": Law(skill=0.5, incident=-1.2, chaos=0.8, team=0.3, noise=0.3),
}


@dataclass(frozen=True)
class Field:
    """The cars of a race: utility, team and make, each (car,)."""

    utility: NDArray[np.float64]
    team: NDArray[np.int64]
    make: NDArray[np.str_]


@dataclass(frozen=True)
class Scenarios:
    """Finish and whether running at the end, each (scenario, car)."""

    finish: NDArray[np.int64]
    running: NDArray[np.bool_]

    def outcomes(self, field: Field, favourite_rank: NDArray) -> Outcomes:
        """Return them as joint events read them."""
        return Outcomes(
            finish_position=self.finish,
            favourite_rank=favourite_rank,
            running=self.running,
            team=field.team.astype(str),
            make=field.make,
        )

    def head(self, n: int) -> "Scenarios":
        """Return the first `n`."""
        return Scenarios(self.finish[:n], self.running[:n])

    def tail(self, n: int) -> "Scenarios":
        """Return the last `n`."""
        return Scenarios(self.finish[-n:], self.running[-n:])

    @property
    def favourite_rank(self) -> NDArray[np.int64]:
        """Rank of each car by its mean finish, (car,)."""
        return rank(self.finish.mean(axis=0))


def draw_fields(rng: np.random.Generator, law: Law, n_races: int) -> list[Field]:
    """Draw the fields of races; how far apart their cars are differs from race to race."""
    fields = []
    for size in rng.choice(FIELD_SIZES, n_races):
        team = np.arange(size) // CARS_A_TEAM
        strength = rng.normal(0, 0.6, team[-1] + 1)[team] + rng.normal(0, 0.8, size)
        make = np.array([f"make {k}" for k in rng.integers(N_MAKES, size=team[-1] + 1)])[team]
        fields.append(Field(law.skill * rng.lognormal(0, 0.2) * strength, team, make))
    return fields


def draw_scenarios(rng: np.random.Generator, law: Law, field: Field, n_scenarios: int) -> Scenarios:
    """Draw scenarios of one race."""
    n_cars = field.utility.size
    shape = (n_scenarios, n_cars)
    chaos = rng.normal(size=(n_scenarios, 1))
    chance = expit(law.incident + law.chaos * chaos) if law.together else _mean_incident(law)
    out = rng.random(shape) < chance
    team = law.team * rng.normal(size=(n_scenarios, field.team[-1] + 1))[:, field.team]
    sharpness = law.sharpness * np.exp(law.noise * rng.normal(size=(n_scenarios, 1)))
    pace = sharpness * (field.utility + team) - rng.gumbel(size=shape)
    finish = rank(np.where(out, 1e3 + rng.random(shape), -pace).astype(np.float32))
    return Scenarios(finish, ~out)


def draw_races(
    rng: np.random.Generator, law: Law, fields: Sequence[Field], n_scenarios: int, **changes: float
) -> list[Scenarios]:
    """Draw scenarios of every race, under the law with `changes`."""
    changed = replace(law, **changes)
    return [draw_scenarios(rng, changed, field, n_scenarios) for field in fields]


def _mean_incident(law: Law) -> float:
    """Chance that a car drops out, averaged over chaos."""
    nodes, weights = gauss_hermite(31)
    return float(weights @ expit(law.incident + law.chaos * nodes))
