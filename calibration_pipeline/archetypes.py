"""The four archetypes of tracks. No other module spells out their names.

The order of `ARCHETYPES` is the order of every table, plot and array axis over archetypes.
"""

from enum import StrEnum


class Archetype(StrEnum):
    """A group of tracks on which races unfold alike."""

    SUPERSPEEDWAY = "superspeedway"
    INTERMEDIATE = "intermediate"
    SHORT_TRACK = "short_track"
    ROAD_COURSE = "road_course"

    @property
    def label(self) -> str:
        """The name for display, e.g. on a plot.

        Examples
        --------
        >>> Archetype.SHORT_TRACK.label
        'Short track'
        """
        return self.value.replace("_", " ").capitalize()


ARCHETYPES: tuple[Archetype, ...] = tuple(Archetype)


def parse_archetype(name: str) -> Archetype:
    """Return the archetype called `name`.

    Parameters
    ----------
    name : str
        One of the four archetype names.

    Returns
    -------
    Archetype

    Raises
    ------
    ValueError
        If `name` is not an archetype; the message lists the archetypes.

    Examples
    --------
    >>> parse_archetype("road_course")
    <Archetype.ROAD_COURSE: 'road_course'>
    """
    if name not in ARCHETYPES:
        allowed = ", ".join(ARCHETYPES)
        raise ValueError(f"Argument track_archetype must be one of {allowed}; got {name!r}.")
    return Archetype(name)
