"""Known scenarios, written in every form of a forecaster's file, keep their raw scores."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from benchmarks.evaluation import draw_seasons, load_races, walk_networks
from calibration_pipeline.forecasters.field_matching import RacesInForce
from calibration_pipeline.forecasters.folder import Forecasts, list_forecasters, read_forecaster
from calibration_pipeline.forecasters.odds import Margin, Notation
from calibration_pipeline.markets import EVENT_MARKETS, FINISH, HEAD_TO_HEAD
from calibration_pipeline.stats.ranking import rank_at_random
from helpers.example_ensembles import draw, entry_list
from helpers.forecast_forms import KnownScenarios, scores_of_forecast
from helpers.paths import REAL_DATA

N_SCENARIOS = 400
FIELDS = {2021_00 + k: n for k, n in enumerate((36, 43, 38, 36, 37, 40), start=1)}
POWER = 0.93
TIE_WIDTH = 3
"""Neighbours in a scenario that have one position."""
N_ORDERS = 20
RESULTS = REAL_DATA / "cup_results_2013_2023.parquet"
Write = Callable[[KnownScenarios, Path], None]


class WrittenForm(NamedTuple):
    """Form of a file: its writer, markets, largest error of a race's score, and method of the margin."""

    write: Write
    markets: Sequence[str]
    error: float = 1e-12
    margin: Margin | None = None


POSITION_MARKETS = (*EVENT_MARKETS, FINISH)
EVERY_MARKET = (*POSITION_MARKETS, HEAD_TO_HEAD)
# Whole American odds give each probability within .00125; the score is a mean over cars.
ROUNDING = {Notation.AMERICAN: 2e-4, Notation.DECIMAL: 2e-5, Notation.FRACTIONAL: 2e-5}
FORMS = {
    "wide.csv": WrittenForm(KnownScenarios.write_wide, EVERY_MARKET),
    "long.csv": WrittenForm(KnownScenarios.write_long, EVERY_MARKET),
    "long.parquet": WrittenForm(KnownScenarios.write_long, EVERY_MARKET),
    "events.csv": WrittenForm(KnownScenarios.write_events, tuple(EVENT_MARKETS)),
    **{
        f"{kind}.{suffix}": WrittenForm(partial(KnownScenarios.write_hubverse, output_type=kind), markets)
        for kind, markets in (("sample", EVERY_MARKET), ("pmf", POSITION_MARKETS), ("cdf", POSITION_MARKETS))
        for suffix in ("csv", "parquet")
    },
    **{
        f"{notation} {method}.csv": WrittenForm(
            partial(KnownScenarios.write_odds, notation=notation, power=power),
            tuple(EVENT_MARKETS), error, method,
        )
        for notation, error in ROUNDING.items()
        for method, power in ((Margin.MULTIPLICATIVE, None), (Margin.POWER, POWER))
    },
}  # fmt: skip


class Example(NamedTuple):
    """Scenarios of races with tied positions, and the same in a random order; entries and results."""

    tied: dict[int, np.ndarray]
    known: KnownScenarios
    entries: pl.DataFrame
    results: pl.DataFrame

    def in_order(self, seed: int) -> KnownScenarios:
        """Return the scenarios with their ties in a random order."""
        rng = np.random.default_rng(seed)
        finish = {race: rank_at_random(positions, rng)[0] for race, positions in self.tied.items()}
        return KnownScenarios(finish, pl.concat(self.known.cars.values()))

    def read(self, path: Path, margin: Margin | None = None) -> Forecasts:
        (forecaster,) = list_forecasters(path).forecasters
        races = RacesInForce(self.entries)
        return read_forecaster(forecaster, races, None, fold_races=None, seed=1, margin=margin)


def make_example(drawn: KnownScenarios, entries: pl.DataFrame, results: pl.DataFrame) -> Example:
    tied = drawn.with_ties(TIE_WIDTH)
    example = Example(tied, drawn, entries, results)
    return example._replace(known=example.in_order(1000))


@pytest.fixture(scope="module")
def simulated() -> Example:
    """Six races of 36 to 43 cars; one more scenario of each is its result."""
    entries = entry_list(FIELDS)
    finish = [draw(n, 7 * race, 1)[0][0] for race, n in FIELDS.items()]
    drawn = KnownScenarios({race: draw(n, race, N_SCENARIOS)[0] for race, n in FIELDS.items()}, entries)
    return make_example(drawn, entries, entries.with_columns(finish_position=np.concatenate(finish)))


def check_scores(example: Example, name: str, folder: Path) -> None:
    """Write a form, read it, and compare its scores race by race with the original's."""
    form, path = FORMS[name], folder / name
    form.write(example.known, path)
    forecast = example.read(path, form.margin)
    assert forecast.quarantine.is_empty()
    found = scores_of_forecast(forecast, example.results)
    assert set(found["market"]) == set(form.markets)
    assert found.height == len(example.known.finish) * len(form.markets)
    original = example.known.scores(example.results)
    joined = found.join(original, on=["race_id", "market"], suffix="_original", validate="1:1")
    assert joined.height == found.height
    assert_allclose(joined["score"], joined["score_original"], rtol=0, atol=form.error, err_msg=name)


def check_ties(example: Example, folder: Path) -> None:
    """The original is one random order of the tied cars, and the reader takes another one."""
    path = folder / "tied.csv"
    example.known.write_wide(path, example.tied)
    orders = [example.known, *(example.in_order(seed) for seed in range(N_ORDERS))]
    scores = [known.scores(example.results) for known in orders]
    forecast = example.read(path)
    assert forecast.quarantine["rule"].unique().to_list() == [
        "equal values in a scenario are ranked at random"
    ]
    assert forecast.quarantine.height == len(example.tied)
    found = scores_of_forecast(forecast, example.results)
    assert found.select("race_id", "market").equals(scores[0].select("race_id", "market"))
    original, *others = (own["score"].to_numpy() for own in scores)
    error = np.std(others, axis=0, ddof=1)
    z = (found["score"].to_numpy() - original) / (np.sqrt(2) * error + 1e-13)
    assert np.abs(z).max() < 4.5
    assert np.sqrt(np.mean(z[error > 1e-12] ** 2)) == pytest.approx(1.0, abs=0.25)
    same = found.filter(error < 1e-12)["market"].unique().to_list()
    assert same == ["top 3"], "no tie crosses the third position"


@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_the_scores_of_the_scenarios(tmp_path: Path, simulated: Example, name: str) -> None:
    check_scores(simulated, name, tmp_path)


def test_ties_have_the_scores_of_another_random_order_within_its_error(
    tmp_path: Path, simulated: Example
) -> None:
    check_ties(simulated, tmp_path)


def test_the_margin_of_the_odds_is_found(tmp_path: Path, simulated: Example) -> None:
    """20 %, within the rounding of the odds."""
    simulated.known.write_odds(tmp_path / "odds.csv", Notation.AMERICAN)
    overrounds = simulated.read(tmp_path / "odds.csv").overrounds
    assert set(overrounds["market"]) == set(EVENT_MARKETS)
    assert_allclose(overrounds["overround"], 0.2, atol=1e-3)


@pytest.mark.real
@pytest.mark.soak
@pytest.mark.skipif(not RESULTS.exists(), reason=f"optional real results are absent: {RESULTS}")
@pytest.mark.parametrize("season", range(2018, 2024))
def test_forecasts_of_real_seasons_keep_their_scores(tmp_path: Path, season: int) -> None:
    """Forecasts of the network, fitted on the seasons before."""
    features, results = load_races(str(RESULTS), season)
    (ensemble,) = draw_seasons(features, walk_networks(features, results, [season]), 500)
    drawn = KnownScenarios.of_ensemble(ensemble, features)
    example = make_example(drawn, features.filter(season=season), results)
    odds = [f"{notation} {Margin.MULTIPLICATIVE}.csv" for notation in Notation]
    for name in ("wide.csv", "sample.parquet", "pmf.parquet", "cdf.parquet", *odds):
        check_scores(example, name, tmp_path)
    check_ties(example, tmp_path)
