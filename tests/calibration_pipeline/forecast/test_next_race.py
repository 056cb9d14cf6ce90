"""The next race: as a backtest scores it, its chances and intervals, grids not set, and the command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import xarray as xr
from scipy import stats
from upath import UPath

from assets.cli import main
from assets.flow.forecast import next_race
from assets.settings import Settings
from calibration_pipeline.archetypes import ARCHETYPES, Archetype
from calibration_pipeline.calibration.archetype_races import join_archetype_races
from calibration_pipeline.calibration.pooling import fit_pooled
from calibration_pipeline.calibration.race_curves import join_curves, tabulate_races
from calibration_pipeline.calibration.recalibration import draw_recalibrations, recalibrate
from calibration_pipeline.calibration.state import filter_state
from calibration_pipeline.events.files import DEFAULT_EVENTS
from calibration_pipeline.forecast import next_race as forecast_module
from calibration_pipeline.forecast.chances import (
    FITS,
    SCENARIOS_A_FIT,
    chance_table,
    chances_by_fit,
    event_table,
    interval_around,
    known_events,
    recalibration_of_each_fit,
    scenario_table,
)
from calibration_pipeline.forecast.next_race import (
    GRIDS,
    GRIDS_A_FIT,
    NONE_ANNOUNCED,
    Knowledge,
    Method,
    forecast_next_race,
    forecast_notes,
)
from calibration_pipeline.io.stored_files import write_atomically
from calibration_pipeline.io.stored_values import encode
from calibration_pipeline.scenarios.draw.ensemble import simulate_races
from calibration_pipeline.scenarios.draw.grids import draw_grids, fit_grid_strength, simulate_without_grid
from calibration_pipeline.scenarios.fit.by_fold import fit_networks
from calibration_pipeline.scenarios.fit.history import fold_history
from calibration_pipeline.scenarios.joining import join_seasons
from calibration_pipeline.scenarios.network.model import Recalibration
from calibration_pipeline.scenarios.probabilities import finish_probabilities
from calibration_pipeline.schemas.contracts import validate
from calibration_pipeline.schemas.datasets import races_of
from calibration_pipeline.sources.base import AnnouncedRace, NoNextRace, SeasonData
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.telemetry import aggregate_laps, build_driver_features, entry_list
from calibration_pipeline.tracks import compile_constraints
from helpers.planted_races import QUICK

SEED, SCENARIOS, FOLD = 42, 100, 24
KIND = "intermediate"
DEFECTS = ("[/] Ann, car 9, is left out: it has no grid position, while most have one.",)
TABLES = ("forecast_chances", "forecast_events", "forecast_scenarios")


class Announces:
    """A simulated source whose next race is the one given."""

    name = "simulated"

    def __init__(self, announced: AnnouncedRace | NoNextRace | None) -> None:
        self.announced = announced

    def next_race(self, after_season: int) -> AnnouncedRace | NoNextRace | None:  # noqa: ARG002
        return self.announced


def fit_state(raw: dict[Archetype, xr.Dataset], results: pl.DataFrame) -> xr.DataTree:
    """Filter the state of races of all archetypes."""
    curves = join_curves(tabulate_races(part, results, SEED) for part in raw.values())
    return filter_state(curves, fit_pooled(curves, [2023, 2024], seed=SEED, **QUICK), SEED)


class World:
    """Two simulated seasons, up to an intermediate race late in the second."""

    def __init__(self, folder: Path) -> None:
        source = SimulatedSource([2023, 2024], compile_constraints(), SEED)
        seasons: dict[str, SeasonData] = {str(year): source.load_season(year) for year in (2023, 2024)}
        self.results = {year: data.race_results for year, data in seasons.items()}
        self.laps = {}
        for year, data in seasons.items():
            data.lap_telemetry.write_parquet(folder / f"{year}.parquet")
            self.laps[year] = aggregate_laps([str(folder / f"{year}.parquet")])
        late = self.results["2024"].filter((pl.col("archetype") == KIND) & (pl.col("round") > 24))
        self.race = int(late["race_id"].min())
        first = pl.col("race_id") < self.race
        self.announced = AnnouncedRace(entry_list(late.filter(race_id=self.race)), DEFECTS)
        every_result, every_lap = pl.concat(self.results.values()), pl.concat(self.laps.values())
        self.features = {
            year: build_driver_features(entry_list(frame), every_result, every_lap)
            for year, frame in self.results.items()
        }
        features = pl.concat(self.features.values())
        self.networks = {
            year: fit_networks(fold_history(features, every_result, int(year), FOLD), FOLD, SEED)
            for year in self.results
        }
        self.ensembles = [
            simulate_races(self.features[year], self.networks[year], FOLD, SCENARIOS, SEED)
            for year in self.results
        ]
        self.raw = join_seasons(self.ensembles, KIND)
        self.results_before = {"2023": self.results["2023"], "2024": self.results["2024"].filter(first)}
        self.features_before = {"2023": self.features["2023"], "2024": self.features["2024"].filter(first)}
        raw = {archetype: join_seasons(self.ensembles, str(archetype)) for archetype in ARCHETYPES}
        self.state = fit_state(raw, every_result)
        before = {a: part.isel(race=part["race"].values < self.race) for a, part in raw.items()}
        self.state_before = fit_state(before, every_result)
        self.no_state = fit_state({a: part.isel(race=[]) for a, part in raw.items()}, every_result)

    def forecast(
        self, announced: AnnouncedRace | NoNextRace | None, state: xr.DataTree, own: Path | None = None
    ) -> dict[str, dg.Output]:
        """Make the assets of the next race from what was known before it, by the network or a user's file."""
        settings = Settings(
            seasons="2023,2024",
            scenarios=SCENARIOS,
            seed=SEED,
            fold_races=FOLD,
            forecasters=None if own is None else str(own),
        )
        outputs = next_race(
            dg.build_asset_context(partition_key="network" if own is None else own.stem),
            source=Announces(announced),
            settings=settings,
            race_results=self.results_before,
            lap_aggregates=self.laps,
            driver_features=self.features_before,
            causal_network=self.networks,
            calibration_state=state,
        )
        return {output.output_name: output for output in outputs}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("laps"))


@pytest.fixture(scope="module")
def calibrated(world: World) -> dict[str, dg.Output]:
    return world.forecast(world.announced, world.state_before)


@pytest.mark.slow
def test_the_next_race_gets_the_scenarios_that_the_backtest_scored(
    world: World, calibrated: dict[str, dg.Output]
) -> None:
    """With the races before it alone, a race of the past is forecast to the bit as it was scored."""
    states = world.state["races"].to_dataset()
    changes = draw_recalibrations(states, world.raw, SCENARIOS, SEED)
    race, network = world.features["2024"].filter(race_id=world.race), world.networks["2024"]
    scored = simulate_races(race, network, FOLD, SCENARIOS, SEED, changes)
    forecast = calibrated["race_forecast"].value
    assert calibrated["race_forecast"].metadata["recalibrated"].value is True
    for name in ("finish_position", "running", "laps_led", "n_cautions"):
        np.testing.assert_array_equal(forecast[name].values, scored[name].values)
    assert int(forecast["network_as_of"][0]) < int(forecast["race_order"][0])


@pytest.mark.slow
def test_a_fold_whose_last_race_is_awaited_does_not_stop_the_forecast_of_the_next_fold(world: World) -> None:
    """Round 25 opens a fold of 24 races. Without round 24 its network has 23 races of the season."""
    results, laps = pl.concat(world.results.values()), pl.concat(world.laps.values())
    features = pl.concat(world.features.values())
    first = int(world.results["2024"].filter(round=FOLD + 1)["race_id"][0])
    awaited = int(world.results["2024"].filter(round=FOLD)["race_id"][0])
    known = pl.col("race_id") < awaited
    network = fit_networks(
        fold_history(features.filter(known), results.filter(known), 2024, FOLD), FOLD, SEED
    )
    assert network["fold"].values.tolist() == ["2024-1"]
    forecast = forecast_next_race(
        AnnouncedRace(entry_list(results.filter(race_id=first))),
        Knowledge(
            results.filter(known), laps.filter(known), features.filter(known), network, world.state_before
        ),
        Method(SCENARIOS, FOLD, SEED),
        [],
    )
    assert forecast.facts["fold"] == "2024-2"
    last = int(results.filter(known)["race_order"].max())
    assert forecast.ensemble["network_as_of"].values.tolist() == [last]


@pytest.mark.slow
def test_the_recalibrated_forecast_of_joined_races_is_the_one_drawn_season_by_season(world: World) -> None:
    """The tree of an archetype's races holds all that their scenarios are drawn from."""
    results = pl.concat(world.results.values())
    races = join_archetype_races(
        world.ensembles,
        results,
        pl.concat(world.features.values()),
        list(world.networks.values()),
        [races_of(tabulate_races(part, results, SEED), str(KIND)) for part in world.ensembles],
        KIND,
        [2023, 2024],
    )
    states = world.state["races"].to_dataset()
    recalibrated = recalibrate(validate(races, "archetype_races"), states, SEED)
    changes = draw_recalibrations(states, world.raw, SCENARIOS, SEED)
    by_season = [
        simulate_races(world.features[year], world.networks[year], FOLD, SCENARIOS, SEED, changes)
        for year in world.results
    ]
    expected = join_seasons(by_season, KIND)
    for name in ("race", "fold", "driver_id", "finish_position", "running", "laps_led", "n_cautions"):
        np.testing.assert_array_equal(recalibrated[name].values, expected[name].values)
    assert not recalibrated["finish_position"].equals(world.raw["finish_position"])


@pytest.mark.slow
def test_tables_fulfil_their_contracts_and_agree_with_the_scenarios(calibrated: dict[str, dg.Output]) -> None:
    tables = {name: validate(calibrated[name].value, name) for name in TABLES}
    chances, scenarios = tables["forecast_chances"], tables["forecast_scenarios"]
    assert scenarios.height == SCENARIOS * chances.height
    wins = scenarios.filter(finish_position=1).group_by("driver_id").agg(wins=pl.len())
    joined = chances.join(wins, on="driver_id", how="left").with_columns(pl.col("wins").fill_null(0))
    smoothed = (joined["wins"] + 0.5) / (SCENARIOS + chances.height / 2)
    np.testing.assert_allclose(joined["win"], smoothed)
    for name, total in (("win", 1), ("top5", 5), ("top10", 10)):
        assert chances[name].sum() == pytest.approx(total)
        assert (chances[f"{name}_lower"] <= chances[name]).all()
        assert (chances[name] <= chances[f"{name}_upper"]).all()
        p = chances[name].to_numpy()
        np.testing.assert_allclose(chances[f"{name}_error"], np.sqrt(p * (1 - p) / SCENARIOS))
    assert set(tables["forecast_events"]["event"]) == {str(event) for event in DEFAULT_EVENTS}


@pytest.mark.slow
def test_a_race_that_is_not_calibrated_has_a_note_and_no_interval(world: World) -> None:
    raw = world.forecast(world.announced, world.no_state)
    chances = validate(raw["forecast_chances"].value, "forecast_chances")
    assert chances["win_lower"].null_count() == chances.height
    assert chances["win"].null_count() == 0
    assert forecast_notes(raw["race_forecast"].value)[0] == (
        "Not calibrated: too few earlier races of the archetype intermediate."
    )


@pytest.mark.slow
def test_defects_of_the_entry_list_are_notes_and_metadata(calibrated: dict[str, dg.Output]) -> None:
    output = calibrated["race_forecast"]
    assert f"Next race: {DEFECTS[0]}" in forecast_notes(output.value)
    assert output.metadata["entry_defects"].value == list(DEFECTS)


@pytest.mark.slow
def test_nothing_announced_is_stored_empty_with_a_note(world: World) -> None:
    nothing = world.forecast(None, world.state_before)
    assert nothing["race_forecast"].value.sizes["race"] == 0
    for name in TABLES:
        assert validate(nothing[name].value, name).is_empty()
        assert "announces no race" in str(nothing[name].metadata["why"].value)
    assert forecast_notes(nothing["race_forecast"].value) == [NONE_ANNOUNCED]


@pytest.mark.slow
def test_a_race_that_the_source_cannot_place_is_named_in_the_note(world: World) -> None:
    why = "No forecast of 2025 race 3 (Moon Oval): Track with name 'Moon Oval' is unknown."
    nothing = world.forecast(NoNextRace(why), world.state_before)
    assert nothing["race_forecast"].value.sizes["race"] == 0
    assert forecast_notes(nothing["race_forecast"].value) == [why]


@pytest.mark.slow
def test_scenarios_of_a_users_forecaster_are_the_forecast_or_the_reason_is_named(
    world: World, tmp_path: Path
) -> None:
    """With a car too many the others are ranked; with a car too few there is no forecast."""
    entries = world.announced.entries
    names = [*entries["driver"].to_list(), "Withdrawn Man"]
    drawn = np.random.default_rng(SEED).random((SCENARIOS, len(names))).argsort(axis=1) + 1
    own = pl.DataFrame(drawn, schema=names).with_columns(
        season=pl.lit(entries["season"][0]),
        round=pl.lit(entries["round"][0]),
        scenario=pl.int_range(pl.len()),
    )
    own.write_csv(tmp_path / "own.csv")
    made = world.forecast(world.announced, world.state_before, tmp_path / "own.csv")["race_forecast"]
    assert made.value["race"].values.tolist() == [world.race]
    assert "Withdrawn Man: it was not at the start" in str(made.metadata["left_out"].value)
    unset = entries.with_columns(start_position=pl.lit(None, pl.Int64))
    no_grid = world.forecast(AnnouncedRace(unset), world.state_before, tmp_path / "own.csv")["race_forecast"]
    assert "none was drawn: the scenarios are the forecaster's own" in forecast_notes(no_grid.value)[1]
    own.drop(names[0]).write_csv(tmp_path / "own.csv")
    none = world.forecast(world.announced, world.state_before, tmp_path / "own.csv")["race_forecast"]
    assert none.value.sizes["race"] == 0
    (note,) = forecast_notes(none.value)
    assert note.startswith(f"The next race, {world.race}, has no scenarios of own: 2024 race")
    assert f"1 are missing, got {names[0]}" in note


@pytest.mark.soak
def test_a_grid_that_is_not_set_is_drawn_and_makes_the_forecast_less_sure(
    world: World, calibrated: dict[str, dg.Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_grids: list[int] = []

    def counted(race: pl.DataFrame, grids: np.ndarray, *others: Any) -> xr.Dataset:
        n_grids.append(len(grids))
        return simulate_without_grid(race, grids, *others)

    monkeypatch.setattr(forecast_module, "simulate_without_grid", counted)
    unset = world.announced.entries.with_columns(start_position=pl.lit(None, pl.Int64))
    drawn = world.forecast(AnnouncedRace(unset), world.state_before)
    forecast = validate(drawn["race_forecast"].value, "race_forecast")
    assert forecast.sizes["scenario"] == SCENARIOS
    assert "The grid is not set yet: 20 grids were drawn" in forecast_notes(forecast)[1]
    chances, known = drawn["forecast_chances"].value, calibrated["forecast_chances"].value
    assert set(chances["driver_id"]) == set(known["driver_id"])
    assert chances["top10"].std() < known["top10"].std()
    assert n_grids == [GRIDS, *[GRIDS_A_FIT] * FITS], "the forecast, and the fits of its intervals"


def test_grids_follow_form_as_much_as_they_did() -> None:
    """A planted strength is found, within three standard errors of the likelihood."""
    rng = np.random.default_rng(5)
    form = rng.normal(size=(200, 30))
    place = np.argsort(np.argsort(-(1.3 * form + rng.gumbel(size=form.shape)), axis=1), axis=1) + 1
    grids = pl.DataFrame(
        {
            "race_id": np.repeat(np.arange(200), 30),
            "start_form": form.ravel(),
            "start_position": place.ravel(),
        }
    )
    assert fit_grid_strength(grids) == pytest.approx(1.3, abs=0.06)
    assert fit_grid_strength(grids.clear()) == 0.0
    shuffled = grids.with_columns(pl.col("start_form").shuffle(seed=1))
    assert fit_grid_strength(shuffled) < 0.06


def test_drawn_grids_are_permutations_led_by_form() -> None:
    race = pl.DataFrame({"start_form": [2.0, 0.0, -2.0]})
    grids = draw_grids(race, 1.0, 4000, np.random.default_rng(1))
    assert (np.sort(grids, axis=1) == [1, 2, 3]).all()
    weights = np.exp([2.0, 0.0, -2.0])
    shares = (grids == 1).mean(axis=0)
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.025)


@pytest.mark.slow
def test_scenarios_without_a_grid_keep_cars_and_scenarios_together(world: World) -> None:
    race = world.features["2024"].filter(race_id=world.race)
    grids = np.stack([race["start_position"].to_numpy()] * 3)
    change = Recalibration(*np.zeros((3, 50), np.float32))
    drawn = simulate_without_grid(race, grids, world.networks["2024"], FOLD, 50, SEED, change)
    first = simulate_races(race, world.networks["2024"], FOLD, 17, SEED)
    np.testing.assert_array_equal(drawn["finish_position"].values[:, :17], first["finish_position"].values)
    np.testing.assert_array_equal(drawn["driver_id"].values, first["driver_id"].values)
    assert drawn["scenario"].values.tolist() == list(range(50))


@pytest.mark.slow
def test_scenarios_without_a_grid_use_the_draws_of_the_network_as_often_as_with_one(world: World) -> None:
    """In one draw of the network all cars retire but one: it is that of scenarios 60, 124, and so on."""
    race, network = world.features["2024"].filter(race_id=world.race), world.networks["2024"].copy(deep=True)
    network["incident_intercept"].loc[{"draw": 60}] = 50.0
    grids = np.stack([race["start_position"].to_numpy()] * GRIDS)
    drawn = simulate_without_grid(race, grids, network, FOLD, 1000, SEED)
    known = simulate_races(race, network, FOLD, 1000, SEED)
    for ensemble in (drawn, known):
        one_left = ensemble["running"].values[0].sum(axis=1) == 1
        assert np.flatnonzero(one_left).tolist() == list(range(60, 1000, 64))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def state(log_slope_sd: float, rng: np.random.Generator) -> xr.Dataset:
    shape = (1000,)
    values = {
        "log_slope": log_slope_sd * rng.normal(size=shape),
        "noise_sigma": np.full(shape, 0.2),
        "intercept": np.zeros(shape),
        "front_tilt": np.zeros(shape),
    }
    return xr.Dataset({name: ("draw", value) for name, value in values.items()})


def two_cars() -> Callable[[Recalibration | None, int], xr.Dataset]:
    """Two cars a distance of 1 apart with logistic luck: P(the first wins) = 1 / (1 + exp(-sharpness))."""

    def simulate(change: Recalibration | None, n: int) -> xr.Dataset:
        luck = np.random.default_rng(3).logistic(size=n)
        sharpness = np.exp(np.asarray(change.log_sharpness)) if change else np.ones(n)
        first_wins = sharpness + luck > 0
        finish = np.stack([np.where(first_wins, 1, 2), np.where(first_wins, 2, 1)], axis=1)
        cars = ("race", "driver")
        return xr.Dataset(
            {"finish_position": (("race", "scenario", "driver"), finish[None])},
            {
                "race": [1],
                "field_size": ("race", [2]),
                "driver_id": (cars, [["a", "b"]]),
                "name": (cars, [["A", "B"]]),
                "start_position": (cars, [[1, 2]]),
                "scenario": np.arange(n),
            },
        )

    return simulate


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_intervals_cover_the_uncertainty_of_the_calibration(rng: np.random.Generator, spread: float) -> None:
    """Ninety per cent of the chances under known calibrations, which here are a formula of the slope."""
    draws = state(spread, rng)
    simulate = two_cars()
    cars, events = chances_by_fit(simulate, draws, [], SEED)
    assert cars.shape == (FITS, 2, 4)
    assert events.shape == (FITS, 0)
    lower, upper = interval_around(cars.mean(axis=0), cars)
    noise = np.random.default_rng(8).normal(size=4000)
    slopes = draws["log_slope"].values.ravel()[:, None]
    known = (1 / (1 + np.exp(-np.exp(slopes + 0.2 * noise)))).mean(axis=1)
    expected = np.quantile(known, 0.95) - np.quantile(known, 0.05)
    assert upper[0, 0] - lower[0, 0] == pytest.approx(expected, rel=0.25)


def test_a_calibration_that_is_known_leaves_no_interval(rng: np.random.Generator) -> None:
    cars, _ = chances_by_fit(two_cars(), state(0.0, rng), [], SEED)
    lower, upper = interval_around(cars.mean(axis=0), cars)
    np.testing.assert_array_equal(lower[:, 0], upper[:, 0])
    np.testing.assert_array_equal(interval_around(cars[0], cars)[0], cars[0])


def test_each_fit_shares_its_luck_with_the_others(rng: np.random.Generator) -> None:
    changes = recalibration_of_each_fit(state(0.3, rng), 5, 1000, SEED)
    luck = [(change.log_sharpness - change.log_sharpness.mean()) for change in changes]
    for other in luck[1:]:
        np.testing.assert_allclose(other, luck[0], atol=1e-5)
    assert stats.kstest(luck[0] / 0.2, "norm").pvalue > 0.001


def test_a_foreign_race_without_retirements_has_no_dnf() -> None:
    forecast = two_cars()(None, SCENARIOS_A_FIT)
    chances = chance_table(forecast, None)
    assert chances["dnf"].null_count() == chances["dnf_error"].null_count() == 2
    known = known_events(forecast, DEFAULT_EVENTS)
    assert {str(event) for event in known} <= {"at_least(2, favourites(3), top(10))"}
    assert event_table(forecast, known, None).height == len(known)
    assert scenario_table(forecast)["running"].null_count() == 2 * SCENARIOS_A_FIT


def test_probabilities_of_cars_are_those_of_the_backtest() -> None:
    """A car that wins in no scenario has half a count; the first of two is always in the top 5."""
    forecast = two_cars()(None, 3)
    forecast["finish_position"] = forecast["finish_position"].copy(data=[[[1, 2]] * 3])
    chances = chance_table(forecast.assign(running=forecast["finish_position"] > 1), None)
    backtest = finish_probabilities(forecast["finish_position"].values, np.array([2]))[0]
    assert chances["win"].to_list() == backtest[:, 0].tolist() == [0.875, 0.125]
    assert chances["top5"].to_list() == [1.0, 1.0]
    assert chances["dnf"].to_list() == [3.5 / 4, 0.5 / 4]
    unknown = forecast.assign_coords(car_number=("driver", ["24", ""]))
    assert chance_table(unknown, None)["car_number"].to_list() == ["24", None]


@pytest.mark.slow
def test_the_command_prints_the_forecast_or_why_there_is_none(
    world: World, calibrated: dict[str, dg.Output], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["forecast", "--store", str(tmp_path)]
    assert main(options) == 1
    assert "calibration-pipeline run makes one" in capsys.readouterr().err
    store = UPath(tmp_path / "simulated" / "cup")

    def keep(outputs: dict[str, dg.Output]) -> None:
        write_atomically(store / "race_forecast" / "network.nc", encode(outputs["race_forecast"].value))
        for name in TABLES:
            write_atomically(store / name / "network.parquet", encode(outputs[name].value))

    keep(calibrated)
    assert main(options) == 0
    printed = capsys.readouterr().out
    assert "Calibrated with" in printed
    assert f"Next race: {DEFECTS[0]}" in " ".join(printed.split())
    assert "count(dnf) >= 8" in printed
    assert max(len(line) for line in printed.splitlines() if "Files" not in line) <= 110
    keep(world.forecast(None, world.no_state))
    assert main(options) == 0
    assert "announces no race" in capsys.readouterr().out
    (store / "forecast_chances" / "network.parquet").write_bytes(b"PAR1")
    keep_forecast = encode(calibrated["race_forecast"].value)
    write_atomically(store / "race_forecast" / "network.nc", keep_forecast)
    assert main(options) == 1
    assert "forecast_chances [network] cannot be read" in capsys.readouterr().err
