"""Track catalogue: facts known without racing. `catalogue` is data, `compiled` checks and serves it."""

from calibration_pipeline.tracks.catalogue import CATALOGUE, ConstraintSpec
from calibration_pipeline.tracks.compiled import (
    CompiledTracks,
    TrackConstraints,
    UnknownTrackError,
    compile_constraints,
)

__all__ = [
    "CATALOGUE",
    "CompiledTracks",
    "ConstraintSpec",
    "TrackConstraints",
    "UnknownTrackError",
    "compile_constraints",
]
