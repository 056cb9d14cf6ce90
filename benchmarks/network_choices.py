"""Choices of the causal network's constants, walk-forward: benchmarks/results/network_choices.csv.

    python -m benchmarks.network_choices --results cup_results.parquet --seasons 2015-2020

Each row changes one constant. The score is the log-likelihood of a held-out race, averaged over the posterior
draws: of the running order, and of who retires or is damaged. It needs no scenarios and has no Monte Carlo
error from them. Differences from the network as it is are paired by race; larger is better.
"""

from collections.abc import Sequence
from types import ModuleType
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import logsumexp

from benchmarks.evaluation import load_races, options_parser, season_text, walk_networks
from benchmarks.result_files import Row, estimated, write_results
from calibration_pipeline.scenarios.covariates import padded_width
from calibration_pipeline.scenarios.fit import posterior
from calibration_pipeline.scenarios.fit.by_fold import DRAWN
from calibration_pipeline.scenarios.fit.history import build_history, join_history
from calibration_pipeline.scenarios.fit.laplace import PARAMETER_DRAWS
from calibration_pipeline.scenarios.network import structure
from calibration_pipeline.stats.intervals import clustered_mean

OPTIONS: tuple[tuple[ModuleType, str, tuple[float, ...]], ...] = (
    (structure, "FRONT_CARS", (0, 5, 8, 16)),
    (posterior, "INCIDENT_DEVIATION_SCALE", (0.02, 0.25, 1.0)),
    (posterior, "DAMAGE_DEVIATION_SCALE", (0.02, 0.5)),
)
"""Module, constant, and its values beside the one that is used. Scales of .02 share the weights."""
TERMS = {"order": posterior.order_by_race, "regime": posterior.regime_by_race}


def score_seasons(
    features: pl.DataFrame, results: pl.DataFrame, seasons: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Return the log-likelihood of each held-out race by term, (race), from networks of earlier seasons."""
    scores: dict[str, list[NDArray]] = {name: [] for name in TERMS}
    for season in seasons:
        network = walk_networks(features, results, [season])[season].isel(fold=0)
        slots = join_history(features.filter(season=season), results)
        history = build_history(slots, padded_width(int(slots["field_size"].max())))  # type: ignore[arg-type]
        n_races = slots["race_index"].n_unique()
        history = jax.tree.map(lambda values, n=n_races: values[:n], history)
        draws = {name: jnp.asarray(network[name].values) for name in DRAWN}
        for name, term in TERMS.items():
            by_draw = jax.lax.map(lambda draw, of=term, h=history: of(h, draw, structure.FULL), draws)
            scores[name].append(logsumexp(by_draw, axis=0) - np.log(PARAMETER_DRAWS))
    return {name: np.concatenate(values) for name, values in scores.items()}


def main() -> None:
    """Run the benchmark."""
    options = options_parser(__doc__, "2015-2020", 0).parse_args()
    features, results = load_races(options.results, options.seasons[-1])
    used = score_seasons(features, results, options.seasons)
    for module, constant, values in OPTIONS:
        for value in values:
            jax.clear_caches()
            with patch.object(module, constant, value):
                scores = score_seasons(features, results, options.seasons)
            order, regime = (
                clustered_mean(scores[name] - used[name], np.arange(len(used[name]))) for name in TERMS
            )
            row: Row = {
                "seasons": season_text(options.seasons),
                "n_races": len(used["order"]),
                "constant": constant,
                "used": getattr(module, constant),
                "option": value,
                **estimated("order", order),
                **estimated("regime", regime),
            }
            print(row, flush=True)
            write_results("network_choices", [row], options.output, ("seasons", "constant", "option"))


if __name__ == "__main__":
    main()
