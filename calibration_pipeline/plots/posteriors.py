"""Pictures of an archetype's fit: predictive checks, chains, and slopes by season.

The statistics are ArviZ's. Its plots are drawn on plain figures, never on pyplot's: nothing needs a display
and nothing has to be closed. Pictures of many artists, and those of which each archetype has its own, are
drawn here: an ArviZ plot of 50 lines, or of 6 panels, takes five times as long.
"""

import math
from collections.abc import Mapping

import arviz as az
import numpy as np
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from calibration_pipeline.archetypes import parse_archetype
from calibration_pipeline.calibration.archetype_fit import thin
from calibration_pipeline.plots.figures import (
    ARCHETYPE_STYLES,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    figure_panels,
    rows_height,
)
from calibration_pipeline.plots.series import legend_below

CHECKED = "rank_correlation"
"""The statistic of a race that is checked: rank correlation of forecast order and finish."""
MANY = "many_incidents"
SHOWN_CHAINS = ("slope_mu", "noise_sigma", "intercept")
DRAWN_HISTORIES = 13
"""Predictive draws a chain in `draw_predictive_distribution`; about fifty lines stay distinguishable."""
PANEL_HEIGHT = 3.4
RANKED_DRAWS = 1000
"""Most draws of all chains in `draw_ranks`; the test's time grows with their number."""
ALPHA = 0.01
"""Level of the tests in pictures, as in ArviZ's plots."""
PIT_POINTS = 200
"""Points of the curves in `draw_predictive_pit`."""
BFMI_LIMIT = 0.3
ROUND = (1, 2, 5, 10)
"""Distances of ticks, times a power of ten."""


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
    predicted = races["posterior_predictive"][CHECKED].transpose("chain", "draw", "obs")
    step = max(1, predicted.sizes["draw"] // DRAWN_HISTORIES)
    histories = predicted.isel(draw=slice(None, None, step)).values.reshape(-1, predicted.sizes["obs"])
    figure, (ax,) = figure_panels(1, 1, height=PANEL_HEIGHT, top=0.15)
    ax.add_collection(LineCollection(list(_steps(histories)), colors=BLUE, alpha=0.3, linewidths=1))
    (observed,) = _steps(races["observed_data"].to_dataset()[CHECKED].values[np.newaxis])
    ax.plot(*observed.T, color=BLACK)
    ax.autoscale_view()
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    ax.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    return _named(figure, xlabel="Rank correlation of forecast order and finish", ylabel="Share of races")


def _steps(values: np.ndarray) -> np.ndarray:
    """Return the points of the empirical distribution functions of (n, m) values, (n, 2 m, 2)."""
    share = np.arange(values.shape[1] + 1) / values.shape[1]
    x = np.repeat(np.sort(values, axis=1), 2, axis=1)
    return np.stack([x, np.broadcast_to(np.repeat(share, 2)[1:-1], x.shape)], axis=-1)


def draw_predictive_pit(races: xr.DataTree) -> Figure:
    """Draw the PIT of the rank correlation: its distribution minus the uniform one, also leave-one-out.

    A PIT value under the fit is the middle of the rank's interval among the predictive draws, so that it is
    never 0 or 1; the leave-one-out value is ArviZ's. The p-values are those of the test of uniformity for
    dependent values of Tesso et al. (2026, https://arxiv.org/abs/2603.02928).

    Parameters
    ----------
    races : xarray.DataTree
        From `checkable`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    predicted, observed = races["posterior_predictive"][CHECKED], races["observed_data"][CHECKED]
    n_draws = predicted.sizes["chain"] * predicted.sizes["draw"]
    pit = ((predicted < observed).sum(["chain", "draw"]) + 0.5) / (n_draws + 1)
    left_out = az.loo_pit(races, var_names=[CHECKED], pareto_pit=True)[CHECKED]
    figure, (ax,) = figure_panels(1, 1, height=PANEL_HEIGHT, top=0.15)
    ax.axhline(0, color=GREY, linewidth=1)
    limit = 0.0
    for name, values, color, dash in (
        ("Posterior predictive", pit, GREEN, "--"),
        ("Leave-one-out", left_out, BLACK, "-"),
    ):
        difference = values.azstats.ecdf(dim="obs", pit=True, npoints=PIT_POINTS).values
        p_value = float(values.azstats.uniformity_test(dim="obs")[0])
        ax.plot(*difference, dash, color=color, label=f"{name}: {_tested(p_value)}")
        limit = max(limit, _ecdf_limit(difference[1], values.size))
    ax.set(xlim=(0, 1), ylim=(-limit, limit))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    legend_below(ax, 1)
    return _named(figure, xlabel="PIT of the rank correlation", ylabel="Share of races − PIT")


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
    figure, (ax,) = figure_panels(1, 1, height=PANEL_HEIGHT, top=0.15)
    axes = np.empty((), dtype=object)
    axes[()] = ax
    panel = {"figure": np.array(figure, dtype=object), "plot": ((), axes), "row_index": 0, "col_index": 0}
    observed = races["observed_data"].to_dataset()[[MANY]]
    collection = az.PlotCollection(observed, xr.DataTree(xr.Dataset(panel)), backend="matplotlib")
    az.plot_ppc_pava(races, var_names=[MANY], plot_collection=collection)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    return _named(figure, xlabel="Predicted probability of many incidents", ylabel="Observed share")


def draw_ranks(fit: xr.DataTree) -> Figure:
    """Draw each chain's posterior beside the ranks of its draws among all chains'.

    For the ranks, draws are thinned to about the effective sample size, since ArviZ's test treats them as
    independent, and to `RANKED_DRAWS`. The test compares the chains by the method of Tesso et al. (2026,
    https://arxiv.org/abs/2603.02928).

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    every_draw = fit["posterior"].to_dataset()[list(SHOWN_CHAINS)]
    draws = _thinned(every_draw)
    ranks = draws.azstats.compute_ranks(dim=["chain", "draw"], relative=True)
    densities = every_draw.azstats.kde(dim="draw").transpose("plot_axis", ..., "chain")
    differences = ranks.azstats.ecdf(dim="draw", pit=True, npoints=draws.sizes["draw"])
    differences = differences.transpose("plot_axis", ..., "chain")
    p_values, *_ = ranks.azstats.mchain_uniformity_test(dim=["chain", "draw"])
    figure, panels = figure_panels(
        len(SHOWN_CHAINS), 2, height=5.2, left=0.2, right=0.2, bottom=0.6, top=0.35, gaps=(0.3, 0.62)
    )
    for name, left, right in zip(SHOWN_CHAINS, panels[::2], panels[1::2], strict=True):
        for ax, curves in ((left, densities[name]), (right, differences[name])):
            ax.set_prop_cycle(color=[BLUE, ORANGE, GREEN, PURPLE])
            ax.plot(*curves.values, linewidth=1.2)
            ax.set_yticks([])
        left.set_title(name.replace("_", " "), fontsize="medium")
        left.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
        right.set_title(_tested(float(p_values[name])), fontsize="medium")
        limit = _ecdf_limit(differences[name].sel(plot_axis="y").values, draws.sizes["draw"])
        right.set(xlim=(0, 1), ylim=(-limit, limit), xticks=[0, 0.5, 1])
    panels[-2].set_xlabel("Density of each chain")
    panels[-1].set_xlabel("Fractional rank: ECDF − uniform")
    return figure


def _tested(p_value: float) -> str:
    """Return a p-value beside its level, with the ruling where it is below."""
    return f"p = {p_value:.2f}{' <' if p_value < ALPHA else ','} α = {ALPHA}"


def _ecdf_limit(differences: np.ndarray, n: int) -> float:
    """Return the largest difference to show: 1.3 times the bound that n uniform values keep, or the data's.

    The bound is that of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990,
    https://doi.org/10.1214/aop/1176990746), at level `ALPHA`.
    """
    return max(1.3 * math.sqrt(math.log(2 / ALPHA) / (2 * n)), float(np.abs(differences).max()))


def draw_energy(fit: xr.DataTree) -> Figure:
    """Draw the sampler's marginal and transition energies, and each chain's BFMI with its limit of 0.3.

    Overlapping distributions show that the chains can move between the energies (Betancourt 2016,
    https://arxiv.org/abs/1604.00695).

    Parameters
    ----------
    fit : xarray.DataTree
        `CalibrationPosterior`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    energy = fit["sample_stats"]["energy"]
    bfmi = energy.azstats.bfmi(sample_dims=["chain", "draw"]).values
    figure, (left, right) = figure_panels(1, 2, height=PANEL_HEIGHT, gaps=(0.3, 0), width_ratios=(1, 3))
    left.axvline(BFMI_LIMIT, color=GREY, linestyle="--")
    left.plot(bfmi, np.arange(len(bfmi)), "o", color=BLACK)
    left.set(title="BFMI", ylabel="Chain", yticks=range(len(bfmi)), xlim=(0, max(1.2, 1.1 * bfmi.max())))
    left.set_xticks([0, 1])
    centred = energy - energy.mean()
    for name, values, color in (
        ("Marginal", centred, BLUE),
        ("Transition", energy.diff("draw"), ORANGE),
    ):
        x, density = values.azstats.kde(dim=["chain", "draw"]).values
        right.fill_between(x, density, color=color, alpha=0.35, linewidth=0)
        right.plot(x, density, color=color, label=name)
    right.set(xlabel="Energy, from its mean", yticks=[], title="Energy")
    right.set_ylim(bottom=0)
    right.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    right.legend(frameon=False, fontsize="small")
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
    height = rows_height(len(archetypes) * data.sizes["season"], 0.24)
    figure, axes = figure_panels(
        1, 2, height=height, left=0.5, gaps=(0.3, 0), width_ratios=(2, 3), sharey=True
    )
    columns = ["labels", "forest"]
    panels = {
        "figure": np.array(figure, dtype=object),
        "plot": ("column", axes),
        "row_index": ("column", [0, 0]),
        "col_index": ("column", [0, 1]),
    }
    collection = az.PlotCollection(
        data.expand_dims(column=2).assign_coords(column=columns),  # ArviZ wants the data once a panel
        xr.DataTree(xr.Dataset(panels, {"column": columns})),
        backend="matplotlib",
        aes={"y": rows, "overlay": rows, "color": ["archetype"]},
        color=[ARCHETYPE_STYLES[archetype].color for archetype in archetypes],
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
    """Return every n-th draw: about the least effective sample size, at most `RANKED_DRAWS`.

    The size is the sum of the chains' own sizes: that of all chains together is tiny where they disagree.
    """
    ess = float(posterior.azstats.ess(sample_dims="draw").sum("chain").to_array().min())
    n_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    return posterior.isel(draw=slice(None, None, math.ceil(n_draws / min(ess, n_draws, RANKED_DRAWS))))


def _named(figure: Figure, *, xlabel: str, ylabel: str) -> Figure:
    figure.axes[0].set(xlabel=xlabel, ylabel=ylabel, title="")
    return figure
