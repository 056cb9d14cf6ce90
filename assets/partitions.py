"""Partitions of the assets, and which partitions of its inputs an asset reads.

A mapping to the past is the only way in which one season's asset reads another season.
"""

import datetime
import functools
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.seasons import FIRST_SEASON, Seasons

LONG_AGO = -100
NETWORK = "network"
"""The forecaster that is always there: the causal network."""


def season_partitions(seasons: Seasons) -> dg.TimeWindowPartitionsDefinition:
    """Return a partition a season, the current year included before it ends.

    Parameters
    ----------
    seasons : Seasons
        Where they are open, every new year becomes a partition by itself.
    """
    first, last = seasons.years[0], seasons.years[-1]
    gaps = sorted(set(range(first, last)) - set(seasons.years))
    return dg.TimeWindowPartitionsDefinition(
        start=str(first),
        end=None if seasons.is_open else str(last + 1),
        fmt="%Y",
        cron_schedule="0 0 1 1 *",
        end_offset=1,
        exclusions=[datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in gaps] or None,
    )


# Assets are declared over all seasons; `definitions.build_defs` narrows them to those of the settings.
ALL_SEASONS = season_partitions(Seasons((FIRST_SEASON,), is_open=True))
FORECASTERS = dg.StaticPartitionsDefinition([NETWORK])
ARCHETYPE_PARTITIONS = dg.MultiPartitionsDefinition(
    {
        "archetype": dg.StaticPartitionsDefinition([str(archetype) for archetype in ARCHETYPES]),
        "forecaster": FORECASTERS,
    }
)

with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
    earlier_and_own_seasons = dg.TimeWindowPartitionMapping(
        start_offset=LONG_AGO, end_offset=0, allow_nonexistent_upstream_partitions=True
    )
    archetypes_of_forecaster = dg.MultiToSingleDimensionPartitionMapping("forecaster")

every_season = dg.AllPartitionMapping()


def archetype_partition(archetype: str, forecaster: str = NETWORK) -> str:
    """Return the key of a partition of the archetype assets.

    Examples
    --------
    >>> archetype_partition("short_track")
    'short_track|network'
    """
    return f"{archetype}|{forecaster}"


def archetype_of(partition: str) -> str:
    """Return the archetype of a partition key of the archetype assets.

    Examples
    --------
    >>> archetype_of("short_track|network")
    'short_track'
    """
    return partition.partition("|")[0]


def by_archetype[T](values: Mapping[str, T]) -> dict[Archetype, T]:
    """Return the values of one forecaster's archetypes, those that are there, in the order of archetypes.

    Parameters
    ----------
    values : mapping of str to T
        Partition key → value.
    """
    by_name = {archetype_of(partition): value for partition, value in values.items()}
    return {archetype: by_name[archetype] for archetype in ARCHETYPES if archetype in by_name}


def narrow(asset: dg.AssetsDefinition, seasons: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """Return `asset` with the seasons of the settings, if seasons are its partitions."""
    return asset.map_asset_specs(
        lambda spec: (
            spec.replace_attributes(partitions_def=seasons) if spec.partitions_def == ALL_SEASONS else spec
        )
    )


def upstream_partitions(
    graph: Any, parent: dg.AssetKey, child: dg.AssetKey, partition: str | None
) -> list[str | None]:
    """Return the partitions of an input that an asset's partition reads; [None] for an unpartitioned input.

    Parameters
    ----------
    graph : dagster's asset graph
        As `dagster.Definitions.resolve_asset_graph` returns it.
    parent, child : dagster.AssetKey
    partition : str or None
        Partition of the child.
    """
    own, upstream = graph.get(child).partitions_def, graph.get(parent).partitions_def
    if upstream is None:
        return [None]
    return list(_mapped(graph.get_partition_mapping(child, parent), own, upstream, partition))


@functools.cache  # Dagster takes up to 20 ms, and every asset of a season reads others in the same way
def _mapped(
    mapping: dg.PartitionMapping,
    own: dg.PartitionsDefinition | None,
    upstream: dg.PartitionsDefinition,
    partition: str | None,
) -> list[str]:
    subset = own.subset_with_partition_keys([partition]) if own and partition else None
    read = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, own, upstream)
    return sorted(read.partitions_subset.get_partition_keys())
