"""Pandera contract of the races to which networks are fitted."""

import pandera.polars as pa
import polars as pl
from pandera.polars import PolarsData

from calibration_pipeline.schemas.frames import DriverFeatures


class FoldHistory(DriverFeatures):
    """Features and outcomes of the races to which a season's networks are fitted."""

    finish_position: int = pa.Field(ge=1, description="Official finish, 1..n within a race")
    laps_completed: int = pa.Field(ge=0, description="Laps completed by the car")
    laps_led: int = pa.Field(ge=0, nullable=True, description="Laps led by the car, null if not known")
    running: bool = pa.Field(description="Whether the car was running at the finish")
    race_laps: int = pa.Field(ge=1, nullable=True, description="Laps run in the race")
    green_laps: int = pa.Field(ge=0, nullable=True, description="Laps of the race under green")
    n_cautions: int = pa.Field(ge=0, nullable=True, description="Caution periods of the race")
    fastest_laps: int = pa.Field(ge=0, nullable=True, description="Green laps on which the car was fastest")
    damage: bool = pa.Field(description="Running at the finish, far behind")
    race_index: int = pa.Field(ge=0, description="Index of the race, in time order")
    slot: int = pa.Field(ge=0, description="Index of the car within its race, by grid")
    field_size: int = pa.Field(ge=1, description="Cars in the race")
    open_fold_start: int = pa.Field(description="race_order at which the season's open fold begins")

    @pa.dataframe_check(error="race_order must be before open_fold_start")
    def folds_are_closed(cls, data: PolarsData) -> pl.LazyFrame:
        """The history has no race of the open fold."""
        return data.lazyframe.select(pl.col("race_order") < pl.col("open_fold_start"))
