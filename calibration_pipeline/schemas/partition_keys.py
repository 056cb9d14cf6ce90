"""Partition keys: the parts of a key, such as the archetype and the forecaster of 'short_track|network'."""

from collections.abc import Collection, Mapping

from calibration_pipeline.archetypes import ARCHETYPES, Archetype


def split_key(partition: str) -> tuple[str, str]:
    """Return the two parts of a partition key; the second is empty where the key has one part.

    Examples
    --------
    >>> split_key("short_track|network"), split_key("network|2023"), split_key("2023")
    (('short_track', 'network'), ('network', '2023'), ('2023', ''))
    """
    first, _, second = partition.partition("|")
    return first, second


def archetype_of(partition: str) -> str:
    """Return the archetype of a partition key of the archetype assets.

    Examples
    --------
    >>> archetype_of("short_track|network")
    'short_track'
    """
    return split_key(partition)[0]


def is_chosen(partition: str | None, archetypes: Collection[str]) -> bool:
    """Return whether a partition is of one of the archetypes, or of no archetype at all.

    Examples
    --------
    >>> keys = (None, "network|2023", "short_track|mine", "intermediate|mine")
    >>> [is_chosen(key, ["short_track"]) for key in keys]
    [True, True, True, False]
    """
    head = archetype_of(partition or "")
    return head in archetypes or head not in set(map(str, ARCHETYPES))


def by_archetype[T](values: Mapping[str, T], forecaster: str | None = None) -> dict[Archetype, T]:
    """Return the values of one forecaster's archetypes, those that are there, in the order of archetypes.

    Parameters
    ----------
    values : mapping of str to T
        Partition key → value.
    forecaster : str, optional
        The forecaster, where `values` holds those of several.
    """
    own = (key for key in values if forecaster in (None, split_key(key)[1]))
    by_name = {archetype_of(key): values[key] for key in own}
    return {archetype: by_name[archetype] for archetype in ARCHETYPES if archetype in by_name}
