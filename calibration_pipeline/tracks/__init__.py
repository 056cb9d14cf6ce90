"""Track catalogue, facts known without racing: `catalogue` is data, `files` reads a user's tracks."""

from calibration_pipeline.tracks.catalogue import CATALOGUE, SERIES, ConstraintSpec, Laps, Series
from calibration_pipeline.tracks.compiled import (
    CompiledTracks,
    TrackConstraints,
    UnknownTrackError,
    compile_constraints,
)
from calibration_pipeline.tracks.files import load_tracks

__all__ = [
    "CATALOGUE",
    "SERIES",
    "CompiledTracks",
    "ConstraintSpec",
    "Laps",
    "Series",
    "TrackConstraints",
    "UnknownTrackError",
    "compile_constraints",
    "load_tracks",
]
