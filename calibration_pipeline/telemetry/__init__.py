"""From laps to the features of a car before its race: rolling columns, lap aggregates, features.

`rolling` works within a race, `laps` aggregates laps to one row a car and race, `history` sums over earlier
races only, and `features` combines these as of each race. `baselines` has the Bradley-Terry reference, and
`column_sources` the column lineage.
"""

from calibration_pipeline.telemetry.features import build_driver_features, check_availability, entry_list
from calibration_pipeline.telemetry.laps import aggregate_laps
from calibration_pipeline.telemetry.rolling import compute_aggregate_features

__all__ = [
    "aggregate_laps",
    "build_driver_features",
    "check_availability",
    "compute_aggregate_features",
    "entry_list",
]
