"""The causal graph as it is declared, drawn and coded is one and the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.ops.provenance import eval_provenance

from calibration_pipeline.scenarios.covariates import INCIDENT_COVARIATES, PACE_COVARIATES, Field
from calibration_pipeline.scenarios.fit.by_fold import NETWORK_COORDINATES, PARAMETER_DIMS
from calibration_pipeline.scenarios.network.graph import draw_graph
from calibration_pipeline.scenarios.network.model import RELATIONS, Parameters, race_model
from helpers.paths import ROOT

DOCS = ROOT / "docs" / "methods.md"
# Variables of the world from which each array of the field is computed.
KNOWN_IN = {
    "known pace": {"driver", "team", "start_position"},
    "known incident": {"driver", "start_position", "track"},
    "known start_score": {"start_position"},
    "known car": set(),
    "known team": {"team"},
    "known archetype": {"archetype"},
    "known scheduled_laps": {"scheduled_laps"},
    "known caution": {"track"},
}


@pytest.fixture(scope="module")
def traced() -> dict[str, frozenset[str]]:
    """Node -> the field's arrays and the sampled nodes that its code reads."""
    sizes = {name: len(values) for name, values in NETWORK_COORDINATES.items()}
    parameters = Parameters(*(np.ones([sizes[dim] for dim in dims]) for dims in PARAMETER_DIMS.values()))
    field = Field(
        pace=jnp.zeros((4, len(PACE_COVARIATES))),
        incident=jnp.zeros((4, len(INCIDENT_COVARIATES))),
        start_score=jnp.zeros(4),
        car=jnp.ones(4, bool),
        team=jnp.arange(4),
        archetype=jnp.array(0),
        scheduled_laps=jnp.array(100),
        caution=jnp.array(0.0),
    )

    def reads(**given: jax.Array) -> dict:
        parts = {name: given.pop(f"known {name}") for name in Field._fields}
        model = handlers.substitute(handlers.seed(race_model, 0), data=given)
        sites = handlers.trace(model).get_trace(Field(**parts), parameters, jnp.arange(8))
        return {
            name: jax.tree.leaves(site["fn"]) if site["type"] == "sample" else site["value"]
            for name, site in sites.items()
            if name in RELATIONS
        }

    def drawn() -> dict[str, jax.Array]:
        model = handlers.trace(handlers.seed(race_model, 0))
        sites = model.get_trace(field, parameters, jnp.arange(8))
        return {name: site["value"] for name, site in sites.items() if site["type"] == "sample"}

    sampled = jax.eval_shape(drawn)
    known = {f"known {name}": values for name, values in field._asdict().items()}
    found = eval_provenance(reads, **known, **sampled)
    return {name: frozenset().union(*jax.tree.leaves(by, is_leaf=is_set)) for name, by in found.items()}


def is_set(value: object) -> bool:
    return isinstance(value, frozenset)


def declared(node: str, sampled: frozenset[str]) -> set[str]:
    """Sampled and known parents of a node in `RELATIONS`, with computed nodes resolved."""
    return {
        name
        for parent in RELATIONS[node]
        for name in (declared(parent, sampled) if parent in RELATIONS and parent not in sampled else {parent})
    }


@pytest.mark.parametrize("node", RELATIONS)
def test_the_code_reads_the_declared_relations(traced, node):
    assert traced.keys() == RELATIONS.keys()
    sampled = frozenset({"chaos", "n_cautions", "incident", "damage", "team_effect"})
    coded = {name for source in traced[node] for name in KNOWN_IN.get(source, {source} & RELATIONS.keys())}
    assert coded == declared(node, sampled)


def test_relations_are_a_graph_without_cycles():
    done: set[str] = set()
    for node, parents in RELATIONS.items():
        assert {parent for parent in parents if parent in RELATIONS} <= done
        done.add(node)


def test_the_drawing_has_every_edge_and_stands_in_the_docs():
    drawing = draw_graph()
    edges = [line.strip() for line in drawing.splitlines() if "-->" in line]
    assert edges == [f"{parent} --> {node}" for node, parents in RELATIONS.items() for parent in parents]
    assert f"```mermaid\n{drawing}\n```" in DOCS.read_text()
