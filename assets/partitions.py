"""How the assets are cut: by season, by archetype, and which seasons an asset may look at.

A mapping to the past is the only way in which one season's asset reads another's.
"""

import functools
import warnings
from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from calibration_pipeline.archetypes import ARCHETYPES

from .settings import Settings

LONG_AGO = -100


def season_partitions(first: int, last: int | None) -> dg.TimeWindowPartitionsDefinition:
    """Return a partition a season, the current year included before it ends.

    Parameters
    ----------
    first : int
        First season.
    last : int or None
        Last season; None lets every new year become a partition by itself.
    """
    return dg.TimeWindowPartitionsDefinition(
        start=str(first),
        end=None if last is None else str(last + 1),
        fmt="%Y",
        cron_schedule="0 0 1 1 *",
        end_offset=1,
    )


def seasons_of(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """Return the seasons that the settings ask for."""
    return season_partitions(*settings.season_bounds)


# Assets are declared over all seasons; `definitions.build_defs` narrows them to those in force.
ALL_SEASONS = season_partitions(1949, None)

ARCHETYPE_PARTITIONS = dg.StaticPartitionsDefinition([str(archetype) for archetype in ARCHETYPES])

with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
    earlier_and_own_seasons = dg.TimeWindowPartitionMapping(
        start_offset=LONG_AGO, end_offset=0, allow_nonexistent_upstream_partitions=True
    )
    earlier_seasons = dg.TimeWindowPartitionMapping(
        start_offset=LONG_AGO, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )

every_season = dg.AllPartitionMapping()


def narrow(asset: dg.AssetsDefinition, seasons: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """Return `asset` with the seasons in force, if it is cut by season."""
    return asset.map_asset_specs(
        lambda spec: (
            spec.replace_attributes(partitions_def=seasons) if spec.partitions_def == ALL_SEASONS else spec
        )
    )


def partitions_read(
    graph: AssetGraph, parent: dg.AssetKey, child: dg.AssetKey, partition: str | None
) -> Sequence[str | None]:
    """Return the partitions that a partition of an asset reads of a parent; [None] where that has none.

    Parameters
    ----------
    graph : AssetGraph
    parent, child : dagster.AssetKey
    partition : str or None
        Partition of the child.
    """
    cut, upstream = graph.get(child).partitions_def, graph.get(parent).partitions_def
    if upstream is None:
        return [None]
    return _read_through(graph.get_partition_mapping(child, parent), cut, upstream, partition)


@functools.cache  # Dagster takes milliseconds, and every asset of a season reads others in the same way
def _read_through(
    mapping: dg.PartitionMapping,
    cut: dg.PartitionsDefinition | None,
    upstream: dg.PartitionsDefinition,
    partition: str | None,
) -> Sequence[str]:
    own = cut.subset_with_partition_keys([partition]) if cut and partition else None
    read = mapping.get_upstream_mapped_partitions_result_for_partitions(own, cut, upstream)
    return sorted(read.partitions_subset.get_partition_keys())
