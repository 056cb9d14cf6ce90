"""Rows of the benchmark of a user's own scenarios: paired gains of the winner, temperatures."""

import numpy as np
import polars as pl
import pytest

from benchmarks.own_scenarios import FORECASTS, score_rows


def cars(rng: np.random.Generator, exponent: float) -> pl.DataFrame:
    """Return 200 races of eight cars whose winners have the probabilities, issued to a power."""
    truth = np.random.default_rng(1).dirichlet(np.ones(8), size=200)
    issued = truth**exponent
    issued /= issued.sum(axis=1, keepdims=True)
    winner = np.array([rng.choice(8, p=each) for each in truth])
    return pl.DataFrame(
        {
            "race": np.repeat(np.arange(200), 8),
            "archetype": "short_track",
            "win": issued.ravel(),
            "won": (np.arange(8) == winner[:, None]).ravel(),
            "log_score": np.log(issued).ravel(),
        }
    )


def test_gains_are_paired_and_temperatures_are_those_of_the_win() -> None:
    sharp, same, right = (cars(np.random.default_rng(2), exponent) for exponent in (2.0, 2.0, 1.0))
    rows = score_rows([sharp, same, right], range(2020, 2022))
    assert [row["races"] for row in rows] == ["all", "without superspeedways", "short_track"]
    row = rows[0]
    assert (row["seasons"], row["n_races"]) == ("2020-2021", 200)
    won = right["won"]
    gain = (right["win"].log() - sharp["win"].log()).filter(won).mean()
    assert float(row["winner_tilted_over_raw"]) == pytest.approx(gain, abs=1e-3)
    assert row["winner_tilted_over_raw"] == row["winner_tilted_over_untilted"]
    temperatures = [float(row[f"temperature_{name.replace(' ', '_')}"]) for name in FORECASTS]
    assert temperatures[0] == temperatures[1] == pytest.approx(temperatures[2] / 2, rel=1e-2)
    assert float(row["temperature_with_tilt_lower"]) < 1 < float(row["temperature_with_tilt_upper"])
