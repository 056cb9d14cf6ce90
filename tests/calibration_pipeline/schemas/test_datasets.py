"""Contracts of datasets: fields of a parent keep their dims and rules."""

import pytest

from calibration_pipeline.schemas import datasets


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (datasets.Races, datasets.ScenarioEnsemble),
        (datasets.Races, datasets.Backtest),
        (datasets.MapStates, datasets.RaceStates),
        (datasets.FoldParameters, datasets.SlowParameters),
        (datasets.NextMapStates, datasets.NextStates),
    ],
)
def test_inherited_fields_keep_their_dims_and_rules(parent: type, child: type) -> None:
    of_parent, of_child = parent.to_schema(), child.to_schema()  # type: ignore[attr-defined]
    for kind in ("data_vars", "coords"):
        own, inherited = (getattr(schema, kind) or {} for schema in (of_parent, of_child))
        for name, field in own.items():
            assert inherited[name].dims == field.dims, name
            assert inherited[name].nullable == field.nullable, name
            rules = [str(check) for check in field.checks or []]
            assert [str(check) for check in inherited[name].checks or []][: len(rules)] == rules, name
