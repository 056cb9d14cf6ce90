"""Simulated seasons with a known truth: the source that needs no data.

The truth is richer than the causal network: luck is a two-piece Student t and not Gumbel, wrecks take
several cars at once, skill differs by archetype, and two seasons after the first the field is compressed.
This module is the source; the races are simulated in `season` and `race`.
"""

from collections.abc import Sequence
from itertools import pairwise

import xarray as xr

from calibration_pipeline.sources.base import AnnouncedRace, SeasonData, SourceError
from calibration_pipeline.sources.simulated.calendar import CALENDAR
from calibration_pipeline.sources.simulated.season import SimulatedSeason, track_of_round
from calibration_pipeline.tracks import CompiledTracks


class SimulatedSource:
    """Seasons of 36 points races from a known truth.

    Parameters
    ----------
    seasons : Sequence[int]
        Seasons that the source has, ascending. Skills and teams evolve from the first.
    tracks : CompiledTracks
        Catalogue that gives archetypes, lengths and scheduled laps.
    seed : int
        Determines all random numbers: the same seasons, tracks and seed give the same frames.

    Raises
    ------
    SourceError
        If `seasons` is empty or not ascending, a track of the calendar is not known in a season, or `seed` is
        negative.
    """

    name = "simulated"

    def __init__(self, seasons: Sequence[int], tracks: CompiledTracks, seed: int = 42) -> None:
        if not seasons:
            raise SourceError("Argument seasons must name at least one season, got none.")
        if any(later <= earlier for earlier, later in pairwise(seasons)):
            raise SourceError(f"Argument seasons must be ascending, got {list(seasons)}.")
        if seed < 0:
            raise SourceError(f"Argument seed must fulfil seed >= 0, got {seed}.")
        for season in (*seasons, seasons[-1] + 1):
            for round_ in range(1, len(CALENDAR) + 1):
                track_of_round(tracks, season, round_)
        self.seasons = tuple(int(season) for season in seasons)
        self.tracks = tracks
        self.seed = int(seed)

    def load_season(self, season: int) -> SeasonData:
        """Return all races of `season`.

        Parameters
        ----------
        season : int
            One of the configured seasons.

        Returns
        -------
        SeasonData
            Frames of schemas `RaceResults` and `LapTelemetry`; counts of races, cars and laps.

        Raises
        ------
        SourceError
            If `season` is not configured.
        """
        self._refuse_unknown(season)
        simulated = self._simulated(season)
        results, laps = simulated.results(), simulated.laps()
        counts = {"races": results["race_id"].n_unique(), "cars": results.height, "laps": laps.height}
        return SeasonData(race_results=results, lap_telemetry=laps, counts=counts)

    def finished_races(self, season: int) -> dict[int, str]:
        """Return all races of `season`, as race_id → label; none where it is not configured."""
        if season not in self.seasons:
            return {}
        return {100 * season + n: f"{season} race {n} ({track})" for n, track in enumerate(CALENDAR, 1)}

    def version(self, season: int) -> str:  # noqa: ARG002  # simulated seasons never change
        """Return the same digest for every season."""
        return "simulated"

    def refresh(self, season: int, number: int) -> None:
        """Refuse: nothing of this source is kept."""
        raise SourceError(f"Race {number} of {season} needs no refresh: it is simulated.")

    def next_race(self, after_season: int) -> AnnouncedRace:
        """Return the first race of the season after `after_season`, with its grid.

        Parameters
        ----------
        after_season : int
            One of the configured seasons.

        Returns
        -------
        AnnouncedRace

        Raises
        ------
        SourceError
            If `after_season` is not configured.
        """
        self._refuse_unknown(after_season)
        following = self._simulated(after_season + 1)
        return AnnouncedRace(following.entries(following.race(1)).sort("start_position"))

    def truth(self, season: int) -> xr.Dataset:
        """Return the true parameters and latent variables of the races of `season`.

        Parameters
        ----------
        season : int
            One of the configured seasons.

        Returns
        -------
        xarray.Dataset
            `skill` and `team_strength` (driver, archetype) add to a car's ability; `sharpness`,
            `luck_scale` and the other laws (archetype); `chaos` (race); `speed` (race, driver), a car's
            speed before luck, NaN where the driver did not race. The attributes describe the laws.

        Raises
        ------
        SourceError
            If `season` is not configured.
        """
        self._refuse_unknown(season)
        return self._simulated(season).truth()

    def _refuse_unknown(self, season: int) -> None:
        if season not in self.seasons:
            known = ", ".join(map(str, self.seasons))
            raise SourceError(f"Argument season must be one of the simulated seasons {known}; got {season}.")

    def _simulated(self, season: int) -> SimulatedSeason:
        return SimulatedSeason(season, self.seasons[0], self.tracks, self.seed)
