"""Contract of the quarantine: what a source left out, nulled or corrected, and by which rule."""

import pandera.polars as pa

from calibration_pipeline.schemas.frames import Table

ENTITIES = ("race", "entry", "laps", "value")
CONSEQUENCES = ("left out", "nulled", "corrected", "kept")


class Quarantine(Table):
    """One row for each defect of a season's data that a source found."""

    season: int = pa.Field(ge=1949, le=2200, description="Season, year")
    race_id: int = pa.Field(ge=0, nullable=True, description="Race, null where it has no id")
    race: str = pa.Field(nullable=True, description="Season, number and track or name of the race")
    place: str = pa.Field(description="Document or file, without credentials")
    entity: str = pa.Field(isin=list(ENTITIES), description="Kind of data that the rule is about")
    subject: str = pa.Field(nullable=True, description="Driver, car or column; null for a whole race")
    rule: str = pa.Field(description="Rule that the data break")
    value: str = pa.Field(nullable=True, description="Value that was found")
    consequence: str = pa.Field(
        isin=list(CONSEQUENCES),
        description="left out, nulled, corrected; kept where the data are only suspicious",
    )
