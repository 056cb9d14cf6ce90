"""Convergence diagnostics of a sampler: rank-normalised split R-hat, effective sample sizes, divergences.

The module also holds their thresholds. Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021),
Rank-normalization, folding, and localization, doi:10.1214/20-BA1221.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from calibration_pipeline.mcmc.draws import Draws, Samples, read_draws

R_HAT_GOOD = 1.01
"""Rank-normalised R-hat below this is good (Vehtari et al. 2021)."""
R_HAT_FAILS = 1.05
"""From here on a fit must not be used."""
ESS_GOOD = 400
"""Bulk and tail effective sample sizes above this are good (Vehtari et al. 2021)."""
TAILS = (0.05, 0.95)
"""Tail ESS is the smaller effective sample size of these two quantiles (Vehtari et al. 2021, section 4.3)."""
LATEST = "latest"
"""Label of the fit on all races, beside the names of the folds."""
FLAT = "R-hat not computable: samples are flat (no chain dimension)"


@dataclass(frozen=True)
class Convergence:
    """Convergence statistics of a sampler run.

    Attributes
    ----------
    table : polars.DataFrame
        parameter, r_hat, ess_bulk, ess_tail: one row a scalar parameter, `slope[2]` being the third of
        several slopes. Null where a diagnostic cannot be computed.
    divergences : int or None
        Divergent transitions; None where the samples lack them.
    converged : bool
        Whether `reasons` is empty.
    reasons : list of str
        Thresholds that are missed, and diagnostics that cannot be computed.
    """

    table: pl.DataFrame
    divergences: int | None
    converged: bool
    reasons: list[str]


def judge_convergence(draws: Draws) -> Convergence:
    """Compute R-hat and effective sample sizes of every scalar parameter, and judge convergence by them.

    Parameters
    ----------
    draws : Draws
        Posterior draws. Flat draws have no R-hat; their effective sample sizes treat them as one chain.

    Returns
    -------
    Convergence
    """
    table = _convergence_table(draws)
    reasons = _reasons_against(draws, table)
    divergences = None if draws.diverging is None else int(draws.diverging.sum())
    if divergences:
        reasons.append(f"Divergences must be 0, got {divergences}")
    return Convergence(table, divergences, not reasons, reasons)


def convergence_group(fits: Iterable[tuple[str, tuple[Samples, int]]]) -> xr.Dataset:
    """Return the convergence diagnostics of several fits of one model, as stored beside them.

    Parameters
    ----------
    fits : iterable
        Fold, or `LATEST`, with draws and the number of divergent transitions of the whole fit; read one by
        one.

    Returns
    -------
    xarray.Dataset
        `FitConvergence`: r_hat, ess_bulk, ess_tail (fold, parameter), NaN where they cannot be computed;
        divergences (fold).
    """
    folds, tables, n_divergent = [], [], []
    for fold, (samples, n) in fits:
        folds.append(fold)
        tables.append(judge_convergence(read_draws(samples)).table)
        n_divergent.append(n)
    diagnostics = {
        name: (("fold", "parameter"), np.array([table[name].to_numpy() for table in tables], np.float64))
        for name in ("r_hat", "ess_bulk", "ess_tail")
    }
    return xr.Dataset(
        {**diagnostics, "divergences": ("fold", np.array(n_divergent, np.int64))},
        {"fold": folds, "parameter": tables[0]["parameter"].to_list()},
    )


def _convergence_table(draws: Draws) -> pl.DataFrame:
    n_chains, n_draws = draws.posterior.sizes["chain"], draws.posterior.sizes["draw"]
    arrays = {
        str(name): values.values.reshape(n_chains, n_draws, -1).astype(np.float64)
        for name, values in draws.posterior.data_vars.items()
    }
    labels = [
        label
        for name, values in draws.posterior.data_vars.items()
        for label in _scalar_names(str(name), values.shape[2:])
    ]
    matrix = np.concatenate(list(arrays.values()), axis=2)
    varies = np.ptp(matrix, axis=(0, 1)) > 0
    diagnostics = np.full((len(labels), 3), np.nan)
    if varies.any():
        diagnostics[varies] = _diagnose(matrix[:, :, varies])
    columns = dict(zip(("r_hat", "ess_bulk", "ess_tail"), diagnostics.T, strict=True))
    return pl.DataFrame({"parameter": labels, **columns}, nan_to_null=True)


def _diagnose(values: NDArray) -> NDArray[np.float64]:
    """Return R-hat, bulk and tail ESS of draws (chain, draw, parameter): (parameter, 3).

    As ArviZ's `rhat` and `ess`, which rank the draws of one parameter at a time, three times each.
    """
    import arviz as az  # imported late: code that only reads stored diagnostics does not need it

    axes = {"chain_axis": 0, "draw_axis": 1}
    half = values.shape[1] // 2
    halves = np.concatenate([values[:, :half], values[:, -half:]])
    ranked = _normal_scores(halves)
    folded = _normal_scores(np.abs(halves - np.median(halves, axis=(0, 1))))
    r_hat = np.maximum(*(az.rhat(scores, method="identity", **axes) for scores in (ranked, folded)))
    if len(values) == 1:
        r_hat[:] = np.nan
    bulk = az.ess(ranked, method="identity", **axes)
    return np.column_stack([r_hat, bulk, az.ess(values, method="tail", prob=TAILS, **axes)])


def _normal_scores(values: NDArray) -> NDArray[np.float64]:
    """Normal scores of the ranks of each parameter's draws (Vehtari et al. 2021, section 4.1)."""
    from scipy.stats import rankdata  # every process loads this module

    draws = values.reshape(-1, values.shape[-1])
    scores: NDArray[np.float64] = ndtri((rankdata(draws, axis=0) - 3 / 8) / (len(draws) + 1 / 4))
    return scores.reshape(values.shape)


def _scalar_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """`slope` alone, or `slope[0]`, `slope[1]`, ..."""
    return [f"{name}[{', '.join(map(str, index))}]" if index else name for index in np.ndindex(shape)]


def _reasons_against(draws: Draws, table: pl.DataFrame) -> list[str]:
    reasons: list[str] = []
    if not draws.has_chains:
        reasons.append(FLAT)
    elif draws.posterior.sizes["chain"] == 1:
        reasons.append("R-hat not computable: there is only one chain")
    elif unknown := table.filter(pl.col("r_hat").is_null())["parameter"].to_list():
        reasons.append(f"R-hat not computable: too few draws, or constant draws, of {', '.join(unknown)}")
    reasons += _worst(
        table.filter(pl.col("r_hat") >= R_HAT_GOOD), "r_hat", f"R-hat must be below {R_HAT_GOOD}", 3
    )
    for column, name in (("ess_bulk", "Bulk"), ("ess_tail", "Tail")):
        rule = f"{name} ESS must be above {ESS_GOOD}"
        reasons += _worst(table.filter(pl.col(column) <= ESS_GOOD), column, rule, 0)
    return reasons


def _worst(failing: pl.DataFrame, column: str, rule: str, digits: int) -> list[str]:
    """Return one line on the parameters that miss a threshold, the first three by name."""
    if failing.is_empty():
        return []
    shown = [
        f"{name} {value:.{digits}f}" for name, value in failing.select("parameter", column).head(3).rows()
    ]
    more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
    return [f"{rule}, got {', '.join(shown)}{more}"]
