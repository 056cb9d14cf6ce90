"""Reports on forecasters of event and position probabilities: what the form has, and nothing else."""

from functools import cache

import numpy as np
import polars as pl
import pytest
import xarray as xr

from calibration_pipeline.archetypes import ARCHETYPES
from calibration_pipeline.forecasters.folder import Form
from calibration_pipeline.mcmc.convergence import LATEST, convergence_group
from calibration_pipeline.report import ReportContent, render_markdown
from calibration_pipeline.report.assembly import (
    Circumstances,
    NextRaceForecast,
    ProbabilityEvidence,
    assemble_probabilities,
)
from calibration_pipeline.report.document import build_document
from calibration_pipeline.schemas.comparison import ForecasterChances, Leaderboard
from calibration_pipeline.schemas.quarantine import Quarantine
from calibration_pipeline.sources.quarantine import QuarantineLog
from calibration_pipeline.terminal.summary import score_rows, verdict_rows
from calibration_pipeline.verification.verdicts.probabilities import judge_forecaster
from helpers.images import image_size
from helpers.planted_events import planted_frames
from helpers.planted_positions import planted_positions

MARKETS = ("win", "top 3", "top 10")
OF_SCENARIOS = ("monitoring", "slopes", "identification", "comparison", "skipped")


def map_state(results: pl.DataFrame) -> xr.DataTree:
    """States of all races, as a filter draws them."""
    races = results.unique("race_id", maintain_order=True)
    n = races.height
    draws = np.random.default_rng(1).normal(0, 0.1, (n, 16)).astype(np.float32)
    coords = {
        "race": races["race_id"].to_numpy(),
        "archetype": ("race", races["archetype"].to_list()),
        "season": ("race", races["season"].to_numpy().astype(np.int32)),
        "race_order": ("race", races["race_order"].to_numpy().astype(np.int32)),
        "calibration_as_of": ("race", np.ones(n, np.int32)),
        "n_calibration_races": ("race", np.ones(n, np.int32)),
    }
    variables = dict.fromkeys(("log_slope", "noise_sigma", "intercept"), (("race", "draw"), draws))
    return xr.DataTree.from_dict({"races": xr.Dataset(variables, coords)})


def posterior(children: list[str]) -> xr.DataTree:
    drawn = {"slope_mu": np.random.default_rng(2).normal(size=(2, 500))}
    fit = xr.DataTree.from_dict({"convergence": convergence_group([(LATEST, (drawn, 0))])})
    tree = xr.DataTree(children={name: fit.copy() for name in children})
    tree["slow"] = xr.DataTree()
    tree.attrs = {"n_chains": 2, "n_warmup": 200, "n_samples": 500}
    return tree


def left_out() -> pl.DataFrame:
    log = QuarantineLog(2021)
    log.add("race", "left out", "it lacks a car", place="/home/me/book.csv", race_id=1, race="2021 race 1")
    return log.frame()


@cache
def content(form: Form) -> ReportContent:
    if form is Form.EVENTS:
        raw, results, truth = planted_frames(0.6, MARKETS, n_seasons=3)
        forecasts: dict[str, object] = {
            "raw": raw, "recalibrated": truth.rename({"truth": "probability"}),
        }  # fmt: skip
        state = xr.DataTree(children={market: map_state(results) for market in MARKETS})
        fits = list(MARKETS)
    else:
        own, results, true = planted_positions(0.6, n_seasons=2)
        new = own.assign(probability=(own["probability"].dims, true))
        forecasts, state, fits = {"raw": own, "recalibrated": new}, map_state(results), ["intermediate"]
    verdicts = judge_forecaster("mine", form, forecasts, results, state, (2021,))
    race = xr.Dataset(coords={"race": np.zeros(0, np.int64)})
    empty = pl.DataFrame()
    circumstances = Circumstances(
        NextRaceForecast(race, empty, empty, [], ForecasterChances.empty()),
        Leaderboard.empty(),
        Quarantine.empty(),
        {"sim|2021": left_out(), "sim|2022": left_out(), "mine": left_out()},
        {"Source": "tables"},
        {},
    )
    evidence = ProbabilityEvidence(forecasts, results, posterior(fits), state, verdicts)
    return assemble_probabilities(form, evidence, circumstances, seed=1)


@pytest.mark.parametrize(
    ("form", "markets"),
    [
        (Form.EVENTS, ["Win", "Top 3", "Top 10"]),
        (Form.POSITIONS, ["Win", "Top 5", "Top 10", "Finish distribution"]),
    ],
)
def test_the_matrix_has_the_markets_of_the_form(form: Form, markets: list[str]) -> None:
    document = build_document(content(form))
    assert document.matrix.columns == ["Archetype", "Summary", *markets]
    rows = [row for row in document.matrix.rows if len(row) > 1]
    assert [row[0].text for row in rows[-4:]] == [archetype.label for archetype in ARCHETYPES]
    assert document.title == f"Can the {form} of mine be trusted?"
    terminal = verdict_rows(content(form).verdicts)
    assert len(terminal[0]) == 3 + len(markets)


@pytest.mark.parametrize("form", [Form.EVENTS, Form.POSITIONS])
def test_sections_of_scenarios_are_left_out(form: Form) -> None:
    document = build_document(content(form))
    anchors = [section.anchor for section in document.sections]
    assert not set(OF_SCENARIOS) & set(anchors)
    assert {"states", "convergence", "quarantine", "methods"} <= set(anchors)
    text = render_markdown(content(form))
    assert "has been monitored" not in text
    assert "causal Bayesian network" not in text
    assert "can be judged for scenarios alone" in text or "cannot be judged from them" in text


def test_scores_and_curves_are_those_of_the_form() -> None:
    events, positions = content(Form.EVENTS), content(Form.POSITIONS)
    assert set(events.curves["event"]) == set(MARKETS)
    assert set(events.metrics["quantity"]) == {
        "brier", "brier_miscalibration", "brier_discrimination", "brier_uncertainty", "brier_skill",
    }  # fmt: skip
    assert score_rows(events.archetypes, events.metrics, events.convergence) == []
    assert {"crps", "coverage", "log_score"} <= set(positions.metrics["quantity"])
    assert "head to head" not in set(positions.curves["event"])
    assert positions.pit.height
    scored = score_rows(positions.archetypes, positions.metrics, positions.convergence)
    assert scored[0]["CRPS"] != "-"


@pytest.mark.slow
@pytest.mark.parametrize(("form", "n_states"), [(Form.EVENTS, len(MARKETS)), (Form.POSITIONS, 1)])
def test_every_picture_is_drawn(form: Form, n_states: int) -> None:
    document = build_document(content(form))
    pictures = document.drawn()
    assert len(pictures) == len(document.pictures)
    assert len([key for key in pictures if key.startswith("sharpness-over-time")]) == n_states
    assert {f"{ARCHETYPES[0]}-curve-top-10"} <= set(pictures)
    for png in pictures.values():
        assert min(image_size(png)) > 100


def test_what_was_left_out_of_files_is_listed_by_forecaster() -> None:
    text = render_markdown(content(Form.EVENTS))
    section = text[text.index("What was left out, and why\n") :]
    assert "Defects of mine" in section
    assert "Defects of sim" in section
    assert section.count("it lacks a car") == 2
    assert "/home/me" not in section
    assert "2 races left out of the files of forecasters" in text
