"""ArviZ plots of an archetype's fit: predictive checks, chains, and slopes by season.

ArviZ draws here on plain figures, never on pyplot's: nothing needs a display and nothing has to be closed.
"""

import math
from collections.abc import Mapping, Sequence

import arviz as az
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.calibration.archetype_fit import thin
from calibration_pipeline.plots.figures import ARCHETYPE_STYLES, GREY, PHONE_WIDTH, rows_height

CHECKED = "rank_correlation"
"""The statistic of a race that is checked: rank correlation of forecast order and finish."""
MANY = "many_incidents"
SHOWN_CHAINS = ("slope_mu", "noise_sigma", "intercept")
DRAWN_HISTORIES = 13
"""Predictive draws a chain in `draw_predictive_distribution`; about fifty lines stay distinguishable."""
PANEL_HEIGHT = 3.4


def checkable(fit: xr.DataTree) -> xr.DataTree:
    """Return the groups that the predictive checks read: one value a race, races along dimension `obs`.

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`, of at least one race.

    Returns
    -------
    xarray.DataTree
        Groups posterior, posterior_predictive, observed_data and log_likelihood, the latter at the
        predictive draws; `many_incidents` is whether a race had more than the median race.
    """
    predicted, observed, likelihood = (
        fit[group].to_dataset().rename(race="obs").reset_index("obs", drop=True)
        for group in ("posterior_predictive", "observed_data", "log_likelihood")
    )
    usual = float(observed["n_incidents"].median())
    at_draws = thin(likelihood["result"].transpose("chain", "draw", "obs").values, predicted.sizes["draw"])
    return xr.DataTree.from_dict(
        {
            "posterior": fit["posterior"].to_dataset(),
            "posterior_predictive": predicted.assign({MANY: (predicted["n_incidents"] > usual).astype(int)}),
            "observed_data": observed.assign({MANY: (observed["n_incidents"] > usual).astype(int)}),
            "log_likelihood": xr.Dataset({CHECKED: (("chain", "draw", "obs"), at_draws)}),
        }
    )


def draw_predictive_distribution(races: xr.DataTree) -> Figure:
    """Draw the distribution of races' rank correlation as observed, over histories that the fit predicts.

    Parameters
    ----------
    races : xarray.DataTree
        From `checkable`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    draws = races["posterior_predictive"].to_dataset()[[CHECKED]]
    step = max(1, draws.sizes["draw"] // DRAWN_HISTORIES)
    few = draws.isel(draw=slice(None, None, step))
    stacked = few.stack(sample=["chain", "draw"])
    figure, collection = _one_panel(stacked, overlay_ppc=["sample"])
    tree = xr.DataTree.from_dict(
        {
            "posterior_predictive": few,
            "observed_data": races["observed_data"].to_dataset()[[CHECKED]],
        }
    )
    az.plot_ppc_dist(tree, num_samples=stacked.sizes["sample"], plot_collection=collection)
    return _named(figure, xlabel="Rank correlation of forecast order and finish", ylabel="Share of races")


def draw_predictive_pit(races: xr.DataTree) -> Figure:
    """Draw the PIT of the rank correlation under the posterior predictive: ECDF minus uniform.

    Parameters
    ----------
    races : xarray.DataTree
        From `checkable`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, collection = _one_panel(races["observed_data"].to_dataset()[[CHECKED]])
    az.plot_ppc_pit(races, var_names=[CHECKED], plot_collection=collection)
    return _named(figure, xlabel="PIT of the rank correlation", ylabel="Share of races − PIT")


def draw_loo_pit(races: xr.DataTree) -> Figure:
    """Draw the leave-one-out PIT of the rank correlation: each race under the fit to all others.

    Parameters
    ----------
    races : xarray.DataTree
        From `checkable`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, collection = _one_panel(races["observed_data"].to_dataset()[[CHECKED]])
    az.plot_loo_pit(races, var_names=[CHECKED], plot_collection=collection)
    return _named(figure, xlabel="Leave-one-out PIT of the rank correlation", ylabel="Share of races − PIT")


def draw_predictive_pava(races: xr.DataTree) -> Figure:
    """Draw the observed share of races with many incidents against its predicted probability.

    Parameters
    ----------
    races : xarray.DataTree
        From `checkable`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, collection = _one_panel(races["observed_data"].to_dataset()[[MANY]])
    az.plot_ppc_pava(races, var_names=[MANY], plot_collection=collection)
    return _named(figure, xlabel="Predicted probability of many incidents", ylabel="Observed share")


def draw_ranks(fit: xr.DataTree) -> Figure:
    """Draw each chain's posterior beside the ranks of its draws among all chains'.

    Draws are thinned to about the effective sample size: ArviZ's test treats them as independent.

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(PHONE_WIDTH, 5.0), layout="constrained")
    axes = figure.subplots(len(SHOWN_CHAINS), 2)
    columns = ["dist", "rank"]
    rows = np.repeat(np.arange(len(SHOWN_CHAINS)), 2).reshape(-1, 2)

    def by_parameter(values: np.ndarray) -> xr.Dataset:
        panels = zip(SHOWN_CHAINS, values, strict=True)
        return xr.Dataset({name: ("column", row) for name, row in panels}, {"column": columns})

    panels = {
        "/": xr.Dataset({"figure": np.array(figure, dtype=object)}),
        "plot": by_parameter(axes),
        "row_index": by_parameter(rows),
        "col_index": by_parameter(np.tile([0, 1], (len(SHOWN_CHAINS), 1))),
    }
    data = _thinned(fit["posterior"].to_dataset()[list(SHOWN_CHAINS)])
    chains = {"color": ["chain"], "overlay": ["chain"]}
    collection = az.PlotCollection(
        _in_columns(data, columns), xr.DataTree.from_dict(panels), backend="matplotlib", aes=chains
    )
    tree = xr.DataTree.from_dict({"posterior": data})
    az.plot_rank_dist(tree, compact=False, plot_collection=collection)
    return figure


def draw_energy(fit: xr.DataTree) -> Figure:
    """Draw the sampler's marginal and transition energies, and each chain's BFMI with its limit of 0.3.

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    energies = xr.Dataset({"Energy": ("energy", np.zeros(2))}, {"energy": ["marginal", "transition"]})
    figure, collection = _two_panels(energies, ["bfmi", "energy"], (1, 3), PANEL_HEIGHT, color=["energy"])
    az.plot_energy(fit, plot_collection=collection, visuals={"legend": {"loc": "outside lower center"}})
    figure.axes[0].set_yticks(range(fit["sample_stats"].sizes["chain"]))
    figure.axes[1].set_xlabel("Energy, from its mean")
    return figure


def draw_slope_forest(fits: Mapping[str, xr.DataTree]) -> Figure:
    """Draw the calibration slope of every archetype and season, with 50 and 95 % intervals.

    Parameters
    ----------
    fits : mapping of str to xarray.DataTree
        `CalibrationPosterior` by archetype; all have the same seasons.

    Returns
    -------
    matplotlib.figure.Figure
    """
    slopes = [fit["posterior"].to_dataset()["log_slope"] for fit in fits.values()]
    archetypes = [parse_archetype(name) for name in fits]
    labels = xr.Variable("archetype", [archetype.label for archetype in archetypes])
    data = xr.Dataset({"slope": np.exp(xr.concat(slopes, dim=labels))})
    rows: list[str] = ["archetype", "season"]
    figure, collection = _two_panels(
        data,
        ["labels", "forest"],
        (2, 3),
        rows_height(len(archetypes) * data.sizes["season"], 0.24),
        sharey=True,
        colors=[ARCHETYPE_STYLES[archetype].color for archetype in archetypes],
        y=rows,
        overlay=rows,
        color=["archetype"],
    )
    tree = xr.DataTree.from_dict({"posterior": data})
    az.plot_forest(
        tree,
        combined=True,
        point_estimate="median",
        ci_kind="eti",
        ci_probs=(0.5, 0.95),
        labels=rows,
        plot_collection=collection,
    )
    forest = figure.axes[1]
    forest.axvline(1, color=GREY, linewidth=1, zorder=0)
    forest.set_xlabel("Calibration slope")
    forest.invert_yaxis()
    return figure


def _thinned(posterior: xr.Dataset) -> xr.Dataset:
    """Return every n-th draw, so that about the least effective sample size remains."""
    ess = float(az.ess(posterior).to_array().min())
    n_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    return posterior.isel(draw=slice(None, None, max(1, math.ceil(n_draws / ess))))


def _one_panel(data: xr.Dataset, **aes: Sequence[str]) -> tuple[Figure, az.PlotCollection]:
    figure = Figure(figsize=(PHONE_WIDTH, PANEL_HEIGHT), layout="constrained")
    axes = np.empty((), dtype=object)
    axes[()] = figure.subplots()
    panels = {"figure": np.array(figure, dtype=object), "plot": ((), axes), "row_index": 0, "col_index": 0}
    tree = xr.DataTree(xr.Dataset(panels))
    return figure, az.PlotCollection(data, tree, backend="matplotlib", aes=aes)


def _two_panels(
    data: xr.Dataset,
    columns: list[str],
    widths: tuple[int, int],
    height: float,
    *,
    sharey: bool = False,
    colors: Sequence[str] | None = None,
    **aes: Sequence[str],
) -> tuple[Figure, az.PlotCollection]:
    figure = Figure(figsize=(PHONE_WIDTH, height), layout="constrained")
    panels = {
        "figure": np.array(figure, dtype=object),
        "plot": ("column", figure.subplots(1, 2, width_ratios=widths, sharey=sharey)),
        "row_index": ("column", [0, 0]),
        "col_index": ("column", [0, 1]),
    }
    tree = xr.DataTree(xr.Dataset(panels, {"column": columns}))
    cycle = {} if colors is None else {"color": colors}
    data = _in_columns(data, columns)
    return figure, az.PlotCollection(data, tree, backend="matplotlib", aes=aes, **cycle)


def _in_columns(data: xr.Dataset, columns: list[str]) -> xr.Dataset:
    """Repeat the data along a dimension `column`, one entry a panel, as ArviZ requires."""
    return data.expand_dims(column=len(columns)).assign_coords(column=columns)


def _named(figure: Figure, *, xlabel: str, ylabel: str) -> Figure:
    figure.axes[0].set(xlabel=xlabel, ylabel=ylabel, title="")
    return figure
