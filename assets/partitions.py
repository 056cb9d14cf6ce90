"""How the assets are cut: by season, by archetype, and which seasons an asset may look at.

A mapping to the past is the only way in which one season's asset reads another's.
"""

import warnings

import dagster as dg

from assets.settings import Settings
from calibration_pipeline.archetypes import ARCHETYPES

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
