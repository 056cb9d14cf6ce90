"""Event probabilities and odds: tables with a column a market, or a row a market.

A market of a race counts if all cars entered have a value. Odds lose the bookmaker's margin; probabilities
stay as issued. The overround of both is reported.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.forecasters.car_matching import MatchedRace
from calibration_pipeline.forecasters.field_matching import TWICE, RacesInForce, named
from calibration_pipeline.forecasters.odds import (
    Margin,
    Notation,
    cap_at_one,
    implied_probability,
    recognise_notation,
    remove_margin,
)
from calibration_pipeline.forecasters.tables import ForecastTable
from calibration_pipeline.markets import EVENT_MARKETS
from calibration_pipeline.schemas.forecasters import EventProbabilities, Overrounds
from calibration_pipeline.sources.quarantine import DefectLog

PERCENT = {"pct", "percent"}
PROBABILITY_WORDS = {"p", "prob", "probability", "chance", *PERCENT}
ODDS_WORDS = {"odds", "price", "line", *(notation.value for notation in Notation)}
OTHER_WORDS = {"finish", "to", "a", "race"}
MARKET_WORDS = {
    **{market.replace(" ", ""): market for market in EVENT_MARKETS},
    "winner": "win",
    "outright": "win",
    "podium": "top 3",
}
MARKET_COLUMN = {"market": ("event", "bet", "bet_type")}
VALUE_COLUMNS = {"probability": ("prob", "p", "chance"), "odds": ("price", "line")}
LEAST_SUM, LARGEST_SUM = 0.5, 2.0
"""Factors of the number of winners between which the probabilities of a market must sum."""


class EventForecast(NamedTuple):
    """Event probabilities of one forecaster.

    Attributes
    ----------
    probabilities : polars.DataFrame
        `EventProbabilities`.
    overrounds : polars.DataFrame
        `Overrounds`.
    """

    probabilities: pl.DataFrame
    overrounds: pl.DataFrame


class _Writing(NamedTuple):
    """How the values of a market are written: in a notation of odds, or as probabilities over `unit`."""

    notation: Notation | None
    unit: float = 1.0

    @property
    def source(self) -> str:
        return f"{self.notation} odds" if self.notation else "probabilities"

    def read(self, text: str) -> float:
        """Return a raw probability; a ValueError names the rule that a text breaks."""
        if self.notation:
            return implied_probability(text, self.notation)
        value = _number(text) / self.unit
        if not 0 <= value <= 1:
            raise ValueError(f"a probability must be from 0 to {self.unit:g}; got {text!r}")
        return value


class _Book(NamedTuple):
    """Raw probabilities of a market: of the cars entered, by grid, and the sum over all cars of the file."""

    entered: NDArray[np.float64]
    total: float
    n_cars: int


def is_event_table(table: ForecastTable) -> bool:
    """Return whether a table has a column a market, or a row a market."""
    return bool(_market_columns(table)) or bool(table.find(MARKET_COLUMN) and table.find(VALUE_COLUMNS))


def read_event_probabilities(
    tables: Sequence[ForecastTable],
    races: RacesInForce,
    log: DefectLog,
    margin: Margin = Margin.MULTIPLICATIVE,
) -> EventForecast:
    """Read the event probabilities or odds of a forecaster.

    Parameters
    ----------
    tables : sequence of ForecastTable
        Tables for which `is_event_table` holds.
    races : RacesInForce
    log : DefectLog
        Gets races and markets that are left out.
    margin : Margin
        Method that removes the margin of odds.

    Returns
    -------
    EventForecast

    Raises
    ------
    ForecasterError
        If no race is in force, a table names no cars, or a market of a race is in two tables.
    """
    known: dict[tuple[int, str], str] = {}
    probabilities: list[pl.DataFrame] = []
    overrounds: list[tuple[int, str, str, float]] = []
    for table in tables:
        column, by = races.choose_labels(table)
        rows = _market_rows(table, column, log)
        writings = _writings(table, rows)
        for matched in races.matched_races(races.join_races(rows, table, log), by, log):
            for market, book in _books(matched, writings, log):
                n_winners = min(EVENT_MARKETS[market], book.n_cars)
                raw = book.total / n_winners - 1
                probability = _probabilities(matched, market, book, writings[market], margin, log)
                if probability is None:
                    continue
                race_id = matched.race["race_id"]
                if known.setdefault((race_id, market), table.path) != table.path:
                    raise ForecasterError(
                        f"{table.path}: {market} of {matched.race['label']} is in another file as well."
                    )
                overrounds.append((race_id, market, writings[market].source, raw))
                probabilities.append(
                    matched.cars.select(
                        pl.lit(race_id, pl.Int64).alias("race_id"),
                        "driver_id",
                        pl.lit(market).alias("market"),
                        pl.Series("probability", probability),
                    )
                )
    frame = pl.concat([EventProbabilities.empty(), *probabilities])
    _note_certainties(frame, log)
    return EventForecast(
        EventProbabilities.validate(frame, lazy=True),
        Overrounds.validate(
            pl.DataFrame(overrounds, schema=Overrounds.empty().schema, orient="row"), lazy=True
        ),
    )


def _market_columns(table: ForecastTable) -> dict[str, tuple[str, set[str]]]:
    """Return market → its column, and the words of its name; a column of probabilities before odds."""
    found: dict[str, tuple[str, set[str]]] = {}
    for name in table.schema:
        market, hints = market_named(name)
        market = None if "winner" in name.lower() else market  # a column may hold who won
        if market and (market not in found or (found[market][1] & ODDS_WORDS and not hints & ODDS_WORDS)):
            found[market] = name, hints
    return {market: found[market] for market in EVENT_MARKETS if market in found}


def market_named(name: str) -> tuple[str | None, set[str]]:
    """Return the market that a name means, None without one, and its words about how values are written.

    Examples
    --------
    >>> market_named("To win"), market_named("top5 %")
    (('win', {'to'}), ('top 5', {'percent'}))
    """
    words = re.findall(r"[a-z]+|\d+", name.lower())
    hints = set(words) & (PROBABILITY_WORDS | ODDS_WORDS | OTHER_WORDS)
    hints |= {"percent"} if "%" in name else set()
    return MARKET_WORDS.get("".join(word for word in words if word not in hints)), hints


def _market_rows(table: ForecastTable, label: str, log: DefectLog) -> pl.DataFrame:
    """Return a row a race, car and market: keys, label, market and the value as text."""
    columns = {market: name for market, (name, _) in _market_columns(table).items()}
    if not columns:
        market, values = table.find(MARKET_COLUMN)["market"], table.find(VALUE_COLUMNS)
        rows = table.collect(
            *table.key_columns(), table.text(label).alias("label"), table.text(market).alias("market"),
            _cell(table, next(iter(values.values()))).alias("text"),
        ).drop_nulls(["label", "market"])  # fmt: skip
        markets = {name: market_named(name)[0] for name in rows["market"].unique(maintain_order=True)}
        if unknown := [name for name, market in markets.items() if market is None]:
            log.notes.append(f"{named(unknown)}: none of the markets {', '.join(EVENT_MARKETS)}; not read.")
        known = pl.col("market").replace_strict(markets, return_dtype=pl.String)
        return rows.with_columns(known).drop_nulls("market")
    cells = [_cell(table, name).alias(market) for market, name in columns.items()]
    wide = table.collect(*table.key_columns(), table.text(label).alias("label"), *cells)
    return wide.drop_nulls("label").unpivot(
        on=list(columns), index=[*table.keys, "label"], variable_name="market", value_name="text"
    )


def _cell(table: ForecastTable, name: str) -> pl.Expr:
    text = table.text(name)
    return text.str.replace(",", ".", literal=True) if table.decimal_comma else text


def _writings(table: ForecastTable, rows: pl.DataFrame) -> Mapping[str, _Writing]:
    """Return market → how its values are written, by the name of the column or else by the values."""
    columns = _market_columns(table)
    row_words = set(table.find(VALUE_COLUMNS)) if not columns else set()
    row_words = {"probability"} if "probability" in row_words else row_words
    writings = {}
    for market in rows["market"].unique(maintain_order=True):
        texts = rows.filter(market=market)["text"].drop_nulls().to_list()
        words = columns[market][1] if columns else row_words
        stated = [notation for notation in Notation if notation.value in words]
        numbers = np.array([_number(text) for text in texts])
        mostly_inside = bool(texts) and np.mean((numbers >= 0) & (numbers <= 1)) > 0.5
        try:
            if stated:
                writings[market] = _Writing(stated[0])
            elif words & PERCENT or any(text.endswith("%") for text in texts):
                writings[market] = _Writing(None, 100.0)
            elif words & ODDS_WORDS or (texts and not mostly_inside and not words & PROBABILITY_WORDS):
                writings[market] = _Writing(recognise_notation(texts))
            else:
                writings[market] = _Writing(None)
        except ValueError as error:
            raise ForecasterError(f"{table.path}: the values of {market} are no odds: {error}.") from error
    return writings


def _books(
    matched: MatchedRace, writings: Mapping[str, _Writing], log: DefectLog
) -> Iterator[tuple[str, _Book]]:
    """Yield the markets of a race in which every car entered has a value; name the others."""
    if matched.rows.select("label", "market").is_duplicated().any():
        again = matched.rows.filter(pl.struct("label", "market").is_duplicated())["label"]
        log.add(matched.race, TWICE, value=named(again.unique(maintain_order=True).to_list()))
        return
    for market in EVENT_MARKETS:
        rows = matched.rows.filter(pl.col("market") == market, pl.col("text").is_not_null())
        if rows.is_empty():
            continue
        raw: dict[str, float] = {}
        others: list[float] = []
        faults: list[str] = []
        for driver, label, text in rows.select("driver_id", "label", "text").iter_rows():
            try:
                value = writings[market].read(text)
            except ValueError as error:
                faults += [f"{label}: {error}"] if driver is not None else []
                continue
            if driver is None:
                others.append(value)
            else:
                raw[driver] = value
        missing = matched.cars.filter(~pl.col("driver_id").is_in(rows["driver_id"].drop_nulls().to_list()))
        if faults:
            _leave_out(matched, market, f"values must be {writings[market].source}", named(faults), log)
        elif not missing.is_empty():
            rule = f"all {matched.cars.height} cars entered must have a value, {missing.height} have none"
            _leave_out(matched, market, rule, named(missing["driver"].to_list()), log)
        else:
            entered = np.array([raw[driver] for driver in matched.cars["driver_id"]])
            yield market, _Book(entered, float(entered.sum() + sum(others)), len(entered) + len(others))


def _probabilities(
    matched: MatchedRace, market: str, book: _Book, writing: _Writing, margin: Margin, log: DefectLog
) -> NDArray[np.float64] | None:
    """Return the probabilities of the cars entered, None for a market that is left out."""
    n_winners = min(EVENT_MARKETS[market], book.n_cars)
    if not LEAST_SUM * n_winners <= book.total <= LARGEST_SUM * n_winners or book.entered.sum() <= 0:
        rule = f"probabilities must sum to {LEAST_SUM:g} to {LARGEST_SUM:g} times the {n_winners} winners"
        _leave_out(matched, market, rule, f"{book.total:.3f}", log)
        return None
    if writing.notation is None:
        if book.n_cars == len(book.entered):
            return book.entered
        return cap_at_one(book.entered * (book.total / book.entered.sum()))
    try:
        return remove_margin(book.entered, min(EVENT_MARKETS[market], len(book.entered)), margin)
    except ValueError as error:
        _leave_out(matched, market, str(error).rstrip("."), f"{book.entered.sum():.3f}", log)
        return None


def _leave_out(matched: MatchedRace, market: str, rule: str, value: str, log: DefectLog) -> None:
    log.add(matched.race, rule, entity="value", subject=market, value=value)


def _note_certainties(frame: pl.DataFrame, log: DefectLog) -> None:
    certain = frame.filter(pl.col("probability").is_in([0.0, 1.0])).height
    if certain:
        log.notes.append(f"{certain} of {frame.height} probabilities are exactly 0 or 1.")


def _number(text: str) -> float:
    """Return a number, of a percentage the number before the sign; NaN for any other text."""
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        return float("nan")
