"""Races whose truth is known, with scenarios and backtests drawn from it."""

import numpy as np
import xarray as xr

from calibration_pipeline.scenarios.probabilities import finish_probabilities, head_to_head

N_SCENARIOS = 1_000


class Races:
    """A pool of races with known truth, from which results are drawn; forecasts are `sharpness` as sharp."""

    def __init__(self, rng, sizes, strength=0.8, sharpness=1.0, chaos=0.0, n_scenarios=N_SCENARIOS):
        self.sizes, self.width = np.asarray(sizes), max(sizes)
        shape = (len(sizes), self.width)
        self.padding = np.arange(self.width) >= self.sizes[:, None]
        utility = rng.normal(0, strength, shape)
        log_scale = chaos * rng.normal(size=(len(sizes), n_scenarios, 1))
        self.truth = self._finishes(rng, utility, n_scenarios, log_scale)
        self.start = self._finishes(rng, 0.7 * utility, 1)[:, 0]
        self.forecast = (
            self.truth if sharpness == 1 else self._finishes(rng, sharpness * utility, n_scenarios)
        )
        self.share_beaten = np.where(self.padding, 0.0, 1 / (1 + np.exp(-0.5 * utility)))
        self.probability = finish_probabilities(self.forecast, self.sizes)
        self.pairs = head_to_head(self.forecast, self.sizes)

    def _finishes(self, rng, utility, n_scenarios, log_scale=0.0):
        noise = rng.gumbel(size=(len(utility), n_scenarios, self.width))
        noisy = np.where(self.padding[:, None], -np.inf, utility[:, None] * np.exp(log_scale) - noise)
        finish = 1 + np.argsort(np.argsort(-noisy, axis=2), axis=2)
        return np.where(self.padding[:, None], 0, finish).astype(np.int16)

    def draw(self, rng, n_races=None):
        """Return `n_races` of the pool, with results drawn from the truth, and their ensembles."""
        chosen = np.arange(len(self.sizes))
        if n_races is not None:
            chosen = rng.choice(len(self.sizes), n_races, replace=False)
        result = self.truth[chosen, rng.integers(self.truth.shape[1], size=chosen.size)]
        place, pair, car = ("race", "driver", "position"), ("race", "driver", "opponent"), ("race", "driver")
        coords = {
            "race": chosen,
            "archetype": ("race", np.full(chosen.size, "short_track")),
            "field_size": ("race", self.sizes[chosen].astype(np.int16)),
            "start_position": (car, self.start[chosen]),
            "driver_id": (car, np.where(self.padding[chosen], "", "someone")),
        }
        backtest = xr.Dataset(
            {
                "raw": (place, self.probability[chosen]),
                "recalibrated": (place, self.probability[chosen]),
                "raw_head_to_head": (pair, self.pairs[chosen]),
                "recalibrated_head_to_head": (pair, self.pairs[chosen]),
                "finish_position": (car, result),
                "share_beaten": (car, self.share_beaten[chosen]),
            },
            coords=coords,
        )
        scenarios = xr.Dataset(
            {"finish_position": (("race", "scenario", "driver"), self.forecast[chosen])}, coords=coords
        )
        return backtest, {"raw": scenarios, "recalibrated": scenarios}

    def of_scenarios(self, backtest, finish):
        """Return the backtest with the probabilities of other scenarios (race, scenario, driver)."""
        size, changed = backtest["field_size"].values, backtest.copy(deep=True)
        for name in ("raw", "recalibrated"):
            changed[name].values[:] = finish_probabilities(finish, size)
            changed[f"{name}_head_to_head"].values[:] = head_to_head(finish, size)
        return changed

    def backtest(self, rng, n_races=None):
        """Return `n_races` of the pool with results drawn from the truth."""
        return self.draw(rng, n_races)[0]
