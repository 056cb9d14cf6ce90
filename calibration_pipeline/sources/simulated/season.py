"""One simulated season: its races, its frames and its true parameters."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit

from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.simulated.calendar import CALENDAR, race_dates
from calibration_pipeline.sources.simulated.careers import Roster, first_roster, next_roster
from calibration_pipeline.sources.simulated.cast import (
    CAR_NUMBERS,
    FIELD_SIZES,
    N_FULL_TIME,
    SEAT_TEAM,
    TEAMS,
    driver_names,
)
from calibration_pipeline.sources.simulated.laws import (
    GOOD_LUCK_SHARE,
    LAWS,
    LUCK_DF,
    SEASONS_BEFORE_CHANGE,
    SHARPNESS_AFTER_CHANGE,
    WRECK_CHAOS,
    RaceLaw,
)
from calibration_pipeline.sources.simulated.race import RaceOutcome, run_race
from calibration_pipeline.stats.quadrature import gauss_hermite
from calibration_pipeline.tracks import CompiledTracks, TrackConstraints, UnknownTrackError

# Streams of random numbers: each (seed, stream, ...) has its own generator.
_NAMES, _ROSTER, _RACE = 0, 1, 2

_LAW_VARIABLES = (
    "luck_scale",
    "start_effect",
    "team_day_sd",
    "car_day_sd",
    "incident_intercept",
    "chaos_scale",
    "wrecks",
    "wreck_size",
    "wreck_retires",
)


@dataclass(frozen=True)
class SimulatedRace:
    """A race, the seats that took part in it, by driver number, and its outcome."""

    round: int
    track: TrackConstraints
    seats: NDArray[np.int64]
    outcome: RaceOutcome


def track_of_round(tracks: CompiledTracks, season: int, round_: int) -> tuple[TrackConstraints, Archetype]:
    """Return the track of a round, with its archetype.

    Raises
    ------
    SourceError
        If the track is not known in `season`, or fits no archetype.
    """
    try:
        track = tracks.by_id(CALENDAR[round_ - 1], season)
    except UnknownTrackError as error:
        raise SourceError(f"Season {season} cannot be simulated: {error}") from error
    if track.archetype is None:
        raise SourceError(f"Season {season} cannot be simulated: {track.name} fits no archetype.")
    return track, track.archetype


class SimulatedSeason:
    """One season: its roster, and its races one by one.

    Parameters
    ----------
    season : int
        The season, year.
    first_season : int
        Season in which careers begin; the regime changes `SEASONS_BEFORE_CHANGE` later.
    tracks : CompiledTracks
        Catalogue with the tracks of the calendar.
    seed : int
        Determines all random numbers; every race has its own generator.
    """

    def __init__(self, season: int, first_season: int, tracks: CompiledTracks, seed: int) -> None:
        self.season = season
        self.first_season = first_season
        self.tracks = tracks
        self.seed = seed
        changed = season >= self.first_season + SEASONS_BEFORE_CHANGE
        self.sharpness = SHARPNESS_AFTER_CHANGE if changed else 1.0

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])

    @cached_property
    def roster(self) -> Roster:
        """The season's drivers and teams: the path of rosters from the first season on."""
        roster = first_roster(self._rng(_ROSTER, self.first_season))
        for season in range(self.first_season + 1, self.season + 1):
            roster = next_roster(roster, self._rng(_ROSTER, season))
        return roster

    @cached_property
    def seats(self) -> pl.DataFrame:
        """Cars of the season: the columns of `CarKeys`, one row a seat."""
        team, make = np.array([(name, make) for name, make, *_ in TEAMS])[SEAT_TEAM].T
        return pl.DataFrame(
            {
                "driver_id": self.roster.driver.astype(str),
                "driver": driver_names(self.roster.driver, self._rng(_NAMES)),
                "car_number": CAR_NUMBERS,
                "team": team,
                "make": make,
            }
        )

    def race(self, round_: int) -> SimulatedRace:
        """Simulate the race of a round, with its own generator."""
        rng = self._rng(_RACE, self.season, round_)
        track, archetype = track_of_round(self.tracks, self.season, round_)
        n_seats = SEAT_TEAM.size
        n_part_time = rng.choice(FIELD_SIZES) - N_FULL_TIME
        part_time = rng.choice(np.arange(N_FULL_TIME, n_seats), n_part_time, replace=False)
        seats = np.concatenate([np.arange(N_FULL_TIME), part_time])
        seats = seats[np.argsort(self.roster.driver[seats])]
        column = ARCHETYPES.index(archetype)
        team = SEAT_TEAM[seats]
        ability = self.roster.skill[seats, column] + self.roster.team_strength[team, column]
        outcome = run_race(
            ability,
            team,
            LAWS[archetype],
            self.sharpness,
            track.scheduled_laps,
            track.length_miles,
            rng,
        )
        return SimulatedRace(round_, track, seats, outcome)

    @cached_property
    def races(self) -> list[SimulatedRace]:
        """All races of the season, in order."""
        return [self.race(round_) for round_ in range(1, len(CALENDAR) + 1)]

    def entries(self, race: SimulatedRace) -> pl.DataFrame:
        """Return a race's rows of schema `EntryList`, by driver number."""
        order = 100 * self.season + race.round
        return self.seats[race.seats].with_columns(
            race_id=pl.lit(order, pl.Int64),
            season=pl.lit(self.season, pl.Int64),
            round=pl.lit(race.round, pl.Int64),
            race_order=pl.lit(order, pl.Int64),
            track_id=pl.lit(race.track.track_id),
            archetype=pl.lit(str(race.track.archetype)),
            race_date=pl.lit(race_dates(self.season)[race.round - 1]),
            scheduled_laps=pl.lit(race.track.scheduled_laps, pl.Int64),
            start_position=pl.Series(race.outcome.start_position),
        )

    def results(self) -> pl.DataFrame:
        """Return the season's results, schema `RaceResults`, by race and finish."""
        frames = []
        for race in self.races:
            outcome = race.outcome
            frames.append(
                self.entries(race)
                .with_columns(
                    finish_position=pl.Series(outcome.finish_position),
                    laps_completed=pl.Series(outcome.laps_completed),
                    laps_led=pl.Series(outcome.laps_led),
                    running=pl.Series(outcome.running),
                    status=pl.Series(outcome.status),
                    race_laps=pl.lit(outcome.race_laps, pl.Int64),
                    green_laps=pl.lit(outcome.green_laps, pl.Int64),
                    n_cautions=pl.lit(outcome.n_cautions, pl.Int64),
                    fastest_laps=pl.Series(outcome.fastest_laps),
                    rating=pl.lit(None, pl.Float64),
                )
                .sort("finish_position")
            )
        return pl.concat(frames)

    def laps(self) -> pl.DataFrame:
        """Return the season's laps, schema `LapTelemetry`, by race, driver and lap."""
        columns: list[tuple[NDArray, ...]] = []
        for race in self.races:
            outcome = race.outcome
            car, lap = np.nonzero(outcome.position)
            flag = np.where(lap == 0, 0, np.where(outcome.yellow[lap], 2, 1))
            columns.append(
                (
                    np.full(car.size, race.round - 1),
                    race.seats[car],
                    lap,
                    outcome.position[car, lap],
                    outcome.lap_time_s[car, lap],
                    flag,
                )
            )
        round_index, seat, lap, position, lap_time_s, flag = map(np.concatenate, zip(*columns, strict=True))
        track_id = pl.Series([race.track.track_id for race in self.races])
        return pl.DataFrame(
            {
                "race_id": 100 * self.season + round_index + 1,
                "season": np.full(lap.size, self.season),
                "track_id": track_id.gather(round_index),
                "driver_id": self.seats["driver_id"].gather(seat),
                "car_number": self.seats["car_number"].gather(seat),
                "lap": lap,
                "position": position,
                "lap_time_s": pl.Series(lap_time_s, nan_to_null=True),
                "flag": pl.Series(["warm_up", "green", "yellow"]).gather(flag),
            }
        )

    def truth(self) -> xr.Dataset:
        """Return the true parameters of the season; see `SimulatedSource.truth`."""
        speed = np.full((len(self.races), SEAT_TEAM.size), np.nan)
        for row, race in zip(speed, self.races, strict=True):
            row[race.seats] = race.outcome.speed
        laws = [LAWS[archetype] for archetype in ARCHETYPES]
        law_variables = {
            name: ("archetype", np.array([getattr(law, name) for law in laws])) for name in _LAW_VARIABLES
        }
        return xr.Dataset(
            {
                "skill": (("driver", "archetype"), self.roster.skill),
                "team_strength": (("driver", "archetype"), self.roster.team_strength[SEAT_TEAM]),
                "sharpness": ("archetype", np.full(len(ARCHETYPES), self.sharpness)),
                "incident_rate": ("archetype", np.array([_incident_rate(law) for law in laws])),
                "chaos": ("race", np.array([race.outcome.chaos for race in self.races])),
                "speed": (("race", "driver"), speed),
                **law_variables,
            },
            coords={
                "driver": self.seats["driver_id"].to_numpy().astype(str),
                "archetype": [str(archetype) for archetype in ARCHETYPES],
                "race": 100 * self.season + np.arange(1, len(self.races) + 1),
                "team": ("driver", self.seats["team"].to_numpy().astype(str)),
                "race_archetype": ("race", [str(race.track.archetype) for race in self.races]),
            },
            attrs={
                "source": "simulated",
                "season": self.season,
                "seed": self.seed,
                "first_season_of_new_regime": self.first_season + SEASONS_BEFORE_CHANGE,
                "speed_law": "sharpness * (skill + team_strength + N(0, team_day_sd) a team and race"
                " + N(0, car_day_sd) a car and race) + start_effect * normal score of the grid",
                "luck_law": f"two-piece Student t, {LUCK_DF:g} degrees of freedom: bad luck has scale"
                f" luck_scale, good luck {GOOD_LUCK_SHARE:g} of it",
                "incident_law": "a car stops alone with logit incident_intercept + chaos_scale * chaos,"
                " less for the able; Poisson wrecks take a window of the pack",
                "finish_law": "by laps completed, then by speed + luck less damage",
            },
        )


def _incident_rate(law: RaceLaw) -> float:
    """Return the expected share of retired cars: average driver, chaos integrated out (Gauss–Hermite)."""
    chaos, weight = gauss_hermite(21)
    alone = expit(law.incident_intercept + law.chaos_scale * chaos)
    size = (2 + law.wreck_size) / np.mean(FIELD_SIZES)
    out_per_wreck = law.wreck_retires * size * (1 - size / 2)
    wrecked = 1 - np.exp(-law.wrecks * np.exp(WRECK_CHAOS * chaos) * out_per_wreck)
    return float((1 - (1 - alone) * (1 - wrecked)) @ weight)
