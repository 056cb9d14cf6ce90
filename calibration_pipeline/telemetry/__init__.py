"""From laps to what is known of a car before its race: rolling columns, facts of a race, features.

`rolling` works within a race, `laps` turns laps into one row a car and race, `history` sums over earlier
races only, and `features` combines them as of each race.
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
