"""Partitions of the assets, and which partitions of its inputs an asset reads.

A mapping to the past is the only way in which one season's asset reads another season.
"""

import datetime
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.forecasters.folder import NETWORK, Form, find_forecasters
from calibration_pipeline.seasons import FIRST_SEASON, Seasons

from .settings import Settings

LONG_AGO = -100


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


def known_forecasters(settings: Settings) -> dict[Form, list[str]]:
    """Return the forecasters of each form: the network, and those of the settings' folder."""
    own = find_forecasters(settings.forecasters).by_form
    return {form: [NETWORK] * (form is Form.SCENARIOS) + list(names) for form, names in own.items()}


def forecaster_partitions(
    forecasters: dg.StaticPartitionsDefinition, seasons: dg.TimeWindowPartitionsDefinition
) -> tuple[dg.MultiPartitionsDefinition, dg.MultiPartitionsDefinition]:
    """Return the partitions of forecasters by season, and by archetype."""
    archetypes = dg.StaticPartitionsDefinition([str(archetype) for archetype in ARCHETYPES])
    return (
        dg.MultiPartitionsDefinition({"forecaster": forecasters, "season": seasons}),
        dg.MultiPartitionsDefinition({"archetype": archetypes, "forecaster": forecasters}),
    )


# Assets are declared over all seasons and the network; `definitions.build_defs` has those of the settings.
ALL_SEASONS = season_partitions(Seasons((FIRST_SEASON,), is_open=True))
FORECASTERS = dg.StaticPartitionsDefinition([NETWORK])
SEASON_PARTITIONS, ARCHETYPE_PARTITIONS = forecaster_partitions(FORECASTERS, ALL_SEASONS)
EVENT_FORECASTERS, POSITION_FORECASTERS = (
    dg.StaticPartitionsDefinition([str(form)]) for form in (Form.EVENTS, Form.POSITIONS)
)
"""Forecasters of event and of position probabilities; a user may have none."""
SHOWN_PARTITIONS = forecaster_partitions(dg.StaticPartitionsDefinition(["shown"]), ALL_SEASONS)[1]
"""Archetypes of the forecaster that the report shows, if its forecasts are scenarios."""

with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
    earlier_and_own_seasons = dg.TimeWindowPartitionMapping(
        start_offset=LONG_AGO, end_offset=0, allow_nonexistent_upstream_partitions=True
    )
    own_forecaster = dg.MultiToSingleDimensionPartitionMapping("forecaster")
    season_of_forecaster = dg.MultiToSingleDimensionPartitionMapping("season")
    seasons_of_forecaster = dg.MultiPartitionMapping(
        {"forecaster": dg.DimensionPartitionMapping("forecaster", dg.IdentityPartitionMapping())}
    )

every_season = dg.AllPartitionMapping()


def narrow(
    asset: dg.AssetsDefinition,
    seasons: dg.TimeWindowPartitionsDefinition,
    forecasters: Mapping[Form, Sequence[str]],
    shown: str,
) -> dg.AssetsDefinition:
    """Return `asset` with the seasons and the forecasters of the settings, where they are its partitions."""
    of_scenarios = dg.StaticPartitionsDefinition(forecasters[Form.SCENARIOS])
    of_report = dg.StaticPartitionsDefinition([shown] * (shown in forecasters[Form.SCENARIOS]))
    by_season, by_archetype = forecaster_partitions(of_scenarios, seasons)
    narrowed = (
        (ALL_SEASONS, seasons),
        (FORECASTERS, of_scenarios),
        (SEASON_PARTITIONS, by_season),
        (ARCHETYPE_PARTITIONS, by_archetype),
        (SHOWN_PARTITIONS, forecaster_partitions(of_report, seasons)[1]),
        (EVENT_FORECASTERS, dg.StaticPartitionsDefinition(forecasters[Form.EVENTS])),
        (POSITION_FORECASTERS, dg.StaticPartitionsDefinition(forecasters[Form.POSITIONS])),
    )

    def of_settings(spec: dg.AssetSpec) -> dg.AssetSpec:
        own = [of_settings for declared, of_settings in narrowed if spec.partitions_def == declared]
        return spec.replace_attributes(partitions_def=own[0]) if own else spec

    return asset.map_asset_specs(of_settings)


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
    mapping = graph.get_partition_mapping(child, parent)
    # Dagster takes up to 20 ms, and every asset of a season reads others in the same way.
    # A mapping by dimension has no hash, and a new year adds a partition to an equal definition.
    key = repr(mapping), own, upstream, upstream.get_last_partition_key(), partition
    if key not in _mapped:
        subset = own.subset_with_partition_keys([partition]) if own and partition else None
        read = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, own, upstream)
        _mapped[key] = sorted(read.partitions_subset.get_partition_keys())
    return list(_mapped[key])


_mapped: dict[tuple[Any, ...], list[str]] = {}
"""Partitions read, by mapping, partitions definitions and partition."""
