"""Quarantine of a season, or of a forecaster's file: defects that are found, collected while data are read.

The consequence is the mildest that is honest: a value is nulled that nothing important needs, else the entry
or the laps are left out, else the race. A season is refused only if too few of its races are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from calibration_pipeline.schemas.quarantine import ENTITIES, Quarantine
from calibration_pipeline.sources.base import SourceError

KEPT_SHARE = 2 / 3
"""Least share of a season's finished points races that a source must be able to use."""
SHOWN_DEFECTS = 5
NOT_AT_THE_START = "it was not at the start; it is removed and the others keep their order"
DID_NOT_START = "it did not start"
"""Rule of entries that results list without a start, as many official results do: named after all defects."""
NO_POINTS_RACE = "it is an exhibition or a qualifying race"
OTHER_SERIES = "of another series"
"""Parts of the rules of races that are left out because they are no points races of the series in force."""
QUERY = 'calibration-pipeline sql "FROM quarantine"'

type Row = Mapping[str, Any]
type Entity = Literal["race", "entry", "laps", "value"]
type Consequence = Literal["left out", "nulled", "corrected", "kept"]


@dataclass
class QuarantineLog:
    """Defects of one season, in the order in which they were found.

    Parameters
    ----------
    season : int
    """

    season: int
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        entity: Entity,
        consequence: Consequence,
        rule: str,
        *,
        place: str,
        race_id: int | None = None,
        race: str | None = None,
        subject: str | None = None,
        value: object = None,
    ) -> None:
        """Add a defect.

        Parameters
        ----------
        entity : {"race", "entry", "laps", "value"}
        consequence : {"left out", "nulled", "corrected", "kept"}
        rule : str
            Rule that the data break, as a sentence without a full stop.
        place : str
            Document or file, without credentials.
        race_id : int, optional
        race : str, optional
            Season, number and track or name of the race.
        subject : str, optional
            Driver, car or column.
        value : object, optional
            Value that was found.
        """
        self.rows.append(
            {
                "season": self.season,
                "race_id": race_id,
                "race": race,
                "place": place,
                "entity": entity,
                "subject": subject,
                "rule": rule,
                "value": None if value is None else str(value),
                "consequence": consequence,
            }
        )

    def frame(self) -> pl.DataFrame:
        """Return the defects as `Quarantine`; equal ones once."""
        empty = Quarantine.empty()
        return pl.DataFrame(self.rows, schema=empty.schema, orient="row").unique(maintain_order=True)


class DefectLog:
    """Quarantine of one forecaster, over all seasons.

    Attributes
    ----------
    path : str
        File or folder, without credentials.
    notes : list of str
        Sentences on the file that belong to no season.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.notes: list[str] = []
        self._logs: dict[int, QuarantineLog] = {}
        self._absent: dict[tuple[int, str], list[Row]] = {}
        self._nearest: dict[tuple[int, str], str | None] = {}

    def add(
        self,
        race: Row,
        rule: str,
        *,
        entity: Entity = "race",
        consequence: Consequence = "left out",
        subject: str | None = None,
        value: object = None,
    ) -> None:
        """Add a defect of a race: its season, and race_id and label where they are known."""
        log = self._logs.setdefault(race["season"], QuarantineLog(race["season"]))
        log.add(
            entity, consequence, rule, place=self.path, race_id=race.get("race_id"), race=race.get("label"),
            subject=subject, value=value,
        )  # fmt: skip

    def add_absent(self, race: Row, label: str, nearest: str | None) -> None:
        """Count a car of the forecast that was not at the start of a race."""
        self._absent.setdefault((race["season"], label), []).append(race)
        self._nearest[race["season"], label] = nearest

    def frame(self) -> pl.DataFrame:
        """Return the defects as `Quarantine`; each absent car once a season, with its number of races."""
        for (season, label), races in sorted(self._absent.items()):
            n = len(races)
            race = races[0] if n == 1 else {"season": season, "label": f"{season}, {n} races"}
            near = self._nearest[season, label]
            value = f"nearest: {near}" if near else None
            self.add(race, NOT_AT_THE_START, entity="entry", subject=label, value=value)
        self._absent.clear()
        logs = [log.frame() for _, log in sorted(self._logs.items())]
        return pl.concat([Quarantine.empty(), *logs])


def races_left_out(quarantine: pl.DataFrame) -> list[str]:
    """Return a line for each race that was left out: its name and the rule.

    Parameters
    ----------
    quarantine : polars.DataFrame
        Schema `Quarantine`.
    """
    rows = quarantine.filter(entity="race", consequence="left out")
    return [f"{_sentence(row)}." for row in rows.iter_rows(named=True)]


def lost_races(quarantine: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the points races of the series in force that were left out.

    Parameters
    ----------
    quarantine : polars.DataFrame
        Schema `Quarantine`.
    """
    rows = quarantine.filter(entity="race", consequence="left out")
    return rows.filter(~pl.col("rule").str.contains_any([NO_POINTS_RACE, OTHER_SERIES]))


def defect_lines(quarantine: pl.DataFrame) -> list[str]:
    """Return a line for each defect: race, subject, rule, value and consequence; the worst first.

    Parameters
    ----------
    quarantine : polars.DataFrame
        Schema `Quarantine`.
    """
    rows = worst_first(quarantine).iter_rows(named=True)
    return [f"{_sentence(row)} ({row['entity']} {row['consequence']})" for row in rows]


def describe_quarantine(quarantine: pl.DataFrame) -> str:
    """Return one line on the defects: the first ones with their rules, and the count of the others.

    Parameters
    ----------
    quarantine : polars.DataFrame
        Schema `Quarantine`. Entries that did not start are counted and named last.

    Returns
    -------
    str
        Empty where there is no defect.
    """
    if quarantine.is_empty():
        return ""
    defects = defect_lines(quarantine.filter(pl.col("rule") != DID_NOT_START))
    lines = defects[:SHOWN_DEFECTS]
    if len(defects) > SHOWN_DEFECTS:
        lines.append(f"and {len(defects) - SHOWN_DEFECTS} more")
    if absent := quarantine.filter(rule=DID_NOT_START)["subject"].fill_null("an unnamed car").to_list():
        count = "1 entry" if len(absent) == 1 else f"{len(absent)} entries"
        more = f" and {len(absent) - SHOWN_DEFECTS} more" if len(absent) > SHOWN_DEFECTS else ""
        lines.append(f"{count} did not start: {', '.join(absent[:SHOWN_DEFECTS])}{more}")
    return f"{' | '.join(lines)}. All: {QUERY}"


def entry_defects(quarantine: pl.DataFrame) -> tuple[str, ...]:
    """Return a sentence for each defect of a race and its entry list: subject, rule, value and consequence.

    Parameters
    ----------
    quarantine : polars.DataFrame
        Schema `Quarantine`, of one race that has not run.
    """
    unnamed = pl.when(entity="race").then(pl.lit("the race")).otherwise(pl.lit("an entry"))
    rows = quarantine.with_columns(subject=pl.coalesce("subject", unnamed))
    return tuple(
        f"{row['subject']}: {row['rule']}{_found(row)} ({row['entity']} {row['consequence']})."
        for row in rows.iter_rows(named=True)
    )


def worst_first(quarantine: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a quarantine by entity: races, entries, laps, values; last who did not start."""
    rank = pl.col("entity").replace_strict({name: k for k, name in enumerate(ENTITIES)})
    return quarantine.sort(pl.col("rule") == DID_NOT_START, rank, maintain_order=True)


def _sentence(row: Mapping[str, Any]) -> str:
    """Return race, subject, rule and value of a defect."""
    where = ", ".join(filter(None, (row["race"] or row["place"], row["subject"])))
    return f"{where}: {row['rule']}{_found(row)}"


def _found(row: Mapping[str, Any]) -> str:
    return f", got {row['value']}" if row["value"] else ""


def refuse_sparse_season(quarantine: pl.DataFrame, n_kept: int, n_run: int, where: str) -> None:
    """Refuse a season of which too few finished races can be used.

    Parameters
    ----------
    quarantine : polars.DataFrame
        Schema `Quarantine`.
    n_kept, n_run : int
        Points races that are kept, and that have run.
    where : str
        Season and address, for the message.

    Raises
    ------
    SourceError
        If less than `KEPT_SHARE` of the races are kept; names the first defects.
    """
    if n_kept >= KEPT_SHARE * n_run:
        return
    lines = races_left_out(quarantine)
    more = f" and {len(lines) - SHOWN_DEFECTS} more" if len(lines) > SHOWN_DEFECTS else ""
    raise SourceError(
        f"{where}: {n_kept} of {n_run} finished races can be used, at least two thirds must: "
        f"{' | '.join(lines[:SHOWN_DEFECTS])}{more}"
    )
