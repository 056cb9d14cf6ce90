"""Rates of wrong verdicts in a row of the matrix, by number of races.

    python -m benchmarks.verdict_errors --replications 150

Histories of 12, 36 and 108 races are drawn from known laws (`simulated_races`). Forecasts are right, wrong in
one respect, or at the edge of a limit. Each history has two rows: all races, and an era of its last third.
The library computes estimates, joint tests and rulings. A verdict is wrong if it trusts a forecast with a
true value outside a limit or within `MARGIN` of it, or rejects (do not trust) one with all of them inside.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.simulated_forecasts import (
    N_RESULTS,
    N_SCENARIOS,
    Forecast,
    World,
    estimate_markets,
    event_rows,
    make_forecast,
    make_world,
    select_dependence_events,
    true_values,
)
from benchmarks.simulated_races import LAWS, draw_races
from calibration_pipeline.markets import JOINT_EVENTS, MARKETS
from calibration_pipeline.plots.figures import GREEN, SKY, VERMILION
from calibration_pipeline.schemas.frames import RULINGS
from calibration_pipeline.verification.verdicts.rules import LIMITS, Verdict, judge_markets

RACES = (12, 36, 108)
ERA_SHARE = 3
"""The era is the last of this many parts of a history."""
N_TEMPLATES = 60
N_UNIFORMS = 500
"""Number of replicate histories of the joint tests: p-values are at least 1 / 501, the library's 1 / 4001."""
FIT_ERRORS, FIT_WEIGHTS = (-0.1, 0.0, 0.1), (1 / 6, 2 / 3, 1 / 6)
"""Errors of a recalibration's log slope and their probabilities: sd 0.06, as in fits to some fifty races."""
MARGIN = 0.01
RULING_STYLES = (
    {"color": GREEN},
    {"color": SKY, "hatch": "//"},
    {"color": VERMILION, "hatch": "xx"},
    {"color": "#dddddd"},
)
"""Styles of the bars, in the order of `RULINGS`."""


@dataclass(frozen=True)
class Case:
    """A raw and a recalibrated forecast.

    Attributes
    ----------
    name, law : name of the case, and law of the races
    raw : parameters of the law that the raw forecast changes
    repaired : whether recalibration finds the law up to `FIT_ERRORS`; otherwise it changes nothing
    """

    name: str
    law: str
    raw: dict[str, float]
    repaired: bool


WORLDS = {name: replace(law, incident_spread=0.6) for name, law in LAWS.items()}
WORLDS["lottery"] = replace(WORLDS["short track"], skill=2.5, noise=1.5)
INDEPENDENT = {"together": False, "team": 0.0}
CASES = (
    Case("calibrated, short track", "short track", {}, True),
    Case("calibrated, superspeedway", "superspeedway", {}, True),
    Case("over-confident, repaired", "short track", {"sharpness": 2.6}, True),
    Case("over-confident", "short track", {"sharpness": 2.6}, False),
    Case("under-confident", "short track", {"sharpness": 0.535}, False),
    Case("race effects missing", "lottery", {"noise": 0.0, "sharpness": 0.6}, False),
    Case("cars independent, short track", "short track", INDEPENDENT, False),
    Case("cars independent, superspeedway", "superspeedway", INDEPENDENT, False),
    Case("who retires too certain", "superspeedway", {"incident_spread": 1.4}, False),
    Case("too many retirements", "superspeedway", {"incident": -0.75}, False),
    Case("slope at its limit of .8", "short track", {"sharpness": 1.41}, False),
    Case("slope at its limit of 1.25", "short track", {"sharpness": 0.72}, False),
    Case("coverage at its limit of .55", "lottery", {"noise": 0.0, "sharpness": 0.74}, False),
)


@dataclass(frozen=True)
class Judged:
    """A forecast, and for each market whether to trust or to reject it would be wrong."""

    forecast: Forecast
    trust_is_wrong: dict[str, bool]
    rejection_is_wrong: dict[str, bool]


def simulate(
    case: Case, races: Sequence[int], n_replications: int, seed: int = 1, n_templates: int = N_TEMPLATES
) -> pl.DataFrame:
    """Rule on histories of one case.

    Returns
    -------
    polars.DataFrame
        case, n_races, replication, era (whether the row is the era's), market, verdict, wrong.
    """
    rng = np.random.default_rng(seed)
    world = make_world(rng, WORLDS[case.law], n_templates)
    about = select_dependence_events(rng, world)
    raw = _judged(rng, world, case.raw, right=not case.raw)
    errors = FIT_ERRORS if case.repaired else ()
    repaired = [
        _judged(rng, world, {"sharpness": float(np.exp(error))} if error else {}, right=True)
        for error in errors
    ]
    rows = []
    for n_races in races:
        for replication in range(n_replications):
            chosen, result = (
                rng.integers(len(world.size), size=n_races),
                rng.integers(N_RESULTS, size=n_races),
            )
            uniforms = rng.random((N_UNIFORMS, n_races))
            recalibrated = repaired[rng.choice(len(repaired), p=FIT_WEIGHTS)] if repaired else raw
            for era in (False, True):
                own = slice(-(n_races // ERA_SHARE) if era else None, None)
                history = chosen[own], result[own], uniforms[:, own]
                verdicts = _rule(world, raw.forecast, recalibrated.forecast, about, *history)
                rows += [
                    {
                        "case": case.name,
                        "n_races": n_races,
                        "replication": replication,
                        "era": era,
                        "market": verdict.market,
                        "verdict": verdict.verdict,
                        "wrong": _is_wrong(verdict, raw, recalibrated),
                    }
                    for verdict in verdicts[1:]
                ]
    return pl.DataFrame(rows)


def _judged(rng: np.random.Generator, world: World, changes: dict[str, float], *, right: bool) -> Judged:
    """Score a forecast that changes the law; without changes, the forecast is the true law."""
    drawn = draw_races(rng, world.law, world.fields, N_SCENARIOS, **changes) if changes else world.truth
    forecast = make_forecast(rng, world, drawn)
    outside, near = {JOINT_EVENTS: not right}, {JOINT_EVENTS: not right}
    for (market, quantity, level), value in true_values(world, forecast).items():
        low, high = LIMITS[quantity, level]
        outside[market] = outside.get(market, False) or not low <= value <= high
        near[market] = near.get(market, False) or not low + MARGIN <= value <= high - MARGIN
    return Judged(forecast, near, {market: not is_outside for market, is_outside in outside.items()})


def _is_wrong(verdict: Verdict, raw: Judged, recalibrated: Judged) -> bool:
    if verdict.verdict == "trust":
        return raw.trust_is_wrong[verdict.market]
    if verdict.verdict == "trust after recalibration":
        return recalibrated.trust_is_wrong[verdict.market]
    return verdict.verdict == "do not trust" and recalibrated.rejection_is_wrong[verdict.market]


def _rule(
    world: World,
    raw: Forecast,
    recalibrated: Forecast,
    about: NDArray,
    chosen: NDArray,
    result: NDArray,
    uniforms: NDArray,
) -> list[Verdict]:
    """Rule on one history."""
    estimates = list(estimate_markets(world, "raw", raw, chosen, result))
    events = [{"forecast": "raw", **row} for row in event_rows(world, raw, about, chosen, result, uniforms)]
    if recalibrated is raw:
        estimates += [estimate._replace(forecast="recalibrated") for estimate in estimates]
        events += [{**row, "forecast": "recalibrated"} for row in events]
    else:
        estimates += estimate_markets(world, "recalibrated", recalibrated, chosen, result)
        rows = event_rows(world, recalibrated, about, chosen, result, uniforms)
        events += [{"forecast": "recalibrated", **row} for row in rows]
    return judge_markets(estimates, pl.DataFrame(events, infer_schema_length=None), MARKETS)


HEADER = [
    "| forecast | races | wrong, row of all races | wrong, row of the era | wrong, either row | "
    + " | ".join(MARKETS)
    + " |",
    "|---|---|---|---|---|" + "---|" * len(MARKETS),
]


def markdown(rulings: pl.DataFrame) -> list[str]:
    """Return the Markdown rows of a case: rates of wrong rows, trusted / rejected by market in all races."""
    lines = []
    keys = ["case", "n_races"]
    for (case, n_races), rows in rulings.group_by(keys, maintain_order=True):
        by_row = rows.group_by("replication", "era").agg(pl.col("wrong").any())
        of_rows = [by_row.filter(era=era)["wrong"].mean() for era in (False, True)]
        either = rows.group_by("replication").agg(pl.col("wrong").any())["wrong"].mean()
        cells = []
        for market in MARKETS:
            own = rows.filter(market=market, era=False)["verdict"]
            trusted, rejected = own.str.starts_with("trust").mean(), (own == "do not trust").mean()
            cells.append(f"{trusted:.0%} / {rejected:.0%}")
        rates = [f"{rate:.1%}" for rate in (*of_rows, either)]
        lines.append(f"| {case} | {n_races} | {' | '.join(rates)} | {' | '.join(cells)} |")
    return lines


def draw(rulings: pl.DataFrame, path: Path) -> None:
    """Draw the shares of rulings over all markets as bars, a bar for each case and number of races."""
    shares = (
        rulings.filter(era=False)
        .group_by("case", "n_races", "verdict", maintain_order=True)
        .agg(n=pl.len())
        .with_columns(share=pl.col("n") / pl.col("n").sum().over("case", "n_races"))
    )
    rows = rulings.select("case", "n_races").unique(maintain_order=True).reverse()
    figure = Figure(figsize=(7.5, 0.28 * rows.height + 1.2), layout="constrained")
    ax = figure.add_subplot()
    left = np.zeros(rows.height)
    for ruling, style in zip(RULINGS, RULING_STYLES, strict=True):
        own = shares.filter(verdict=ruling)
        found = rows.join(own, on=["case", "n_races"], how="left", maintain_order="left")
        share = found["share"].fill_null(0).to_numpy()
        ax.barh(np.arange(rows.height), share, left=left, label=ruling, **style)
        left += share
    ax.set_yticks(np.arange(rows.height), [f"{case}, {n}" for case, n in rows.iter_rows()])
    ax.margins(y=0.01)
    ax.set(xlim=(0, 1), xlabel="share of verdicts, eight markets", ylabel="forecast, races")
    ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.3, 1.0), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--replications", type=int, default=150, help="histories for each case and number of races, 150"
    )
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--picture", type=Path, help="picture to draw, .png")
    options = parser.parse_args()
    lines, rulings = list(HEADER), []
    print("\n".join(lines))
    for case in CASES:
        found = simulate(case, RACES, options.replications)
        rulings.append(found)
        lines += markdown(found)
        print("\n".join(lines[-len(RACES) :]), flush=True)
    if options.output:
        options.output.write_text("\n".join([*lines, ""]))
    if options.picture:
        draw(pl.concat(rulings), options.picture)


if __name__ == "__main__":
    main()
