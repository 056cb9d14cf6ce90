"""The real asset graph with empty assets: what is asked for is made at once, in real runs."""

from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg

Asked = dict[str, list[str]]
WHOLE = ""


class Hollow:
    """Evaluates the automation conditions of real definitions, and makes what they ask for without computing.

    Parameters
    ----------
    defs : dagster.Definitions
    instance : dagster.DagsterInstance
    """

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.defs, self.instance = defs, instance
        self.graph = defs.resolve_asset_graph()
        self.cursor: Any = None
        self.failing: set[tuple[str, str]] = set()
        self.assets = {node.key.to_user_string(): self._empty(node.key) for node in self.graph.asset_nodes}

    def make(self, names: Collection[str], partition: str = WHOLE) -> set[str]:
        """Run assets together for a partition; return those that were materialized."""
        done = dg.materialize(
            list(self.assets.values()),
            selection=dg.AssetSelection.assets(*names),
            partition_key=partition or None,
            instance=self.instance,
            raise_on_error=False,
        )
        return {event.asset_key.to_user_string() for event in done.get_asset_materialization_events()}

    def ask(self) -> Asked:
        """Evaluate all conditions once; return what they ask for, with its partitions."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        asked: Asked = {}
        for one in result.results:
            if isinstance(one.key, dg.AssetKey) and one.true_subset.size:
                cut = self.graph.get(one.key).partitions_def
                subset = one.true_subset
                asked[one.key.to_user_string()] = (
                    sorted(subset.expensively_compute_partition_keys()) if cut else [WHOLE]
                )
        return asked

    def obey(self, asked: Asked) -> None:
        """Make what was asked for, as the daemon does: a run for each partition."""
        for partition in sorted({partition for partitions in asked.values() for partition in partitions}):
            self.make([name for name, partitions in asked.items() if partition in partitions], partition)

    def until_quiet(self, most: int = 15) -> list[Asked]:
        """Ask and obey until nothing is asked for; return what was asked for, in order."""
        history: list[Asked] = []
        for _ in range(most):
            if not (asked := self.ask()):
                return history
            self.obey(asked)
            history.append(asked)
        raise AssertionError(f"still asking after {most} evaluations: {history[-2:]}")

    def _empty(self, key: dg.AssetKey) -> dg.AssetsDefinition:
        node, name = self.graph.get(key), key.to_user_string()
        checks = [
            self.graph.get_check_spec(one) for one in self.graph.asset_check_keys if one.asset_key == key
        ]
        mappings: Mapping[dg.AssetKey, Any] = node.partition_mappings

        @dg.asset(
            name=name,
            partitions_def=node.partitions_def,
            deps=[dg.AssetDep(one, partition_mapping=mappings.get(one)) for one in node.parent_keys],
            check_specs=[
                dg.AssetCheckSpec(
                    one.name, asset=key, blocking=one.blocking, partitions_def=one.partitions_def
                )
                for one in checks
            ],
        )
        def empty() -> dg.MaterializeResult:
            return dg.MaterializeResult(
                check_results=[
                    dg.AssetCheckResult(check_name=one.name, passed=(name, one.name) not in self.failing)
                    for one in checks
                ]
            )

        return empty
