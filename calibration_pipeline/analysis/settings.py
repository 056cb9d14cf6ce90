"""Settings of an analysis: what is read, how values are computed from it, and where they are stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from calibration_pipeline.events.files import read_events
from calibration_pipeline.io.addresses import is_on_the_web, split_query
from calibration_pipeline.seasons import parse_eras

DEFAULT_SEASONS = {"simulated": "2022-2025", "nascar_feed": "2020-"}
ADDRESSES = ("feed_url", "results", "laps", "columns", "tracks", "nicknames", "forecasters", "events")
"""The settings that may hold credentials."""


class AnalysisSettings(BaseModel):
    """Settings of an analysis. Immutable; the description of each field is what the field must be."""

    model_config = ConfigDict(frozen=True)

    source: Literal["simulated", "nascar_feed", "tables"] = Field(
        default="simulated", description="simulated, nascar_feed or tables"
    )
    series: Literal["cup", "xfinity", "truck"] = Field(
        default="cup", description="cup, xfinity or truck; simulated seasons are of the Cup alone"
    )
    feed_url: str = Field(
        default="https://cf.nascar.com/cacher",
        min_length=1,
        description="https:// address, folder or zip of the timing feed's files",
    )
    results: str | None = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="path or address of your table of results, .parquet, .csv, .csv.gz, .tsv, .txt or "
        ".xlsx, with source tables and only then",
    )
    laps: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of your table of laps, in the same forms, with source tables "
        "and only then",
    )
    columns: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of a TOML file with the names of your tables' columns, with source "
        "tables and only then",
    )
    tracks: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of your own tracks, TOML with tables [[track]], added to the catalogue",
    )
    nicknames: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of other spellings of drivers' names, TOML with [given_names] and "
        "[drivers]",
    )
    network: Literal["full", "ordinary", "no_incidents", "ordinary_no_incidents"] = Field(
        default="full",
        description="full, or a baseline to compare with: ordinary (Plackett-Luce, the winner drawn first), "
        "no_incidents or ordinary_no_incidents",
    )
    forecasters: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of a folder with forecasts of your own, each file or subfolder a "
        "forecaster beside the network",
    )
    margin: Literal["multiplicative", "shin", "power"] = Field(
        default="multiplicative",
        description="method that removes the margin of a bookmaker's odds: multiplicative, shin or power",
    )
    forecaster: str | None = Field(
        default=None,
        min_length=1,
        description="forecaster whose verdicts come first in the report; yours if there is exactly one, else "
        "network, by default",
    )
    events: str | None = Field(
        default=None,
        min_length=1,
        description="path or address of your own joint events, TOML with a table [events]",
    )
    seasons: str | None = Field(
        default=None,
        description="seasons up to this year, as in 2020-2023 or 2016,2018-2020 or 2020- (open); "
        + ", ".join(f"{seasons} by default for {source}" for source, seasons in DEFAULT_SEASONS.items())
        + " on the web, else what the files hold",
    )
    store: str = Field(
        default="data/store",
        min_length=1,
        description="folder (relative to the project) or object-store address that holds the assets",
    )
    scenarios: int = Field(
        default=2000, ge=100, le=100_000, description="scenarios simulated per race, 100 to 100000"
    )
    seed: int = Field(default=42, ge=0, lt=2**31, description="seed of every random draw, 0 to 2147483647")
    fold_races: int | None = Field(
        default=None,
        ge=1,
        description="races per fold, at least 1; a season each where history is long enough, by default",
    )
    eras: str = Field(
        default="2022",
        description="first seasons of eras with verdicts of their own, as in 2018,2022 (2022: a new car); "
        "0 for none",
    )

    @field_validator("series")
    @classmethod
    def _check_series(cls, value: str, info: ValidationInfo) -> str:
        if value != "cup" and info.data.get("source") == "simulated":
            raise ValueError("source is simulated: add --source nascar_feed or --source tables")
        return value

    @field_validator("feed_url")
    @classmethod
    def _check_feed_url(cls, value: str) -> str:
        split_query(value)
        return value

    @field_validator("eras")
    @classmethod
    def _check_eras(cls, value: str) -> str:
        parse_eras(value)
        return value

    @field_validator("feed_url", "results", "laps", "columns", "tracks", "nicknames", "forecasters", "events")
    @classmethod
    def _make_absolute(cls, value: str | None) -> str | None:
        if value is None or "://" in value:
            return value
        try:
            return str(Path(value).expanduser().absolute())
        except RuntimeError as error:  # ~ of a user who is not there
            raise ValueError(str(error)) from None

    @field_validator("events", "tracks", "nicknames", "forecasters")
    @classmethod
    def _check_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        from calibration_pipeline.forecasters.folder import list_forecasters
        from calibration_pipeline.sources.names import read_nicknames  # it loads polars, as tracks do: late
        from calibration_pipeline.tracks import load_tracks

        readers = {
            "events": read_events,
            "tracks": lambda path: load_tracks(address=path),
            "nicknames": read_nicknames,
            "forecasters": list_forecasters,
        }
        readers[str(info.field_name)](value)
        return value

    @field_validator("forecaster")
    @classmethod
    def _check_forecaster(cls, value: str | None, info: ValidationInfo) -> str | None:
        from calibration_pipeline.forecasters.folder import NETWORK, find_forecasters

        known = [NETWORK, *find_forecasters(info.data.get("forecasters")).names]
        if value is not None and value not in known:
            raise ValueError(f"there are {', '.join(known)}")
        return value

    @field_validator("results")
    @classmethod
    def _check_results(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("source") == "tables":
            raise ValueError("source tables reads it: --results PATH")
        return value

    @property
    def default_seasons(self) -> str | None:
        """The seasons where none are set; None where only the source's files name them."""
        if self.source == "tables" or (self.source == "nascar_feed" and not is_on_the_web(self.feed_url)):
            return None
        return DEFAULT_SEASONS[self.source]

    @property
    def source_addresses(self) -> Sequence[str | None]:
        """Where the source's races and laps are read."""
        if self.source == "nascar_feed":
            return [self.feed_url]
        return [self.results, self.laps] if self.source == "tables" else []

    @property
    def era_starts(self) -> tuple[int, ...]:
        """First season of each declared era."""
        return parse_eras(self.eras)

    @property
    def shown_forecaster(self) -> str:
        """The forecaster whose verdicts come first: the one set, the only one of a user, or the network."""
        from calibration_pipeline.forecasters.folder import NETWORK, find_forecasters

        known = find_forecasters(self.forecasters).names
        return self.forecaster or (known[0] if len(known) == 1 else NETWORK)

    @property
    def key_prefix(self) -> tuple[str, str]:
        """The first parts of every asset key, so that sources and series never share partitions."""
        return self.source, self.series
