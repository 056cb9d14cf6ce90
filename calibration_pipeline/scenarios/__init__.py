"""Scenarios of races: the causal network, its fits, the ensembles drawn from it.

`SkeletonNarrative` is imported lazily: it needs JAX, which most modules of the package do not.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibration_pipeline.scenarios.draw.narrative import SkeletonNarrative

__all__ = ["SkeletonNarrative"]


def __getattr__(name: str) -> object:
    if name == "SkeletonNarrative":
        from calibration_pipeline.scenarios.draw.narrative import SkeletonNarrative

        return SkeletonNarrative
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
