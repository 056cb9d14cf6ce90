"""Group `ingest`: versions of the source's seasons."""

import datetime

import dagster as dg

from assets.flow.ingest import season
from assets.storage.io_manager import SOURCE_VERSION
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

YEAR = datetime.datetime.now(datetime.UTC).year


class GrowingSource(SimulatedSource):
    """Source whose first race of the season appears directly after the list of finished races was read."""

    has_run = False

    def finished_races(self, season: int) -> dict[int, str]:
        races = super().finished_races(season) if self.has_run else {}
        self.has_run = True
        return races

    def version(self, season: int) -> str:
        return f"{super().version(season)}, {'with' if self.has_run else 'without'} the first race"


def test_a_race_that_appears_while_a_season_is_read_changes_its_version() -> None:
    source = GrowingSource([YEAR], compile_constraints())
    result = dg.materialize(
        [season], partition_key=str(YEAR), resources={"source": source, "io_manager": dg.mem_io_manager}
    )
    assert result.success
    stored = result.asset_materializations_for_node("season")[0]
    assert stored.metadata["races"].value == 0
    assert stored.metadata[SOURCE_VERSION].value != source.version(YEAR)
