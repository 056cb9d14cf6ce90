"""Source columns of each lap aggregate and feature, for the column lineage of the tables.

A test changes each source column in turn and checks which columns change.
"""

from collections.abc import Mapping

# The position by rating where there is one, else the running position, else the finish.
RAN = ("rating", "finish_position")

LAP_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "laps_timed": ("lap_time_s",),
    "average_position": ("position",),
    "top15_share": ("position",),
    "fastest_lap_share": ("lap_time_s", "flag", "position"),
    "green_pace": ("lap_time_s", "flag"),
    "average_position_50l": ("position",),
    "green_pace_50l": ("lap_time_s", "flag"),
    "falloff_50l": ("lap_time_s", "flag"),
}
"""Column of `lap_aggregates` → its source columns in `lap_telemetry`."""

RESULT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "finish_form": ("finish_position",),
    "running_form": RAN,
    "recent_form": RAN,
    "start_form": ("start_position",),
    "archetype_form": (*RAN, "archetype"),
    "track_form": (*RAN, "track_id", "archetype"),
    "team_form": ("finish_position", "team"),
    "team_archetype_form": (*RAN, "team", "archetype"),
    "car_form": (*RAN, "team", "car_number"),
    "led_form": ("laps_led", "laps_completed"),
    "incident_form": ("running",),
    "track_incident_rate": ("running", "track_id", "archetype"),
    "track_caution_rate": ("n_cautions", "track_id", "archetype"),
    "track_passing": ("start_position", "finish_position", "track_id", "archetype"),
}
"""Column of `driver_features` → its source columns in earlier `race_results`."""

AGGREGATE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "running_form": ("average_position",),
    "recent_form": ("average_position",),
    "pace_form": ("green_pace",),
    "archetype_form": ("average_position",),
    "track_form": ("average_position",),
    "team_archetype_form": ("average_position",),
    "car_form": ("average_position",),
}
"""Column of `driver_features` → its source columns in earlier `lap_aggregates`."""
