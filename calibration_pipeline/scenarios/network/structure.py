"""Structure of the causal network: its fitted edges, and the law of the running order.

Forecasts use the full network. Networks without an edge, or with the ordinary Plackett-Luce law, are
baselines: they measure the value of the edge or the law.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import polars as pl
from jax import Array

from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES
from calibration_pipeline.scenarios.log_strengths import NO_INCIDENT_LOGIT

type Edge = tuple[str, str]

DRIVER, START, TEAM, TRACK = "driver", "start_position", "team", "track"
KNOWN_FROM = {
    "start_score": START,
    "start_form": DRIVER,
    "finish_form": DRIVER,
    "running_form": DRIVER,
    "recent_form": DRIVER,
    "pace_form": DRIVER,
    "archetype_form": DRIVER,
    "track_form": DRIVER,
    "led_form": DRIVER,
    "experience": DRIVER,
    "incident_form": DRIVER,
    "team_form": TEAM,
    "team_archetype_form": TEAM,
    "car_form": TEAM,
    "track_incident": TRACK,
}
"""Covariate -> node of the causal graph that it describes."""

COVARIATE_NODES = {
    "running_order": ("pace_weight", PACE_COVARIATES),
    "incident": ("incident_weight", INCIDENT_COVARIATES),
    "damage": ("damage_weight", INCIDENT_COVARIATES),
}
ZEROED = {
    ("team_effect", "running_order"): "team_scale",
    ("chaos", "incident"): "chaos_scale",
    ("chaos", "damage"): "damage_chaos_weight",
    ("chaos", "n_cautions"): "caution_chaos_weight",
    ("track", "n_cautions"): "caution_track_weight",
}
AVERAGED = {
    ("archetype", "running_order"): ("pace_weight", "front_sharpness"),
    ("archetype", "incident"): ("incident_intercept", "incident_weight", "chaos_scale"),
    ("archetype", "damage"): ("damage_intercept", "damage_weight", "damage_chaos_weight"),
    ("archetype", "n_cautions"): ("caution_intercept", "caution_chaos_weight"),
}
WEIGHTS = frozenset(name for name, _ in COVARIATE_NODES.values())
NO_INCIDENT: Edge = ("incident", "running_order")
NO_DAMAGE: Edge = ("damage", "running_order")
FRONT_CARS = 12
"""Cars in the front group, whose order has a sharpness of its own."""


def _covariate_edges() -> dict[Edge, tuple[str, np.ndarray]]:
    """Edge -> parameter, and 1 for its covariates that stay without the edge, 0 for the others."""
    edges = {}
    for node, (parameter, covariates) in COVARIATE_NODES.items():
        origin = np.array([KNOWN_FROM[name] for name in covariates])
        for source in dict.fromkeys(origin.tolist()):
            edges[source, node] = (parameter, (origin != source).astype(np.float32))
    return edges


COVARIATE_EDGES = _covariate_edges()
EDGES: tuple[Edge, ...] = (NO_INCIDENT, NO_DAMAGE, *ZEROED, *AVERAGED, *COVARIATE_EDGES)
"""Edges that can be removed: those whose parameters are fitted."""


@dataclass(frozen=True)
class Structure:
    """Fitted part of the network.

    Parameters
    ----------
    removed : frozenset of (parent, child)
        Edges of `EDGES` that the network lacks.
    ordinary : bool
        Whether the law is the ordinary Plackett-Luce (winner drawn first), not the reverse one.

    Raises
    ------
    ValueError
        If an edge cannot be removed.
    """

    removed: frozenset[Edge] = frozenset()
    ordinary: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted(self.removed - set(EDGES)):
            raise ValueError(f"Argument removed must name edges of {EDGES}, got {unknown}.")

    @property
    def front_cars(self) -> int:
        """Cars in the front group; 0 under the ordinary law, which draws the first cars among all."""
        return 0 if self.ordinary else FRONT_CARS

    def apply(self, parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Remove the edges from parameters, which may have leading axes of draws."""
        changed = {name: jnp.asarray(values) for name, values in parameters.items()}
        for node in self._without:
            changed[f"{node}_intercept"] = jnp.full_like(changed[f"{node}_intercept"], NO_INCIDENT_LOGIT)
            changed[f"{node}_weight"] = 0.0 * changed[f"{node}_weight"]
        for edge in EDGES:
            if edge not in self.removed:
                continue
            if edge in ZEROED:
                changed[ZEROED[edge]] = 0.0 * changed[ZEROED[edge]]
            elif edge in AVERAGED:
                for name in AVERAGED[edge]:
                    axis = -2 if name in WEIGHTS else -1
                    mean = changed[name].mean(axis=axis, keepdims=True)
                    changed[name] = jnp.broadcast_to(mean, changed[name].shape)
            elif edge in COVARIATE_EDGES:
                name, kept = COVARIATE_EDGES[edge]
                changed[name] = changed[name] * kept
        return changed

    def seen(self, slots: pl.DataFrame) -> pl.DataFrame:
        """Clear incidents and damage of earlier races, where their edges are removed."""
        if "incident" in self._without:
            slots = slots.with_columns(running=pl.lit(value=True))
        if "damage" in self._without:
            slots = slots.with_columns(damage=pl.lit(value=False))
        return slots

    @property
    def _without(self) -> tuple[str, ...]:
        """Nodes that never happen; a network without incidents has no damage."""
        if NO_INCIDENT in self.removed:
            return ("incident", "damage")
        return ("damage",) if NO_DAMAGE in self.removed else ()


FULL = Structure()
VARIANTS: dict[str, Structure] = {
    "full": FULL,
    "ordinary": Structure(ordinary=True),
    "no_incidents": Structure(removed=frozenset({NO_INCIDENT})),
    "ordinary_no_incidents": Structure(removed=frozenset({NO_INCIDENT}), ordinary=True),
}
"""The network, and the baselines that it is compared with."""
